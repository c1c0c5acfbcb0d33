//! Noise_NNpsk0: how two ends that share a key agree on a session's keys.
//!
//! ```text
//!   guest                                   mux
//!     |-------- BEACON (key id) ------------>|   which key?
//!     |<------- HELLO   e, psk, {MuxHello} --|
//!     |-- HELLO-REPLY   e, ee, {GuestHello} ->|   mux: session up
//!     |<------- SEALED ----------------------|   guest: session up, the old one ends
//! ```
//!
//! The first message can be replayed by whoever recorded it, so nothing in it causes an action: the
//! guest keeps its old session until a packet sealed under the new keys arrives. A link that both
//! ends were told to run in the clear exchanges the same payloads unsealed; the protection is part
//! of the prologue and of the HELLO, and is never negotiated.

use crate::digest::Digest;
use crate::packet::{self, Header, Kind};
use crate::psk::Psk;
use crate::session::Keys;
use prost::Message;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use thiserror::Error;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const MAX_BODY: usize = 1024;

/// Source of random bytes, passed in: the crate has none of its own.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// How packets of a link are protected. Both ends must be told the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// Encrypted and authenticated with ChaCha20-Poly1305.
    #[default]
    Sealed,
    /// Only a CRC-32C: for a line that nobody else can reach.
    Plain,
}

/// What the mux says of itself in a handshake.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MuxHello {
    /// Lowest protocol version it speaks.
    #[prost(uint32, tag = "1")]
    pub proto_min: u32,
    /// Highest protocol version it speaks.
    #[prost(uint32, tag = "2")]
    pub proto_max: u32,
    /// Features it has, as bits.
    #[prost(uint64, tag = "3")]
    pub features: u64,
    /// Names this run of the mux: 16 random bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub instance: Vec<u8>,
    /// Most record bytes it takes in one packet.
    #[prost(uint32, tag = "5")]
    pub max_packet: u32,
    /// Random, so that no two offers are alike even in the clear.
    #[prost(fixed64, tag = "6")]
    pub nonce: u64,
}

/// What the guest says of itself in a handshake.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GuestHello {
    /// The protocol version chosen.
    #[prost(uint32, tag = "1")]
    pub proto: u32,
    /// Features both ends have, as bits.
    #[prost(uint64, tag = "2")]
    pub features: u64,
    /// Names this boot of the guest: 16 random bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub boot_id: Vec<u8>,
    /// Name and version of the agent, for people.
    #[prost(string, tag = "4")]
    pub agent: String,
    /// Most record bytes it takes in one packet.
    #[prost(uint32, tag = "5")]
    pub max_packet: u32,
    /// What kind of pipe this is: 0 a serial port, 1 a virtio-serial port, 2 vsock.
    #[prost(uint32, tag = "10")]
    pub transport: u32,
    /// The guest only makes itself known: the session it has on another pipe goes on, and this one
    /// waits until it is asked for again. Only to a mux with the feature
    /// [`RESTING`](crate::config::RESTING).
    #[prost(bool, tag = "11")]
    pub resting: bool,
}

/// Why a handshake message is of no use. Class: drop, count, go on.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// Not the message expected, or under another key.
    #[error("handshake message does not open: another key, or damage ({0})")]
    Noise(#[from] snow::Error),
    /// Opened, but its payload is not ours.
    #[error("handshake payload: {0}")]
    Payload(#[from] prost::DecodeError),
    /// The other end is told to protect packets differently.
    #[error("the two ends are told to protect packets differently: here {here:?}")]
    Protection {
        /// What this end was told.
        here: Protection,
    },
    /// No protocol version in common.
    #[error(
        "no protocol version in common: peer speaks {min}–{max}, we speak {ours_min}–{ours_max}"
    )]
    Version {
        /// Peer's lowest.
        min: u32,
        /// Peer's highest.
        max: u32,
        /// Our lowest.
        ours_min: u32,
        /// Our highest.
        ours_max: u32,
    },
    /// An id that is not 16 bytes.
    #[error("handshake id of {0} bytes, expected 16")]
    Id(usize),
}

/// The mux's handshake under way: its hello was made, the reply is awaited.
#[derive(Debug)]
pub(crate) struct Offer {
    protection: Protection,
    noise: Option<Box<snow::HandshakeState>>,
    /// The hello's payload, where nothing seals it.
    payload: Vec<u8>,
    /// Of nothing, under the key.
    pub(crate) digest: Digest,
    /// The HELLO packet; repeated as it is.
    pub(crate) packet: Vec<u8>,
}

impl Offer {
    /// Makes a HELLO.
    pub(crate) fn new(
        psk: &Psk,
        protection: Protection,
        hello: &MuxHello,
        tag: u8,
        entropy: &mut Entropy,
    ) -> Result<Self, HandshakeError> {
        let payload = hello.encode_to_vec();
        let (noise, message) = match protection {
            Protection::Plain => (None, payload.clone()),
            Protection::Sealed => {
                let mut noise = builder(entropy)?.psk(0, psk.bytes())?.build_initiator()?;
                let message = write(&mut noise, &payload)?;
                (Some(Box::new(noise)), message)
            }
        };
        let mut body = vec![protection as u8];
        body.extend(message);
        let packet = packet::clear(Header { kind: Kind::Hello, tag, number: 0 }, &body);
        Ok(Self { protection, noise, payload, digest: psk.digest(), packet })
    }

    /// Reads the body of a HELLO-REPLY. The offer can be answered only once.
    pub(crate) fn answered(&mut self, body: &[u8]) -> Result<(Keys, GuestHello), HandshakeError> {
        if self.protection == Protection::Plain {
            return Ok((Keys::plain(true, &self.payload, body), GuestHello::decode(body)?));
        }
        let noise = self.noise.as_mut().ok_or(snow::Error::Input)?;
        let payload = read(noise, body)?;
        let hello = GuestHello::decode(&payload[..])?;
        let noise = self.noise.take().ok_or(snow::Error::Input)?;
        Ok((Keys::sealed(noise.into_stateless_transport_mode()?), hello))
    }
}

/// The guest's whole handshake: from a HELLO's body to a HELLO-REPLY's and the keys.
pub(crate) fn answer(
    psk: &Psk,
    protection: Protection,
    body: &[u8],
    reply: impl FnOnce(&MuxHello) -> Result<GuestHello, HandshakeError>,
    entropy: &mut Entropy,
) -> Result<(Vec<u8>, Keys, MuxHello, GuestHello), HandshakeError> {
    let (asked, message) = body.split_first().ok_or(snow::Error::Input)?;
    if *asked != protection as u8 {
        return Err(HandshakeError::Protection { here: protection });
    }
    if protection == Protection::Plain {
        let hello = MuxHello::decode(message)?;
        let reply = reply(&hello)?;
        let body = reply.encode_to_vec();
        let keys = Keys::plain(false, message, &body);
        return Ok((body, keys, hello, reply));
    }
    let mut noise = builder(entropy)?.psk(0, psk.bytes())?.build_responder()?;
    let hello = MuxHello::decode(&read(&mut noise, message)?[..])?;
    let reply = reply(&hello)?;
    let body = write(&mut noise, &reply.encode_to_vec())?;
    Ok((body, Keys::sealed(noise.into_stateless_transport_mode()?), hello, reply))
}

/// The 16 bytes of an id in a hello.
pub(crate) fn id(bytes: &[u8]) -> Result<[u8; 16], HandshakeError> {
    bytes.try_into().map_err(|_| HandshakeError::Id(bytes.len()))
}

fn write(noise: &mut snow::HandshakeState, payload: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut message = vec![0; MAX_BODY];
    let n = noise.write_message(payload, &mut message)?;
    message.truncate(n);
    Ok(message)
}

fn read(noise: &mut snow::HandshakeState, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
    if message.len() > MAX_BODY {
        return Err(snow::Error::Input);
    }
    let mut payload = vec![0; MAX_BODY];
    let n = noise.read_message(message, &mut payload)?;
    payload.truncate(n);
    Ok(payload)
}

fn builder(entropy: &mut Entropy) -> Result<snow::Builder<'static>, snow::Error> {
    let mut drawn = [0; 64];
    entropy(&mut drawn);
    let params = PATTERN.parse()?;
    Ok(snow::Builder::with_resolver(params, Box::new(Drawn(drawn))))
}

// Snow's own cryptography over random bytes drawn beforehand: a handshake needs 32 of them.
#[derive(Clone)]
struct Drawn([u8; 64]);

impl CryptoResolver for Drawn {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Supply { bytes: self.0, used: 0 }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Supply {
    bytes: [u8; 64],
    used: usize,
}

impl Random for Supply {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let end = self.used + dest.len();
        let drawn = self.bytes.get(self.used..end).ok_or(snow::Error::Rng)?;
        dest.copy_from_slice(drawn);
        self.used = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy() -> Entropy {
        let mut drawn = 0;
        Box::new(move |bytes| {
            for byte in bytes {
                drawn = u8::wrapping_add(drawn, 41);
                *byte = drawn;
            }
        })
    }

    #[test]
    fn a_sealed_offer_is_answered_once_and_never_in_the_clear() {
        let psk = Psk::derive(b"a key");
        let hello = MuxHello::default();
        let mut offer =
            Offer::new(&psk, Protection::Sealed, &hello, 1, &mut entropy()).expect("an offer");
        let body = packet::clear_body(&offer.packet).expect("whole").to_vec();
        let agreed = |_: &MuxHello| Ok(GuestHello::default());
        let answered = answer(&psk, Protection::Sealed, &body, agreed, &mut entropy());
        let (reply, ..) = answered.expect("an answer");
        let clear = GuestHello::default().encode_to_vec();
        assert!(offer.answered(&clear).is_err());
        offer.answered(&reply).expect("the answer to it");
        assert!(offer.answered(&reply).is_err());
        assert!(offer.answered(&clear).is_err(), "its state is used up, its kind is not");
    }
}
