//! Every message of the control channels, and every label. The name of each is a `match` without a rest, so that a
//! new one must be given bytes, too.

use super::golden::check;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use wire::message::{GuestMessage, Label, MuxMessage, guest, inside, label, mux, put, upkeep};

fn session() -> String {
    "abc".to_owned()
}

fn exited() -> guest::Exited {
    guest::Exited {
        session: session(),
        code: 137,
        signal: 9,
        core_dumped: true,
        raw_status: 137,
        oom_killed: true,
        started_us: 1,
        exited_us: 2,
        output_length: 3,
        output_end: guest::OutputEnd::Truncated as i32,
    }
}

fn guest_name(body: &guest::Body) -> &'static str {
    match body {
        guest::Body::Started(_) => "started",
        guest::Body::Failed(_) => "failed",
        guest::Body::Exited(_) => "exited",
        guest::Body::Reply(_) => "reply",
        guest::Body::Report(_) => "report",
        guest::Body::Paused(_) => "paused",
        guest::Body::Restarting(_) => "restarting",
        guest::Body::Known(_) => "known",
        guest::Body::AskTime(_) => "ask-time",
        guest::Body::Happening(it) => match it.what {
            Some(inside::What::OutOfMemory(_)) | None => "out-of-memory",
            Some(inside::What::Thawed(_)) => "thawed",
            Some(inside::What::Signaled(_)) => "signaled",
        },
    }
}

fn of_guests() -> Vec<guest::Body> {
    let happening =
        |what| guest::Body::Happening(inside::Happening { time_us: 5, what: Some(what) });
    vec![
        guest::Body::Started(guest::Started { session: session(), time_us: 5, pid: 7 }),
        guest::Body::Failed(guest::Failed {
            session: session(),
            code: 127,
            text: "not found".into(),
            time_us: 6,
        }),
        guest::Body::Exited(exited()),
        guest::Body::Reply(guest::Reply { request: 4, error: "no".into(), body: vec![] }),
        guest::Body::Report(guest::Report {
            pairs: BTreeMap::from([("guestinfo.a".into(), "1".into())]),
        }),
        guest::Body::Paused(guest::Paused { paused: true }),
        guest::Body::Restarting(guest::Restarting {
            exited: Some(exited()),
            restarts: 3,
            delay_ms: 800,
        }),
        guest::Body::Known(guest::Known {
            session: session(),
            command: "sh -c".into(),
            tty: true,
            open_stdin: true,
            detach: true,
        }),
        guest::Body::AskTime(upkeep::AskTime { stamp: 300 }),
        happening(inside::What::OutOfMemory(inside::OutOfMemory { ooms: 2, kills: 1 })),
        happening(inside::What::Thawed(inside::Thaw {})),
        happening(inside::What::Signaled(inside::Signaled { signal: 15 })),
    ]
}

/// How many there are, each with a name of its own.
fn check_all<M: Message + Default + PartialEq + std::fmt::Debug>(
    whose: &str,
    messages: impl Iterator<Item = (&'static str, M)>,
) -> usize {
    let mut names = BTreeSet::new();
    for (name, message) in messages {
        assert!(names.insert(name), "{name} twice");
        let mut out = Vec::new();
        put(&message, &mut out);
        check(&format!("{whose}-{name}"), &out);
        assert_eq!(M::decode_length_delimited(&out[..]).unwrap(), message);
    }
    names.len()
}

#[test]
fn what_guests_say_is_as_released() {
    let message = |body| (guest_name(&body), GuestMessage { body: Some(body) });
    assert_eq!(check_all("guest", of_guests().into_iter().map(message)), 12);
}

fn mux_name(body: &mux::Body) -> &'static str {
    match body {
        mux::Body::Signal(_) => "signal",
        mux::Body::Resize(_) => "resize",
        mux::Body::Shutdown(_) => "shutdown",
        mux::Body::Exec(_) => "exec",
        mux::Body::Stop(_) => "stop",
        mux::Body::Pause(_) => "pause",
        mux::Body::Unpause(_) => "unpause",
        mux::Body::Begin(_) => "begin",
        mux::Body::Reload(_) => "reload",
        mux::Body::Seed(_) => "seed",
        mux::Body::Time(_) => "time",
        mux::Body::Top(_) => "top",
        mux::Body::Stats(_) => "stats",
        mux::Body::StatPath(_) => "stat-path",
        mux::Body::CopyOut(_) => "copy-out",
        mux::Body::CopyIn(_) => "copy-in",
        mux::Body::ListDisk(_) => "list-disk",
        mux::Body::Freeze(_) => "freeze",
        mux::Body::Thaw(_) => "thaw",
        mux::Body::Diagnose(_) => "diagnose",
    }
}

fn exec() -> mux::Exec {
    mux::Exec {
        session: session(),
        args: vec!["sh".into(), "-c".into()],
        env: vec!["A=b".into()],
        dir: "/tmp".into(),
        user: "1:2".into(),
        tty: true,
        open_stdin: true,
        detach: true,
        rows: 24,
        columns: 80,
        unpacks: true,
    }
}

fn of_muxes() -> Vec<mux::Body> {
    vec![
        mux::Body::Signal(mux::Signal { session: session(), signal: 15 }),
        mux::Body::Resize(mux::Resize { session: session(), rows: 24, columns: 80 }),
        mux::Body::Shutdown(mux::Shutdown {}),
        mux::Body::Exec(exec()),
        mux::Body::Stop(mux::Stop { session: session(), signal: 2, grace: Some(0) }),
        mux::Body::Pause(mux::Pause {}),
        mux::Body::Unpause(mux::Unpause {}),
        mux::Body::Begin(mux::Begin { session: session() }),
        mux::Body::Reload(mux::Reload {}),
        mux::Body::Seed(upkeep::Seed { bytes: vec![7; 32] }),
        mux::Body::Time(upkeep::Time { stamp: 300, wall_us: 1_700_000_000_000_000 }),
        mux::Body::Top(inside::Top {}),
        mux::Body::Stats(inside::Stats {}),
        mux::Body::StatPath(inside::StatPath { path: b"/etc".to_vec(), follow: true }),
        mux::Body::CopyOut(inside::CopyOut {
            path: b"/etc".to_vec(),
            follow: true,
            name: b"other".to_vec(),
        }),
        mux::Body::CopyIn(inside::CopyIn {
            directory: b"/srv".to_vec(),
            set_owner: true,
            uid: 1,
            gid: 2,
        }),
        mux::Body::ListDisk(inside::ListDisk {}),
        mux::Body::Freeze(inside::Freeze { seconds: 60 }),
        mux::Body::Thaw(inside::Thaw {}),
        mux::Body::Diagnose(inside::Diagnose {}),
    ]
}

#[test]
fn what_a_mux_asks_is_as_released() {
    let message = |body| (mux_name(&body), MuxMessage { request: 4, body: Some(body) });
    assert_eq!(check_all("mux", of_muxes().into_iter().map(message)), 20);
}

#[test]
fn labels_are_as_released() {
    let (control, stream) = (label::Control {}, label::Stream { request: 4 });
    let output = label::Output { session: session(), tty: true, packed: false };
    let input = label::Input { session: session(), ..label::Input::default() };
    let packed_output = label::Output { packed: true, ..output.clone() };
    let packed_input = label::Input { packed: true, start: 300, origin: 70, ..input.clone() };
    for (name, kind) in [
        ("control", label::Kind::Control(control)),
        ("output", label::Kind::Output(output)),
        ("output-packed", label::Kind::Output(packed_output)),
        ("input", label::Kind::Input(input)),
        ("input-packed", label::Kind::Input(packed_input)),
        ("stream", label::Kind::Stream(stream)),
    ] {
        check(&format!("label-{name}"), &Label { kind: Some(kind) }.encode_to_vec());
    }
}

/// Numbers that differ, so that two fields which change places are found out.
fn counter() -> impl FnMut() -> u64 {
    let mut last = 299;
    move || {
        last += 1;
        last
    }
}

#[test]
fn measurements_are_as_released() {
    let mut next = counter();
    let interface = inside::Interface {
        name: "eth0".into(),
        received: next(),
        received_packets: next(),
        received_errors: next(),
        received_dropped: next(),
        sent: next(),
        sent_packets: next(),
        sent_errors: next(),
        sent_dropped: next(),
    };
    let sample = inside::Sample {
        time_us: next(),
        uptime_us: next(),
        processors: 2,
        cpu_us: next(),
        cpu_user_us: next(),
        cpu_system_us: next(),
        throttled: next(),
        throttled_us: next(),
        memory: next(),
        inactive_file: next(),
        memory_limit: next(),
        ooms: next(),
        oom_kills: next(),
        tasks: next(),
        tasks_limit: next(),
        disk_read: next(),
        disk_written: next(),
        disk_reads: next(),
        disk_writes: next(),
        interfaces: vec![interface],
    };
    check("body-sample", &sample.encode_to_vec());
}

#[test]
fn processes_are_as_released() {
    let mut next = counter();
    let process = inside::Process {
        pid: 70,
        inner_pid: 1,
        parent: 69,
        uid: 1000,
        user: "somebody".into(),
        gid: 1001,
        state: "S".into(),
        tty: "pts/0".into(),
        started_us: next(),
        age_us: next(),
        cpu_us: next(),
        virtual_kib: next(),
        resident_kib: next(),
        nice: -5,
        threads: 3,
        name: "sh".into(),
        command: "sh -c".into(),
        total_kib: next(),
        time_us: next(),
    };
    check("stream-process", &process.encode_to_vec());
}

#[test]
fn what_is_told_of_paths_and_of_the_agent_is_as_released() {
    let mut next = counter();
    let stat = inside::PathStat {
        name: b"motd".to_vec(),
        size: next(),
        mode: 0o100_644,
        modified: -1,
        modified_ns: 5,
        link_target: b"../run/motd".to_vec(),
        uid: 1,
        gid: 2,
    };
    check("body-path-stat", &stat.encode_to_vec());
    let listed = inside::Listed {
        depth: 2,
        name: b"motd".to_vec(),
        mode: 0o100_644,
        changed: 1_700_000_000,
        changed_ns: 5,
    };
    check("stream-listed", &listed.encode_to_vec());
    let fact = inside::Fact { name: "sessions".into(), value: "3".into() };
    let section = inside::Section { title: "link".into(), facts: vec![fact] };
    let diagnosis =
        inside::Diagnosis { sections: vec![section], log: vec!["line".into()], time_us: next() };
    check("body-diagnosis", &diagnosis.encode_to_vec());
}
