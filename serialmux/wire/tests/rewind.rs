//! An end whose memory went back in time: each way to find it out, and what an older peer sees of it.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use it, too, and from outside")]
#[path = "sim/forger.rs"]
mod forger;

use forger::{Forger, at, drain, records};
use wire::frame::{Deframer, Frame};
use wire::record::{Ack, Record, Records, ResetCode};
use wire::{ChannelId, Class, Direction, Event, Instant, Link, LinkConfig, Open};

fn told(id: ChannelId, bytes: &[u8], ended: bool, link: &Link) -> Record<'static> {
    let mut digest = link.blank_digest();
    digest.update(bytes);
    Record::Digest { channel: id, offset: digest.offset(), ended, state: digest.state() }
}

// A guest that has written "hello" and may have ended it.
fn writer(features: u64, ends: bool) -> (Link, Forger, ChannelId) {
    let (mut link, forger) = Forger::mux(LinkConfig { features, ..LinkConfig::uart() });
    let open = Open { direction: Direction::ToMux, class: Class::Log, label: vec![1] };
    let id = link.open_channel(open).unwrap();
    link.write(id, b"hello");
    if ends {
        link.finish(id);
    }
    (link, forger, id)
}

fn opening(id: u32, label: &'static [u8], written: u64) -> Record<'static> {
    Record::Open {
        channel: ChannelId(id),
        direction: Direction::ToMux,
        fresh: true,
        class: Class::Log,
        next: 0,
        limit: written,
        label,
    }
}

// Everything the link says, in the clear, as its records' debug form.
fn said(link: &mut Link, now: Instant) -> Vec<String> {
    let mut line = Vec::new();
    while link.poll_transmit(now, &mut line) {}
    let (mut deframer, mut input, mut said) = (Deframer::new(32 * 1024), &line[..], Vec::new());
    while let Some(Frame::Packet { packet, .. }) = deframer.next(&mut input) {
        if packet.first().is_some_and(|first| first & 0x1f == 6) {
            let body = &packet[6..packet.len() - 4];
            said.extend(Records::new(body).flatten().map(|record| format!("{record:?}")));
        }
    }
    said
}

fn resets(said: &[String], code: ResetCode) -> bool {
    said.iter()
        .any(|it| it.starts_with("Reset") && it.ends_with(&format!("code: {} }}", code as u64)))
}

#[test]
fn a_mux_that_has_other_bytes_of_the_same_length_is_not_given_more() {
    for (bytes, ended, is_same) in
        [(&b"hello"[..], false, true), (b"hallo", false, false), (b"hell", true, false)]
    {
        let (mut link, mut forger, id) = writer(LinkConfig::uart().features, false);
        let n = bytes.len() as u64;
        let accept = Record::Accept { channel: id, next: n, released: n, limit: 9_000 };
        let body = records(&[told(id, bytes, ended, &link), accept]);
        link.handle_bytes(at(1), &forger.frame(&body));
        let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
        assert_eq!(!events.contains(&Event::RolledBack(id)), is_same, "{bytes:?}");
        // In place of its OPEN, too, which the mux is not yet known to have.
        assert_eq!(resets(&said(&mut link, at(2)), ResetCode::CarriedRolledBack), !is_same);
        assert_eq!(link.write(id, b"more") > 0, is_same);
        assert_eq!(link.stats().rollbacks, u64::from(!is_same));
    }
}

// Seeds 8385 and 22762: one byte was left out, and both ends waited.
#[test]
fn a_stream_that_ended_at_the_mux_does_not_go_on_at_a_restored_guest() {
    let (mut link, mut forger, id) = writer(LinkConfig::uart().features, true);
    let accept = Record::Accept { channel: id, next: 5, released: 5, limit: 9_000 };
    let body = records(&[told(id, b"hell", true, &link), accept]);
    link.handle_bytes(at(1), &forger.frame(&body));
    assert!(drain(&mut link, at(1)).contains(&Event::RolledBack(id)));
}

#[test]
fn more_released_than_was_ever_written_is_a_rollback() {
    let (mut link, mut forger, id) = writer(0, false);
    let release = Record::Release { channel: id, released: 6, limit: 9_000 };
    link.handle_bytes(at(1), &forger.frame(&records(&[release])));
    assert!(drain(&mut link, at(1)).contains(&Event::RolledBack(id)));
}

#[test]
fn a_channel_of_another_kind_under_a_known_id_is_not_the_same_one() {
    let (mut link, mut forger) = Forger::guest(LinkConfig::uart_mux());
    link.handle_bytes(at(1), &forger.frame(&records(&[opening(0, b"a", 0)])));
    drain(&mut link, at(1));
    link.accept(ChannelId(0), 0);
    link.handle_bytes(at(2), &forger.frame(&records(&[opening(0, b"a", 0)])));
    assert!(!drain(&mut link, at(2)).contains(&Event::RolledBack(ChannelId(0))));
    link.handle_bytes(at(3), &forger.frame(&records(&[opening(0, b"b", 0)])));
    assert!(drain(&mut link, at(3)).contains(&Event::RolledBack(ChannelId(0))));
}

#[test]
fn a_channel_that_has_ended_is_not_spoken_of_again_by_a_guest_that_remembers() {
    for (features, code) in [(1, ResetCode::RolledBack), (0, ResetCode::Unknown)] {
        let config = LinkConfig { features, ..LinkConfig::uart_mux() };
        let (mut link, mut forger) = Forger::guest(config);
        let gone = Record::Reset { channel: ChannelId(0), code: 2 };
        link.handle_bytes(at(1), &forger.frame(&records(&[opening(0, b"a", 0), gone])));
        drain(&mut link, at(1));
        link.handle_bytes(at(2), &forger.frame(&records(&[opening(0, b"a", 7)])));
        let rolled_back = std::iter::from_fn(|| link.poll_event())
            .any(|event| event == Event::RolledBack(ChannelId(0)));
        assert_eq!(rolled_back, features == 1);
        assert!(resets(&said(&mut link, at(2)), code), "features {features}");
    }
}

#[test]
fn a_packet_number_used_for_another_packet_ends_the_session_and_a_repeated_one_does_not() {
    let (mut link, mut forger) = Forger::guest(LinkConfig::uart_mux());
    let first = forger.frame(&records(&[opening(0, b"a", 0)]));
    for frame in [&first, &first] {
        link.handle_bytes(at(1), frame);
    }
    assert!(link.is_live());
    assert_eq!((link.stats().duplicates, link.stats().rollbacks), (1, 0));
    forger.skip(0_u32.wrapping_sub(1));
    link.handle_bytes(at(2), &forger.frame(&records(&[opening(1, b"b", 0)])));
    assert!(!link.is_live(), "the guest's keys are not to be used any more");
    assert_eq!((link.stats().duplicates, link.stats().rollbacks), (1, 1));
    assert!(drain(&mut link, at(3)).iter().any(|it| matches!(it, Event::Lost { .. })));
}

#[test]
fn a_packet_older_than_any_line_repeats_ends_the_session() {
    let (mut link, mut forger) = Forger::guest(LinkConfig::uart_mux());
    let first = forger.frame(&records(&[Record::Ping]));
    link.handle_bytes(at(1), &first);
    for i in 0..127 {
        link.handle_bytes(at(2 + i), &forger.frame(&records(&[Record::Ping])));
    }
    link.handle_bytes(at(200), &first);
    assert!(link.is_live(), "128 packets are known again");
    link.handle_bytes(at(201), &forger.frame(&records(&[Record::Ping])));
    link.handle_bytes(at(202), &first);
    assert!(!link.is_live());
}

#[test]
fn an_end_that_forgot_what_it_sent_or_received_is_heard_no_more_and_told_nothing() {
    let acks = |list: &[&[(u64, u64)]]| -> Vec<Vec<u8>> {
        let ack = |ranges: &&[(u64, u64)]| {
            records(&[Record::Ack(Ack { delay_us: 0, ranges: ranges.to_vec() })])
        };
        list.iter().map(ack).collect()
    };
    for (what, bodies, lives) in [
        ("in order", acks(&[&[(0, 0)], &[(0, 1)], &[(0, 2)]]), true),
        ("never sent", acks(&[&[(0, 400)]]), false),
        ("less than before", acks(&[&[(0, 2)], &[(0, 1)]]), false),
        ("a hole that was filled", acks(&[&[(0, 1)], &[(2, 2), (0, 0)]]), false),
    ] {
        let (mut link, mut forger, _) = writer(LinkConfig::uart().features, false);
        for i in 0..4 {
            link.handle_bytes(at(i * 100), &forger.frame(&records(&[Record::Ping])));
            link.ping();
            drain(&mut link, at(i * 100 + 50));
        }
        bodies.iter().for_each(|body| link.handle_bytes(at(500), &forger.frame(body)));
        assert_eq!(link.is_live(), lives, "{what}");
        assert_eq!(link.stats().rollbacks, u64::from(!lives), "{what}");
        let said = said(&mut link, at(501));
        assert!(
            !said.iter().any(|it| it.starts_with("Close")),
            "{what}: keys used twice seal nothing"
        );
    }
}

// A copy of a packet that was damaged the first time comes after a newer one, and knows less.
#[test]
fn an_older_acknowledgement_that_comes_late_takes_nothing_back() {
    let (mut link, mut forger, _) = writer(LinkConfig::uart().features, false);
    for i in 0..3 {
        link.handle_bytes(at(i * 100), &forger.frame(&records(&[Record::Ping])));
        link.ping();
        drain(&mut link, at(i * 100 + 50));
    }
    let ack = |high| records(&[Record::Ack(Ack { delay_us: 0, ranges: vec![(0, high)] })]);
    let (older, newer) = (forger.frame(&ack(0)), forger.frame(&ack(1)));
    link.handle_bytes(at(400), &newer);
    link.handle_bytes(at(401), &older);
    assert!(link.is_live());
}

#[test]
fn ids_that_the_mux_has_seen_are_not_used_twice() {
    let (mut link, mut forger, id) = writer(LinkConfig::uart().features, false);
    assert_eq!(id, ChannelId(0));
    link.handle_bytes(at(1), &forger.frame(&records(&[Record::Used { below: 40 }])));
    let open = || Open { direction: Direction::ToMux, class: Class::Log, label: vec![1] };
    assert_eq!(link.open_channel(open()), Ok(ChannelId(40)));
    assert_eq!(link.stats().rollbacks, 1);
    // However large: there are ids left.
    link.handle_bytes(at(2), &forger.frame(&records(&[Record::Used { below: u64::MAX >> 2 }])));
    assert!(link.open_channel(open()).is_ok());
}

#[test]
fn an_older_peer_is_told_of_no_digests_and_ids() {
    for features in [0, 1] {
        let config = LinkConfig { features, ..LinkConfig::uart_mux() };
        let (mut link, mut forger) = Forger::guest(config);
        link.handle_bytes(at(1), &forger.frame(&records(&[opening(0, b"a", 5)])));
        drain(&mut link, at(1));
        link.accept(ChannelId(0), 0);
        let data = Record::Data { channel: ChannelId(0), offset: 0, fin: true, bytes: b"hello" };
        link.handle_bytes(at(2), &forger.frame(&records(&[data])));
        assert_eq!(&link.read(ChannelId(0), 99)[..], b"hello");
        link.close(ChannelId(0));
        let said = said(&mut link, at(3));
        assert!(said.iter().any(|it| it.starts_with("Release")));
        assert_eq!(said.iter().any(|it| it.starts_with("Digest")), features == 1, "{said:?}");
    }
}
