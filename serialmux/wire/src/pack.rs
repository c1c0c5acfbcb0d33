//! A compressed stream in pieces that each can be read on arrival.
//!
//! ```text
//! +------+-----------------+-------------+
//! | kind | length (varint) | payload     |   a block: what one push became
//! +------+-----------------+-------------+
//!   bit 0: the payload is zstd, flushed; else it is as it was
//!   bit 1: a segment begins here: nothing before this block is needed to read on
//! ```
//!
//! Compression remembers what went before, which is where nearly all of its gain comes from with small
//! pieces; so a reader that has forgotten can go on only at a segment's start. Segments are at most
//! [`SEGMENT`] bytes of plain text, so that is never far. What does not compress goes as it is, and is
//! not tried again for a while.
//!
//! A stream never mixes the secrets of one process with another's text: each channel has a packer of
//! its own.

use crate::varint;
use bytes::{Buf, Bytes, BytesMut};
use core::fmt;
use std::io;
use std::sync::{Arc, Weak};
use thiserror::Error;
use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// Most plain bytes of one block.
pub const MAX_PLAIN: usize = 32 * 1024;
/// Most plain bytes of a compressed segment.
pub const SEGMENT: usize = 64 * 1024;
/// Most payload bytes of one block: zstd grows what it cannot compress by a few bytes.
const MAX_PAYLOAD: usize = MAX_PLAIN + 512;
/// Below so many bytes a flush costs more than it saves.
const SMALL: usize = 40;
/// A stream is worth the memory of an encoder once it has carried so much.
const WORTHWHILE: u64 = 1024;
/// After something incompressible, so many bytes go as they are; doubled each time up to the second, where trying
/// costs a hundredth of what the line does. More, and text behind an archive would go unpacked for seconds.
const PENALTY: (usize, usize) = (16 * 1024, 64 * 1024);

/// Two tables and no search beyond their first hits (zstd's dfast). The levels with lazy matching make log text a
/// fourteenth smaller for three times the processor's time: an emulated serial port of 1 MB/s carries that in 15 ms
/// for a megabyte, and the search takes 100. Those below are hardly quicker, and pack numbers in sequence to a
/// fourth as well.
const LEVEL: i32 = 3;
/// History, as a power of two. Both ends hold that much per stream.
const WINDOW_LOG: u32 = 16;
/// Tables smaller than the level's own: the same ratio on 4 KiB pieces, a third of the memory.
const TABLE_LOGS: (u32, u32) = (14, 13);

const PACKED: u8 = 1;
const FRESH: u8 = 2;

/// How many packers may compress at once; each needs about 400 KB for it.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<()>,
    max: usize,
}

impl Budget {
    /// At most `max` packers of this budget compress; the others pass their bytes as they are.
    pub fn new(max: usize) -> Self {
        Self { permits: Arc::new(()), max }
    }

    fn take(&self) -> Option<Weak<()>> {
        // Clones of a budget hold it strongly, packers weakly, so that the two are counted apart.
        (Arc::weak_count(&self.permits) < self.max).then(|| Arc::downgrade(&self.permits))
    }
}

struct Compressor {
    encoder: Encoder<'static>,
    _permit: Weak<()>,
}

/// Turns pushes into blocks.
pub struct Packer {
    budget: Budget,
    compressor: Option<Compressor>,
    /// Bytes carried so far.
    carried: u64,
    /// Plain bytes of the open segment; 0: none is open.
    segment: usize,
    /// Bytes still to pass without a try.
    bypass: usize,
    penalty: usize,
    scratch: Vec<u8>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer")
            .field("compresses", &self.compressor.is_some())
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

impl Packer {
    /// Bytes a block needs besides its plain bytes, at most.
    pub const OVERHEAD: usize = 1 + 4;

    /// A packer at the start of a stream.
    pub fn new(budget: &Budget) -> Self {
        Self {
            budget: budget.clone(),
            compressor: None,
            carried: 0,
            segment: 0,
            bypass: 0,
            penalty: 0,
            scratch: Vec::new(),
        }
    }

    /// Appends `plain` as one block; more than [`MAX_PLAIN`] bytes become several.
    pub fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        for piece in plain.chunks(MAX_PLAIN) {
            self.block(piece, out);
        }
    }

    /// Appends `plain` as it is: for a line on which bytes cost less than compressing them.
    pub fn pass(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        // A reader who goes on behind it knows nothing of what was compressed before.
        self.segment = 0;
        plain.chunks(MAX_PLAIN).for_each(|piece| put(FRESH, piece, out));
    }

    fn block(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.carried += plain.len() as u64;
        if self.segment + plain.len() > SEGMENT {
            self.segment = 0;
        }
        let fresh = if self.segment == 0 { FRESH } else { 0 };
        if self.bypass > 0 {
            self.bypass = self.bypass.saturating_sub(plain.len());
            return put(FRESH, plain, out);
        }
        if plain.len() < SMALL || self.carried < WORTHWHILE {
            self.segment += if fresh == 0 { plain.len() } else { 0 };
            return put(fresh, plain, out);
        }
        if self.compress(plain, fresh != 0) {
            self.segment += plain.len();
            self.penalty = 0;
            return put(PACKED | fresh, &self.scratch, out);
        }
        // What the encoder has seen of it the reader will not: its segment ends here.
        self.segment = 0;
        self.penalty = (self.penalty * 2).clamp(PENALTY.0, PENALTY.1);
        self.bypass = self.penalty;
        put(FRESH, plain, out);
    }

    /// Compresses into `scratch`; whether that was of use.
    fn compress(&mut self, plain: &[u8], fresh: bool) -> bool {
        if self.compressor.is_none() {
            let permit = self.budget.take();
            self.compressor = permit.and_then(|permit| Compressor::new(permit).ok());
        }
        let Some(compressor) = &mut self.compressor else { return false };
        self.scratch.resize(MAX_PAYLOAD, 0);
        let len = compressor.block(plain, fresh, &mut self.scratch).unwrap_or(usize::MAX);
        self.scratch.truncate(len);
        len < plain.len() - plain.len() / 16
    }
}

impl Compressor {
    fn new(permit: Weak<()>) -> io::Result<Self> {
        let mut encoder = Encoder::new(LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        encoder.set_parameter(CParameter::HashLog(TABLE_LOGS.0))?;
        encoder.set_parameter(CParameter::ChainLog(TABLE_LOGS.1))?;
        encoder.set_parameter(CParameter::ChecksumFlag(false))?;
        encoder.set_parameter(CParameter::ContentSizeFlag(false))?;
        Ok(Self { encoder, _permit: permit })
    }

    fn block(&mut self, plain: &[u8], fresh: bool, out: &mut [u8]) -> io::Result<usize> {
        if fresh {
            self.encoder.reinit()?;
        }
        let (mut input, mut output) = (InBuffer::around(plain), OutBuffer::around(out));
        while input.pos() < plain.len() {
            let before = (input.pos(), output.pos());
            self.encoder.run(&mut input, &mut output)?;
            if before == (input.pos(), output.pos()) {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        match self.encoder.flush(&mut output)? {
            0 => Ok(output.pos()),
            _more => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

fn put(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    varint::put(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// What is no stream of blocks: a defect of the peer. Class: reset the channel.
#[derive(Debug, Error)]
pub enum PackError {
    /// Not a kind of block.
    #[error("block of unknown kind {0}")]
    Kind(u8),
    /// Longer than a packer makes them.
    #[error("block of {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    Length(u64),
    /// A stream that begins, or goes on after a plain segment, in the middle.
    #[error("compressed block without the segment it belongs to")]
    Segment,
    /// Not zstd.
    #[error("compressed block: {0}")]
    Zstd(#[from] io::Error),
    /// Grows beyond what a packer puts into one block.
    #[error("compressed block holds more than {MAX_PLAIN} bytes")]
    Plain,
}

/// One block, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What was pushed.
    pub plain: Bytes,
    /// Whether a segment begins with it.
    pub fresh: bool,
    /// How many bytes of the stream it took.
    pub taken: usize,
}

/// Turns a stream back into what was pushed. Holds at most one partial block, and the window.
#[derive(Default)]
pub struct Unpacker {
    held: BytesMut,
    decoder: Option<Decoder<'static>>,
    /// Whether the open segment's history is in the decoder.
    knows: bool,
    scratch: Vec<u8>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl Unpacker {
    /// Adds bytes of the stream, which must begin at a segment's start.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole block.
    ///
    /// # Errors
    /// [`PackError`]; the unpacker is of no use afterwards.
    pub fn next_block(&mut self) -> Result<Option<Block>, PackError> {
        let mut rest = &self.held[..];
        let Some((&kind, tail)) = rest.split_first() else { return Ok(None) };
        if kind & !(PACKED | FRESH) != 0 {
            return Err(PackError::Kind(kind));
        }
        rest = tail;
        let Some(len) = varint::take(&mut rest) else { return Ok(None) };
        if len > MAX_PAYLOAD as u64 {
            return Err(PackError::Length(len));
        }
        let len = len as usize;
        if rest.len() < len {
            return Ok(None);
        }
        let head = self.held.len() - rest.len();
        self.held.advance(head);
        let payload = self.held.split_to(len).freeze();
        let fresh = kind & FRESH != 0;
        let plain = match kind & PACKED {
            0 if payload.len() > MAX_PLAIN => return Err(PackError::Plain),
            0 => payload,
            _ => self.unpack(&payload, fresh)?,
        };
        self.knows = if fresh { kind & PACKED != 0 } else { self.knows };
        Ok(Some(Block { plain, fresh, taken: head + len }))
    }

    fn unpack(&mut self, payload: &[u8], fresh: bool) -> Result<Bytes, PackError> {
        if !fresh && !self.knows {
            return Err(PackError::Segment);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(new_decoder()?),
        };
        if fresh {
            decoder.reinit()?;
        }
        // One byte more than is allowed shows what is too much.
        self.scratch.resize(MAX_PLAIN + 1, 0);
        let (mut input, mut output) =
            (InBuffer::around(payload), OutBuffer::around(&mut self.scratch[..]));
        loop {
            let before = (input.pos(), output.pos());
            decoder.run(&mut input, &mut output)?;
            if output.pos() > MAX_PLAIN {
                return Err(PackError::Plain);
            }
            if before == (input.pos(), output.pos()) {
                break;
            }
        }
        if input.pos() < payload.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        let len = output.pos();
        Ok(Bytes::copy_from_slice(self.scratch.get(..len).unwrap_or_default()))
    }
}

fn new_decoder() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    // What a peer may make this end allocate: a larger window is refused.
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unpack(line: &[u8], cut: usize) -> Vec<Block> {
        let mut unpacker = Unpacker::default();
        let mut blocks = Vec::new();
        for piece in line.chunks(cut) {
            unpacker.push(piece);
            while let Some(block) = unpacker.next_block().unwrap() {
                blocks.push(block);
            }
        }
        blocks
    }

    fn plain(blocks: &[Block]) -> Vec<u8> {
        blocks.iter().flat_map(|block| block.plain.to_vec()).collect()
    }

    fn text(len: usize) -> Vec<u8> {
        let lines =
            (0..).map(|i| format!("2026-01-31T12:00:{:02}Z INFO request {i} served\n", i % 60));
        lines.flat_map(String::into_bytes).take(len).collect()
    }

    fn noise(len: usize) -> Vec<u8> {
        let step =
            |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let states = std::iter::successors(Some(7u64), step);
        states.map(|state| (state >> 56) as u8).take(len).collect()
    }

    fn pack(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut packer, mut line) = (Packer::new(&Budget::new(1)), Vec::new());
        pieces.iter().for_each(|piece| packer.push(piece, &mut line));
        line
    }

    #[test]
    fn log_text_shrinks_to_a_fraction_and_noise_hardly_grows() {
        let (log, noise) = (text(1 << 20), noise(1 << 20));
        let packed = pack(&log.chunks(4096).collect::<Vec<_>>());
        assert!(packed.len() * 5 < log.len(), "{}", packed.len());
        assert_eq!(plain(&unpack(&packed, 1000)), log);
        let packed = pack(&noise.chunks(4096).collect::<Vec<_>>());
        assert!(packed.len() < noise.len() + noise.len() / 500, "{}", packed.len());
        assert_eq!(plain(&unpack(&packed, 1000)), noise);
    }

    #[test]
    fn what_is_passed_can_stand_between_what_is_packed() {
        let (log, mut packer, mut line) = (text(200_000), Packer::new(&Budget::new(1)), Vec::new());
        for (i, piece) in log.chunks(3000).enumerate() {
            if i % 3 == 2 {
                packer.pass(piece, &mut line);
            } else {
                packer.push(piece, &mut line);
            }
        }
        let blocks = unpack(&line, 777);
        assert_eq!(plain(&blocks), log);
        assert!(blocks.chunks(3).all(|three| three.len() < 3 || three[2].fresh));
        assert!(line.len() < log.len() * 3 / 4, "{}", line.len());
    }

    #[test]
    fn every_segment_can_be_read_by_who_has_forgotten_all_before_and_none_is_long() {
        let (log, noise) = (text(300_000), noise(100_000));
        let pieces: Vec<&[u8]> =
            log.chunks(700).chain(noise.chunks(5000)).chain(log.chunks(16_000)).collect();
        let line = pack(&pieces);
        let blocks = unpack(&line, 4096);
        let (mut at, mut segments, mut in_segment) = (0, 0, 0);
        for (i, block) in blocks.iter().enumerate() {
            in_segment = if block.fresh { 0 } else { in_segment } + block.plain.len();
            assert!(in_segment <= SEGMENT, "a segment of {in_segment}");
            if block.fresh {
                segments += 1;
                assert_eq!(plain(&unpack(&line[at..], 4096)), plain(&blocks[i..]));
            }
            at += block.taken;
        }
        assert_eq!(at, line.len());
        assert!(segments > 10, "{segments}");
    }

    #[test]
    fn no_more_packers_than_the_budget_allows_compress_and_a_dropped_one_makes_room() {
        let budget = Budget::new(1);
        let mut packers = [Packer::new(&budget), Packer::new(&budget)];
        let mut lines = [Vec::new(), Vec::new()];
        let log = text(100_000);
        for (packer, line) in packers.iter_mut().zip(&mut lines) {
            log.chunks(4096).for_each(|piece| packer.push(piece, line));
            assert_eq!(plain(&unpack(line, 999)), log);
        }
        assert!(lines[0].len() * 5 < log.len() && lines[1].len() > log.len());
        drop(packers);
        let mut line = Vec::new();
        let mut packer = Packer::new(&budget);
        log.chunks(4096).for_each(|piece| packer.push(piece, &mut line));
        assert!(line.len() * 5 < log.len());
    }

    #[test]
    fn a_bomb_and_a_block_out_of_nowhere_are_refused() {
        let zeros = vec![0; 10 << 20];
        let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
        assert!(bomb.len() < MAX_PAYLOAD);
        let refused = |kind: u8, payload: &[u8]| {
            let mut line = Vec::new();
            put(kind, payload, &mut line);
            let mut unpacker = Unpacker::default();
            unpacker.push(&line);
            unpacker.next_block().unwrap_err()
        };
        // Too much plain text, or a window beyond the limit: either way nothing of it is kept.
        assert!(matches!(refused(3, &bomb), PackError::Plain | PackError::Zstd(_)));
        assert!(matches!(refused(1, b"x"), PackError::Segment));
        assert!(matches!(refused(4, b"x"), PackError::Kind(4)));
        assert!(matches!(refused(3, b"this is not zstd"), PackError::Zstd(_)));
        assert!(matches!(refused(2, &zeros[..=MAX_PLAIN]), PackError::Plain));
        let mut unpacker = Unpacker::default();
        unpacker.push(&[2, 0xbf, 0xff, 0xff, 0xff]);
        assert!(matches!(unpacker.next_block(), Err(PackError::Length(_))));
    }

    proptest! {
        #[test]
        fn pushes_survive_any_cutting(
            pieces in prop::collection::vec(
                (any::<u8>(), 0usize..6000, any::<bool>()), 0..60),
            cut in 1usize..5000,
        ) {
            let (log, noise) = (text(6000), noise(6000));
            let pieces: Vec<&[u8]> = pieces.iter().map(|(_, len, is_text)| {
                if *is_text { &log[..*len] } else { &noise[..*len] }
            }).collect();
            let line = pack(&pieces);
            let sent: Vec<u8> = pieces.concat();
            let blocks = unpack(&line, cut);
            prop_assert_eq!(plain(&blocks), sent);
            prop_assert_eq!(blocks.iter().map(|block| block.taken).sum::<usize>(), line.len());
        }

        #[test]
        fn any_bytes_are_blocks_or_an_error(line in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut unpacker = Unpacker::default();
            unpacker.push(&line);
            while let Ok(Some(block)) = unpacker.next_block() {
                prop_assert!(block.plain.len() <= MAX_PLAIN);
            }
        }
    }
}
