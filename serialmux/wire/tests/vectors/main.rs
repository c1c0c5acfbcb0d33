//! The bytes of protocol version 1, as released: what is here may be added to and never changed.
//!
//! `VECTORS_WRITE=1` writes files that do not exist yet; one that exists is only ever compared.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod golden;
mod messages;

use golden::{check, released};
use prost::Message as _;
use wire::chunk::{Entry, Gap, Reader, Stream, Writer};
use wire::handshake::{GuestHello, MuxHello};
use wire::pack::{Budget, Packer, Unpacker};
use wire::packet::{Header, Kind, clear};
use wire::record::{Ack, Record, Records, put};
use wire::{
    ChannelId, Class, Direction, Entropy, Greeter, Greeting, GuestIdentity, Instant, Link,
    LinkConfig, Open, Protection, Psk, frame, varint,
};

#[test]
fn numbers_and_frames_are_as_released() {
    let mut numbers = Vec::new();
    for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, varint::MAX] {
        varint::put(&mut numbers, value);
    }
    check("varints", &numbers);
    for (name, packet) in [
        ("frame-short", b"packet".to_vec()),
        ("frame-zeros", vec![0; 5]),
        ("frame-254", vec![1; 254]),
        ("frame-600", (0..600_u32).map(|i| i as u8).collect()),
    ] {
        let mut line = Vec::new();
        frame::encode(&packet, &mut line);
        check(name, &line);
    }
}

#[test]
fn clear_packets_are_as_released() {
    let kinds = [Kind::Beacon, Kind::Hello, Kind::HelloReply, Kind::Reject, Kind::Solicit];
    for kind in kinds {
        let packet = clear(Header { kind, tag: 0xa5, number: 0x0403_0201 }, b"body");
        check(&format!("packet-{kind:?}").to_lowercase(), &packet);
    }
    let psk = Psk::derive(b"key material");
    check("key-id", &psk.id().0);
}

#[test]
fn records_are_as_released() {
    let channel = ChannelId(70);
    let open = |direction, fresh| Record::Open {
        channel,
        direction,
        fresh,
        class: Class::Log,
        next: 5,
        limit: 1 << 40,
        label: b"label",
    };
    let ack = Ack { delay_us: 900, ranges: vec![(90, 99), (70, 88), (0, 0)] };
    for (name, record) in [
        ("ping", Record::Ping),
        ("ack", Record::Ack(ack)),
        ("open-to-mux-fresh", open(Direction::ToMux, true)),
        ("open-to-guest-carried", open(Direction::ToGuest, false)),
        ("accept", Record::Accept { channel, next: 300, released: 200, limit: 70_000 }),
        ("release", Record::Release { channel, released: 200, limit: 70_000 }),
        ("reset", Record::Reset { channel, code: 2 }),
        ("roster", Record::Roster { carried: 3 }),
        ("digest", Record::Digest { channel, offset: 1 << 33, ended: false, state: [0xd5; 16] }),
        ("used", Record::Used { below: 71 }),
        ("reset-rolled-back", Record::Reset { channel, code: 5 }),
        ("close", Record::Close { code: 1, text: "why" }),
        ("data", Record::Data { channel, offset: 1 << 33, fin: false, bytes: b"bytes" }),
        ("data-end", Record::Data { channel, offset: 9, fin: true, bytes: b"" }),
    ] {
        let mut out = Vec::new();
        put(&mut out, &record);
        check(&format!("record-{name}"), &out);
        assert_eq!(Records::new(&out).collect::<Vec<_>>(), vec![Ok(record)]);
    }
}

fn time(reader: &mut Reader) -> u64 {
    match reader.next_entry().unwrap().unwrap().0 {
        Entry::Output(chunk) => chunk.time_us,
        Entry::Gap(gap) => gap.first_us,
    }
}

#[test]
fn output_entries_are_as_released() {
    let (mut writer, mut out) = (Writer::default(), Vec::new());
    writer.push(Stream::Stdout, 1_700_000_000_000_000, b"out\n", &mut out);
    writer.push(Stream::Stderr, 1_699_999_999_999_990, b"", &mut out);
    check("chunks", &out);
    let mut reader = Reader::default();
    reader.push(&out);
    assert_eq!(time(&mut reader), 1_700_000_000_000_000);
    assert_eq!(time(&mut reader), 1_699_999_999_999_990);
}

#[test]
fn gaps_are_as_released() {
    let (mut writer, mut out) = (Writer::default(), Vec::new());
    let first_us = 1_700_000_000_000_000;
    let gap = Gap { bytes: 1 << 20, lines: 9000, first_us, last_us: first_us + 60_000_000 };
    writer.gap(&gap, &mut out);
    check("gap", &out);
    let mut reader = Reader::default();
    reader.push(&out);
    assert_eq!(reader.next_entry().unwrap().unwrap().0, Entry::Gap(gap));
}

/// What a packer makes may change with its compressor; what was made once must stay readable.
#[test]
fn packed_streams_are_read_as_released() {
    let plain: Vec<u8> =
        (0..600).flat_map(|i| format!("line {i} of a log\n").into_bytes()).collect();
    let packed = released("pack", || {
        let (mut packer, mut out) = (Packer::new(&Budget::new(1)), Vec::new());
        plain.chunks(900).for_each(|piece| packer.push(piece, &mut out));
        out
    });
    assert!(packed.len() * 4 < plain.len());
    let mut unpacker = Unpacker::default();
    unpacker.push(&packed);
    let mut found = Vec::new();
    while let Some(block) = unpacker.next_block().unwrap() {
        found.extend(block.plain);
    }
    assert_eq!(found, plain);
}

#[test]
fn hello_payloads_are_as_released() {
    let hello = MuxHello {
        proto_min: 1,
        proto_max: 1,
        features: 3,
        instance: vec![1; 16],
        max_packet: 4096,
        nonce: 7,
    };
    let reply = GuestHello {
        proto: 1,
        features: 1,
        boot_id: vec![2; 16],
        agent: "agent 1".into(),
        max_packet: 4096,
        ..GuestHello::default()
    };
    check("hello-payload", &hello.encode_to_vec());
    check("hello-reply-payload", &reply.encode_to_vec());
}

fn counting(from: u8) -> Entropy {
    let mut next = from;
    Box::new(move |bytes| {
        for byte in bytes {
            (*byte, next) = (next, next.wrapping_add(1));
        }
    })
}

// From the first beacon to the first bytes of a channel, with random bytes that are not.
fn session(name: &str, protection: Protection, features: u64) {
    let (at, psk) = (Instant::default(), Psk::derive(b"key material"));
    let identity =
        GuestIdentity { psk: psk.clone(), protection, boot_id: [2; 16], agent: "agent 1".into() };
    let max_packet = 4096;
    let config = LinkConfig { features, max_packet, ..LinkConfig::uart() };
    let mut guest = Link::guest(config, identity, counting(1), at);
    let open = Open { direction: Direction::ToMux, class: Class::Log, label: b"label".to_vec() };
    let id = guest.open_channel(open).unwrap();
    guest.write(id, b"hello, mux");
    guest.finish(id);
    // Delimiters that fill a FIFO up are no part of it.
    let config = LinkConfig { features, max_packet, align: 0, ..LinkConfig::uart_mux() };
    let mut greeter = Greeter::new(&config, [1; 16], counting(100), at);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let step = |what: &str, line: &[u8]| check(&format!("{name}-{what}"), line);
    assert!(guest.poll_transmit(at, &mut up));
    step("1-beacon", &up);
    assert!(matches!(greeter.handle_bytes(at, &mut &up[..]), Some(Greeting::Asked(_))));
    greeter.offer(at, &psk, protection).unwrap();
    assert!(greeter.poll_transmit(at, &mut down));
    step("2-hello", &down);
    guest.handle_bytes(at, &down);
    up.clear();
    assert!(guest.poll_transmit(at, &mut up));
    step("3-hello-reply", &up);
    let Some(Greeting::Established(session)) = greeter.handle_bytes(at, &mut &up[..]) else {
        panic!("the reply does not open");
    };
    let mut mux = Link::mux(config, *session, at);
    down.clear();
    assert!(mux.poll_transmit(at, &mut down));
    step("4-first-of-mux", &down);
    guest.handle_bytes(at, &down);
    up.clear();
    while guest.poll_transmit(at, &mut up) {}
    step("5-first-of-guest", &up);
    mux.handle_bytes(at, &up);
    mux.accept(id, 0);
    if features != 0 {
        // Bytes follow the mux's word on what it has, and with the answer to their end goes what it was.
        down.clear();
        while mux.poll_transmit(at, &mut down) {}
        step("6-second-of-mux", &down);
        guest.handle_bytes(at, &down);
        up.clear();
        while guest.poll_transmit(at, &mut up) {}
        step("7-second-of-guest", &up);
        mux.handle_bytes(at, &up);
    }
    assert_eq!(&mux.read(id, 99)[..], b"hello, mux");
    if features != 0 {
        mux.close(id);
        down.clear();
        while mux.poll_transmit(at, &mut down) {}
        step("8-third-of-mux", &down);
        guest.handle_bytes(at, &down);
        assert!(std::iter::from_fn(|| guest.poll_event()).any(|it| it == wire::Event::Closed(id)));
    }
}

#[test]
fn a_session_of_all_features_begins_as_released() {
    session("featured", Protection::Sealed, wire::config::FEATURES);
    session("featured-plain", Protection::Plain, wire::config::FEATURES);
}

#[test]
fn a_sealed_session_begins_as_released() {
    session("sealed", Protection::Sealed, 0);
}

#[test]
fn a_plain_session_begins_as_released() {
    session("plain", Protection::Plain, 0);
}
