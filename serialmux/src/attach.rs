//! `docker attach` on this side: the user's terminal and standard streams against a container's.

pub(crate) mod typing;

use crate::api::{Receiver, Sender, answer, request};
use crate::client::{self, Client, ClientError};
use crate::terminal::{DetachKeys, Raw, Typed, size};
use crate::{clock, reunion};
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use tokio::signal::unix::{Signal, SignalKind, signal};
use typing::Typing;

/// Signals passed on to the process (Docker's `--sig-proxy`).
const PROXIED: [i32; 6] = [1, 2, 3, 10, 12, 15];

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
    token: Vec<u8>,
    signals: Vec<(i32, Signal)>,
    client: Client,
    daemon: Daemon,
}

/// A search for a daemon that went away.
type Search = Pin<Box<dyn Future<Output = Result<(Sender, Receiver), ClientError>>>>;

/// The daemon's side of the conversation.
enum Daemon {
    There(Box<Sender>, Box<Receiver>),
    /// It went away, and is looked for.
    Away(Search),
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::There(..)) { "There" } else { "Away" })
    }
}

/// What happens while attached.
enum Happening {
    Answer(Result<answer::Body, ClientError>),
    Found(Result<(Sender, Receiver), ClientError>),
    Nothing,
    Detached,
}

impl Session {
    /// Attaches; nothing is read or shown yet, but signals are the process's from now on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open(client: &Client, attach: Attach) -> Result<Self, ClientError> {
        let mut token = vec![0; 16];
        clock::entropy()(&mut token);
        let Attach { container, stdin, .. } = attach.clone();
        let (position, from_start) = (None, false);
        let body = request::Attach { container, stdin, from_start, position, token: token.clone() };
        let (sender, mut receiver) = client.open(request::Body::Attach(body)).await?;
        match client::next(&mut receiver).await? {
            answer::Body::Attached(attached) => {
                let signals = if attach.sig_proxy { proxied()? } else { Vec::new() };
                let daemon = Daemon::There(Box::new(sender), Box::new(receiver));
                Ok(Self { attach, attached, token, signals, client: client.clone(), daemon })
            }
            _ => Err(ClientError::Odd),
        }
    }

    /// Connects the standard streams until the container ends or the user detaches.
    ///
    /// Input waits when the process does not read it; signals and sizes have connections of their
    /// own, so they get through all the same. A daemon that goes away is waited for, and what goes in
    /// and out goes on where it was.
    ///
    /// # Errors
    /// [`ClientError`], also for a terminal or output that cannot be used.
    pub async fn run(mut self) -> Result<End, ClientError> {
        let tty = self.attached.tty;
        let stdin = self.attach.stdin && self.attached.open_stdin;
        let raw = if tty && stdin { Raw::enter()? } else { None };
        let typed = raw.as_ref().map(|_| Typed::new(self.attach.detach_keys.clone()));
        let mut typing = stdin.then(|| Typing::begin(typed));
        let mut resized = signal(SignalKind::window_change())?;
        if tty {
            tell_size(&self.client, &self.attach.container);
        }
        let mut boot = Boot::new(self.attach.boots && io::stderr().is_terminal());
        let end = loop {
            let happening = tokio::select! {
                happening = self.daemon.next(&mut typing) => happening,
                () = boot.tick(), if boot.is_shown => Happening::Nothing,
                _ = resized.recv(), if tty => {
                    tell_size(&self.client, &self.attach.container);
                    Happening::Nothing
                }
                number = any(&mut self.signals), if !self.signals.is_empty() => {
                    tell_signal(&self.client, &self.attach.container, number);
                    Happening::Nothing
                }
            };
            match happening {
                Happening::Nothing => {}
                Happening::Detached => {
                    if let (Daemon::There(sender, _), Some(typing)) =
                        (&mut self.daemon, &mut typing)
                    {
                        typing.say_the_rest(sender).await;
                    }
                    break End::Detached;
                }
                Happening::Found(found) => {
                    let (sender, receiver) = found?;
                    self.daemon = Daemon::There(Box::new(sender), Box::new(receiver));
                }
                Happening::Answer(answer) => {
                    if let Some(end) = self.take(boot.over(answer), &mut typing)? {
                        break end;
                    }
                }
            }
        };
        drop(raw);
        Ok(end)
    }

    fn take(
        &mut self,
        answer: Result<answer::Body, ClientError>,
        typing: &mut Option<Typing>,
    ) -> Result<Option<End>, ClientError> {
        match answer {
            Ok(answer::Body::Output(output)) => {
                if show(&output).is_err() {
                    return Ok(Some(End::Detached));
                }
                self.attached.position = output.position;
            }
            Ok(answer::Body::Taken(taken)) => {
                if let Some(typing) = typing {
                    typing.taken(taken.bytes);
                }
            }
            Ok(answer::Body::Attached(_)) => {}
            Ok(answer::Body::Exit(exit)) => return Ok(Some(End::Exit(exit))),
            Ok(_) => return Err(ClientError::Odd),
            Err(error) if reunion::is_away(&error) => {
                tracing::debug!(%error, "waiting for the daemon to come back");
                if let Some(typing) = typing {
                    typing.interrupted();
                }
                self.daemon = self.look_for_it();
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn look_for_it(&self) -> Daemon {
        let (client, stdin) = (self.client.clone(), self.attach.stdin);
        let answer::Attached { id, position, .. } = self.attached.clone();
        let token = self.token.clone();
        Daemon::Away(Box::pin(async move {
            let again = || {
                let (container, token) = (id.clone(), token.clone());
                let (from_start, position) = (false, Some(position));
                let attach = request::Attach { container, stdin, from_start, position, token };
                request::Body::Attach(attach)
            };
            reunion::open(&client, again).await
        }))
    }
}

impl Daemon {
    // Waits for whatever comes first of the daemon and the user.
    async fn next(&mut self, typing: &mut Option<Typing>) -> Happening {
        match (self, typing) {
            (Self::There(_, receiver), None) => Happening::Answer(client::next(receiver).await),
            (Self::Away(found), None) => Happening::Found(found.await),
            (Self::There(sender, receiver), Some(typing)) => {
                // Only one of the two has the typing at a time: what it has to say goes first, as
                // listening again and again would keep it from being said.
                tokio::select! {
                    answer = client::next(receiver) => Happening::Answer(answer),
                    detached = typing.converse(sender) => match detached {
                        true => Happening::Detached,
                        false => Happening::Nothing,
                    },
                }
            }
            (Self::Away(found), Some(typing)) => tokio::select! {
                found = found => Happening::Found(found),
                detached = typing.listen() => match detached {
                    true => Happening::Detached,
                    false => Happening::Nothing,
                },
            },
        }
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

pub(crate) fn proxied() -> io::Result<Vec<(i32, Signal)>> {
    caught(&PROXIED)
}

/// These signals, which from now on to the end of this program do nothing by themselves.
pub(crate) fn caught(numbers: &[i32]) -> io::Result<Vec<(i32, Signal)>> {
    let catch = |number: &i32| Ok((*number, signal(SignalKind::from_raw(*number))?));
    numbers.iter().map(catch).collect()
}

pub(crate) async fn any(signals: &mut [(i32, Signal)]) -> i32 {
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
