//! Builds of different times: what they agree on, and how they say that there is nothing to agree on.
#![allow(clippy::unwrap_used, reason = "a test may")]

use wire::config::{FEATURES, PROTOCOLS, REWIND};
use wire::{
    Entropy, Event, Greeter, Greeting, GuestIdentity, HandshakeError, Instant, Link, LinkConfig,
    Peer, Protection, Psk,
};

fn entropy(state: u8) -> Entropy {
    Box::new(move |bytes| bytes.fill(state))
}

fn guest(config: LinkConfig, protection: Protection) -> Link {
    let (psk, agent) = (Psk::derive(b"key"), "versions".to_owned());
    let identity = GuestIdentity { psk, protection, boot_id: [1; 16], agent };
    Link::guest(config, identity, entropy(1), Instant::default())
}

struct Outcome {
    guest: Link,
    greeter: Greeter,
    rejected: Vec<String>,
    /// As the mux sees the guest, and the guest the mux.
    peers: Option<(Peer, Peer)>,
}

// Both ends as long as anything happens, for ten seconds at most.
fn meet(mux: &LinkConfig, config: LinkConfig, protections: (Protection, Protection)) -> Outcome {
    let mut guest = guest(config, protections.0);
    let mut greeter = Greeter::new(mux, [2; 16], entropy(9), Instant::default());
    let mut rejected = Vec::new();
    for now in (0..10_000_000).step_by(50_000).map(Instant::from_micros) {
        let mut line = Vec::new();
        greeter.poll_transmit(now, &mut line);
        guest.handle_bytes(now, &line);
        line.clear();
        guest.handle_timeout(now);
        while guest.poll_transmit(now, &mut line) {}
        let mut input = &line[..];
        while let Some(greeting) = greeter.handle_bytes(now, &mut input) {
            match greeting {
                Greeting::Asked(_) => {
                    greeter.offer(now, &Psk::derive(b"key"), protections.1).unwrap();
                }
                Greeting::Rejected(text) => rejected.push(text),
                Greeting::Established(session) => {
                    let theirs = session.peer().clone();
                    let mut link = Link::mux(mux.clone(), *session, now);
                    let mut line = Vec::new();
                    while link.poll_transmit(now, &mut line) {}
                    guest.handle_bytes(now, &line);
                    let Some(Event::Established { peer, .. }) = guest.poll_event() else {
                        panic!("the first sealed packet makes the session");
                    };
                    return Outcome { guest, greeter, rejected, peers: Some((theirs, peer)) };
                }
            }
        }
    }
    Outcome { guest, greeter, rejected, peers: None }
}

fn speaking(protocols: (u32, u32)) -> LinkConfig {
    LinkConfig { protocols, ..LinkConfig::uart() }
}

const SEALED: (Protection, Protection) = (Protection::Sealed, Protection::Sealed);

#[test]
fn the_highest_version_that_both_speak_is_agreed_on() {
    for (mux, guest, agreed) in [
        ((1, 1), (1, 1), Some(1)),
        ((1, 3), (1, 1), Some(1)),
        ((1, 3), (2, 5), Some(3)),
        ((3, 4), (1, 3), Some(3)),
        ((2, 3), (1, 1), None),
        ((1, 1), (2, 3), None),
    ] {
        let outcome = meet(&speaking(mux), speaking(guest), SEALED);
        let found = outcome.peers.as_ref().map(|(a, b)| (a.proto, b.proto));
        assert_eq!(found, agreed.map(|n| (n, n)), "{mux:?} and {guest:?}");
    }
}

#[test]
fn ends_with_no_version_in_common_say_so_and_both_know_which_the_other_speaks() {
    let Outcome { greeter, rejected, .. } = meet(&speaking((2, 3)), speaking((1, 1)), SEALED);
    let Some(HandshakeError::Version { min: 1, max: 1, ours_min: 2, ours_max: 3 }) =
        greeter.refusal()
    else {
        panic!("{:?}", greeter.refusal());
    };
    assert!(rejected[0].contains("no protocol version in common"), "{rejected:?}");
    assert!(rejected.len() < 10, "less and less often: {rejected:?}");
}

// A mux whose beacons were not understood sends a hello all the same.
#[test]
fn a_guest_refuses_a_hello_of_other_versions_and_says_why() {
    let mut guest = guest(speaking((1, 1)), Protection::Plain);
    let hello = wire::handshake::MuxHello {
        proto_min: 4,
        proto_max: 6,
        features: 0,
        instance: vec![1; 16],
        max_packet: 4096,
        nonce: 7,
    };
    let body = [&[1][..], &prost::Message::encode_to_vec(&hello)].concat();
    let header = wire::packet::Header { kind: wire::packet::Kind::Hello, tag: 9, number: 0 };
    let mut line = Vec::new();
    wire::frame::encode(&wire::packet::clear(header, &body), &mut line);
    guest.handle_bytes(Instant::default(), &line);
    let Some(HandshakeError::Version { min: 4, max: 6, ours_min: 1, ours_max: 1 }) =
        guest.refusal()
    else {
        panic!("{:?}", guest.refusal());
    };
    let mut greeter = Greeter::new(&speaking((4, 6)), [2; 16], entropy(9), Instant::default());
    let mut out = Vec::new();
    guest.poll_transmit(Instant::default(), &mut out);
    let Some(Greeting::Rejected(text)) = greeter.handle_bytes(Instant::default(), &mut &out[..])
    else {
        panic!("the refusal is told");
    };
    assert!(text.contains("peer speaks 4–6, we speak 1–1"), "{text}");
}

#[test]
fn ends_that_protect_packets_differently_refuse_each_other() {
    let protections = (Protection::Plain, Protection::Sealed);
    let outcome = meet(&LinkConfig::uart_mux(), LinkConfig::uart(), protections);
    assert!(outcome.peers.is_none());
    let refusal = outcome.guest.refusal();
    assert!(matches!(refusal, Some(HandshakeError::Protection { here: Protection::Plain })));
    assert!(outcome.rejected.iter().all(|text| text.contains("protect packets differently")));
}

#[test]
fn unknown_features_are_passed_over_and_known_ones_agreed_on_only_by_both() {
    let with = |features| LinkConfig { features, ..LinkConfig::uart() };
    for (mux, guest, agreed) in [
        (FEATURES, FEATURES, REWIND),
        (FEATURES | 1 << 40, FEATURES, REWIND),
        (FEATURES, FEATURES | 1 << 41, REWIND),
        (FEATURES, 0, 0),
        (0, FEATURES, 0),
    ] {
        let (theirs, ours) = meet(&with(mux), with(guest), SEALED).peers.unwrap();
        assert_eq!((theirs.features, ours.features), (agreed, agreed), "{mux:x} and {guest:x}");
    }
}

#[test]
fn this_build_speaks_what_the_vectors_are_of() {
    assert_eq!(PROTOCOLS, (1, 1), "a new version needs vectors of its own beside those of v1");
}
