//! One client of an exec, seen from both sides: the container's task, and the task that has its socket.

use crate::store::state::Exit;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Events that wait for a client's socket; what does not fit stays in the guest.
const EVENTS: usize = 8;
/// Pieces of input that wait for the link.
const PIECES: usize = 4;

/// What a client is told.
#[derive(Debug, Clone)]
pub(crate) enum ExecEvent {
    /// The process runs.
    Started,
    /// Input is taken, from this offset on.
    InputFrom(u64),
    /// Output.
    Output {
        /// 1 stdout, 2 stderr.
        stream: u32,
        /// The output itself.
        bytes: Bytes,
        /// Offset in the channel after it.
        next: u64,
    },
    /// It has ended, and all of its output was told.
    Exit(Exit),
}

/// What a client has done.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) exec: String,
    /// Which of the clients there have been.
    pub(super) client: u64,
    pub(super) body: NoteBody,
}

#[derive(Debug)]
pub(super) enum NoteBody {
    /// It has everything up to this offset.
    Taken(u64),
    /// Bytes for the process; the permit goes when they are in the link.
    Input(Bytes, OwnedSemaphorePermit),
    /// The end of that.
    InputEnd,
    /// It knows how the process ended.
    Done,
    /// It has hung up, and may come back.
    Left,
}

/// A client, for the container's task.
#[derive(Debug)]
pub(super) struct ExecClient {
    pub(super) number: u64,
    /// It has everything up to this offset from an earlier attachment.
    pub(super) from: u64,
    events: mpsc::Sender<ExecEvent>,
    pub(super) knows_start: bool,
    pub(super) knows_input: bool,
    pub(super) knows_end: bool,
}

/// A client, for the task that has its socket.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// What it is told.
    pub(crate) events: mpsc::Receiver<ExecEvent>,
    /// What it tells.
    pub(crate) notes: Notes,
}

/// Where a client tells what it has done.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    exec: String,
    client: u64,
    credit: Arc<Semaphore>,
    notes: mpsc::Sender<Note>,
}

impl ExecClient {
    pub(super) fn connect(exec: &str, from: u64, notes: mpsc::Sender<Note>) -> (Self, Attachment) {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel(EVENTS);
        let credit = Arc::new(Semaphore::new(PIECES));
        let notes = Notes { exec: exec.to_owned(), client: number, credit, notes };
        let (knows_start, knows_input, knows_end) = (false, false, false);
        let client = Self { number, from, events: sender, knows_start, knows_input, knows_end };
        (client, Attachment { events, notes })
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Tells something, if there is room for it.
    pub(super) fn tell(&self, event: ExecEvent) -> Result<(), ExecEvent> {
        self.events.try_send(event).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => {
                event
            }
        })
    }
}

impl Notes {
    // A task that has ended takes no notes, and then there is nothing to note.
    async fn note(&self, body: NoteBody) {
        let (exec, client) = (self.exec.clone(), self.client);
        self.notes.send(Note { exec, client, body }).await.ok();
    }

    /// The client has everything up to `next`.
    pub(crate) async fn taken(&self, next: u64) {
        self.note(NoteBody::Taken(next)).await;
    }

    /// The client knows how the process ended.
    pub(crate) async fn done(&self) {
        self.note(NoteBody::Done).await;
    }

    /// The client has hung up. To be told when its events are dropped: nobody would look for that.
    pub(crate) async fn left(&self) {
        self.note(NoteBody::Left).await;
    }

    /// Bytes for the process. Waits when it does not read.
    pub(crate) async fn input(&self, bytes: Bytes) {
        // Never closed.
        if let Ok(permit) = Arc::clone(&self.credit).acquire_owned().await {
            self.note(NoteBody::Input(bytes, permit)).await;
        }
    }

    /// The end of the input.
    pub(crate) async fn end_input(&self) {
        self.note(NoteBody::InputEnd).await;
    }
}
