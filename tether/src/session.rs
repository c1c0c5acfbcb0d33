//! One session: a process from its config or request to its exit record, perhaps over several runs.
//!
//! ```text
//!            may start             program runs          process ends         output ended
//!  Waiting ─────────────▶ Starting ─────────────▶ Running ────────────▶ Draining ────────────▶ Over
//!     │                    ▲ │                                            │                     ▲
//!     │          time is up│ │                               run it again │                     │
//!     │                   Resting ◀───────────────────────────────────────┘                     │
//!     │                    │ │                                                                  │
//!     └────────────────────┴─┴────────── cannot be started, stopped ────────────────────────────┘
//! ```
//!
//! It owns the process's streams and their relays. Signals and sizes that come early are kept until there is
//! a program to receive them. The reaper never waits for output: an exit is noted at once, the output is
//! drained beside it, and what still holds it open some time after all of the process itself was read is
//! abandoned (`drain`). Output that the multiplexer does not take for the linger time is truncated, and the record
//! says so.
//!
//! Everything that takes time is polled with the waker it is given ([`Session::turn`]); nothing waits in here.

use std::task::{Context, Poll};
use std::time::Duration;

use guestinfo::{RestartPolicy, SessionSpec, Spec};
use nix::unistd::Pid;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wire::ChannelId;
use wire::message::guest::{Body, Exited, Failed, Known, Started};
use wire::message::mux;

use crate::cgroup::Cgroup;
use crate::clock;
use crate::config::Config;
use crate::process::exec::{self, Inside};
use crate::process::failure::{self, FailureRecord, StartFailure};
use crate::process::{self, Launch, Starting};
use crate::reap::Exit;
use crate::relay::WhenFull;
use crate::report::Reporter;
use crate::rootfs::Rootfs;
use crate::signal::{self, Pending};
use crate::spool::Spool;
use crate::stdio::Stdio;
use crate::sys;
use crate::uplink::{Uplink, UplinkError};

mod drain;
mod keeping;
mod launch;
mod request;
pub mod restart;
mod streams;

use drain::Drain;
pub use request::RequestError;
use restart::Restarts;
use streams::Streams;

/// The longest linger time, seconds: a day. The arithmetic of deadlines then cannot overflow.
pub const MAX_LINGER: u64 = 86_400;

/// How long a process may take to end after its stop signal, before it is killed: Docker's default.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// Rows and columns of a terminal nobody has sized: what programs assume that cannot ask. The kernel's own
/// default of zero makes some of them fail.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// The most of a command that is shown to people.
const MAX_SHOWN: usize = 256;

/// Where the session is in its life.
#[derive(Debug)]
enum Phase {
    Waiting,
    Starting { starting: Starting, exit: Option<Exit> },
    Running { pid: Pid, started_us: u64, since: Instant },
    Draining(Drain),
    Resting { until: Instant, last: Exited },
    Over,
}

/// Where a process is started.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In namespaces of its own, which are the container.
    Fresh(&'a Rootfs, &'a Cgroup),
    /// In those of the container.
    Beside(&'a Inside, &'a Cgroup),
}

/// Where a session tells what becomes of it.
#[derive(Debug)]
pub struct Teller<'a> {
    /// The multiplexer.
    pub uplink: &'a mut Uplink,
    /// The report, in which only sessions of the config appear.
    pub reporter: Option<&'a mut Reporter>,
    /// Where it is seen why a process was killed.
    pub cgroup: Option<&'a Cgroup>,
}

impl Teller<'_> {
    fn report(&mut self, change: impl FnOnce(&mut Reporter)) {
        if let Some(reporter) = &mut self.reporter {
            change(reporter);
            reporter.publish(self.uplink);
        }
    }
}

/// The session.
#[derive(Debug)]
pub struct Session {
    id: String,
    launch: Launch,
    stop_signal: i32,
    phase: Phase,
    streams: Option<Streams>,
    /// Whether it is the container's own.
    is_first: bool,
    /// Whether the multiplexer can read its output packed, if it is not.
    unpacks: bool,
    restarts: Restarts,
    early: Pending,
    size: (u16, u16),
    kill_at: Option<Instant>,
    /// When a process that was killed counts as gone although it does not end.
    gone_at: Option<Instant>,
    /// How long the multiplexer may leave output untaken after the process's end.
    linger: Duration,
    /// How much output is kept beside the link's own, and what happens then.
    backlog: Option<(usize, WhenFull)>,
    /// What extends that, until there are streams.
    spool: Option<Spool>,
    gave_up: bool,
    /// What was told of its end.
    last_words: Option<Body>,
}

impl Session {
    /// The config's session, which waits for its root.
    pub fn new(config: &Config) -> Self {
        let Config { spec, session, .. } = config;
        let mut own = Self::of(&session.id, launch::of_config(spec, session));
        own.is_first = true;
        own.stop_signal = signal::number(&session.stop_signal).unwrap_or_else(|| {
            if !session.stop_signal.is_empty() {
                warn!("stop signal {:?} does not exist, TERM is used", session.stop_signal);
            }
            libc::SIGTERM
        });
        let policy = RestartPolicy::of(session).unwrap_or_else(|error| {
            warn!("{error}; it is run once");
            RestartPolicy::No
        });
        own.restarts = Restarts::new(policy);
        own.backlog = launch::backlog(&spec.link);
        own.linger = Duration::from_secs(spec.link.linger.min(MAX_LINGER));
        own
    }

    /// A session of the config beside the container's own.
    pub fn configured(spec: &Spec, session: &SessionSpec) -> Self {
        let mut own = Self::of(&session.id, launch::of_config(spec, session));
        own.stop_signal = signal::number(&session.stop_signal).unwrap_or(libc::SIGTERM);
        own.linger = Duration::from_secs(spec.link.linger.min(MAX_LINGER));
        own
    }

    /// A session beside the container's own `first`, as somebody asks for it.
    pub fn requested(first: &Self, request: &mux::Exec) -> Self {
        let mut own = Self::of(&request.session, launch::of_request(&first.launch, request));
        own.linger = first.linger;
        own.unpacks = request.unpacks;
        if let (Ok(rows @ 1..), Ok(columns @ 1..)) =
            (u16::try_from(request.rows), u16::try_from(request.columns))
        {
            own.size = (rows, columns);
        }
        own
    }

    fn of(id: &str, launch: Launch) -> Self {
        Self {
            id: id.to_owned(),
            launch,
            stop_signal: libc::SIGTERM,
            phase: Phase::Waiting,
            streams: None,
            is_first: false,
            unpacks: false,
            restarts: Restarts::new(RestartPolicy::No),
            early: Pending::default(),
            size: DEFAULT_SIZE,
            kill_at: None,
            gone_at: None,
            linger: Duration::ZERO,
            backlog: None,
            spool: None,
            gave_up: false,
            last_words: None,
        }
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it runs, and how.
    pub fn launch(&self) -> &Launch {
        &self.launch
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

    /// Where it is in its life, in a word.
    pub fn word(&self) -> &'static str {
        match &self.phase {
            Phase::Waiting => "waiting",
            Phase::Starting { .. } => "starting",
            Phase::Running { .. } => "running",
            Phase::Draining(_) => "ended, output open",
            Phase::Resting { .. } => "between two runs",
            Phase::Over => "over",
        }
    }

    /// Whether the session has ended, its output included.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether the pause before the next run is over.
    pub fn is_rested(&self) -> bool {
        matches!(self.phase, Phase::Resting { until, .. } if until <= Instant::now())
    }

    /// The process that is starting or running.
    pub fn pid(&self) -> Option<Pid> {
        match &self.phase {
            Phase::Starting { starting, .. } => Some(starting.pid),
            Phase::Running { pid, .. } => Some(*pid),
            Phase::Waiting | Phase::Draining(_) | Phase::Resting { .. } | Phase::Over => None,
        }
    }

    /// The channels that are open.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.streams.iter().flat_map(Streams::channels)
    }

    /// What a multiplexer must know of a session beside the container's own.
    pub fn known(&self) -> Known {
        let mut command = self.launch.args.join(" ");
        command.truncate(command.floor_char_boundary(MAX_SHOWN));
        let Launch { tty, open_stdin, detached: detach, .. } = self.launch;
        Known { session: self.id.clone(), command, tty, open_stdin, detach }
    }

    /// Starts the process, for the first time or again. Of one that cannot be started, or whose channels the link
    /// cannot carry, the multiplexer is told, and the session is over.
    pub fn start(&mut self, place: Place<'_>, teller: &mut Teller<'_>) {
        let started = match place {
            Place::Fresh(rootfs, cgroup) => process::start(&self.launch, rootfs, cgroup),
            Place::Beside(inside, cgroup) => exec::start(&self.launch, inside, cgroup),
        };
        let (starting, stdio) = match started {
            Ok(started) => started,
            Err(failure) => return self.fail(&failure, teller),
        };
        // Before anything else may go wrong: the process is there, and its end has to be noted.
        let pid = starting.pid;
        self.phase = Phase::Starting { starting, exit: None };
        if let Err(error) = self.connect(stdio, teller.uplink) {
            // It is the agent's child, and nobody has collected it.
            let _killed = sys::kill(pid, libc::SIGKILL);
            let text = format!("its streams cannot be connected: {error}");
            return self.report_failure(failure::GENERAL.into(), text, teller);
        }
        self.apply_size();
    }

    fn connect(&mut self, stdio: Stdio, uplink: &mut Uplink) -> Result<(), UplinkError> {
        if let Some(streams) = &mut self.streams {
            return streams.renew(&self.id, &self.launch, stdio, uplink);
        }
        let Self { id, launch, is_first, unpacks, .. } = &*self;
        let mut streams = Streams::open(id, launch, (*is_first, *unpacks), stdio, uplink)?;
        streams.keep(self.backlog);
        self.spool.take().into_iter().for_each(|spool| streams.extend(spool));
        self.streams = Some(streams);
        Ok(())
    }

    /// Ends a session that cannot be started, and says why.
    pub fn fail(&mut self, failure: &StartFailure, teller: &mut Teller<'_>) {
        self.report_failure(failure.exit_code().into(), failure.to_string(), teller);
    }

    /// Ends a session for a reason outside of it.
    pub fn report_failure(&mut self, code: i32, text: String, teller: &mut Teller<'_>) {
        warn!("session {} cannot be started: {text}", self.id);
        let (session, time_us) = (self.id.clone(), clock::wall_us());
        teller.report(|reporter| reporter.failed(&self.id, code, &text, time_us));
        self.close(Body::Failed(Failed { session, code, text, time_us }), teller.uplink);
    }

    /// Takes note of how the start went.
    fn started(&mut self, failure: Option<FailureRecord>, teller: &mut Teller<'_>) {
        let Phase::Starting { starting, exit } = &self.phase else { return };
        let (pid, exit) = (starting.pid, *exit);
        if let Some(FailureRecord { code, text }) = failure {
            return self.report_failure(code.into(), text, teller);
        }
        let started_us = clock::wall_us();
        if self.is_first {
            info!("session {} runs as process {pid}", self.id);
        } else {
            debug!("session {} runs as process {pid}", self.id);
        }
        let n_restarts = self.restarts.count.into();
        teller.report(|reporter| reporter.started(&self.id, started_us, n_restarts));
        teller.uplink.say(Body::Started(self.started_at(pid, started_us)));
        self.phase = Phase::Running { pid, started_us, since: Instant::now() };
        match exit {
            Some(exit) => self.ended(exit),
            None => self.deliver_early(),
        }
    }

    fn started_at(&self, pid: Pid, time_us: u64) -> Started {
        Started { session: self.id.clone(), time_us, pid: pid.as_raw().cast_unsigned() }
    }

    /// Tells a multiplexer that knows nothing of this session what there is to know.
    pub fn introduce(&self, uplink: &mut Uplink) {
        uplink.say(Body::Known(self.known()));
        if let Phase::Running { pid, started_us, .. } = self.phase {
            uplink.say(Body::Started(self.started_at(pid, started_us)));
        }
    }

    /// Takes note of the end of its process.
    pub fn reaped(&mut self, pid: Pid, exit: Exit) {
        match &mut self.phase {
            // Whether this was the program or the attempt to start it is known when the outcome is.
            Phase::Starting { starting, exit: noted } if starting.pid == pid => *noted = Some(exit),
            Phase::Running { pid: own, .. } if *own == pid => self.ended(exit),
            _ => debug!("orphan {pid} ended"),
        }
    }

    /// Does all that can be done now, and has the context's task woken when there is more. Ready when there
    /// is more at once.
    pub fn turn(&mut self, context: &mut Context<'_>, teller: &mut Teller<'_>) -> Poll<()> {
        self.tick(teller);
        if let Phase::Starting { starting, .. } = &self.phase
            && let Poll::Ready(outcome) = starting.poll_outcome(context)
        {
            let failed = |error| {
                let text = format!("the start cannot be followed: {error}");
                Some(FailureRecord { code: failure::GENERAL, text })
            };
            self.started(outcome.unwrap_or_else(failed), teller);
        }
        self.relay(teller);
        match &mut self.streams {
            Some(streams) => streams.poll_ready(context, teller.uplink.link()),
            None => Poll::Pending,
        }
    }

    /// Ends the session with its last words. They are said before its channels end, so that whoever sees the
    /// end of the output knows how it came.
    fn close(&mut self, words: Body, uplink: &mut Uplink) {
        self.last_words = Some(words.clone());
        uplink.say(words);
        if let Some(streams) = self.streams.take() {
            streams.close(uplink.link());
        }
        self.phase = Phase::Over;
    }

    /// What was told of its end.
    pub fn last_words(&self) -> Option<&Body> {
        self.last_words.as_ref()
    }

    /// When the next [`Self::turn`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Draining(drain) if self.is_stuck() && self.owes() => Some(drain.stuck_until),
            Phase::Draining(drain) => Some(drain.silent_until),
            Phase::Resting { until, .. } => Some(*until),
            Phase::Waiting | Phase::Starting { .. } | Phase::Running { .. } | Phase::Over => None,
        };
        let rest = self.streams.as_ref().and_then(Streams::deadline);
        let asked = [self.kill_at, self.gone_at].into_iter().flatten().filter(|_| !self.is_over());
        phase.into_iter().chain(rest).chain(asked).min()
    }

    /// Whether output may be left to be read that the process wrote itself.
    fn owes(&self) -> bool {
        self.streams.as_ref().is_some_and(Streams::owes)
    }

    fn is_stuck(&self) -> bool {
        self.streams.as_ref().is_some_and(Streams::is_stuck)
    }

    /// Whether output was left behind because the multiplexer did not take it: then there is no point in
    /// waiting for it any longer.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// The input channel has ended.
    pub fn input_finished(&mut self, channel: ChannelId) {
        if let Some(streams) = &mut self.streams {
            streams.input_finished(channel);
        }
    }

    /// The multiplexer is another one than before.
    ///
    /// # Errors
    ///
    /// When the link cannot carry another channel.
    pub fn peer_is_new(&mut self, uplink: &mut Uplink) -> Result<(), UplinkError> {
        self.streams.as_mut().map_or(Ok(()), |streams| streams.peer_is_new(&self.id, uplink))
    }

    /// The multiplexer does not go on with a channel, as the machine was put back to a snapshot.
    ///
    /// # Errors
    ///
    /// When the link cannot carry another channel.
    pub fn rolled_back(
        &mut self,
        channel: ChannelId,
        uplink: &mut Uplink,
    ) -> Result<(), UplinkError> {
        let Some(streams) = &mut self.streams else { return Ok(()) };
        warn!("session {}: this machine was put back to a snapshot", self.id);
        streams.rolled_back(&self.id, channel, uplink)
    }

    /// A channel is gone at the other end.
    pub fn channel_gone(&mut self, channel: ChannelId) {
        if let Some(streams) = &mut self.streams
            && streams.channel_gone(channel)
        {
            warn!("session {}: the multiplexer has given up the output, it is dropped", self.id);
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wakes;
