//! How a process is set up: limits, capabilities, mounts, an init; the signals that reach it, and how it ends.

use qemu_tests::Lab;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn limits_groups_and_mounts_are_as_asked_for() {
    let lab = Lab::new();
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; id -G; pwd; \
                  grep -E ' (/dev/shm|/scratch) ' /proc/mounts | cut -d' ' -f2,4; \
                  touch /x 2>/dev/null || echo refused; echo '#!/bin/sh\necho runs' >/scratch/x; \
                  chmod 755 /scratch/x; /scratch/x; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max";
    let seen = lab.run([
        "--boot",
        "direct",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--oom-score-adj",
        "77",
        "--group-add",
        "users",
        "--group-add",
        "4242",
        "--shm-size",
        "8m",
        "--tmpfs",
        "/scratch:size=4m,exec",
        "--read-only",
        "--pids-limit",
        "99",
        "--cpus",
        "0.5",
        "-w",
        "/made/for/this",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let mounts = "/dev/shm rw,nosuid,nodev,noexec,relatime,size=8192k,inode64\n\
                  /scratch rw,nosuid,nodev,relatime,size=4096k,inode64\n";
    let before = format!("100\n200\n0\n77\n0 100 4242\n/made/for/this\n{mounts}refused\n");
    seen.code(0).prints(&format!("{before}runs\n99\n50000 100000\n"));
}

/// The capability sets of a process, and whether it can gain new ones, as `/proc` shows them.
const SETS: &str = "grep -E '^(Cap|NoNew)' /proc/self/status | tr -s '\\t\\n' '  '";

fn sets(inherited: u64, effective: u64, bounding: u64, no_new: u8) -> String {
    format!(
        "CapInh: {inherited:016x} CapPrm: {effective:016x} CapEff: {effective:016x} \
         CapBnd: {bounding:016x} CapAmb: {:016x} NoNewPrivs: {no_new} ",
        0
    )
}

#[test]
fn capabilities_are_all_or_those_left_as_docker_gives_them() {
    let lab = Lab::new();
    let all = (1 << 41) - 1;
    let root = lab.run(["--boot", "direct", "busybox", "sh", "-c", SETS]);
    root.code(0).prints(&sets(0, all, all, 0));
    let net_raw = 1 << 13;
    let few = ["--cap-drop", "ALL", "--cap-add", "net_raw", "--security-opt", "no-new-privileges"];
    let [drop, all_, add, net, opt, privileges] = few;
    let few =
        ["--boot", "direct", drop, all_, add, net, opt, privileges, "busybox", "sh", "-c", SETS];
    lab.run(few).code(0).prints(&sets(0, net_raw, net_raw, 1));
    let user = ["--boot", "direct", "-u", "nobody", "--cap-drop", "CAP_KILL", "busybox"];
    let [boot, direct, u, nobody, drop, kill, image] = user;
    let user = [boot, direct, u, nobody, drop, kill, image, "sh", "-c", SETS];
    lab.run(user).code(0).prints(&sets(0, 0, all & !(1 << 5), 0));
}

#[test]
fn what_no_process_can_be_given_is_refused_before_anything_starts() {
    let lab = Lab::new();
    let check = |option: &str, value: &str, parts: &[&str]| {
        let refused = lab.containervm(["run", option, value, "busybox", "true"]).finish();
        let said = refused.err();
        assert_eq!(refused.status.code(), Some(125), "{refused:?}");
        assert!(parts.iter().all(|part| said.contains(part)), "{refused:?}");
    };
    check("--ulimit", "files=1", &["files=1", "NAME=SOFT[:HARD]"]);
    check("--ulimit", "nofile=2:1", &["nofile=2:1", "above"]);
    check("--cap-add", "NET", &["\"NET\"", "capabilities(7)"]);
    check("--tmpfs", "tmp", &["\"tmp\"", "absolute"]);
    check("--security-opt", "seccomp=x", &["seccomp=x", "no-new-privileges"]);
    check("--oom-score-adj", "2000", &["2000", "-1000 and 1000"]);
}

#[test]
fn system_paths_are_hidden_when_asked_for() {
    let lab = Lab::new();
    let script = "cat /proc/timer_list /proc/keys | wc -c; echo 1 >/proc/sys/vm/drop_caches; echo $?; \
                  ls /sys/firmware | wc -l";
    let confined = "systempaths=confined";
    let seen =
        lab.run(["--boot", "direct", "--security-opt", confined, "busybox", "sh", "-c", script]);
    seen.code(0).prints("0\n1\n0\n");
    let seen = lab.run(["--boot", "direct", "busybox", "sh", "-c", script]);
    assert!(!seen.out().starts_with("0\n") && seen.out().contains("\n0\n"), "{seen:?}");
}

#[test]
fn an_init_collects_ten_thousand_orphans_and_ends_as_its_program_does() {
    let lab = Lab::new();
    // Two forks each, no exec: the middle one ends at once and leaves the other to process 1.
    let script = "cat /proc/1/comm; tr '\\0' ' ' </proc/1/cmdline | cut -c1-20; echo; echo $$; \
                  i=0; while [ $i -lt 10000 ]; do (: &); i=$((i+1)); case $i in *000) echo at $i;; esac; done; \
                  until set -- /proc/[0-9]*; [ $# = 2 ]; do sleep 1; done; echo clean; kill -37 $$";
    let forks = lab.begin(["--boot", "direct", "--init", "busybox", "sh", "-c", script]);
    forks.expect("docker-init\n/sbin/docker-init --\n\n2\n");
    for thousands in 1..=10 {
        forks.expect(&format!("at {thousands}000"));
    }
    // What is left is the init and the shell.
    forks.end().code(128 + 37).shows("clean\n");
}

#[test]
fn a_container_may_use_exactly_the_memory_it_is_given() {
    let lab = Lab::new();
    for (given, bytes) in [("8m", 8 << 20), ("256m", 256 << 20), ("1g", 1_u64 << 30)] {
        let cat = ["busybox", "cat", "/sys/fs/cgroup/memory.max"];
        let [busybox, cat, file] = cat;
        let seen = lab.run(["--boot", "direct", "-m", given, busybox, cat, file]);
        seen.code(0).prints(&format!("{bytes}\n"));
    }
}

#[test]
fn every_signal_reaches_the_process() {
    let lab = Lab::new();
    let script = "for n in $(seq 64); do case $n in 9|19|32|33) ;; *) trap \"echo got $n.\" $n;; esac; \
                  done; echo up; while :; do sleep 0.1; done";
    let waits =
        lab.begin(["--boot", "direct", "--name", "traps", "-i", "busybox", "sh", "-c", script]);
    waits.expect("up");
    let kill = |name: &str, signal: u32| {
        lab.serialmux(["kill", "-s", &signal.to_string(), name]).finish().code(0);
    };
    // Two that nobody can trap, and two that the C library keeps for itself.
    for signal in (1..=64).filter(|signal| ![9, 19, 32, 33].contains(signal)) {
        kill("traps", signal);
        waits.expect(&format!("got {signal}."));
    }
    // Stopped, it takes none of the others, but it can be killed.
    kill("traps", 19);
    kill("traps", 15);
    kill("traps", 9);
    waits.end().code(137);
    // Without a handler they end it, also when it is under an init.
    for signal in [32, 33] {
        let asleep = ["--boot", "direct", "--name", "asleep", "--init", "busybox", "sh", "-c"];
        let [boot, direct, name, is, init, image, sh, c] = asleep;
        let asleep =
            lab.begin([boot, direct, name, is, init, image, sh, c, "echo up; exec sleep 1000"]);
        asleep.expect("up");
        kill("asleep", signal);
        asleep.end().code(128 + signal.cast_signed());
    }
}

#[test]
fn an_exec_is_bound_as_its_container_is() {
    let lab = Lab::new();
    let bound = [
        "--ulimit",
        "nofile=100:200",
        "--oom-score-adj",
        "77",
        "--group-add",
        "4242",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "net_raw",
        "--security-opt",
        "no-new-privileges",
        "--read-only",
    ];
    let idle = lab.idle(&bound);
    let script = format!(
        "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; id -G; touch /x 2>/dev/null || echo refused; {SETS}"
    );
    let net_raw = 1 << 13;
    let expected = format!("100\n200\n77\n0 4242\nrefused\n{}", sets(0, net_raw, net_raw, 1));
    lab.serialmux(["exec", "box", "sh", "-c", &script]).finish().code(0).prints(&expected);
    lab.stop_idle(idle);
}

#[test]
fn the_environment_is_as_docker_makes_it() {
    let lab = Lab::new();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let run = ["--boot", "direct", "-h", "inside", "-e", "A=1", "-e", "HOME=", "-e", "A=2", "-e"];
    let [boot, direct, h, name, e, a, f, home, g, b, i] = run;
    let seen = lab.run([boot, direct, h, name, e, a, f, home, g, b, i, "E=", "busybox", "env"]);
    seen.code(0);
    let mut lines: Vec<_> = seen.out().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A=2", "E=", "HOME=/root", "HOSTNAME=inside", path]);
    let run = ["--boot", "direct", "busybox", "sh", "-c", "echo $TERM; exit"];
    let mut in_terminal = lab.run_in_terminal(run);
    in_terminal.expect("xterm\r\n");
    in_terminal.finish().code(0);
}

#[test]
fn a_user_has_its_groups_and_opens_its_streams_again() {
    let lab = Lab::new();
    let idle = lab.idle(&[]);
    let add = "echo web:x:77:88::/srv:/bin/sh >>/etc/passwd; \
               printf 'www:x:88:\\nlogs:x:99:adm,web\\nmore:x:111:web\\n' >>/etc/group";
    lab.serialmux(["exec", "box", "sh", "-c", add]).finish().code(0);
    let script = "id -u; id -G; echo $HOME; cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr; \
                  echo more >>/proc/self/fd/1";
    let exec = lab.serialmux(["exec", "-i", "-u", "web", "box", "sh", "-c", script]);
    let ended = exec.feed(b"in\n".to_vec()).end();
    ended.code(0).prints("77\n88 99 111\n/srv\nin\nout\nmore\n");
    assert_eq!(ended.err(), "err\n");
    let group = lab.serialmux(["exec", "-u", "web:99", "box", "id", "-G"]).finish();
    group.code(0).prints("99\n");
    let script = "echo out >/dev/stdout; echo err >/dev/stderr; echo tty >$(tty)";
    let exec = ["exec", "-t", "-u", "web", "box", "sh", "-c", script];
    lab.serialmux(exec).finish().code(0).prints("out\r\nerr\r\ntty\r\n");
    lab.stop_idle(idle);
    // The container's own process, too; and who is not there is named.
    let run = ["--boot", "direct", "-u", "7:7", "busybox", "sh", "-c", script];
    let [boot, direct, u, user, image, sh, c, _] = run;
    let script = "echo out >/dev/stdout; echo err >/dev/stderr";
    let ended = lab.run([boot, direct, u, user, image, sh, c, script]);
    ended.code(0).prints("out\n");
    assert!(ended.err().ends_with("err\n"), "{ended:?}");
    for (user, text) in [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("0:nosuch", "unable to find group nosuch: no matching entries in group file"),
    ] {
        lab.run([boot, direct, u, user, image, "true"]).code(125).complains(&[text]);
    }
}

/// A program of two bytes, which are no instruction: its end is a fault of its own (elf(5), `ud2`).
fn faulty() -> Vec<u8> {
    let (base, code_at) = (0x40_0000_u64, 0x78_u64);
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let header = [&2_u16.to_le_bytes()[..], &62_u16.to_le_bytes(), &1_u32.to_le_bytes()];
    elf.extend(header.concat());
    elf.extend([base + code_at, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend([0; 4]);
    elf.extend([64, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    // One segment, readable and executable, which is the whole file.
    elf.extend([1, 5].map(u32::to_le_bytes).concat());
    let size = code_at + 2;
    elf.extend([0, base, base, size, size, 0x1000].map(u64::to_le_bytes).concat());
    elf.extend(b"\x0f\x0b");
    elf
}

#[test]
fn how_a_process_ended_is_told_in_full() {
    let lab = Lab::new();
    let how = |signal: i32, core_dumped: bool, raw_status: i32, oom_killed: bool| {
        json!([signal, core_dumped, raw_status, oom_killed, "drained"])
    };
    let of = |exit: &serde_json::Value| {
        json!(["signal", "core_dumped", "raw_status", "oom_killed", "output"].map(|key| &exit[key]))
    };
    let image = lab.path("faulty");
    fs::create_dir(&image).unwrap();
    let program = image.join("faulty");
    fs::write(&program, faulty()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let image = &*image.to_string_lossy();
    // SIGILL.
    let fault = 4;
    for (name, limit, dumps) in [("dumps", "core=-1", true), ("none", "core=0", false)] {
        let run = ["run", "--boot", "direct", "--name", name, "--ulimit", limit, image, "/faulty"];
        lab.containervm(run).finish().code(128 + fault);
        let exit = &lab.inspect(name)["exit"];
        assert_eq!(of(exit), how(fault, dumps, if dumps { fault | 0x80 } else { fault }, false));
    }
    let hog = ["run", "--boot", "direct", "--name", "hog", "-m", "64m", "busybox", "tail"];
    let [run, boot, direct, name, is, m, size, busybox, tail] = hog;
    let hog = [run, boot, direct, name, is, m, size, busybox, tail, "/dev/zero"];
    lab.containervm(hog).finish().code(137);
    assert_eq!(of(&lab.inspect("hog")["exit"]), how(9, false, 9, true));

    let idle = lab.idle(&["-w", "/tmp"]);
    for (script, code, expected) in [
        ("exit 3", 3, how(0, false, 3 << 8, false)),
        ("kill -SEGV $$", 139, how(11, true, 11 | 0x80, false)),
        ("ulimit -c 0; kill -SEGV $$", 139, how(11, false, 11, false)),
    ] {
        lab.serialmux(["exec", "box", "sh", "-c", script]).finish().code(code);
        let shown = lab.inspect("box");
        let command = format!("sh -c {script}");
        let execs = shown["execs"].as_array().unwrap().iter();
        let ends = execs.filter(|exec| exec["command"] == command);
        let ends: Vec<_> = ends.map(|exec| of(&exec["exit"])).collect();
        assert_eq!(ends, [expected], "{script}");
    }
    lab.stop_idle(idle);
}
