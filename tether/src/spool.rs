//! The spool: output that memory has no room for, kept on a disk of the VM's own until the link takes it.
//!
//! ```text
//!   segment ── sealed ──▶ record on the disk ── read back, opened ──▶ next
//! ```
//!
//! It is more memory, nothing else: the disk has no file system and no table, what lies where is known here
//! only, and so is the key it is sealed with. Neither outlives the agent.
//!
//! Records go to the disk one after the other and come back in that order. Nothing waits in here: the disk is
//! another process's to wait for (`disk`), which is asked for one record to write and one to read at a time.
//! Whatever fails, each byte is either passed on or told to be missing, in its place:
//!
//! * what cannot be written goes back to where it came from ([`Spool::take_back`]);
//! * what cannot be read, or is not what was written, becomes a gap;
//! * a disk that has failed once is not written to again; what it holds is still read.

mod disk;
#[cfg(test)]
pub(crate) mod fake;
mod ring;
mod seal;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;
use tracing::{info, warn};
use wire::chunk::{Entry, Gap};

pub use disk::{Drive, SpoolError};
pub use ring::{gap_of, merge};
pub use seal::Random;
pub use segment::Segment;

use crate::sys;
use disk::{Child, HEAD, Head, Kind};
use ring::{MAX_RECORD, PAGE, Ring};
use seal::Sealer;

/// How long whoever is not to wait may be made to wait for the disk all the same, as that is about to take some.
pub const SHORT_WAIT: Duration = Duration::from_secs(1);

/// A disk that has not answered for so long will not: the kernel itself gives up earlier on most.
const PATIENCE: Duration = Duration::from_secs(90);

/// What comes next out of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A piece that needs so much room.
    Here(usize),
    /// Something that is on the disk, or on its way there: the disk owes an answer.
    Coming,
    /// Nothing.
    Nothing,
}

/// A record on its way to the disk.
#[derive(Debug)]
struct Writing {
    since: Instant,
    /// Kept until it is there.
    message: Vec<u8>,
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    drive: Box<dyn Drive>,
    sealer: Sealer,
    ring: Ring,
    /// The newest record of the ring, if it is not on the disk yet.
    writing: Option<Writing>,
    /// Since when the oldest record of the ring is being read.
    reading: Option<Instant>,
    /// What was read back.
    next: VecDeque<Entry>,
    next_bytes: u64,
    /// Dropped before the oldest record, and not yet told.
    lost: Option<Gap>,
    dropped: u64,
    /// What could not be written.
    back: Vec<Entry>,
    /// Nothing is written any more.
    failed: bool,
    /// The last answer.
    answer: Vec<u8>,
}

impl Spool {
    /// One on the disk with this node, which is known to be there for nothing else.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn on(node: &Path) -> Result<Self, SpoolError> {
        let (child, pages) = Child::start(node)?;
        let mib = (pages * PAGE as u64) >> 20;
        info!("output that nobody takes is kept on {}, up to {mib} MiB", node.display());
        Self::with(Box::new(child), pages, sys::random).map_err(disk::machine("draw a key"))
    }

    /// One of so many pages, with its disk behind `drive`.
    ///
    /// # Errors
    ///
    /// When there are no random bytes.
    pub fn with(drive: Box<dyn Drive>, pages: u64, random: Random) -> Result<Self, Errno> {
        Ok(Self {
            drive,
            sealer: Sealer::new(random)?,
            ring: Ring::new(pages),
            writing: None,
            reading: None,
            next: VecDeque::new(),
            next_bytes: 0,
            lost: None,
            dropped: 0,
            back: Vec::new(),
            failed: false,
            answer: Vec::new(),
        })
    }

    /// Payload bytes kept.
    pub fn bytes(&self) -> u64 {
        self.ring.bytes() + self.next_bytes
    }

    /// Payload bytes lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a record can be written now, if there is room.
    pub fn is_free(&self) -> bool {
        !self.failed && self.writing.is_none()
    }

    /// Whether there is room for a record; with `dropping`, the oldest are dropped for it.
    pub fn has_room(&mut self, dropping: bool) -> bool {
        while dropping && !self.ring.has_room() && self.reading.is_none() {
            let Some(oldest) = self.ring.pop() else { break };
            self.dropped += oldest.tally.bytes;
            if let Some(gap) = &oldest.tally.all {
                merge(&mut self.lost, gap);
            }
        }
        self.ring.has_room()
    }

    /// Writes a record, for which there must be room.
    pub fn write(&mut self, segment: Segment, now: Instant) {
        let Segment { tally, mut message, .. } = segment;
        let Ok(nonce) = self.sealer.seal(&mut message, HEAD) else {
            // The kernel's generator does not fail once it is seeded.
            self.back.extend(segment::entries(&message[HEAD..]).unwrap_or_default());
            return self.fail("there are no random bytes for it");
        };
        let len = message.len() - HEAD;
        message.resize(HEAD + len.next_multiple_of(PAGE), 0);
        let place = self.ring.push(len, nonce, tally);
        let number = u32::try_from(message.len() - HEAD).unwrap_or(u32::MAX);
        let head = Head { kind: Kind::Write, number, place };
        message[..HEAD].copy_from_slice(&head.to_bytes());
        let asked = self.drive.ask(&message);
        self.writing = Some(Writing { since: now, message });
        if let Err(error) = asked {
            self.not_written(&error.to_string());
        }
    }

    /// Reads on, if there is something to read and not enough read yet.
    pub fn fetch(&mut self, now: Instant) {
        let n_readable = self.ring.len() - usize::from(self.writing.is_some());
        if self.reading.is_some() || n_readable == 0 || self.next_bytes >= MAX_RECORD as u64 {
            return;
        }
        if let Some(gap) = self.lost.take() {
            self.push_gap(&gap);
        }
        let Some((place, record)) = self.ring.oldest() else { return };
        let len = record.len.next_multiple_of(PAGE);
        let number = u32::try_from(len).unwrap_or(u32::MAX);
        let head = Head { kind: Kind::Read, number, place };
        match self.drive.ask(&head.to_bytes()) {
            Ok(()) => self.reading = Some(now),
            Err(error) => self.not_read(&error.to_string()),
        }
    }

    /// Takes note of what the disk has answered.
    pub fn turn(&mut self, now: Instant) {
        while self.busy_since().is_some() {
            let mut answer = std::mem::take(&mut self.answer);
            let found = self.drive.answer(&mut answer);
            self.answer = answer;
            match found {
                Ok(true) => self.answered(),
                Ok(false) => break,
                Err(error) => self.gone(&error),
            }
        }
        if self.busy_since().is_some_and(|since| since + PATIENCE <= now) {
            self.gone(&io::ErrorKind::TimedOut.into());
        }
        // With the record in front of which it stood gone, too, nothing would bring it along.
        if self.ring.len() == 0
            && let Some(gap) = self.lost.take()
        {
            self.push_gap(&gap);
        }
    }

    fn answered(&mut self) {
        let Some(head) = Head::parse(&self.answer) else {
            return self.gone(&io::ErrorKind::InvalidData.into());
        };
        let asked = match head.kind {
            Kind::Write => self.writing.is_some(),
            Kind::Read => self.reading.is_some(),
        };
        if !asked {
            return self.gone(&io::ErrorKind::InvalidData.into());
        }
        let error = io::Error::from_raw_os_error(head.number.cast_signed());
        match head.kind {
            Kind::Write if head.number == 0 => self.writing = None,
            Kind::Write => self.not_written(&error.to_string()),
            Kind::Read if head.number == 0 => self.read_back(),
            Kind::Read => self.not_read(&error.to_string()),
        }
    }

    fn read_back(&mut self) {
        self.reading = None;
        let Some((_, record)) = self.ring.oldest() else { return };
        let sealed = self.answer.get_mut(HEAD..HEAD + record.len).unwrap_or_default();
        let plain = self.sealer.open(&record.nonce, sealed);
        let Some(entries) = plain.and_then(|plain| segment::entries(plain).ok()) else {
            return self.not_read("a record is not what was written");
        };
        self.next_bytes += record.tally.bytes;
        self.next.extend(entries);
        self.ring.pop();
    }

    /// The newest record goes back where it came from.
    fn not_written(&mut self, why: &str) {
        self.fail(why);
        let Some(mut writing) = self.writing.take() else { return };
        let Some(record) = self.ring.take_back() else { return };
        let sealed = writing.message.get_mut(HEAD..HEAD + record.len).unwrap_or_default();
        let plain = self.sealer.open(&record.nonce, sealed).unwrap_or_default();
        // It was made here.
        self.back.extend(segment::entries(plain).unwrap_or_default());
    }

    /// The oldest record is lost.
    fn not_read(&mut self, why: &str) {
        self.fail(why);
        self.reading = None;
        let Some(record) = self.ring.pop() else { return };
        self.dropped += record.tally.bytes;
        if let Some(gap) = record.tally.all {
            self.push_gap(&gap);
        }
    }

    /// Nothing can be read any more either.
    fn gone(&mut self, error: &io::Error) {
        if self.writing.is_some() {
            self.not_written(&error.to_string());
        }
        if let Some(gap) = self.lost.take() {
            self.push_gap(&gap);
        }
        while self.ring.len() > 0 {
            self.not_read(&error.to_string());
        }
        self.reading = None;
    }

    fn fail(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failed, true) {
            warn!("the spool's disk has failed and is not written to any more: {why}");
        }
    }

    fn push_gap(&mut self, gap: &Gap) {
        match self.next.back_mut() {
            Some(Entry::Gap(last)) => {
                let mut both = Some(*last);
                merge(&mut both, gap);
                *last = both.unwrap_or(*gap);
            }
            _ => self.next.push_back(Entry::Gap(*gap)),
        }
    }

    /// What could not be written, the oldest first.
    pub fn take_back(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.back)
    }

    /// What comes next.
    pub fn next(&self) -> Next {
        match self.next.front() {
            Some(Entry::Output(chunk)) => Next::Here(chunk.bytes.len()),
            Some(Entry::Gap(_)) => Next::Here(segment::GAP),
            None if self.ring.len() > 0 => Next::Coming,
            None => Next::Nothing,
        }
    }

    /// Hands it over.
    pub fn take(&mut self) -> Option<Entry> {
        let entry = self.next.pop_front()?;
        if let Entry::Output(chunk) = &entry {
            self.next_bytes -= chunk.bytes.len() as u64;
        }
        Some(entry)
    }

    /// Since when the disk owes an answer.
    pub fn busy_since(&self) -> Option<Instant> {
        let writing = self.writing.as_ref().map(|writing| writing.since);
        [writing, self.reading].into_iter().flatten().min()
    }

    /// When the next turn is due although the disk has not answered.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let since = self.busy_since()?;
        Some(since + if now < since + SHORT_WAIT { SHORT_WAIT } else { PATIENCE })
    }

    /// Ready when the disk has answered; else the context's task is woken then.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.busy_since() {
            Some(_) => self.drive.poll_ready(context),
            None => Poll::Pending,
        }
    }
}
