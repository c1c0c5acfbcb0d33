//! Input on its way to the process: taken from the channel only when the process has taken what came before.

use bytes::{Buf, Bytes};
use wire::{ChannelId, Link};

use crate::stdio::{Input, Stdio};

/// The most that is taken of the channel at once.
const CHUNK: usize = 4096;

/// The input side of a session.
#[derive(Debug)]
pub struct InputRelay {
    channel: Option<ChannelId>,
    /// Taken from the channel, not yet by the process.
    pending: Bytes,
    /// Offset in the channel up to which the process has taken everything.
    offset: u64,
    /// The channel has ended; the process has still to be told, after `pending`.
    ending: bool,
    blocked: bool,
}

impl InputRelay {
    /// Relays from a channel; without one the process has no input.
    pub fn new(channel: Option<ChannelId>) -> Self {
        Self { channel, pending: Bytes::new(), offset: 0, ending: false, blocked: false }
    }

    /// The channel, as long as it is of use.
    pub fn channel(&self) -> Option<ChannelId> {
        self.channel
    }

    /// Whether bytes wait for the process to take them.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The sender has ended the stream.
    pub fn finish(&mut self) {
        self.ending = true;
    }

    /// The channel is gone at the other end.
    pub fn forget(&mut self) {
        self.channel = None;
        self.ending = true;
    }

    /// Gives the process what there is, as far as it takes it; whether it took anything.
    pub fn turn(&mut self, stdio: &mut Stdio, link: &mut Link) -> bool {
        let before = self.offset;
        self.pass_on(stdio, link);
        self.offset > before
    }

    fn pass_on(&mut self, stdio: &mut Stdio, link: &mut Link) {
        self.blocked = false;
        loop {
            if self.pending.is_empty()
                && let Some(channel) = self.channel
            {
                self.pending = link.read(channel, CHUNK);
            }
            if self.pending.is_empty() {
                break;
            }
            match stdio.write_input(&self.pending) {
                Input::Taken(len) => self.taken(len, link),
                Input::Full => {
                    self.blocked = true;
                    return;
                }
                Input::Closed => return self.stop(link),
            }
        }
        if self.ending {
            self.blocked = !stdio.end_input();
            self.ending = self.blocked;
            if let Some(channel) = self.channel.take_if(|_| !self.ending) {
                link.close(channel);
            }
        }
    }

    fn taken(&mut self, len: usize, link: &mut Link) {
        self.pending.advance(len);
        self.offset += len as u64;
        if let Some(channel) = self.channel {
            link.release(channel, self.offset);
        }
    }

    /// Nobody will read any more: the sender is told by the loss of the channel.
    pub fn stop(&mut self, link: &mut Link) {
        self.pending.clear();
        self.ending = false;
        self.blocked = false;
        if let Some(channel) = self.channel.take() {
            link.abandon(channel);
        }
    }
}
