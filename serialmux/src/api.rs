//! What clients and the daemon say to each other over its unix socket.
//!
//! Protobuf messages, each preceded by its length (4 bytes, big-endian). A client sends one
//! [`Request`]; the daemon answers with [`Answer`]s. After an `attach`, both go on: the client with
//! [`Input`]s, the daemon with output until the container ends.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message;
use std::io;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// Longest message, bytes.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// The first message of a client.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What is asked.
    #[prost(oneof = "request::Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub body: Option<request::Body>,
}

/// Requests.
pub mod request {
    /// What is asked.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        /// Who are you?
        #[prost(message, tag = "1")]
        Hello(Hello),
        /// Expect this container's VM: a run begins.
        #[prost(message, tag = "2")]
        Register(Register),
        /// Forget a container, its output too.
        #[prost(message, tag = "3")]
        Remove(Container),
        /// List all containers.
        #[prost(message, tag = "4")]
        List(Hello),
        /// Output from now or from the start, with input.
        #[prost(message, tag = "5")]
        Attach(Attach),
        /// Output so far, or on and on.
        #[prost(message, tag = "6")]
        Logs(Logs),
        /// Tell when it ends, and how.
        #[prost(message, tag = "7")]
        Wait(Container),
        /// Send a signal.
        #[prost(message, tag = "8")]
        Kill(Kill),
        /// Set the terminal's size.
        #[prost(message, tag = "9")]
        Resize(Resize),
        /// Its VM is gone: whoever waits need not wait on.
        #[prost(message, tag = "10")]
        Gone(Gone),
        /// Tell everything that is known of it.
        #[prost(message, tag = "11")]
        Inspect(Container),
    }

    /// Nothing to say.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Hello {}

    /// Names a container by name, id or unique start of its id.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Container {
        /// Name, id or unique start of the id.
        #[prost(string, tag = "1")]
        pub container: String,
    }

    /// Expect this container's VM.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Register {
        /// Its id.
        #[prost(string, tag = "1")]
        pub id: String,
        /// Its name.
        #[prost(string, tag = "2")]
        pub name: String,
        /// Key material as in guestinfo.
        #[prost(bytes = "vec", tag = "3")]
        pub key: Vec<u8>,
        /// Only checksums on the link.
        #[prost(bool, tag = "4")]
        pub plain: bool,
        /// The process has a terminal.
        #[prost(bool, tag = "5")]
        pub tty: bool,
        /// The process reads standard input.
        #[prost(bool, tag = "6")]
        pub open_stdin: bool,
        /// What runs, for people.
        #[prost(string, tag = "7")]
        pub command: String,
    }

    /// Output with input.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Attach {
        /// Name, id or unique start of the id.
        #[prost(string, tag = "1")]
        pub container: String,
        /// Whether input follows.
        #[prost(bool, tag = "2")]
        pub stdin: bool,
        /// Whether to start at the beginning of the output rather than now.
        #[prost(bool, tag = "3")]
        pub from_start: bool,
    }

    /// Output so far, or on and on.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Logs {
        /// Name, id or unique start of the id.
        #[prost(string, tag = "1")]
        pub container: String,
        /// Go on until the container ends.
        #[prost(bool, tag = "2")]
        pub follow: bool,
        /// Only the last so many lines.
        #[prost(uint64, optional, tag = "3")]
        pub tail: Option<u64>,
        /// Only output read at or after this time, µs since the Unix epoch.
        #[prost(uint64, tag = "4")]
        pub since_us: u64,
        /// Only output read before this time, µs since the Unix epoch; 0: no end.
        #[prost(uint64, tag = "5")]
        pub until_us: u64,
    }

    /// Send a signal.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Kill {
        /// Name, id or unique start of the id.
        #[prost(string, tag = "1")]
        pub container: String,
        /// Linux signal number.
        #[prost(int32, tag = "2")]
        pub signal: i32,
    }

    /// Set the terminal's size.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Resize {
        /// Name, id or unique start of the id.
        #[prost(string, tag = "1")]
        pub container: String,
        /// Character rows.
        #[prost(uint32, tag = "2")]
        pub rows: u32,
        /// Character columns.
        #[prost(uint32, tag = "3")]
        pub columns: u32,
    }

    /// Its VM is gone.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Gone {
        /// Name, id or unique start of the id.
        #[prost(string, tag = "1")]
        pub container: String,
        /// What is known of why, for people.
        #[prost(string, tag = "2")]
        pub text: String,
    }
}

/// What an attached client sends.
#[derive(Clone, PartialEq, Message)]
pub struct Input {
    /// What it is.
    #[prost(oneof = "input::Body", tags = "1, 2")]
    pub body: Option<input::Body>,
}

/// Input of attached clients.
pub mod input {
    /// What it is.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        /// Bytes for standard input.
        #[prost(bytes = "bytes", tag = "1")]
        Bytes(bytes::Bytes),
        /// Standard input ends.
        #[prost(message, tag = "2")]
        End(super::request::Hello),
    }
}

/// What the daemon sends.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// What it is.
    #[prost(oneof = "answer::Body", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub body: Option<answer::Body>,
}

/// Answers.
pub mod answer {
    /// What it is.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        /// Done.
        #[prost(message, tag = "1")]
        Done(super::request::Hello),
        /// Not done, and why.
        #[prost(message, tag = "2")]
        Error(Error),
        /// Who I am.
        #[prost(message, tag = "3")]
        Hello(Hello),
        /// All containers.
        #[prost(message, tag = "4")]
        List(List),
        /// Attached.
        #[prost(message, tag = "5")]
        Attached(Attached),
        /// Output.
        #[prost(message, tag = "6")]
        Output(Output),
        /// The container has ended.
        #[prost(message, tag = "7")]
        Exit(Exit),
        /// Everything known of a container.
        #[prost(message, tag = "8")]
        Inspection(Inspection),
    }

    /// Everything known of a container, for people and their scripts; other programs have the rest of this.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Inspection {
        /// One JSON object.
        #[prost(string, tag = "1")]
        pub json: String,
    }

    /// Not done, and why.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Error {
        /// For people.
        #[prost(string, tag = "1")]
        pub text: String,
    }

    /// Who I am.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Hello {
        /// Version of the daemon.
        #[prost(string, tag = "1")]
        pub version: String,
        /// Where VMs connect to: address and port.
        #[prost(string, tag = "2")]
        pub listen: String,
        /// Its process id.
        #[prost(uint32, tag = "3")]
        pub pid: u32,
    }

    /// All containers.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct List {
        /// In order of registration.
        #[prost(message, repeated, tag = "1")]
        pub containers: Vec<Summary>,
    }

    /// One container.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Summary {
        /// Its id.
        #[prost(string, tag = "1")]
        pub id: String,
        /// Its name.
        #[prost(string, tag = "2")]
        pub name: String,
        /// What runs.
        #[prost(string, tag = "3")]
        pub command: String,
        /// `created`, `running` or `exited`.
        #[prost(string, tag = "4")]
        pub status: String,
        /// Exit code, once it ended.
        #[prost(int32, tag = "5")]
        pub exit_code: i32,
        /// Why it failed, if it did.
        #[prost(string, tag = "6")]
        pub error: String,
        /// Whether its VM has a session now.
        #[prost(bool, tag = "7")]
        pub connected: bool,
        /// µs since the Unix epoch.
        #[prost(uint64, tag = "8")]
        pub created_us: u64,
        /// µs since the Unix epoch; 0: not yet.
        #[prost(uint64, tag = "9")]
        pub started_us: u64,
        /// µs since the Unix epoch; 0: not yet.
        #[prost(uint64, tag = "10")]
        pub exited_us: u64,
    }

    /// Attached.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Attached {
        /// Whether the process has a terminal.
        #[prost(bool, tag = "1")]
        pub tty: bool,
        /// Whether the process reads standard input.
        #[prost(bool, tag = "2")]
        pub open_stdin: bool,
    }

    /// Output.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Output {
        /// 1 stdout, 2 stderr.
        #[prost(uint32, tag = "1")]
        pub stream: u32,
        /// When the guest read it, µs since the Unix epoch.
        #[prost(uint64, tag = "2")]
        pub time_us: u64,
        /// The output itself.
        #[prost(bytes = "bytes", tag = "3")]
        pub bytes: bytes::Bytes,
    }

    /// The container has ended.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exit {
        /// As `docker wait` gives it.
        #[prost(int32, tag = "1")]
        pub code: i32,
        /// What went wrong, if anything did.
        #[prost(string, tag = "2")]
        pub error: String,
    }
}

/// Messages over a unix socket, each way.
pub fn messages(stream: UnixStream) -> (Sender, Receiver) {
    let codec = || LengthDelimitedCodec::builder().max_frame_length(MAX_MESSAGE).new_codec();
    let (read, write) = stream.into_split();
    (Sender(FramedWrite::new(write, codec())), Receiver(FramedRead::new(read, codec())))
}

/// Sends messages.
#[derive(Debug)]
pub struct Sender(FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>);

impl Sender {
    /// Sends a message.
    ///
    /// # Errors
    /// As the socket says.
    pub async fn send(&mut self, message: &impl Message) -> io::Result<()> {
        self.0.send(Bytes::from(message.encode_to_vec())).await
    }
}

/// Receives messages.
#[derive(Debug)]
pub struct Receiver(FramedRead<OwnedReadHalf, LengthDelimitedCodec>);

impl Receiver {
    /// The next message; `None` when the other end is done.
    ///
    /// # Errors
    /// As the socket says, or for what is no such message.
    ///
    /// # Cancel safety
    /// Safe: a message is read whole or stays for the next call.
    pub async fn receive<M: Message + Default>(&mut self) -> io::Result<Option<M>> {
        match self.0.next().await.transpose()? {
            None => Ok(None),
            Some(frame) => M::decode(frame).map(Some).map_err(io::Error::other),
        }
    }
}
