//! Packets on a byte line: COBS between zero bytes, found again after any garbage.
//!
//! On the line a packet is `COBS(packet) 00`. A zero byte occurs nowhere else, so whatever happened
//! before (firmware text, printk, half a frame), the byte after the next zero starts clean. Nothing
//! is allocated beyond the cap: a frame that grows past it is skipped to its end and counted.

/// Ends every frame, and occurs in none.
pub const DELIMITER: u8 = 0;

/// Longest COBS form of `packet_len` bytes (Cheshire & Baker 1999: one byte in 254, at least one).
pub const fn encoded_len(packet_len: usize) -> usize {
    packet_len + packet_len / 254 + 1
}

/// Appends the frame of `packet`, delimiter included.
pub fn encode(packet: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + encoded_len(packet.len()), 0);
    let used = out.get_mut(start..).map_or(0, |dest| cobs::encode(packet, dest));
    out.truncate(start + used);
    out.push(DELIMITER);
}

/// What stood between two delimiters.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Well-formed COBS; whether it is a packet is for the next layer to say.
    Packet {
        /// The decoded bytes.
        packet: &'a [u8],
        /// The bytes as they came, for a console recorder should they turn out to be text.
        raw: &'a [u8],
    },
    /// Not COBS: text or damage.
    Noise(&'a [u8]),
    /// More bytes than a frame may have; the count, without the delimiter. They were not kept.
    Overlong(usize),
}

/// Splits a byte stream at delimiters. Holds at most one partial frame.
#[derive(Debug)]
pub struct Deframer {
    partial: Vec<u8>,
    packet: Vec<u8>,
    raw: Vec<u8>,
    skipped: usize,
    cap: usize,
}

impl Deframer {
    /// A deframer for packets of up to `max_packet` bytes.
    pub fn new(max_packet: usize) -> Self {
        Self {
            partial: Vec::new(),
            packet: Vec::new(),
            raw: Vec::new(),
            skipped: 0,
            cap: encoded_len(max_packet),
        }
    }

    /// Bytes it holds.
    pub(crate) fn memory(&self) -> usize {
        self.partial.len() + self.packet.len() + self.raw.len()
    }

    /// Bytes of a frame whose end has not come.
    pub(crate) fn partial(&self) -> usize {
        self.skipped.saturating_add(self.partial.len())
    }

    /// Takes bytes off the front of `input` up to the end of the next frame.
    ///
    /// `None` when `input` is used up; call again with more. Empty frames are passed over, so a
    /// sender may put delimiters anywhere between frames.
    pub fn next<'a>(&'a mut self, input: &mut &[u8]) -> Option<Frame<'a>> {
        loop {
            let Some(end) = memchr::memchr(DELIMITER, input) else {
                self.keep(input);
                *input = &[];
                return None;
            };
            let (piece, rest) = input.split_at(end);
            *input = rest.get(1..).unwrap_or_default();
            self.keep(piece);
            if self.skipped > 0 {
                let n = self.skipped + self.partial.len();
                self.skipped = 0;
                self.partial.clear();
                return Some(Frame::Overlong(n));
            }
            if !self.partial.is_empty() {
                break;
            }
        }
        core::mem::swap(&mut self.partial, &mut self.raw);
        self.partial.clear();
        self.packet.resize(self.raw.len(), 0);
        match cobs::decode(&self.raw, &mut self.packet) {
            Ok(report) => Some(Frame::Packet {
                packet: self.packet.get(..report.frame_size()).unwrap_or_default(),
                raw: &self.raw,
            }),
            Err(_) => Some(Frame::Noise(&self.raw)),
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.skipped > 0 || self.partial.len() + piece.len() > self.cap {
            self.skipped = self.skipped.saturating_add(piece.len());
        } else {
            self.partial.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packets(deframer: &mut Deframer, mut input: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(frame) = deframer.next(&mut input) {
            if let Frame::Packet { packet, .. } = frame {
                found.push(packet.to_vec());
            }
        }
        found
    }

    #[test]
    fn a_frame_after_firmware_text_is_found() {
        let mut line = b"SeaBIOS (version 1.16)\r\nBooting".to_vec();
        line.push(0);
        encode(b"packet", &mut line);
        assert!(packets(&mut Deframer::new(64), &line).contains(&b"packet".to_vec()));
    }

    #[test]
    fn an_overlong_frame_is_counted_and_not_kept() {
        let mut deframer = Deframer::new(16);
        let mut line = vec![b'x'; 100_000];
        line.push(0);
        encode(b"next", &mut line);
        let mut input = &line[..];
        assert_eq!(deframer.next(&mut input), Some(Frame::Overlong(100_000)));
        assert!(matches!(deframer.next(&mut input), Some(Frame::Packet { packet: b"next", .. })));
        assert!(deframer.partial.capacity() < 1024);
    }

    proptest! {
        #[test]
        fn any_packets_survive_any_cutting(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 1..8),
            cut in 1usize..97,
        ) {
            let mut line = Vec::new();
            for packet in &sent {
                encode(packet, &mut line);
            }
            let mut deframer = Deframer::new(600);
            let found: Vec<_> =
                line.chunks(cut).flat_map(|chunk| packets(&mut deframer, chunk)).collect();
            prop_assert_eq!(found, sent);
        }

        #[test]
        fn garbage_costs_at_most_the_frame_it_touches(
            garbage in prop::collection::vec(any::<u8>(), 0..2000),
            packet in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let mut line = garbage;
            line.push(0);
            encode(&packet, &mut line);
            let found = packets(&mut Deframer::new(300), &line);
            prop_assert_eq!(found.last(), Some(&packet));
        }
    }
}
