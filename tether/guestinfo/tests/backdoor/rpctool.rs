//! The emulated hypervisor against VMware's own clients, `vmware-rpctool` and `vmtoolsd`.

use std::path::Path;
use std::process::Command;

use guestinfo::backdoor::Protocol;
use guestinfo::tclo::Toolbox;
use nix::sys::wait::WaitStatus;

use hypervisor::Hypervisor;
use hypervisor::tracer::{self, Ended};

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

const VMTOOLSD: &str = "/usr/bin/vmtoolsd";

/// What is asked of VMware's own daemon. Nothing that changes power: it would do it, to this
/// machine.
const SAID: [&str; 4] = ["reset", "ping", "Capabilities_Register", "ping"];

fn has_said_all(hypervisor: &Hypervisor) -> bool {
    replies(hypervisor).len() == SAID.len()
}

fn replies(hypervisor: &Hypervisor) -> Vec<String> {
    let all = hypervisor.heard.iter();
    let tclo = all.filter(|(protocol, message)| *protocol == Protocol::Tclo && !message.is_empty());
    tclo.map(|(_, message)| String::from_utf8_lossy(message).trim_end_matches('\0').to_owned())
        .collect()
}

#[test]
fn vmwares_own_daemon_answers_the_emulated_host() {
    if !Path::new(VMTOOLSD).exists() {
        eprintln!("skipped: {VMTOOLSD} is not there; apt-get install open-vm-tools");
        return;
    }
    let no_plugins = tempfile::tempdir().expect("temporary directory");
    let mut host = Hypervisor { high_bandwidth: true, ..Hypervisor::default() };
    host.said = SAID.iter().map(|request| request.as_bytes().to_vec()).collect();
    let mut daemon = Command::new(VMTOOLSD);
    daemon.args(["--name", "vmsvc", "--common-path"]).arg(no_plugins.path());
    daemon.arg("--plugin-path").arg(no_plugins.path());
    let ended = tracer::run_until(&mut host, &mut daemon, true, has_said_all);
    let ours: Vec<_> =
        SAID.iter().map(|said| Toolbox::new().handle(said.as_bytes(), 0).reply).collect();
    let ours: Vec<_> = ours.iter().map(|reply| String::from_utf8_lossy(reply)).collect();
    assert_eq!(replies(&host), ours, "{ended:?}");
    let heard =
        |start: &str| host.heard.iter().any(|(_, message)| message.starts_with(start.as_bytes()));
    assert!(heard("tools.set.version "), "registers its version: {:?}", host.heard);
}
