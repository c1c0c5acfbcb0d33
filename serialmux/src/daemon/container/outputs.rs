//! Output channels on their way into the journal, and what may be released to the guest when.

use crate::store::journal::{Journal, Progress};
use crate::store::record::{Place, Record};
use bytes::BytesMut;
use std::collections::BTreeMap;
use wire::chunk::{self, ChunkError, Entry};
use wire::pack::{Block, PackError, Unpacker};
use wire::{ChannelId, Digest, Link};

const READ_STEP: usize = 64 * 1024;

/// Output that is not what an agent sends. Class: give the channel up.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// What comes again is not what the journal has. Class: mark it, go on with another channel.
    #[error("the guest sends other output than it did before: it was put back to a snapshot")]
    Other,
}

/// One channel's bytes on their way through unpacker and entry reader.
#[derive(Debug)]
struct Output {
    /// Absent for entries that come as they are.
    unpacker: Option<Unpacker>,
    reader: chunk::Reader,
    /// Channel offset after the last whole block.
    offset: u64,
    place: Place,
    /// How many bytes of entries after the place's segment start the journal has from an earlier run, and
    /// their sum.
    known: (u32, u32),
    /// Of the first `offset` bytes.
    digest: Digest,
    /// What came behind those.
    tail: BytesMut,
    ended: bool,
}

impl Output {
    fn resume(place: Place, packed: bool, digest: Digest) -> Self {
        let start = Place { stored: 0, sum: 0, ..place };
        let unpacker = packed.then(Unpacker::default);
        let reader = chunk::Reader::resume(place.before_us);
        Self {
            unpacker,
            reader,
            offset: place.segment,
            place: start,
            known: (place.stored, place.sum),
            digest,
            tail: BytesMut::new(),
            ended: false,
        }
    }

    fn take(
        &mut self,
        channel: u32,
        bytes: &[u8],
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
        self.tail.extend_from_slice(bytes);
        let Some(mut unpacker) = self.unpacker.take() else {
            return self.entries(channel, bytes, journal);
        };
        unpacker.push(bytes);
        while let Some(block) = unpacker.next_block()? {
            self.block(channel, &block, journal)?;
        }
        self.unpacker = Some(unpacker);
        Ok(())
    }

    /// So many bytes more are read.
    fn advance(&mut self, n: usize) {
        self.offset += n as u64;
        self.digest.update(&self.tail.split_to(n.min(self.tail.len())));
    }

    /// The place behind what was read, between two entries.
    fn here(&self) -> Place {
        let (segment, before_us) = (self.offset, self.reader.last_us());
        Place { segment, before_us, digest: self.digest.state(), ..Place::default() }
    }

    /// What is not packed can be read on after each entry.
    fn entries(
        &mut self,
        channel: u32,
        bytes: &[u8],
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
        self.reader.push(bytes);
        while let Some((entry, n)) = self.reader.next_entry()? {
            self.advance(n);
            self.place = self.here();
            journal.push(&record(channel, self.place, entry));
        }
        Ok(())
    }

    fn block(
        &mut self,
        channel: u32,
        block: &Block,
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
        if block.fresh && self.reader.is_between() && self.offset > self.place.segment {
            if self.place.stored < self.known.0 {
                return Err(OutputError::Other);
            }
            self.known = (0, 0);
            self.place = self.here();
        }
        self.advance(block.taken);
        self.reader.push(&block.plain);
        while let Some((entry, n)) = self.reader.next_entry()? {
            let before = self.place.stored;
            self.place.stored = before.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
            self.place.sum = sum(self.place.sum, &entry);
            let (known, known_sum) = self.known;
            if before >= known {
                journal.push(&record(channel, self.place, entry));
            } else if self.place.stored > known
                || (self.place.stored == known && self.place.sum != known_sum)
            {
                return Err(OutputError::Other);
            }
        }
        Ok(())
    }
}

/// The sum goes on with this entry.
fn sum(sum: u32, entry: &Entry) -> u32 {
    let numbers = |sum, all: &[u64]| {
        all.iter().fold(sum, |sum, n| crc32c::crc32c_append(sum, &n.to_le_bytes()))
    };
    match entry {
        Entry::Output(chunk::Chunk { stream, time_us, bytes }) => {
            crc32c::crc32c_append(numbers(sum, &[*stream as u64, *time_us]), bytes)
        }
        Entry::Gap(chunk::Gap { bytes, lines, first_us, last_us }) => {
            numbers(sum, &[0, *bytes, *lines, *first_us, *last_us])
        }
    }
}

fn record(channel: u32, place: Place, entry: Entry) -> Record {
    match entry {
        Entry::Output(chunk::Chunk { stream, time_us, bytes }) => {
            Record::Output { channel, place, stream, time_us, bytes }
        }
        Entry::Gap(gap) => Record::Gap { channel, place, gap },
    }
}

/// What a sync that is done lets go of.
#[derive(Debug, Clone, Copy)]
enum Let {
    Release(ChannelId, u64),
    Close(ChannelId),
}

/// The open output channels of one guest.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    open: BTreeMap<ChannelId, Output>,
    /// Written, not yet in a sync.
    written: Vec<Let>,
    /// In the sync that runs.
    syncing: Vec<Let>,
    untrusted: bool,
}

impl Outputs {
    /// Takes a channel and goes on where the journal ends.
    pub(super) fn opened(
        &mut self,
        link: &mut Link,
        channel: ChannelId,
        packed: bool,
        boot: [u8; 16],
        journal: &mut Journal,
    ) {
        let progress = journal.progress(boot, channel.0);
        if progress.is_none() {
            journal.push(&Record::Begin { boot, channel: channel.0 });
        }
        let Progress { place, ended } = progress.unwrap_or_default();
        if let Some((length, digest)) = ended {
            link.accept_known(channel, length + 1, link.blank_digest().resumed(length, digest));
            link.close(channel);
            return;
        }
        let digest = link.blank_digest().resumed(place.segment, place.digest);
        // First, as the link may find out at once that the guest means another channel.
        self.open.insert(channel, Output::resume(place, packed, digest));
        link.accept_known(channel, place.segment, digest);
    }

    /// The guest does not mean the channel that is in the journal: what comes after this is of another past.
    pub(super) fn rolled_back(&mut self, channel: ChannelId, time_us: u64, journal: &mut Journal) {
        if self.open.remove(&channel).is_some() {
            journal.push(&Record::Rollback { channel: channel.0, time_us });
        }
    }

    /// Moves what came on a channel into the journal's batch.
    pub(super) fn read(
        &mut self,
        link: &mut Link,
        channel: ChannelId,
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
        let Some(output) = self.open.get_mut(&channel) else { return Ok(()) };
        loop {
            let bytes = link.read(channel, READ_STEP);
            if bytes.is_empty() {
                break;
            }
            output.take(channel.0, &bytes, journal)?;
        }
        self.written.push(Let::Release(channel, output.place.segment));
        Ok(())
    }

    /// A channel came to its end.
    pub(super) fn finished(&mut self, channel: ChannelId, journal: &mut Journal) {
        if let Some(output) = self.open.get_mut(&channel).filter(|output| !output.ended) {
            output.ended = true;
            let (length, digest) = (output.offset, output.digest.state());
            journal.push(&Record::End { channel: channel.0, length, digest });
            self.written.push(Let::Close(channel));
        }
    }

    /// A channel is gone without an end.
    pub(super) fn gone(&mut self, channel: ChannelId) {
        self.open.remove(&channel);
    }

    /// Whether no more output can come.
    pub(super) fn is_empty(&self) -> bool {
        self.open.values().all(|output| output.ended)
    }

    /// Whether there is something to sync; what was written so far is in it.
    pub(super) fn begin_sync(&mut self) -> bool {
        self.syncing = std::mem::take(&mut self.written);
        !self.syncing.is_empty()
    }

    /// The sync is done: the guest may forget what was in it.
    pub(super) fn release(&mut self, link: &mut Link) {
        for done in std::mem::take(&mut self.syncing) {
            match done {
                _ if self.untrusted => {}
                Let::Release(channel, offset) => link.release(channel, offset),
                Let::Close(channel) => {
                    link.close(channel);
                    self.open.remove(&channel);
                }
            }
        }
    }

    /// The disk cannot be trusted any more: the guest keeps everything.
    pub(super) fn never_release(&mut self) {
        self.untrusted = true;
        self.syncing.clear();
    }
}
