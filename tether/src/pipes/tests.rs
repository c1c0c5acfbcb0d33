//! Tests of several pipes to a multiplexer in the same process: taking over, falling back, climbing again.

use std::os::unix::net::UnixStream;

use crate::line::Line;
use crate::peer::{connected, until};
use crate::uplink::Uplink;
use wire::Transport;

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
