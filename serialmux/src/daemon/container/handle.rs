//! What the rest of the daemon holds of a container: its commands, and its status.

use crate::daemon::peer::Established;
use crate::store::journal::{Cursor, JournalError};
use crate::store::state::{Exit, Registration, State};
use bytes::Bytes;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use wire::message::mux;
use wire::{KeyId, Psk};

/// What is known of a container, and how much output there is to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether its VM has a session now.
    pub is_connected: bool,
    /// When the process of this run was started, µs since the Unix epoch.
    pub started_us: Option<u64>,
    /// How this run ended.
    pub exit: Option<Exit>,
    /// Whether more output of this run may come.
    pub output_open: bool,
    /// Length of the journal.
    pub written: u64,
    /// How many boots were seen since the daemon started.
    pub runs: u64,
}

impl Status {
    pub(super) fn recovered(state: &State, written: u64) -> Self {
        let (started_us, exit) = (state.started_us, state.exit.clone());
        Self { started_us, exit, written, ..Self::default() }
    }

    pub(super) fn new_run(&mut self) {
        let (written, runs, is_connected) = (self.written, self.runs, self.is_connected);
        *self = Self { written, runs, is_connected, ..Self::default() };
    }

    /// `created`, `running` or `exited`.
    pub fn word(&self) -> &'static str {
        match (&self.exit, self.started_us) {
            (Some(_), _) => "exited",
            (None, Some(_)) => "running",
            (None, None) => "created",
        }
    }

    /// How this run ended, once all of its output is in the journal.
    pub fn ended(&self) -> Option<&Exit> {
        self.exit.as_ref().filter(|_| !self.output_open)
    }
}

/// What a client puts into a container's standard input.
#[derive(Debug)]
pub enum Input {
    /// Bytes.
    Bytes(Bytes),
    /// Its end.
    End,
}

pub(super) type Reply = oneshot::Sender<Result<(), String>>;

#[derive(Debug)]
pub(super) enum Command {
    Established(Box<Established>),
    Request { body: mux::Body, reply: Reply },
    Expect(oneshot::Sender<()>),
    Gone(String, oneshot::Sender<()>),
}

/// A container, for everybody but its own task.
#[derive(Debug)]
pub struct Handle {
    /// What it was registered with.
    pub registration: Registration,
    /// Id of its key.
    pub key_id: KeyId,
    journal: PathBuf,
    commands: mpsc::Sender<Command>,
    inputs: mpsc::Sender<Input>,
    status: watch::Receiver<Status>,
    task: AbortHandle,
}

impl Handle {
    pub(super) fn new(
        registration: Registration,
        journal: PathBuf,
        commands: mpsc::Sender<Command>,
        inputs: mpsc::Sender<Input>,
        status: watch::Receiver<Status>,
        task: &JoinHandle<()>,
    ) -> Self {
        let key_id = Psk::derive(&registration.key).id();
        let task = task.abort_handle();
        Self { registration, key_id, journal, commands, inputs, status, task }
    }

    /// Whether `other` differs in nothing but the time of registration.
    pub fn is_same(&self, other: &Registration) -> bool {
        let other = Registration { created_us: self.registration.created_us, ..other.clone() };
        self.registration == other
    }

    /// What is known now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A watcher of what is known.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// A reader of its output, at the start.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn cursor(&self) -> Result<Cursor, JournalError> {
        Cursor::open(&self.journal)
    }

    /// Where standard input goes; waits when the process does not read.
    pub fn inputs(&self) -> mpsc::Sender<Input> {
        self.inputs.clone()
    }

    /// Hands over a pipe whose VM has proved to be this container's.
    pub(in crate::daemon) async fn established(&self, established: Established) {
        self.send(Command::Established(Box::new(established))).await;
    }

    /// Asks the guest for something and waits for its answer.
    ///
    /// # Errors
    /// The guest's words, or why it cannot be asked.
    pub async fn request(&self, body: mux::Body) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request { body, reply }).await;
        answer.await.unwrap_or_else(|_| Err("the container is being removed".into()))
    }

    /// The VM is about to be started: an earlier run's end is no longer the container's.
    pub async fn expect(&self) {
        self.command(Command::Expect).await;
    }

    /// The VM is gone, as whoever ran it knows.
    pub async fn gone(&self, text: String) {
        self.command(|done| Command::Gone(text, done)).await;
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

    /// Ends the container's task.
    pub fn stop(&self) {
        self.task.abort();
    }
}
