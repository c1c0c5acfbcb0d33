//! Well-formed records in any order, under good keys, mixed with what the owner of the link does.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serialmux_fuzz::forger::{Forger, drain};
use wire::record::{Ack, Record, put};
use wire::{ChannelId, Class, Direction, Instant, LinkConfig, Open};

#[derive(Debug, Arbitrary)]
enum Op {
    Ping,
    Ack { high: u8, len: u8 },
    Open { channel: u8, to_guest: bool, fresh: bool, class: u8, next: u16, limit: u32 },
    Accept { channel: u8, next: u32, released: u32, limit: u32 },
    Release { channel: u8, released: u32, limit: u32 },
    Reset { channel: u8, code: u8 },
    Roster(u8),
    Data { channel: u8, offset: u32, fin: bool, len: u16 },
    Digest { channel: u8, offset: u32, ended: bool, state: u8 },
    Used(u32),
    Skip(u16),
    Wait(u32),
    OwnOpen { to_guest: bool, class: u8 },
    OwnWrite { channel: u8, len: u16 },
    OwnRead { channel: u8, len: u16 },
    OwnRelease { channel: u8, offset: u32 },
    OwnAccept { channel: u8, next: u32 },
    OwnAcceptKnown { channel: u8, next: u16, content: u8 },
    OwnFinish(u8),
    OwnClose(u8),
    OwnAbandon(u8),
    OwnRefuse(u8),
}

fn id(channel: u8) -> ChannelId {
    ChannelId(u32::from(channel % 8))
}

fn class(byte: u8) -> Class {
    Class::ALL[usize::from(byte) % Class::ALL.len()]
}

fn direction(to_guest: bool) -> Direction {
    if to_guest { Direction::ToGuest } else { Direction::ToMux }
}

fuzz_target!(|input: (bool, Vec<Op>)| {
    let (is_mux, ops) = input;
    let config = if is_mux { LinkConfig::uart_mux() } else { LinkConfig::uart() };
    let limits = config.clone();
    let (mut link, mut forger) = if is_mux { Forger::guest(config) } else { Forger::mux(config) };
    let zeros = [0; 1 << 16];
    let mut now = 0;
    for op in &ops {
        let mut body = Vec::new();
        match *op {
            Op::Ping => put(&mut body, &Record::Ping),
            Op::Ack { high, len } => {
                let (low, high) = (high.saturating_sub(len), high);
                let ack = Ack { delay_us: 5, ranges: vec![(low.into(), high.into())] };
                put(&mut body, &Record::Ack(ack));
            }
            Op::Open { channel, to_guest, fresh, class: byte, next, limit } => {
                let open = Record::Open {
                    channel: id(channel),
                    direction: direction(to_guest),
                    fresh,
                    class: class(byte),
                    next: next.into(),
                    limit: limit.into(),
                    label: b"label",
                };
                put(&mut body, &open);
            }
            Op::Accept { channel, next, released, limit } => {
                let (next, released, limit) = (next.into(), released.into(), limit.into());
                put(&mut body, &Record::Accept { channel: id(channel), next, released, limit });
            }
            Op::Release { channel, released, limit } => {
                let (released, limit) = (released.into(), limit.into());
                put(&mut body, &Record::Release { channel: id(channel), released, limit });
            }
            Op::Reset { channel, code } => {
                put(&mut body, &Record::Reset { channel: id(channel), code: code.into() });
            }
            Op::Roster(n) => put(&mut body, &Record::Roster { carried: n.into() }),
            Op::Data { channel, offset, fin, len } => {
                let bytes = &zeros[..usize::from(len % 4000)];
                let offset = u64::from(offset % 300_000);
                put(&mut body, &Record::Data { channel: id(channel), offset, fin, bytes });
            }
            Op::Digest { channel, offset, ended, state } => {
                let (channel, offset) = (id(channel), offset.into());
                put(&mut body, &Record::Digest { channel, offset, ended, state: [state; 16] });
            }
            Op::Used(below) => put(&mut body, &Record::Used { below: below.into() }),
            Op::Skip(n) => forger.skip(n.into()),
            Op::Wait(us) => now += u64::from(us),
            Op::OwnOpen { to_guest, class: byte } => {
                if !is_mux && link.channels() < 8 {
                    let (direction, class) = (direction(to_guest), class(byte));
                    link.open_channel(Open { direction, class, label: vec![1] }).expect("room");
                }
            }
            Op::OwnWrite { channel, len } => {
                link.write(id(channel), &zeros[..usize::from(len)]);
            }
            Op::OwnRead { channel, len } => drop(link.read(id(channel), len.into())),
            Op::OwnRelease { channel, offset } => link.release(id(channel), offset.into()),
            Op::OwnAccept { channel, next } => link.accept(id(channel), next.into()),
            Op::OwnAcceptKnown { channel, next, content } => {
                let mut digest = link.blank_digest();
                digest.update(&vec![content; next.into()]);
                link.accept_known(id(channel), next.into(), digest);
            }
            Op::OwnFinish(channel) => link.finish(id(channel)),
            Op::OwnClose(channel) => link.close(id(channel)),
            Op::OwnAbandon(channel) => link.abandon(id(channel)),
            Op::OwnRefuse(channel) => link.refuse(id(channel)),
        }
        let at = Instant::from_micros(now);
        if !body.is_empty() {
            link.handle_bytes(at, &forger.frame(&body));
        }
        drain(&mut link, at);
        assert!(link.memory() <= limits.memory_limit(link.channels()));
        assert!(link.poll_timeout().is_none_or(|due| due > at), "a due timer stays due");
    }
});
