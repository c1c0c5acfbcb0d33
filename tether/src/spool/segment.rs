//! What becomes one record: pieces of output in their order, as an output channel has them.

use wire::chunk::{ChunkError, Entry, Gap, Reader, Writer};

use super::disk::HEAD;
use super::ring::{MAX_RECORD, Tally};
use super::seal::TAG;

/// What a gap takes, at most.
pub(super) const GAP: usize = 64;

/// Pieces of output on their way to the disk.
#[derive(Debug)]
pub struct Segment {
    writer: Writer,
    pub(super) tally: Tally,
    /// Room for the message's head, then the entries.
    pub(super) message: Vec<u8>,
}

impl Default for Segment {
    fn default() -> Self {
        let message = vec![0; HEAD];
        Self { writer: Writer::default(), tally: Tally::default(), message }
    }
}

impl Segment {
    /// Adds a piece; whether there was room for it.
    #[must_use]
    pub fn push(&mut self, entry: &Entry) -> bool {
        let len = match entry {
            Entry::Output(chunk) => chunk.bytes.len() + Writer::OVERHEAD,
            Entry::Gap(_) => GAP,
        };
        if self.message.len() - HEAD + len + TAG > MAX_RECORD {
            return false;
        }
        match entry {
            Entry::Output(it) => {
                self.writer.push(it.stream, it.time_us, &it.bytes, &mut self.message);
                self.tally.output(it.time_us, &it.bytes);
            }
            Entry::Gap(gap) => self.gap(gap),
        }
        true
    }

    fn gap(&mut self, gap: &Gap) {
        self.writer.gap(gap, &mut self.message);
        self.tally.gap(gap);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.message.len() == HEAD
    }
}

/// The pieces of a record.
pub(super) fn entries(record: &[u8]) -> Result<Vec<Entry>, ChunkError> {
    let (mut reader, mut found) = (Reader::default(), Vec::new());
    reader.push(record);
    while let Some((entry, _)) = reader.next_entry()? {
        found.push(entry);
    }
    Ok(found)
}
