//! The emulated hypervisor against a client of VMware's own making: `vmware-rpctool` of open-vm-tools.

use std::path::Path;
use std::process::Command;

use nix::sys::wait::WaitStatus;

use crate::hypervisor::Hypervisor;
use crate::tracer::{self, Ended};

const RPCTOOL: &str = "/usr/bin/vmware-rpctool";

fn rpctool(hypervisor: &mut Hypervisor, request: &str) -> Option<Ended> {
    if !Path::new(RPCTOOL).exists() {
        eprintln!("skipped: {RPCTOOL} is not there; apt-get install open-vm-tools");
        return None;
    }
    Some(tracer::run(hypervisor, Command::new(RPCTOOL).arg(request), true))
}

#[track_caller]
fn check(hypervisor: &mut Hypervisor, request: &str, code: i32, stdout: &str) {
    let Some(ended) = rpctool(hypervisor, request) else { return };
    assert!(matches!(ended.status, WaitStatus::Exited(_, found) if found == code), "{ended:?}");
    assert_eq!(ended.stdout, stdout, "{ended:?}");
    assert!(ended.answered[0] > 0 && ended.answered[3] > 0, "{ended:?}");
    assert!(hypervisor.all_closed(), "a channel was left open");
}

#[test]
fn vmwares_own_client_reads_and_writes_values() {
    for high_bandwidth in [false, true] {
        let values = Hypervisor::with_values([("guestinfo.vice./common/id", "e8f2")]);
        let mut hypervisor = Hypervisor { high_bandwidth, ..values };
        check(&mut hypervisor, "info-get guestinfo.vice./common/id", 0, "e8f2\n");
        check(&mut hypervisor, "info-set guestinfo.new some text", 0, "\n");
        check(&mut hypervisor, "info-get guestinfo.new", 0, "some text\n");
        check(&mut hypervisor, "info-get guestinfo.absent", 1, "");
        let by_this_port = if high_bandwidth { hypervisor.n_high } else { hypervisor.n_low };
        assert!(by_this_port > 0 || !Path::new(RPCTOOL).exists());
    }
}
