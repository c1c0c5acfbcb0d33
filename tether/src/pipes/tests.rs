//! Tests of several pipes to a multiplexer in the same process: taking over, falling back, climbing again.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::{Context, Waker};

use super::{Pipes, REST};
use crate::line::Line;
use crate::peer::{connected, identity, until};
use crate::uplink::Uplink;
use wire::message::label;
use wire::{
    ChannelId, Class, Direction, Duration, Event, Greeter, Greeting, Instant, Link, LinkConfig,
    Open, Protection, Standby, Transport,
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
    assert_eq!(uplink.link().write(channel, &[7; 250_000]), 250_000);
    let mut n_frames = 0;
    let step = |uplink: &mut Uplink, _: &mut crate::peer::Peer| {
        uplink.hear(|_| {}).unwrap();
        n_frames += u32::from(uplink.speak(|_| {}).unwrap());
    };
    let all = |peer: &crate::peer::Peer| peer.received.get(&channel).map_or(0, Vec::len) == 250_000;
    until(&mut uplink, &mut peer, step, |_, peer| all(peer)).await;
    assert!(n_frames >= 15, "{n_frames}");
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

/// A guest over a socket pair, at a moment of the test's choice.
struct Still {
    pipes: Pipes,
    link: Link,
    far: UnixStream,
    now: Instant,
}

impl Still {
    fn new() -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let now = Instant::from_micros(1_000_000);
        let standby = |it| Standby::new(it, identity(), Box::new(|_| {}), now);
        let line = Line::over(near.into(), Transport::Uart).unwrap();
        let pipes = Pipes::new(line, standby, now);
        let link =
            Link::guest(LinkConfig::uart(), identity(), Box::new(|bytes| bytes.fill(1)), now);
        Self { pipes, link, far, now }
    }

    /// What it says, long or not.
    fn says(&mut self) -> Vec<u8> {
        while self.pipes.transmit(&mut self.link, self.now).unwrap() {}
        let mut said = vec![0; 65536];
        let len = self.far.read(&mut said).unwrap_or(0);
        said.truncate(len);
        said
    }

    async fn hears(&mut self, bytes: &[u8]) {
        self.far.write_all(bytes).unwrap();
        if !bytes.is_empty() {
            self.pipes.wait().await.unwrap();
        }
        self.pipes.receive(&mut self.link, self.now).unwrap();
    }

    /// A multiplexer that it has a session with, and that has accepted its channels.
    async fn meets(&mut self) -> Link {
        let config = LinkConfig { align: 0, ..LinkConfig::uart_mux() };
        let mut greeter = Greeter::new(&config, [7; 16], Box::new(|it| it.fill(2)), self.now);
        let mut mux = None;
        for _ in 0..10 {
            let (said, mut answer) = (self.says(), Vec::new());
            let mut said = &said[..];
            while mux.is_none()
                && let Some(greeting) = greeter.handle_bytes(self.now, &mut said)
            {
                match greeting {
                    Greeting::Asked(_) => {
                        greeter.offer(self.now, &identity().psk, Protection::Plain).unwrap();
                    }
                    Greeting::Established(session) => {
                        mux = Some(Link::mux(config.clone(), *session, self.now));
                    }
                    Greeting::Rejected(text) => panic!("{text}"),
                }
            }
            if let Some(mux) = &mut mux {
                mux.handle_bytes(self.now, said);
                while let Some(event) = mux.poll_event() {
                    if let Event::Opened { channel, .. } = event {
                        mux.accept(channel, 0);
                    }
                }
                while mux.poll_transmit(self.now, &mut answer) {}
            } else {
                greeter.poll_transmit(self.now, &mut answer);
            }
            self.hears(&answer).await;
        }
        mux.expect("a session")
    }
}

fn typed(mux: &mut Link, channel: ChannelId, now: Instant) -> Vec<u8> {
    assert_eq!(mux.write(channel, b"x"), 1);
    let mut frame = Vec::new();
    assert!(mux.poll_transmit(now, &mut frame));
    frame
}

#[tokio::test]
async fn nothing_is_said_while_the_rest_of_a_keystroke_or_its_answer_is_on_its_way() {
    let mut guest = Still::new();
    let mut open = |direction, class| {
        guest.link.open_channel(Open { direction, class, label: Vec::new() }).unwrap()
    };
    let input = open(Direction::ToGuest, Class::Exec);
    let output = open(Direction::ToMux, Class::Log);
    let mut mux = guest.meets().await;
    let has_more = |guest: &mut Still| assert_eq!(guest.link.write(output, &[7; 1000]), 1000);
    let key = typed(&mut mux, input, guest.now);

    // Who has not typed is not waited for.
    guest.hears(&key[..14]).await;
    has_more(&mut guest);
    assert!(!guest.says().is_empty());
    guest.hears(&key[14..]).await;
    has_more(&mut guest);
    assert!(!guest.says().is_empty());

    let key = typed(&mut mux, input, guest.now);
    guest.hears(&key[..14]).await;
    has_more(&mut guest);
    assert_eq!(guest.says(), []);
    assert_eq!(guest.pipes.deadline(None), Some(guest.now + Duration::from_millis(1)));
    guest.hears(&key[14..]).await;
    assert_eq!(guest.link.read(input, 9), "xx");
    guest.pipes.asked(&guest.link, guest.now);
    assert_eq!(guest.says(), []);
    guest.pipes.answered();
    assert!(!guest.says().is_empty());

    // One that never comes is not waited for, either.
    let key = typed(&mut mux, input, guest.now);
    guest.hears(&key[..14]).await;
    has_more(&mut guest);
    assert_eq!(guest.says(), []);
    guest.now = guest.now + Duration::from_millis(1);
    assert!(!guest.says().is_empty());
}

#[tokio::test]
async fn the_rest_of_a_long_frame_is_gathered_and_its_absence_is_not_waited_for() {
    let Still { mut pipes, mut link, mut far, now } = Still::new();
    let at = |n: u32| now + n * REST / 2;
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
