//! Where records lie on the spool's disk: page after page, and at the end from the start again.
//!
//! Only memory knows what is where; the disk holds nothing but sealed bytes. A record is taken off the ring
//! when it has been read back, or when it has to go for a newer one.

use std::collections::VecDeque;

use wire::chunk::Gap;

use super::seal::Nonce;

/// What a record's length on the disk is a multiple of: the page of any kernel, and the largest block that
/// disks have, which direct reads and writes are aligned to.
pub(super) const PAGE: usize = 4096;

/// The longest record: large enough for a disk to write it in one go, small enough to wait for.
pub(super) const MAX_RECORD: usize = 64 * 1024;

/// What a record holds, told when it is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Bytes of output.
    pub bytes: u64,
    /// Everything: that output, and what was lost in the middle of it before.
    pub all: Option<Gap>,
}

impl Tally {
    /// Counts a piece of output.
    pub(super) fn output(&mut self, time_us: u64, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.gap(&gap_of(time_us, bytes));
    }

    /// Counts what was lost before.
    pub(super) fn gap(&mut self, gap: &Gap) {
        merge(&mut self.all, gap);
    }
}

/// What is missing when this piece of output is lost.
pub fn gap_of(time_us: u64, bytes: &[u8]) -> Gap {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    Gap { bytes: bytes.len() as u64, lines, first_us: time_us, last_us: time_us }
}

/// Makes one gap of two that have nothing between them.
pub fn merge(into: &mut Option<Gap>, gap: &Gap) {
    let Some(first) = into else {
        *into = Some(*gap);
        return;
    };
    first.bytes += gap.bytes;
    first.lines += gap.lines;
    first.first_us = first.first_us.min(gap.first_us);
    first.last_us = first.last_us.max(gap.last_us);
}

/// A record on the disk.
#[derive(Debug)]
pub(super) struct Record {
    /// Its first page, counted from the first that was ever written.
    start: u64,
    /// Sealed bytes.
    pub len: usize,
    pub nonce: Nonce,
    pub tally: Tally,
}

/// All records, the oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    pages: u64,
    records: VecDeque<Record>,
    /// Behind the last record, counted as [`Record::start`].
    end: u64,
    bytes: u64,
}

impl Ring {
    /// An empty ring of so many pages.
    pub(super) fn new(pages: u64) -> Self {
        Self { pages, records: VecDeque::new(), end: 0, bytes: 0 }
    }

    /// Bytes of output in it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the longest record fits.
    pub(super) fn has_room(&self) -> bool {
        let used = self.end - self.records.front().map_or(self.end, |record| record.start);
        used + (MAX_RECORD / PAGE) as u64 <= self.pages
    }

    /// Adds a record for which there is room; where it goes.
    pub(super) fn push(&mut self, len: usize, nonce: Nonce, tally: Tally) -> u64 {
        debug_assert!(self.has_room(), "room was made before");
        let start = self.end;
        self.end += len.div_ceil(PAGE) as u64;
        self.bytes += tally.bytes;
        self.records.push_back(Record { start, len, nonce, tally });
        self.offset(start)
    }

    /// The oldest record and where it is.
    pub(super) fn oldest(&self) -> Option<(u64, &Record)> {
        self.records.front().map(|record| (self.offset(record.start), record))
    }

    /// Takes the oldest record off.
    pub(super) fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.bytes -= record.tally.bytes;
        Some(record)
    }

    /// Takes the newest record back.
    pub(super) fn take_back(&mut self) -> Option<Record> {
        let record = self.records.pop_back()?;
        self.bytes -= record.tally.bytes;
        self.end = record.start;
        Some(record)
    }

    fn offset(&self, page: u64) -> u64 {
        page % self.pages * PAGE as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_each_other_and_wrap_when_the_oldest_are_gone() {
        let mut ring = Ring::new(40);
        let tally = Tally { bytes: 10, all: None };
        let push = |ring: &mut Ring, len| ring.push(len, Nonce::default(), tally);
        assert_eq!(push(&mut ring, MAX_RECORD), 0);
        assert_eq!(push(&mut ring, PAGE + 1), 16 * 4096);
        assert_eq!(push(&mut ring, 1), 18 * 4096);
        assert_eq!((ring.len(), ring.bytes()), (3, 30));
        assert!(ring.has_room());
        assert_eq!(push(&mut ring, MAX_RECORD), 19 * 4096);
        assert!(!ring.has_room(), "5 pages are free");
        ring.pop().unwrap();
        assert!(ring.has_room());
        assert_eq!(push(&mut ring, MAX_RECORD), 35 * 4096, "its end is at the disk's start");
        assert_eq!(ring.oldest().unwrap().0, 16 * 4096);
        ring.take_back().unwrap();
        assert_eq!(push(&mut ring, 1), 35 * 4096);
        while ring.pop().is_some() {}
        assert_eq!(push(&mut ring, 1), 36 * 4096);
        assert_eq!((ring.len(), ring.bytes()), (1, 10));
    }

    #[test]
    fn gaps_beside_each_other_are_one() {
        let mut all = None;
        merge(&mut all, &gap_of(5, b"a\nb\n"));
        merge(&mut all, &Gap { bytes: 1, lines: 0, first_us: 2, last_us: 3 });
        assert_eq!(all, Some(Gap { bytes: 5, lines: 2, first_us: 2, last_us: 5 }));
    }
}
