//! Tests of what is kept, in memory and with a disk behind it.

use super::*;
use crate::spool::fake::FakeDisk;
use crate::sys;
use proptest::prelude::*;
use std::time::Duration;

fn taken(backlog: &mut Backlog) -> Vec<Result<Vec<u8>, Gap>> {
    let mut found = Vec::new();
    while backlog.next_len().is_some() {
        backlog.take(Instant::now(), |kept| {
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
    (0..10).for_each(|i| backlog.push(Stream::Stdout, i, &[i as u8; 10], Instant::now()));
    backlog.change(0, WhenFull::Block);
    assert_eq!(backlog.room(Instant::now()), 0);
    assert_eq!(taken(&mut backlog).len(), 10);
    backlog.change(3 * (ENTRY + 10), WhenFull::Drop);
    (0..10).for_each(|i| backlog.push(Stream::Stdout, i, &[i as u8; 10], Instant::now()));
    assert_eq!((backlog.bytes(), backlog.dropped()), (30, 70));
}

#[test]
fn what_is_kept_comes_out_as_it_went_in() {
    let mut backlog = Backlog::new(1 << 20, WhenFull::Block);
    (0..100).for_each(|i| backlog.push(Stream::Stdout, i, &[i as u8; 10], Instant::now()));
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
        blocking.push(Stream::Stdout, i, &line, Instant::now());
        dropping.push(Stream::Stdout, i, &line, Instant::now());
    }
    assert_eq!(blocking.room(Instant::now()), 0);
    assert!(dropping.room(Instant::now()) > 0);
    for i in 10..13 {
        dropping.push(Stream::Stderr, i, &[b'y'; 100], Instant::now());
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
    (0..1_000_000).for_each(|i| backlog.push(Stream::Stdout, i, b"x", Instant::now()));
    assert!((backlog.entries.len() - 1) * (ENTRY + 1) <= 100_000);
    assert_eq!(backlog.bytes + backlog.dropped(), 1_000_000);
}

/// A backlog of so many bytes, with a disk of so many pages behind it.
fn spooling(max: usize, pages: u64, when_full: WhenFull) -> (Backlog, FakeDisk) {
    let disk = FakeDisk::new(pages);
    let mut backlog = Backlog::new(max, when_full);
    backlog.extend(Spool::with(Box::new(disk.clone()), pages, sys::random).expect("a key"));
    (backlog, disk)
}

/// Something that goes in and out of a backlog, and what is known of it.
struct Run {
    backlog: Backlog,
    disk: FakeDisk,
    now: Instant,
    /// What went in.
    pushed: Vec<(u64, Vec<u8>)>,
    /// Up to where it came out, or was told to be missing.
    at: usize,
    gaps: Gap,
}

impl Run {
    fn new(max: usize, pages: u64, when_full: WhenFull) -> Self {
        let (backlog, disk) = spooling(max, pages, when_full);
        let gaps = Gap { bytes: 0, lines: 0, first_us: 0, last_us: 0 };
        Self { backlog, disk, now: Instant::now(), pushed: Vec::new(), at: 0, gaps }
    }

    /// A process writes a piece, as far as there is room; whether it could.
    fn push(&mut self, len: usize) -> bool {
        let len = len.min(self.backlog.room(self.now));
        if len == 0 {
            return false;
        }
        let time_us = self.pushed.len() as u64;
        let mut bytes = b"ab\ncde\nf".repeat(len / 8 + 1).split_off(len % 8);
        bytes.truncate(len);
        self.backlog.push(Stream::Stdout, time_us, &bytes, self.now);
        self.pushed.push((time_us, bytes));
        true
    }

    fn turn(&mut self) {
        self.backlog.turn(self.now);
        self.is_due();
    }

    /// What is kept is here, or the disk is about to bring it: nobody else would say that there is more.
    fn is_due(&self) {
        let backlog = &self.backlog;
        let is_coming = backlog.deadline(self.now).is_some();
        assert!(backlog.is_empty() || backlog.next_len().is_some() || is_coming, "{backlog:?}");
    }

    /// Up to so many pieces are passed on. Each must be the next that went in, or tell of exactly those between.
    fn take(&mut self, n: usize) {
        for _ in 0..n {
            self.is_due();
            if self.backlog.next_len().is_none() {
                return;
            }
            let (mut found, pushed) = (None, &self.pushed[self.at..]);
            self.backlog.take(self.now, |kept| match kept {
                Kept::Output { time_us, bytes, .. } => {
                    assert_eq!((*time_us, *bytes), (pushed[0].0, &pushed[0].1[..]));
                }
                Kept::Gap(gap) => found = Some(*gap),
            });
            let Some(gap) = found else {
                self.at += 1;
                continue;
            };
            let mut expected = None;
            while expected.is_none_or(|it: Gap| it.bytes < gap.bytes) {
                let (time_us, bytes) = &self.pushed[self.at];
                spool::merge(&mut expected, &spool::gap_of(*time_us, bytes));
                self.at += 1;
            }
            assert_eq!(expected, Some(gap));
            self.gaps.bytes += gap.bytes;
            self.gaps.lines += gap.lines;
        }
    }

    /// Everything is taken; how many bytes are missing.
    fn finish(mut self) -> u64 {
        for _ in 0..10_000 {
            self.disk.work();
            self.turn();
            self.take(usize::MAX);
            if self.backlog.is_empty() {
                assert_eq!(self.at, self.pushed.len());
                assert_eq!((self.backlog.bytes(), self.backlog.cost), (0, 0));
                assert_eq!(self.backlog.dropped(), self.gaps.bytes);
                return self.gaps.bytes;
            }
        }
        panic!("it does not end: {:?}", self.backlog);
    }
}

#[test]
fn what_memory_has_no_room_for_goes_to_the_disk_and_comes_back_in_order() {
    let mut run = Run::new(100_000, 2560, WhenFull::Block);
    for _ in 0..2000 {
        assert!(run.push(4096), "the process need not wait");
        run.disk.work();
        run.turn();
    }
    assert!(run.backlog.spooled() > 7_900_000 && run.backlog.cost <= 100_000);
    assert!(!run.disk.shows(b"cde\nfab"), "it is sealed");
    assert_eq!(run.finish(), 0);
}

#[test]
fn a_disk_is_not_touched_while_memory_suffices() {
    let mut run = Run::new(1_000_000, 256, WhenFull::Block);
    (0..100).for_each(|_| assert!(run.push(4096)));
    run.take(100);
    assert_eq!((run.disk.work(), run.at), (0, 100));
    assert!(run.disk.is_blank());
    assert_eq!(run.finish(), 0);
}

#[test]
fn a_full_disk_blocks_or_drops_the_oldest_records_and_says_how_much() {
    for (when_full, waits) in [(WhenFull::Block, true), (WhenFull::Drop, false)] {
        let mut run = Run::new(100_000, 64, when_full);
        let mut waited = false;
        for _ in 0..500 {
            waited |= !run.push(4000);
            run.disk.work();
            run.turn();
        }
        assert_eq!(waited, waits);
        let written: usize = run.pushed.iter().map(|(_, bytes)| bytes.len()).sum();
        let kept = run.backlog.bytes();
        assert!((200_000..480_000).contains(&kept), "{kept} on 64 pages, read back, in 100 kB");
        let missing = run.finish();
        assert_eq!(missing, written as u64 - kept, "{when_full:?}");
        assert_eq!(missing > 0, !waits);
    }
}

#[test]
fn nobody_who_is_not_to_wait_waits_for_a_disk_that_does_not_answer() {
    let mut run = Run::new(100_000, 256, WhenFull::Drop);
    while run.push(4096) {}
    let deadline = run.backlog.deadline(run.now).expect("the disk is busy");
    assert_eq!(deadline, run.now + SHORT_WAIT);
    run.now = deadline;
    (0..100).for_each(|_| assert!(run.push(4096)));
    assert!(run.backlog.dropped() > 300_000 && run.backlog.cost <= 100_000);
    // It answers after all: what it has is in its place, before what was dropped.
    assert!(run.finish() > 300_000);
}

#[test]
fn a_disk_that_never_answers_is_given_up_and_what_it_was_to_hold_is_passed_on() {
    let mut run = Run::new(100_000, 256, WhenFull::Block);
    while run.push(4096) {}
    run.now += Duration::from_secs(1);
    run.now = run.backlog.deadline(run.now).expect("it is still busy");
    run.turn();
    assert_eq!((run.backlog.spooled(), run.backlog.deadline(run.now)), (0, None));
    assert_eq!(run.finish(), 0);
}

#[test]
fn what_cannot_be_written_is_passed_on_from_memory_and_the_process_waits_then() {
    let mut run = Run::new(100_000, 256, WhenFull::Block);
    for n in 0.. {
        if n == 100 {
            run.disk.refuse(5, 0);
        }
        let went = run.push(4096);
        run.disk.work();
        run.turn();
        if !went {
            break;
        }
    }
    assert!(run.backlog.spooled() > 300_000, "what is there is still read");
    assert!(run.backlog.cost <= 200_000);
    assert_eq!(run.finish(), 0);
}

#[test]
fn what_cannot_be_read_or_is_damaged_or_gone_is_told_in_its_place() {
    let faults: [fn(&FakeDisk); 3] = [|disk| disk.refuse(0, 5), FakeDisk::damage, FakeDisk::kill];
    for fault in faults {
        let mut run = Run::new(100_000, 256, WhenFull::Block);
        for _ in 0..150 {
            assert!(run.push(4096));
            run.disk.work();
            run.turn();
        }
        run.take(5);
        assert_eq!(run.at, 5, "the first record was good");
        let spooled = run.backlog.spooled();
        fault(&run.disk);
        let missing = run.finish();
        assert!(missing > 0 && missing <= spooled, "{missing} of {spooled}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Work,
    Turn,
    Take(usize),
    Pass(u64),
    Change(bool),
    Fault(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![1usize..40, 2000usize..9000].prop_map(Step::Push),
        3 => Just(Step::Work),
        3 => Just(Step::Turn),
        1 => (1usize..8).prop_map(Step::Take),
        1 => (0u64..1500).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Change),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The model is the sequence of pieces that went in: what comes out is that, whatever the disk does, but for
    /// gaps that account for each byte and line between; and nothing is missing where nothing may be.
    #[test]
    fn whatever_the_disk_does_each_byte_comes_out_in_order_or_is_accounted_for(
        steps in prop::collection::vec(step(), 1..600),
        pages in 40u64..80,
        dropping in any::<bool>(),
        faults in prop::collection::btree_map(0usize..600, 0u8..5, 0..3),
    ) {
        let max = 70_000;
        let mut run = Run::new(max, pages, if dropping { WhenFull::Drop } else { WhenFull::Block });
        let mut may_lose = dropping;
        for (n, step) in steps.into_iter().enumerate() {
            match faults.get(&n).map_or(step, |fault| Step::Fault(*fault)) {
                Step::Push(len) => drop(run.push(len)),
                Step::Work => drop(run.disk.work()),
                Step::Turn => run.turn(),
                Step::Take(n) => run.take(n),
                Step::Pass(ms) => run.now += Duration::from_millis(ms),
                Step::Change(drops) => {
                    may_lose |= drops;
                    run.backlog.change(max, if drops { WhenFull::Drop } else { WhenFull::Block });
                }
                Step::Fault(0) => run.disk.refuse(5, 0),
                Step::Fault(kind) => {
                    may_lose = true;
                    match kind {
                        1 => run.disk.refuse(0, 5),
                        2 => run.disk.refuse(0, 0),
                        3 => run.disk.damage(),
                        _ => run.disk.kill(),
                    }
                }
            }
            prop_assert!(run.backlog.cost <= 2 * max + 16_384, "{}", run.backlog.cost);
        }
        let missing = run.finish();
        prop_assert!(missing == 0 || may_lose);
    }
}
