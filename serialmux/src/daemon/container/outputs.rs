//! Output channels on their way into the journal, and what may be released to the guest when.

use crate::store::journal::{FULL, Journal, Progress};
use crate::store::record::{Place, Record};
use bytes::BytesMut;
use std::collections::BTreeMap;
use wire::chunk::{self, ChunkError, Entry};
use wire::pack::{Block, PackError, Unpacker};
use wire::{ChannelId, Digest, Link};

const READ_STEP: usize = 64 * 1024;
/// Most that waits for the disk of a VM that is gone.
const LAST_WORDS: usize = 64 * 1024 * 1024;

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
    /// Whether the journal had no room for all that has come.
    behind: bool,
    /// Whether the channel has come to its end.
    finished: bool,
    /// Whether the journal has that.
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
            behind: false,
            finished: false,
            ended: false,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        match &mut self.unpacker {
            Some(unpacker) => unpacker.push(bytes),
            None => self.reader.push(bytes),
        }
    }

    /// Moves what has come into the journal's batch, up to so many bytes; whether that had room for all of it. What
    /// has come may unpack to a thousand times as much.
    fn pump(
        &mut self,
        channel: u32,
        journal: &mut Journal,
        limit: usize,
    ) -> Result<bool, OutputError> {
        while journal.waiting() < limit {
            let is_more = match &mut self.unpacker {
                None => self.entry(channel, journal)?,
                Some(unpacker) => match unpacker.next_block()? {
                    Some(block) => self.block(channel, &block, journal).map(|()| true)?,
                    None => false,
                },
            };
            if !is_more {
                return Ok(true);
            }
        }
        Ok(false)
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

    /// What is not packed can be read on after each entry. Whether there was one.
    fn entry(&mut self, channel: u32, journal: &mut Journal) -> Result<bool, OutputError> {
        let Some((entry, n)) = self.reader.next_entry()? else { return Ok(false) };
        self.advance(n);
        self.place = self.here();
        journal.push(&record(channel, self.place, entry));
        Ok(true)
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

    /// Moves what came on a channel into the journal's batch, as far as that has room.
    pub(super) fn read(
        &mut self,
        link: &mut Link,
        channel: ChannelId,
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
        self.read_up_to(FULL, link, channel, journal)
    }

    /// Moves all that is here of a guest that is gone into the batch, whether the disk takes it now or later.
    pub(super) fn read_out(&mut self, link: &mut Link, journal: &mut Journal) {
        for channel in self.behind().collect::<Vec<_>>() {
            if let Err(error) = self.read_up_to(LAST_WORDS, link, channel, journal) {
                tracing::warn!(%error, "output channel given up");
            }
        }
    }

    fn read_up_to(
        &mut self,
        limit: usize,
        link: &mut Link,
        channel: ChannelId,
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
        let Some(output) = self.open.get_mut(&channel) else { return Ok(()) };
        loop {
            output.behind = !output.pump(channel.0, journal, limit)?;
            if output.behind {
                break;
            }
            let bytes = link.read(channel, READ_STEP);
            if bytes.is_empty() {
                break;
            }
            output.push(&bytes);
        }
        self.written.push(Let::Release(channel, output.place.segment));
        self.end(channel, journal);
        Ok(())
    }

    /// Channels of which more is to be [read](Self::read) when the batch has been written.
    pub(super) fn behind(&self) -> impl Iterator<Item = ChannelId> {
        self.open.iter().filter(|(_, output)| output.behind).map(|(channel, _)| *channel)
    }

    /// A channel came to its end.
    pub(super) fn finished(&mut self, channel: ChannelId, journal: &mut Journal) {
        if let Some(output) = self.open.get_mut(&channel) {
            output.finished = true;
        }
        self.end(channel, journal);
    }

    /// Puts the end of a channel behind everything that came on it.
    fn end(&mut self, channel: ChannelId, journal: &mut Journal) {
        let output = self.open.get_mut(&channel);
        if let Some(output) = output.filter(|it| it.finished && !it.behind && !it.ended) {
            output.ended = true;
            let (length, digest) = (output.offset, output.digest.state());
            journal.push(&Record::End { channel: channel.0, length, digest });
            self.written.push(Let::Close(channel));
        }
    }

    /// A channel is gone; whether without its end.
    pub(super) fn gone(&mut self, channel: ChannelId) -> bool {
        self.open.remove(&channel).is_some_and(|output| !output.ended)
    }

    /// Whether no more output can come.
    pub(super) fn is_empty(&self) -> bool {
        self.open.values().all(|output| output.ended)
    }

    /// Whether there is something to sync; what was written so far is in it.
    pub(super) fn begin_sync(&mut self) -> bool {
        // What is in there still is of a sync that could not begin.
        self.syncing.append(&mut self.written);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::container::test_link as link;
    use wire::pack::{Budget, Packer};

    const BOOT: [u8; 16] = [3; 16];

    /// An output with what an agent makes of so many pieces of 16 KiB that are all alike.
    fn packed(pieces: u64) -> (Output, u64) {
        let (mut writer, mut packer) = (chunk::Writer::default(), Packer::new(&Budget::new(1)));
        let mut line = Vec::new();
        for n in 0..pieces {
            let mut entry = Vec::new();
            writer.push(chunk::Stream::Stdout, n, &[b'x'; 16 * 1024], &mut entry);
            packer.push(&entry, &mut line);
        }
        let mut output = Output::resume(Place::default(), true, link().blank_digest());
        output.push(&line);
        (output, line.len() as u64)
    }

    #[test]
    fn what_unpacks_to_a_thousand_times_as_much_goes_to_the_journal_piece_by_piece() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join("j")).unwrap();
        let (output, len) = packed(1_000);
        assert!(len < 100_000, "{len}");
        let (mut outputs, channel) = (Outputs::default(), ChannelId(2));
        journal.push(&Record::Begin { boot: BOOT, channel: 2 });
        outputs.open.insert(channel, output);
        let mut written = 0;
        for rounds in 1.. {
            let output = outputs.open.get_mut(&channel).unwrap();
            output.behind = !output.pump(2, &mut journal, FULL).unwrap();
            // Its end was heard of before all of it is in there.
            outputs.finished(channel, &mut journal);
            let before = std::mem::replace(&mut written, journal.write().unwrap());
            assert!(written - before < 1_200_000, "{}", written - before);
            if outputs.behind().next().is_none() {
                assert!(rounds > 10, "{rounds}");
                break;
            }
            assert!(!journal.has_ended(&BOOT, 0));
        }
        assert!(written > 16_384_000 && journal.has_ended(&BOOT, len), "{written}");
        assert!(outputs.is_empty());
    }

    #[test]
    fn what_a_sync_that_could_not_begin_was_to_release_is_released_by_the_next() {
        let mut outputs = Outputs::default();
        outputs.written.push(Let::Release(ChannelId(2), 100));
        assert!(outputs.begin_sync());
        assert!(outputs.begin_sync(), "the first has not begun");
        assert!(matches!(outputs.syncing[..], [Let::Release(ChannelId(2), 100)]));
    }
}
