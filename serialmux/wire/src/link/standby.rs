//! A guest's pipe that its link does not use: known to the mux, and ready to become the link's.
//!
//! ```text
//!              want              HELLO, then the first sealed packet
//!   ┌─────────┐ ──▶ ┌─────────┐ ────────────────────────────────────▶ Link::take_pipe
//!   │ resting │     │ wanting │
//!   └─────────┘ ◀── └─────────┘
//!              rest
//! ```
//!
//! A resting pipe says once whose it is, so that the mux keeps it, and is silent then. A wanting one asks
//! until a session of its own is proven: the handshake is the probe, so a pipe that does not carry bytes
//! both ways never takes over. What the mux sends is held to the length of one frame.

use super::responder::Responder;
use super::{GuestIdentity, Link};
use crate::config::{LinkConfig, Transport};
use crate::frame::{self, Deframer, Frame};
use crate::handshake::Entropy;
use crate::packet::{HEADER_LEN, Header, Kind, SEAL_LEN, clear_body};
use crate::session::{Opened, Session};
use crate::time::Instant;
use core::fmt;

/// One pipe of a guest besides the one its link uses. See the module's text.
pub struct Standby {
    transport: Transport,
    deframer: Deframer,
    responder: Responder,
    pending: Option<Session>,
    /// The packet that proved `pending`, opened.
    proven: Option<(Session, Opened, Vec<u8>)>,
    wanting: bool,
}

impl fmt::Debug for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standby")
            .field("transport", &self.transport)
            .field("wanting", &self.wanting)
            .finish_non_exhaustive()
    }
}

impl Standby {
    /// A resting pipe, which makes itself known at once.
    pub fn new(
        transport: Transport,
        identity: GuestIdentity,
        entropy: Entropy,
        now: Instant,
    ) -> Self {
        let config = LinkConfig::guest(transport);
        let mut responder = Responder::new(identity, config.max_packet, entropy, now);
        responder.set_transport(transport);
        responder.set_resting(true);
        Self {
            transport,
            deframer: deframer(&config),
            responder,
            pending: None,
            proven: None,
            wanting: false,
        }
    }

    /// What kind of pipe it is.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether it asks to be used.
    pub fn is_wanting(&self) -> bool {
        self.wanting
    }

    /// Asks the mux to use this pipe, until it does or [`rest`](Self::rest) is called.
    pub fn want(&mut self, now: Instant) {
        if !self.wanting {
            self.wanting = true;
            self.responder.set_resting(false);
            self.responder.unsettled(now);
        }
    }

    /// Asks no longer.
    pub fn rest(&mut self) {
        if self.wanting {
            self.wanting = false;
            self.pending = None;
            self.responder.set_resting(true);
            self.responder.settled();
        }
    }

    /// The pipe was closed and is open again: whoever is there now is told whose it is.
    pub fn reopened(&mut self, now: Instant) {
        self.deframer = deframer(&LinkConfig::guest(self.transport));
        (self.pending, self.proven) = (None, None);
        self.responder.unsettled(now);
    }

    /// Takes bytes off the front of `input`; true when the pipe can be used: then
    /// [`Link::take_pipe`] follows, and what is left of `input` is the link's.
    pub fn handle_bytes(&mut self, now: Instant, input: &mut &[u8]) -> bool {
        while let Some(frame) = self.deframer.next(input) {
            let Frame::Packet { packet, .. } = frame else { continue };
            let Ok((header, _)) = Header::parse(packet) else { continue };
            match header.kind {
                Kind::Sealed | Kind::Plain => {
                    let mut records = Vec::new();
                    let Some(session) = &self.pending else { continue };
                    let Ok(opened) = session.open(header, packet, &mut records) else { continue };
                    self.proven = self.pending.take().map(|session| (session, opened, records));
                    return true;
                }
                Kind::Hello => {
                    let Ok(body) = clear_body(packet) else { continue };
                    // One that does not open is answered by the responder, and counts nowhere.
                    if let Ok(Some(session)) = self.responder.hello(now, header.tag, body) {
                        self.pending = Some(session);
                    }
                }
                Kind::Solicit if clear_body(packet).is_ok() => self.responder.solicited(now),
                Kind::Solicit | Kind::Beacon | Kind::HelloReply | Kind::Reject => {}
            }
        }
        false
    }

    /// Appends the next frame to `out`; false if there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.responder.handle_timeout(now);
        let Some(packet) = self.responder.poll_transmit(now) else { return false };
        // A delimiter first closes whatever was cut off on this pipe.
        out.push(frame::DELIMITER);
        frame::encode(&packet, out);
        true
    }

    /// When to call [`poll_transmit`](Self::poll_transmit) even if nothing comes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.responder.poll_timeout()
    }
}

fn deframer(config: &LinkConfig) -> Deframer {
    Deframer::new(config.max_packet + HEADER_LEN + SEAL_LEN)
}

impl Link {
    /// Goes over to a pipe that is proven; `standby` is then the pipe used so far, at rest. Guest only.
    ///
    /// The channels go on as after any new session.
    pub fn take_pipe(&mut self, now: Instant, standby: &mut Standby) {
        let Some(responder) = &mut self.responder else { return };
        let Some((session, packet, records)) = standby.proven.take() else { return };
        core::mem::swap(responder, &mut standby.responder);
        standby.responder.set_resting(true);
        standby.responder.settled();
        self.tune(LinkConfig::guest(standby.transport));
        let used = core::mem::replace(&mut self.transport, standby.transport);
        standby.transport = used;
        core::mem::swap(&mut self.deframer, &mut standby.deframer);
        standby.wanting = false;
        (standby.pending, self.pending) = (None, None);
        self.begin(now, session);
        self.stats.packets_in += 1;
        self.apply(now, packet, &records);
    }

    /// The guest's pipe was closed and is open again: whoever is there now is called.
    pub fn handle_reopened(&mut self, now: Instant) {
        self.deframer = deframer(&self.config);
        self.pending = None;
        if let Some(responder) = &mut self.responder {
            responder.unsettled(now);
        }
    }

    /// Calls the mux once on the guest's pipe, although there is a session: it does not answer, and may
    /// have lost it.
    pub fn call(&mut self) {
        if let Some(responder) = &mut self.responder {
            responder.call();
        }
    }

    /// Since when the peer owes an answer; `None` while it owes none.
    pub fn unanswered_since(&self) -> Option<Instant> {
        let live = self.live.as_ref()?;
        live.in_flight.oldest().map(|sent| sent.max(live.heard_at))
    }

    /// The pipe is of another kind from now on: other sizes of packets, windows and buffers. Followed by
    /// a new session, which tells the peer.
    pub fn tune(&mut self, config: LinkConfig) {
        for channel in self.channels.values_mut() {
            match &mut channel.half {
                super::Half::Send(send) => send.set_capacity(config.send_buffer),
                super::Half::Recv(recv) => recv.set_window(config.receive_window),
            }
        }
        self.config = config;
    }

    /// The kind of pipe the guest's link uses.
    pub fn transport(&self) -> Transport {
        self.transport
    }
}
