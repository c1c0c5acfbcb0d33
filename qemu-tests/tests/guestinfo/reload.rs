//! Processes that a config asks for while its VM runs, and a config that comes with the initramfs.

use crate::bench::{Bench, id, lines};
use crate::disks::{PlainDisk, set, visible};
use crate::keys::vic;
use crate::volumes::runs;
use serde_json::Value;
use std::fs;

/// The keys of a process beside the container's own.
fn exec(pairs: &mut Vec<(String, String)>, name: &str, script: &str, active: bool) {
    for (key, value) in [
        ("common/id", name),
        ("cmd/Path", "/bin/sh"),
        ("cmd/Args~", &format!("sh|-c|{script}")),
        ("cmd/Args", "2"),
        ("active", if active { "true" } else { "false" }),
    ] {
        set(pairs, &format!("/execs|{name}/{key}@non-persistent"), value);
    }
}

fn told(report: &Value, name: &str, key: &str) -> String {
    let key = format!("guestinfo.vice..execs|{name}.{key}@non-persistent");
    report[key].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_process_that_a_reload_asks_for_runs_and_one_that_it_takes_back_is_stopped() {
    let bench = Bench::new();
    let id = id('a');
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    let script = "sh|-c|mkdir /tmp/x; echo up; read line; cat /tmp/x/*; exit 3";
    for (key, value) in [("cmd/Args~", script), ("cmd/Args", "2"), ("openstdin", "true")] {
        set(&mut pairs, &format!("/sessions|{id}/{key}"), value);
    }
    set(&mut pairs, &format!("/sessions|{id}/User"), "root");
    let (vmx, config) = (bench.vmx("execs", &lines(&pairs)), PlainDisk::new(&bench));
    config.write(&pairs);
    let vm = bench.lab.start(bench.without_config(&vmx, &config.device()));
    let mut attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up\n");
    let reload = || bench.lab.serialmux(["reload", &id]).finish();

    set(&mut pairs, "/execs@non-persistent", "E1|E2|E3");
    exec(&mut pairs, "E1", "echo one >/tmp/x/1; exit 6", true);
    let trap =
        "trap 'echo stopped >/tmp/x/2; exit 9' TERM; touch /tmp/x/2; while :; do sleep 1; done";
    exec(&mut pairs, "E2", trap, true);
    exec(&mut pairs, "E3", "echo never >/tmp/x/3", false);
    config.write(&pairs);
    reload().code(0).shows("session E1 is being started; session E2 is being started");
    let report = bench.await_report(&id, |report| told(report, "E1", "status") == "6");
    assert_eq!(told(&report, "E1", "started"), "true", "{report:#}");
    bench.await_report(&id, |report| told(report, "E2", "started") == "true");
    reload().code(0).prints("nothing has changed\n");

    exec(&mut pairs, "E2", trap, false);
    exec(&mut pairs, "E4", "exit 1", true);
    set(&mut pairs, "/execs@non-persistent", "E1|E2|E3|E4");
    set(&mut pairs, "/execs|E4/cmd/Path@non-persistent", "/bin/nothing");
    config.write(&pairs);
    reload().code(0).shows("session E2 is being stopped").shows("session E4 is being started");
    bench.await_report(&id, |report| told(report, "E2", "status") == "9");
    let report = bench.await_report(&id, |report| told(report, "E4", "status") == "127");
    assert!(told(&report, "E4", "started").contains("/bin/nothing"), "{report:#}");
    attached.write("\n");
    attached.finish().code(3).prints("up\none\nstopped\n");
    vm.finish().code(0);
}

#[test]
fn a_hang_up_of_the_agent_has_it_read_its_config_again() {
    let bench = Bench::new();
    let id = id('c');
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    // No process of the container sees the agent. But root in there may have the kernel run a program outside of
    // all namespaces when a process dumps its core (core(5)), and that one sees it. (\174 is the
    // bar that begins such a program's line; as itself it would part the arguments.)
    let script = "mkdir /tmp/proc; mount -t proc proc /tmp/proc; \
                  printf '\\174/containerfs/bin/busybox kill -HUP 1' >/tmp/proc/sys/kernel/core_pattern; \
                  echo up; read line; sh -c 'kill -SEGV $$'; read line; exit 3";
    runs(&mut pairs, &id, script);
    set(&mut pairs, "/diagnostics/debug", "0");
    let (vmx, config) = (bench.vmx("hangup", &lines(&pairs)), PlainDisk::new(&bench));
    config.write(&pairs);
    let vm = bench.lab.start(bench.without_config(&vmx, &config.device()));
    let mut attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up\n");
    set(&mut pairs, "/link/linger", "9");
    config.write(&pairs);
    let reload = |report: &Value| report["guestinfo.vice..link.reload"].clone();
    assert!(reload(&bench.inspect(&id)["report"]).is_null(), "nobody has asked yet");
    attached.write("\n");
    let report = bench.await_report(&id, |report| !reload(report).is_null());
    assert_eq!(reload(&report), "1: done: linger 9 s", "{report:#}");
    attached.write("\n");
    attached.finish().code(3);
    vm.finish().code(0);
}

/// An archive of one file, as `cpio -H newc` makes it (`Documentation/driver-api/early-userspace/buffer-format.rst`).
fn newc(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, contents) in [(name, 0o100_600, contents), ("TRAILER!!!", 0, &b""[..])] {
        let fields = [0, mode, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend_from_slice(b"070701");
        fields.iter().for_each(|field| archive.extend(format!("{field:08x}").bytes()));
        archive.extend([name.as_bytes(), b"\0"].concat());
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(contents);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

#[test]
fn a_config_that_is_appended_to_the_initramfs_does_as_well() {
    let bench = Bench::new();
    let id = id('b');
    let pairs = vic(&id, &["A=1".to_owned()]);
    let vmx = bench.vmx("initramfs", &lines(&pairs));
    let shown = bench.lab.containervm(["start", "--print-qemu", &vmx]).finish().code(0).out();
    let (_, rest) = shown.split_once(" -initrd ").expect("a direct boot");
    let initramfs = rest.split(' ').next().expect("a file");
    let mut both = fs::read(initramfs).expect("it can be read");
    both.extend(newc("config.vmx", visible(&pairs).as_bytes()));
    let appended = bench.lab.file("initramfs", both);
    let given = format!("-fw_cfg name=opt/containervm.vmx,file={vmx}");
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    let line = shown.replace(&given, "").replace(initramfs, &appended.display().to_string());
    let mut qemu = std::process::Command::new("sh");
    qemu.args(["-c", line.trim()]).env("CONTAINERVM_HOME", bench.lab.home());
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    attached.finish().code(7).shows("/var/tmp\nnobody\nusers\n");
    let source = bench.inspect(&id)["report"]["guestinfo.vice..link.source"].clone();
    assert_eq!(source, "file /config.vmx", "{}", bench.console("initramfs"));
}
