//! A guest with two pipes: one rests until it is wanted, and nothing is lost or repeated when it takes over.
#![allow(clippy::unwrap_used, reason = "a test may")]

use wire::{
    ChannelId, Class, Direction, Entropy, Event, Greeter, Greeting, GuestIdentity, Instant, Link,
    LinkConfig, Open, Protection, Psk, Session, Standby, Transport,
};

const KEY: &[u8] = b"key";

fn entropy(mut state: u8) -> Entropy {
    Box::new(move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(31).wrapping_add(7);
            *byte = state;
        }
    })
}

fn identity() -> GuestIdentity {
    let (psk, protection) = (Psk::derive(KEY), Protection::Sealed);
    GuestIdentity { psk, protection, boot_id: [1; 16], agent: "two".into() }
}

fn greeter(seed: u8, is_quiet: bool, now: Instant) -> Greeter {
    let config = LinkConfig::mux(Transport::Virtio);
    let make = if is_quiet { Greeter::quiet } else { Greeter::new };
    make(&config, [2; 16], entropy(seed), now)
}

/// Both ends, on a clock of their own.
struct World {
    now: u64,
    guest: Link,
    standby: Standby,
    mux: Option<Link>,
    channel: ChannelId,
    sent: u64,
    received: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let now = Instant::from_micros(0);
        let mut guest = Link::guest(LinkConfig::uart(), identity(), entropy(1), now);
        let open = Open { direction: Direction::ToMux, class: Class::Log, label: vec![7; 20] };
        let channel = guest.open_channel(open).unwrap();
        let standby = Standby::new(Transport::Virtio, identity(), entropy(3), now);
        Self { now: 0, guest, standby, mux: None, channel, sent: 0, received: Vec::new() }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    /// Lets the mux greet on a pipe whose guest's end is `turn`, which takes and gives bytes.
    fn greet(
        &mut self,
        mut greeter: Greeter,
        mut turn: impl FnMut(&mut Self, &[u8], &mut Vec<u8>),
    ) -> Session {
        for _ in 0..5_000 {
            self.now += 1000;
            let (mut down, mut up) = (Vec::new(), Vec::new());
            greeter.poll_transmit(self.now(), &mut down);
            turn(self, &down, &mut up);
            let mut input = &up[..];
            while let Some(greeting) = greeter.handle_bytes(self.now(), &mut input) {
                match greeting {
                    Greeting::Asked(_) => {
                        let psk = Psk::derive(KEY);
                        greeter.offer(self.now(), &psk, Protection::Sealed).unwrap();
                    }
                    Greeting::Established(session) => return *session,
                    Greeting::Rejected(text) => panic!("{text}"),
                }
            }
        }
        panic!("nobody there");
    }

    fn greet_standby(&mut self, greeter: Greeter) -> Session {
        self.greet(greeter, |world, mut down, up| {
            assert!(!world.standby.handle_bytes(world.now(), &mut down));
            world.standby.poll_transmit(world.now(), up);
        })
    }

    fn connect(&mut self) {
        let session = self.greet(greeter(9, false, self.now()), |world, down, up| {
            world.guest.handle_bytes(world.now(), down);
            while world.guest.poll_transmit(world.now(), up) {}
        });
        assert_eq!((session.peer().transport, session.peer().resting), (Transport::Uart, false));
        self.mux = Some(Link::mux(LinkConfig::uart_mux(), session, self.now()));
    }

    fn write(&mut self, n: usize) {
        let bytes: Vec<u8> = (self.sent..).map(|i| (i * 7 % 251) as u8).take(n).collect();
        assert_eq!(self.guest.write(self.channel, &bytes), n);
        self.sent += n as u64;
    }

    /// Frames of the guest that reach the mux, and what the mux then reads.
    fn up(&mut self, frames: usize) {
        self.now += 1000;
        let (now, mux) = (self.now(), self.mux.as_mut().unwrap());
        for _ in 0..frames {
            let mut line = Vec::new();
            if !self.guest.poll_transmit(now, &mut line) {
                break;
            }
            mux.handle_bytes(now, &line);
        }
        while let Some(event) = mux.poll_event() {
            match event {
                Event::Opened { channel, base, .. } => mux.accept(channel, base),
                Event::Readable(channel) => {
                    self.received.extend_from_slice(&mux.read(channel, usize::MAX));
                    mux.release(channel, self.received.len() as u64);
                }
                _ => {}
            }
        }
    }

    fn down(&mut self) -> Vec<u8> {
        self.now += 1000;
        let mut line = Vec::new();
        while self.mux.as_mut().unwrap().poll_transmit(Instant::from_micros(self.now), &mut line) {}
        line
    }

    fn run(&mut self) {
        for _ in 0..200 {
            self.up(usize::MAX);
            let down = self.down();
            self.guest.handle_bytes(self.now(), &down);
        }
    }

    /// The standby is wanted and takes over.
    fn take_over(&mut self, seed: u8, from: Transport, to: Transport) {
        self.standby.want(self.now());
        let session = self.greet_standby(greeter(seed, true, self.now()));
        assert_eq!((session.peer().transport, session.peer().resting), (to, false));
        let (now, mux) = (self.now(), self.mux.as_mut().unwrap());
        mux.tune(LinkConfig::mux(to));
        mux.install(now, session);
        let down = self.down();
        let mut rest = &down[..];
        assert!(self.standby.handle_bytes(self.now(), &mut rest), "a sealed packet proves it");
        self.guest.take_pipe(self.now(), &mut self.standby);
        self.guest.handle_bytes(self.now(), rest);
        assert_eq!((self.guest.transport(), self.standby.transport()), (to, from));
        assert!(!self.standby.is_wanting());
    }

    fn check(&self) {
        let expected: Vec<u8> = (0..self.sent).map(|i| (i * 7 % 251) as u8).collect();
        assert!(self.received == expected, "{} of {}", self.received.len(), expected.len());
    }
}

#[test]
fn a_resting_pipe_makes_itself_known_once_and_is_silent_then() {
    let mut world = World::new();
    let session = world.greet_standby(greeter(5, false, world.now()));
    assert_eq!((session.peer().transport, session.peer().resting), (Transport::Virtio, true));
    let mut quiet = greeter(6, true, world.now());
    assert_eq!((quiet.poll_timeout(), world.standby.poll_timeout()), (None, None));
    world.now += 3_600_000_000;
    let mut line = Vec::new();
    assert!(!quiet.poll_transmit(world.now(), &mut line));
    assert!(!world.standby.poll_transmit(world.now(), &mut line));
}

#[test]
fn a_better_pipe_takes_over_in_the_middle_and_every_byte_arrives_once() {
    let mut world = World::new();
    world.connect();
    world.write(200_000);
    while world.received.len() < 20_000 {
        world.up(20);
        let down = world.down();
        world.guest.handle_bytes(world.now(), &down);
    }
    world.up(3);
    assert!(world.received.len() < 150_000);
    world.take_over(7, Transport::Uart, Transport::Virtio);
    world.run();
    world.check();
    // More than a serial port's buffer would take.
    world.write(1_000_000);
    world.up(3);
    world.take_over(11, Transport::Virtio, Transport::Uart);
    world.run();
    world.check();
    // The smaller buffer holds again.
    world.write(LinkConfig::uart().send_buffer);
    assert_eq!(world.guest.write(world.channel, b"x"), 0);
    world.run();
    world.check();
}

#[test]
fn one_that_is_not_wanted_any_more_does_not_take_over() {
    let mut world = World::new();
    world.connect();
    world.standby.want(world.now());
    let session = world.greet_standby(greeter(7, false, world.now()));
    assert!(!session.peer().resting);
    world.standby.rest();
    let mut mux = Link::mux(LinkConfig::virtio_mux(), session, world.now());
    let mut line = Vec::new();
    while mux.poll_transmit(world.now(), &mut line) {}
    assert!(!world.standby.handle_bytes(world.now(), &mut &line[..]));
}

#[test]
fn an_answer_that_is_owed_is_noticed() {
    let mut world = World::new();
    world.connect();
    world.run();
    assert_eq!(world.guest.unanswered_since(), None);
    world.write(1000);
    let mut line = Vec::new();
    while world.guest.poll_transmit(world.now(), &mut line) {}
    assert_eq!(world.guest.unanswered_since(), Some(world.now()));
}
