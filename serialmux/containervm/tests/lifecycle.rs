//! A VM's life with a real QEMU: started, seen running, refused a second time, ended in each way.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

use containervm::{
    accel::Accel,
    home::Home,
    machine::Machine,
    qemu::{Facts, QemuCommand},
    qmp::Qmp,
    store::{State, Store, StoreError, Vm},
    supervise::{self, Running, SuperviseError},
};
use guestinfo::Vmx;

/// A machine with nothing to boot, whose firmware waits for ever, and a directory name as long as ids are.
fn vm(store: &Store, dir: &Path) -> Vm {
    let cdrom = dir.join("empty.iso");
    fs::write(&cdrom, vec![0; 65536]).unwrap();
    let mut vmx = Vmx::new();
    for (key, value) in [
        ("memsize", "128"),
        ("ide0:0.present", "TRUE"),
        ("ide0:0.deviceType", "cdrom-image"),
        ("ide0:0.fileName", cdrom.to_str().unwrap()),
    ] {
        vmx.set(key, value).unwrap();
    }
    store.draft(Some("still"), "", false).unwrap().finish(&vmx).unwrap()
}

fn launch(store: &Store, vm: &Vm) -> Result<Running, SuperviseError> {
    let (machine, _) = Machine::load(&vm.vmx()).unwrap();
    let facts = Facts { dir: vm.dir.clone(), accel: Accel::Tcg, bootstrap_iso: None, kernel: None };
    supervise::launch(store, vm, &machine, &QemuCommand::new(&machine, &facts).unwrap())
}

/// Waits for QEMU's socket: it listens on it before it runs the VM.
fn wait_for_socket(vm: &Vm) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while Qmp::connect(&vm.dir).is_err() {
        assert!(std::time::Instant::now() < deadline, "QEMU never listened");
        std::thread::yield_now();
    }
}

#[test]
fn a_vm_is_started_once_and_ends_on_request_by_force_or_with_a_reason() {
    if debian::on_path("qemu-system-x86_64").is_none() {
        eprintln!("skipped: there is no qemu-system-x86_64");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Home::at(&dir.path().join("d".repeat(100)))).unwrap();
    let vm = vm(&store, dir.path());

    let running = launch(&store, &vm).unwrap();
    assert_eq!(store.state(&vm).unwrap(), State::Running);
    assert!(matches!(launch(&store, &vm), Err(SuperviseError::Store(StoreError::Running(_)))));
    wait_for_socket(&vm);
    supervise::power_off(&vm).unwrap();
    supervise::kill(&vm).unwrap();
    let exit = running.wait().unwrap();
    assert_eq!(exit.how, "powered off");
    assert_eq!(store.state(&vm).unwrap(), State::Exited(exit));

    // The socket is gone, so only the signal is left.
    let running = launch(&store, &vm).unwrap();
    wait_for_socket(&vm);
    fs::remove_file(vm.dir.join("qmp.sock")).unwrap();
    supervise::kill(&vm).unwrap();
    assert_eq!(running.wait().unwrap().how, "QEMU was killed by signal 9");

    let text = fs::read_to_string(vm.vmx()).unwrap();
    let missing = "serial1.present = \"TRUE\"\nserial1.fileType = \"file\"\nserial1.fileName = \"/no/such/dir/log\"\n";
    fs::write(vm.vmx(), text + "\n" + missing).unwrap();
    let how = launch(&store, &vm).unwrap().wait().unwrap().how;
    assert!(
        how.starts_with("QEMU failed with status 1: ") && how.contains("/no/such/dir/log"),
        "{how}"
    );

    // Whoever waits may go away; the VM still runs, and can still be ended.
    drop(launch(&store, &vm_without(&vm, missing)).unwrap());
    assert_eq!(store.state(&vm).unwrap(), State::Running);
    wait_for_socket(&vm);
    store.remove(&vm, true).unwrap();
    assert!(store.list().unwrap().is_empty());
}

fn vm_without(vm: &Vm, lines: &str) -> Vm {
    let text = fs::read_to_string(vm.vmx()).unwrap();
    fs::write(vm.vmx(), text.replace(lines, "")).unwrap();
    vm.clone()
}
