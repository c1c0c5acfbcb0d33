//! A fresh connection from a VM, until it has proved whose VM it is.

use super::registry::Registry;
use crate::clock;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use wire::{Duration, Greeter, Greeting, LinkConfig, Session};

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

/// A pipe that can be greeted.
pub(super) struct Fresh(Box<dyn Pipe>);

impl From<TcpStream> for Fresh {
    fn from(stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Self(Box::new(stream))
    }
}

impl From<Box<dyn Pipe>> for Fresh {
    fn from(pipe: Box<dyn Pipe>) -> Self {
        Self(pipe)
    }
}

/// Finds out who is at the other end and hands the pipe to its container.
pub(super) async fn greet(
    pipe: Fresh,
    from: String,
    registry: Arc<Registry>,
    _permit: OwnedSemaphorePermit,
) {
    again(pipe, from, registry).await;
}

/// As [`greet`], for a pipe that was a container's before.
pub(super) async fn again(pipe: Fresh, from: String, registry: Arc<Registry>) {
    match timeout(PATIENCE, introduce(pipe.0, &from, &registry)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(from, %error, "connection ended before a session"),
        Err(_) => tracing::debug!(from, "nobody there; hung up"),
    }
}

async fn introduce(
    mut pipe: Box<dyn Pipe>,
    from: &str,
    registry: &Arc<Registry>,
) -> io::Result<()> {
    let config = LinkConfig::uart_mux();
    let mut greeter = Greeter::new(&config, registry.instance(), clock::entropy(), clock::now());
    let mut container = None;
    let mut buffer = vec![0; 8192];
    let mut frame = Vec::new();
    loop {
        frame.clear();
        if greeter.poll_transmit(clock::now(), &mut frame) {
            pipe.write_all(&frame).await?;
        }
        let n = tokio::select! {
            n = pipe.read(&mut buffer) => n?,
            () = until(greeter.poll_timeout()) => continue,
        };
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut input = buffer.get(..n).unwrap_or_default();
        while let Some(greeting) = greeter.handle_bytes(clock::now(), &mut input) {
            match greeting {
                Greeting::Asked(id) => {
                    let Some((handle, psk, protection)) = registry.by_key(id) else {
                        tracing::warn!(from, key = ?id, "a VM with a key that is not registered");
                        continue;
                    };
                    greeter.offer(clock::now(), &psk, protection).map_err(io::Error::other)?;
                    container = Some(handle);
                }
                Greeting::Rejected(text) => {
                    tracing::warn!(from, text, "the guest rejects the handshake");
                }
                Greeting::Established(session) => {
                    let Some(handle) = container else { return Ok(()) };
                    let (from, rest) = (from.to_owned(), input.to_vec());
                    let (session, registry) = (*session, Arc::clone(registry));
                    handle.established(Established { pipe, from, session, rest, registry }).await;
                    return Ok(());
                }
            }
        }
    }
}

async fn until(moment: Option<wire::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(clock::deadline(moment)).await,
        None => std::future::pending().await,
    }
}
