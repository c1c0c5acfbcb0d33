//! serialmux beside running VMs: background runs, logs, clients, its own death in the middle, and a VM that stands still.

use qemu_tests::deadline::deadline;
use qemu_tests::{Lab, sha256};
use rustix::process::Signal;

#[test]
fn a_vm_in_the_background_is_followed_attached_to_and_remembered() {
    let lab = Lab::new();
    let script = "echo one; read x; echo got $x; read y; echo bye >&2; exit 4";
    let started =
        lab.containervm(["run", "-d", "-i", "--name", "bg", "busybox", "sh", "-c", script]);
    let started = started.finish();
    let id = started.code(0).out().trim().to_owned();
    assert_eq!(id.len(), 64, "{started:?}");

    let follower = lab.serialmux(["logs", "-f", "bg"]);
    follower.expect("one\n");
    lab.serialmux(["ps", "--json"]).finish().code(0).shows(&id).shows("\"status\":\"running\"");
    let waiter = lab.serialmux(["wait", "bg"]);
    let mut attached = lab.serialmux(["attach", "bg"]);
    attached.write("two\n").expect("got two\n");
    follower.expect("got two\n");
    attached.write("three\n");
    attached.end().code(4);
    follower.end().code(0);
    waiter.finish().code(0).prints("4\n");

    // The VM goes, and who has seen to that; what it said does not.
    assert!(lab.processes("containervm", "supervise").iter().all(|it| it.wait(deadline())));
    assert!(lab.processes("qemu-system-x86_64", "").is_empty());
    let logs = lab.serialmux(["logs", &id[..12]]).finish();
    logs.code(0).prints("one\ngot two\n");
    assert_eq!(logs.err(), "bye\n");
    let last = lab.serialmux(["logs", "-t", "-n", "1", "bg"]).finish();
    last.code(0).prints("").complains(&["20", "T", "Z bye"]);
    lab.containervm(["ls"]).finish().code(0).shows("bg").shows("exited(4)");
    lab.serialmux(["kill", "bg"]).finish().code(125).complains(&["bg"]);
    let stopped = "You cannot attach to a stopped container, start it first";
    lab.serialmux(["attach", "bg"]).finish().code(125).complains(&[stopped]);

    lab.containervm(["rm", "bg"]).finish().code(0).prints("bg\n");
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
    lab.serialmux(["logs", "bg"]).finish().code(125).complains(&["no such container: bg"]);
}

#[test]
fn a_running_vm_is_removed_by_force_only() {
    let lab = Lab::new();
    let start = ["run", "-d", "--name", "busy", "busybox", "sleep", "1000"];
    lab.containervm(start).finish().code(0);
    let rm = lab.containervm(["rm", "busy"]).finish();
    rm.code(125).complains(&["busy is running", "--force"]);
    lab.containervm(["rm", "-f", "busy"]).finish().code(0);
    assert!(lab.processes("qemu-system-x86_64", "").is_empty());
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
}

#[test]
fn a_daemon_killed_amid_output_loses_nothing() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let port = port_of(&daemon.so_far());
    let script = "head -c 1500000 /dev/urandom >f; sha256sum <f >&2; cat f";
    let start = ["run", "-d", "--name", "on", "busybox", "sh", "-c", script];
    lab.containervm(start).finish().code(0);
    // Three times: at the beginning, and wherever it is after that.
    let mut daemon = daemon;
    let follower = lab.serialmux(["logs", "-f", "on"]);
    for n in [1, 300_000, 900_000] {
        follower.expect_bytes(n);
        daemon.signal(Signal::KILL);
        drop(daemon.finish());
        daemon = lab.daemon(&port);
    }
    let followed = follower.end();
    assert_eq!(followed.code(0).stdout.len(), 1_500_000);
    assert!(followed.err().contains(&sha256(&followed.stdout)), "{}", followed.err());
    lab.serialmux(["wait", "on"]).finish().code(0).prints("0\n");
    let logs = lab.serialmux(["logs", "on"]).finish();
    assert_eq!(logs.code(0).stdout.len(), 1_500_000);
    assert!(logs.err().starts_with(&sha256(&logs.stdout)), "{}", logs.err());
}

#[test]
fn an_exit_without_a_daemon_waits_for_the_next_one() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let port = port_of(&daemon.so_far());
    let script = "echo up; read x; echo $x; exit 6";
    let start = ["run", "-d", "-i", "--name", "last", "busybox", "sh", "-c", script];
    lab.containervm(start).finish().code(0);
    let mut attached = lab.serialmux(["attach", "last"]);
    attached.write("words\n");
    lab.serialmux(["logs", "-f", "last"]).expect("up\n");
    daemon.signal(Signal::KILL);
    drop(daemon.finish());
    let _daemon = lab.daemon(&port);
    attached.end().code(6);
    lab.serialmux(["wait", "last"]).finish().code(0).prints("6\n");
    lab.serialmux(["logs", "last"]).finish().code(0).prints("up\nwords\n");
}

#[test]
fn a_vm_that_stood_still_goes_on() {
    let lab = Lab::new();
    let script = "echo up; read x; head -c 500000 /dev/urandom >f; sha256sum <f >&2; cat f; read y";
    let mut vm = lab.begin(["-i", "--name", "still", "busybox", "sh", "-c", script]);
    vm.expect("up\n");
    // What the kernel and the agent say never mixes with what the container says.
    // In no order: neither waits for the other.
    lab.console("still").expect("tether: link is up");
    lab.console("still").expect("runs as process");
    let qemu = lab.qemu("still");
    vm.write("go\n").expect_bytes(100_000);
    qemu.signal(Signal::STOP);
    // Meanwhile the daemon serves others: a whole life of another VM fits in.
    lab.run(["busybox", "true"]).code(0);
    qemu.signal(Signal::CONT);
    vm.write("end\n");
    let vm = vm.finish();
    assert_eq!(vm.code(0).stdout.len(), 500_003);
    assert!(vm.err().contains(&sha256(&vm.stdout[3..])), "{}", vm.err());
}

#[test]
fn a_qemu_that_dies_is_an_error_and_no_wait_without_end() {
    let lab = Lab::new();
    let vm = lab.begin(["--name", "shot", "busybox", "sh", "-c", "echo up; sleep 1000"]);
    vm.expect("up\n");
    lab.qemu("shot").signal(Signal::KILL);
    vm.end().code(137).complains(&["without an exit status", "killed by signal 9"]);
}

fn port_of(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    let address = line.split(';').next().unwrap_or_default();
    address.rsplit(':').next().unwrap_or_default().to_owned()
}

#[test]
fn a_process_that_is_not_to_wait_outruns_the_line_and_every_byte_is_there_or_counted() {
    let lab = Lab::new();
    let script = "head -c 1000000 /dev/urandom >r; for i in 1 2 3 4 5 6 7 8 9; do cat r; done; echo end; exit 6";
    let (mode, size) = ("mode=non-blocking", "max-buffer-size=128k");
    let run = ["run", "--log-opt", mode, "--log-opt", size, "busybox", "sh", "-c", script];
    let run = lab.containervm(run).finish();
    run.code(6);
    assert!(run.stdout.ends_with(b"end\n"), "the newest is kept");
    // serialmux: N bytes (M lines) of output from T to T were dropped in the VM: ...
    let told = run.err();
    let gaps = told.lines().filter(|line| line.contains("were dropped in the VM"));
    let dropped = gaps.map(|line| {
        let n = line.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok());
        n.unwrap_or_else(|| panic!("no count in {line}"))
    });
    let dropped: usize = dropped.sum();
    assert!(dropped > 1_000_000, "{told}");
    assert_eq!(run.stdout.len() + dropped, 9_000_004, "{told}");
}
