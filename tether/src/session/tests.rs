//! Tests of the session short of a real process, which only a machine of one's own can have.

mod restarts;

use super::drain::{DRAIN_PATIENCE, EXEC_DRAIN_PATIENCE};
use super::*;
use guestinfo::{CmdSpec, SessionSpec};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use wire::chunk::Entry;
use wire::message::guest::OutputEnd;
use wire::message::label;
use wire::pack::{Budget, Packer};
use wire::{Direction, LinkConfig};

use crate::peer::{self, Peer, connected, connected_as, until};
use crate::stdio::ChildStdio;
use wire::message::inside::What;

impl Session {
    /// Takes another process for its own.
    pub(crate) fn run_as(&mut self, pid: Pid) {
        self.phase = Phase::Running { pid, started_us: 1, since: Instant::now() };
    }

    /// The same of one that is starting, and has not said how that went at the other end of `status`.
    pub(crate) fn start_as(&mut self, pid: Pid, status: OwnedFd) {
        let starting = Starting::of(pid, status).unwrap();
        self.phase = Phase::Starting { starting, exit: None };
    }

    /// Runs as process 42, with streams of its own.
    pub(crate) fn run_with_streams(&mut self, uplink: &mut Uplink) -> ChildStdio {
        let (stdio, child) = Stdio::open(false, self.launch.open_stdin).unwrap();
        let kind = (self.is_first, false);
        self.streams = Some(Streams::open(&self.id, &self.launch, kind, stdio, uplink).unwrap());
        self.run_as(Pid::from_raw(42));
        child
    }
}

/// Does something with a session, and with a report of its own.
fn told<T>(
    session: &mut Session,
    uplink: &mut Uplink,
    act: impl FnOnce(&mut Session, &mut Teller<'_>) -> T,
) -> T {
    act(session, &mut Teller { uplink, reporter: None, cgroup: None })
}

fn turn(session: &mut Session, uplink: &mut Uplink) {
    let mut context = Context::from_waker(std::task::Waker::noop());
    // What can go on at once is seen by the next call.
    let _more = told(session, uplink, |session, teller| session.turn(&mut context, teller));
}

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

fn signaled(session: &mut Session, uplink: &mut Uplink, number: i32) -> Result<(), RequestError> {
    told(session, uplink, |session, teller| session.signal(number, teller))
}

/// The signals that the multiplexer was told of, in order.
fn signals(peer: &Peer) -> Vec<i32> {
    let heard = peer.heard().into_iter();
    heard
        .filter_map(|body| match body {
            Body::Happening(it) => it.what,
            _ => None,
        })
        .filter_map(|what| match what {
            What::Signaled(it) => Some(it.signal),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn signals_and_sizes_that_come_early_are_kept() {
    let (mut uplink, mut peer) = connected();
    let mut session = session(SessionSpec::default());
    assert_eq!(signaled(&mut session, &mut uplink, 10), Ok(()));
    assert_eq!(signaled(&mut session, &mut uplink, 65), Err(RequestError::Signal(65)));
    assert_eq!(session.resize(50, 132), Ok(()));
    assert!(matches!(session.resize(70_000, 1), Err(RequestError::Resize { rows: 70_000, .. })));
    assert_eq!(session.size, (50, 132));
    assert_eq!(session.early.take().collect::<Vec<_>>(), [10]);
    let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, step, |uplink, _| uplink.is_drained()).await;
    assert_eq!(signals(&peer), [10], "what is refused is not told");
}

#[tokio::test]
async fn each_signal_of_a_stop_is_told_before_the_end_and_none_of_an_exec() {
    let first = session(SessionSpec::default());
    let request = mux::Exec { session: "e".to_owned(), ..mux::Exec::default() };
    for (mut session, expected) in [
        (Session::requested(&first, &request), &[][..]),
        (session(SessionSpec::default()), &[libc::SIGTERM, libc::SIGKILL]),
    ] {
        let (mut uplink, mut peer) = connected();
        // A process that nobody minds.
        let mut asleep = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let child = running(&mut session, &mut uplink);
        let pid = Pid::from_raw(asleep.id().cast_signed());
        session.run_as(pid);
        let stop = |session: &mut Session, teller: &mut Teller<'_>| {
            session.stop(None, Duration::ZERO, teller)
        };
        assert_eq!(told(&mut session, &mut uplink, stop), Ok(()));
        turn(&mut session, &mut uplink);
        asleep.wait().unwrap();
        drop(child);
        session.reaped(pid, Exit { code: 143, signal: 15, core_dumped: false, raw: 15 });
        record(&mut session, &mut uplink, &mut peer).await;
        assert_eq!(signals(&peer), expected, "{}", session.id);
    }
}

#[tokio::test]
async fn a_session_that_cannot_start_says_so_and_is_over() {
    let (mut uplink, mut peer) = connected();
    let mut session = session(SessionSpec::default());
    let mut reporter = Reporter::new(&Config::sample("s"));
    let reported = Some(&mut reporter);
    let mut teller = Teller { uplink: &mut uplink, reporter: reported, cgroup: None };
    session.fail(&StartFailure::NotPlain("/proc"), &mut teller);
    assert!(session.is_over());
    assert_eq!(session.signal(15, &mut teller), Err(RequestError::Ended));
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
fn ended(uplink: &mut Uplink, linger: u64) -> (Session, ChildStdio) {
    let mut config = Config::sample("s");
    config.spec.link.linger = linger;
    ended_of(Session::new(&config), uplink)
}

fn ended_of(mut session: Session, uplink: &mut Uplink) -> (Session, ChildStdio) {
    let child = running(&mut session, uplink);
    session.reaped(Pid::from_raw(41), Exit { code: 1, signal: 0, core_dumped: false, raw: 256 });
    assert!(session.is_running(), "another process's end");
    session.reaped(Pid::from_raw(42), Exit { code: 137, signal: 9, core_dumped: false, raw: 9 });
    (session, child)
}

/// A process beside the container's own, which runs.
fn exec(uplink: &mut Uplink) -> (Session, ChildStdio) {
    let request = mux::Exec { session: "e".to_owned(), ..mux::Exec::default() };
    let mut exec = Session::requested(&session(SessionSpec::default()), &request);
    exec.linger = Duration::from_secs(30);
    let child = running(&mut exec, uplink);
    crate::stdio::set_nonblocking(child.stdout.as_ref().unwrap()).unwrap();
    (exec, child)
}

const EXIT: Exit = Exit { code: 0, signal: 0, core_dumped: false, raw: 0 };

/// Writes `bytes` again and again until a pipe is full; how often it went.
fn write_all(stdout: &OwnedFd, bytes: &[u8]) -> usize {
    std::iter::from_fn(|| nix::unistd::write(stdout, bytes).ok()).count()
}

/// Has the process write until `is_enough`; what it wrote, which does not pack.
async fn fill(
    session: &mut Session,
    uplink: &mut Uplink,
    stdout: &OwnedFd,
    is_enough: impl Fn(&Session) -> bool,
) -> Vec<u8> {
    crate::stdio::set_nonblocking(stdout).unwrap();
    let (mut written, mut piece) = (Vec::new(), [0; 4096]);
    while !is_enough(session) {
        sys::random(&mut piece).unwrap();
        while nix::unistd::write(stdout, &piece).is_ok() {
            written.extend_from_slice(&piece);
        }
        tokio::task::yield_now().await;
        turn(session, uplink);
    }
    written
}

/// What has arrived of the output.
fn arrived(peer: &Peer, packed: bool) -> Vec<u8> {
    let output = peer.channel(Direction::ToMux, |kind| matches!(kind, label::Kind::Output(_)));
    let bytes = output.and_then(|it| peer.received.get(&it)).map_or(&[][..], Vec::as_slice);
    let entries = peer::entries(bytes, packed).into_iter();
    entries
        .flat_map(|entry| match entry {
            Entry::Output(chunk) => chunk.bytes,
            Entry::Gap(gap) => panic!("{gap:?}"),
        })
        .collect()
}

/// As [`record`], of a session whose output somebody else writes to before each turn.
async fn record_beside(
    session: &mut Session,
    uplink: &mut Uplink,
    peer: &mut Peer,
    mut other: impl FnMut(),
) -> Exited {
    let step = |uplink: &mut Uplink, _: &mut Peer| {
        other();
        turn(session, uplink);
        uplink.turn(|_| {}).unwrap();
    };
    until(uplink, peer, step, |_, peer| exited(peer).is_some()).await;
    exited(peer).unwrap()
}

/// Has a session's process run, with streams of its own.
fn running(session: &mut Session, uplink: &mut Uplink) -> ChildStdio {
    session.run_with_streams(uplink)
}

fn exited(peer: &Peer) -> Option<Exited> {
    match peer.heard().pop() {
        Some(Body::Exited(record)) => Some(record),
        _ => None,
    }
}

async fn record(session: &mut Session, uplink: &mut Uplink, peer: &mut Peer) -> Exited {
    record_beside(session, uplink, peer, || {}).await
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
async fn a_session_that_the_link_has_no_channel_for_leaves_none_open() {
    // Those for control, and one.
    let config = LinkConfig { max_channels: 3, ..LinkConfig::uart() };
    let (mut uplink, mut peer) = connected_as(config);
    let mut session = session(SessionSpec { open_stdin: true, ..SessionSpec::default() });
    let (stdio, _child) = Stdio::open(false, true).unwrap();
    assert!(session.connect(stdio, &mut uplink).is_err(), "there is one for output only");
    let output =
        |peer: &Peer| peer.channel(Direction::ToMux, |kind| matches!(kind, label::Kind::Output(_)));
    let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
    let has_ended = |peer: &Peer| output(peer).is_some_and(|it| peer.finished.contains(&it));
    until(&mut uplink, &mut peer, step, |_, peer| has_ended(peer)).await;
}

#[tokio::test]
async fn what_hangs_before_it_is_the_program_is_killed_as_well() {
    let (mut uplink, _peer) = connected();
    let mut session = session(SessionSpec::default());
    let mut hangs = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    // Nothing is ever said on its status pipe, whose other end stays open.
    let (status, _other) = nix::unistd::pipe().unwrap();
    let pid = Pid::from_raw(hangs.id().cast_signed());
    session.start_as(pid, status);
    assert_eq!(signaled(&mut session, &mut uplink, libc::SIGTERM), Ok(()));
    assert_eq!(
        session.early.take().collect::<Vec<_>>(),
        [libc::SIGTERM],
        "that is for the program"
    );
    assert_eq!(signaled(&mut session, &mut uplink, libc::SIGKILL), Ok(()));
    assert_eq!(hangs.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(session.deadline().is_some(), "one that hangs in the kernel is given up");
    session.gone_at = Some(Instant::now());
    turn(&mut session, &mut uplink);
    assert!(session.is_over());
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
async fn what_the_runtime_has_not_noticed_yet_is_read_before_an_output_is_abandoned() {
    let (mut uplink, mut peer) = connected();
    let mut session = session(SessionSpec::default());
    let child = running(&mut session, &mut uplink);
    // From now on the pipes are watched; but nothing here waits, so nothing is noticed.
    turn(&mut session, &mut uplink);
    nix::unistd::write(child.stdout.as_ref().unwrap(), b"last words").unwrap();
    drop(child);
    session.reaped(Pid::from_raw(42), Exit { code: 0, signal: 0, core_dumped: false, raw: 0 });
    let Phase::Draining(drain) = &mut session.phase else { panic!("{:?}", session.phase) };
    drain.silent_until = Instant::now();
    turn(&mut session, &mut uplink);
    let record = record(&mut session, &mut uplink, &mut peer).await;
    assert_eq!(record.output_end(), OutputEnd::Drained);
    let output =
        peer.channel(Direction::ToMux, |kind| matches!(kind, label::Kind::Output(_))).unwrap();
    assert_eq!(record.output_length, peer.received[&output].len() as u64);
    assert!(record.output_length >= 10, "{record:?}");
}

#[tokio::test]
async fn output_that_nobody_takes_is_truncated_after_the_linger_time() {
    let (mut uplink, _peer) = connected();
    let mut config = Config::sample("s");
    config.spec.link.linger = 1;
    let mut session = Session::new(&config);
    let child = running(&mut session, &mut uplink);
    let stdout = child.stdout.as_ref().unwrap();
    fill(&mut session, &mut uplink, stdout, Session::is_stuck).await;
    session.reaped(Pid::from_raw(42), EXIT);
    let before = Instant::now();
    while !session.is_over() {
        assert!(before.elapsed() < Duration::from_secs(10), "it never ended");
        tokio::task::yield_now().await;
        turn(&mut session, &mut uplink);
    }
    assert!(session.gave_up());
    assert!(before.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_process_beside_the_containers_own_ends_soon_although_someone_holds_its_output() {
    let (mut uplink, mut peer) = connected();
    let first = session(SessionSpec::default());
    let request = mux::Exec { session: "e".to_owned(), ..mux::Exec::default() };
    let (mut exec, held_open) = ended_of(Session::requested(&first, &request), &mut uplink);
    nix::unistd::write(held_open.stdout.as_ref().unwrap(), b"all of it").unwrap();
    let record = record(&mut exec, &mut uplink, &mut peer).await;
    assert_eq!((record.session.as_str(), record.output_end()), ("e", OutputEnd::Abandoned));
    let output =
        peer.channel(Direction::ToMux, |kind| matches!(kind, label::Kind::Output(_))).unwrap();
    assert!(peer.received[&output].ends_with(b"all of it"));
    assert!(exec.is_over());
}

#[tokio::test]
async fn whoever_writes_on_does_not_keep_the_client_of_a_process_that_has_ended() {
    for fills_the_pipe in [false, true] {
        let (mut uplink, mut peer) = connected();
        let (mut exec, child) = exec(&mut uplink);
        let stdout = child.stdout.as_ref().unwrap();
        let own = [b'x'; 50_000];
        nix::unistd::write(stdout, &own).unwrap();
        exec.reaped(Pid::from_raw(42), EXIT);
        let other = || match fills_the_pipe {
            true => _ = write_all(stdout, &[b'y'; 4096]),
            false => _ = nix::unistd::write(stdout, &[b'y'; 10]),
        };
        let before = Instant::now();
        let record = record_beside(&mut exec, &mut uplink, &mut peer, other).await;
        assert!(before.elapsed() >= EXEC_DRAIN_PATIENCE);
        assert_eq!(record.output_end(), OutputEnd::Abandoned);
        let arrived = arrived(&peer, false);
        assert!(arrived.starts_with(&own) && arrived.len() > own.len());
    }
}

#[tokio::test]
async fn what_a_process_wrote_is_read_although_the_line_is_slow_and_somebody_writes_on() {
    let (mut uplink, mut peer) = connected();
    let (mut exec, child) = exec(&mut uplink);
    let stdout = child.stdout.as_ref().unwrap();
    // There is no multiplexer yet: the channel is full, and the pipe.
    let own = fill(&mut exec, &mut uplink, stdout, Session::is_stuck).await;
    exec.reaped(Pid::from_raw(42), EXIT);
    let before = Instant::now();
    while before.elapsed() < 3 * EXEC_DRAIN_PATIENCE {
        turn(&mut exec, &mut uplink);
        tokio::task::yield_now().await;
    }
    assert!(!exec.is_over());
    let other = || _ = write_all(stdout, &[b'y'; 4096]);
    let record = record_beside(&mut exec, &mut uplink, &mut peer, other).await;
    assert_eq!(record.output_end(), OutputEnd::Abandoned);
    let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, step, |_, peer| arrived(peer, false).len() >= own.len()).await;
    assert!(arrived(&peer, false).starts_with(&own));
}

#[tokio::test]
async fn what_is_kept_goes_out_after_its_pipe_was_abandoned() {
    let (mut uplink, mut peer) = connected();
    let mut config = Config::sample("s");
    config.spec.link.linger = 30;
    let mut session = Session::new(&config);
    session.backlog = Some((4 << 20, WhenFull::Block));
    let child = running(&mut session, &mut uplink);
    session.streams.as_mut().unwrap().keep(session.backlog);
    let stdout = child.stdout.as_ref().unwrap();
    let own = fill(&mut session, &mut uplink, stdout, |it| it.kept()[0] > 100_000).await;
    session.reaped(Pid::from_raw(42), EXIT);
    while session.streams.as_ref().is_some_and(Streams::are_held) {
        _ = nix::unistd::write(stdout, b"y");
        turn(&mut session, &mut uplink);
        tokio::task::yield_now().await;
    }
    turn(&mut session, &mut uplink);
    assert!(!session.is_over(), "nobody has taken it");
    assert!(session.deadline().unwrap() > Instant::now(), "there is nothing to do at once");
    let record = record(&mut session, &mut uplink, &mut peer).await;
    assert_eq!(record.output_end(), OutputEnd::Abandoned);
    assert!(arrived(&peer, true).starts_with(&own));
}

#[tokio::test]
async fn an_answer_to_input_is_waited_for_until_it_comes() {
    let (mut uplink, mut peer) = connected();
    let mut session = session(SessionSpec { open_stdin: true, ..SessionSpec::default() });
    let child = running(&mut session, &mut uplink);
    let input = |peer: &Peer| {
        peer.channel(Direction::ToGuest, |kind| matches!(kind, label::Kind::Input(_)))
    };
    let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, step, |_, peer| input(peer).is_some()).await;
    let mut key = Vec::new();
    Packer::new(&Budget::new(1)).push(b"x", &mut key);
    let channel = input(&peer).unwrap();
    assert_eq!(peer.link.as_mut().unwrap().write(channel, &key), key.len());

    // Nothing is said meanwhile, which is when a pause ends by itself.
    let waits = Cell::new(false);
    let step = |uplink: &mut Uplink, _: &mut Peer| {
        uplink.hear(|_| {}).unwrap();
        turn(&mut session, uplink);
        waits.set(uplink.pipes().are_hushed());
    };
    until(&mut uplink, &mut peer, step, |_, _| waits.get()).await;
    let mut stdin = File::from(child.stdin.unwrap());
    let mut typed = [0];
    stdin.read_exact(&mut typed).unwrap();
    assert_eq!(typed, *b"x");
    turn(&mut session, &mut uplink);
    assert!(uplink.pipes().are_hushed(), "it has not answered");
    File::from(child.stdout.unwrap()).write_all(b"y").unwrap();
    let step = |uplink: &mut Uplink, _: &mut Peer| {
        turn(&mut session, uplink);
        waits.set(uplink.pipes().are_hushed());
    };
    until(&mut uplink, &mut peer, step, |_, _| !waits.get()).await;
}
