//! The toolbox in conversation with the emulated host, directly and by the real instructions.

use guestinfo::backdoor::{Port, Protocol, Step};
use guestinfo::tclo::{Conversation, Nic, Order, PowerChange, Toolbox};
use guestinfo::{IpNet, sys::Backdoor};
use nix::sys::wait::WaitStatus;

use hypervisor::tracer;
use hypervisor::{Hypervisor, Shared};

const SAID: [&str; 5] =
    ["reset", "ping", "Set_Option broadcastIP 1", "Capabilities_Register", "OS_Halt"];

fn host() -> Hypervisor {
    let said = SAID.iter().map(|request| request.as_bytes().to_vec()).collect();
    Hypervisor { said, high_bandwidth: true, ..Hypervisor::default() }
}

fn toolbox() -> Toolbox {
    let net = IpNet { addr: [172, 16, 0, 2].into(), prefix_len: 16 };
    let mut toolbox = Toolbox::new();
    toolbox.set_nics(vec![Nic { mac: "00:50:56:01:02:03".to_owned(), addresses: vec![net] }]);
    toolbox
}

/// Visits the host until it wants something done to the VM.
fn talk(port: impl Port + Clone) -> PowerChange {
    let mut conversation = Conversation::new(port, toolbox());
    for _ in 0..100 {
        let visit = conversation.visit(0);
        assert!(visit.faults.is_empty(), "{visit:?}");
        if let Some(Order::Power(change)) = visit.order {
            return change;
        }
    }
    panic!("the host never came to the point");
}

#[track_caller]
fn check_host(host: &Hypervisor) {
    let replies = host
        .heard
        .iter()
        .filter(|(protocol, message)| *protocol == Protocol::Tclo && !message.is_empty());
    let replies: Vec<_> = replies.map(|(_, message)| String::from_utf8_lossy(message)).collect();
    assert_eq!(replies, ["OK ATR toolbox", "OK ", "OK ", "OK ", "OK "]);
    assert_eq!(host.values["guestinfo.ip"], b"172.16.0.2");
    let requests = host.heard.iter().filter(|(protocol, _)| *protocol == Protocol::Rpci);
    let names: Vec<_> = requests
        .map(|(_, message)| message.split(|byte| *byte == b' ').next().expect("a name"))
        .collect();
    let expected = [
        "info-set",
        "SetGuestInfo",
        "tools.set.version",
        "tools.capability.statechange",
        "tools.os.statechange.status",
    ];
    assert_eq!(names, expected.map(str::as_bytes));
    assert!(host.all_closed());
}

#[test]
fn a_host_gets_its_answers_before_the_vm_stops() {
    let shared = Shared::default();
    *shared.0.borrow_mut() = host();
    assert_eq!(talk(shared.clone()), PowerChange::Halt);
    check_host(&shared.0.borrow());
}

#[test]
fn a_host_gets_its_answers_by_the_real_instructions() {
    let mut host = host();
    let mut guest = std::process::Command::new(std::env::current_exe().expect("own path"));
    guest.args(["--exact", "toolbox::as_the_guest", "--ignored", "--nocapture"]);
    let ended = tracer::run(&mut host, &mut guest, false);
    assert!(matches!(ended.status, WaitStatus::Exited(_, 0)), "{ended:?}");
    check_host(&host);
}

#[test]
#[ignore = "the guest of another test: without its tracer it would die of SIGSEGV"]
fn as_the_guest() {
    assert_eq!(talk(Backdoor::caught_by_a_tracer()), PowerChange::Halt);
}

#[test]
fn a_lost_channel_is_opened_anew() {
    let shared = Shared::default();
    let mut conversation = Conversation::new(shared.clone(), toolbox());
    assert_eq!(conversation.visit(0).wait.as_millis(), 10);
    assert_eq!(conversation.visit(0).wait.as_millis(), 20);
    shared.0.borrow_mut().refusals = Some((Step::SendSize, 1));
    let visit = conversation.visit(0);
    assert_eq!((visit.faults.len(), visit.wait.as_secs()), (1, 5), "{visit:?}");
    shared.0.borrow_mut().said.push_back(b"ping".to_vec());
    assert!(conversation.visit(0).faults.is_empty());
    conversation.visit(0);
    assert_eq!(shared.0.borrow().heard.last(), Some(&(Protocol::Tclo, b"OK ".to_vec())));
}

#[test]
fn what_the_host_refuses_is_told_and_the_talk_goes_on() {
    let shared = Shared::default();
    *shared.0.borrow_mut() = Hypervisor { reply: Some(Some(b"0 no".to_vec())), ..host() };
    let mut conversation = Conversation::new(shared, toolbox());
    let faults: usize = (0..10).map(|_| conversation.visit(0).faults.len()).sum();
    assert_eq!(faults, 5, "one for each request that was made");
}
