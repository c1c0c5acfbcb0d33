//! Input on its way to the process: taken from the channel only when the process has taken what came before.

use bytes::{Buf, Bytes};
use tracing::warn;
use wire::pack::Unpacker;
use wire::{ChannelId, Link};

use crate::stdio::{Input, Stdio};

/// The most that is taken of the channel at once.
const CHUNK: usize = 4096;

/// The input side of a session.
#[derive(Debug)]
pub struct InputRelay {
    channel: Option<ChannelId>,
    /// Absent where bytes come as they are.
    unpacker: Option<Unpacker>,
    /// Taken from the channel, not yet by the process.
    pending: Bytes,
    /// Offset in the channel up to which the process has taken everything, when it has taken `pending`.
    offset: u64,
    /// Bytes of the input that have come, unpacked, `pending` included.
    came: u64,
    /// The channel has ended; the process has still to be told, after `pending`.
    ending: bool,
    blocked: bool,
}

impl InputRelay {
    /// Relays from a channel; without one the process has no input.
    pub fn new(channel: Option<ChannelId>, packed: bool) -> Self {
        let unpacker = packed.then(Unpacker::default);
        let pending = Bytes::new();
        Self { channel, unpacker, pending, offset: 0, came: 0, ending: false, blocked: false }
    }

    /// The channel, as long as it is of use.
    pub fn channel(&self) -> Option<ChannelId> {
        self.channel
    }

    /// The channel, if only the multiplexer that has written to it can go on with it, and how many bytes of the
    /// input have come. Then [`Self::replace`] is needed for another multiplexer.
    pub fn bound(&self, link: &Link) -> Option<(ChannelId, u64)> {
        let channel = self.channel.filter(|_| self.unpacker.is_some() && !self.ending)?;
        link.offset(channel).filter(|next| *next > 0).map(|_| (channel, self.came))
    }

    /// How many bytes of the input have come.
    pub fn came(&self) -> u64 {
        self.came
    }

    /// Goes on with a fresh channel, which begins behind what has come.
    pub fn replace(&mut self, channel: ChannelId) {
        self.channel = Some(channel);
        self.unpacker = Some(Unpacker::default());
        self.offset = 0;
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
        let before = self.came - self.pending.len() as u64;
        self.pass_on(stdio, link);
        self.came - self.pending.len() as u64 > before
    }

    fn pass_on(&mut self, stdio: &mut Stdio, link: &mut Link) {
        self.blocked = false;
        loop {
            if self.pending.is_empty() {
                self.fetch(link);
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

    /// Takes what comes next of the channel, if anything.
    fn fetch(&mut self, link: &mut Link) {
        let Some(channel) = self.channel else { return };
        let Some(unpacker) = &mut self.unpacker else {
            self.pending = link.read(channel, CHUNK);
            self.offset += self.pending.len() as u64;
            self.came += self.pending.len() as u64;
            return;
        };
        loop {
            match unpacker.next_block() {
                Ok(Some(block)) => {
                    self.offset += block.taken as u64;
                    self.came += block.plain.len() as u64;
                    self.pending = block.plain;
                    return;
                }
                Ok(None) => {}
                Err(error) => {
                    warn!("standard input is given up: {error}");
                    return self.stop(link);
                }
            }
            let bytes = link.read(channel, CHUNK);
            if bytes.is_empty() {
                return;
            }
            unpacker.push(&bytes);
        }
    }

    fn taken(&mut self, len: usize, link: &mut Link) {
        self.pending.advance(len);
        // Of a block all or nothing: what is left of it is kept here.
        let left = match &self.unpacker {
            Some(_) if !self.pending.is_empty() => return,
            _ => self.pending.len() as u64,
        };
        if let Some(channel) = self.channel {
            link.release(channel, self.offset - left);
        }
    }

    /// Nobody will read any more: the sender is told by the loss of the channel.
    pub fn stop(&mut self, link: &mut Link) {
        self.came -= self.pending.len() as u64;
        self.pending.clear();
        self.ending = false;
        self.blocked = false;
        if let Some(channel) = self.channel.take() {
            link.abandon(channel);
        }
    }
}
