//! Sessions that follow each other: what a channel that nobody has decided on does, and what a replay does not.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use it, too, and from outside")]
#[path = "sim/forger.rs"]
mod forger;
#[allow(dead_code, reason = "the simulator uses the rest")]
#[path = "sim/rng.rs"]
mod rng;

use forger::{Forger, at, records};
use rng::Rng;
use wire::frame::{Deframer, Frame};
use wire::record::{Record, Records};
use wire::{
    ChannelId, Class, Direction, Entropy, Event, Greeter, Greeting, GuestIdentity, Instant, Link,
    LinkConfig, Open, Protection, Psk,
};

// The ACCEPTs that a link sends, each as the offset at which it goes on.
fn accepts(link: &mut Link, now: Instant) -> Vec<u64> {
    let mut line = Vec::new();
    while link.poll_transmit(now, &mut line) {}
    let (mut deframer, mut input, mut found) = (Deframer::new(32 * 1024), &line[..], Vec::new());
    while let Some(Frame::Packet { packet, .. }) = deframer.next(&mut input) {
        let body = packet.get(6..packet.len() - 4).unwrap_or_default();
        for record in Records::new(body).flatten() {
            if let Record::Accept { next, .. } = record {
                found.push(next);
            }
        }
    }
    found
}

#[test]
fn a_channel_that_its_owner_has_not_decided_on_is_not_accepted_by_a_new_session() {
    let config = LinkConfig::uart_mux();
    let open = |fresh, limit| {
        let (channel, direction, class) = (ChannelId(0), Direction::ToMux, Class::Log);
        records(&[Record::Open { channel, direction, fresh, class, next: 0, limit, label: b"x" }])
    };
    let (mut link, mut forger) = Forger::guest(config.clone());
    link.handle_bytes(at(1), &forger.frame(&open(true, 0)));
    assert_eq!(accepts(&mut link, at(2)), []);
    let mut forger = Forger::reconnect(&mut link, &config);
    link.handle_bytes(
        at(3),
        &forger.frame(&[open(false, 9), records(&[Record::Roster { carried: 1 }])].concat()),
    );
    assert_eq!(accepts(&mut link, at(4)), [], "its owner has said nothing yet");
    link.accept(ChannelId(0), 7);
    assert_eq!(accepts(&mut link, at(5)), [7], "and then it is the owner's word that counts");
}

// As when a guest was put back to before it used an id, and the mux was restarted since. Seed 301241.
#[test]
fn what_an_owner_has_under_a_fresh_id_or_of_other_bytes_is_not_gone_on_with() {
    let config = LinkConfig::uart_mux();
    let channel = ChannelId(0);
    for (fresh, content, is_same) in
        [(true, &b"hel"[..], false), (false, b"hel", true), (false, b"hal", false)]
    {
        let (mut link, mut forger) = Forger::guest(config.clone());
        let (direction, class) = (Direction::ToMux, Class::Log);
        let open =
            Record::Open { channel, direction, fresh, class, next: 0, limit: 5, label: b"x" };
        let data = Record::Data { channel, offset: 0, fin: false, bytes: b"hello" };
        link.handle_bytes(at(1), &forger.frame(&records(&[open, data])));
        let mut digest = link.blank_digest();
        digest.update(content);
        link.accept_known(channel, 3, digest);
        let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
        assert_eq!(!events.contains(&Event::RolledBack(channel)), is_same, "{content:?}");
        assert_eq!(&link.read(channel, 99)[..], if is_same { &b"lo"[..] } else { b"" });
    }
}

fn entropy(seed: u8) -> Entropy {
    let mut rng = Rng(seed.into());
    Box::new(move |bytes| rng.fill(bytes))
}

// A mux comes; returns its link and the HELLO that made it.
fn meet(guest: &mut Link, now: Instant, seed: u8) -> (Link, Vec<u8>) {
    let config = LinkConfig::uart_mux();
    let mut greeter = Greeter::new(&config, [2; 16], entropy(seed), now);
    let (mut solicit, mut up) = (Vec::new(), Vec::new());
    greeter.poll_transmit(now, &mut solicit);
    guest.handle_bytes(now, &solicit);
    guest.handle_timeout(now);
    while guest.poll_transmit(now, &mut up) {}
    assert!(matches!(greeter.handle_bytes(now, &mut &up[..]), Some(Greeting::Asked(_))));
    greeter.offer(now, &Psk::derive(b"key"), Protection::Sealed).unwrap();
    let mut hello = Vec::new();
    greeter.poll_transmit(now, &mut hello);
    guest.handle_bytes(now, &hello);
    up.clear();
    while guest.poll_transmit(now, &mut up) {}
    let Some(Greeting::Established(session)) = greeter.handle_bytes(now, &mut &up[..]) else {
        panic!("the reply opens");
    };
    (Link::mux(config, *session, now), hello)
}

fn exchange(guest: &mut Link, mux: &mut Link, now: Instant) {
    for _ in 0..4 {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while mux.poll_transmit(now, &mut down) {}
        guest.handle_bytes(now, &down);
        while guest.poll_transmit(now, &mut up) {}
        mux.handle_bytes(now, &up);
        while let Some(event) = mux.poll_event() {
            if let Event::Opened { channel, .. } = event {
                mux.accept(channel, 0);
            }
        }
    }
}

#[test]
fn a_hello_that_is_replayed_does_not_end_the_session_that_is_up() {
    let (psk, agent) = (Psk::derive(b"key"), "sessions".to_owned());
    let identity = GuestIdentity { psk, protection: Protection::Sealed, boot_id: [1; 16], agent };
    let mut guest = Link::guest(LinkConfig::uart(), identity, entropy(1), at(0));
    let open = Open { direction: Direction::ToMux, class: Class::Log, label: vec![7] };
    let id = guest.open_channel(open).unwrap();
    let (_, first_hello) = meet(&mut guest, at(0), 10);
    let (mut mux, second_hello) = meet(&mut guest, at(1_000_000), 77);
    exchange(&mut guest, &mut mux, at(1_000_100));
    let sessions = guest.stats().sessions;
    for (i, hello) in [&first_hello, &second_hello, &first_hello].into_iter().enumerate() {
        let now = at(2_000_000 + i as u64 * 1_000_000);
        guest.handle_bytes(now, hello);
        guest.write(id, b"goes on");
        exchange(&mut guest, &mut mux, now);
        assert_eq!(&mux.read(id, 99)[..], b"goes on");
    }
    assert_eq!(guest.stats().sessions, sessions, "none of them made a session");
}

#[test]
fn a_little_is_not_sent_with_much_else_while_somebody_types() {
    let (psk, agent) = (Psk::derive(b"key"), "sessions".to_owned());
    let identity = GuestIdentity { psk, protection: Protection::Sealed, boot_id: [1; 16], agent };
    let mut guest = Link::guest(LinkConfig::uart(), identity, entropy(1), at(0));
    let mut open =
        |direction, class| guest.open_channel(Open { direction, class, label: vec![7] }).unwrap();
    let input = open(Direction::ToGuest, Class::Exec);
    let echo = open(Direction::ToMux, Class::Exec);
    let flood = open(Direction::ToMux, Class::Log);
    let (mut mux, _) = meet(&mut guest, at(0), 10);
    exchange(&mut guest, &mut mux, at(100));

    let frames = |guest: &mut Link, mux: &mut Link, now| {
        assert_eq!((guest.write(echo, b"x"), guest.write(flood, &[7; 600])), (1, 600));
        let (mut line, mut lens) = (Vec::new(), Vec::new());
        while guest.poll_transmit(now, &mut line) {
            mux.handle_bytes(now, &line);
            lens.push(line.len());
            line.clear();
        }
        assert_eq!(&mux.read(echo, 99)[..], b"x");
        lens[0]
    };
    let first = frames(&mut guest, &mut mux, at(200_000));
    assert!(first > 200, "nobody types: {first}");
    exchange(&mut guest, &mut mux, at(200_100));
    mux.write(input, b"x");
    exchange(&mut guest, &mut mux, at(300_000));
    assert!(guest.is_attentive(at(300_000)));
    let first = frames(&mut guest, &mut mux, at(300_100));
    assert!(first < 100, "somebody waits for it: {first}");
    exchange(&mut guest, &mut mux, at(300_200));
    assert!(!guest.is_attentive(at(900_000)));
    let first = frames(&mut guest, &mut mux, at(900_000));
    assert!(first > 200, "nobody types any more: {first}");
}
