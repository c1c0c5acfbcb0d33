//! Two ends joined by memory: on a perfect line nothing is lost, damaged or sent twice.
#![allow(clippy::unwrap_used, reason = "a test may")]

use wire::{
    ChannelId, Class, Direction, Entropy, Event, Greeter, Greeting, GuestIdentity, Instant, Link,
    LinkConfig, Open, Protection, Psk,
};

fn entropy(mut state: u8) -> Entropy {
    Box::new(move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(31).wrapping_add(7);
            *byte = state;
        }
    })
}

fn guest(protection: Protection) -> (Link, ChannelId) {
    let (psk, agent) = (Psk::derive(b"key"), "loopback".to_owned());
    let identity = GuestIdentity { psk, protection, boot_id: [1; 16], agent };
    let now = Instant::from_micros(0);
    let mut guest = Link::guest(LinkConfig::uart(), identity, entropy(1), now);
    let open = Open { direction: Direction::ToMux, class: Class::Log, label: vec![7; 200] };
    let channel = guest.open_channel(open).unwrap();
    (guest, channel)
}

fn introduce(guest: &mut Link, protection: Protection, now: &mut u64) -> Link {
    let at = Instant::from_micros;
    let mut greeter = Greeter::new(&LinkConfig::uart_mux(), [2; 16], entropy(9), at(*now));
    loop {
        *now += 1000;
        let mut line = Vec::new();
        greeter.poll_transmit(at(*now), &mut line);
        guest.handle_bytes(at(*now), &line);
        line.clear();
        while guest.poll_transmit(at(*now), &mut line) {}
        let mut input = &line[..];
        while let Some(greeting) = greeter.handle_bytes(at(*now), &mut input) {
            match greeting {
                Greeting::Asked(_) => {
                    greeter.offer(at(*now), &Psk::derive(b"key"), protection).unwrap();
                }
                Greeting::Established(session) => {
                    return Link::mux(LinkConfig::uart_mux(), *session, at(*now));
                }
                Greeting::Rejected(text) => panic!("{text}"),
            }
        }
    }
}

fn receive(mux: &mut Link, received: &mut Vec<u8>) {
    while let Some(event) = mux.poll_event() {
        match event {
            Event::Opened { channel, .. } => mux.accept(channel, 0),
            Event::Readable(channel) => loop {
                let bytes = mux.read(channel, 64 * 1024);
                if bytes.is_empty() {
                    break;
                }
                received.extend_from_slice(&bytes);
                mux.release(channel, received.len() as u64);
            },
            _ => {}
        }
    }
}

/// The mux takes what has come, and the guest what it says to that.
fn answer(guest: &mut Link, mux: &mut Link, received: &mut Vec<u8>, at: Instant) {
    receive(mux, received);
    let mut line = Vec::new();
    while mux.poll_transmit(at, &mut line) {}
    guest.handle_bytes(at, &line);
    guest.handle_timeout(at);
    mux.handle_timeout(at);
    while guest.poll_event().is_some() {}
}

#[test]
fn a_perfect_line_loses_nothing_at_full_packet_size() {
    for protection in [Protection::Sealed, Protection::Plain] {
        let (mut guest, channel) = guest(protection);
        let mut now = 0;
        let mut mux = introduce(&mut guest, protection, &mut now);
        let sent: Vec<u8> =
            (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut written, mut received, mut largest) = (0, Vec::new(), 0);
        while received.len() < sent.len() {
            now += 200;
            let at = Instant::from_micros(now);
            written += guest.write(channel, &sent[written..]);
            let mut line = Vec::new();
            for _ in 0..4 {
                line.clear();
                if !guest.poll_transmit(at, &mut line) {
                    break;
                }
                largest = largest.max(line.len());
                mux.handle_bytes(at, &line);
            }
            answer(&mut guest, &mut mux, &mut received, at);
        }
        assert!(received == sent);
        assert!(largest > 4000, "packets grow with the line's rate; the largest was {largest}");
        let lost = (guest.stats().lost, mux.stats().noise_bytes, mux.stats().damaged);
        assert_eq!(lost, (0, 0, 0), "{protection:?}");
    }
}

#[test]
fn while_somebody_types_packets_are_short() {
    let (mut guest, up) = guest(Protection::Sealed);
    let open = Open { direction: Direction::ToGuest, class: Class::Terminal, label: vec![8] };
    let down = guest.open_channel(open).unwrap();
    let mut now = 0;
    let mut mux = introduce(&mut guest, Protection::Sealed, &mut now);
    let (output, mut received) = (vec![7; 64 * 1024], Vec::new());
    // The next packet of a flood, over a line of 1 MB/s; until when, in µs, and how long it was.
    let mut next = |keys: &[u8]| {
        guest.write(up, &output);
        mux.write(down, keys);
        let mut line = Vec::new();
        // Without one it is for the mux to release something, in a while.
        let has_sent = guest.poll_transmit(Instant::from_micros(now), &mut line);
        now += if has_sent { line.len() as u64 } else { 1000 };
        let (at, len) = (Instant::from_micros(now), line.len());
        mux.handle_bytes(at, &line);
        answer(&mut guest, &mut mux, &mut received, at);
        (now, len)
    };
    let mut largest = |n, keys: &[u8]| (0..n).map(|_| next(keys)).max_by_key(|it| it.1).unwrap();
    assert!(largest(300, b"").1 > 4000);
    let (typed, _) = largest(1, b"x");
    loop {
        let (at, len) = largest(10, b"");
        if at > typed + u64::try_from(wire::config::ATTENTION.as_micros()).unwrap() {
            break;
        }
        assert!(len < 1200, "{len} bytes, {} µs after a key", at - typed);
    }
    assert!(largest(20, b"").1 > 4000);
    // What comes in bulk is nobody's typing.
    largest(1, &[b'x'; 3000]);
    assert!(largest(20, b"").1 > 4000);
}
