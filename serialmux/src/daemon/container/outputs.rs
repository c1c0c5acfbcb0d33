//! Output channels on their way into the journal, and what may be released to the guest when.

use crate::store::journal::Journal;
use crate::store::record::Record;
use std::collections::BTreeMap;
use wire::chunk::{self, ChunkError};
use wire::{ChannelId, Link};

const READ_STEP: usize = 64 * 1024;

#[derive(Debug)]
struct Output {
    reader: chunk::Reader,
    /// Channel offset after the last whole entry in the journal.
    next: u64,
    ended: bool,
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
        boot: [u8; 16],
        journal: &mut Journal,
    ) {
        let progress = journal.progress(boot, channel.0);
        if progress.is_none() {
            journal.push(&Record::Begin { boot, channel: channel.0 });
        }
        let progress = progress.unwrap_or_default();
        link.accept(channel, progress.next + u64::from(progress.ended));
        if progress.ended {
            link.close(channel);
            return;
        }
        let reader = chunk::Reader::resume(progress.last_us);
        self.open.insert(channel, Output { reader, next: progress.next, ended: false });
    }

    /// Moves what came on a channel into the journal's batch.
    pub(super) fn read(
        &mut self,
        link: &mut Link,
        channel: ChannelId,
        journal: &mut Journal,
    ) -> Result<(), ChunkError> {
        let Some(output) = self.open.get_mut(&channel) else { return Ok(()) };
        loop {
            let bytes = link.read(channel, READ_STEP);
            if bytes.is_empty() {
                break;
            }
            output.reader.push(&bytes);
            while let Some((chunk, n)) = output.reader.next_chunk()? {
                output.next += n as u64;
                journal.push(&Record::Output {
                    channel: channel.0,
                    next: output.next,
                    stream: chunk.stream,
                    time_us: chunk.time_us,
                    bytes: chunk.bytes,
                });
            }
        }
        self.written.push(Let::Release(channel, output.next));
        Ok(())
    }

    /// A channel came to its end.
    pub(super) fn finished(&mut self, channel: ChannelId, journal: &mut Journal) {
        if let Some(output) = self.open.get_mut(&channel).filter(|output| !output.ended) {
            output.ended = true;
            journal.push(&Record::End { channel: channel.0 });
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
