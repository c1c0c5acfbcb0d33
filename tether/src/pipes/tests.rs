//! Tests of several pipes to a multiplexer in the same process: taking over, falling back, climbing again.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::{Context, Waker};

use super::{Pipes, REST};
use crate::line::Line;
use crate::peer::{connected, until};
use crate::uplink::Uplink;
use wire::message::label;
use wire::{
    Class, Direction, GuestIdentity, Instant, Link, LinkConfig, Protection, Psk, Standby, Transport,
};

fn plug(uplink: &mut Uplink, transport: Transport) -> UnixStream {
    let (near, far) = UnixStream::pair().expect("a socket pair");
    uplink.pipes().add(Line::over(near.into(), transport).expect("a line"));
    far
}

fn turn(uplink: &mut Uplink, _: &mut crate::peer::Peer) {
    uplink.turn(|_| {}).unwrap();
}

#[tokio::test]
async fn a_better_pipe_takes_over_and_a_broken_one_is_left() {
    let (mut uplink, mut peer) = connected();
    until(&mut uplink, &mut peer, turn, |_, peer| peer.channels.len() == 2).await;
    assert_eq!(uplink.transport(), Transport::Uart);
    for round in 0..3 {
        let virtio = plug(&mut uplink, Transport::Virtio);
        peer.plug(virtio);
        until(&mut uplink, &mut peer, turn, |uplink, peer| {
            uplink.transport() == Transport::Virtio && peer.pipes() == 2
        })
        .await;
        uplink.say(wire::message::guest::Body::Reply(wire::message::guest::Reply {
            request: round,
            ..Default::default()
        }));
        // Cut at the other end while something is on its way.
        turn(&mut uplink, &mut peer);
        peer.unplug();
        until(&mut uplink, &mut peer, turn, |uplink, _| {
            uplink.transport() == Transport::Uart && uplink.is_drained()
        })
        .await;
    }
    let heard: Vec<u64> = peer
        .heard()
        .into_iter()
        .map(|body| match body {
            wire::message::guest::Body::Reply(reply) => reply.request,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(heard, [0, 1, 2]);
}

#[tokio::test]
async fn a_serial_port_is_given_one_long_frame_before_something_is_heard() {
    let (mut uplink, mut peer) = connected();
    until(&mut uplink, &mut peer, turn, |_, peer| peer.channels.len() == 2).await;
    let kind = label::Kind::Output(label::Output::default());
    let channel = uplink.open(Direction::ToMux, Class::Log, kind).unwrap();
    assert_eq!(uplink.link().write(channel, &[7; 100_000]), 100_000);
    let mut n_frames = 0;
    let step = |uplink: &mut Uplink, _: &mut crate::peer::Peer| {
        uplink.hear(|_| {}).unwrap();
        n_frames += u32::from(uplink.speak(|_| {}).unwrap());
    };
    let all = |peer: &crate::peer::Peer| peer.received.get(&channel).map_or(0, Vec::len) == 100_000;
    until(&mut uplink, &mut peer, step, |_, peer| all(peer)).await;
    assert!(n_frames >= 20, "{n_frames}");
}

#[tokio::test]
async fn a_worse_pipe_makes_itself_known_and_rests() {
    let (mut uplink, mut peer) = connected();
    until(&mut uplink, &mut peer, turn, |_, peer| peer.channels.len() == 2).await;
    let virtio = plug(&mut uplink, Transport::Virtio);
    peer.plug(virtio);
    until(&mut uplink, &mut peer, turn, |uplink, _| uplink.transport() == Transport::Virtio).await;
    let vsock = plug(&mut uplink, Transport::Vsock);
    peer.plug(vsock);
    until(&mut uplink, &mut peer, turn, |_, peer| peer.resting().contains(&Transport::Vsock)).await;
    assert_eq!(uplink.transport(), Transport::Virtio);
}

#[tokio::test]
async fn the_rest_of_a_long_frame_is_gathered_and_its_absence_is_not_waited_for() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let line = Line::over(near.into(), Transport::Uart).unwrap();
    let (psk, protection) = (Psk::derive(b"key"), Protection::Plain);
    let identity = GuestIdentity { psk, protection, boot_id: [1; 16], agent: "test".to_owned() };
    let at = |n: u32| Instant::from_micros(1_000_000) + n * REST / 2;
    let standby = |it| Standby::new(it, identity.clone(), Box::new(|_| {}), at(0));
    let mut pipes = Pipes::new(line, standby, at(0));
    let mut link =
        Link::guest(LinkConfig::uart(), identity.clone(), Box::new(|bytes| bytes.fill(1)), at(0));
    let is_told = |pipes: &Pipes| {
        let wait = pin!(pipes.wait());
        wait.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    let mut take = |pipes: &mut Pipes, n| {
        pipes.receive(&mut link, at(n)).unwrap();
        link.partial()
    };

    // Little of a frame may be all of a keystroke's.
    far.write_all(&[1; 14]).unwrap();
    pipes.wait().await.unwrap();
    assert_eq!((take(&mut pipes, 0), pipes.deadline(None)), (14, None));
    far.write_all(&[1; 86]).unwrap();
    pipes.wait().await.unwrap();
    assert_eq!((take(&mut pipes, 0), pipes.deadline(None)), (100, Some(at(2))));
    far.write_all(&[1; 50]).unwrap();
    assert!(!is_told(&pipes));
    assert_eq!(take(&mut pipes, 1), 100);
    assert_eq!((take(&mut pipes, 2), pipes.deadline(None)), (150, Some(at(4))));
    assert_eq!((take(&mut pipes, 4), pipes.deadline(None)), (150, None));
    far.write_all(&[1; 14]).unwrap();
    pipes.wait().await.unwrap();
    assert_eq!(take(&mut pipes, 5), 164);
}
