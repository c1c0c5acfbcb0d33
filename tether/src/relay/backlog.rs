//! Output that the channel has no room for: kept in memory up to a bound, then waited with or dropped.
//!
//! With `mode=non-blocking` (Docker's word) the oldest goes first, as the newest explains what happened, and
//! a gap stands in its place that says how much it was. Nothing is dropped out of the channel itself: what
//! is in there has its offsets already.

use std::collections::VecDeque;

use wire::chunk::{Gap, Stream};

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

#[derive(Debug)]
struct Entry {
    stream: Stream,
    time_us: u64,
    bytes: Box<[u8]>,
}

/// Entries in the order in which they were read.
#[derive(Debug)]
pub struct Backlog {
    entries: VecDeque<Entry>,
    /// What the entries cost.
    cost: usize,
    /// Their payload.
    bytes: u64,
    max: usize,
    when_full: WhenFull,
    /// Dropped before the first entry, and not yet told.
    gap: Option<Gap>,
    dropped: u64,
}

impl Backlog {
    /// Keeps up to `max` bytes, each entry counted with what it costs to keep.
    pub fn new(max: usize, when_full: WhenFull) -> Self {
        let entries = VecDeque::new();
        Self { entries, cost: 0, bytes: 0, max, when_full, gap: None, dropped: 0 }
    }

    /// Keeps up to `max` bytes from now on. What is kept already stays, in order, until it is passed on or the
    /// next piece takes its place.
    pub fn change(&mut self, max: usize, when_full: WhenFull) {
        (self.max, self.when_full) = (max, when_full);
    }

    /// Payload bytes kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Payload bytes dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many bytes [`Self::push`] takes now.
    pub(super) fn room(&self) -> usize {
        match self.when_full {
            WhenFull::Block if self.cost + ENTRY + CRUMB > self.max => 0,
            WhenFull::Block => self.max - self.cost - ENTRY,
            WhenFull::Drop => self.max.saturating_sub(ENTRY),
        }
    }

    /// Keeps a piece of output, at the cost of the oldest if need be.
    pub(super) fn push(&mut self, stream: Stream, time_us: u64, bytes: &[u8]) {
        let cost = bytes.len() + ENTRY;
        while self.when_full == WhenFull::Drop && self.cost + cost > self.max {
            let Some(oldest) = self.pop() else { break };
            self.lose(&oldest);
        }
        self.entries.push_back(Entry { stream, time_us, bytes: bytes.into() });
        self.cost += cost;
        self.bytes += bytes.len() as u64;
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.cost -= entry.bytes.len() + ENTRY;
        self.bytes -= entry.bytes.len() as u64;
        Some(entry)
    }

    fn lose(&mut self, entry: &Entry) {
        let len = entry.bytes.len() as u64;
        let first_us = entry.time_us;
        let gap = self.gap.get_or_insert(Gap { bytes: 0, lines: 0, first_us, last_us: first_us });
        gap.bytes += len;
        gap.lines += entry.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        gap.last_us = gap.last_us.max(entry.time_us);
        self.dropped += len;
    }

    /// Room that the next piece needs; `None` when nothing is kept.
    pub(super) fn next_len(&self) -> Option<usize> {
        // A gap goes only together with what follows it: until then it may grow.
        let gap = if self.gap.is_some() { GAP } else { 0 };
        self.entries.front().map(|it| it.bytes.len() + gap)
    }

    /// Hands over the next piece.
    pub(super) fn take(&mut self, pass_on: impl FnOnce(&Kept<'_>)) {
        if let Some(gap) = self.gap.take() {
            return pass_on(&Kept::Gap(gap));
        }
        if let Some(Entry { stream, time_us, bytes }) = self.pop() {
            pass_on(&Kept::Output { stream, time_us, bytes: &bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(backlog: &mut Backlog) -> Vec<Result<Vec<u8>, Gap>> {
        let mut found = Vec::new();
        while backlog.next_len().is_some() {
            backlog.take(|kept| {
                found.push(match kept {
                    Kept::Output { bytes, .. } => Ok(bytes.to_vec()),
                    Kept::Gap(gap) => Err(*gap),
                });
            });
        }
        found
    }

    #[test]
    fn a_backlog_that_is_to_wait_takes_nothing_more_and_loses_nothing() {
        let mut backlog = Backlog::new(1 << 20, WhenFull::Drop);
        (0..10).for_each(|i| backlog.push(Stream::Stdout, i, &[i as u8; 10]));
        backlog.change(0, WhenFull::Block);
        assert_eq!(backlog.room(), 0);
        assert_eq!(taken(&mut backlog).len(), 10);
        backlog.change(3 * (ENTRY + 10), WhenFull::Drop);
        (0..10).for_each(|i| backlog.push(Stream::Stdout, i, &[i as u8; 10]));
        assert_eq!((backlog.bytes(), backlog.dropped()), (30, 70));
    }

    #[test]
    fn what_is_kept_comes_out_as_it_went_in() {
        let mut backlog = Backlog::new(1 << 20, WhenFull::Block);
        (0..100).for_each(|i| backlog.push(Stream::Stdout, i, &[i as u8; 10]));
        assert_eq!(backlog.bytes(), 1000);
        let expected: Vec<_> = (0..100).map(|i| Ok(vec![i as u8; 10])).collect();
        assert_eq!(taken(&mut backlog), expected);
        assert_eq!((backlog.bytes(), backlog.cost), (0, 0));
    }

    #[test]
    fn a_full_one_blocks_or_drops_the_oldest_and_says_how_much() {
        let entry = 100 + ENTRY;
        let mut blocking = Backlog::new(10 * entry, WhenFull::Block);
        let mut dropping = Backlog::new(10 * entry, WhenFull::Drop);
        for i in 0..10 {
            let line = [&[b'x'; 99][..], b"\n"].concat();
            blocking.push(Stream::Stdout, i, &line);
            dropping.push(Stream::Stdout, i, &line);
        }
        assert_eq!(blocking.room(), 0);
        assert!(dropping.room() > 0);
        for i in 10..13 {
            dropping.push(Stream::Stderr, i, &[b'y'; 100]);
        }
        let gap = Gap { bytes: 300, lines: 3, first_us: 0, last_us: 2 };
        let found = taken(&mut dropping);
        assert_eq!((found.len(), &found[0]), (11, &Err(gap)));
        assert_eq!(dropping.dropped(), 300);
        assert_eq!(taken(&mut blocking).len(), 10);
    }

    #[test]
    fn single_bytes_are_bounded_too() {
        let mut backlog = Backlog::new(100_000, WhenFull::Drop);
        (0..1_000_000).for_each(|i| backlog.push(Stream::Stdout, i, b"x"));
        assert!(backlog.entries.len() * (ENTRY + 1) <= 100_000);
        assert_eq!(backlog.bytes + backlog.dropped(), 1_000_000);
    }
}
