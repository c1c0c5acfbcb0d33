//! What the inside of a packet is made of: records, one after the other, to the packet's end.
//!
//! | type | record | body | ack-eliciting |
//! |---|---|---|---|
//! | 00 | PAD | – | no |
//! | 01 | PING | – | yes |
//! | 02 | ACK | largest, delay µs, count−1, first length, (gap, length)… | no |
//! | 03 | OPEN | channel, flags, class, next, limit, label length, label | yes |
//! | 04 | ACCEPT | channel, next, released, limit | yes |
//! | 05 | RELEASE | channel, released, limit | yes |
//! | 06 | RESET | channel, code | yes |
//! | 07 | ROSTER | number of channels carried over | yes |
//! | 08 | CLOSE | code, text length, text | no |
//! | 10/11 | DATA (11: ends the stream) | channel, offset, length, bytes | yes |
//! | 40 | DIGEST | length, channel, offset, 1 if that is the end, 16 bytes | yes |
//! | 41 | USED | length, lowest id never used | yes |
//! | 40–7F | optional | length, skipped by who does not know it | yes |
//!
//! Numbers are [varints](crate::varint).

use crate::channel::{ChannelId, Class, Direction};
use crate::digest::STATE_LEN;
use crate::varint;
use thiserror::Error;

/// Most ranges one ACK carries.
pub const MAX_ACK_RANGES: usize = 16;
/// Longest channel label, bytes.
pub const MAX_LABEL: usize = 256;
/// Longest CLOSE text, bytes.
pub const MAX_TEXT: usize = 200;

/// One record, borrowing its bytes from the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// Asks for an acknowledgement and nothing else.
    Ping,
    /// Which packets arrived.
    Ack(Ack),
    /// The guest's word on one of its channels: new, or carried over from an earlier session.
    Open {
        /// Which channel.
        channel: ChannelId,
        /// Who sends on it.
        direction: Direction,
        /// Whether it was opened in this session (else carried over and counted in ROSTER).
        fresh: bool,
        /// Its priority.
        class: Class,
        /// Guest sends: lowest offset it still holds. Mux sends: next offset the guest expects.
        next: u64,
        /// Guest sends: offsets below this were written so far. Mux sends: credit, absolute.
        limit: u64,
        /// What it is, in the application's words.
        label: &'a [u8],
    },
    /// The mux's answer to an OPEN of a channel on which the guest sends.
    Accept {
        /// Which channel.
        channel: ChannelId,
        /// Next offset wanted.
        next: u64,
        /// Everything below is durable.
        released: u64,
        /// Credit: offsets below this may be sent.
        limit: u64,
    },
    /// Bytes the receiver is done with, and the credit that follows.
    Release {
        /// Which channel.
        channel: ChannelId,
        /// Everything below is durable (final length + 1: the end is, too).
        released: u64,
        /// Credit: offsets below this may be sent.
        limit: u64,
    },
    /// The channel is gone at the sender of this record.
    Reset {
        /// Which channel.
        channel: ChannelId,
        /// Why; see [`ResetCode`].
        code: u64,
    },
    /// How many channels the guest carries over into this session.
    Roster {
        /// Number of channels told by an OPEN that is not fresh, or by a RESET of code 4 instead.
        carried: u64,
    },
    /// What the first bytes of a channel were, as its receiver has them: its sender compares. Only
    /// where [`REWIND`](crate::config::REWIND) was agreed on.
    Digest {
        /// Which channel.
        channel: ChannelId,
        /// How many bytes.
        offset: u64,
        /// Whether the stream ended after them.
        ended: bool,
        /// Their digest's state.
        state: [u8; STATE_LEN],
    },
    /// The mux's word on channel ids: what it has seen of this boot. In each of its packets until one
    /// is acknowledged, and only where [`REWIND`](crate::config::REWIND) was agreed on.
    Used {
        /// Ids below this one may have been used; what is not is free.
        below: u64,
    },
    /// The session ends.
    Close {
        /// Why, for machines.
        code: u64,
        /// Why, for people.
        text: &'a str,
    },
    /// Bytes of a channel.
    Data {
        /// Which channel.
        channel: ChannelId,
        /// Offset of the first byte.
        offset: u64,
        /// Whether the stream ends after these bytes.
        fin: bool,
        /// The bytes.
        bytes: &'a [u8],
    },
}

/// Packet numbers that arrived, newest range first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ack {
    /// Time between the arrival of the largest and this record, µs.
    pub delay_us: u64,
    /// Inclusive `(low, high)`, descending, disjoint, not adjacent.
    pub ranges: Vec<(u64, u64)>,
}

/// Why a channel was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetCode {
    /// The receiver does not know the channel (any more).
    Unknown = 1,
    /// The owner gave it up.
    Abandoned = 2,
    /// The receiver refuses it.
    Refused = 3,
    /// The guest dropped a channel it carried over before the mux was known to have heard of it:
    /// counts in place of its OPEN.
    Carried = 4,
    /// The two ends do not have the same channel: the memory of one went back in time.
    RolledBack = 5,
    /// Both of the last two.
    CarriedRolledBack = 6,
}

/// Why bytes under a good seal are still not records: a defect of the peer. Class: close the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Cut short.
    #[error("record {0:#04x} is cut short")]
    Short(u8),
    /// Not one of ours and not skippable.
    #[error("unknown record type {0:#04x}")]
    Unknown(u8),
    /// A field out of its bounds.
    #[error("record {0:#04x}: {1}")]
    Field(u8, &'static str),
}

impl Record<'_> {
    /// Whether its arrival must be acknowledged.
    pub fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Ack(_) | Self::Close { .. })
    }
}

const DIGEST: u8 = 0x40;
const USED: u8 = 0x41;
const OPEN_TO_GUEST: u8 = 1;
const OPEN_FRESH: u8 = 2;

/// Appends `record`.
pub fn put(out: &mut Vec<u8>, record: &Record<'_>) {
    let numbers = |out: &mut Vec<u8>, kind: u8, list: &[u64]| {
        out.push(kind);
        list.iter().for_each(|n| varint::put(out, *n));
    };
    match record {
        Record::Ping => out.push(0x01),
        Record::Ack(ack) => put_ack(out, ack),
        Record::Open { channel, direction, fresh, class, next, limit, label } => {
            out.push(0x03);
            varint::put(out, channel.0.into());
            let to_guest = if *direction == Direction::ToGuest { OPEN_TO_GUEST } else { 0 };
            out.push(to_guest | if *fresh { OPEN_FRESH } else { 0 });
            out.push(*class as u8);
            varint::put(out, *next);
            varint::put(out, *limit);
            varint::put(out, label.len() as u64);
            out.extend_from_slice(label);
        }
        Record::Accept { channel, next, released, limit } => {
            numbers(out, 0x04, &[channel.0.into(), *next, *released, *limit]);
        }
        Record::Release { channel, released, limit } => {
            numbers(out, 0x05, &[channel.0.into(), *released, *limit]);
        }
        Record::Reset { channel, code } => numbers(out, 0x06, &[channel.0.into(), *code]),
        Record::Roster { carried } => numbers(out, 0x07, &[*carried]),
        Record::Digest { channel, offset, ended, state } => {
            let mut body = Vec::with_capacity(32);
            varint::put(&mut body, channel.0.into());
            varint::put(&mut body, *offset);
            body.push(u8::from(*ended));
            body.extend_from_slice(state);
            put_optional(out, DIGEST, &body);
        }
        Record::Used { below } => {
            let mut body = Vec::with_capacity(8);
            varint::put(&mut body, *below);
            put_optional(out, USED, &body);
        }
        Record::Close { code, text } => {
            numbers(out, 0x08, &[*code, text.len() as u64]);
            out.extend_from_slice(text.as_bytes());
        }
        Record::Data { channel, offset, fin, bytes } => {
            put_data(out, *channel, *offset, *fin, [bytes, &[]]);
        }
    }
}

fn put_optional(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    varint::put(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Appends a DATA record whose bytes lie in two pieces.
pub fn put_data(out: &mut Vec<u8>, channel: ChannelId, offset: u64, fin: bool, bytes: [&[u8]; 2]) {
    out.push(0x10 | u8::from(fin));
    varint::put(out, channel.0.into());
    varint::put(out, offset);
    varint::put(out, (bytes[0].len() + bytes[1].len()) as u64);
    bytes.into_iter().for_each(|piece| out.extend_from_slice(piece));
}

/// Bytes a DATA record needs besides its payload, at most.
pub fn data_overhead(channel: ChannelId, offset: u64, len: usize) -> usize {
    1 + varint::len(channel.0.into()) + varint::len(offset) + varint::len(len as u64)
}

fn put_ack(out: &mut Vec<u8>, ack: &Ack) {
    let mut ranges = ack.ranges.iter().take(MAX_ACK_RANGES);
    let Some((low, high)) = ranges.next() else { return };
    out.push(0x02);
    varint::put(out, *high);
    varint::put(out, ack.delay_us);
    varint::put(out, (ack.ranges.len().min(MAX_ACK_RANGES) - 1) as u64);
    varint::put(out, high - low);
    let mut floor = *low;
    for (low, high) in ranges {
        varint::put(out, floor - high);
        varint::put(out, high - low);
        floor = *low;
    }
}

/// The records of a packet, in order. Ends after the first error.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// The records in `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (kind, rest) = self.rest.split_first()?;
            self.rest = rest;
            let record = match kind {
                0x00 => continue,
                &(DIGEST | USED) => self.optional(*kind),
                0x40..=0x7f => match self.skip(*kind) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                kind => self.record(*kind),
            };
            if record.is_err() {
                self.rest = &[];
            }
            return Some(record);
        }
    }
}

impl<'a> Records<'a> {
    fn record(&mut self, kind: u8) -> Result<Record<'a>, RecordError> {
        Ok(match kind {
            0x01 => Record::Ping,
            0x02 => Record::Ack(self.ack()?),
            0x03 => self.open()?,
            0x04 => Record::Accept {
                channel: self.channel(kind)?,
                next: self.number(kind)?,
                released: self.number(kind)?,
                limit: self.number(kind)?,
            },
            0x05 => Record::Release {
                channel: self.channel(kind)?,
                released: self.number(kind)?,
                limit: self.number(kind)?,
            },
            0x06 => Record::Reset { channel: self.channel(kind)?, code: self.number(kind)? },
            0x07 => Record::Roster { carried: self.number(kind)? },
            0x08 => {
                let code = self.number(kind)?;
                let text = self.bytes(kind, MAX_TEXT)?;
                let text = str::from_utf8(text)
                    .map_err(|_| RecordError::Field(kind, "text is not UTF-8"))?;
                Record::Close { code, text }
            }
            0x10 | 0x11 => {
                let channel = self.channel(kind)?;
                let offset = self.number(kind)?;
                let bytes = self.bytes(kind, usize::MAX)?;
                if offset.saturating_add(bytes.len() as u64) >= varint::MAX {
                    return Err(RecordError::Field(kind, "offset beyond 2^62"));
                }
                Record::Data { channel, offset, fin: kind & 1 == 1, bytes }
            }
            other => return Err(RecordError::Unknown(other)),
        })
    }

    fn ack(&mut self) -> Result<Ack, RecordError> {
        const KIND: u8 = 0x02;
        let underflow = RecordError::Field(KIND, "range below packet 0");
        let high = self.number(KIND)?;
        let delay_us = self.number(KIND)?;
        let more = self.number(KIND)?;
        if more >= MAX_ACK_RANGES as u64 {
            return Err(RecordError::Field(KIND, "more than 16 ranges"));
        }
        let mut low = high.checked_sub(self.number(KIND)?).ok_or(underflow)?;
        let mut ranges = vec![(low, high)];
        for _ in 0..more {
            let gap = self.number(KIND)?;
            if gap < 2 {
                return Err(RecordError::Field(KIND, "ranges touch"));
            }
            let high = low.checked_sub(gap).ok_or(underflow)?;
            low = high.checked_sub(self.number(KIND)?).ok_or(underflow)?;
            ranges.push((low, high));
        }
        Ok(Ack { delay_us, ranges })
    }

    fn open(&mut self) -> Result<Record<'a>, RecordError> {
        const KIND: u8 = 0x03;
        let channel = self.channel(KIND)?;
        let flags = self.byte(KIND)?;
        let class = Class::from_byte(self.byte(KIND)?)
            .ok_or(RecordError::Field(KIND, "class out of range"))?;
        let next = self.number(KIND)?;
        let limit = self.number(KIND)?;
        let label = self.bytes(KIND, MAX_LABEL)?;
        let direction =
            if flags & OPEN_TO_GUEST == 0 { Direction::ToMux } else { Direction::ToGuest };
        let fresh = flags & OPEN_FRESH != 0;
        Ok(Record::Open { channel, direction, fresh, class, next, limit, label })
    }

    // What a later version adds to its end is skipped.
    fn optional(&mut self, kind: u8) -> Result<Record<'a>, RecordError> {
        let mut body = Self { rest: self.bytes(kind, usize::MAX)? };
        if kind == USED {
            return Ok(Record::Used { below: body.number(kind)? });
        }
        let channel = body.channel(kind)?;
        let offset = body.number(kind)?;
        let ended = body.byte(kind)? & 1 == 1;
        let state = body.rest.first_chunk().ok_or(RecordError::Short(kind))?;
        Ok(Record::Digest { channel, offset, ended, state: *state })
    }

    fn skip(&mut self, kind: u8) -> Result<(), RecordError> {
        self.bytes(kind, usize::MAX).map(|_| ())
    }

    fn byte(&mut self, kind: u8) -> Result<u8, RecordError> {
        let (byte, rest) = self.rest.split_first().ok_or(RecordError::Short(kind))?;
        self.rest = rest;
        Ok(*byte)
    }

    fn number(&mut self, kind: u8) -> Result<u64, RecordError> {
        varint::take(&mut self.rest).ok_or(RecordError::Short(kind))
    }

    fn channel(&mut self, kind: u8) -> Result<ChannelId, RecordError> {
        let id = self.number(kind)?;
        u32::try_from(id)
            .map(ChannelId)
            .map_err(|_| RecordError::Field(kind, "channel id beyond 32 bits"))
    }

    fn bytes(&mut self, kind: u8, max: usize) -> Result<&'a [u8], RecordError> {
        let len = self.number(kind)?;
        let len = usize::try_from(len).map_err(|_| RecordError::Short(kind))?;
        if len > max {
            return Err(RecordError::Field(kind, "text or label too long"));
        }
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Short(kind))?;
        self.rest = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(record: &Record<'_>) {
        let mut out = Vec::new();
        put(&mut out, record);
        let back: Vec<_> = Records::new(&out).collect();
        assert_eq!(back, vec![Ok(record.clone())]);
    }

    #[test]
    fn every_record_survives_its_own_encoding() {
        let channel = ChannelId(70_000);
        let text = "gone";
        one(&Record::Ping);
        one(&Record::Ack(Ack { delay_us: 9, ranges: vec![(90, 99), (70, 88), (0, 0)] }));
        for direction in [Direction::ToMux, Direction::ToGuest] {
            let label = &[1, 2, 3][..];
            let (class, next, limit) = (Class::Log, 5, 1 << 40);
            one(&Record::Open { channel, direction, fresh: true, class, next, limit, label });
        }
        one(&Record::Accept { channel, next: 3, released: 2, limit: 9 });
        one(&Record::Release { channel, released: 2, limit: 9 });
        one(&Record::Reset { channel, code: 1 });
        one(&Record::Roster { carried: 2 });
        one(&Record::Digest { channel, offset: 1 << 33, ended: true, state: [7; STATE_LEN] });
        one(&Record::Used { below: 70_001 });
        one(&Record::Close { code: 2, text });
        one(&Record::Data { channel, offset: 1 << 33, fin: true, bytes: b"tail" });
    }

    #[test]
    fn optional_records_are_skipped_and_unknown_ones_refused() {
        let mut body = vec![0x51, 3, 9, 9, 9, 0x01];
        assert_eq!(Records::new(&body).collect::<Vec<_>>(), vec![Ok(Record::Ping)]);
        body.push(0x2f);
        assert_eq!(Records::new(&body).last(), Some(Err(RecordError::Unknown(0x2f))));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_records_or_one_error(body in prop::collection::vec(any::<u8>(), 0..400)) {
            let all: Vec<_> = Records::new(&body).collect();
            let errors = all.iter().filter(|r| r.is_err()).count();
            prop_assert!(errors == 0 || (errors == 1 && all.last().is_some_and(Result::is_err)));
        }
    }
}
