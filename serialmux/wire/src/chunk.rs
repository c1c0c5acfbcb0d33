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

use crate::varint;
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Most bytes one entry may hold.
pub const MAX_CHUNK: usize = 64 * 1024;
const HEAD_MAX: usize = 1 + 8 + 8;

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

/// A malformed entry: a defect of the peer. Class: reset the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// Not a stream.
    #[error("output entry of unknown stream {0}")]
    Stream(u8),
    /// Longer than [`MAX_CHUNK`].
    #[error("output entry of {0} bytes, at most {MAX_CHUNK} are allowed")]
    Length(u64),
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
        out.push(stream as u8);
        let delta = time_us.cast_signed().wrapping_sub(self.last_us.cast_signed());
        varint::put(out, zigzag(delta));
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
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

    /// The next whole entry, with the number of channel bytes it took.
    ///
    /// # Errors
    /// [`ChunkError`]; the reader is of no use afterwards.
    pub fn next_chunk(&mut self) -> Result<Option<(Chunk, usize)>, ChunkError> {
        let mut rest = &self.held[..];
        let Some((stream, tail)) = rest.split_first() else { return Ok(None) };
        rest = tail;
        let stream = match stream {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            other => return Err(ChunkError::Stream(*other)),
        };
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
        let bytes = self.held.split_to(len).freeze();
        Ok(Some((Chunk { stream, time_us: self.last_us, bytes }, head + len)))
    }
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
                (any::<bool>(), 0u64..1 << 60, prop::collection::vec(any::<u8>(), 0..400)), 0..20),
            cut in 1usize..300,
        ) {
            let entries: Vec<_> = entries.into_iter().map(|(err, time_us, bytes)| Chunk {
                stream: if err { Stream::Stderr } else { Stream::Stdout },
                time_us,
                bytes: bytes.into(),
            }).collect();
            let (mut writer, mut line) = (Writer::default(), Vec::new());
            for entry in &entries {
                writer.push(entry.stream, entry.time_us, &entry.bytes, &mut line);
            }
            let mut reader = Reader::default();
            let (mut found, mut taken) = (Vec::new(), 0);
            for piece in line.chunks(cut) {
                reader.push(piece);
                while let Some((chunk, n)) = reader.next_chunk().unwrap() {
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
            while let Ok(Some(_)) = reader.next_chunk() {}
        }
    }
}
