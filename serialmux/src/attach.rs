//! `docker attach` on this side: the user's terminal and standard streams against a container's.

use crate::api::{Input, Receiver, Sender, answer, input, request};
use crate::client::{self, Client, ClientError};
use crate::terminal::{DetachKeys, Raw, Typed, size};
use bytes::Bytes;
use std::io::{self, Read, Write};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Signals passed on to the process (Docker's `--sig-proxy`).
const PROXIED: [i32; 6] = [1, 2, 3, 10, 12, 15];
const STDIN_STEP: usize = 32 * 1024;

/// How to attach.
#[derive(Debug, Clone)]
pub struct Attach {
    /// Name, id or unique start of the id.
    pub container: String,
    /// Pass standard input on.
    pub stdin: bool,
    /// Show output from the beginning, not from now.
    pub from_start: bool,
    /// Keys that detach.
    pub detach_keys: DetachKeys,
    /// Pass signals on.
    pub sig_proxy: bool,
}

/// How attaching ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// The container has ended.
    Exit(answer::Exit),
    /// The user detached, or nobody reads the output any more.
    Detached,
}

/// What the daemon has agreed to; the streams are connected by [`run`](Session::run).
#[derive(Debug)]
pub struct Session {
    attach: Attach,
    attached: answer::Attached,
    signals: Vec<(i32, Signal)>,
    sender: Sender,
    receiver: Receiver,
}

impl Session {
    /// Attaches; nothing is read or shown yet, but signals are the process's from now on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open(client: &Client, attach: Attach) -> Result<Self, ClientError> {
        let Attach { container, stdin, from_start, .. } = attach.clone();
        let body = request::Attach { container, stdin, from_start };
        let (sender, mut receiver) = client.open(request::Body::Attach(body)).await?;
        match client::next(&mut receiver).await? {
            answer::Body::Attached(attached) => {
                let signals = if attach.sig_proxy { proxied()? } else { Vec::new() };
                Ok(Self { attach, attached, signals, sender, receiver })
            }
            _ => Err(ClientError::Odd),
        }
    }

    /// Connects the standard streams until the container ends or the user detaches.
    ///
    /// # Errors
    /// [`ClientError`], also for a terminal or output that cannot be used.
    pub async fn run(self) -> Result<End, ClientError> {
        let Self { attach, attached, mut signals, mut sender, mut receiver } = self;
        let tty = attached.tty;
        let stdin = attach.stdin && attached.open_stdin;
        let raw = if tty && stdin { Raw::enter()? } else { None };
        let mut typed = raw.as_ref().map(|_| Typed::new(attach.detach_keys));
        let mut keys = stdin.then(read_stdin);
        let mut resized = signal(SignalKind::window_change())?;
        if tty {
            send_size(&mut sender).await?;
        }
        let end = loop {
            tokio::select! {
                answer = client::next(&mut receiver) => match answer? {
                    answer::Body::Output(output) => if show(&output).is_err() {
                        break End::Detached;
                    },
                    answer::Body::Exit(exit) => break End::Exit(exit),
                    _ => return Err(ClientError::Odd),
                },
                bytes = next_key(&mut keys), if keys.is_some() => {
                    let Some(bytes) = bytes else {
                        keys = None;
                        send(&mut sender, input::Body::End(request::Hello {})).await?;
                        continue;
                    };
                    let (bytes, detach) = sift(&mut typed, bytes);
                    if !bytes.is_empty() {
                        send(&mut sender, input::Body::Bytes(bytes)).await?;
                    }
                    if detach {
                        break End::Detached;
                    }
                }
                _ = resized.recv(), if tty => send_size(&mut sender).await?,
                number = any(&mut signals), if !signals.is_empty() => {
                    let kill = request::Kill { container: String::new(), signal: number };
                    send(&mut sender, input::Body::Kill(kill)).await?;
                }
            }
        };
        drop(raw);
        Ok(end)
    }
}

async fn send(sender: &mut Sender, body: input::Body) -> Result<(), ClientError> {
    // A daemon that has closed its end has said why in what is still to be read.
    match sender.send(&Input { body: Some(body) }).await {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

async fn send_size(sender: &mut Sender) -> Result<(), ClientError> {
    let Some((rows, columns)) = size() else { return Ok(()) };
    let resize = request::Resize { container: String::new(), rows, columns };
    send(sender, input::Body::Resize(resize)).await
}

fn sift(typed: &mut Option<Typed>, bytes: Bytes) -> (Bytes, bool) {
    match typed {
        None => (bytes, false),
        Some(typed) => {
            let sifted = typed.sift(&bytes);
            (sifted.bytes.into(), sifted.detach)
        }
    }
}

/// Writes output where it belongs.
///
/// # Errors
/// As the stream says.
pub fn show(output: &answer::Output) -> io::Result<()> {
    if output.stream == 2 {
        return io::stderr().write_all(&output.bytes);
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&output.bytes)?;
    stdout.flush()
}

// A thread of its own: a read of standard input cannot be given up, and must not keep the program
// from ending. Two pieces at most are read ahead of the daemon.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; STDIN_STEP];
        loop {
            let n = match io::stdin().read(&mut buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let bytes = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
            if n == 0 || sender.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn next_key(keys: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match keys {
        Some(keys) => keys.recv().await,
        None => None,
    }
}

fn proxied() -> io::Result<Vec<(i32, Signal)>> {
    PROXIED.into_iter().map(|number| Ok((number, signal(SignalKind::from_raw(number))?))).collect()
}

async fn any(signals: &mut [(i32, Signal)]) -> i32 {
    let number = std::future::poll_fn(|context| {
        for (number, signal) in signals.iter_mut() {
            if signal.poll_recv(context).is_ready() {
                return std::task::Poll::Ready(*number);
            }
        }
        std::task::Poll::Pending
    });
    number.await
}
