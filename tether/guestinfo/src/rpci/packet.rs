//! RPCI requests as packets on a byte stream, the form that VMware's hypervisor takes over vsock.
//!
//! ```text
//! length (4) │ 1 │ 1 │ type, low half │ high half │ 2 │ 2 │ length │ the request or reply
//!             └ number, field 1: 1 = data        └ text, field 2: the payload
//! ```
//! All numbers are 32 bits, big-endian; a packet's length counts what follows it. Fields come in
//! any order; unknown ones of the two known kinds are skipped.

use std::io::{self, Read, Write};

use super::{Requests, RpciError, name_of, payload};
use crate::backdoor::MAX_MESSAGE;

const NUMBER: u32 = 1;
const TEXT: u32 = 2;
const FIELD_TYPE: u32 = 1;
const FIELD_PAYLOAD: u32 = 2;
const TYPE_DATA: u32 = 1;

/// What a packet needs beyond its payload, with room for fields to come.
const MAX_OVERHEAD: usize = 4096;

/// Why a request got no reply over a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The stream failed or ended.
    #[error("the connection to the hypervisor failed: {0}")]
    Io(String),
    /// A packet longer than any that makes sense.
    #[error("a packet of {size} bytes; expected at most {}", MAX_MESSAGE + MAX_OVERHEAD)]
    TooLong {
        /// Its length.
        size: usize,
    },
    /// A packet that is cut short, of a kind of field that is not known, or without a payload.
    #[error("a packet that makes no sense; expected numbers and texts, field 2 a text")]
    Garbage,
}

impl From<io::Error> for PacketError {
    fn from(error: io::Error) -> Self {
        // A socket says so when its time limit has passed.
        if error.kind() == io::ErrorKind::WouldBlock {
            return Self::Io("it did not reply in time".to_owned());
        }
        Self::Io(error.to_string())
    }
}

/// Requests and replies on a stream, one after the other. After a failure of the stream it is of no
/// more use.
#[derive(Debug)]
pub struct Packets<S> {
    stream: S,
}

impl<S: Read + Write> Packets<S> {
    /// Packets on `stream`, which should have time limits: a host that is silent is waited for.
    pub const fn new(stream: S) -> Self {
        Self { stream }
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, PacketError> {
        self.stream.write_all(&encode(request)?)?;
        self.stream.flush()?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = u32::from_be_bytes(size) as usize;
        if size > MAX_MESSAGE + MAX_OVERHEAD {
            return Err(PacketError::TooLong { size });
        }
        let mut packet = vec![0; size];
        self.stream.read_exact(&mut packet)?;
        decode(&packet).map(<[u8]>::to_vec).ok_or(PacketError::Garbage)
    }
}

impl<S: Read + Write> Requests for Packets<S> {
    fn request(&mut self, request: &[u8]) -> Result<Vec<u8>, RpciError> {
        let reply = self.exchange(request);
        let reply =
            reply.map_err(|source| RpciError::Packet { request: name_of(request), source })?;
        payload(request, &reply)
    }
}

fn encode(request: &[u8]) -> Result<Vec<u8>, PacketError> {
    let too_long = |_| PacketError::TooLong { size: request.len() };
    let size = u32::try_from(request.len()).map_err(too_long)?;
    if request.len() > MAX_MESSAGE {
        return Err(PacketError::TooLong { size: request.len() });
    }
    let head = [NUMBER, FIELD_TYPE, TYPE_DATA, 0, TEXT, FIELD_PAYLOAD, size];
    let length = size + u32::try_from(size_of_val(&head)).map_err(too_long)?;
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend(head.iter().flat_map(|number| number.to_be_bytes()));
    packet.extend_from_slice(request);
    Ok(packet)
}

/// The payload of a packet, which is given without its length.
fn decode(packet: &[u8]) -> Option<&[u8]> {
    let mut rest = packet;
    let mut payload = None;
    while !rest.is_empty() {
        let (kind, field) = (number(&mut rest)?, number(&mut rest)?);
        match kind {
            NUMBER => {
                number(&mut rest)?;
                number(&mut rest)?;
            }
            TEXT => {
                let size = number(&mut rest)? as usize;
                let (text, after) = rest.split_at_checked(size)?;
                rest = after;
                if field == FIELD_PAYLOAD {
                    payload = Some(text);
                }
            }
            _ => return None,
        }
    }
    payload
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;
    use crate::rpci::info_get;

    /// "1 x" as VMware's hypervisor sends it, byte by byte.
    const REPLY: &[u8] =
        b"\0\0\0\x1F\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0\x031 x";

    /// What one request gives when the host sends `reply` and hangs up, and what the host was sent.
    fn exchange(reply: &[u8]) -> (Result<Option<Vec<u8>>, RpciError>, Vec<u8>) {
        let (guest, mut host) = UnixStream::pair().unwrap();
        host.write_all(reply).unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let outcome = info_get(&mut Packets::new(guest), "guestinfo.a");
        let mut sent = Vec::new();
        host.read_to_end(&mut sent).unwrap();
        (outcome, sent)
    }

    #[test]
    fn a_request_and_its_reply_have_the_bytes_of_the_protocol() {
        let (outcome, sent) = exchange(REPLY);
        assert_eq!(outcome, Ok(Some(b"x".to_vec())));
        let head =
            b"\0\0\0\x30\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0\x14";
        assert_eq!(sent, [head.as_slice(), b"info-get guestinfo.a"].concat());
    }

    #[track_caller]
    fn check(reply: &[u8], expected: &str) {
        let error = exchange(reply).0.expect_err("should fail").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn replies_that_make_no_sense_are_told() {
        check(b"", "connection to the hypervisor failed");
        check(&REPLY[..20], "connection to the hypervisor failed");
        check(b"\xFF\xFF\xFF\xFF", "a packet of 4294967295 bytes; expected at most 1052672");
        check(b"\0\0\0\0", "makes no sense");
        check(b"\0\0\0\x08\0\0\0\x02\0\0\0\x02", "makes no sense");
        check(b"\0\0\0\x08\0\0\0\x09\0\0\0\x02", "makes no sense");
        check(b"\0\0\0\x0E\0\0\0\x02\0\0\0\x02\0\0\0\x022x", "replied \"2x\"");
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let packet = b"\0\0\0\x02\0\0\0\x07\0\0\0\x01z\0\0\0\x02\0\0\0\x02\0\0\0\x021 \0\0\0\x01\0\0\0\x03\0\0\0\x01\0\0\0\0";
        assert_eq!(decode(packet), Some(b"1 ".as_slice()));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(request in prop::collection::vec(any::<u8>(), 0..100)) {
            let packet = encode(&request).unwrap();
            prop_assert_eq!(decode(&packet[4..]), Some(request.as_slice()));
        }

        #[test]
        fn any_packet_is_decoded_or_not(packet in prop::collection::vec(prop_oneof![Just(0u8), 0..4u8, any::<u8>()], 0..64)) {
            decode(&packet);
        }
    }
}
