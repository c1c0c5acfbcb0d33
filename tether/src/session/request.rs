//! What is asked of a session: signals, sizes, to stop; and why it is refused, in words for the client.

use std::time::Duration;

use nix::unistd::Pid;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{info, warn};
use wire::message::guest::{Body, Failed};
use wire::message::inside::{Signaled, What};

use super::{Phase, Session, Teller};
use crate::clock;
use crate::signal;
use crate::sys;

/// How long a process may take to be gone after SIGKILL. It runs nothing more of its own by then; what takes
/// time is the kernel, which writes and frees.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// Why a request about a session is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// No session of that id.
    #[error("there is no session {0:?} here")]
    NoSession(String),
    /// The signal does not exist.
    #[error("signal {0} does not exist; signals are 1 to {max}", max = signal::MAX)]
    Signal(i32),
    /// The process has ended.
    #[error("the container's process has ended")]
    Ended,
    /// Nothing runs in the container, or not yet, or no longer.
    #[error("the container is not running")]
    NotRunning,
    /// The container is frozen.
    #[error("the container is paused; unpause it first")]
    Paused,
    /// The container is not frozen.
    #[error("the container is not paused")]
    NotPaused,
    /// The kernel has no freezer, or refuses.
    #[error("the container cannot be paused: {0}")]
    Freezer(String),
    /// A request for an exec without a command.
    #[error("no command specified")]
    NoCommand,
    /// As many sessions run as may.
    #[error("{0} processes were started beside the container's own already, no more are allowed")]
    TooMany(usize),
    /// The process could not be made.
    #[error("{0}")]
    Start(String),
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

/// Who gets a signal.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Process,
    /// The process and all in its group, which it leads.
    Group,
}

impl Session {
    /// Sends a signal, or keeps it for the program to come, and tells of it.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn signal(&mut self, number: i32, teller: &mut Teller<'_>) -> Result<(), RequestError> {
        self.signal_to(Whom::Process, number, teller)
    }

    /// As Docker has it: an event of the container, not of what runs beside its own process.
    fn tell_signal(&self, signal: i32, teller: &mut Teller<'_>) {
        if self.is_first {
            teller.uplink.happened(What::Signaled(Signaled { signal }));
        }
    }

    fn send(&mut self, whom: Whom, number: i32) -> Result<(), RequestError> {
        if !signal::is_valid(number) {
            return Err(RequestError::Signal(number));
        }
        if self.is_deadly(number) {
            self.restarts.give_up();
        }
        let pid = match &self.phase {
            // What hangs before it is the program (in a directory whose server is gone) must be killed as well.
            Phase::Starting { starting, exit: None } if number == libc::SIGKILL => starting.pid,
            Phase::Running { pid, .. } => *pid,
            Phase::Waiting | Phase::Starting { .. } => {
                self.early.add(number);
                return Ok(());
            }
            Phase::Draining(_) | Phase::Resting { .. } | Phase::Over => {
                return Err(RequestError::Ended);
            }
        };
        // A process that is not its program yet may not lead its group yet either.
        let target = match whom {
            Whom::Group if self.is_running() => Pid::from_raw(-pid.as_raw()),
            Whom::Group | Whom::Process => pid,
        };
        // ESRCH cannot be: nobody but the agent collects it, and then the phase is another.
        sys::kill(target, number).map_err(|_| RequestError::Ended)?;
        if number == libc::SIGKILL {
            self.gone_at.get_or_insert(Instant::now() + KILL_PATIENCE);
        }
        Ok(())
    }

    /// Sends a signal to the process and all in its group, which it leads.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn signal_group(
        &mut self,
        number: i32,
        teller: &mut Teller<'_>,
    ) -> Result<(), RequestError> {
        self.signal_to(Whom::Group, number, teller)
    }

    fn signal_to(
        &mut self,
        whom: Whom,
        number: i32,
        teller: &mut Teller<'_>,
    ) -> Result<(), RequestError> {
        if self.is_deadly(number) && self.stay_ended(teller) {
            return Ok(());
        }
        self.send(whom, number)?;
        self.tell_signal(number, teller);
        Ok(())
    }

    /// With Docker, who sends this does not want the process to be run again.
    fn is_deadly(&self, number: i32) -> bool {
        number == libc::SIGKILL || number == self.stop_signal
    }

    /// Lets a session end as it last ended that would run again; whether it was between two runs.
    fn stay_ended(&mut self, teller: &mut Teller<'_>) -> bool {
        match &self.phase {
            Phase::Resting { last, .. } => {
                let last = last.clone();
                self.close(Body::Exited(last), teller.uplink);
                true
            }
            Phase::Draining(_) => self.restarts.give_up(),
            _ => false,
        }
    }

    pub(super) fn deliver_early(&mut self) {
        for number in self.early.take() {
            if let Err(error) = self.send(Whom::Process, number) {
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
        let stdio = self.streams.as_ref().and_then(|streams| streams.stdio.as_ref());
        stdio.map_or(Ok(()), |stdio| stdio.resize(r, c).map_err(refused))
    }

    pub(super) fn apply_size(&self) {
        let (rows, columns) = self.size;
        let stdio = self.streams.as_ref().and_then(|streams| streams.stdio.as_ref());
        if let Some(stdio) = stdio
            && let Err(errno) = stdio.resize(rows, columns)
        {
            warn!("the terminal cannot be resized: {errno}");
        }
    }

    /// Asks the process to end with `number` (its stop signal if absent), and kills it when it has not ended
    /// after `grace`. A session that does not run is over.
    ///
    /// # Errors
    ///
    /// [`RequestError::Signal`].
    pub fn stop(
        &mut self,
        number: Option<i32>,
        grace: Duration,
        teller: &mut Teller<'_>,
    ) -> Result<(), RequestError> {
        let number = number.unwrap_or(self.stop_signal);
        if !signal::is_valid(number) {
            return Err(RequestError::Signal(number));
        }
        self.restarts.give_up();
        match &self.phase {
            Phase::Waiting => {
                let text = "stopped before it was started".to_owned();
                self.report_failure(128 + number, text, teller);
            }
            Phase::Resting { .. } => {
                self.stay_ended(teller);
            }
            Phase::Starting { .. } | Phase::Running { .. } => {
                let kill_at = Instant::now().checked_add(grace);
                // Asked twice, the sooner end counts.
                self.kill_at = self.kill_at.into_iter().chain(kill_at).min();
                if self.signal(number, teller).is_ok() {
                    info!("session {}: sent signal {number}", self.id);
                }
            }
            Phase::Draining(_) | Phase::Over => {}
        }
        Ok(())
    }

    /// Does what is due by time alone.
    pub(super) fn tick(&mut self, teller: &mut Teller<'_>) {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            if self.signal(libc::SIGKILL, teller).is_ok() {
                info!("session {} did not end in time, killed", self.id);
            }
        }
        if self.gone_at.is_some_and(|at| at <= Instant::now()) {
            self.gone_at = None;
            self.abandon(teller);
        }
    }

    /// Ends the session without its process, which waits in the kernel where no signal reaches, or for somebody
    /// in its namespace who does. Without the container's own session the machine ends, and the process with it.
    fn abandon(&mut self, teller: &mut Teller<'_>) {
        if self.pid().is_none() {
            return;
        }
        warn!("session {} does not end, not even by SIGKILL; it is given up", self.id);
        let text = "the process does not end, not even by SIGKILL: it hangs in the kernel";
        let (session, code, time_us) = (self.id.clone(), 128 + libc::SIGKILL, clock::wall_us());
        teller.report(|reporter| reporter.ended(&self.id, code, text, time_us));
        let failed = Failed { session, code, text: text.to_owned(), time_us };
        self.close(Body::Failed(failed), teller.uplink);
    }
}
