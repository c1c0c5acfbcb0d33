//! VIC's keys, one by one: each is read into the spec or the report, and written as VIC writes it.
#![allow(missing_docs, reason = "a test has no readers of its API")]

use guestinfo::{Header, Report, Spec};

/// A key (`ID` and `E1` as VIC's documents have them), a value, and the value as we write it if
/// that differs.
struct Row(&'static str, &'static str, Option<&'static str>);

const fn row(key: &'static str, value: &'static str) -> Row {
    Row(key, value, None)
}

/// Written in Go's 16-byte form, read in either.
const fn ip(key: &'static str, value: &'static str, written: &'static str) -> Row {
    Row(key, value, Some(written))
}

/// Without these nothing below them is looked for.
const INDEXES: &[(&str, &str)] = &[
    ("guestinfo.vice./sessions", "ID"),
    ("guestinfo.vice./execs@non-persistent", "E1"),
    ("guestinfo.vice./networks", "bridge"),
    ("guestinfo.vice./mounts", "n|vol.1"),
];

/// What the host writes and the spec must have.
const SPEC: &[Row] = &[
    row("guestinfo.vice./common/id", "ID"),
    row("guestinfo.vice./common/name", "happy_turing"),
    row("guestinfo.vice./common/ExecutionEnvironment", "env"),
    row("common/notes", "to be read by people"),
    row("guestinfo.vice..createtime", "1500000000000000000"),
    row("guestinfo.vice./diagnostics/debug", "3"),
    row("guestinfo.vice./diagnostics/syslog/Network", "tcp"),
    row("guestinfo.vice./diagnostics/syslog/RAddr", "1.2.3.4:514"),
    row("guestinfo.vice./key", "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo="),
    row("guestinfo.vice./layerid", "layer"),
    row("guestinfo.vice./imageid", "image"),
    row("guestinfo.vice./repo", "busybox"),
    row("guestinfo.vice./asymrouting", "true"),
    row("guestinfo.vice./hostname", "www"),
    row("guestinfo.vice./domainname", "example.com"),
    row("guestinfo.vice./version/PluginVersion", "10"),
    row("guestinfo.vice./version/Version", "v1.5.4"),
    row("guestinfo.vice./version/GitCommit", "9489f63"),
    row("guestinfo.vice./version/BuildDate", "2019"),
    row("guestinfo.vice./version/BuildNumber", "21221"),
    row("guestinfo.vice./version/State", "clean"),
    row("annotations", "docker/x"),
    row("guestinfo.vice./sessions|ID/common/id", "other"),
    row("guestinfo.vice./sessions|ID/common/name", "name"),
    row("guestinfo.vice./sessions|ID/common/ExecutionEnvironment", "env"),
    row("sessions|ID/common/notes", "to be read by people"),
    row("guestinfo.vice..sessions|ID.detail.createtime", "1500000000"),
    row("guestinfo.vice./sessions|ID/cmd/Path", "/bin/sh"),
    row("guestinfo.vice./sessions|ID/cmd/Dir", "/"),
    row("guestinfo.vice./sessions|ID/attach", "true"),
    row("guestinfo.vice./sessions|ID/openstdin", "true"),
    row("guestinfo.vice..sessions|ID.runblock", "true"),
    row("guestinfo.vice./sessions|ID/active", "false"),
    row("guestinfo.vice./sessions|ID/tty", "true"),
    row("guestinfo.vice./sessions|ID/restart", "true"),
    row("guestinfo.vice./sessions|ID/stopSignal", "15"),
    row("guestinfo.vice./sessions|ID/User", "u"),
    row("guestinfo.vice./sessions|ID/Group", "g"),
    row("guestinfo.vice./sessions|ID/diagnostics/debug", "2"),
    row("guestinfo.vice./sessions|ID/diagnostics/syslog/Network", "udp"),
    row("guestinfo.vice./sessions|ID/diagnostics/syslog/RAddr", "1.2.3.4:514"),
    row("guestinfo.vice./execs|E1/cmd/Path@non-persistent", "ls"),
    row("guestinfo.vice./execs|E1/tty@non-persistent", "true"),
    row("guestinfo.vice..execs|E1.runblock@non-persistent", "true"),
    row("guestinfo.vice./networks|bridge/Common/id", "192"),
    row("guestinfo.vice./networks|bridge/Common/name", "bridge"),
    row("guestinfo.vice./networks|bridge/static", "true"),
    row("guestinfo.vice./networks|bridge/internal", "true"),
    row("guestinfo.vice./networks|bridge/network/Common/id", "net"),
    row("guestinfo.vice./networks|bridge/network/Common/name", "bridge"),
    row("guestinfo.vice..networks|bridge.network.type", "bridge"),
    row("guestinfo.vice./networks|bridge/network/TrustLevel", "2"),
    row("guestinfo.vice./networks|bridge/network/default", "true"),
    ip(
        "guestinfo.vice./networks|bridge/ip/IP",
        "AAAAAAAAAAAAAP//rBAAAg==",
        "AAAAAAAAAAAAAP//rBAAAg==",
    ),
    ip("guestinfo.vice./networks|bridge/ip/Mask", "//8AAA==", "//8AAA=="),
    ip(
        "guestinfo.vice./networks|bridge/network/gateway/IP",
        "rBAAAQ==",
        "AAAAAAAAAAAAAP//rBAAAQ==",
    ),
    ip("guestinfo.vice./networks|bridge/network/gateway/Mask", "//8AAA==", "//8AAA=="),
    row("guestinfo.vice./mounts|n/source/Scheme", "nfs"),
    row("guestinfo.vice./mounts|n/source/Opaque", "opaque"),
    row("guestinfo.vice./mounts|n/source/Host", "nfs.example.com"),
    row("guestinfo.vice./mounts|n/source/Path", "/exports/v1"),
    row("guestinfo.vice./mounts|n/source/RawPath", "/exports%2Fv1"),
    row("guestinfo.vice./mounts|n/source/ForceQuery", "true"),
    row("guestinfo.vice./mounts|n/source/RawQuery", "a=b"),
    row("guestinfo.vice./mounts|n/source/Fragment", "f"),
    row("guestinfo.vice./mounts|n/dest", "/n"),
    row("guestinfo.vice./mounts|n/mode", "addr=nfs.example.com"),
    row("guestinfo.vice./mounts|n/copymode", "1"),
    row("guestinfo.vice./mounts|vol/1/source/Scheme", "label"),
    row("guestinfo.vice./mounts|vol/1/source/Path", "d0573dc600f0f819"),
    row("guestinfo.vice./link/protection", "plain"),
    row("guestinfo.vice./link/linger", "7"),
    row("guestinfo.vice./link/mode", "non-blocking"),
];

/// Lists and maps, which take several keys to say one thing.
const SPEC_TOGETHER: &[&[Row]] = &[
    &[
        row("guestinfo.vice./sessions|ID/cmd/Args~", "/bin/sh|-c|echo a"),
        row("guestinfo.vice./sessions|ID/cmd/Args", "2"),
    ],
    &[
        row("guestinfo.vice./sessions|ID/cmd/Env~", "PATH=/bin|A=b"),
        row("guestinfo.vice./sessions|ID/cmd/Env", "1"),
    ],
    &[
        row("guestinfo.vice./networks|bridge/ports", "1"),
        row("guestinfo.vice./networks|bridge/ports~", "80/tcp|8080:80/tcp"),
    ],
    &[row("networks|bridge/network/aliases~", "a:b"), row("networks|bridge/network/aliases", "0")],
    &[
        row("guestinfo.vice./networks|bridge/network/dns", "1"),
        ip("guestinfo.vice./networks|bridge/network/dns|0", "rBAAAQ==", "AAAAAAAAAAAAAP//rBAAAQ=="),
        row("guestinfo.vice./networks|bridge/network/dns|1", "AAAAAAAAAAAAAP//CAgICA=="),
    ],
    &[
        row("guestinfo.vice./networks|bridge/network/destinations", "0"),
        ip(
            "guestinfo.vice./networks|bridge/network/destinations|0/IP",
            "CgAAAA==",
            "AAAAAAAAAAAAAP//CgAAAA==",
        ),
        row("guestinfo.vice./networks|bridge/network/destinations|0/Mask", "/wAAAA=="),
    ],
    &[
        row("guestinfo.vice./networks|bridge/network/pools", "0"),
        ip(
            "guestinfo.vice./networks|bridge/network/pools|0/first",
            "rBAAAg==",
            "AAAAAAAAAAAAAP//rBAAAg==",
        ),
        ip(
            "guestinfo.vice./networks|bridge/network/pools|0/last",
            "rBD//g==",
            "AAAAAAAAAAAAAP//rBD//g==",
        ),
    ],
    &[row("annotations", "docker/x"), row("annotations|docker/x", "y")],
];

/// What the guest writes.
const REPORT: &[&[Row]] = &[
    &[row("guestinfo.vice..sessions|ID.started", "true")],
    &[row("guestinfo.vice..sessions|ID.started", "x: no such executable in PATH")],
    &[row("guestinfo.vice..execs|E1.started@non-persistent", "true")],
    &[row("guestinfo.vice..sessions|ID.status", "0")],
    &[row("guestinfo.vice..sessions|ID.status", "137")],
    &[row("guestinfo.vice..sessions|ID.runblock", "false")],
    &[row("guestinfo.vice..sessions|ID.detail.createtime", "1500000000")],
    &[row("guestinfo.vice..sessions|ID.detail.starttime", "1500000000")],
    &[row("guestinfo.vice..sessions|ID.detail.stoptime", "1500000000")],
    &[row("guestinfo.vice..sessions|ID.diagnostics.resurrections", "3")],
    &[
        row("guestinfo.vice..sessions|ID.diagnostics.exitlogs", "0"),
        row(
            "guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.Time",
            "1970-01-01 00:00:00 +0000 UTC",
        ),
        row("guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.ExitStatus", "1"),
        row("guestinfo.vice..sessions|ID.diagnostics.exitlogs|0.Message", "m"),
    ],
    &[
        row("guestinfo.vice..networks|bridge.assigned.IP", "AAAAAAAAAAAAAP//rBAAAg=="),
        row("guestinfo.vice..networks|bridge.assigned.Mask", "//8AAA=="),
    ],
    &[
        ip(
            "guestinfo.vice..networks|bridge.network.assigned.gateway.IP",
            "rBAAAQ==",
            "AAAAAAAAAAAAAP//rBAAAQ==",
        ),
        row("guestinfo.vice..networks|bridge.network.assigned.gateway.Mask", "//8AAA=="),
    ],
    &[
        row("guestinfo.vice..networks|bridge.network.assigned.dns", "1"),
        ip(
            "guestinfo.vice..networks|bridge.network.assigned.dns|0",
            "rBAAAQ==",
            "AAAAAAAAAAAAAP//rBAAAQ==",
        ),
        row("guestinfo.vice..networks|bridge.network.assigned.dns|1", "AAAAAAAAAAAAAP//CAgICA=="),
    ],
];

/// The indexes with some rows beside them.
fn pairs<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<(&'a str, &'a str)> {
    INDEXES
        .iter()
        .copied()
        .chain(rows.into_iter().map(|Row(key, value, _)| (*key, *value)))
        .collect()
}

#[track_caller]
fn check_spec(rows: &[Row]) {
    let keys: Vec<_> = rows.iter().map(|Row(key, ..)| *key).collect();
    let without = Spec::from_pairs(pairs([])).expect("the indexes alone");
    let with = Spec::from_pairs(pairs(rows)).expect("with the keys");
    assert_ne!(with, without, "{keys:?} say nothing");
    let written = with.to_vmx_pairs().expect("encodes");
    for Row(key, value, ours) in
        rows.iter().filter(|Row(key, ..)| *key != "annotations" || rows.len() > 1)
    {
        let expected = ours.unwrap_or(value);
        let found = written.iter().find(|(written, _)| written == key);
        assert_eq!(found.map(|(_, value)| value.as_str()), Some(expected), "{key}");
    }
    assert_eq!(Spec::from_pairs(written).expect("reads back"), with, "{keys:?}");
}

#[test]
fn every_key_that_the_host_writes_is_read_and_written_as_vic_does() {
    for row in SPEC {
        check_spec(std::slice::from_ref(row));
    }
    for rows in SPEC_TOGETHER {
        check_spec(rows);
    }
}

#[test]
fn every_key_that_the_guest_writes_is_written_and_read_as_vic_does() {
    let without = Report::from_pairs(pairs([])).expect("the indexes alone");
    for rows in REPORT {
        let with = Report::from_pairs(pairs(*rows)).expect("with the keys");
        let keys: Vec<_> = rows.iter().map(|Row(key, ..)| *key).collect();
        assert_ne!(with, without, "{keys:?} say nothing");
        let written = with.to_pairs(Header::Vice).expect("encodes");
        for Row(key, value, ours) in *rows {
            let found = written.iter().find(|(written, _)| written == key);
            assert_eq!(
                found.map(|(_, value)| value.as_str()),
                Some(ours.unwrap_or(value)),
                "{key}"
            );
        }
    }
}

/// The key of an exec that says what this one says of a session; hidden keys of execs do not exist.
fn of_exec(key: &str) -> Option<String> {
    let is_session = key.starts_with("guestinfo.") && key.contains("sessions|ID");
    is_session.then(|| key.replace("sessions|ID", "execs|E1") + "@non-persistent")
}

#[test]
fn every_key_of_a_session_is_one_of_an_exec_too() {
    let alone = SPEC.iter().map(std::slice::from_ref);
    let mut n_checked = 0;
    for rows in alone.chain(SPEC_TOGETHER.iter().copied()) {
        let exec = |Row(key, value, _): &Row| Some((of_exec(key)?, (*value).to_owned()));
        let keys: Vec<(String, String)> = rows.iter().filter_map(exec).collect();
        if keys.is_empty() {
            continue;
        }
        let all = pairs([]).into_iter().chain(keys.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let spec = Spec::from_pairs(all).expect("reads");
        assert_ne!(spec, Spec::from_pairs(pairs([])).expect("reads"), "{keys:?} say nothing");
        let written = spec.to_vmx_pairs().expect("encodes");
        assert!(keys.iter().all(|pair| written.contains(pair)), "{keys:?} in {written:?}");
        n_checked += 1;
    }
    assert!(n_checked >= 18, "{n_checked}");
}

#[test]
fn what_the_guest_says_of_an_exec_is_what_it_says_of_a_session() {
    for rows in REPORT {
        let exec = |Row(key, value, _): &Row| Some((of_exec(key)?, (*value).to_owned()));
        let keys: Vec<(String, String)> = rows.iter().filter_map(exec).collect();
        let all = pairs([]).into_iter().chain(keys.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let written =
            Report::from_pairs(all).expect("reads").to_pairs(Header::Vice).expect("encodes");
        assert!(keys.iter().all(|pair| written.contains(pair)), "{keys:?} in {written:?}");
    }
}

#[test]
fn the_whole_of_it_reads_and_writes_at_once() {
    let rows = SPEC.iter().filter(|Row(key, ..)| *key != "annotations");
    let all = pairs(rows.chain(SPEC_TOGETHER.iter().copied().flatten()));
    let spec = Spec::from_pairs(all.iter().copied()).expect("reads");
    let written = spec.to_vmx_pairs().expect("encodes");
    for (key, _) in all {
        assert!(written.iter().any(|(written, _)| written == key), "{key} is lost");
    }
    for (key, value) in &written {
        assert_ne!(value, "", "{key}: vSphere would drop it");
    }
    assert_eq!(Spec::from_pairs(written).expect("reads back"), spec);
}

#[test]
fn what_the_guest_alone_writes_is_not_taken_from_the_host() {
    let guests_own = [
        ("guestinfo.vice..sessions|ID.started", "true"),
        ("guestinfo.vice..sessions|ID.status", "0"),
        ("guestinfo.vice..sessions|ID.detail.starttime", "1"),
    ];
    let without = Spec::from_pairs(pairs([])).expect("reads");
    let with = Spec::from_pairs(pairs([]).into_iter().chain(guests_own)).expect("reads");
    assert_eq!(with, without);
}

#[test]
fn both_spellings_of_user_and_group_are_read() {
    for (user, group) in [("User", "Group"), ("user", "group"), ("USER", "gROUP")] {
        let keys = [user, group].map(|name| format!("guestinfo.vice./sessions|ID/{name}"));
        let rows = [(keys[0].as_str(), "u"), (keys[1].as_str(), "g")];
        let spec = Spec::from_pairs(pairs([]).into_iter().chain(rows)).expect("reads");
        let session = spec.primary().expect("one session");
        assert_eq!((session.user.as_str(), session.group.as_str()), ("u", "g"));
    }
}

#[test]
fn values_of_every_kind_pass_through_a_vmx_file() {
    let long: String =
        (0..65536u32).map(|n| char::from(b'a' + u8::try_from(n % 26).expect("small"))).collect();
    let args = [
        "",
        "a b",
        "ä|ö|",
        "line\nbreak\r\n",
        "~@/.",
        "\"quoted\"",
        "#",
        "|7C",
        "\u{1}\t\u{7F}",
        "<nil>x",
    ];
    let mut spec = Spec::from_pairs(pairs([])).expect("reads");
    let session = spec.sessions.get_mut("ID").expect("the session");
    session.cmd.args = args.map(str::to_owned).to_vec();
    session.cmd.env = vec![format!("LONG={long}"), "EMPTY=".to_owned(), "NOTHING".to_owned()];
    let mut vmx = guestinfo::Vmx::new();
    for (key, value) in spec.to_vmx_pairs().expect("encodes") {
        vmx.set(key, value).expect("fits");
    }
    let again = guestinfo::Vmx::parse(vmx.to_string()).expect("parses");
    assert_eq!(Spec::from_vmx(&again).expect("reads"), spec);
}
