//! `containervm run` as `docker run`: exit codes, streams, options, and what a process inside sees.

use qemu_tests::{Lab, OciImage, debian_root, record, sha256};
use rustix::process::Signal;
use serde_json::json;
use std::time::Instant;

#[test]
fn a_command_says_hello_and_its_vm_is_gone() {
    let lab = Lab::new();
    let hello = lab.run(["busybox", "echo", "hello"]);
    hello.code(0).prints("hello\n");
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
    assert!(lab.processes("qemu-system-x86_64", "").is_empty());
}

#[test]
fn the_exit_code_is_the_commands() {
    let lab = Lab::new();
    lab.run(["busybox", "sh", "-c", "exit 7"]).code(7);
    lab.run(["busybox", "sh", "-c", "sleep 1000 & kill -9 $!; wait $!"]).code(137);
    // The image's own file is not executable; nothing is called so.
    lab.run(["busybox", "/etc/passwd"]).code(126).complains(&["/etc/passwd", "ermission denied"]);
    lab.run(["busybox", "nosuch"]).code(127).complains(&["nosuch", "not found"]);
    lab.run(["busybox", "/no/such"]).code(127).complains(&["/no/such", "no such file"]);
}

#[test]
fn a_signal_from_outside_ends_it_with_128_and_its_number() {
    let lab = Lab::new();
    let asleep = lab.begin(["--name", "asleep", "busybox", "sh", "-c", "echo up; sleep 1000"]);
    asleep.expect("up");
    lab.serialmux(["kill", "-s", "NOPE", "asleep"]).finish().code(125).complains(&["NOPE"]);
    lab.serialmux(["kill", "-s", "KILL", "asleep"]).finish().code(0);
    asleep.end().code(137);
}

#[test]
fn an_interrupt_reaches_the_process_and_its_own_answer_counts() {
    let lab = Lab::new();
    let script = "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 1; done";
    let waits = lab.begin(["--name", "waits", "busybox", "sh", "-c", script]);
    waits.expect("up");
    waits.signal_group(Signal::INT);
    waits.expect("caught");
    waits.end().code(3);
    // Its VM has gone with it, and somebody else may have the name.
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
}

#[test]
fn standard_output_and_error_stay_apart() {
    let lab = Lab::new();
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done";
    let both = lab.run(["busybox", "sh", "-c", script]);
    both.code(0).prints("out1\nout2\nout3\n");
    assert!(both.err().ends_with("err1\nerr2\nerr3\n"), "{both:?}");
}

#[test]
fn input_passes_through_with_its_end() {
    let lab = Lab::new();
    let wc = lab.begin(["-i", "busybox", "wc", "-c"]);
    wc.feed(b"12345\n".to_vec()).end().code(0).prints("6\n");
    // Without -i there is no input, whatever is piped in.
    let none = lab.begin(["busybox", "wc", "-c"]);
    none.feed(b"12345\n".to_vec()).end().code(0).prints("0\n");
}

#[test]
fn five_megabytes_of_noise_arrive_as_they_left() {
    let lab = Lab::new();
    let script = "head -c 5000000 /dev/urandom >f; cat f; sha256sum <f >&2";
    let noise = lab.run(["busybox", "sh", "-c", script]);
    noise.code(0);
    assert_eq!(noise.stdout.len(), 5_000_000);
    assert!(noise.err().contains(&sha256(&noise.stdout)), "{}", sha256(&noise.stdout));
}

#[test]
fn five_megabytes_of_text_arrive_as_they_left() {
    let lab = Lab::new();
    let expected: String = (1..=730_000).map(|i| format!("{i}\n")).collect();
    let start = Instant::now();
    let text = lab.run(["busybox", "seq", "730000"]);
    text.code(0);
    record(&format!("{} bytes of text, boot included: {:.1?}", expected.len(), start.elapsed()));
    assert_eq!(sha256(&text.stdout), sha256(expected.as_bytes()));
}

#[test]
fn one_megabyte_of_input_arrives_as_it_was_sent() {
    let lab = Lab::new();
    // A sequence with no period that compression could use.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let bytes: Vec<u8> = (0..1_000_000).map(|_| next()).collect();
    let expected = format!("{}  -\n", sha256(&bytes));
    lab.begin(["-i", "busybox", "sha256sum"]).feed(bytes).end().code(0).prints(&expected);
}

#[test]
fn options_are_seen_inside() {
    let lab = Lab::new();
    let file = lab.file("vars", "# a comment\nFROM_FILE=1 2\n");
    let script = "echo $A/$FROM_FILE/$(pwd)/$(id -un):$(id -g)/$(hostname)/$(nproc); \
                  cat /sys/fs/cgroup/memory.max; echo $$";
    let seen = lab.run([
        "-e",
        "A=b c",
        "--env-file",
        &file.to_string_lossy(),
        "-w",
        "/var/tmp",
        "-u",
        "nobody:users",
        "-h",
        "inside",
        "--cpus",
        "2",
        "-m",
        "384m",
        "--entrypoint",
        "/bin/sh",
        "busybox",
        "-c",
        script,
    ]);
    seen.code(0).shows("b c/1 2//var/tmp/nobody:100/inside/2\n");
    // It is PID 1 of its own namespace, as with Docker.
    assert!(seen.out().ends_with("\n1\n"), "{seen:?}");
    seen.shows(&format!("\n{}\n", 384 << 20));
}

#[test]
fn a_vm_boots_by_bios_uefi_and_directly() {
    let lab = Lab::new();
    for (boot, firmware) in [("bios", false), ("efi", true), ("direct", false)] {
        let start = Instant::now();
        let script = "test -d /sys/firmware/efi && echo efi; cat /proc/cmdline >&2; echo up";
        let up = lab.begin(["--boot", boot, "busybox", "sh", "-c", script]);
        up.expect("up\n");
        record(&format!("power-on to first output, {boot}: {:.1?}", start.elapsed()));
        let up = up.finish();
        up.code(0).prints(if firmware { "efi\nup\n" } else { "up\n" });
    }
}

#[test]
fn a_debian_root_file_system_runs() {
    let lab = Lab::new();
    let tar = debian_root();
    let tar = &*tar.to_string_lossy();
    let script = "set -e; echo ${BASH_VERSION%%.*}; apt --version; id; \
                  dpkg-query -W | wc -l; cat /etc/debian_version";
    let debian = lab.run(["-m", "512m", tar, "bash", "-lc", script]);
    debian.code(0).shows("5\napt 2.").shows("uid=0(root) gid=0(root)").shows("\n12.");
    let nobody =
        lab.run(["-u", "nobody", tar, "sh", "-c", "id; touch /x 2>/dev/null || echo refused"]);
    nobody.code(0).prints("uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\nrefused\n");
}

#[test]
fn what_an_oci_image_says_about_its_process_is_honored() {
    let lab = Lab::new();
    let busybox = std::fs::read(busybox(&lab)).expect("busybox");
    let image = OciImage::new()
        .layer(&[
            ("bin/", 0o755, b""),
            ("bin/sh", 0o755, &busybox),
            ("srv/", 0o755, b""),
            ("srv/old", 0o644, b"old\n"),
            ("etc/", 0o755, b""),
            ("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nweb:x:33:44::/srv:/bin/sh\n"),
        ])
        .layer(&[("srv/.wh.old", 0o644, b""), ("srv/new", 0o644, b"new\n")]);
    let config = json!({
        "Entrypoint": ["/bin/sh", "-c"], "Env": ["PATH=/bin", "COLOR=blue"],
        "Cmd": ["echo $COLOR; pwd; echo *; set -- $(grep -E '^(Uid|Gid)' /proc/self/status); echo $2 $7"],
        "WorkingDir": "/srv", "User": "web", "StopSignal": "SIGINT",
    });
    let dir = lab.path("image");
    image.write(&dir, &config);
    let dir = &*dir.to_string_lossy();
    lab.run([dir]).code(0).prints("blue\n/srv\nnew\n33 44\n");
    lab.run(["-e", "COLOR=red", dir, "echo $COLOR"]).code(0).prints("red\n");
}

/// A static busybox, as the product unpacks it for its own image.
fn busybox(lab: &Lab) -> std::path::PathBuf {
    // Whatever makes the built-in image brings it in.
    lab.containervm(["run", "--print-vmx", "busybox"]).finish().code(0);
    let packages = std::fs::read_dir(lab.home().join("cache/debian")).expect("unpacked packages");
    let dirs = packages.flatten().map(|entry| entry.path());
    let programs = dirs.flat_map(|dir| [dir.join("bin/busybox"), dir.join("usr/bin/busybox")]);
    programs.into_iter().find(|path| path.is_file()).expect("busybox was unpacked")
}

#[test]
fn four_vms_run_at_once_and_each_is_itself() {
    let lab = Lab::new();
    let all: Vec<_> = ["1", "2", "3", "4"]
        .into_iter()
        .map(|n| {
            let mut vm = lab.begin(["-i", "-e", &format!("N={n}"), "busybox", "sh"]);
            vm.write("echo up $N\n");
            (n, vm)
        })
        .collect();
    for (n, vm) in &all {
        vm.expect(&format!("up {n}"));
    }
    // All four are there, before any ends.
    assert_eq!(lab.processes("qemu-system-x86_64", "").len(), 4);
    for (n, mut vm) in all {
        vm.write("seq 20000 | sha256sum; exit $N\n");
        let expected: String = (1..=20_000).map(|i| format!("{i}\n")).collect();
        vm.finish().code(n.parse().unwrap()).shows(&sha256(expected.as_bytes()));
    }
}
