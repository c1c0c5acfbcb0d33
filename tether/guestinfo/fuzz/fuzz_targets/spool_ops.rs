//! A spool whose disk gives back what it likes: what comes out is what went in, in its order, and the rest is told.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tether::spool::{Drive, Next, Segment, Spool};
use tokio::time::Instant;
use wire::chunk::{Chunk, Entry, Gap, Stream};

/// Pages of the disk: room for five records of the greatest length.
const PAGES: usize = 80;
const PAGE: usize = 4096;
const HEAD: usize = 16;

#[derive(Debug, Arbitrary)]
enum Op {
    /// A record of so many pieces of so many bytes.
    Write {
        pieces: u8,
        len: u16,
        gap: bool,
        dropping: bool,
    },
    Fetch,
    /// The disk answers, in one of these ways.
    Answer(Answer),
    Turn {
        seconds: u8,
    },
    Take(u8),
    TakeBack,
}

#[derive(Debug, Arbitrary)]
enum Answer {
    Rightly,
    Flipped { at: u16 },
    Elsewhere { pages: u8 },
    Cut { len: u16 },
    Errno(u8),
    Raw(Vec<u8>),
    Gone,
}

#[derive(Debug, Default)]
struct Disk {
    pages: Vec<u8>,
    asked: VecDeque<Vec<u8>>,
    answers: VecDeque<Vec<u8>>,
    is_gone: bool,
}

impl Disk {
    /// Carries out the oldest message.
    fn answer(&mut self, how: &Answer) {
        let Some(message) = self.asked.pop_front() else { return };
        let (mut answer, bytes) = (message[..HEAD].to_vec(), &message[HEAD..]);
        answer[4..8].fill(0);
        let len = u32::from_le_bytes(message[4..8].try_into().expect("four bytes")) as usize;
        let mut place = u64::from_le_bytes(message[8..HEAD].try_into().expect("eight")) as usize;
        assert!(place.is_multiple_of(PAGE) && place < self.pages.len());
        assert!(len.is_multiple_of(PAGE) && len <= 1 << 16);
        if let Answer::Errno(errno) = how {
            answer[4] = *errno;
        } else if message[0] == 1 {
            for (at, byte) in bytes.iter().enumerate() {
                let at = (place + at) % (PAGES * PAGE);
                self.pages[at] = *byte;
            }
        } else {
            if let Answer::Elsewhere { pages } = how {
                place += usize::from(*pages) * PAGE;
            }
            answer.extend((place..place + len).map(|at| self.pages[at % (PAGES * PAGE)]));
        }
        match how {
            Answer::Flipped { at } => {
                let at = usize::from(*at) % answer.len();
                answer[at] ^= 1 << (at % 8);
            }
            Answer::Cut { len } => answer.truncate((*len).into()),
            Answer::Raw(bytes) => answer.clone_from(bytes),
            Answer::Gone => self.is_gone = true,
            _ => {}
        }
        self.answers.push_back(answer);
    }
}

#[derive(Debug, Clone)]
struct Shared(Rc<RefCell<Disk>>);

impl Drive for Shared {
    fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        if disk.is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        disk.asked.push_back(message.to_vec());
        assert!(disk.asked.len() + disk.answers.len() <= 2, "one to write and one to read");
        Ok(())
    }

    fn answer(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let mut disk = self.0.borrow_mut();
        if disk.is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Some(answer) = disk.answers.pop_front() else { return Ok(false) };
        into.clone_from(&answer);
        Ok(true)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Everything that went in and came out.
#[derive(Default)]
struct Books {
    pieces: Vec<Bytes>,
    written: u64,
    out: u64,
    told: u64,
    /// The piece that came last.
    last: Option<u64>,
}

impl Books {
    fn piece(&mut self, len: usize) -> Entry {
        let number = self.pieces.len() as u64;
        let bytes = Bytes::from([&number.to_le_bytes()[..], &vec![b'\n'; len]].concat());
        self.pieces.push(bytes.clone());
        self.written += bytes.len() as u64;
        Entry::Output(Chunk { stream: Stream::Stdout, time_us: number, bytes })
    }

    fn gap(&mut self) -> Entry {
        self.written += 5;
        Entry::Gap(Gap { bytes: 5, lines: 1, first_us: 2, last_us: 3 })
    }

    /// Whether it is a piece that went in; its number.
    fn check(&mut self, entry: &Entry) -> Option<u64> {
        match entry {
            Entry::Gap(gap) => {
                self.told += gap.bytes;
                None
            }
            Entry::Output(chunk) => {
                assert_eq!(chunk.bytes, self.pieces[chunk.time_us as usize]);
                self.out += chunk.bytes.len() as u64;
                Some(chunk.time_us)
            }
        }
    }

    fn takes(&mut self, spool: &mut Spool) -> bool {
        let Some(entry) = spool.take() else { return false };
        if let Some(number) = self.check(&entry) {
            assert!(self.last < Some(number), "out of its order");
            self.last = Some(number);
        }
        true
    }

    fn takes_back(&mut self, spool: &mut Spool) {
        for entry in spool.take_back() {
            self.check(&entry);
        }
    }
}

thread_local! {
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

fuzz_target!(|ops: Vec<Op>| {
    let disk = Shared(Rc::new(RefCell::new(Disk::default())));
    disk.0.borrow_mut().pages = vec![0; PAGES * PAGE];
    let spool = Spool::with(Box::new(disk.clone()), PAGES as u64, |bytes| {
        let drawn = DRAWN.replace(DRAWN.get() + 1);
        bytes[..8].copy_from_slice(&drawn.to_le_bytes());
        Ok(())
    });
    let (mut spool, mut books, mut now) = (spool.expect("a key"), Books::default(), Instant::now());
    for op in &ops {
        match op {
            Op::Write { pieces, len, gap, dropping } => {
                if !spool.is_free() || !spool.has_room(*dropping) {
                    continue;
                }
                let mut segment = Segment::default();
                if *gap {
                    assert!(segment.push(&books.gap()));
                }
                for _ in 0..=*pieces % 8 {
                    assert!(segment.push(&books.piece((*len % 7000).into())), "there is room");
                }
                spool.write(segment, now);
            }
            Op::Fetch => spool.fetch(now),
            Op::Answer(how) => disk.0.borrow_mut().answer(how),
            Op::Turn { seconds } => {
                now += Duration::from_secs((*seconds).into());
                spool.turn(now);
            }
            Op::Take(n) => {
                for _ in 0..*n {
                    books.takes(&mut spool);
                }
            }
            Op::TakeBack => books.takes_back(&mut spool),
        }
        assert!(spool.busy_since().is_none_or(|since| since <= now));
    }
    // All that is there comes, whatever became of the disk.
    while spool.next() != Next::Nothing || spool.busy_since().is_some() {
        spool.fetch(now);
        disk.0.borrow_mut().answer(&Answer::Rightly);
        now += Duration::from_secs(45);
        spool.turn(now);
        while books.takes(&mut spool) {}
    }
    books.takes_back(&mut spool);
    assert_eq!(spool.bytes(), 0);
    assert_eq!(books.out + books.told, books.written);
});
