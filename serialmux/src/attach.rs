//! `docker attach` on this side: the user's terminal and standard streams against a container's.

use crate::api::{Input, Receiver, Sender, answer, input, request};
use crate::client::{self, Client, ClientError};
use crate::terminal::{DetachKeys, Raw, Sifted, Typed, size};
use bytes::Bytes;
use std::io::{self, IsTerminal, Read, Write};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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
    /// Keys that detach.
    pub detach_keys: DetachKeys,
    /// Pass signals on.
    pub sig_proxy: bool,
    /// Say on a terminal that the VM boots, until there is output.
    pub boots: bool,
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
    client: Client,
    sender: Sender,
    receiver: Receiver,
}

impl Session {
    /// Attaches; nothing is read or shown yet, but signals are the process's from now on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open(client: &Client, attach: Attach) -> Result<Self, ClientError> {
        let Attach { container, stdin, .. } = attach.clone();
        let body = request::Attach { container, stdin, from_start: false };
        let (sender, mut receiver) = client.open(request::Body::Attach(body)).await?;
        match client::next(&mut receiver).await? {
            answer::Body::Attached(attached) => {
                let signals = if attach.sig_proxy { proxied()? } else { Vec::new() };
                Ok(Self { attach, attached, signals, client: client.clone(), sender, receiver })
            }
            _ => Err(ClientError::Odd),
        }
    }

    /// Connects the standard streams until the container ends or the user detaches.
    ///
    /// Input waits when the process does not read it; signals and sizes have connections of their
    /// own, so they get through all the same.
    ///
    /// # Errors
    /// [`ClientError`], also for a terminal or output that cannot be used.
    pub async fn run(self) -> Result<End, ClientError> {
        let Self { attach, attached, mut signals, client, sender, mut receiver } = self;
        let tty = attached.tty;
        let stdin = attach.stdin && attached.open_stdin;
        let raw = if tty && stdin { Raw::enter()? } else { None };
        let typed = raw.as_ref().map(|_| Typed::new(attach.detach_keys));
        // Without input the sending half stays open all the same: closing it hangs up.
        let (mut detached, _open) = match stdin {
            true => (Some(tokio::spawn(forward(sender, typed))), None),
            false => (None, Some(sender)),
        };
        let mut resized = signal(SignalKind::window_change())?;
        if tty {
            tell_size(&client, &attach.container);
        }
        let mut boot = Boot::new(attach.boots && io::stderr().is_terminal());
        let end = loop {
            tokio::select! {
                answer = client::next(&mut receiver) => match boot.over(answer)? {
                    answer::Body::Output(output) => if show(&output).is_err() {
                        break End::Detached;
                    },
                    answer::Body::Exit(exit) => break End::Exit(exit),
                    _ => return Err(ClientError::Odd),
                },
                _sender = done(&mut detached) => break End::Detached,
                () = boot.tick(), if boot.is_shown => {}
                _ = resized.recv(), if tty => tell_size(&client, &attach.container),
                number = any(&mut signals), if !signals.is_empty() => {
                    tell_signal(&client, &attach.container, number);
                }
            }
        };
        drop(raw);
        Ok(end)
    }
}

// Moves standard input to the daemon. Returns when the user detaches, and else never: the end of
// input is not the end of being attached. The sender comes back, for the daemon hangs up when it is
// dropped, which must not look like a broken connection to who has just detached.
async fn forward(mut sender: Sender, mut typed: Option<Typed>) -> Sender {
    let mut keys = read_stdin();
    while let Some(bytes) = keys.recv().await {
        let sifted = match &mut typed {
            None => Sifted { bytes: bytes.into(), detach: false },
            Some(typed) => typed.sift(&bytes),
        };
        if !sifted.bytes.is_empty() {
            send(&mut sender, input::Body::Bytes(sifted.bytes.into())).await;
        }
        if sifted.detach {
            return sender;
        }
    }
    send(&mut sender, input::Body::End(request::Hello {})).await;
    std::future::pending().await
}

// A daemon that has closed its end says why in what is still to be read from it.
async fn send(sender: &mut Sender, body: input::Body) {
    sender.send(&Input { body: Some(body) }).await.ok();
}

async fn done(task: &mut Option<JoinHandle<Sender>>) -> Option<Sender> {
    match task {
        Some(task) => task.await.ok(),
        None => std::future::pending().await,
    }
}

fn tell_size(client: &Client, container: &str) {
    let Some((rows, columns)) = size() else { return };
    let (client, container) = (client.clone(), container.to_owned());
    // A container that is just ending takes no size, and needs none.
    tokio::spawn(async move { client.resize(container, rows, columns).await.ok() });
}

fn tell_signal(client: &Client, container: &str, number: i32) {
    let (client, container) = (client.clone(), container.to_owned());
    tokio::spawn(async move { client.kill(container, number).await.ok() });
}

/// A line on standard error that counts the seconds of a boot, and goes when there is output.
struct Boot {
    is_shown: bool,
    seconds: tokio::time::Interval,
    n: u32,
}

impl Boot {
    fn new(is_shown: bool) -> Self {
        let second = std::time::Duration::from_secs(1);
        let start = tokio::time::Instant::now() + second;
        Self { is_shown, seconds: tokio::time::interval_at(start, second), n: 0 }
    }

    async fn tick(&mut self) {
        self.seconds.tick().await;
        self.n += 1;
        eprint!("\rcontainervm: the VM boots, {} s ", self.n);
    }

    // Passes `answer` on, with the line wiped before it is shown.
    fn over<T>(&mut self, answer: T) -> T {
        if self.is_shown && self.n > 0 {
            eprint!("\r\x1b[K");
        }
        self.is_shown = false;
        answer
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
