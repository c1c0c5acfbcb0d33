//! The container's session: one process from its config to its exit record.
//!
//! ```text
//!            disk found            program runs          process ends         output ended
//!  Waiting ─────────────▶ Starting ─────────────▶ Running ────────────▶ Draining ────────────▶ Over
//!     │                      │                                                                  ▲
//!     └──────────────────────┴─────────── cannot be started ───────────────────────────────────┘
//! ```
//!
//! It owns the process's streams and their relays. Signals and sizes that come early are kept until there is
//! a program to receive them. The reaper never waits for output: an exit is noted at once, the output is
//! drained beside it, and what still holds it open after `DRAIN_PATIENCE` of silence is abandoned. Output that
//! the multiplexer does not take for the linger time is truncated, and the record says so.

use std::os::fd::OwnedFd;
use std::time::Duration;

use guestinfo::{SessionSpec, Spec};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wire::message::guest::{Body, Exited, Failed, OutputEnd, Started};
use wire::message::label;
use wire::{ChannelId, Class, Direction};

use crate::cgroup::Cgroup;
use crate::clock;
use crate::config::Config;
use crate::process::failure::{FailureRecord, StartFailure};
use crate::process::{self, Launch, Starting};
use crate::reap::Exit;
use crate::relay::{Flow, InputRelay, OutputRelay};
use crate::report::Reporter;
use crate::rootfs::Rootfs;
use crate::signal::{self, Pending};
use crate::stdio::Stdio;
use crate::sys;
use crate::uplink::{Uplink, UplinkError};

/// How long an output that nobody writes to is kept open after the process's end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// The longest linger time, seconds: a day. The arithmetic of deadlines then cannot overflow.
pub const MAX_LINGER: u64 = 86_400;

/// How long a process may take to end after its stop signal, before it is killed: Docker's default.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Rows and columns of a terminal nobody has sized: what programs assume that cannot ask. The kernel's own
/// default of zero makes some of them fail.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Why a request about the session is refused. The texts go to the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The signal does not exist.
    #[error("signal {0} does not exist; signals are 1 to {max}", max = signal::MAX)]
    Signal(i32),
    /// The process has ended.
    #[error("the container's process has ended")]
    Ended,
    /// The terminal refuses.
    #[error("the terminal cannot be resized to {rows} rows and {columns} columns: {errno}")]
    Resize {
        /// As asked.
        rows: u32,
        /// As asked.
        columns: u32,
        /// The kernel's answer.
        errno: nix::errno::Errno,
    },
}

/// Where the session is in its life.
#[derive(Debug)]
enum Phase {
    Waiting,
    Starting { starting: Starting, exit: Option<Exit> },
    Running { pid: Pid, started_us: u64 },
    Draining(Drain),
    Over,
}

/// A process that has ended, and its output, which may not.
#[derive(Debug, Clone, Copy)]
struct Drain {
    exit: Exit,
    started_us: u64,
    exited_us: u64,
    /// When silence becomes the end.
    silent_until: Instant,
    /// When the wait for room in the link is given up.
    stuck_until: Instant,
}

/// The streams of a process that was started.
#[derive(Debug)]
struct Streams {
    stdio: Stdio,
    output: OutputRelay,
    input: InputRelay,
}

/// The session.
#[derive(Debug)]
pub struct Session {
    id: String,
    launch: Launch,
    stop_signal: i32,
    phase: Phase,
    streams: Option<Streams>,
    cgroup: Option<Cgroup>,
    early: Pending,
    size: (u16, u16),
    kill_at: Option<Instant>,
    /// What is said of it to those who only look.
    reporter: Reporter,
    /// How long the multiplexer may leave output untaken after the process's end.
    linger: Duration,
    gave_up: bool,
}

impl Session {
    /// The config's session, which waits for its root.
    pub fn new(config: &Config) -> Self {
        let Config { spec, session, .. } = config;
        let stop_signal = signal::number(&session.stop_signal).unwrap_or_else(|| {
            if !session.stop_signal.is_empty() {
                warn!("stop signal {:?} does not exist, TERM is used", session.stop_signal);
            }
            libc::SIGTERM
        });
        Self {
            id: session.id.clone(),
            launch: launch(spec, session),
            stop_signal,
            phase: Phase::Waiting,
            streams: None,
            cgroup: None,
            early: Pending::default(),
            size: DEFAULT_SIZE,
            kill_at: None,
            reporter: Reporter::new(config),
            linger: Duration::from_secs(spec.link.linger.min(MAX_LINGER)),
            gave_up: false,
        }
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The host name inside.
    pub fn hostname(&self) -> &str {
        &self.launch.hostname
    }

    /// The report on it.
    pub fn reporter(&mut self) -> &mut Reporter {
        &mut self.reporter
    }

    /// How long the multiplexer may from now on leave output untaken after the process's end, seconds.
    pub fn set_linger(&mut self, seconds: u64) {
        self.linger = Duration::from_secs(seconds.min(MAX_LINGER));
    }

    /// Whether the session has not been started yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// Whether the program runs.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Whether the session has ended, its output included.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Starts the process in its root.
    ///
    /// # Errors
    ///
    /// When the link cannot carry the session's channels. A process that cannot be started is no error
    /// here: the multiplexer is told and the session is over.
    pub fn start(
        &mut self,
        rootfs: &Rootfs,
        cgroup: Cgroup,
        uplink: &mut Uplink,
    ) -> Result<(), UplinkError> {
        match process::start(&self.launch, rootfs, &cgroup) {
            Ok((starting, stdio)) => {
                self.streams = Some(self.open_streams(stdio, uplink)?);
                self.phase = Phase::Starting { starting, exit: None };
                self.apply_size();
            }
            Err(failure) => self.fail(&failure, uplink),
        }
        self.cgroup = Some(cgroup);
        Ok(())
    }

    fn open_streams(&self, stdio: Stdio, uplink: &mut Uplink) -> Result<Streams, UplinkError> {
        let (session, tty) = (self.id.clone(), self.launch.tty);
        let class = if tty { Class::Terminal } else { Class::Log };
        let kind = label::Kind::Output(label::Output { session: session.clone(), tty });
        let output = uplink.open(Direction::ToMux, class, kind)?;
        let input = if self.launch.open_stdin {
            let class = if tty { Class::Terminal } else { Class::Exec };
            let kind = label::Kind::Input(label::Input { session });
            Some(uplink.open(Direction::ToGuest, class, kind)?)
        } else {
            None
        };
        let output = OutputRelay::new(output, tty);
        Ok(Streams { stdio, output, input: InputRelay::new(input) })
    }

    /// Ends a session that cannot be started, and says why.
    pub fn fail(&mut self, failure: &StartFailure, uplink: &mut Uplink) {
        self.report_failure(failure.exit_code().into(), failure.to_string(), uplink);
    }

    /// Ends a session for a reason outside of it.
    pub fn report_failure(&mut self, code: i32, text: String, uplink: &mut Uplink) {
        warn!("session {} cannot be started: {text}", self.id);
        let (session, time_us) = (self.id.clone(), clock::wall_us());
        self.reporter.failed(code, &text, time_us);
        self.reporter.publish(uplink);
        uplink.say(Body::Failed(Failed { session, code, text, time_us }));
        self.close_streams(uplink);
        self.phase = Phase::Over;
    }

    /// Waits for the outcome of the start; forever when the session is not starting.
    ///
    /// # Cancel safety
    ///
    /// See [`Starting::outcome`].
    pub async fn outcome(&self) -> Option<FailureRecord> {
        let Phase::Starting { starting, .. } = &self.phase else {
            return std::future::pending().await;
        };
        starting.outcome().await.unwrap_or_else(|error| {
            let text = format!("the start cannot be followed: {error}");
            Some(FailureRecord { code: process::failure::GENERAL, text })
        })
    }

    /// Takes note of how the start went.
    pub fn started(&mut self, failure: Option<FailureRecord>, uplink: &mut Uplink) {
        let Phase::Starting { starting, exit } = &self.phase else { return };
        let (pid, exit) = (starting.pid, *exit);
        if let Some(FailureRecord { code, text }) = failure {
            return self.report_failure(code.into(), text, uplink);
        }
        let started_us = clock::wall_us();
        info!("session {} runs as process {pid}", self.id);
        let session = self.id.clone();
        self.reporter.started(started_us);
        self.reporter.publish(uplink);
        uplink.say(Body::Started(Started {
            session,
            time_us: started_us,
            pid: pid.as_raw().cast_unsigned(),
        }));
        self.phase = Phase::Running { pid, started_us };
        match exit {
            Some(exit) => self.ended(exit),
            None => self.deliver_early(),
        }
    }

    /// Takes note of an ended process, if it is the session's.
    pub fn reaped(&mut self, pid: Pid, exit: Exit) {
        match &mut self.phase {
            // Whether this was the program or the attempt to start it is known when the outcome is.
            Phase::Starting { starting, exit: noted } if starting.pid == pid => *noted = Some(exit),
            Phase::Running { pid: own, .. } if *own == pid => self.ended(exit),
            _ => debug!("orphan {pid} ended"),
        }
    }

    fn ended(&mut self, exit: Exit) {
        let Phase::Running { started_us, .. } = self.phase else { return };
        let exited_us = clock::wall_us();
        let now = Instant::now();
        let (silent_until, stuck_until) = (now + DRAIN_PATIENCE, now + self.linger);
        self.phase =
            Phase::Draining(Drain { exit, started_us, exited_us, silent_until, stuck_until });
    }

    /// Moves what can be moved, and ends the session when there is nothing more to come.
    pub fn turn(&mut self, uplink: &mut Uplink) {
        self.reporter.publish(uplink);
        let Some(streams) = &mut self.streams else { return };
        streams.input.turn(&mut streams.stdio, uplink.link());
        let flow = streams.output.turn(&mut streams.stdio, uplink.link());
        let Phase::Draining(drain) = &mut self.phase else { return };
        let now = Instant::now();
        // Patience is for silence, not for a slow line: that has the linger time.
        if flow != Flow::Idle {
            drain.silent_until = now + DRAIN_PATIENCE;
        }
        if flow != Flow::Stuck {
            drain.stuck_until = now + self.linger;
        }
        match flow {
            Flow::Ended => self.finish(OutputEnd::Drained, uplink),
            Flow::Idle if drain.silent_until <= now => self.finish(OutputEnd::Abandoned, uplink),
            Flow::Stuck if drain.stuck_until <= now => {
                self.gave_up = true;
                self.finish(OutputEnd::Truncated, uplink);
            }
            Flow::Moved | Flow::Idle | Flow::Stuck => {}
        }
    }

    /// Sends the exit record.
    fn finish(&mut self, end: OutputEnd, uplink: &mut Uplink) {
        let Phase::Draining(Drain { exit, started_us, exited_us, .. }) = self.phase else { return };
        let dropped = self.streams.as_ref().is_some_and(|streams| streams.output.is_discarding());
        let end = if dropped { OutputEnd::Truncated } else { end };
        let Some((channel, bytes)) = self.close_streams(uplink) else { return };
        let oom_killed = self.cgroup.as_ref().is_some_and(Cgroup::oom_killed);
        let words = match end {
            OutputEnd::Drained => "drained",
            OutputEnd::Abandoned => "abandoned",
            OutputEnd::Truncated => "truncated",
        };
        let oom = if oom_killed { ", out of memory" } else { "" };
        info!("session {} exited {} (output {words}, {bytes} bytes{oom})", self.id, exit.code);
        self.reporter.ended(exit.code, oom.trim_start_matches(", "), exited_us);
        self.reporter.publish(uplink);
        uplink.say(Body::Exited(Exited {
            session: self.id.clone(),
            code: exit.code,
            signal: exit.signal,
            core_dumped: exit.core_dumped,
            raw_status: exit.raw,
            oom_killed,
            started_us,
            exited_us,
            output_length: channel,
            output_end: end.into(),
        }));
        self.phase = Phase::Over;
    }

    /// Closes both channels; the output channel's length and payload, if there was one.
    fn close_streams(&mut self, uplink: &mut Uplink) -> Option<(u64, u64)> {
        let mut streams = self.streams.take()?;
        let link = uplink.link();
        streams.input.stop(link);
        let length = link.offset(streams.output.channel()).unwrap_or(0);
        link.finish(streams.output.channel());
        Some((length, streams.output.bytes()))
    }

    /// Sends a signal, or keeps it for the program to come.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn signal(&mut self, number: i32) -> Result<(), RequestError> {
        if !signal::is_valid(number) {
            return Err(RequestError::Signal(number));
        }
        match &self.phase {
            Phase::Waiting | Phase::Starting { .. } => {
                self.early.add(number);
                Ok(())
            }
            // ESRCH cannot be: nobody but the agent collects it, and then the phase is another.
            Phase::Running { pid, .. } => sys::kill(*pid, number).map_err(|_| RequestError::Ended),
            Phase::Draining(_) | Phase::Over => Err(RequestError::Ended),
        }
    }

    /// Sends a signal to the process and all in its group, which it leads.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn signal_group(&mut self, number: i32) -> Result<(), RequestError> {
        match &self.phase {
            Phase::Running { pid, .. } if signal::is_valid(number) => {
                sys::kill(Pid::from_raw(-pid.as_raw()), number).map_err(|_| RequestError::Ended)
            }
            _ => self.signal(number),
        }
    }

    fn deliver_early(&mut self) {
        for number in self.early.take() {
            if let Err(error) = self.signal(number) {
                warn!("signal {number} came too late: {error}");
            }
        }
    }

    /// Gives the terminal a size, or keeps it for the terminal to come.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn resize(&mut self, rows: u32, columns: u32) -> Result<(), RequestError> {
        let refused = |errno| RequestError::Resize { rows, columns, errno };
        let (Ok(r), Ok(c)) = (u16::try_from(rows), u16::try_from(columns)) else {
            return Err(refused(nix::errno::Errno::ERANGE));
        };
        if self.is_over() {
            return Err(RequestError::Ended);
        }
        self.size = (r, c);
        self.streams.as_ref().map_or(Ok(()), |streams| streams.stdio.resize(r, c).map_err(refused))
    }

    fn apply_size(&self) {
        let (rows, columns) = self.size;
        if let Some(streams) = &self.streams
            && let Err(errno) = streams.stdio.resize(rows, columns)
        {
            warn!("the terminal cannot be resized: {errno}");
        }
    }

    /// Asks the process to end, and kills it when it does not. A session that has not started is over.
    pub fn stop(&mut self, uplink: &mut Uplink) {
        if self.is_waiting() {
            return self.report_failure(
                128 + self.stop_signal,
                "stopped before it was started".to_owned(),
                uplink,
            );
        }
        if self.kill_at.is_none() && self.signal(self.stop_signal).is_ok() {
            info!("session {}: sent signal {}", self.id, self.stop_signal);
            self.kill_at = Some(Instant::now() + STOP_GRACE);
        }
    }

    /// Does what is due by time alone.
    pub fn tick(&mut self) {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            if self.signal(libc::SIGKILL).is_ok() {
                info!("session {} did not end in time, killed", self.id);
            }
        }
    }

    /// When the next [`Self::tick`] or [`Self::turn`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let drain = match &self.phase {
            Phase::Draining(drain) if self.is_stuck() => Some(drain.stuck_until),
            Phase::Draining(drain) => Some(drain.silent_until),
            _ => None,
        };
        drain.into_iter().chain(self.kill_at).min()
    }

    fn is_stuck(&self) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.output.is_stuck())
    }

    /// Whether output was left behind because the multiplexer did not take it: then there is no point in
    /// waiting for it any longer.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// The input channel has ended.
    pub fn input_finished(&mut self, channel: ChannelId) {
        if let Some(streams) = self.streams.as_mut().filter(|s| s.input.channel() == Some(channel))
        {
            streams.input.finish();
        }
    }

    /// A channel is gone at the other end.
    pub fn channel_gone(&mut self, channel: ChannelId) {
        let Some(streams) = &mut self.streams else { return };
        if streams.input.channel() == Some(channel) {
            streams.input.forget();
        } else if streams.output.channel() == channel {
            warn!("session {}: the multiplexer has given up the output, it is dropped", self.id);
            streams.output.discard();
        }
    }

    /// Waits until one of the process's streams may have moved.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken or given.
    pub async fn wait(&self) {
        let Some(streams) = &self.streams else { return std::future::pending().await };
        let [stdout, stderr, stdin] = streams.stdio.ends();
        let reading = !streams.output.is_stuck();
        tokio::select! {
            () = stdio_ready(stdout, Interest::READABLE), if reading => {}
            () = stdio_ready(stderr, Interest::READABLE), if reading => {}
            () = stdio_ready(stdin, Interest::WRITABLE), if streams.input.is_blocked() => {}
            else => std::future::pending().await,
        }
    }
}

async fn stdio_ready(end: Option<&AsyncFd<OwnedFd>>, interest: Interest) {
    match end {
        // A runtime that cannot wait leaves the next turn to other events.
        Some(fd) => match fd.ready(interest).await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_shutting_down) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// The config's session in plain words.
fn launch(spec: &Spec, session: &SessionSpec) -> Launch {
    let cmd = &session.cmd;
    let mut args = cmd.args.clone();
    // VIC's config names the program and gives argv with its zeroth element; either may be missing.
    let program = if cmd.path.is_empty() {
        args.first().cloned().unwrap_or_default()
    } else {
        cmd.path.clone()
    };
    if args.is_empty() {
        args.push(program.clone());
    }
    let user = match session.group.as_str() {
        "" => session.user.clone(),
        group => format!("{}:{group}", session.user.split(':').next().unwrap_or_default()),
    };
    Launch {
        program,
        args,
        env: cmd.env.clone(),
        dir: cmd.dir.clone(),
        user,
        hostname: crate::identity::hostname(&spec.full_hostname(), "", &spec.id),
        tty: session.tty,
        open_stdin: session.open_stdin,
    }
}

#[cfg(test)]
mod tests;
