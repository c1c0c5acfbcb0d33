//! A peer with the right key and no manners: real sessions, and whatever records one likes in them.
//!
//! It speaks the protocol in the clear, where a packet is its header, the records and a CRC-32C that
//! also covers both handshake messages and who sends.

use prost::Message;
use wire::frame::{Deframer, Frame, encode};
use wire::handshake::{GuestHello, MuxHello};
use wire::packet::{Header, Kind, clear, clear_body};
use wire::record::{Record, put};
use wire::{
    Entropy, Greeter, Greeting, GuestIdentity, Instant, Link, LinkConfig, Protection, Psk, Session,
};

/// A moment so long after the test's start.
pub fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

/// A packet's body.
pub fn records(list: &[Record<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    list.iter().for_each(|record| put(&mut body, record));
    body
}

const KEY: &[u8] = b"known to both";
const PLAIN: u8 = 1;

/// Makes packets of a session with the link it was made for.
pub struct Forger {
    tag: u8,
    number: u32,
    seed: u32,
    is_mux: bool,
}

impl Forger {
    /// A mux's link whose guest is forged.
    pub fn guest(config: LinkConfig) -> (Link, Self) {
        let (session, forger) = Self::session(&config);
        (Link::mux(config, session, Instant::default()), forger)
    }

    /// Another session of the same guest for the same link.
    pub fn reconnect(link: &mut Link, config: &LinkConfig) -> Self {
        let (session, forger) = Self::session(config);
        link.install(Instant::default(), session);
        forger
    }

    fn session(config: &LinkConfig) -> (Session, Self) {
        let at = Instant::default();
        let psk = Psk::derive(KEY);
        let mut greeter = Greeter::new(config, [1; 16], entropy(), at);
        let mut beacon = psk.id().0.to_vec();
        beacon.extend([1, 1]);
        let asked = tell(&mut greeter, Header { kind: Kind::Beacon, tag: 0, number: 0 }, &beacon);
        assert!(matches!(asked, Some(Greeting::Asked(_))));
        greeter.offer(at, &psk, Protection::Plain).expect("an offer in the clear");
        let mut out = Vec::new();
        greeter.poll_transmit(at, &mut out);
        let (header, hello) = find(&out, Kind::Hello);
        let hello = hello.get(1..).unwrap_or_default();
        let reply = GuestHello {
            proto: 1,
            features: config.features,
            boot_id: vec![2; 16],
            agent: "forged".into(),
            max_packet: 4096,
            ..GuestHello::default()
        }
        .encode_to_vec();
        let header = Header { kind: Kind::HelloReply, ..header };
        let Some(Greeting::Established(session)) = tell(&mut greeter, header, &reply) else {
            panic!("the forged reply is good");
        };
        let forger = Self::new(header.tag, false, hello, &reply);
        (*session, forger)
    }

    /// A guest's link whose mux is forged.
    pub fn mux(config: LinkConfig) -> (Link, Self) {
        let at = Instant::default();
        let identity = GuestIdentity {
            psk: Psk::derive(KEY),
            protection: Protection::Plain,
            boot_id: [2; 16],
            agent: "honest".into(),
        };
        let features = config.features;
        let mut link = Link::guest(config, identity, entropy(), at);
        let hello = MuxHello {
            proto_min: 1,
            proto_max: 1,
            features,
            instance: vec![1; 16],
            max_packet: 4096,
            nonce: 7,
        }
        .encode_to_vec();
        let header = Header { kind: Kind::Hello, tag: 9, number: 0 };
        let mut line = Vec::new();
        encode(&clear(header, &[&[PLAIN], &hello[..]].concat()), &mut line);
        link.handle_bytes(at, &line);
        let mut out = Vec::new();
        while link.poll_transmit(at, &mut out) {}
        let (_, reply) = find(&out, Kind::HelloReply);
        let forger = Self::new(header.tag, true, &hello, &reply);
        (link, forger)
    }

    fn new(tag: u8, is_mux: bool, hello: &[u8], reply: &[u8]) -> Self {
        let seed = crc32c::crc32c_append(crc32c::crc32c(hello), reply);
        Self { tag, number: 0, seed, is_mux }
    }

    /// A frame with these records in it, whatever they are.
    pub fn frame(&mut self, records: &[u8]) -> Vec<u8> {
        let header = Header { kind: Kind::Plain, tag: self.tag, number: self.number };
        self.number = self.number.wrapping_add(1);
        let mut packet = header.to_bytes().to_vec();
        packet.extend_from_slice(records);
        let seed = crc32c::crc32c_append(self.seed, &[u8::from(self.is_mux)]);
        packet.extend(crc32c::crc32c_append(seed, &packet).to_le_bytes());
        let mut frame = Vec::new();
        encode(&packet, &mut frame);
        frame
    }

    /// Leaves packet numbers out.
    pub fn skip(&mut self, n: u32) {
        self.number = self.number.wrapping_add(n);
    }
}

/// Does what an owner has to: events, and frames for the line.
pub fn drain(link: &mut Link, at: Instant) -> Vec<wire::Event> {
    link.handle_timeout(at);
    let events = std::iter::from_fn(|| link.poll_event()).collect();
    let mut out = Vec::new();
    for _ in 0..1000 {
        if !link.poll_transmit(at, &mut out) {
            break;
        }
        out.clear();
    }
    events
}

fn entropy() -> Entropy {
    Box::new(|bytes| bytes.fill(5))
}

fn tell(greeter: &mut Greeter, header: Header, body: &[u8]) -> Option<Greeting> {
    let mut line = Vec::new();
    encode(&clear(header, body), &mut line);
    greeter.handle_bytes(Instant::default(), &mut &line[..])
}

fn find(line: &[u8], kind: Kind) -> (Header, Vec<u8>) {
    let (mut deframer, mut input) = (Deframer::new(32 * 1024), line);
    while let Some(frame) = deframer.next(&mut input) {
        if let Frame::Packet { packet, .. } = frame
            && let Ok((header, _)) = Header::parse(packet)
            && header.kind == kind
            && let Ok(body) = clear_body(packet)
        {
            return (header, body.to_vec());
        }
    }
    panic!("no {kind:?} on the line")
}
