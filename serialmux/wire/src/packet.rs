//! The clear header of a packet, and packets that are clear altogether.
//!
//! ```text
//!  0        1        2                 6
//! +--------+--------+-----------------+---------------------------+----------------+
//! | v | kd | tag    | number (LE u32) | body                      | tag 16 / CRC 4 |
//! +--------+--------+-----------------+---------------------------+----------------+
//! ```
//!
//! `v` (3 bits) is the framing version, 1. `kd` (5 bits) is the [`Kind`]. `tag` names the session,
//! so that a straggler of an older one is dropped without any arithmetic. `number` is the low half
//! of the packet number. SEALED bodies end in a Poly1305 tag; all others in a CRC-32C of everything
//! before it, so that line noise never reaches the handshake.

use thiserror::Error;

/// Framing version in the top three bits of byte 0.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER_LEN: usize = 6;
/// Bytes of a Poly1305 tag.
pub const SEAL_LEN: usize = 16;
/// Bytes of a CRC-32C.
pub const CRC_LEN: usize = 4;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Guest to mux: "I am here and have no session", with the id of its key.
    Beacon = 1,
    /// Mux to guest: first handshake message.
    Hello = 2,
    /// Guest to mux: second handshake message.
    HelloReply = 3,
    /// Guest to mux: the hello cannot be answered, and why. Not authenticated: for people only.
    Reject = 4,
    /// Records under the session's keys.
    Sealed = 5,
    /// Records under a checksum; only where both ends were told so.
    Plain = 6,
    /// Mux to guest: "send a beacon".
    Solicit = 7,
}

impl Kind {
    fn from_bits(bits: u8) -> Option<Self> {
        [
            Self::Beacon,
            Self::Hello,
            Self::HelloReply,
            Self::Reject,
            Self::Sealed,
            Self::Plain,
            Self::Solicit,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == bits)
    }
}

/// The clear part of every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the packet is for.
    pub kind: Kind,
    /// Low byte of the session's name, picked by the mux.
    pub tag: u8,
    /// Low 32 bits of the packet number.
    pub number: u32,
}

/// Why bytes are not a packet. Class: drop, count, go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// Too short for its kind.
    #[error("packet of {0} bytes is shorter than its header and checksum")]
    Short(usize),
    /// A framing version this build does not speak.
    #[error("framing version {0}, expected {VERSION}")]
    Version(u8),
    /// A kind this build does not know.
    #[error("unknown packet kind {0}")]
    Kind(u8),
    /// The checksum does not fit.
    #[error("checksum mismatch")]
    Checksum,
}

impl Header {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.number.to_le_bytes();
        [(VERSION << 5) | self.kind as u8, self.tag, a, b, c, d]
    }

    /// Splits a packet into header and the rest.
    ///
    /// # Errors
    /// [`PacketError`] when it is not one of ours.
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), PacketError> {
        let Some(([first, tag, a, b, c, d], body)) = packet.split_first_chunk::<HEADER_LEN>()
        else {
            return Err(PacketError::Short(packet.len()));
        };
        let version = first >> 5;
        if version != VERSION {
            return Err(PacketError::Version(version));
        }
        let kind = Kind::from_bits(first & 0x1f).ok_or(PacketError::Kind(first & 0x1f))?;
        Ok((Self { kind, tag: *tag, number: u32::from_le_bytes([*a, *b, *c, *d]) }, body))
    }
}

/// A clear packet: header, body, CRC-32C.
pub fn clear(header: Header, body: &[u8]) -> Vec<u8> {
    let mut packet = header.to_bytes().to_vec();
    packet.extend_from_slice(body);
    let crc = crc32c::crc32c(&packet);
    packet.extend_from_slice(&crc.to_le_bytes());
    packet
}

/// The body of a clear packet, its checksum verified.
///
/// # Errors
/// [`PacketError::Checksum`] or [`PacketError::Short`].
pub fn clear_body(packet: &[u8]) -> Result<&[u8], PacketError> {
    let (covered, crc) =
        packet.split_last_chunk::<CRC_LEN>().ok_or(PacketError::Short(packet.len()))?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(PacketError::Checksum);
    }
    covered.get(HEADER_LEN..).ok_or(PacketError::Short(packet.len()))
}

/// The 64-bit packet number nearest to `expected` whose low half is `low` (RFC 9000 appendix A.3).
pub fn expand_number(low: u32, expected: u64) -> u64 {
    const SPAN: u64 = 1 << 32;
    let candidate = (expected & !(SPAN - 1)) | u64::from(low);
    if candidate + SPAN / 2 <= expected && candidate < u64::MAX - SPAN {
        candidate + SPAN
    } else if candidate > expected + SPAN / 2 && candidate >= SPAN {
        candidate - SPAN
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_in_a_clear_packet_is_seen() {
        let header = Header { kind: Kind::Beacon, tag: 0, number: 7 };
        let packet = clear(header, b"body");
        assert_eq!(clear_body(&packet), Ok(&b"body"[..]));
        for bit in 0..packet.len() * 8 {
            let mut bad = packet.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(clear_body(&bad), Err(PacketError::Checksum));
        }
    }

    #[test]
    fn numbers_are_rebuilt_across_the_wrap() {
        let check = |low, expected, want| assert_eq!(expand_number(low, expected), want);
        check(5, 4, 5);
        check(0, 0xffff_ffff, 1 << 32);
        check(0xffff_fffe, 1 << 32, 0xffff_fffe);
        check(3, (7 << 32) + 10, (7 << 32) + 3);
    }
}
