//! What guest and mux say to each other on the control channels, and the labels of channels.
//!
//! Control messages are protobuf, each preceded by its length as a protobuf varint. Field numbers
//! are never used twice; a field or variant that one side does not know is skipped, and a request
//! that the guest does not know is answered with an error.

pub mod guest;
pub mod inside;
pub mod label;
pub mod mux;
pub mod upkeep;

use bytes::BytesMut;
use prost::Message;
use thiserror::Error;

/// Longest control message, bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What a channel carries; the bytes of [`Record::Open`](crate::record::Record::Open)'s label.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Label {
    /// What the channel carries; absent: something newer than this build.
    #[prost(oneof = "label::Kind", tags = "1, 2, 3, 4")]
    pub kind: Option<label::Kind>,
}

/// From the guest.
#[derive(Clone, PartialEq, Message)]
pub struct GuestMessage {
    /// What it says; absent: something newer than this build.
    #[prost(oneof = "guest::Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 41, 50")]
    pub body: Option<guest::Body>,
}

/// From the mux.
#[derive(Clone, PartialEq, Message)]
pub struct MuxMessage {
    /// Names the request in the reply.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// What is asked; absent: something newer than this build.
    #[prost(
        oneof = "mux::Body",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 30, 40, 41, 50, 51, 52, 53, 54, 55, 56, 57, 58"
    )]
    pub body: Option<mux::Body>,
}

/// A control stream that cannot be followed. Class: close the session.
#[derive(Debug, Error)]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("control message of {0} bytes, at most {MAX_MESSAGE} are allowed")]
    Length(u64),
    /// Not protobuf of the expected shape.
    #[error("control message: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// Appends a message with its length.
pub fn put(message: &impl Message, out: &mut Vec<u8>) {
    out.extend(message.encode_length_delimited_to_vec());
}

/// Cuts a control channel's bytes into messages. Holds at most one partial message.
#[derive(Debug, Default)]
pub struct Reader {
    held: BytesMut,
}

impl Reader {
    /// Adds bytes of the channel.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole message, with the number of channel bytes it took.
    ///
    /// # Errors
    /// [`MessageError`]; the reader is of no use afterwards.
    pub fn next_message<M: Message + Default>(
        &mut self,
    ) -> Result<Option<(M, usize)>, MessageError> {
        const LONGEST_PREFIX: usize = 10;
        let mut rest = &self.held[..];
        let len = match prost::decode_length_delimiter(&mut rest) {
            Ok(len) => len,
            Err(_) if self.held.len() < LONGEST_PREFIX => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if len > MAX_MESSAGE {
            return Err(MessageError::Length(len as u64));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let taken = self.held.len() - rest.len() + len;
        let message = M::decode(body)?;
        bytes::Buf::advance(&mut self.held, taken);
        Ok(Some((message, taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signal(request: u64) -> MuxMessage {
        let signal = mux::Signal { session: "abc".into(), signal: 15 };
        MuxMessage { request, body: Some(mux::Body::Signal(signal)) }
    }

    #[test]
    fn messages_survive_any_cutting() {
        let sent: Vec<_> = (0..20).map(signal).collect();
        let mut line = Vec::new();
        sent.iter().for_each(|message| put(message, &mut line));
        for cut in 1..40 {
            let (mut reader, mut found, mut taken) = (Reader::default(), Vec::new(), 0);
            for piece in line.chunks(cut) {
                reader.push(piece);
                while let Some((message, n)) = reader.next_message::<MuxMessage>().unwrap() {
                    found.push(message);
                    taken += n;
                }
            }
            assert_eq!((found, taken), (sent.clone(), line.len()));
        }
    }

    #[test]
    fn a_huge_length_is_refused_before_anything_is_kept() {
        let mut reader = Reader::default();
        reader.push(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(matches!(reader.next_message::<MuxMessage>(), Err(MessageError::Length(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_an_error(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            reader.push(&line);
            while let Ok(Some(_)) = reader.next_message::<GuestMessage>() {}
        }
    }
}
