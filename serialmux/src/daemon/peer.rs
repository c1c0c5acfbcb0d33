//! A pipe from a VM while it carries no link: until the VM has proved whose it is, and while it rests.
//!
//! ```text
//!             proves its key, wants to be used
//!   stranger ────────────────────────────────────────▶ the container's task
//!       │ proves its key, wants only to be known          │ another pipe of the VM took over
//!       ▼                                                 ▼
//!   resting ◀─────────────────────────────────────────────┘
//!       └── asks for a session ──▶ the container's task
//! ```

use super::container::Handle;
use super::idle::Stay;
use super::registry::Registry;
use super::strangers::Visit;
use crate::clock;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use wire::{Duration, Greeter, Greeting, LinkConfig, Session, Transport};

/// How long a stranger may take; a guest that is not up yet connects again.
const PATIENCE: Duration = Duration::from_secs(600);

/// A byte pipe to a VM, of whatever kind.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// An established pipe with its session, on its way to the container's task.
pub(super) struct Established {
    pub(super) pipe: Box<dyn Pipe>,
    pub(super) from: String,
    pub(super) session: Session,
    /// Bytes that came after the handshake.
    pub(super) rest: Vec<u8>,
    /// To be greeted again by, should the guest lose its session.
    pub(super) registry: Arc<Registry>,
}

impl std::fmt::Debug for Established {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Established").field("from", &self.from).finish_non_exhaustive()
    }
}

/// A pipe without a link.
pub(super) struct Fresh {
    pub(super) pipe: Box<dyn Pipe>,
    pub(super) from: String,
    pub(super) registry: Arc<Registry>,
}

/// Finds out who is at the other end and hands the pipe to its container.
pub(super) async fn greet(fresh: Fresh, visit: Visit) {
    let from = fresh.from.clone();
    let mut meeting = Meeting::new(fresh, Greeter::new);
    let met = tokio::select! {
        met = timeout(PATIENCE, meeting.introduce(|| visit.named())) => met,
        () = visit.evicted() => {
            return tracing::debug!(from, "hung up: too many others have not said who they are");
        }
    };
    // It is a stranger no longer.
    drop(visit);
    go_on(&from, meeting, met).await;
}

/// As [`greet`], for a pipe that was a container's before, whose guest has lost its session: it counts among the
/// idle ones of that container, and goes when there are too many.
pub(super) async fn again(fresh: Fresh, mut stay: Stay) {
    let from = fresh.from.clone();
    let mut meeting = Meeting::new(fresh, Greeter::new);
    let met = tokio::select! {
        met = timeout(PATIENCE, meeting.introduce(|| ())) => met,
        () = stay.evicted() => return,
    };
    drop(stay);
    go_on(&from, meeting, met).await;
}

/// Keeps a pipe whose guest uses another one now.
pub(super) async fn keep(fresh: Fresh, stay: Stay) {
    let from = fresh.from.clone();
    log(&from, Meeting::new(fresh, Greeter::quiet).rest(stay).await);
}

async fn go_on(from: &str, meeting: Meeting, met: Result<io::Result<Met>, Elapsed>) {
    let Ok(met) = met else { return tracing::debug!(from, "nobody there; hung up") };
    let done = match met {
        Ok(met) => match meeting.settle(met).await {
            Some((meeting, stay)) => meeting.rest(stay).await,
            None => Ok(()),
        },
        Err(error) => Err(error),
    };
    log(from, done);
}

fn log(from: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(from, %error, "connection ended before a session");
    }
}

type NewGreeter = fn(&LinkConfig, [u8; 16], wire::Entropy, wire::Instant) -> Greeter;

/// The conversation on a pipe without a link.
struct Meeting {
    pipe: Box<dyn Pipe>,
    from: String,
    registry: Arc<Registry>,
    greeter: Greeter,
    /// Whose key the guest says it has.
    asked: Option<Arc<Handle>>,
}

/// A guest that has proved its key.
struct Met {
    session: Session,
    container: Arc<Handle>,
    rest: Vec<u8>,
}

impl Meeting {
    fn new(Fresh { pipe, from, registry }: Fresh, greeter: NewGreeter) -> Self {
        // What kind of pipe it is the guest will say; until then the largest packets are announced.
        let config = LinkConfig::mux(Transport::Virtio);
        let greeter = greeter(&config, registry.instance(), clock::entropy(), clock::now());
        Self { pipe, from, registry, greeter, asked: None }
    }

    /// Talks until the guest has proved its key. Tells when it has `named` one that is registered.
    async fn introduce(&mut self, named: impl Fn()) -> io::Result<Met> {
        // All that is held for a pipe at rest, and a partial frame.
        let mut buffer = vec![0; 2048];
        let mut frame = Vec::new();
        loop {
            frame.clear();
            if self.greeter.poll_transmit(clock::now(), &mut frame) {
                self.pipe.write_all(&frame).await?;
            }
            let n = tokio::select! {
                n = self.pipe.read(&mut buffer) => n?,
                () = until(self.greeter.poll_timeout()) => continue,
            };
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut input = buffer.get(..n).unwrap_or_default();
            while let Some(greeting) = self.greeter.handle_bytes(clock::now(), &mut input) {
                if let Some(met) = self.greeted(greeting, input)? {
                    return Ok(met);
                }
                if self.asked.is_some() {
                    named();
                }
            }
        }
    }

    fn greeted(&mut self, greeting: Greeting, rest: &[u8]) -> io::Result<Option<Met>> {
        let from = &self.from;
        match greeting {
            Greeting::Asked(id) => match self.registry.by_key(id) {
                Some((handle, psk, protection)) => {
                    let offered = self.greeter.offer(clock::now(), &psk, protection);
                    offered.map_err(io::Error::other)?;
                    self.asked = Some(handle);
                }
                None => tracing::warn!(from, key = ?id, "a VM with a key that is not registered"),
            },
            Greeting::Rejected(text) => {
                tracing::warn!(from, text, "the guest rejects the handshake");
            }
            Greeting::Established(session) => {
                // Only what was offered can be answered, and only who was asked was offered.
                let container = self.asked.take().ok_or(io::ErrorKind::InvalidData)?;
                return Ok(Some(Met { session: *session, container, rest: rest.to_vec() }));
            }
        }
        Ok(None)
    }

    /// Hands the pipe to its container, or has it rest, as the guest wants it.
    async fn settle(self, met: Met) -> Option<(Self, Stay)> {
        let Met { session, container, rest } = met;
        let Self { pipe, from, registry, .. } = self;
        if !session.peer().resting {
            container.established(Established { pipe, from, session, rest, registry }).await;
            return None;
        }
        tracing::debug!(from, transport = session.peer().transport.word(), "at rest");
        let stay = container.idle.enter(from.clone(), session.peer().transport);
        Some((Self::new(Fresh { pipe, from, registry }, Greeter::quiet), stay))
    }

    /// Waits until the guest wants the pipe, or it has to go.
    async fn rest(self, stay: Stay) -> io::Result<()> {
        let mut next = Some((self, stay));
        while let Some((mut meeting, mut stay)) = next {
            let met = tokio::select! {
                met = meeting.introduce(|| ()) => met?,
                () = stay.evicted() => return Ok(()),
            };
            drop(stay);
            next = meeting.settle(met).await;
        }
        Ok(())
    }
}

async fn until(moment: Option<wire::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(clock::deadline(moment)).await,
        None => std::future::pending().await,
    }
}
