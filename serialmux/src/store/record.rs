//! Records of a journal, as bytes on disk.
//!
//! ```text
//! +-----------+-----------------+------+------------------------+
//! | length u32| CRC-32C u32     | kind | fields                 |
//! +-----------+-----------------+------+------------------------+
//!               covers kind and fields; little-endian throughout
//! ```
//!
//! A journal starts with [`MAGIC`]. A record that is cut short or does not check ends it: what
//! follows was never durable.

use bytes::{Buf, Bytes};
use wire::STATE_LEN;
use wire::chunk::{Gap, MAX_CHUNK, Stream};

/// First bytes of every journal; the digit is the format's version.
pub const MAGIC: &[u8; 8] = b"cvmlog3\n";
const HEAD: usize = 8;
const MAX_BODY: usize = MAX_CHUNK + 96;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An output channel of this boot begins.
    Begin {
        /// Names the boot.
        boot: [u8; 16],
        /// The channel's id within the boot.
        channel: u32,
    },
    /// Output.
    Output {
        /// The channel it came over.
        channel: u32,
        /// Where the guest goes on after a restart, if this is the last record.
        place: Place,
        /// Stdout or stderr.
        stream: Stream,
        /// When the guest read it, µs since the Unix epoch.
        time_us: u64,
        /// The output itself.
        bytes: Bytes,
    },
    /// The channel ended: nothing of its output is missing, but for the gaps that are told.
    End {
        /// The channel.
        channel: u32,
        /// The offset of its end.
        length: u64,
        /// The [digest](wire::Digest) of all of it.
        digest: [u8; STATE_LEN],
    },
    /// Output that the guest had to drop.
    Gap {
        /// The channel it did not come over.
        channel: u32,
        /// As with output.
        place: Place,
        /// What is missing.
        gap: Gap,
    },
    /// The guest turned out to be another than the one whose output this is: it was put back to a snapshot.
    /// Its output goes on over another channel, from where it was then.
    Rollback {
        /// The channel on which that showed.
        channel: u32,
        /// When, µs since the Unix epoch.
        time_us: u64,
    },
}

/// A place in a channel: what of it is in the journal, up to here.
///
/// A packed stream can be read on only from a segment's start, so that is where the guest is asked to
/// go on; what follows there and is in the journal already is passed over. Digest and sum tell whether it
/// is the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Offset in the channel of the last segment's start.
    pub segment: u64,
    /// Time of the last entry before it, µs since the Unix epoch: entries tell theirs by the difference.
    pub before_us: u64,
    /// State of the [digest](wire::Digest) of everything before it.
    pub digest: [u8; STATE_LEN],
    /// How many bytes of entries, unpacked, the journal has from there on.
    pub stored: u32,
    /// CRC-32C of those.
    pub sum: u32,
}

impl Place {
    fn put(self, out: &mut Vec<u8>) {
        out.extend(self.segment.to_le_bytes());
        out.extend(self.before_us.to_le_bytes());
        out.extend(self.digest);
        out.extend(self.stored.to_le_bytes());
        out.extend(self.sum.to_le_bytes());
    }

    fn take(body: &mut Bytes) -> Option<Self> {
        Some(Self {
            segment: body.try_get_u64_le().ok()?,
            before_us: body.try_get_u64_le().ok()?,
            digest: state(body)?,
            stored: body.try_get_u32_le().ok()?,
            sum: body.try_get_u32_le().ok()?,
        })
    }
}

fn state(body: &mut Bytes) -> Option<[u8; STATE_LEN]> {
    let mut state = [0; STATE_LEN];
    body.try_copy_to_slice(&mut state).ok().map(|()| state)
}

/// Appends `record`.
pub fn put(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; HEAD]);
    match record {
        Record::Begin { boot, channel } => {
            out.push(1);
            out.extend(boot);
            out.extend(channel.to_le_bytes());
        }
        Record::Output { channel, place, stream, time_us, bytes } => {
            out.push(2);
            out.extend(channel.to_le_bytes());
            place.put(out);
            out.push(*stream as u8);
            out.extend(time_us.to_le_bytes());
            out.extend(bytes.as_ref());
        }
        Record::End { channel, length, digest } => {
            out.push(3);
            out.extend(channel.to_le_bytes());
            out.extend(length.to_le_bytes());
            out.extend(digest);
        }
        Record::Gap { channel, place, gap } => {
            out.push(4);
            out.extend(channel.to_le_bytes());
            place.put(out);
            for n in [gap.bytes, gap.lines, gap.first_us, gap.last_us] {
                out.extend(n.to_le_bytes());
            }
        }
        Record::Rollback { channel, time_us } => {
            out.push(5);
            out.extend(channel.to_le_bytes());
            out.extend(time_us.to_le_bytes());
        }
    }
    let (len, crc) = match out.get(start + HEAD..) {
        Some(body) => (body.len() as u32, crc32c::crc32c(body)),
        None => (0, 0),
    };
    if let Some(head) = out.get_mut(start..start + HEAD) {
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What [`take`] found at the front of its input.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// A record, which took so many bytes.
    Record(Record, usize),
    /// The start of a record; more bytes are needed.
    More,
    /// Not a record.
    Damage,
}

/// Reads the record at the front of `input`.
pub fn take(input: &Bytes) -> Taken {
    let Some((len, crc)) = head(input) else { return Taken::More };
    if len == 0 || len > MAX_BODY {
        return Taken::Damage;
    }
    if input.len() < HEAD + len {
        return Taken::More;
    }
    let body = input.slice(HEAD..HEAD + len);
    if crc32c::crc32c(&body) != crc {
        return Taken::Damage;
    }
    parse(body).map_or(Taken::Damage, |record| Taken::Record(record, HEAD + len))
}

fn head(input: &[u8]) -> Option<(usize, u32)> {
    let (len, rest) = input.split_first_chunk::<4>()?;
    let crc = rest.first_chunk::<4>()?;
    Some((u32::from_le_bytes(*len) as usize, u32::from_le_bytes(*crc)))
}

fn parse(mut body: Bytes) -> Option<Record> {
    match body.try_get_u8().ok()? {
        1 => {
            let mut boot = [0; 16];
            body.try_copy_to_slice(&mut boot).ok()?;
            Some(Record::Begin { boot, channel: body.try_get_u32_le().ok()? })
        }
        2 => Some(Record::Output {
            channel: body.try_get_u32_le().ok()?,
            place: Place::take(&mut body)?,
            stream: match body.try_get_u8().ok()? {
                1 => Stream::Stdout,
                2 => Stream::Stderr,
                _ => return None,
            },
            time_us: body.try_get_u64_le().ok()?,
            bytes: body,
        }),
        3 => Some(Record::End {
            channel: body.try_get_u32_le().ok()?,
            length: body.try_get_u64_le().ok()?,
            digest: state(&mut body)?,
        }),
        4 => Some(Record::Gap {
            channel: body.try_get_u32_le().ok()?,
            place: Place::take(&mut body)?,
            gap: Gap {
                bytes: body.try_get_u64_le().ok()?,
                lines: body.try_get_u64_le().ok()?,
                first_us: body.try_get_u64_le().ok()?,
                last_us: body.try_get_u64_le().ok()?,
            },
        }),
        5 => Some(Record::Rollback {
            channel: body.try_get_u32_le().ok()?,
            time_us: body.try_get_u64_le().ok()?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes: &'static [u8]) -> Record {
        let bytes = Bytes::from_static(bytes);
        let place = Place { segment: 1 << 40, before_us: 8, digest: [6; 16], stored: 1000, sum: 5 };
        Record::Output { channel: 3, place, stream: Stream::Stderr, time_us: 9, bytes }
    }

    #[test]
    fn records_survive_and_cut_or_damaged_ones_are_told_apart() {
        for record in [
            Record::Begin { boot: [7; 16], channel: 1 },
            output(b"text"),
            Record::End { channel: 2, length: 7, digest: [1; 16] },
            Record::Rollback { channel: 2, time_us: 8 },
            Record::Gap {
                channel: 1,
                place: Place::default(),
                gap: Gap { bytes: 1 << 40, lines: 3, first_us: 4, last_us: 5 },
            },
        ] {
            let mut out = Vec::new();
            put(&record, &mut out);
            let n = out.len();
            let whole = Bytes::from(out);
            assert_eq!(take(&whole), Taken::Record(record, n));
            for cut in 0..n {
                assert_eq!(take(&whole.slice(..cut)), Taken::More);
            }
            for bit in HEAD * 8..n * 8 {
                let mut bad = whole.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(take(&bad.into()), Taken::Damage);
            }
        }
    }
}
