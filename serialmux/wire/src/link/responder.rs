//! The guest's side of handshakes: beacons out, hellos answered.

use crate::config::{FEATURES, PROTOCOLS, RESTING, REWIND, Transport};
use crate::digest::Digest;
use crate::handshake::{self, Entropy, GuestHello, HandshakeError, MuxHello, Protection};
use crate::packet::{Header, Kind, clear};
use crate::psk::Psk;
use crate::session::{Peer, Session};
use crate::time::{Duration, Instant};

const FIRST_BEACON: Duration = Duration::from_secs(1);
const LAST_BEACON: Duration = Duration::from_secs(30);
/// Handshakes cost the guest elliptic-curve arithmetic, so a stranger may cause ten a second.
const MIN_HELLO_GAP: Duration = Duration::from_millis(100);

/// Who a guest is.
#[derive(Debug, Clone)]
pub struct GuestIdentity {
    /// The key it shares with its mux.
    pub psk: Psk,
    /// Whether packets are encrypted.
    pub protection: Protection,
    /// Names this boot: 16 random bytes.
    pub boot_id: [u8; 16],
    /// Name and version of the agent, for people.
    pub agent: String,
}

pub(super) struct Responder {
    identity: GuestIdentity,
    max_packet: u32,
    entropy: Entropy,
    answered: Option<(Vec<u8>, Vec<u8>)>,
    last_hello: Option<Instant>,
    beacon_at: Option<Instant>,
    beacon_due: bool,
    beacon_gap: Duration,
    last_beacon: Option<Instant>,
    outbox: Option<Vec<u8>>,
    transport: Transport,
    /// Hellos are answered only so that the mux knows whose pipe this is.
    resting: bool,
    features: u64,
    protocols: (u32, u32),
    refusal: Option<HandshakeError>,
}

impl Responder {
    pub(super) fn new(
        identity: GuestIdentity,
        max_packet: usize,
        entropy: Entropy,
        now: Instant,
    ) -> Self {
        Self {
            identity,
            max_packet: u32::try_from(max_packet).unwrap_or(u32::MAX),
            entropy,
            answered: None,
            last_hello: None,
            beacon_at: Some(now),
            beacon_due: false,
            beacon_gap: FIRST_BEACON,
            last_beacon: None,
            outbox: None,
            transport: Transport::Uart,
            resting: false,
            features: FEATURES,
            protocols: PROTOCOLS,
            refusal: None,
        }
    }

    /// Which features it agrees to, and which versions it speaks.
    pub(super) fn set_versions(&mut self, features: u64, protocols: (u32, u32)) {
        (self.features, self.protocols) = (features, protocols);
    }

    /// What was wrong with the last hello that could not be answered.
    pub(super) fn refusal(&self) -> Option<&HandshakeError> {
        self.refusal.as_ref()
    }

    /// Of nothing, under the guest's key.
    pub(super) fn digest(&self) -> Digest {
        self.identity.psk.digest()
    }

    /// What kind of pipe it is on.
    pub(super) fn set_transport(&mut self, transport: Transport) {
        self.transport = transport;
    }

    /// From now on it answers to be known only, or to be used. A hello answered otherwise before is
    /// answered anew.
    pub(super) fn set_resting(&mut self, resting: bool) {
        if self.resting != resting {
            (self.resting, self.answered) = (resting, None);
        }
    }

    /// Sends one beacon, whatever else goes on.
    pub(super) fn call(&mut self) {
        self.outbox = Some(self.beacon());
    }

    /// A mux asks who is here. Answered at most ten times a second.
    pub(super) fn solicited(&mut self, now: Instant) {
        let due = self.last_beacon.map_or(now, |last| last + MIN_HELLO_GAP).max(now);
        self.beacon_at = Some(self.beacon_at.map_or(due, |at| at.min(due)));
    }

    /// There is a session: no more beacons of our own accord.
    pub(super) fn settled(&mut self) {
        self.beacon_at = None;
        self.beacon_due = false;
        self.beacon_gap = FIRST_BEACON;
    }

    /// The peer seals under keys that are not ours.
    pub(super) fn doubted(&mut self, now: Instant) {
        if self.beacon_at.is_none() && !self.beacon_due {
            self.beacon_at = Some(now + FIRST_BEACON);
        }
    }

    /// The moment [`poll_timeout`](Self::poll_timeout) named has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.beacon_at.is_some_and(|at| at <= now) {
            (self.beacon_at, self.beacon_due) = (None, true);
        }
    }

    /// There is no session any more.
    pub(super) fn unsettled(&mut self, now: Instant) {
        self.beacon_at = Some(now);
    }

    /// A hello came. A session is returned if it is a new one that opens under our key; the error is
    /// [`refusal`](Self::refusal).
    pub(super) fn hello(
        &mut self,
        now: Instant,
        tag: u8,
        body: &[u8],
    ) -> Result<Option<Session>, ()> {
        if let Some((hello, reply)) = &self.answered
            && hello == body
        {
            self.outbox = Some(reply.clone());
            return Ok(None);
        }
        if self.last_hello.is_some_and(|last| now.since(last) < MIN_HELLO_GAP) {
            return Ok(None);
        }
        self.last_hello = Some(now);
        let Self { identity, entropy, max_packet, transport, resting, features, protocols, .. } =
            self;
        let (transport, resting) = (*transport, *resting);
        let reply = |hello: &MuxHello| {
            let agreed = agree(hello, identity, *max_packet, *protocols)?;
            let features = hello.features & *features & REWIND;
            Ok(GuestHello { features, transport: transport.number(), resting, ..agreed })
        };
        let answer = handshake::answer(&identity.psk, identity.protection, body, reply, entropy);
        let answer = answer.and_then(|(reply, keys, hello, agreed)| {
            Ok((handshake::id(&hello.instance)?, reply, keys, hello, agreed))
        });
        let (id, reply, keys, hello, agreed) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let header = Header { kind: Kind::Reject, tag, number: 0 };
                self.outbox = Some(clear(header, error.to_string().as_bytes()));
                self.refusal = Some(error);
                return Err(());
            }
        };
        if resting && hello.features & RESTING == 0 {
            // It would take the answer for the wish to use this pipe.
            return Ok(None);
        }
        let reply = clear(Header { kind: Kind::HelloReply, tag, number: 0 }, &reply);
        self.outbox = Some(reply.clone());
        self.answered = Some((body.to_vec(), reply));
        if resting {
            self.settled();
            return Ok(None);
        }
        let peer = Peer {
            id,
            proto: agreed.proto,
            features: agreed.features,
            agent: String::new(),
            max_packet: usize::try_from(hello.max_packet).unwrap_or(usize::MAX),
            transport,
            resting,
        };
        Ok(Some(Session::new(keys, tag, peer, self.identity.psk.digest())))
    }

    /// The next clear packet to send.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if !self.may_transmit(now) {
            return None;
        }
        if let Some(packet) = self.outbox.take() {
            return Some(packet);
        }
        self.beacon_due = false;
        self.last_beacon = Some(now);
        self.beacon_at = Some(now + self.beacon_gap);
        self.beacon_gap = (self.beacon_gap * 2).min(LAST_BEACON);
        Some(self.beacon())
    }

    pub(super) fn may_transmit(&self, now: Instant) -> bool {
        self.outbox.is_some() || self.beacon_due || self.beacon_at.is_some_and(|at| at <= now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.beacon_at
    }

    fn beacon(&self) -> Vec<u8> {
        let [a, b, c, d, ..] = self.identity.boot_id;
        let number = u32::from_le_bytes([a, b, c, d]);
        let mut body = self.identity.psk.id().0.to_vec();
        body.extend([self.protocols.0 as u8, self.protocols.1 as u8]);
        clear(Header { kind: Kind::Beacon, tag: 0, number }, &body)
    }
}

fn agree(
    hello: &MuxHello,
    identity: &GuestIdentity,
    max_packet: u32,
    protocols: (u32, u32),
) -> Result<GuestHello, HandshakeError> {
    let (ours_min, ours_max) = protocols;
    let (min, max) = (hello.proto_min, hello.proto_max);
    let proto = max.min(ours_max);
    if proto < ours_min || proto < min {
        return Err(HandshakeError::Version { min, max, ours_min, ours_max });
    }
    handshake::id(&hello.instance)?;
    Ok(GuestHello {
        proto,
        features: 0,
        boot_id: identity.boot_id.to_vec(),
        agent: identity.agent.clone(),
        max_packet,
        transport: 0,
        resting: false,
    })
}
