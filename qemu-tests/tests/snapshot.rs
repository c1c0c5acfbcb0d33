//! VMs that are put back to a snapshot: found out and marked, and never taken for what they were.

use qemu_tests::{Lab, Monitor, Program};
use rustix::process::Signal;

/// Counts its lines of input.
const SCRIPT: &str =
    "echo ready; while read line; do n=$((n+1)); echo \"$n $line\"; done; echo end";

/// A VM whose disk can be put back, too, as it is kept in a form that knows snapshots.
fn start(lab: &Lab) -> Program {
    let print =
        ["run", "--print-vmx", "--boot", "direct", "--pipe", "uart", "--name", "past", "-i"];
    let mut command = lab.command("containervm", &print);
    command.args(["busybox", "sh", "-c", SCRIPT]);
    let vmx = lab.start(command).finish().code(0).out();
    let vmx = format!("{vmx}scsi0:0.mode = \"independent-nonpersistent\"\n");
    let file = lab.file("past.vmx", vmx).to_string_lossy().into_owned();
    let vm = lab.containervm(["start", "--attach", "-i", &file]);
    vm.expect("ready\n");
    vm
}

fn port(daemon: &Program) -> String {
    let said = daemon.so_far();
    let address = said.split(';').next().and_then(|it| it.rsplit(':').next()).expect("an address");
    address.trim().to_owned()
}

fn ends_well(lab: &Lab, vm: Program) {
    let vm = vm.finish();
    vm.code(0).prints("ready\n1 a\n2 b\n3 c\n2 d\n3 e\nend\n");
    assert!(vm.err().contains("put back to a snapshot"), "{}", vm.err());
    let logs = lab.serialmux(["logs", "past"]).finish();
    logs.code(0).prints("ready\n1 a\n2 b\n3 c\n2 d\n3 e\nend\n");
    assert!(logs.err().contains("put back to a snapshot"), "{}", logs.err());
}

#[test]
fn what_a_vm_says_after_it_was_put_back_is_marked() {
    let lab = Lab::new();
    let _daemon = lab.daemon("0");
    let mut vm = start(&lab);
    vm.write("a\n").expect("1 a\n");
    let mut monitor = Monitor::connect(&lab.vm("past")).expect("a monitor");
    monitor.human("savevm before").expect("a snapshot");
    vm.write("b\n").expect("2 b\n");
    vm.write("c\n").expect("3 c\n");
    monitor.human("loadvm before").expect("back to it");
    vm.write("d\n").expect("2 d\n");
    vm.write("e\n").expect("3 e\n");
    ends_well(&lab, vm);
}

#[test]
fn a_new_daemon_finds_out_too() {
    let lab = Lab::new();
    let mut daemon = lab.daemon("0");
    let port = port(&daemon);
    let mut vm = start(&lab);
    vm.write("a\n").expect("1 a\n");
    let mut monitor = Monitor::connect(&lab.vm("past")).expect("a monitor");
    monitor.human("savevm before").expect("a snapshot");
    vm.write("b\n").expect("2 b\n");
    vm.write("c\n").expect("3 c\n");
    daemon.signal(Signal::KILL);
    drop(daemon.finish());
    monitor.human("loadvm before").expect("back to it");
    daemon = lab.daemon(&port);
    vm.write("d\n").expect("2 d\n");
    vm.write("e\n").expect("3 e\n");
    ends_well(&lab, vm);
    drop(daemon);
}
