//! What clients and the daemon say to each other over its unix socket.
//!
//! Protobuf messages, each preceded by its length (4 bytes, big-endian). A client sends one
//! [`Request`]; the daemon answers with [`Answer`]s. After an `attach`, both go on: the client with
//! [`Input`]s, the daemon with output until the container ends.

pub mod answer;
pub mod input;
pub mod inside;
pub mod request;

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
    #[prost(
        oneof = "request::Body",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40"
    )]
    pub body: Option<request::Body>,
}

/// What an attached client sends.
#[derive(Clone, PartialEq, Message)]
pub struct Input {
    /// What it is.
    #[prost(oneof = "input::Body", tags = "1, 2")]
    pub body: Option<input::Body>,
    /// Place of the first byte in everything that this client has to say, if it has a token.
    #[prost(uint64, tag = "40")]
    pub at: u64,
}

/// What the daemon sends.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// What it is.
    #[prost(
        oneof = "answer::Body",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20, 21, 22, 23, 24, 25, 26, 40"
    )]
    pub body: Option<answer::Body>,
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

    /// Puts a message up for sending, which [`flush`](Self::flush) does. To be called when nothing
    /// else is up: then it does not wait.
    ///
    /// # Errors
    /// As the socket says.
    pub async fn put(&mut self, message: &impl Message) -> io::Result<()> {
        self.0.feed(Bytes::from(message.encode_to_vec())).await
    }

    /// Sends what was put up.
    ///
    /// # Errors
    /// As the socket says.
    ///
    /// # Cancel safety
    /// Safe: what was sent is not sent again.
    pub async fn flush(&mut self) -> io::Result<()> {
        SinkExt::<Bytes>::flush(&mut self.0).await
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
