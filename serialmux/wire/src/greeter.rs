//! The mux's end of a pipe before it has a session: who is there, and does it hold the key?
//!
//! ```text
//!   SOLICIT … ──BEACON──▶ Asked(key id) ──offer(psk)──▶ HELLO … ──REPLY──▶ Established
//! ```
//!
//! A greeter owns no channel and keeps nothing of what it reads but one partial frame, so a
//! stranger on the port costs a few kilobytes.

use crate::config::{LinkConfig, Transport};
use crate::frame::{Deframer, Frame, encode};
use crate::handshake::{self, Entropy, GuestHello, HandshakeError, MuxHello, Offer, Protection};
use crate::packet::{Header, Kind, clear, clear_body};
use crate::psk::{KeyId, Psk};
use crate::session::{Peer, Session};
use crate::time::{Duration, Instant};
use core::fmt;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Body of a BEACON: key id, lowest and highest protocol.
pub(crate) const BEACON_LEN: usize = 8 + 2;

/// What a greeter found out.
#[derive(Debug)]
pub enum Greeting {
    /// A guest with this key asks for a session. Answer with [`Greeter::offer`], or hang up.
    Asked(KeyId),
    /// The guest holds the key. The greeter is done; what `handle_bytes` left over is the link's.
    /// If the peer is [`resting`](Peer::resting), the pipe is for [`Greeter::quiet`].
    Established(Box<Session>),
    /// The guest will not: its own words, not authenticated.
    Rejected(String),
}

/// Makes a session on a fresh pipe. See the module's text for the order of things.
pub struct Greeter {
    deframer: Deframer,
    entropy: Entropy,
    hello: MuxHello,
    offer: Option<(KeyId, u8, Offer)>,
    /// `None` while there is nothing to say.
    retry_at: Option<Instant>,
    retry_after: Duration,
    refusal: Option<HandshakeError>,
}

impl fmt::Debug for Greeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offered = self.offer.as_ref().map(|(id, ..)| id);
        f.debug_struct("Greeter").field("offered", &offered).finish_non_exhaustive()
    }
}

impl Greeter {
    /// A greeter for a pipe that has just appeared. `instance` names this run of the mux.
    pub fn new(config: &LinkConfig, instance: [u8; 16], entropy: Entropy, now: Instant) -> Self {
        let hello = MuxHello {
            proto_min: config.protocols.0,
            proto_max: config.protocols.1,
            features: config.features,
            instance: instance.to_vec(),
            max_packet: u32::try_from(config.max_packet).unwrap_or(u32::MAX),
            nonce: 0,
        };
        Self {
            deframer: Deframer::new(config.max_packet),
            entropy,
            hello,
            offer: None,
            retry_at: Some(now),
            retry_after: FIRST_RETRY,
            refusal: None,
        }
    }

    /// Why there is no session, if that is known: what this end found wrong with the guest's last answer.
    pub fn refusal(&self) -> Option<&HandshakeError> {
        self.refusal.as_ref()
    }

    /// A greeter for a pipe whose guest is known and rests: it says nothing until it is spoken to.
    pub fn quiet(config: &LinkConfig, instance: [u8; 16], entropy: Entropy, now: Instant) -> Self {
        Self { retry_at: None, ..Self::new(config, instance, entropy, now) }
    }

    /// Takes bytes off the front of `input` until there is something to tell.
    pub fn handle_bytes(&mut self, now: Instant, input: &mut &[u8]) -> Option<Greeting> {
        while let Some(frame) = self.deframer.next(input) {
            let Frame::Packet { packet, .. } = frame else { continue };
            let Ok((header, _)) = Header::parse(packet) else { continue };
            let Ok(body) = clear_body(packet) else { continue };
            let body = body.to_vec();
            let greeting = match header.kind {
                Kind::Beacon => self.beacon(now, &body),
                Kind::HelloReply => self.reply(header.tag, &body),
                Kind::Reject => Some(Greeting::Rejected(text(&body))),
                Kind::Hello | Kind::Solicit | Kind::Sealed | Kind::Plain => None,
            };
            if greeting.is_some() {
                return greeting;
            }
        }
        None
    }

    fn beacon(&mut self, now: Instant, body: &[u8]) -> Option<Greeting> {
        let id = KeyId(*body.first_chunk()?);
        let [min, max] = *body.get(8..BEACON_LEN)?.first_chunk()?;
        if let Err(error) = self.speaks(min.into(), max.into()) {
            // No hello of ours can be answered: said once, and again when the guest asks again.
            let greeting = Greeting::Rejected(error.to_string());
            (self.offer, self.refusal) = (None, Some(error));
            return Some(greeting);
        }
        if self.offer.as_ref().is_some_and(|(offered, ..)| *offered == id) {
            self.retry_at = Some(now);
            return None;
        }
        self.offer = None;
        Some(Greeting::Asked(id))
    }

    fn speaks(&self, min: u32, max: u32) -> Result<(), HandshakeError> {
        let (ours_min, ours_max) = (self.hello.proto_min, self.hello.proto_max);
        if max.min(ours_max) < min.max(ours_min) {
            return Err(HandshakeError::Version { min, max, ours_min, ours_max });
        }
        Ok(())
    }

    /// Answers [`Greeting::Asked`] with the key that has this id.
    ///
    /// # Errors
    /// [`HandshakeError`] if no hello can be made.
    pub fn offer(
        &mut self,
        now: Instant,
        psk: &Psk,
        protection: Protection,
    ) -> Result<(), HandshakeError> {
        let mut drawn = [0; 9];
        (self.entropy)(&mut drawn);
        let [tag, nonce @ ..] = drawn;
        self.hello.nonce = u64::from_le_bytes(nonce);
        let offer = Offer::new(psk, protection, &self.hello, tag, &mut self.entropy)?;
        self.offer = Some((psk.id(), tag, offer));
        self.retry_at = Some(now);
        self.retry_after = FIRST_RETRY;
        Ok(())
    }

    fn reply(&mut self, tag: u8, body: &[u8]) -> Option<Greeting> {
        let (_, offered, offer) = self.offer.as_mut()?;
        if *offered != tag {
            return None;
        }
        let session = offer.answered(body).and_then(|(keys, hello)| {
            let max_packet = usize::try_from(hello.max_packet).unwrap_or(usize::MAX);
            let id = handshake::id(&hello.boot_id)?;
            let (ours_min, ours_max) = (self.hello.proto_min, self.hello.proto_max);
            if !(ours_min..=ours_max).contains(&hello.proto) {
                let (min, max) = (hello.proto, hello.proto);
                return Err(HandshakeError::Version { min, max, ours_min, ours_max });
            }
            let GuestHello { proto, features, agent, transport, resting, .. } = hello;
            let transport = Transport::of(transport);
            // Nothing that was not offered, whatever the guest says.
            let features = features & self.hello.features;
            let peer = Peer { id, proto, features, agent, max_packet, transport, resting };
            Ok(Session::new(keys, tag, peer, offer.digest))
        });
        match session {
            Ok(session) => Some(Greeting::Established(Box::new(session))),
            Err(error) => {
                self.refusal = Some(error);
                None
            }
        }
    }

    /// Appends what is due to the line; false if nothing is.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.retry_at.is_none_or(|at| now < at) {
            return false;
        }
        self.retry_at = Some(now + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(LAST_RETRY);
        // A delimiter first closes whatever garbage is on the line.
        out.push(crate::frame::DELIMITER);
        match &self.offer {
            Some((_, _, offer)) => encode(&offer.packet, out),
            None => {
                let header = Header { kind: Kind::Solicit, tag: 0, number: 0 };
                encode(&clear(header, &[]), out);
            }
        }
        true
    }

    /// When to call [`poll_transmit`](Self::poll_transmit) next; `None`: only after bytes came.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// Unauthenticated text, made fit to print.
fn text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
    text.chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}
