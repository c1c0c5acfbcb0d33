//! One set of keys and its packet numbers: sealing, opening, and what arrived.

use crate::config::Transport;
use crate::digest::Digest;
use crate::packet::{CRC_LEN, HEADER_LEN, Header, Kind, PacketError, SEAL_LEN, expand_number};
use crate::ranges::RangeSet;
use crate::record::Ack;
use std::collections::VecDeque;

/// Ranges of received numbers remembered; older ones count as received.
const MAX_RANGES: usize = 32;
/// Packets that are known again when they come once more: three kilobytes of a line, at the least.
const MAX_MARKS: usize = 128;

/// What protects packets.
#[derive(Debug)]
pub(crate) enum Keys {
    /// Keys of a Noise handshake; each direction has its own.
    Sealed(Box<snow::StatelessTransportState>),
    /// A CRC-32C that also covers who sent the packet, so that a line that echoes is no peer, and
    /// the handshake, so that a straggler of another session with the same tag is none either.
    Plain {
        /// Whether this end is the mux.
        mux: bool,
        /// CRC-32C of both handshake messages.
        handshake: u32,
    },
}

impl Keys {
    pub(crate) fn sealed(noise: snow::StatelessTransportState) -> Self {
        Self::Sealed(Box::new(noise))
    }

    pub(crate) fn plain(mux: bool, hello: &[u8], reply: &[u8]) -> Self {
        Self::Plain { mux, handshake: crc32c::crc32c_append(crc32c::crc32c(hello), reply) }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Sealed(_) => Kind::Sealed,
            Self::Plain { .. } => Kind::Plain,
        }
    }
}

/// Who is at the other end, as the handshake proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// At the guest: this run of the mux. At the mux: this boot of the guest.
    pub id: [u8; 16],
    /// Protocol version agreed.
    pub proto: u32,
    /// Features agreed, as bits.
    pub features: u64,
    /// Name and version of the agent; empty at the guest.
    pub agent: String,
    /// Most record bytes the peer takes in one packet.
    pub max_packet: usize,
    /// The kind of pipe, as the guest says.
    pub transport: Transport,
    /// At the mux: the guest only makes itself known on this pipe. The session is not to be used.
    pub resting: bool,
}

/// One set of keys, from its handshake to the next.
#[derive(Debug)]
pub struct Session {
    keys: Keys,
    tag: u8,
    next_number: u64,
    arrived: Arrived,
    peer: Peer,
    digest: Digest,
}

/// A packet that opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) number: u64,
    mark: u32,
}

/// A packet that is not of this session or does not open. Class: drop, count, go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Of another session.
    #[error("packet of another session")]
    Stray,
    /// Seen before.
    #[error("packet number {0} was seen before")]
    Duplicate(u64),
    /// The seal or checksum does not fit.
    #[error("packet number {0} does not open")]
    Damaged(u64),
    /// A number that was used for another packet, or so long ago that no line repeats it: the sender's
    /// memory went back in time, and its keys are not to be used any more.
    #[error("packet number {0} was used before, for another packet")]
    Rewound(u64),
}

impl Session {
    pub(crate) fn new(keys: Keys, tag: u8, peer: Peer, digest: Digest) -> Self {
        Self { keys, tag, next_number: 0, arrived: Arrived::default(), peer, digest }
    }

    /// Of nothing, under the key of this container.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether both ends have these features.
    pub(crate) fn has(&self, features: u64) -> bool {
        self.peer.features & features == features
    }

    /// Bytes it holds besides itself.
    pub(crate) fn memory(&self) -> usize {
        self.arrived.marks.len() * size_of::<(u64, u32)>()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Seals `records` into a packet; returns its number, which is never used again.
    pub(crate) fn seal(&mut self, records: &[u8], packet: &mut Vec<u8>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let header = Header { kind: self.keys.kind(), tag: self.tag, number: number as u32 };
        packet.clear();
        packet.extend_from_slice(&header.to_bytes());
        match &self.keys {
            Keys::Sealed(noise) => {
                packet.resize(HEADER_LEN + records.len() + SEAL_LEN, 0);
                let sealed = packet
                    .get_mut(HEADER_LEN..)
                    .and_then(|dest| noise.write_message(number, records, dest).ok());
                // Fails only beyond 65,519 bytes, which no configuration reaches; an empty packet
                // is noise to the peer.
                packet.truncate(sealed.map_or(0, |n| HEADER_LEN + n));
            }
            Keys::Plain { mux, handshake } => {
                packet.extend_from_slice(records);
                let crc = plain_crc(*handshake, *mux, packet);
                packet.extend_from_slice(&crc.to_le_bytes());
            }
        }
        number
    }

    /// Opens a packet into `records`; returns its number. Does not yet count it as arrived.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(
        &self,
        header: Header,
        packet: &[u8],
        records: &mut Vec<u8>,
    ) -> Result<Opened, OpenError> {
        if header.kind != self.keys.kind() || header.tag != self.tag {
            return Err(OpenError::Stray);
        }
        let number = expand_number(header.number, self.arrived.next());
        let damaged = OpenError::Damaged(number);
        let body = packet.get(HEADER_LEN..).ok_or(damaged)?;
        match &self.keys {
            Keys::Sealed(noise) => {
                records.resize(body.len(), 0);
                let n = noise.read_message(number, body, records).map_err(|_| damaged)?;
                records.truncate(n);
            }
            Keys::Plain { mux, handshake } => {
                let body = plain_body(*handshake, !mux, packet).map_err(|_| damaged)?;
                records.clear();
                records.extend_from_slice(body);
            }
        }
        // The last bytes of the seal or the checksum: different wherever anything else is.
        let mark = packet.last_chunk().map_or(0, |mark| u32::from_le_bytes(*mark));
        self.arrived.check(number, mark)?;
        Ok(Opened { number, mark })
    }

    /// The newest ranges of what arrived, for the peer.
    pub(crate) fn ack(&self, delay_us: u64) -> Ack {
        self.arrived.ack(delay_us)
    }

    /// What arrived in this session.
    pub(crate) fn arrived(&mut self) -> &mut Arrived {
        &mut self.arrived
    }
}

fn plain_crc(handshake: u32, from_mux: bool, packet: &[u8]) -> u32 {
    let seeded = crc32c::crc32c_append(handshake, &[u8::from(from_mux)]);
    crc32c::crc32c_append(seeded, packet)
}

fn plain_body(handshake: u32, from_mux: bool, packet: &[u8]) -> Result<&[u8], PacketError> {
    let short = PacketError::Short(packet.len());
    let (covered, crc) = packet.split_last_chunk::<CRC_LEN>().ok_or(short)?;
    if plain_crc(handshake, from_mux, covered) != u32::from_le_bytes(*crc) {
        return Err(PacketError::Checksum);
    }
    covered.get(HEADER_LEN..).ok_or(short)
}

/// Numbers of packets that arrived.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    numbers: RangeSet,
    /// The last of them, each with its mark.
    marks: VecDeque<(u64, u32)>,
    /// Everything below counts as arrived.
    floor: u64,
    next: u64,
}

impl Arrived {
    fn next(&self) -> u64 {
        self.next
    }

    fn contains(&self, number: u64) -> bool {
        number < self.floor || self.numbers.contains(number)
    }

    // A line repeats what it has just carried, and no more than that.
    fn check(&self, number: u64, mark: u32) -> Result<(), OpenError> {
        if number >= self.next {
            Ok(())
        } else if !self.contains(number) {
            // The line is first-in first-out: this one was lost, and is told to be. Its records come again in
            // others; what they said then may be long undone, and taking them now would bring it back.
            Err(OpenError::Duplicate(number))
        } else if self.marks.contains(&(number, mark)) {
            Err(OpenError::Duplicate(number))
        } else {
            Err(OpenError::Rewound(number))
        }
    }

    /// Counts a packet as arrived; returns whether it came right after the one before.
    pub(crate) fn insert(&mut self, packet: Opened) -> bool {
        let Opened { number, mark } = packet;
        if self.marks.len() == MAX_MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((number, mark));
        let in_order = number == self.next;
        self.next = self.next.max(number + 1);
        self.numbers.insert(number..number + 1);
        if self.numbers.len() > MAX_RANGES
            && let Some(oldest) = self.numbers.pop_first()
        {
            self.floor = oldest.end;
        }
        in_order
    }

    fn ack(&self, delay_us: u64) -> Ack {
        let ranges = self.numbers.descending().take(crate::record::MAX_ACK_RANGES);
        Ack { delay_us, ranges: ranges.map(|r| (r.start, r.end - 1)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;
    use crate::psk::Psk;

    fn session(mux: bool, tag: u8) -> Session {
        let (id, agent) = ([1; 16], String::new());
        let (proto, features, max_packet) = (1, 0, 4096);
        let (transport, resting) = (Transport::Uart, false);
        let peer = Peer { id, proto, features, agent, max_packet, transport, resting };
        let keys = Keys::plain(mux, b"hello", b"reply");
        Session::new(keys, tag, peer, Psk::derive(b"key").digest())
    }

    #[test]
    fn a_packet_of_another_tag_is_a_stray_even_where_its_checksum_fits() {
        let (mut sender, mut packet, mut records) = (session(true, 7), Vec::new(), Vec::new());
        sender.seal(b"\x01", &mut packet);
        let (header, _) = Header::parse(&packet).unwrap();
        assert!(session(false, 7).open(header, &packet, &mut records).is_ok());
        assert_eq!(session(false, 8).open(header, &packet, &mut records), Err(OpenError::Stray));
        assert_eq!(
            session(true, 7).open(header, &packet, &mut records),
            Err(OpenError::Damaged(0)),
            "one's own echo is no peer"
        );
    }
}
