//! Output that the channel has no room for: kept in memory up to a bound, then on a disk, if there is a
//! [`Spool`]; then waited with or dropped.
//!
//! ```text
//!   read ──▶ memory ──▶ spool ──▶ channel        the oldest is on the right
//!               └────────────────▶               while nothing is in the spool
//! ```
//!
//! With `mode=non-blocking` (Docker's word) the oldest goes first, as the newest explains what happened, and
//! a gap stands in its place that says how much it was. Nothing is dropped out of the channel itself: what
//! is in there has its offsets already.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;
use wire::chunk::{Chunk, Entry, Gap, Stream};

use crate::spool::{self, Next, SHORT_WAIT, Segment, Spool};

/// What an entry costs beside its bytes, so that a process which writes single bytes is bounded as well.
const ENTRY: usize = size_of::<Entry>();

/// What a gap takes of the channel, at most.
const GAP: usize = 64;

/// Less room than that is none, so that output is not cut into crumbs.
const CRUMB: usize = 512;

/// What to do with more output than is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The process waits.
    Block,
    /// The oldest is dropped.
    Drop,
}

/// What is passed on next.
#[derive(Debug)]
pub(super) enum Kept<'a> {
    Output { stream: Stream, time_us: u64, bytes: &'a [u8] },
    Gap(Gap),
}

/// Entries in the order in which they were read.
#[derive(Debug)]
pub struct Backlog {
    /// Those in memory. A gap stands where some were dropped.
    entries: VecDeque<Entry>,
    /// What they cost.
    cost: usize,
    /// Their payload.
    bytes: u64,
    max: usize,
    when_full: WhenFull,
    dropped: u64,
    /// Those before them, on a disk.
    spool: Option<Spool>,
}

impl Backlog {
    /// Keeps up to `max` bytes in memory, each entry counted with what it costs to keep.
    pub fn new(max: usize, when_full: WhenFull) -> Self {
        let entries = VecDeque::new();
        Self { entries, cost: 0, bytes: 0, max, when_full, dropped: 0, spool: None }
    }

    /// Keeps up to `max` bytes from now on. What is kept already stays, in order, until it is passed on or the
    /// next piece takes its place.
    pub fn change(&mut self, max: usize, when_full: WhenFull) {
        (self.max, self.when_full) = (max, when_full);
    }

    /// Keeps more on a disk from now on.
    pub fn extend(&mut self, spool: Spool) {
        self.spool = Some(spool);
    }

    /// Payload bytes kept.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.spooled()
    }

    /// How many of them are not in memory, or have not been.
    pub fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// Payload bytes dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.spool.as_ref().map_or(0, Spool::dropped)
    }

    /// Whether there is nothing to pass on, now or later.
    pub(super) fn is_empty(&self) -> bool {
        let spooled = self.spool.as_ref().is_some_and(|spool| spool.next() != Next::Nothing);
        self.entries.is_empty() && !spooled
    }

    /// How many bytes [`Self::push`] takes now.
    pub(super) fn room(&self, now: Instant) -> usize {
        // Memory is full only until the disk has taken some of it.
        let waits = self.when_full == WhenFull::Block || self.is_served(now);
        match waits {
            true if self.cost + ENTRY + CRUMB > self.max => 0,
            true => self.max - self.cost - ENTRY,
            false => self.max.saturating_sub(ENTRY),
        }
    }

    /// Whether the disk is about to make room.
    fn is_served(&self, now: Instant) -> bool {
        let since = self.spool.as_ref().and_then(Spool::busy_since);
        since.is_some_and(|since| now < since + SHORT_WAIT)
    }

    /// Keeps a piece of output, at the cost of the oldest if need be.
    pub(super) fn push(&mut self, stream: Stream, time_us: u64, bytes: &[u8], now: Instant) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.count(&bytes);
        self.entries.push_back(Entry::Output(Chunk { stream, time_us, bytes }));
        self.spill(now);
        self.trim();
    }

    fn count(&mut self, bytes: &[u8]) {
        self.cost += bytes.len() + ENTRY;
        self.bytes += bytes.len() as u64;
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        if let Entry::Output(chunk) = &entry {
            self.cost -= chunk.bytes.len() + ENTRY;
            self.bytes -= chunk.bytes.len() as u64;
        }
        Some(entry)
    }

    /// Drops the oldest in memory until the rest costs no more than is allowed. The newest always stays.
    fn trim(&mut self) {
        while self.when_full == WhenFull::Drop && self.cost > self.max && self.entries.len() > 1 {
            let mut gap = None;
            while let Some(oldest) = self.pop() {
                match oldest {
                    Entry::Gap(before) => spool::merge(&mut gap, &before),
                    Entry::Output(it) => {
                        self.dropped += it.bytes.len() as u64;
                        spool::merge(&mut gap, &spool::gap_of(it.time_us, &it.bytes));
                        break;
                    }
                }
            }
            if let Some(gap) = gap {
                self.entries.push_front(Entry::Gap(gap));
            }
        }
    }

    /// Hands the oldest in memory to the spool once that is half full: what comes meanwhile has the other half.
    fn spill(&mut self, now: Instant) {
        let dropping = self.when_full == WhenFull::Drop;
        let Some(spool) = &mut self.spool else { return };
        if self.cost <= self.max / 2 || !spool.is_free() || !spool.has_room(dropping) {
            return;
        }
        let mut segment = Segment::default();
        while self.entries.front().is_some_and(|entry| segment.push(entry)) {
            self.pop();
        }
        if let Some(spool) = self.spool.as_mut().filter(|_| !segment.is_empty()) {
            spool.write(segment, now);
        }
        self.restore();
    }

    /// Takes back what could not be written.
    fn restore(&mut self) {
        let back = self.spool.as_mut().map(Spool::take_back).unwrap_or_default();
        for entry in back.into_iter().rev() {
            if let Entry::Output(chunk) = &entry {
                self.count(&chunk.bytes);
            }
            self.entries.push_front(entry);
        }
    }

    /// Takes note of what the disk has done, and has it do more.
    pub(super) fn turn(&mut self, now: Instant) {
        let Some(spool) = &mut self.spool else { return };
        spool.turn(now);
        self.restore();
        self.spill(now);
        self.trim();
        self.fetch(now);
    }

    /// Reads back what will be passed on next, whether there is room for it or not: only of what is here can it be
    /// said how much room it needs.
    fn fetch(&mut self, now: Instant) {
        if let Some(spool) = &mut self.spool {
            spool.fetch(now);
        }
    }

    /// When the next turn is due although nothing happens.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.spool.as_ref().and_then(|spool| spool.deadline(now))
    }

    /// Ready when the disk has done something.
    pub(super) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.spool.as_mut().map_or(Poll::Pending, |spool| spool.poll_ready(context))
    }

    /// Room that the next piece needs; `None` when there is none, or the disk is to bring it.
    pub(super) fn next_len(&self) -> Option<usize> {
        match self.spool.as_ref().map_or(Next::Nothing, Spool::next) {
            Next::Here(len) => return Some(len),
            Next::Coming => return None,
            Next::Nothing => {}
        }
        match self.entries.front()? {
            Entry::Output(chunk) => Some(chunk.bytes.len()),
            // A gap goes only together with what follows it: until then it may grow.
            Entry::Gap(_) => Some(GAP + self.entries.get(1).map_or(0, payload)),
        }
    }

    /// Hands over the next piece.
    pub(super) fn take(&mut self, now: Instant, pass_on: impl FnOnce(&Kept<'_>)) {
        let spooled = self.spool.as_mut().and_then(Spool::take);
        self.fetch(now);
        match spooled.or_else(|| self.pop()) {
            Some(Entry::Output(Chunk { stream, time_us, bytes })) => {
                pass_on(&Kept::Output { stream, time_us, bytes: &bytes });
            }
            Some(Entry::Gap(gap)) => pass_on(&Kept::Gap(gap)),
            None => {}
        }
    }
}

fn payload(entry: &Entry) -> usize {
    match entry {
        Entry::Output(chunk) => chunk.bytes.len(),
        Entry::Gap(_) => 0,
    }
}

#[cfg(test)]
mod tests;
