//! Output on its way from the process to the multiplexer: read, stamped, packed, and written to its channel.
//!
//! ```text
//!                         ┌── backlog and spool, where they are configured ──┐
//!   pipe or pty ── read ──┤                                                  ├── entry ── pack ── channel
//!                         └───────── or at once, into the link's room ───────┘
//! ```
//!
//! Little waits in the channel for its first turn on the line: what is still in the process's pipe is read
//! in larger pieces later, which pack better, and what is urgent passes it. For the same reason a process that
//! writes in crumbs is read once in a while ([`REST`]), unless it answers input: a packet costs as
//! much of the processor as hundreds of bytes.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use wire::chunk::{Stream, Writer};
use wire::pack::Packer;
use wire::{ChannelId, Link};

use super::backlog::{Backlog, Kept, WhenFull};
use crate::clock;
use crate::spool::Spool;
use crate::stdio::{self, Output, Stdio};

/// The most that is read at once. Larger would delay the first byte on a slow line: an entry is complete for
/// its reader only with its last byte.
const CHUNK: usize = 4096;

/// The same while output floods, as far as it packs well or the line takes as much at once as there is.
const LARGE_CHUNK: usize = 16 * 1024;

/// Less is not read at once, however small packets are: each entry has a head, and is packed by itself.
const LEAST_CHUNK: usize = 512;

/// What a packet has besides an entry: the head of its record, an acknowledgement.
const BESIDES: usize = 64;

/// Room below which no pipe is read, so that output is not cut into crumbs.
const MIN_ROOM: usize = 512;

/// How many packets' worth of a channel may wait for their first turn on a line that takes all there is at once. On
/// one whose bytes cost more than the turns of the agent it is one: what comes next waits behind it.
const AHEAD: usize = 4;

/// The least of the former, in bytes.
const LEAST_AHEAD: usize = 2 * 1024;

/// Output of a terminal that is kept while no multiplexer is there. Less than the channel could hold: whoever
/// attaches afterwards sees all of it first.
const TERMINAL_ALONE: usize = 32 * 1024;

/// Reads in one turn, so that a flood of output starves nobody.
const READS_PER_TURN: usize = 4;

/// Bytes from which it is told how well a process's output packs, half of them the older half.
const LATELY: u64 = 128 * 1024;

/// A read of less is a crumb, however little a packet holds.
const CRUMB: usize = 1024;

/// How long more is waited for after a crumb.
pub(super) const REST: Duration = Duration::from_millis(4);

/// What one turn of the output relay found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Bytes were passed on.
    Moved,
    /// There was nothing to pass on.
    Idle,
    /// There was no room to pass anything on.
    Stuck,
    /// All outputs have ended and were passed on.
    Ended,
}

/// The output side of a session.
#[derive(Debug)]
pub struct OutputRelay {
    channel: ChannelId,
    writer: Writer,
    /// Absent where entries go as they are.
    packer: Option<Packer>,
    backlog: Option<Backlog>,
    tty: bool,
    /// Payload bytes passed on.
    bytes: u64,
    /// The last of them, and the bytes the channel has taken for those.
    lately: [u64; 2],
    /// Whether the last read filled its buffer.
    floods: bool,
    buffer: Vec<u8>,
    entry: Vec<u8>,
    block: Vec<u8>,
    stuck: bool,
    /// Whether the last turn read all that one of the streams had.
    answers: bool,
    /// Nothing is read until then.
    rest: Option<Instant>,
    /// Nobody wants the output any more: it is read, so that the process goes on, and dropped.
    discarding: bool,
}

impl OutputRelay {
    /// Relays into a channel that was just opened, packed if there is a packer.
    pub fn new(channel: ChannelId, tty: bool, packer: Option<Packer>) -> Self {
        Self {
            channel,
            writer: Writer::default(),
            packer,
            backlog: None,
            tty,
            bytes: 0,
            lately: [0; 2],
            floods: false,
            buffer: Vec::new(),
            entry: Vec::new(),
            block: Vec::new(),
            stuck: false,
            answers: false,
            rest: None,
            discarding: false,
        }
    }

    /// Keeps so much, or nothing, from now on.
    pub fn set_backlog(&mut self, wanted: Option<(usize, WhenFull)>) {
        match (&mut self.backlog, wanted) {
            (Some(backlog), Some((max, when_full))) => backlog.change(max, when_full),
            // What it holds is passed on; the process waits meanwhile.
            (Some(backlog), None) => backlog.change(0, WhenFull::Block),
            (None, Some((max, when_full))) => self.backlog = Some(Backlog::new(max, when_full)),
            (None, None) => {}
        }
    }

    /// Keeps more on a disk from now on, if anything is to be kept.
    pub fn extend(&mut self, spool: Spool) {
        if let Some(backlog) = &mut self.backlog {
            backlog.extend(spool);
        }
    }

    /// Goes on with a fresh channel, behind everything that was passed on.
    pub fn replace(&mut self, channel: ChannelId, packer: Option<Packer>) {
        (self.channel, self.packer, self.writer) = (channel, packer, Writer::default());
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// How many bytes the process has written, as far as they were passed on.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes kept that the channel has no room for.
    pub fn backlog(&self) -> u64 {
        self.backlog.as_ref().map_or(0, Backlog::bytes)
    }

    /// How many of them are on a disk.
    pub fn spooled(&self) -> u64 {
        self.backlog.as_ref().map_or(0, Backlog::spooled)
    }

    /// Bytes dropped for lack of room anywhere.
    pub fn dropped(&self) -> u64 {
        self.backlog.as_ref().map_or(0, Backlog::dropped)
    }

    /// Whether the last turn ended for lack of room: then only the link, or a disk, can cause another.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Whether there is something that the link has no room for. What still has to come from a disk is not.
    pub fn lacks_room(&self) -> bool {
        match &self.backlog {
            Some(backlog) if !backlog.is_empty() => backlog.next_len().is_some(),
            _ => self.stuck,
        }
    }

    /// Whether all that was read has been passed on.
    fn is_passed_on(&self) -> bool {
        self.backlog.as_ref().is_none_or(Backlog::is_empty)
    }

    /// Ready when a disk has done something; else the context's task is woken then.
    pub fn poll_disk(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.backlog.as_mut().map_or(Poll::Pending, |backlog| backlog.poll_ready(context))
    }

    /// When the next turn is due although the disk has done nothing.
    pub fn disk_deadline(&self) -> Option<Instant> {
        self.backlog.as_ref().and_then(|backlog| backlog.deadline(Instant::now()))
    }

    /// Until when nothing is read, so that more comes together.
    pub fn rests_until(&self) -> Option<Instant> {
        self.rest
    }

    /// What comes next is waited for: it is read at once.
    pub fn rouse(&mut self) {
        self.rest = None;
    }

    /// Has the link tell when there is room for more.
    pub fn want_room(&self, link: &mut Link) {
        link.want_room(self.channel);
        if link.is_live() {
            let ahead = self.ahead(link);
            link.want_calm(self.channel, ahead);
        }
    }

    /// The channel is gone at the other end.
    pub fn discard(&mut self) {
        self.discarding = true;
        self.backlog = None;
    }

    /// Whether output was dropped because its channel is gone.
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Whether the last turn read all that one of the streams had: whoever waits for an answer has it.
    pub fn answers(&self) -> bool {
        self.answers
    }

    /// Passes on what there is, as far as there is room.
    pub fn turn(&mut self, stdio: &mut Stdio, link: &mut Link) -> Flow {
        (self.stuck, self.answers) = (false, false);
        if let Some(backlog) = &mut self.backlog {
            backlog.turn(Instant::now());
        }
        let mut flow = if self.pour(link) { Flow::Moved } else { Flow::Idle };
        if self.rest.is_some_and(|until| until > Instant::now()) {
            return flow;
        }
        self.rest = None;
        for _ in 0..READS_PER_TURN {
            let step = self.step(stdio, link);
            match step {
                Flow::Moved if self.rest.is_some() => return Flow::Moved,
                Flow::Moved => flow = Flow::Moved,
                Flow::Idle => break,
                Flow::Stuck => {
                    self.stuck = true;
                    return if flow == Flow::Moved { flow } else { Flow::Stuck };
                }
                Flow::Ended => return Flow::Ended,
            }
        }
        if flow == Flow::Idle && !self.is_passed_on() { Flow::Stuck } else { flow }
    }

    /// One read of each stream.
    fn step(&mut self, stdio: &mut Stdio, link: &mut Link) -> Flow {
        let mut moved = false;
        let (mut floods, mut len_read) = (false, 0);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let room = self.readable(link);
            if room == 0 && !stdio.output_ended() {
                if moved {
                    break;
                }
                return Flow::Stuck;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(room, 0);
            let read = match (stream, stdio.stderr()) {
                (Stream::Stderr, Some(end)) => stdio::read_output(end, &mut buffer),
                (Stream::Stderr, None) => Output::Nothing,
                (Stream::Stdout, _) => stdio::read_output(stdio.stdout(), &mut buffer),
            };
            if let Output::Bytes(len) = read {
                self.keep_or_pass_on(stream, &buffer[..len], link);
                moved = true;
                floods |= len == room;
                self.answers |= len < room;
                len_read += len;
            }
            self.buffer = buffer;
        }
        self.floods = floods;
        if moved && !floods && len_read < self.crumb(link) {
            self.rest = Some(Instant::now() + REST);
        }
        match (moved, stdio.output_ended() && self.is_passed_on()) {
            (true, _) => Flow::Moved,
            (false, true) => Flow::Ended,
            (false, false) => Flow::Idle,
        }
    }

    fn keep_or_pass_on(&mut self, stream: Stream, bytes: &[u8], link: &mut Link) {
        if self.discarding {
            return;
        }
        let time_us = clock::wall_us();
        let direct = self.room(link) >= bytes.len();
        match &mut self.backlog {
            Some(backlog) if !direct || !backlog.is_empty() => {
                backlog.push(stream, time_us, bytes, Instant::now());
            }
            _ => self.pass_on(&Kept::Output { stream, time_us, bytes }, link),
        }
    }

    /// Moves the backlog into the channel as far as that has room; whether anything moved.
    fn pour(&mut self, link: &mut Link) -> bool {
        let Some(mut backlog) = self.backlog.take() else { return false };
        let mut moved = false;
        while backlog.next_len().is_some_and(|len| len <= self.room(link)) {
            backlog.take(Instant::now(), |kept| self.pass_on(kept, link));
            moved = true;
        }
        self.backlog = Some(backlog);
        moved
    }

    fn pass_on(&mut self, kept: &Kept<'_>, link: &mut Link) {
        self.entry.clear();
        match kept {
            Kept::Output { stream, time_us, bytes } => {
                self.writer.push(*stream, *time_us, bytes, &mut self.entry);
                self.bytes += bytes.len() as u64;
                self.lately[0] += bytes.len() as u64;
            }
            Kept::Gap(gap) => self.writer.gap(gap, &mut self.entry),
        }
        let bytes = match &mut self.packer {
            Some(packer) => {
                self.block.clear();
                if link.is_scarce() {
                    packer.push(&self.entry, &mut self.block);
                } else {
                    packer.pass(&self.entry, &mut self.block);
                }
                &self.block
            }
            None => &self.entry,
        };
        let taken = link.write(self.channel, bytes);
        debug_assert_eq!(taken, bytes.len(), "the room was asked for");
        self.lately[1] += bytes.len() as u64;
        if self.lately[0] > LATELY {
            self.lately = self.lately.map(|n| n / 2);
        }
    }

    /// Payload bytes that can be read now.
    fn readable(&self, link: &Link) -> usize {
        let chunk = self.chunk(link);
        match &self.backlog {
            Some(backlog) if backlog.is_empty() => {
                chunk.min(backlog.room(Instant::now()).max(self.room(link)))
            }
            Some(backlog) => chunk.min(backlog.room(Instant::now())),
            None => chunk.min(self.room(link)),
        }
    }

    /// The largest piece worth reading at once.
    fn chunk(&self, link: &Link) -> usize {
        let most = if self.floods { LARGE_CHUNK } else { CHUNK };
        match link.is_live() && link.is_scarce() {
            true => self.filling(link).clamp(LEAST_CHUNK, most),
            false => most,
        }
    }

    /// A read of less is a crumb.
    fn crumb(&self, link: &Link) -> usize {
        if link.is_scarce() {
            (self.filling(link) / 2).clamp(CRUMB, LARGE_CHUNK / 2)
        } else {
            CRUMB
        }
    }

    /// Bytes of the process that fill a packet as they have packed lately.
    fn filling(&self, link: &Link) -> usize {
        let [plain, packed] = self.lately;
        let packs = plain.checked_div(packed).unwrap_or(1).max(1);
        filling(link).saturating_mul(usize::try_from(packs).unwrap_or(usize::MAX))
    }

    /// Payload bytes that the channel takes now in one entry.
    fn room(&self, link: &Link) -> usize {
        if self.discarding {
            return CHUNK;
        }
        if link.unsent(self.channel) >= self.ahead(link) {
            return 0;
        }
        let room = link.room(self.channel).saturating_sub(Writer::OVERHEAD + Packer::OVERHEAD);
        if room < MIN_ROOM { 0 } else { room }
    }

    /// How many bytes may wait for their first turn on the line.
    fn ahead(&self, link: &Link) -> usize {
        match link.is_live() {
            true if link.is_scarce() => filling(link).max(LEAST_CHUNK),
            true => (link.packet_limit() * AHEAD).max(LEAST_AHEAD),
            false if self.tty => TERMINAL_ALONE,
            false => usize::MAX,
        }
    }
}

/// Bytes of an entry that fills a packet, and not that and a little of another.
fn filling(link: &Link) -> usize {
    link.packet_limit().saturating_sub(Writer::OVERHEAD + Packer::OVERHEAD + BESIDES)
}
