//! What the rest of the daemon holds of a container: its commands, and its status.

use super::exec_client::Attachment;
use super::inputs::{Input, Takings};
use super::inspection::Inspection;
use super::streams::Ends;
use crate::daemon::RegistryError;
use crate::daemon::idle::Idle;
use crate::daemon::peer::Established;
use crate::store::journal::{Cursor, JournalError};
use crate::store::state::{Exit, Registration, State};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use wire::message::guest::Known;
use wire::message::mux;
use wire::{KeyId, Psk};

/// What is known of a container, and how much output there is to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Whether its VM has a session now.
    pub(crate) is_connected: bool,
    /// When the process of this run was started, µs since the Unix epoch.
    pub(crate) started_us: Option<u64>,
    /// How this run ended.
    pub(crate) exit: Option<Exit>,
    /// Whether its processes are frozen.
    pub(crate) paused: bool,
    /// Whether its process has ended and is about to be run again.
    pub(crate) restarting: bool,
    /// Whether more output of this run may come.
    pub(crate) output_open: bool,
    /// Length of the journal.
    pub(crate) written: u64,
    /// How often a VM was expected since the daemon began: what a client types is for that one.
    pub(crate) era: u64,
    /// Which run this is, since the daemon began.
    pub(crate) run: u64,
    /// The last of the runs before that of which it is known how it ended.
    pub(crate) past: Option<Past>,
}

/// A run that another one has followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    run: u64,
    exit: Exit,
    /// Length of the journal with all of its output.
    written: u64,
}

impl Status {
    pub(super) fn recovered(state: &State, written: u64, output_open: bool) -> Self {
        let (started_us, exit) = (state.started_us, state.exit.clone());
        let (paused, restarting) = (state.paused, state.restarting);
        Self { started_us, exit, paused, restarting, written, output_open, ..Self::default() }
    }

    /// Another run begins, whose output is behind so much of the journal.
    pub(super) fn new_run(&mut self, start: u64) {
        let Self { written, is_connected, era, run, .. } = *self;
        let past = self.exit.take().map(|exit| Past { run, exit, written: start });
        let past = past.or_else(|| self.past.take());
        *self = Self { written, is_connected, era, run: run + 1, past, ..Self::default() };
    }

    /// For whoever has watched since that run: how much of the journal there is for them, and how the run ended, or
    /// the one that came after it if nobody knows that of it.
    pub(crate) fn since(&self, run: u64) -> (u64, Option<&Exit>) {
        match &self.past {
            Some(past) if past.run >= run && past.written > self.written => (self.written, None),
            Some(past) if past.run >= run => (past.written, Some(&past.exit)),
            _ => (self.written, self.ended()),
        }
    }

    /// `created`, `running`, `paused`, `restarting` or `exited`.
    pub(crate) fn word(&self) -> &'static str {
        match (&self.exit, self.started_us) {
            (Some(_), _) => "exited",
            (None, Some(_)) if self.paused => "paused",
            (None, Some(_)) if self.restarting => "restarting",
            (None, Some(_)) => "running",
            (None, None) => "created",
        }
    }

    /// How this run ended, once all of its output is in the journal.
    pub(crate) fn ended(&self) -> Option<&Exit> {
        self.exit.as_ref().filter(|_| !self.output_open)
    }
}

pub(super) type Reply = oneshot::Sender<Result<Vec<u8>, String>>;

#[derive(Debug)]
pub(super) enum Command {
    Established(Box<Established>),
    Request { body: mux::Body, reply: Reply },
    Attach { known: Known, from: u64, reply: oneshot::Sender<(Attachment, bool)> },
    Refused(String),
    Stream { body: mux::Body, ends: Ends, reply: Reply },
    Inspect(oneshot::Sender<Inspection>),
    Expect { restarts: bool, done: oneshot::Sender<()> },
    Gone { text: String, since_us: u64, reply: oneshot::Sender<bool> },
}

/// A container, for everybody but its own task.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// What it was registered with last.
    registration: Mutex<Registration>,
    /// Id of its key.
    pub(crate) key_id: KeyId,
    /// Its VM's pipes that do not carry the link.
    pub(in crate::daemon) idle: Arc<Idle>,
    journal: PathBuf,
    commands: mpsc::Sender<Command>,
    inputs: mpsc::Sender<(u64, Input)>,
    takings: watch::Receiver<Takings>,
    status: watch::Receiver<Status>,
    removed: AtomicBool,
    task: AbortHandle,
}

impl Handle {
    pub(super) fn new(
        registration: Registration,
        journal: PathBuf,
        idle: Arc<Idle>,
        commands: mpsc::Sender<Command>,
        (inputs, takings): (mpsc::Sender<(u64, Input)>, watch::Receiver<Takings>),
        status: watch::Receiver<Status>,
        task: &JoinHandle<()>,
    ) -> Self {
        let key_id = Psk::derive(&registration.key).id();
        let task = task.abort_handle();
        let removed = AtomicBool::new(false);
        Self {
            id: registration.id.clone(),
            name: registration.name.clone(),
            registration: Mutex::new(registration),
            key_id,
            idle,
            journal,
            commands,
            inputs,
            takings,
            status,
            removed,
            task,
        }
    }

    /// Registers it again, with a config that was edited, perhaps. Gives what is another now, if anything is.
    ///
    /// # Errors
    /// [`RegistryError`]: it is not this container, or one that runs as it was registered.
    pub(crate) fn register(
        &self,
        again: Registration,
    ) -> Result<Option<Registration>, RegistryError> {
        let mut latest = self.registration();
        let again = Registration { created_us: latest.created_us, ..again };
        if !again.is_of_the_same(&latest) {
            return Err(RegistryError::Identity { id: self.id.clone(), name: self.name.clone() });
        }
        let shown = again.options.clone();
        if again != (Registration { options: shown, ..latest.clone() })
            && self.status().is_connected
        {
            return Err(RegistryError::Running(again.name));
        }
        let is_other = *latest != again;
        latest.clone_from(&again);
        Ok(is_other.then_some(again))
    }

    /// What it was registered with last.
    pub(crate) fn registered(&self) -> Registration {
        self.registration().clone()
    }

    fn registration(&self) -> MutexGuard<'_, Registration> {
        // What is in there is whole whatever happened.
        self.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now.
    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A watcher of what is known.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// A reader of its output, at the start.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn cursor(&self) -> Result<Cursor, JournalError> {
        Cursor::open(&self.journal)
    }

    /// Where standard input goes, with the era that it is for; waits when the process does not read.
    pub(crate) fn inputs(&self) -> mpsc::Sender<(u64, Input)> {
        self.inputs.clone()
    }

    /// How much of each client's input was taken.
    pub(crate) fn takings(&self) -> watch::Receiver<Takings> {
        self.takings.clone()
    }

    /// Hands over a pipe whose VM has proved to be this container's.
    pub(in crate::daemon) async fn established(&self, established: Established) {
        self.send(Command::Established(Box::new(established))).await;
    }

    /// Asks the guest for something and waits for its answer: the reply's body.
    ///
    /// # Errors
    /// The guest's words, or why it cannot be asked.
    pub(crate) async fn request(&self, body: mux::Body) -> Result<Vec<u8>, String> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request { body, reply }).await;
        answer.await.unwrap_or_else(|_| Err("the container is being removed".into()))
    }

    /// Connects a client to a process beside the container's own, which has everything up to `from`
    /// already; `None` if the container is being removed. The second says whether there is or was such
    /// a process: if not, it is still to be asked for.
    pub(crate) async fn attach_exec(&self, known: Known, from: u64) -> Option<(Attachment, bool)> {
        let (reply, attachment) = oneshot::channel();
        self.send(Command::Attach { known, from, reply }).await;
        attachment.await.ok()
    }

    /// The guest has refused to run a process.
    pub(crate) async fn exec_refused(&self, exec: String) {
        self.send(Command::Refused(exec)).await;
    }

    /// Asks the guest for something that has a stream. The stream's end and the answer may come in any order.
    pub(crate) async fn stream(
        &self,
        body: mux::Body,
        ends: Ends,
    ) -> oneshot::Receiver<Result<Vec<u8>, String>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Stream { body, ends, reply }).await;
        answer
    }

    /// Everything known of it, as one JSON object without its key; `None` if it is being removed.
    pub(crate) async fn inspect(&self) -> Option<serde_json::Value> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Inspect(reply)).await;
        let inspection = answer.await.ok()?;
        let status = self.status();
        let (started_us, exit) = (status.started_us, status.exit.as_ref());
        Some(inspection.json(&self.registered(), status.word(), started_us, exit))
    }

    /// The VM is about to be started, perhaps because somebody has it run again: an earlier run's end is no
    /// longer the container's.
    pub(crate) async fn expect(&self, restarts: bool) {
        self.command(|done| Command::Expect { restarts, done }).await;
    }

    /// The VM that was started at `since_us` is gone, as whoever ran it knows; whether that was the last one.
    pub(crate) async fn gone(&self, text: String, since_us: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Gone { text, since_us, reply }).await;
        answer.await.unwrap_or(true)
    }

    // Done when it returns, unless the container is being removed.
    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, is_done) = oneshot::channel();
        self.send(command(done)).await;
        is_done.await.ok();
    }

    // A task that has ended takes no commands, and then there is nothing to command.
    async fn send(&self, command: Command) {
        drop(self.commands.send(command).await);
    }

    /// Whether it was removed. Else what has ended is the daemon, and the container goes on in the next.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Ends the container's task: it is being removed.
    pub(crate) fn stop(&self) {
        self.removed.store(true, Ordering::Relaxed);
        self.idle.close();
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_is_told_of_the_end_of_the_run_they_began_with() {
        let mut status = Status { written: 10, ..Status::default() };
        // Of a run that nobody knows the end of, the next one's counts.
        status.new_run(10);
        assert_eq!(status.since(0), (10, None));
        status.exit = Some(Exit::without_process(3, String::new(), 0));
        assert_eq!(status.since(0).1.map(|exit| exit.code), Some(3));
        // Its last bytes are not written yet when the next one begins.
        status.new_run(15);
        assert_eq!(status.since(1), (10, None));
        status.written = 20;
        for run in [0, 1] {
            let (written, exit) = status.since(run);
            assert_eq!((written, exit.map(|exit| exit.code)), (15, Some(3)));
        }
        assert_eq!(status.since(2), (20, None));
    }
}
