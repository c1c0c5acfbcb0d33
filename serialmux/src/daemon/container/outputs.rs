//! Output channels on their way into the journal, and what may be released to the guest when.

use crate::store::journal::Journal;
use crate::store::record::{Place, Record};
use std::collections::BTreeMap;
use wire::chunk::{self, ChunkError, Entry};
use wire::pack::{Block, PackError, Unpacker};
use wire::{ChannelId, Link};

const READ_STEP: usize = 64 * 1024;

/// Output that is not what an agent sends. Class: give the channel up.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
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
    /// How many bytes of entries after the place's segment start the journal has from an earlier run.
    known: u32,
    ended: bool,
}

impl Output {
    fn resume(place: Place, packed: bool) -> Self {
        let start = Place { stored: 0, ..place };
        let unpacker = packed.then(Unpacker::default);
        let reader = chunk::Reader::resume(place.before_us);
        Self {
            unpacker,
            reader,
            offset: place.segment,
            place: start,
            known: place.stored,
            ended: false,
        }
    }

    fn take(
        &mut self,
        channel: u32,
        bytes: &[u8],
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
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

    /// What is not packed can be read on after each entry.
    fn entries(
        &mut self,
        channel: u32,
        bytes: &[u8],
        journal: &mut Journal,
    ) -> Result<(), OutputError> {
        self.reader.push(bytes);
        while let Some((entry, n)) = self.reader.next_entry()? {
            self.offset += n as u64;
            let before_us = self.reader.last_us();
            self.place = Place { segment: self.offset, before_us, stored: 0 };
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
        if block.fresh && self.reader.is_between() {
            let (segment, before_us) = (self.offset, self.reader.last_us());
            self.known = self.known.saturating_sub(self.place.stored);
            self.place = Place { segment, before_us, stored: 0 };
        }
        self.offset += block.taken as u64;
        self.reader.push(&block.plain);
        while let Some((entry, n)) = self.reader.next_entry()? {
            self.place.stored =
                self.place.stored.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
            if self.place.stored > self.known {
                journal.push(&record(channel, self.place, entry));
            }
        }
        Ok(())
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
        let progress = progress.unwrap_or_default();
        if let Some(length) = progress.ended {
            link.accept(channel, length + 1);
            link.close(channel);
            return;
        }
        link.accept(channel, progress.place.segment);
        self.open.insert(channel, Output::resume(progress.place, packed));
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
            journal.push(&Record::End { channel: channel.0, length: output.offset });
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
