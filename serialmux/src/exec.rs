//! `docker exec` on this side: the user's streams against a process beside a container's own.
//!
//! It outlives the daemon: when the connection breaks, it waits for a daemon to be back, asks for the same
//! exec again, says how much output it has, and sends the input again that did not get into the VM.

use crate::api::{Input, Sender, answer, input, request};
use crate::attach::typing::read_stdin;
use crate::attach::{any, proxied, show};
use crate::client::{self, Client, ClientError};
use crate::reunion;
use crate::terminal::{DetachKeys, Raw, Typed, size};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use wire::message::mux;

/// Input kept for being sent again: more than what daemon and link may hold of it.
const KEPT_INPUT: usize = 16 * 1024 * 1024;

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Exec {
    /// Name, id or unique start of the id.
    pub container: String,
    /// The rest; its session is the exec's id.
    pub exec: mux::Exec,
    /// Keys that detach.
    pub detach_keys: DetachKeys,
}

/// How it ended, as far as this client is concerned.
#[derive(Debug, PartialEq)]
pub enum End {
    /// The process has ended.
    Exit(answer::Exit),
    /// It goes on without a client.
    Detached,
}

/// A made-up id for an exec.
///
/// # Errors
/// When the system has no random bytes.
pub fn new_id() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Runs it to its end.
///
/// # Errors
/// [`ClientError`], also for a terminal or output that cannot be used.
pub async fn run(client: &Client, exec: Exec) -> Result<End, ClientError> {
    let raw = if exec.exec.tty && exec.exec.open_stdin { Raw::enter()? } else { None };
    let typed = raw.as_ref().map(|_| Typed::new(exec.detach_keys.clone()));
    let keys = exec.exec.open_stdin.then(read_stdin);
    let signals = if exec.exec.detach { Vec::new() } else { proxied()? };
    let mut typing = Typing { keys, typed, kept: BytesMut::new(), start: 0, sent: 0, ended: false };
    let resized = signal(SignalKind::window_change())?;
    let mut run = Run { client, exec, from: 0, signals, resized, has_connected: false };
    loop {
        match run.attempt(&mut typing).await {
            // The next attempt waits for a daemon to be back.
            Err(error) if run.has_connected && reunion::is_away(&error) => {}
            end => return end,
        }
    }
}

struct Run<'a> {
    client: &'a Client,
    exec: Exec,
    /// How much of the output there was, as the daemon counts.
    from: u64,
    signals: Vec<(i32, Signal)>,
    resized: Signal,
    has_connected: bool,
}

impl Run<'_> {
    async fn attempt(&mut self, typing: &mut Typing) -> Result<End, ClientError> {
        let Exec { container, exec, .. } = self.exec.clone();
        let (tty, detach) = (exec.tty, exec.detach);
        let body = request::Exec { container, exec: Some(exec), from: self.from };
        let open = || request::Body::Exec(body.clone());
        let (mut sender, mut receiver) = match self.has_connected {
            true => reunion::open(self.client, open).await?,
            false => self.client.open(open()).await?,
        };
        self.has_connected = true;
        let (wanted, is_wanted) = watch::channel(None);
        let input = typing.forward(&mut sender, is_wanted);
        tokio::pin!(input);
        loop {
            tokio::select! {
                answer = client::next(&mut receiver) => match answer? {
                    answer::Body::ExecStarted(_) if detach => return Ok(End::Detached),
                    answer::Body::ExecStarted(_) if tty => self.tell_size(),
                    answer::Body::ExecStarted(_) => {}
                    answer::Body::ExecInput(input) => {
                        wanted.send_replace(Some(input.from));
                    }
                    answer::Body::ExecOutput(output) => {
                        let answer::ExecOutput { stream, bytes, next } = output;
                        if show(&answer::Output { stream, bytes, ..Default::default() }).is_err() {
                            return Ok(End::Detached);
                        }
                        self.from = next;
                    }
                    answer::Body::Exit(exit) => return Ok(End::Exit(exit)),
                    _ => return Err(ClientError::Odd),
                },
                end = &mut input => {
                    end?;
                    // The daemon's answers are no longer wanted, the process goes on.
                    return Ok(End::Detached);
                }
                _ = self.resized.recv(), if tty => self.tell_size(),
                number = any(&mut self.signals), if !self.signals.is_empty() => {
                    self.tell_signal(number);
                }
            }
        }
    }

    fn tell_size(&self) {
        let Some(size) = size() else { return };
        let (client, container) = (self.client.clone(), self.exec.container.clone());
        let exec = self.exec.exec.session.clone();
        // One that is just ending takes no size, and needs none.
        tokio::spawn(async move { client.resize_exec(container, exec, size).await.ok() });
    }

    fn tell_signal(&self, number: i32) {
        let (client, container) = (self.client.clone(), self.exec.container.clone());
        let exec = self.exec.exec.session.clone();
        tokio::spawn(async move { client.kill_exec(container, exec, number).await.ok() });
    }
}

/// Standard input, with what was read of it lately.
struct Typing {
    keys: Option<mpsc::Receiver<Bytes>>,
    typed: Option<Typed>,
    /// What was read, from offset `start` on.
    kept: BytesMut,
    start: u64,
    /// Offset after what was sent.
    sent: u64,
    ended: bool,
}

impl Typing {
    // Moves standard input to the daemon, from where it is wanted. Returns when the user detaches, and else
    // never: the end of input is not the end of the process.
    async fn forward(
        &mut self,
        sender: &mut Sender,
        mut wanted: watch::Receiver<Option<u64>>,
    ) -> Result<(), ClientError> {
        let from = wanted.wait_for(Option::is_some).await.ok().and_then(|from| *from);
        let Some(from) = from else { return std::future::pending().await };
        self.rewind(from)?;
        loop {
            let end = self.start + self.kept.len() as u64;
            if self.sent < end {
                let at = usize::try_from(self.sent - self.start).unwrap_or(usize::MAX);
                let rest = self.kept.get(at..).unwrap_or_default();
                let piece = rest.get(..rest.len().min(STEP)).unwrap_or_default();
                let bytes = Bytes::copy_from_slice(piece);
                self.sent += bytes.len() as u64;
                send(sender, input::Body::Bytes(bytes)).await;
                continue;
            }
            if self.ended {
                send(sender, input::Body::End(request::Hello {})).await;
                return std::future::pending().await;
            }
            if self.read().await {
                return Ok(());
            }
        }
    }

    fn rewind(&mut self, from: u64) -> Result<(), ClientError> {
        if from < self.start {
            let lost = "input was lost while serialmux was away";
            return Err(io::Error::other(lost).into());
        }
        self.sent = from.min(self.start + self.kept.len() as u64);
        Ok(())
    }

    // Reads some more; says whether the user detaches.
    async fn read(&mut self) -> bool {
        let Some(keys) = &mut self.keys else { return std::future::pending().await };
        let Some(bytes) = keys.recv().await else {
            self.ended = true;
            return false;
        };
        let surplus = (self.kept.len() + bytes.len()).saturating_sub(KEPT_INPUT);
        let surplus = surplus.min(self.kept.len());
        bytes::Buf::advance(&mut self.kept, surplus);
        self.start += surplus as u64;
        match &mut self.typed {
            None => {
                self.kept.extend_from_slice(&bytes);
                false
            }
            Some(typed) => {
                let sifted = typed.sift(&bytes);
                self.kept.extend_from_slice(&sifted.bytes);
                sifted.detach
            }
        }
    }
}

/// Bytes of input in one message.
const STEP: usize = 64 * 1024;

// A daemon that has closed its end says why in what is still to be read from it.
async fn send(sender: &mut Sender, body: input::Body) {
    sender.send(&Input { body: Some(body), ..Input::default() }).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Receiver;

    #[tokio::test]
    async fn input_that_did_not_get_through_is_sent_again() {
        let (keys, receiver) = mpsc::channel(4);
        let mut typing = Typing {
            keys: Some(receiver),
            typed: None,
            kept: BytesMut::new(),
            start: 0,
            sent: 0,
            ended: false,
        };
        for piece in ["one ", "two ", "three"] {
            keys.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
            assert!(!typing.read().await);
        }
        drop(keys);
        assert!(!typing.read().await && typing.ended);
        // A daemon that has got no further than "one ".
        typing.sent = 13;
        typing.rewind(4).unwrap();
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let (mut sender, _near) = crate::api::messages(near);
        let (_far, mut receiver): (_, Receiver) = crate::api::messages(far);
        let (_wanted, is_wanted) = watch::channel(Some(4));
        let sent = async {
            let mut all = Vec::new();
            while let Some(Input { body: Some(input::Body::Bytes(bytes)), .. }) =
                receiver.receive().await.unwrap()
            {
                all.extend_from_slice(&bytes);
            }
            all
        };
        tokio::select! {
            end = typing.forward(&mut sender, is_wanted) => panic!("{end:?}"),
            all = sent => assert_eq!(all, b"two three"),
        }
        typing.start = 5;
        assert!(typing.rewind(4).is_err(), "that is no longer there");
    }

    #[test]
    fn ids_are_made_up_and_differ() {
        let (one, other) = (new_id().unwrap(), new_id().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 64);
    }
}
