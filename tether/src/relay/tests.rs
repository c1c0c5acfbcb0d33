//! Tests of the relays with real pipes, and a multiplexer in the same process.

use super::output::REST;
use super::*;
use crate::stdio::{self, Stdio};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use wire::chunk::{Entry, Gap, Stream};
use wire::message::label;
use wire::pack::Packer;
use wire::{Class, Direction, LinkConfig};

use crate::peer::{self, Peer, connected, until};
use crate::stdio::ChildStdio;
use crate::uplink::{News, Uplink};

fn output_label() -> label::Kind {
    label::Kind::Output(label::Output { session: "s".to_owned(), tty: false, packed: true })
}

fn input_label() -> label::Kind {
    label::Kind::Input(label::Input { session: "s".to_owned(), ..label::Input::default() })
}

fn open_output(uplink: &mut Uplink, tty: bool) -> OutputRelay {
    let channel = uplink.open(Direction::ToMux, Class::Log, output_label()).unwrap();
    OutputRelay::new(channel, tty, Some(Packer::new(uplink.budget(true))))
}

/// What an output channel's bytes say.
fn entries(bytes: &[u8]) -> Vec<Entry> {
    peer::entries(bytes, true)
}

/// Bytes of a block of input.
const BLOCK: usize = 8192;

/// Input, packed.
fn blocks(bytes: &[u8]) -> Vec<u8> {
    let (mut line, mut packer) = (Vec::new(), Packer::new(&wire::pack::Budget::new(1)));
    bytes.chunks(BLOCK).for_each(|piece| packer.push(piece, &mut line));
    line
}

fn file(end: Option<OwnedFd>) -> std::fs::File {
    end.expect("a pipe").into()
}

#[tokio::test]
async fn both_outputs_arrive_with_their_streams_and_then_the_end() {
    let (mut uplink, mut peer) = connected();
    let (mut stdio, child) = Stdio::open(false, false).unwrap();
    let ChildStdio { stdout, stderr, .. } = child;
    let (mut stdout, mut stderr) = (file(stdout), file(stderr));
    let mut relay = open_output(&mut uplink, false);
    let channel = relay.channel();
    stdout.write_all(b"out").unwrap();
    stderr.write_all(b"err").unwrap();
    drop((stdout, stderr));
    let mut flow = Flow::Idle;
    let step = |uplink: &mut Uplink, _: &mut Peer| {
        flow = relay.turn(&mut stdio, uplink.link());
        if flow == Flow::Ended {
            uplink.link().finish(channel);
        }
        uplink.turn(|_| {}).unwrap();
    };
    until(&mut uplink, &mut peer, step, |_, peer| peer.finished.contains(&channel)).await;
    assert_eq!(relay.bytes(), 6);
    let mut found = Vec::new();
    for entry in entries(&peer.received[&channel]) {
        let Entry::Output(chunk) = entry else { panic!("nothing was dropped") };
        assert!(chunk.time_us > 1_600_000_000_000_000, "wall-clock time");
        found.push((chunk.stream, chunk.bytes.to_vec()));
    }
    assert_eq!(found, [(Stream::Stdout, b"out".to_vec()), (Stream::Stderr, b"err".to_vec())]);
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let step = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let states = std::iter::successors(Some(7u64), step);
    states.map(|state| (state >> 56) as u8).take(len).collect()
}

/// Fills the channel and says how many bytes the relay took out of the pipe for it.
async fn fill(tty: bool) -> u64 {
    let (mut uplink, _peer) = connected();
    let (mut stdio, child) = Stdio::open(false, false).unwrap();
    let mut relay = open_output(&mut uplink, tty);
    let mut stdout = file(child.stdout);
    stdio::set_nonblocking(&stdout).unwrap();
    let (mut written, noise) = (0, noise(4096));
    for _ in 0..1000 {
        if let Ok(len) = stdout.write(&noise) {
            written += len as u64;
        }
        tokio::task::yield_now().await;
        if relay.turn(&mut stdio, uplink.link()) == Flow::Stuck {
            assert!(relay.is_stuck());
            assert!(written >= relay.bytes());
            return relay.bytes();
        }
    }
    panic!("the channel has no end");
}

#[tokio::test]
async fn a_full_channel_leaves_output_in_the_pipe() {
    let capacity = LinkConfig::uart().send_buffer as u64;
    let taken = fill(false).await;
    assert!(taken <= capacity && taken > capacity - 8192, "{taken} of {capacity}");
}

#[tokio::test]
async fn a_terminal_runs_less_far_ahead() {
    let taken = fill(true).await;
    assert!(taken < 64 * 1024, "{taken}");
}

#[tokio::test]
async fn a_process_that_is_not_to_wait_goes_on_and_what_was_dropped_is_told_in_its_place() {
    let (mut uplink, mut peer) = connected();
    let (mut stdio, child) = Stdio::open(false, false).unwrap();
    let max = 200_000;
    let mut relay = open_output(&mut uplink, false);
    relay.set_backlog(Some((max, WhenFull::Drop)));
    let channel = relay.channel();
    let mut stdout = file(child.stdout);
    drop(child.stderr);
    let sent = noise(2_000_000);
    // Nobody is there: the channel fills, then the backlog, and the writer never waits for long.
    for piece in sent.chunks(4096) {
        stdout.write_all(piece).unwrap();
        tokio::task::yield_now().await;
        relay.turn(&mut stdio, uplink.link());
    }
    drop(stdout);
    let dropped = relay.dropped();
    assert!(dropped > 1_000_000 && relay.backlog() <= max as u64, "{dropped}");
    let step = |uplink: &mut Uplink, _: &mut Peer| {
        if relay.turn(&mut stdio, uplink.link()) == Flow::Ended {
            uplink.link().finish(channel);
        }
        uplink.turn(|_| {}).unwrap();
    };
    until(&mut uplink, &mut peer, step, |_, peer| peer.finished.contains(&channel)).await;
    let (mut gaps, mut at) = (0, 0);
    for entry in entries(&peer.received[&channel]) {
        match entry {
            Entry::Output(chunk) => {
                assert_eq!(chunk.bytes, sent[at..at + chunk.bytes.len()]);
                at += chunk.bytes.len();
            }
            Entry::Gap(Gap { bytes, lines, first_us, last_us }) => {
                let lost = &sent[at..at + usize::try_from(bytes).unwrap()];
                assert_eq!(lines, lost.iter().filter(|byte| **byte == b'\n').count() as u64);
                assert!(first_us <= last_us);
                (gaps, at) = (gaps + 1, at + lost.len());
            }
        }
    }
    assert_eq!((gaps, at), (1, sent.len()));
}

#[tokio::test]
async fn unwanted_output_is_read_and_dropped_so_that_the_process_goes_on() {
    let (mut uplink, _peer) = connected();
    let (mut stdio, child) = Stdio::open(false, false).unwrap();
    let mut relay = open_output(&mut uplink, false);
    relay.discard();
    let mut stdout = file(child.stdout);
    drop(child.stderr);
    for _ in 0..200 {
        stdout.write_all(&[b'x'; 4096]).unwrap();
        tokio::task::yield_now().await;
        relay.turn(&mut stdio, uplink.link());
    }
    drop(stdout);
    tokio::task::yield_now().await;
    while relay.turn(&mut stdio, uplink.link()) != Flow::Ended {
        tokio::task::yield_now().await;
    }
    assert_eq!(relay.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn crumbs_are_gathered_and_an_answer_is_not() {
    let (mut uplink, _peer) = connected();
    let (mut stdio, child) = Stdio::open(false, false).unwrap();
    let mut stdout = file(child.stdout);
    let mut relay = open_output(&mut uplink, false);
    let mut write = |bytes: &[u8]| stdout.write_all(bytes).unwrap();
    write(b"a");
    assert_eq!((relay.turn(&mut stdio, uplink.link()), relay.bytes()), (Flow::Moved, 1));
    (0..100).for_each(|_| write(b"b"));
    assert_eq!((relay.turn(&mut stdio, uplink.link()), relay.bytes()), (Flow::Idle, 1));
    assert!(relay.rests_until().is_some());
    tokio::time::advance(REST).await;
    assert_eq!((relay.turn(&mut stdio, uplink.link()), relay.bytes()), (Flow::Moved, 101));
    write(b"c");
    assert_eq!(relay.turn(&mut stdio, uplink.link()), Flow::Idle);
    relay.rouse();
    assert_eq!((relay.turn(&mut stdio, uplink.link()), relay.bytes()), (Flow::Moved, 102));
    // What comes in large pieces is not made to wait.
    tokio::time::advance(REST).await;
    (0..4).for_each(|_| write(&[b'd'; 4096]));
    assert_eq!(relay.turn(&mut stdio, uplink.link()), Flow::Moved);
    assert!(relay.bytes() > 102 + 8192, "{}", relay.bytes());
}

#[tokio::test]
async fn the_end_of_output_is_told_with_the_last_of_it() {
    let (mut uplink, _peer) = connected();
    let (mut stdio, child) = Stdio::open(false, false).unwrap();
    let mut relay = open_output(&mut uplink, false);
    // No crumb, after which more is waited for.
    file(child.stdout).write_all(&noise(3000)).unwrap();
    drop(child.stderr);
    assert_eq!((relay.turn(&mut stdio, uplink.link()), relay.bytes()), (Flow::Ended, 3000));
}

#[tokio::test]
async fn output_that_moves_is_not_stuck_although_it_fills_the_room() {
    let (mut uplink, mut peer) = connected();
    let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, step, |uplink, _| uplink.sessions() > 0).await;
    let (mut stdio, child) = Stdio::open(false, false).unwrap();
    let mut relay = open_output(&mut uplink, false);
    file(child.stdout).write_all(&noise(60_000)).unwrap();
    assert!(uplink.link().is_live() && uplink.link().is_scarce());
    assert_eq!(relay.turn(&mut stdio, uplink.link()), Flow::Moved);
    assert!(relay.is_stuck() && relay.bytes() < 60_000);
    assert_eq!(relay.turn(&mut stdio, uplink.link()), Flow::Stuck);
}

#[tokio::test]
async fn input_arrives_whole_and_its_end_closes_the_pipe() {
    let (mut uplink, mut peer) = connected();
    let (mut stdio, child) = Stdio::open(false, true).unwrap();
    let channel = uplink.open(Direction::ToGuest, Class::Exec, input_label()).unwrap();
    let mut relay = InputRelay::new(Some(channel), false);
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let (mut offered, mut finished) = (0, false);
    let mut stdin = file(child.stdin);
    stdio::set_nonblocking(&stdin).unwrap();
    let (mut found, ended) = (Vec::new(), std::cell::Cell::new(false));
    let step = |uplink: &mut Uplink, peer: &mut Peer| {
        if let Some(link) = peer.link.as_mut().filter(|_| peer.channels.contains_key(&channel)) {
            offered += link.write(channel, &sent[offered..]);
            if offered == sent.len() && !finished {
                link.finish(channel);
                finished = true;
            }
        }
        let mut over = false;
        uplink.turn(|item| over |= item == News::Finished(channel)).unwrap();
        if over {
            relay.finish();
        }
        relay.turn(&mut stdio, uplink.link());
        let mut buffer = [0; 65536];
        match stdin.read(&mut buffer) {
            Ok(0) => ended.set(true),
            Ok(len) => found.extend_from_slice(&buffer[..len]),
            Err(_nothing_now) => {}
        }
    };
    until(&mut uplink, &mut peer, step, |_, _| ended.get()).await;
    assert_eq!(found.len(), sent.len());
    assert_eq!(found, sent);
    assert_eq!(relay.channel(), None);
}

#[tokio::test]
async fn packed_input_goes_on_with_another_multiplexer_where_it_was() {
    let (mut uplink, mut peer) = connected();
    let (mut stdio, child) = Stdio::open(false, true).unwrap();
    stdio::set_nonblocking(child.stdin.as_ref().unwrap()).unwrap();
    let mut stdin = file(child.stdin);
    let channel = uplink.open(Direction::ToGuest, Class::Exec, input_label()).unwrap();
    let mut relay = InputRelay::new(Some(channel), true);
    let sent: Vec<u8> = (0..20_000).flat_map(|i| format!("{i} lines\n").into_bytes()).collect();
    let mut found = Vec::<u8>::new();
    // Ends in the middle of a block, which only the multiplexer that began it could go on with.
    let mut line = blocks(&sent[..100_000]);
    line.truncate(line.len() - 7);
    let (mut channel, mut went_on) = (channel, false);
    let whole = std::cell::Cell::new(false);
    let step = |uplink: &mut Uplink, peer: &mut Peer| {
        if let Some(link) = peer.link.as_mut().filter(|_| peer.channels.contains_key(&channel)) {
            let taken = link.write(channel, &line);
            line.drain(..taken);
        }
        uplink.turn(|_| {}).unwrap();
        relay.turn(&mut stdio, uplink.link());
        let mut buffer = [0; 65536];
        found.extend(stdin.read(&mut buffer).map_or(&[][..], |len| &buffer[..len]));
        whole.set(found.len() >= sent.len());
        let last_whole_block = 100_000 - 100_000 % BLOCK;
        if !went_on && found.len() == last_whole_block {
            let (old, came) = relay.bound(uplink.link()).unwrap();
            assert_eq!((old, came), (channel, last_whole_block as u64));
            uplink.link().abandon(old);
            channel = uplink.open(Direction::ToGuest, Class::Exec, input_label()).unwrap();
            relay.replace(channel);
            (line, went_on) = (blocks(&sent[last_whole_block..]), true);
        }
    };
    until(&mut uplink, &mut peer, step, |_, _| whole.get()).await;
    assert_eq!(found, sent);
}

#[tokio::test]
async fn input_that_nobody_reads_gives_up_its_channel() {
    let (mut uplink, mut peer) = connected();
    let (mut stdio, child) = Stdio::open(false, true).unwrap();
    let channel = uplink.open(Direction::ToGuest, Class::Exec, input_label()).unwrap();
    let mut relay = InputRelay::new(Some(channel), false);
    drop(child.stdin);
    let (mut offered, gone) = (false, std::cell::Cell::new(false));
    let step = |uplink: &mut Uplink, peer: &mut Peer| {
        if let Some(link) =
            peer.link.as_mut().filter(|_| peer.channels.contains_key(&channel) && !offered)
        {
            offered = link.write(channel, b"lost") > 0;
        }
        uplink.turn(|_| {}).unwrap();
        relay.turn(&mut stdio, uplink.link());
        gone.set(relay.channel().is_none());
    };
    until(&mut uplink, &mut peer, step, |_, _| gone.get()).await;
}
