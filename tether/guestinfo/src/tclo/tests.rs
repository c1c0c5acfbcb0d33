//! Tests of the toolbox, request by request.

use super::*;
use crate::IpNet;

fn nics() -> Vec<Nic> {
    let net = IpNet { addr: [172, 16, 0, 2].into(), prefix_len: 16 };
    vec![Nic { mac: "00:50:56:01:02:03".to_owned(), addresses: vec![net] }]
}

#[track_caller]
fn check(toolbox: &mut Toolbox, request: &str, reply: &str, requests: &[&str]) {
    let answer = toolbox.handle(request.as_bytes(), 0);
    assert_eq!(String::from_utf8_lossy(&answer.reply), reply, "{request}");
    let made: Vec<_> =
        answer.requests.iter().map(|made| String::from_utf8_lossy(made).into_owned()).collect();
    let starts = made.iter().zip(requests).all(|(made, expected)| made.starts_with(expected));
    assert!(made.len() == requests.len() && starts, "{request}: {made:?}");
}

#[test]
fn requests_are_answered_as_vmwares_tools_do() {
    let toolbox = &mut Toolbox::new();
    check(toolbox, "reset", "OK ATR toolbox", &[]);
    check(toolbox, "ping", "OK ", &[]);
    check(toolbox, "ping\0", "OK ", &[]);
    check(toolbox, "Set_Option synctime 1", "OK ", &[]);
    check(
        toolbox,
        "Capabilities_Register",
        "OK ",
        &["tools.set.version 2147483647", "tools.capability.statechange"],
    );
    check(toolbox, "make coffee", "Unknown Command", &[]);
    check(toolbox, "", "Unknown Command", &[]);
    check(toolbox, "Set_Option broadcastIP", "ERR an option needs a name and a value", &[]);
    check(toolbox, "Set_Option", "ERR an option needs a name and a value", &[]);
}

#[test]
fn power_changes_are_acknowledged_by_number_and_passed_on() {
    for (request, number, change) in [
        ("OS_Halt", 1, PowerChange::Halt),
        ("OS_Reboot", 2, PowerChange::Reboot),
        ("OS_PowerOn", 3, PowerChange::PowerOn),
        ("OS_Resume", 4, PowerChange::Resume),
        ("OS_Suspend", 5, PowerChange::Suspend),
    ] {
        let acknowledged = format!("tools.os.statechange.status 1 {number}\0");
        check(&mut Toolbox::new(), request, "OK ", &[&acknowledged]);
        assert_eq!(Toolbox::new().handle(request.as_bytes(), 0).order, Some(Order::Power(change)));
    }
    assert_eq!(Toolbox::new().handle(b"ping", 0).order, None);
}

#[test]
fn addresses_are_told_when_they_are_wanted_and_when_they_change() {
    let toolbox = &mut Toolbox::new();
    assert!(toolbox.set_nics(nics()).is_empty(), "nobody asked");
    let told = ["info-set guestinfo.ip 172.16.0.2", "SetGuestInfo  9 "];
    check(toolbox, "Set_Option broadcastIP 1", "OK ", &told);
    check(toolbox, "reset", "OK ATR toolbox", &told);
    assert!(toolbox.set_nics(nics()).is_empty(), "nothing new");
    assert_eq!(toolbox.set_nics(Vec::new()).len(), 1, "no primary address any more");
    assert_eq!(toolbox.set_nics(nics()).len(), 2);
    check(toolbox, "Set_Option broadcastIP 0", "OK ", &[]);
    check(toolbox, "reset", "OK ATR toolbox", &[]);
}

#[test]
fn an_idle_host_is_visited_ever_less_often() {
    let waits: Vec<_> = (1..8).map(|n_idle| idle_wait(n_idle).as_millis()).collect();
    assert_eq!(waits, [10, 20, 40, 80, 100, 100, 100]);
    assert_eq!(idle_wait(u32::MAX).as_millis(), 100);
}
