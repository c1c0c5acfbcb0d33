//! What guest and mux say to each other on the control channels, and the labels of channels.
//!
//! Control messages are protobuf, each preceded by its length as a protobuf varint. Field numbers
//! are never used twice; a field or variant that one side does not know is skipped, and a request
//! that the guest does not know is answered with an error.

use bytes::BytesMut;
use prost::Message;
use thiserror::Error;

/// Longest control message, bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What a channel carries; the bytes of [`Record::Open`](crate::record::Record::Open)'s label.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Label {
    /// What the channel carries; absent: something newer than this build.
    #[prost(oneof = "label::Kind", tags = "1, 2, 3")]
    pub kind: Option<label::Kind>,
}

/// Kinds of channel.
pub mod label {
    /// What a channel carries.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
    pub enum Kind {
        /// Control messages: [`GuestMessage`](super::GuestMessage) to the mux,
        /// [`MuxMessage`](super::MuxMessage) to the guest.
        #[prost(message, tag = "1")]
        Control(Control),
        /// A session's output: [`chunk`](crate::chunk) entries.
        #[prost(message, tag = "2")]
        Output(Output),
        /// A session's standard input: its bytes, and its end.
        #[prost(message, tag = "3")]
        Input(Input),
    }

    /// The control channel.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
    pub struct Control {}

    /// Output of one session.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
    pub struct Output {
        /// Id of the session.
        #[prost(string, tag = "1")]
        pub session: String,
        /// Whether it is a terminal (all output is stdout then).
        #[prost(bool, tag = "2")]
        pub tty: bool,
    }

    /// Standard input of one session.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
    pub struct Input {
        /// Id of the session.
        #[prost(string, tag = "1")]
        pub session: String,
    }
}

/// From the guest.
#[derive(Clone, PartialEq, Message)]
pub struct GuestMessage {
    /// What it says; absent: something newer than this build.
    #[prost(oneof = "guest::Body", tags = "1, 2, 3, 4, 5")]
    pub body: Option<guest::Body>,
}

/// Messages of the guest.
pub mod guest {
    /// What the guest says.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        /// A session's process runs.
        #[prost(message, tag = "1")]
        Started(Started),
        /// A session's process could not be started.
        #[prost(message, tag = "2")]
        Failed(Failed),
        /// A session's process has ended.
        #[prost(message, tag = "3")]
        Exited(Exited),
        /// The answer to a request.
        #[prost(message, tag = "4")]
        Reply(Reply),
        /// What the guest reports about itself, all of it; the one before does not count any more.
        #[prost(message, tag = "5")]
        Report(Report),
    }

    /// A session's process runs.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Started {
        /// Id of the session.
        #[prost(string, tag = "1")]
        pub session: String,
        /// Microseconds since the Unix epoch, by the guest's clock.
        #[prost(uint64, tag = "2")]
        pub time_us: u64,
        /// Process id in the guest's outer PID namespace.
        #[prost(uint32, tag = "3")]
        pub pid: u32,
    }

    /// A session's process could not be started.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Failed {
        /// Id of the session.
        #[prost(string, tag = "1")]
        pub session: String,
        /// Exit code as `docker run` gives it: 125, 126 or 127.
        #[prost(int32, tag = "2")]
        pub code: i32,
        /// What went wrong, for people.
        #[prost(string, tag = "3")]
        pub text: String,
        /// Microseconds since the Unix epoch, by the guest's clock.
        #[prost(uint64, tag = "4")]
        pub time_us: u64,
    }

    /// A session's process has ended.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exited {
        /// Id of the session.
        #[prost(string, tag = "1")]
        pub session: String,
        /// Exit code as Docker gives it: 0–255, 128 + signal.
        #[prost(int32, tag = "2")]
        pub code: i32,
        /// Signal that ended the process; 0 if none did.
        #[prost(int32, tag = "3")]
        pub signal: i32,
        /// Whether a core was dumped.
        #[prost(bool, tag = "4")]
        pub core_dumped: bool,
        /// The status as `waitpid` gave it.
        #[prost(int32, tag = "5")]
        pub raw_status: i32,
        /// Whether the kernel killed it for memory.
        #[prost(bool, tag = "6")]
        pub oom_killed: bool,
        /// Microseconds since the Unix epoch, by the guest's clock.
        #[prost(uint64, tag = "7")]
        pub started_us: u64,
        /// Microseconds since the Unix epoch, by the guest's clock.
        #[prost(uint64, tag = "8")]
        pub exited_us: u64,
        /// Length of the output channel: nothing of the output is missing below it.
        #[prost(uint64, tag = "9")]
        pub output_length: u64,
        /// How the output ended.
        #[prost(enumeration = "OutputEnd", tag = "10")]
        pub output_end: i32,
    }

    /// How a session's output ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum OutputEnd {
        /// Read to its end.
        Drained = 0,
        /// Something that outlived the process still held it open.
        Abandoned = 1,
        /// Part of it could not be kept.
        Truncated = 2,
    }

    /// What the guest reports about itself, as it would to a hypervisor that keeps it.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct Report {
        /// Keys of guestinfo, and their values.
        #[prost(btree_map = "string, string", tag = "1")]
        pub pairs: std::collections::BTreeMap<String, String>,
    }

    /// The answer to a request.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Reply {
        /// Id of the request.
        #[prost(uint64, tag = "1")]
        pub request: u64,
        /// Empty when it was done; else why not.
        #[prost(string, tag = "2")]
        pub error: String,
    }
}

/// From the mux.
#[derive(Clone, PartialEq, Message)]
pub struct MuxMessage {
    /// Names the request in the reply.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// What is asked; absent: something newer than this build.
    #[prost(oneof = "mux::Body", tags = "2, 3, 4")]
    pub body: Option<mux::Body>,
}

/// Messages of the mux.
pub mod mux {
    /// What the mux asks.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        /// Send a signal to a session's process.
        #[prost(message, tag = "2")]
        Signal(Signal),
        /// The terminal has a new size.
        #[prost(message, tag = "3")]
        Resize(Resize),
        /// Stop everything in order and power off.
        #[prost(message, tag = "4")]
        Shutdown(Shutdown),
    }

    /// Send a signal to a session's process.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Signal {
        /// Id of the session.
        #[prost(string, tag = "1")]
        pub session: String,
        /// Linux signal number on x86-64.
        #[prost(int32, tag = "2")]
        pub signal: i32,
    }

    /// The terminal has a new size.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Resize {
        /// Id of the session.
        #[prost(string, tag = "1")]
        pub session: String,
        /// Character rows, at most 65,535.
        #[prost(uint32, tag = "2")]
        pub rows: u32,
        /// Character columns, at most 65,535.
        #[prost(uint32, tag = "3")]
        pub columns: u32,
    }

    /// Stop everything in order and power off.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Shutdown {}
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
