//! What the user has to say: read from standard input, kept until the process has taken it.

use crate::api::{Input, Sender, input, request};
use crate::terminal::{Sifted, Typed};
use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Most bytes read from standard input at once, and in a message.
const STEP: usize = 32 * 1024;
/// Most bytes kept for the case that the daemon goes away. More would serve nobody: the daemon and
/// the guest hold some hundreds of KiB of their own before they wait for the process.
const KEPT: usize = 1024 * 1024;

/// How long a process that does not read its input may keep a user who wants to detach.
const PARTING: std::time::Duration = std::time::Duration::from_secs(1);

/// Standard input on its way.
#[derive(Debug)]
pub(super) struct Typing {
    keys: mpsc::Receiver<Bytes>,
    typed: Option<Typed>,
    /// From `taken` on.
    kept: BytesMut,
    /// So many bytes were taken for good.
    taken: u64,
    /// So many were given to the daemon of now.
    sent: u64,
    /// The daemon of now has said where to go on.
    is_wanted: bool,
    ended: bool,
    /// The end was given to the daemon of now.
    end_is_sent: bool,
    /// A message is put up and not through.
    is_up: bool,
}

impl Typing {
    /// Starts reading; `typed` looks for the keys that detach.
    pub(super) fn begin(typed: Option<Typed>) -> Self {
        Self {
            keys: read_stdin(),
            typed,
            kept: BytesMut::new(),
            taken: 0,
            sent: 0,
            is_wanted: false,
            ended: false,
            end_is_sent: false,
            is_up: false,
        }
    }

    /// Waits for keys, unless too much is kept already; true when the user detaches.
    ///
    /// # Cancel safety
    /// Safe: keys are taken whole or stay.
    pub(super) async fn listen(&mut self) -> bool {
        let can_listen = self.can_listen();
        let bytes = heard(&mut self.keys, can_listen).await;
        self.hear(bytes)
    }

    fn can_listen(&self) -> bool {
        !self.ended && self.kept.len() < KEPT
    }

    fn hear(&mut self, bytes: Option<Bytes>) -> bool {
        let Some(bytes) = bytes else {
            self.ended = true;
            return false;
        };
        let sifted = match &mut self.typed {
            None => Sifted { bytes: bytes.into(), detach: false },
            Some(typed) => typed.sift(&bytes),
        };
        self.kept.extend_from_slice(&sifted.bytes);
        sifted.detach
    }

    /// Gives the daemon what it has not got, and listens for more; true when the user detaches. Returns
    /// after each step of either.
    ///
    /// # Cancel safety
    /// Safe, as the two are.
    pub(super) async fn converse(&mut self, sender: &mut Sender) -> bool {
        if !self.is_up
            && let Some(message) = self.next()
        {
            self.is_up = true;
            // As in `flush` below.
            sender.put(&message).await.ok();
        }
        let can_listen = self.can_listen();
        tokio::select! {
            flushed = sender.flush(), if self.is_up => {
                // A daemon that has closed its end says why in what is still to be read from it.
                flushed.ok();
                self.is_up = false;
                false
            }
            bytes = heard(&mut self.keys, can_listen) => self.hear(bytes),
        }
    }

    fn next(&mut self) -> Option<Input> {
        if !self.is_wanted {
            return None;
        }
        let start = usize::try_from(self.sent - self.taken).unwrap_or(usize::MAX);
        let rest = self.kept.get(start..).unwrap_or_default();
        if let Some(piece) = rest.get(..rest.len().min(STEP)).filter(|piece| !piece.is_empty()) {
            let (at, bytes) = (self.sent, Bytes::copy_from_slice(piece));
            self.sent += bytes.len() as u64;
            return Some(Input { body: Some(input::Body::Bytes(bytes)), at });
        }
        if self.ended && !self.end_is_sent {
            self.end_is_sent = true;
            let body = Some(input::Body::End(request::Hello {}));
            return Some(Input { body, at: self.sent });
        }
        None
    }

    /// Gives the daemon what was typed before the user detached, unless that does not read.
    pub(super) async fn say_the_rest(&mut self, sender: &mut Sender) {
        let all = async {
            while sender.flush().await.is_ok()
                && let Some(message) = self.next()
            {
                // One that has gone away takes nothing, and the user does not wait for the next.
                sender.put(&message).await.ok();
            }
        };
        tokio::time::timeout(PARTING, all).await.ok();
    }

    /// So many bytes were taken for good.
    pub(super) fn taken(&mut self, bytes: u64) {
        // One that has forgotten what it took, because the VM began anew, gets none of it again.
        let bytes = bytes.clamp(self.taken, self.taken + self.kept.len() as u64);
        self.kept.advance(usize::try_from(bytes - self.taken).unwrap_or(0));
        self.taken = bytes;
        if !self.is_wanted {
            (self.is_wanted, self.sent) = (true, bytes);
        }
        self.sent = self.sent.max(bytes);
    }

    /// The daemon went away; the next one will say where to go on.
    pub(super) fn interrupted(&mut self) {
        (self.is_wanted, self.end_is_sent, self.is_up) = (false, false, false);
    }
}

async fn heard(keys: &mut mpsc::Receiver<Bytes>, can_listen: bool) -> Option<Bytes> {
    match can_listen {
        true => keys.recv().await,
        false => std::future::pending().await,
    }
}

// A thread of its own: a read of standard input cannot be given up, and must not keep the program
// from ending. Two pieces at most are read ahead.
pub(crate) fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; STEP];
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
