//! The framed protocol between a containerVM and its multiplexer, without any I/O of its own.
//!
//! It runs over one byte pipe that may lose, damage, repeat and insert bytes, stall for an hour, and
//! be cut and reconnected at any byte: a serial port, most of all. Over it go channels, each a
//! one-way stream of bytes with absolute offsets; every byte arrives once and in order.
//!
//! # Layers
//!
//! | module | does |
//! |---|---|
//! | [`frame`] | packets on a byte line: COBS between zero bytes |
//! | [`packet`], `session` | a clear header, and what seals the rest |
//! | [`handshake`], [`greeter`] | keys for a session, from a key both ends hold |
//! | [`record`] | what is inside a packet |
//! | [`link`] | **the** state machine: sessions, acknowledgements, resumption, priorities; a guest's further pipes |
//! | [`digest`] | what a stream was so far, so that a guest put back in time is found out |
//! | [`channel`], `send`, `recv` | one stream: bytes kept until durable, credit, order |
//! | [`message`], [`chunk`] | what channels carry: control messages, output entries |
//! | [`pack`] | a channel's bytes compressed, in pieces that can be read on arrival |
//!
//! # What it refuses to do
//!
//! It reads no clock ([`Instant`] is passed in), opens no socket, spawns nothing, draws no random
//! bytes ([`Entropy`] is passed in), and has no `unsafe`. Bytes from a peer lead
//! to events, to counted drops or to a closed session, never to a panic or to unbounded memory.
#![forbid(unsafe_code)]

pub mod channel;
pub mod chunk;
pub mod config;
pub mod digest;
pub mod frame;
pub mod greeter;
pub mod handshake;
pub mod link;
pub mod message;
pub mod pack;
pub mod packet;
pub mod psk;
pub mod ranges;
pub mod record;
mod recv;
mod rtt;
mod send;
mod session;
pub mod stats;
pub mod time;
pub mod varint;

pub use channel::{ChannelId, Class, Direction};
pub use config::{LinkConfig, Transport, UART_TRIGGER};
pub use digest::{Digest, STATE_LEN};
pub use greeter::{Greeter, Greeting};
pub use handshake::{Entropy, HandshakeError, Protection};
pub use link::{Depths, Event, Gauges, GuestIdentity, Link, LinkError, Open, Standby};
pub use psk::{KeyId, Psk};
pub use session::{Peer, Session};
pub use stats::LinkStats;
pub use time::{Duration, Instant};
