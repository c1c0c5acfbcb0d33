//! Traps of the link, one by one: what a hostile peer, a restored snapshot or an odd line does.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "the simulator uses the rest")]
#[path = "sim/disk.rs"]
mod disk;
#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use it, too, and from outside")]
#[path = "sim/forger.rs"]
mod forger;
#[allow(dead_code, reason = "the simulator uses the rest")]
#[path = "sim/rng.rs"]
mod rng;

use disk::Log;
use forger::{Forger, at, drain, records};
use rng::Rng;
use wire::record::{Record, put};
use wire::{ChannelId, Class, Direction, Duration, Event, Link, LinkConfig, Open};

fn open(id: u32, fresh: bool, limit: u64) -> Record<'static> {
    Record::Open {
        channel: ChannelId(id),
        direction: Direction::ToMux,
        fresh,
        class: Class::Log,
        next: 0,
        limit,
        label: b"x",
    }
}

fn writing(link: &mut Link, bytes: usize) -> ChannelId {
    let open = Open { direction: Direction::ToMux, class: Class::Log, label: vec![1] };
    let id = link.open_channel(open).unwrap();
    assert_eq!(link.write(id, &vec![7; bytes]), bytes);
    id
}

#[test]
fn random_records_under_a_good_key_never_panic_or_fill_memory() {
    for seed in 0..300 {
        let mut rng = Rng(seed);
        for is_mux in [true, false] {
            let config = if is_mux { LinkConfig::uart_mux() } else { LinkConfig::uart() };
            let limits = config.clone();
            let (mut link, mut forger) =
                if is_mux { Forger::guest(config) } else { Forger::mux(config) };
            for i in 0..60 {
                let mut body = vec![0; rng.below(90) as usize];
                rng.fill(&mut body);
                if let Some(kind) = body.first_mut() {
                    *kind = [1, 2, 3, 4, 5, 6, 7, 0x10, 0x11, 0x50][rng.below(10) as usize];
                }
                link.handle_bytes(at(i * 9_000), &forger.frame(&body));
                drain(&mut link, at(i * 9_000));
                assert!(link.memory() <= limits.memory_limit(link.channels()), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_guest_that_opens_and_drops_every_other_id_fills_no_memory() {
    let config = LinkConfig { max_channels: 16, ..LinkConfig::uart_mux() };
    let limit = config.memory_limit(0);
    let (mut link, mut forger) = Forger::guest(config);
    for i in 0..100_000 {
        let channel = ChannelId(i * 2);
        let body = records(&[open(i * 2, true, 0), Record::Reset { channel, code: 2 }]);
        link.handle_bytes(at(1), &forger.frame(&body));
        drain(&mut link, at(1));
    }
    assert!(link.memory() <= limit, "{} of {limit}", link.memory());
}

#[test]
fn scattered_pieces_end_the_session_before_they_fill_memory() {
    let config = LinkConfig::uart_mux();
    let limit = config.memory_limit(1);
    let (mut link, mut forger) = Forger::guest(config);
    link.handle_bytes(at(1), &forger.frame(&records(&[open(0, true, 0)])));
    drain(&mut link, at(1));
    link.accept(ChannelId(0), 0);
    drain(&mut link, at(2));
    for i in 0..6_000 {
        let channel = ChannelId(0);
        let piece = Record::Data { channel, offset: 1 + i * 2, fin: false, bytes: b"x" };
        link.handle_bytes(at(3), &forger.frame(&records(&[piece])));
        drain(&mut link, at(3));
    }
    assert!(!link.is_live() && link.memory() <= limit);
}

#[test]
fn a_silent_peer_is_asked_for_a_year_in_constant_memory() {
    let (mut link, _) = Forger::mux(LinkConfig::uart());
    let (mut line, mut now) = (Vec::new(), at(0));
    link.ping();
    let mut most = 0;
    for _ in 0..100_000 {
        while link.poll_transmit(now, &mut line) {}
        line.clear();
        most = most.max(link.memory());
        now = link.poll_timeout().unwrap_or(now + Duration::from_secs(5)).max(now);
        link.handle_timeout(now);
    }
    assert!(most < 10_000, "{most} bytes");
}

#[test]
fn a_mux_with_a_silent_guest_sleeps() {
    let (mut link, _) = Forger::guest(LinkConfig::uart_mux());
    let (mut line, mut now, mut wakings) = (Vec::new(), at(0), 0);
    while now < at(3_600_000_000) {
        link.handle_timeout(now);
        while link.poll_transmit(now, &mut line) {}
        let due = link.poll_timeout().unwrap();
        assert!(due > now, "a due timer stays due");
        (now, wakings) = (due, wakings + 1);
    }
    assert!(wakings < 900, "{wakings} wakings an hour");
}

#[test]
fn a_blocked_line_leaves_no_timer_due() {
    let (mut link, mut forger) = Forger::guest(LinkConfig::uart_mux());
    link.handle_bytes(at(1), &forger.frame(&records(&[Record::Ping])));
    link.handle_timeout(at(2));
    assert!(link.poll_timeout().is_none_or(|due| due > at(2)));
}

#[test]
fn a_mux_that_has_more_than_the_guest_ever_wrote_is_told_of_a_rollback() {
    let (mut link, mut forger) = Forger::mux(LinkConfig::uart());
    let id = writing(&mut link, 500);
    let accept = Record::Accept { channel: id, next: 900, released: 900, limit: 9_000 };
    link.handle_bytes(at(1), &forger.frame(&records(&[accept])));
    assert!(drain(&mut link, at(1)).contains(&Event::RolledBack(id)));
    assert_eq!(link.write(id, b"never spliced"), 0);
}

#[test]
fn a_mux_that_lost_what_it_called_durable_is_told_of_a_rollback() {
    let (mut link, mut forger) = Forger::mux(LinkConfig::uart());
    let id = writing(&mut link, 500);
    let release = Record::Release { channel: id, released: 400, limit: 9_000 };
    link.handle_bytes(at(1), &forger.frame(&records(&[release])));
    drain(&mut link, at(1));
    let accept = Record::Accept { channel: id, next: 300, released: 300, limit: 9_000 };
    link.handle_bytes(at(2), &forger.frame(&records(&[accept])));
    assert!(drain(&mut link, at(2)).contains(&Event::RolledBack(id)));
}

#[test]
fn nothing_is_durable_after_a_sync_has_failed() {
    let mut log = Log::default();
    log.write(b"abc");
    assert!(log.sync(3, true));
    log.write(b"def");
    assert!(!log.sync(6, false));
    assert!(!log.sync(6, true), "the page cache is not to be trusted any more");
    log.lose_power();
    assert_eq!((log.durable(), &log.bytes[..]), (3, &b"abc"[..]));
}

#[test]
fn a_terminal_flood_and_bulk_do_not_starve_each_other() {
    // Without the feature that has bytes wait for the mux's ACCEPT.
    let (mut link, mut forger) = Forger::mux(LinkConfig { features: 0, ..LinkConfig::uart() });
    let ids: Vec<_> = [Class::Terminal, Class::Exec, Class::Log, Class::Bulk]
        .map(|class| {
            let open = Open { direction: Direction::ToMux, class, label: vec![1] };
            link.open_channel(open).unwrap()
        })
        .into();
    let (mut sent, mut line) = ([0_u64; 4], Vec::new());
    link.handle_bytes(at(0), &forger.frame(&records(&[Record::Ping])));
    for turn in 1..3_000_u64 {
        let now = at(turn * 8_000);
        for id in &ids {
            link.write(*id, &[7; 4_000]);
        }
        line.clear();
        let mut body = Vec::new();
        if link.poll_transmit(now, &mut line) {
            for (channel, end) in data_in(&line) {
                let i = ids.iter().position(|id| *id == channel).unwrap();
                sent[i] = sent[i].max(end);
            }
            let number = link.stats().packets_out;
            let high = number.saturating_sub(2);
            let ack = wire::record::Ack { delay_us: 0, ranges: vec![(0, high.min(turn - 1))] };
            put(&mut body, &Record::Ack(ack));
        }
        for (channel, released) in ids.iter().zip(sent) {
            let limit = released + 60_000;
            put(&mut body, &Record::Release { channel: *channel, released, limit });
        }
        link.handle_bytes(now, &forger.frame(&body));
        if turn == 1_500 {
            assert!(sent.iter().all(|sent| *sent > 2_000), "{sent:?} in 12 s");
        }
        while link.poll_event().is_some() {}
        assert!(link.is_live(), "turn {turn}");
    }
    assert!(sent[0] > sent[1] && sent[1] > sent[2] && sent[2] > sent[3], "{sent:?}");
}

fn data_in(line: &[u8]) -> Vec<(ChannelId, u64)> {
    let mut deframer = wire::frame::Deframer::new(32 * 1024);
    let (mut input, mut found) = (line, Vec::new());
    while let Some(wire::frame::Frame::Packet { packet, .. }) = deframer.next(&mut input) {
        let body = &packet[6..packet.len() - 4];
        for record in wire::record::Records::new(body).flatten() {
            if let Record::Data { channel, offset, bytes, .. } = record {
                found.push((channel, offset + bytes.len() as u64));
            }
        }
    }
    found
}

#[test]
fn what_waits_where_is_told_by_class() {
    let (mut link, mut forger) = Forger::mux(LinkConfig::uart());
    assert_eq!((link.gauges().window, link.gauges().rate), (0, None), "no session is proven yet");
    link.handle_bytes(at(1), &forger.frame(&records(&[Record::Ping])));
    let id = writing(&mut link, 5_000);
    let log = |link: &Link| link.gauges().depths[Class::Log as usize];
    assert_eq!((log(&link).channels, log(&link).queued, log(&link).unreleased), (1, 5_000, 5_000));
    let mut line = Vec::new();
    while link.poll_transmit(at(2), &mut line) {}
    assert_eq!((log(&link).queued, log(&link).unreleased), (0, 5_000));
    assert!(link.gauges().in_flight >= 5_000);
    // All but the last packet are lost; the first two were of the handshake.
    let last = link.stats().packets_out - 3;
    let ack = wire::record::Ack { delay_us: 0, ranges: vec![(last, last)] };
    link.handle_bytes(at(9_000), &forger.frame(&records(&[Record::Ack(ack)])));
    let (stats, depths) = (link.stats(), log(&link));
    assert!(stats.lost > 0 && stats.resent_records >= stats.lost);
    assert_eq!(stats.resent_bytes, depths.queued);
    assert!(depths.queued > 4_000 && link.gauges().in_flight == 0 && link.gauges().rtt.is_some());
    let release = Record::Release { channel: id, released: 3_000, limit: 9_000 };
    link.handle_bytes(at(9_100), &forger.frame(&records(&[release])));
    assert_eq!(log(&link).unreleased, 2_000);
    link.handle_bytes(at(9_200), b"\0noise\0");
    assert_eq!(link.stats().resyncs, 1);
}
