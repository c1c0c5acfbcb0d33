//! Bytes between the process's standard streams and the link's channels, in both directions.
//!
//! Nothing is read that cannot be passed on: output is read only into room that the channel has, input is
//! taken from the channel only when the process has taken what came before, and is released to the
//! multiplexer only then. So a full channel stops the process's writes, and a process that does not read
//! stops the sender of its input.

use bytes::{Buf, Bytes};
use wire::chunk::{Stream, Writer};
use wire::{ChannelId, Link};

use crate::clock;
use crate::stdio::{self, Input, Output, Stdio};

/// The most that is read at once. Larger would delay the first byte on a slow line: an entry is complete for
/// its reader only with its last byte.
const CHUNK: usize = 4096;

/// Room below which no pipe is read, so that output is not cut into crumbs.
const MIN_ROOM: usize = 512;

/// Output of a terminal that may be on its way at once. Less than the channel could hold: whoever presses
/// Ctrl-C sees all of it first.
const TERMINAL_BACKLOG: usize = 32 * 1024;

/// Reads in one turn, so that a flood of output starves nobody.
const READS_PER_TURN: usize = 4;

/// What one turn of the output relay found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Bytes were passed on.
    Moved,
    /// There was nothing to pass on.
    Idle,
    /// There was no room to pass anything on.
    Stuck,
    /// All outputs have ended.
    Ended,
}

/// The output side.
#[derive(Debug)]
pub struct OutputRelay {
    channel: ChannelId,
    writer: Writer,
    tty: bool,
    /// Payload bytes passed on.
    bytes: u64,
    entry: Vec<u8>,
    stuck: bool,
    /// Nobody wants the output any more: it is read, so that the process goes on, and dropped.
    discarding: bool,
}

impl OutputRelay {
    /// Relays into a channel that was just opened.
    pub fn new(channel: ChannelId, tty: bool) -> Self {
        let (writer, entry) = (Writer::default(), Vec::new());
        Self { channel, writer, tty, bytes: 0, entry, stuck: false, discarding: false }
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// How many bytes the process has written, as far as they were passed on.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the last turn ended for lack of room: then only the link can cause another.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The channel is gone at the other end.
    pub fn discard(&mut self) {
        self.discarding = true;
    }

    /// Whether output was dropped because its channel is gone.
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Passes on what there is, as far as there is room.
    pub fn turn(&mut self, stdio: &mut Stdio, link: &mut Link) -> Flow {
        let mut flow = Flow::Idle;
        self.stuck = false;
        for _ in 0..READS_PER_TURN {
            let step = self.step(stdio, link);
            match step {
                Flow::Moved => flow = Flow::Moved,
                Flow::Idle => break,
                Flow::Stuck => {
                    self.stuck = true;
                    return if flow == Flow::Moved { flow } else { Flow::Stuck };
                }
                Flow::Ended => return if flow == Flow::Moved { flow } else { Flow::Ended },
            }
        }
        flow
    }

    /// One read of each stream.
    fn step(&mut self, stdio: &mut Stdio, link: &mut Link) -> Flow {
        let mut moved = false;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let room = self.room(link);
            if room == 0 && !stdio.output_ended() {
                return Flow::Stuck;
            }
            let mut buffer = [0; CHUNK];
            let buffer = &mut buffer[..room.min(CHUNK)];
            let read = match (stream, stdio.stderr()) {
                (Stream::Stderr, Some(end)) => stdio::read_output(end, buffer),
                (Stream::Stderr, None) => Output::Nothing,
                (Stream::Stdout, _) => stdio::read_output(stdio.stdout(), buffer),
            };
            if let Output::Bytes(len) = read {
                self.pass_on(stream, &buffer[..len], link);
                moved = true;
            }
        }
        match (moved, stdio.output_ended()) {
            (true, _) => Flow::Moved,
            (false, true) => Flow::Ended,
            (false, false) => Flow::Idle,
        }
    }

    fn pass_on(&mut self, stream: Stream, bytes: &[u8], link: &mut Link) {
        if self.discarding {
            return;
        }
        self.entry.clear();
        self.writer.push(stream, clock::wall_us(), bytes, &mut self.entry);
        let taken = link.write(self.channel, &self.entry);
        debug_assert_eq!(taken, self.entry.len(), "the room was asked for");
        self.bytes += bytes.len() as u64;
    }

    /// Payload bytes that the channel takes now in one entry.
    fn room(&self, link: &Link) -> usize {
        if self.discarding {
            return CHUNK;
        }
        let room = link.room(self.channel);
        // Not what is missing of the room: that changes with the kind of pipe.
        let waiting = link.held(self.channel);
        let room = room.saturating_sub(Writer::OVERHEAD);
        if room < MIN_ROOM || (self.tty && waiting >= TERMINAL_BACKLOG) { 0 } else { room }
    }
}

/// The input side.
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

    /// Gives the process what there is, as far as it takes it.
    pub fn turn(&mut self, stdio: &mut Stdio, link: &mut Link) {
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

#[cfg(test)]
mod tests;
