//! Tests of the report: where each answer goes, and that only changes are written.

use super::*;

fn report() -> Report {
    let session = SessionReport {
        started: Started::Yes,
        status: Some(0),
        create_time: Some(1_400_000_000),
        start_time: Some(1_500_000_000),
        stop_time: Some(1_500_000_001),
        resurrections: 0,
        exit_logs: vec![ExitLog {
            time: Timestamp::from_unix(0, 0).unwrap(),
            exit_status: 1,
            message: "m".into(),
        }],
        run_block: None,
    };
    let endpoint = EndpointReport {
        configured: Started::Yes,
        assigned: Some(IpNet { addr: [172, 16, 0, 2].into(), prefix_len: 16 }),
        gateway: Some(IpNet { addr: [172, 16, 0, 1].into(), prefix_len: 16 }),
        dns: vec![Ip([172, 16, 0, 1].into())],
    };
    let exec = SessionReport { started: Started::Yes, ..SessionReport::default() };
    Report {
        sessions: [("ID".into(), session)].into(),
        execs: [("E1".into(), exec)].into(),
        networks: [("bridge".into(), endpoint)].into(),
        mounts: [("data".into(), MountReport { mounted: Started::Failed("no disk".into()) })]
            .into(),
        agent_version: "0.1.0".into(),
        source: "a test".into(),
        reload: Some("once".into()),
    }
}

#[test]
fn every_answer_goes_to_its_writable_key() {
    let pairs = report().to_pairs(Header::Vice).unwrap();
    let written: Vec<_> = pairs.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    assert_eq!(
        written,
        [
            "guestinfo.vice..sessions|ID.started = true",
            "guestinfo.vice..sessions|ID.status = 0",
            "guestinfo.vice..sessions|ID.detail.createtime = 1400000000",
            "guestinfo.vice..sessions|ID.detail.starttime = 1500000000",
            "guestinfo.vice..sessions|ID.detail.stoptime = 1500000001",
            "guestinfo.vice..sessions|ID.diagnostics.resurrections = 0",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs = 0",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.Time = 1970-01-01 00:00:00 +0000 UTC",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.ExitStatus = 1",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.Message = m",
            "guestinfo.vice..execs|E1.started@non-persistent = true",
            "guestinfo.vice..execs|E1.diagnostics.resurrections@non-persistent = 0",
            "guestinfo.vice..networks|bridge.configured = true",
            "guestinfo.vice..networks|bridge.assigned.IP = AAAAAAAAAAAAAP//rBAAAg==",
            "guestinfo.vice..networks|bridge.assigned.Mask = //8AAA==",
            "guestinfo.vice..networks|bridge.network.assigned.gateway.IP = AAAAAAAAAAAAAP//rBAAAQ==",
            "guestinfo.vice..networks|bridge.network.assigned.gateway.Mask = //8AAA==",
            "guestinfo.vice..networks|bridge.network.assigned.dns = 0",
            "guestinfo.vice..networks|bridge.network.assigned.dns|0 = AAAAAAAAAAAAAP//rBAAAQ==",
            "guestinfo.vice..mounts|data.mounted = no disk",
            "guestinfo.vice..link.version = 0.1.0",
            "guestinfo.vice..link.source = a test",
            "guestinfo.vice..link.reload = once",
        ]
    );
}

#[test]
fn the_older_generation_gets_what_it_has_keys_for() {
    let pairs = report().to_pairs(Header::Bare).unwrap();
    let keys: Vec<_> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    assert!(keys.contains(&"guestinfo..sessions|ID.status"));
    assert!(keys.contains(&"guestinfo..networks|bridge.ip.Mask"));
    assert!(!keys.iter().any(|key| key.contains("assigned") || key.contains('@')), "{keys:?}");
}

#[test]
fn a_vch_reads_back_what_the_guest_wrote() {
    let index = [
        ("guestinfo.vice./sessions", "ID"),
        ("guestinfo.vice./execs@non-persistent", "E1"),
        ("guestinfo.vice./networks", "bridge"),
        ("guestinfo.vice./mounts", "data"),
    ];
    let index = index.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let pairs = report().to_pairs(Header::Vice).unwrap();
    assert_eq!(Report::from_pairs(pairs.into_iter().chain(index)).unwrap(), report());
}

#[test]
fn only_what_changed_is_written_again() {
    let before = report();
    assert_eq!(before.changes(&before, Header::Vice).unwrap(), []);
    let mut after = before.clone();
    let session = after.sessions.get_mut("ID").unwrap();
    session.started = Started::Failed("x: no such executable in PATH".into());
    session.status = None;
    session.exit_logs.clear();
    after.networks.get_mut("bridge").unwrap().dns.clear();
    let changes = after.changes(&before, Header::Vice).unwrap();
    let changes: Vec<_> = changes.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    assert_eq!(
        changes,
        [
            "guestinfo.vice..sessions|ID.status = <nil>",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs = -1",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.Time = <nil>",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.ExitStatus = <nil>",
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.Message = <nil>",
            "guestinfo.vice..networks|bridge.network.assigned.dns = -1",
            "guestinfo.vice..networks|bridge.network.assigned.dns|0 = <nil>",
            "guestinfo.vice..sessions|ID.started = x: no such executable in PATH",
        ]
    );
}
