//! Entries of an output channel: which stream, when, and the bytes.
//!
//! ```text
//! +--------+-----------------+-------------+-----------+
//! | stream | Δ time (varint) | len (varint)| bytes     |
//! +--------+-----------------+-------------+-----------+
//! ```
//!
//! Stdout and stderr of a process share one channel, so their order is kept as it was read. Time is
//! wall-clock time at the moment of reading, in microseconds; each entry carries the difference to
//! the one before (zigzag, as clocks step back too), the first to the Unix epoch.
//!
//! Where output had to be dropped, a third kind of entry stands in its place: a [`Gap`] of so many
//! bytes and lines (varints), from the entry's time on for so long (varint, µs).

use crate::varint;
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Most bytes one entry may hold.
pub const MAX_CHUNK: usize = 64 * 1024;
const HEAD_MAX: usize = 1 + 8 + 8;
const GAP: u8 = 3;

/// Which of a process's outputs, in Docker's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output; the terminal, if there is one.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// One read of a process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it was read.
    pub stream: Stream,
    /// When it was read: microseconds since the Unix epoch, by the guest's clock.
    pub time_us: u64,
    /// What was read.
    pub bytes: Bytes,
}

/// Output that nobody took in time, and that was dropped to keep the process going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// How many bytes.
    pub bytes: u64,
    /// How many of them were newlines.
    pub lines: u64,
    /// When the first of it was read: microseconds since the Unix epoch, by the guest's clock.
    pub first_us: u64,
    /// When the last of it was read.
    pub last_us: u64,
}

/// What an output channel carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Output.
    Output(Chunk),
    /// Where output is missing.
    Gap(Gap),
}

/// A malformed entry: a defect of the peer. Class: reset the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// Not a stream.
    #[error("output entry of unknown stream {0}")]
    Stream(u8),
    /// Longer than [`MAX_CHUNK`].
    #[error("output entry of {0} bytes, at most {MAX_CHUNK} are allowed")]
    Length(u64),
    /// A gap that is not two counts and a time.
    #[error("output entry that tells a gap without its size")]
    Gap,
}

/// Turns reads into entries.
#[derive(Debug, Default)]
pub struct Writer {
    last_us: u64,
}

impl Writer {
    /// Bytes an entry needs besides its payload, at most.
    pub const OVERHEAD: usize = HEAD_MAX;

    /// Appends one entry; `bytes` beyond [`MAX_CHUNK`] are cut off by the caller beforehand.
    pub fn push(&mut self, stream: Stream, time_us: u64, bytes: &[u8], out: &mut Vec<u8>) {
        debug_assert!(bytes.len() <= MAX_CHUNK, "the caller reads no more at once");
        self.entry(stream as u8, time_us, bytes, out);
    }

    /// Appends the entry that stands for dropped output.
    pub fn gap(&mut self, gap: &Gap, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        varint::put(&mut body, gap.bytes);
        varint::put(&mut body, gap.lines);
        varint::put(&mut body, gap.last_us.saturating_sub(gap.first_us));
        self.entry(GAP, gap.first_us, &body, out);
    }

    fn entry(&mut self, kind: u8, time_us: u64, body: &[u8], out: &mut Vec<u8>) {
        out.push(kind);
        let delta = time_us.cast_signed().wrapping_sub(self.last_us.cast_signed());
        varint::put(out, zigzag(delta));
        varint::put(out, body.len() as u64);
        out.extend_from_slice(body);
        self.last_us = time_us;
    }
}

/// Turns a channel's bytes back into entries. Holds at most one partial entry.
#[derive(Debug, Default)]
pub struct Reader {
    held: BytesMut,
    last_us: u64,
}

impl Reader {
    /// A reader that goes on after an entry of time `last_us` (0 at a channel's start).
    pub fn resume(last_us: u64) -> Self {
        Self { held: BytesMut::new(), last_us }
    }

    /// Adds bytes of the channel.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Whether the bytes so far end with a whole entry.
    pub fn is_between(&self) -> bool {
        self.held.is_empty()
    }

    /// Time of the last entry, µs since the Unix epoch; what [`resume`](Self::resume) wants.
    pub fn last_us(&self) -> u64 {
        self.last_us
    }

    /// The next whole entry, with the number of bytes it took.
    ///
    /// # Errors
    /// [`ChunkError`]; the reader is of no use afterwards.
    pub fn next_entry(&mut self) -> Result<Option<(Entry, usize)>, ChunkError> {
        let mut rest = &self.held[..];
        let Some((&kind, tail)) = rest.split_first() else { return Ok(None) };
        rest = tail;
        if !(1..=GAP).contains(&kind) {
            return Err(ChunkError::Stream(kind));
        }
        let Some(delta) = varint::take(&mut rest) else { return Ok(None) };
        let Some(len) = varint::take(&mut rest) else { return Ok(None) };
        if len > MAX_CHUNK as u64 {
            return Err(ChunkError::Length(len));
        }
        let len = len as usize;
        if rest.len() < len {
            return Ok(None);
        }
        let head = self.held.len() - rest.len();
        self.last_us = self.last_us.cast_signed().wrapping_add(unzigzag(delta)).cast_unsigned();
        self.held.advance(head);
        let (time_us, bytes) = (self.last_us, self.held.split_to(len).freeze());
        let entry = match kind {
            1 => Entry::Output(Chunk { stream: Stream::Stdout, time_us, bytes }),
            2 => Entry::Output(Chunk { stream: Stream::Stderr, time_us, bytes }),
            _ => Entry::Gap(gap(time_us, &bytes).ok_or(ChunkError::Gap)?),
        };
        Ok(Some((entry, head + len)))
    }
}

fn gap(first_us: u64, mut body: &[u8]) -> Option<Gap> {
    let (bytes, lines) = (varint::take(&mut body)?, varint::take(&mut body)?);
    let last_us = first_us.saturating_add(varint::take(&mut body)?);
    Some(Gap { bytes, lines, first_us, last_us })
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_survive_any_cutting(
            entries in prop::collection::vec(
                (0..3, 0u64..1 << 60, prop::collection::vec(any::<u8>(), 0..400)), 0..20),
            cut in 1usize..300,
        ) {
            let entries: Vec<_> = entries.into_iter().map(|(kind, time_us, bytes)| match kind {
                0 => Entry::Gap(Gap {
                    bytes: bytes.len() as u64 * 1000,
                    lines: bytes.len() as u64,
                    first_us: time_us,
                    last_us: time_us + 5,
                }),
                1 => Entry::Output(Chunk { stream: Stream::Stdout, time_us, bytes: bytes.into() }),
                _ => Entry::Output(Chunk { stream: Stream::Stderr, time_us, bytes: bytes.into() }),
            }).collect();
            let (mut writer, mut line) = (Writer::default(), Vec::new());
            for entry in &entries {
                match entry {
                    Entry::Output(chunk) => {
                        writer.push(chunk.stream, chunk.time_us, &chunk.bytes, &mut line);
                    }
                    Entry::Gap(gap) => writer.gap(gap, &mut line),
                }
            }
            let mut reader = Reader::default();
            let (mut found, mut taken) = (Vec::new(), 0);
            for piece in line.chunks(cut) {
                reader.push(piece);
                while let Some((chunk, n)) = reader.next_entry().unwrap() {
                    found.push(chunk);
                    taken += n;
                }
            }
            prop_assert_eq!(found, entries);
            prop_assert_eq!(taken, line.len());
        }

        #[test]
        fn any_bytes_are_entries_or_an_error(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            reader.push(&line);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
