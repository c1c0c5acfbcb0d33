//! A multiplexer's end of the link for tests, over a socket pair instead of a serial port.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use prost::Message;
use wire::chunk::{Entry, Reader};
use wire::message::{self, GuestMessage, Label, MuxMessage, guest, label, mux};
use wire::pack::Unpacker;
use wire::{
    ChannelId, Direction, Event, Greeter, Greeting, GuestIdentity, Link, LinkConfig, Protection,
    Psk, Standby, Transport,
};

use crate::clock::Clock;
use crate::line::Line;
use crate::pipes::Pipes;
use crate::uplink::Uplink;

/// The other end, driven by [`Peer::turn`].
pub(crate) struct Peer {
    start: Instant,
    ends: Vec<End>,
    /// Which of them the session is on.
    current: Option<usize>,
    instance: u8,
    pub(crate) link: Option<Link>,
    /// Every channel the guest opened, with its label.
    pub(crate) channels: BTreeMap<ChannelId, (Direction, label::Kind)>,
    /// What was read of each channel, all of it released.
    pub(crate) received: BTreeMap<ChannelId, Vec<u8>>,
    pub(crate) finished: Vec<ChannelId>,
    /// Channels whose bytes are neither read nor released.
    pub(crate) deaf: bool,
}

/// One pipe, with the greeter that has it while the session is elsewhere.
struct End {
    pipe: UnixStream,
    greeter: Greeter,
    /// The guest has made itself known here.
    resting: Option<Transport>,
}

impl End {
    fn new(pipe: UnixStream, instance: u8) -> Self {
        pipe.set_nonblocking(true).expect("non-blocking");
        Self { pipe, greeter: greeter(instance, false), resting: None }
    }

    /// What the guest is told; a guest that has let go of the pipe is told nothing.
    fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.pipe.write_all(bytes) {
            assert!(error.kind() == ErrorKind::BrokenPipe, "the pair holds a frame: {error}");
        }
    }
}

fn greeter(instance: u8, is_quiet: bool) -> Greeter {
    let make = if is_quiet { Greeter::quiet } else { Greeter::new };
    make(&LinkConfig::virtio_mux(), [instance; 16], entropy(), wire::Instant::default())
}

fn entropy() -> wire::Entropy {
    Box::new(|bytes| crate::sys::random(bytes).expect("the kernel has random bytes"))
}

/// Who the guest is.
pub(crate) fn identity() -> GuestIdentity {
    GuestIdentity {
        psk: Psk::derive(b"key"),
        protection: Protection::Plain,
        boot_id: [1; 16],
        agent: "test".to_owned(),
    }
}

/// An uplink and its peer.
pub(crate) fn connected() -> (Uplink, Peer) {
    connected_as(LinkConfig::uart())
}

/// The same, of a guest with a link of its own kind.
pub(crate) fn connected_as(config: LinkConfig) -> (Uplink, Peer) {
    let (near, far) = UnixStream::pair().expect("a socket pair");
    let clock = Clock::start();
    let identity = identity();
    let line = Line::over(near.into(), Transport::Uart).expect("a line");
    let standby = |it| Standby::new(it, identity.clone(), entropy(), clock.now());
    let pipes = Pipes::new(line, standby, clock.now());
    let link = Link::guest(config, identity.clone(), entropy(), clock.now());
    let uplink = Uplink::new(link, pipes, clock).expect("control channels");
    (uplink, Peer::new(far, 7))
}

impl Peer {
    fn new(pipe: UnixStream, instance: u8) -> Self {
        Self {
            start: Instant::now(),
            ends: vec![End::new(pipe, instance)],
            current: None,
            instance,
            link: None,
            channels: BTreeMap::new(),
            received: BTreeMap::new(),
            finished: Vec::new(),
            deaf: false,
        }
    }

    /// Another multiplexer on the same pipe, which knows nothing of the one before.
    pub(crate) fn restarted(mut self) -> Self {
        Self::new(self.ends.swap_remove(0).pipe, self.instance + 1)
    }

    /// Another pipe to the guest.
    pub(crate) fn plug(&mut self, pipe: UnixStream) {
        self.ends.push(End::new(pipe, self.instance));
    }

    /// The pipe that the session is on goes away.
    pub(crate) fn unplug(&mut self) {
        self.ends.remove(self.current.take().expect("a session"));
        self.link.as_mut().expect("a session").handle_disconnected();
    }

    pub(crate) fn pipes(&self) -> usize {
        self.ends.len()
    }

    /// The kinds of pipes on which the guest has only made itself known.
    pub(crate) fn resting(&self) -> Vec<Transport> {
        self.ends.iter().filter_map(|end| end.resting).collect()
    }

    fn now(&self) -> wire::Instant {
        wire::Instant::from_micros(
            u64::try_from(self.start.elapsed().as_micros()).expect("a short test"),
        )
    }

    /// Takes and gives what is there.
    pub(crate) fn turn(&mut self) {
        let now = self.now();
        let mut buffer = [0; 65536];
        for i in 0..self.ends.len() {
            let len = match self.ends[i].pipe.read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                // A guest that closes a pipe with something unread in it.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => panic!("{error}"),
            };
            let mut input = &buffer[..len];
            if self.current != Some(i) {
                self.greet(i, now, &mut input);
            }
            if self.current == Some(i)
                && let Some(link) = &mut self.link
            {
                link.handle_bytes(now, input);
            }
        }
        let Some(mut link) = self.link.take() else { return };
        if link.poll_timeout().is_some_and(|due| due <= now) {
            link.handle_timeout(now);
        }
        while let Some(event) = link.poll_event() {
            self.take(&mut link, event);
        }
        let mut out = Vec::new();
        while self.current.is_some() && link.poll_transmit(now, &mut out) {}
        if let Some(current) = self.current {
            self.ends[current].send(&out);
        }
        self.link = Some(link);
    }

    fn greet(&mut self, i: usize, now: wire::Instant, input: &mut &[u8]) {
        let end = &mut self.ends[i];
        let mut out = Vec::new();
        while end.greeter.poll_transmit(now, &mut out) {}
        end.send(&out);
        while let Some(greeting) = end.greeter.handle_bytes(now, input) {
            match greeting {
                Greeting::Asked(_) => {
                    end.greeter
                        .offer(now, &Psk::derive(b"key"), Protection::Plain)
                        .expect("an offer");
                }
                Greeting::Established(session) => {
                    end.greeter = greeter(self.instance, true);
                    let transport = session.peer().transport;
                    end.resting = session.peer().resting.then_some(transport);
                    if end.resting.is_none() {
                        let config = LinkConfig::mux(transport);
                        match &mut self.link {
                            Some(link) => {
                                link.tune(config);
                                link.install(now, *session);
                            }
                            None => self.link = Some(Link::mux(config, *session, now)),
                        }
                        self.current = Some(i);
                    }
                    return;
                }
                Greeting::Rejected(text) => panic!("{text}"),
            }
        }
    }

    fn take(&mut self, link: &mut Link, event: Event) {
        match event {
            Event::Opened { channel, direction, label, .. } => {
                let kind = Label::decode(&label[..]).expect("a label").kind.expect("a known kind");
                self.channels.insert(channel, (direction, kind));
                link.accept(channel, 0);
            }
            Event::Readable(channel) if !self.deaf => {
                let received = self.received.entry(channel).or_default();
                loop {
                    let bytes = link.read(channel, 65536);
                    if bytes.is_empty() {
                        break;
                    }
                    received.extend_from_slice(&bytes);
                }
                link.release(channel, received.len() as u64);
            }
            Event::Finished(channel) => {
                self.finished.push(channel);
                link.close(channel);
            }
            _ => {}
        }
    }

    /// Is not deaf any more.
    pub(crate) fn listen(&mut self) {
        self.deaf = false;
        let Some(mut link) = self.link.take() else { return };
        for channel in self.channels.keys().copied().collect::<Vec<_>>() {
            self.take(&mut link, Event::Readable(channel));
        }
        self.link = Some(link);
    }

    /// The newest channel of this direction whose label fits.
    pub(crate) fn channel(
        &self,
        direction: Direction,
        fits: impl Fn(&label::Kind) -> bool,
    ) -> Option<ChannelId> {
        let mut found = self.channels.iter().filter(|(_, (d, kind))| *d == direction && fits(kind));
        found.next_back().map(|(id, _)| *id)
    }

    /// Asks for something on the control channel.
    pub(crate) fn ask(&mut self, request: u64, body: mux::Body) {
        let control =
            self.channel(Direction::ToGuest, |kind| matches!(kind, label::Kind::Control(_)));
        let mut bytes = Vec::new();
        message::put(&MuxMessage { request, body: Some(body) }, &mut bytes);
        let link = self.link.as_mut().expect("a session");
        assert_eq!(link.write(control.expect("a control channel"), &bytes), bytes.len());
    }

    /// What the guest said so far.
    pub(crate) fn heard(&self) -> Vec<guest::Body> {
        let control =
            self.channel(Direction::ToMux, |kind| matches!(kind, label::Kind::Control(_)));
        let mut reader = message::Reader::default();
        reader.push(control.and_then(|id| self.received.get(&id)).map_or(&[], Vec::as_slice));
        std::iter::from_fn(|| reader.next_message::<GuestMessage>().expect("well-formed"))
            .map(|(message, _)| message.body.expect("a known message"))
            .collect()
    }
}

/// What an output channel's bytes say, as far as they go.
pub(crate) fn entries(bytes: &[u8], packed: bool) -> Vec<Entry> {
    let (mut unpacker, mut reader) = (Unpacker::default(), Reader::default());
    if packed {
        unpacker.push(bytes);
        while let Some(block) = unpacker.next_block().expect("blocks") {
            reader.push(&block.plain);
        }
    } else {
        reader.push(bytes);
    }
    std::iter::from_fn(|| reader.next_entry().expect("entries")).map(|(entry, _)| entry).collect()
}

/// Lets both ends work until `done`, or panics after ten seconds.
pub(crate) async fn until(
    uplink: &mut Uplink,
    peer: &mut Peer,
    mut step: impl FnMut(&mut Uplink, &mut Peer),
    mut done: impl FnMut(&Uplink, &Peer) -> bool,
) {
    let end = Instant::now() + std::time::Duration::from_secs(10);
    while !done(uplink, peer) {
        assert!(Instant::now() < end, "it never happened");
        // Lets the runtime learn which descriptors are ready.
        tokio::task::yield_now().await;
        step(uplink, peer);
        peer.turn();
    }
}
