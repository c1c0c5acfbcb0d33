//! Tests of the session short of a real process, which only a machine of one's own can have.

use super::*;
use guestinfo::CmdSpec;

use crate::peer::{Peer, connected, until};

fn session(of: SessionSpec) -> Session {
    let config = Config::sample("s");
    Session::new(&Config { session: SessionSpec { id: "s".to_owned(), ..of }, ..config })
}

fn command(path: &str, args: &[&str]) -> CmdSpec {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    CmdSpec { path: path.to_owned(), args, ..CmdSpec::default() }
}

#[test]
fn a_config_may_leave_out_path_or_arguments() {
    for (cmd, program, args) in [
        (command("/bin/sh", &["sh", "-c", "x"]), "/bin/sh", &["sh", "-c", "x"][..]),
        (command("", &["sh", "-c"]), "sh", &["sh", "-c"]),
        (command("/bin/true", &[]), "/bin/true", &["/bin/true"]),
    ] {
        let launch = session(SessionSpec { cmd, ..SessionSpec::default() }).launch;
        assert_eq!(launch.program, program);
        assert_eq!(launch.args, args);
        assert_eq!(launch.hostname, "0123456789ab");
    }
}

#[test]
fn a_group_beside_the_user_replaces_the_users_own() {
    for (user, group, expected) in [
        ("app", "", "app"),
        ("app:wheel", "", "app:wheel"),
        ("app", "29", "app:29"),
        ("app:wheel", "29", "app:29"),
    ] {
        let of = SessionSpec {
            user: user.to_owned(),
            group: group.to_owned(),
            ..SessionSpec::default()
        };
        assert_eq!(session(of).launch.user, expected);
    }
}

#[test]
fn an_unknown_stop_signal_becomes_term() {
    for (stop_signal, expected) in [("", 15), ("SIGUSR1", 10), ("nonsense", 15)] {
        let of = SessionSpec { stop_signal: stop_signal.to_owned(), ..SessionSpec::default() };
        assert_eq!(session(of).stop_signal, expected);
    }
}

#[test]
fn signals_and_sizes_that_come_early_are_kept() {
    let mut session = session(SessionSpec::default());
    assert_eq!(session.signal(10), Ok(()));
    assert_eq!(session.signal(65), Err(RequestError::Signal(65)));
    assert_eq!(session.resize(50, 132), Ok(()));
    assert!(matches!(session.resize(70_000, 1), Err(RequestError::Resize { rows: 70_000, .. })));
    assert_eq!(session.size, (50, 132));
    assert_eq!(session.early.take().collect::<Vec<_>>(), [10]);
}

#[tokio::test]
async fn a_session_that_cannot_start_says_so_and_is_over() {
    let (mut uplink, mut peer) = connected();
    let mut session = session(SessionSpec::default());
    session.fail(&StartFailure::NotPlain("/proc"), &mut uplink);
    assert!(session.is_over());
    assert_eq!(session.signal(15), Err(RequestError::Ended));
    assert_eq!(session.resize(1, 1), Err(RequestError::Ended));
    let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, step, |uplink, _| uplink.is_drained()).await;
    let heard = peer.heard();
    // Who is woken by the failure finds it in the report.
    let [Body::Report(report), Body::Failed(failed)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(report.pairs["guestinfo.vice..sessions|s.started"], failed.text);
    assert_eq!((failed.session.as_str(), failed.code), ("s", 125));
    assert!(failed.text.contains("/proc"), "{}", failed.text);
}

/// A session whose process has just ended, with its streams.
fn ended(uplink: &mut Uplink, linger: u64) -> (Session, crate::stdio::ChildStdio) {
    let mut config = Config::sample("s");
    config.spec.link.linger = linger;
    let mut session = Session::new(&config);
    let (stdio, child) = Stdio::open(false, false).unwrap();
    session.streams = Some(session.open_streams(stdio, uplink).unwrap());
    session.phase = Phase::Running { pid: Pid::from_raw(42), started_us: 1 };
    session.reaped(Pid::from_raw(41), Exit { code: 1, signal: 0, core_dumped: false, raw: 256 });
    assert!(session.is_running(), "another process's end");
    session.reaped(Pid::from_raw(42), Exit { code: 137, signal: 9, core_dumped: false, raw: 9 });
    (session, child)
}

async fn record(session: &mut Session, uplink: &mut Uplink, peer: &mut Peer) -> Exited {
    let step = |uplink: &mut Uplink, _: &mut Peer| {
        session.turn(uplink);
        uplink.turn(|_| {}).unwrap();
    };
    let exited = |peer: &Peer| match peer.heard().pop() {
        Some(Body::Exited(record)) => Some(record),
        _ => None,
    };
    until(uplink, peer, step, |_, peer| exited(peer).is_some()).await;
    let reported = peer.heard().into_iter().rev().find_map(|body| match body {
        Body::Report(report) => Some(report),
        _ => None,
    });
    let record = exited(peer).unwrap();
    let status = &reported.unwrap().pairs["guestinfo.vice..sessions|s.status"];
    assert_eq!(*status, record.code.to_string());
    record
}

#[tokio::test]
async fn output_left_in_the_pipe_comes_before_the_exit_record() {
    let (mut uplink, mut peer) = connected();
    let (mut session, child) = ended(&mut uplink, 30);
    nix::unistd::write(child.stdout.as_ref().unwrap(), b"last words").unwrap();
    drop(child);
    let record = record(&mut session, &mut uplink, &mut peer).await;
    assert_eq!((record.code, record.signal, record.raw_status), (137, 9, 9));
    assert_eq!(record.output_end(), OutputEnd::Drained);
    let output =
        peer.channel(Direction::ToMux, |kind| matches!(kind, label::Kind::Output(_))).unwrap();
    assert_eq!(record.output_length, peer.received[&output].len() as u64);
    assert!(peer.received[&output].ends_with(b"last words"));
}

#[tokio::test]
async fn output_that_someone_holds_open_is_abandoned_after_a_second_of_silence() {
    let (mut uplink, mut peer) = connected();
    let (mut session, _held_open) = ended(&mut uplink, 30);
    let before = Instant::now();
    let record = record(&mut session, &mut uplink, &mut peer).await;
    assert_eq!(record.output_end(), OutputEnd::Abandoned);
    assert!(before.elapsed() >= DRAIN_PATIENCE);
}

#[tokio::test]
async fn output_that_nobody_takes_is_truncated_after_the_linger_time() {
    let (mut uplink, _peer) = connected();
    let (mut session, child) = ended(&mut uplink, 1);
    let stdout = child.stdout.as_ref().unwrap();
    crate::stdio::set_nonblocking(stdout).unwrap();
    let before = Instant::now();
    while !session.is_over() {
        assert!(before.elapsed() < Duration::from_secs(10), "it never ended");
        while nix::unistd::write(stdout, &[b'x'; 4096]).is_ok() {}
        tokio::task::yield_now().await;
        session.turn(&mut uplink);
    }
    assert!(session.gave_up());
    assert!(before.elapsed() >= Duration::from_secs(1));
}
