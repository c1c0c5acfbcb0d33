//! Raw bytes of a line, and clear packets of any kind and body, to a guest with and without a session.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serialmux_fuzz::forger::{Forger, drain};
use wire::frame::encode;
use wire::packet::{Header, Kind, clear};
use wire::{GuestIdentity, Instant, Link, LinkConfig, Protection, Psk, Standby, Transport};

const KINDS: [Kind; 5] = [Kind::Hello, Kind::Solicit, Kind::HelloReply, Kind::Beacon, Kind::Reject];

fn identity(protection: Protection) -> GuestIdentity {
    GuestIdentity { psk: Psk::derive(b"key"), protection, boot_id: [2; 16], agent: "fuzzed".into() }
}

fn entropy() -> wire::Entropy {
    Box::new(|bytes: &mut [u8]| bytes.fill(3))
}

fuzz_target!(|data: &[u8]| {
    let at = Instant::from_micros;
    let config = LinkConfig::uart();
    let limit = config.memory_limit(0);
    let guest =
        |protection| Link::guest(LinkConfig::uart(), identity(protection), entropy(), at(0));
    let (live, _) = Forger::mux(config);
    let mut links = [guest(Protection::Sealed), guest(Protection::Plain), live];
    let mut standby =
        Standby::new(Transport::Virtio, identity(Protection::Plain), entropy(), at(0));
    standby.want(at(0));
    for (i, piece) in data.split(|byte| *byte == 0xfe).enumerate() {
        let now = at(i as u64 * 120_000);
        let Some((kind, body)) = piece.split_first() else { continue };
        let mut line = body.to_vec();
        if let Some(kind) = KINDS.get(usize::from(*kind)) {
            line.clear();
            encode(&clear(Header { kind: *kind, tag: 7, number: 0 }, body), &mut line);
        }
        for link in &mut links {
            link.handle_bytes(now, &line);
            drain(link, now);
            assert!(link.memory() <= limit);
        }
        standby.handle_bytes(now, &mut &line[..]);
        while standby.poll_transmit(now, &mut Vec::new()) {}
    }
});
