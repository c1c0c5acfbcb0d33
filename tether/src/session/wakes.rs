//! That nobody is forgotten: a session is looked at only when it has asked for that, by its bell, a deadline or the
//! link's news, as the agent does it; and whatever happens around it, everything arrives, its end included.
//!
//! A scene that fails is played again, alone, by `WAKES_FIRST=<seed> WAKES_SEEDS=1`.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::task::Waker;

use guestinfo::SessionSpec;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use tokio::task::LocalSet;
use wire::LinkConfig;
use wire::chunk::{Chunk, Entry, Stream};
use wire::message::guest::OutputEnd;
use wire::message::label;
use wire::pack::{Budget, Packer};

use super::*;
use crate::peer::{self, Peer, connected_as};
use crate::ready::Bells;
use crate::spool::Spool;
use crate::spool::fake::FakeDisk;
use crate::stdio::{self, Stdio};
use crate::sys;
use crate::uplink::News;

/// How long something may take that nothing stands in the way of; much longer than it ever does.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nobody has this number.
const PID: Pid = Pid::from_raw(i32::MAX);

/// What may happen in a scene.
const STEPS: usize = 60;

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % n
    }

    fn is(&mut self, one_of: u64) -> bool {
        self.below(one_of) == 0
    }

    /// So many bytes, of text or of noise.
    fn bytes(&mut self, len: u64, is_text: bool) -> Vec<u8> {
        let byte = |n: u64| (n & 0xff) as u8;
        (0..len).map(|n| byte(if is_text { 97 + n % 19 } else { self.below(256) })).collect()
    }
}

/// The other ends of a process's streams.
struct Process {
    stdin: Option<File>,
    outputs: Vec<(Stream, File)>,
}

/// A session, with everything around it.
struct Scene {
    uplink: Uplink,
    peer: Peer,
    /// Whether there is no multiplexer yet.
    is_alone: bool,
    session: Session,
    bells: Bells,
    bell: Waker,
    deadline: Option<Instant>,
    process: Process,
    disk: Option<FakeDisk>,
    /// Whether the disk answers at once.
    is_prompt: bool,
    packed: bool,
    packer: Packer,
    /// On its way to the input channel.
    unsent: Vec<u8>,
    typed: Vec<u8>,
    read: Vec<u8>,
    written: [Vec<u8>; 2],
}

fn file(fd: std::os::fd::OwnedFd) -> File {
    stdio::set_nonblocking(&fd).unwrap();
    fd.into()
}

fn streams_of(tty: bool) -> (Stdio, Process) {
    if tty {
        let pty = openpty(None, None).unwrap();
        let mut modes = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut modes);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).unwrap();
        let slave = file(pty.slave);
        let outputs = vec![(Stream::Stdout, slave.try_clone().unwrap())];
        return (Stdio::of_terminal(pty.master), Process { stdin: Some(slave), outputs });
    }
    let (stdio, child) = Stdio::open(false, true).unwrap();
    let [stdout, stderr] = [child.stdout, child.stderr].map(|end| file(end.unwrap()));
    let outputs = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
    (stdio, Process { stdin: child.stdin.map(file), outputs })
}

impl Scene {
    fn new(dice: &mut Dice) -> Self {
        // What a channel holds is soon full.
        let config = LinkConfig { send_buffer: 48 * 1024, ..LinkConfig::uart() };
        let (mut uplink, peer) = connected_as(config);
        let (tty, packed, spools) = (dice.is(2), dice.is(2), dice.is(2));
        let (stdio, process) = streams_of(tty);
        let of =
            SessionSpec { tty, open_stdin: true, id: "s".to_owned(), ..SessionSpec::default() };
        let mut session = Session::new(&Config { session: of, ..Config::sample("s") });
        let mut streams =
            Streams::open("s", &session.launch, (packed, false), stdio, &mut uplink).unwrap();
        let disk = (packed && spools).then(|| FakeDisk::new(64));
        if let Some(disk) = &disk {
            streams.keep(Some((20_000, WhenFull::Block)));
            streams.extend(Spool::with(Box::new(disk.clone()), 64, sys::random).unwrap());
        }
        session.streams = Some(streams);
        session.run_as(PID);
        let bells = Bells::default();
        let bell = bells.bell(0);
        bells.ring(0);
        Self {
            uplink,
            peer,
            is_alone: dice.is(2),
            session,
            bells,
            bell,
            deadline: None,
            process,
            disk,
            is_prompt: dice.is(2),
            packed,
            packer: Packer::new(&Budget::new(1)),
            unsent: Vec::new(),
            typed: Vec::new(),
            read: Vec::new(),
            written: [Vec::new(), Vec::new()],
        }
    }

    fn hear(&mut self, news: Vec<News>) {
        for item in news {
            match item {
                News::Readable(channel) | News::Writable(channel) => {
                    if self.session.channels().any(|it| it == channel) {
                        self.bells.ring(0);
                    }
                }
                News::Up { .. } => self.bells.ring(0),
                other => panic!("{other:?}"),
            }
        }
    }

    /// As the agent's, of one session; whether there is more to do at once.
    fn turn(&mut self) -> bool {
        if self.deadline.is_some_and(|at| at <= Instant::now()) {
            self.bells.ring(0);
        }
        let mut news = Vec::new();
        self.uplink.hear(|item| news.push(item)).unwrap();
        self.hear(news);
        if !self.bells.take().is_empty() {
            let mut context = Context::from_waker(&self.bell);
            let uplink = &mut self.uplink;
            let mut teller = Teller { uplink, reporter: None, cgroup: None };
            let more = self.session.turn(&mut context, &mut teller);
            if more.is_ready() && !self.session.is_over() {
                self.bells.ring(0);
            }
            self.deadline = self.session.deadline();
        }
        let mut news = Vec::new();
        let more = self.uplink.speak(|item| news.push(item)).unwrap();
        let more = more || !news.is_empty();
        self.hear(news);
        more || self.bells.have_rung()
    }

    /// Goes on until `done`; whether it was before `patience` was over.
    async fn run(&mut self, patience: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = Instant::now() + patience;
        while !done(self) {
            if Instant::now() >= end {
                return false;
            }
            let more = self.turn();
            if !self.is_alone {
                self.peer.turn();
            }
            self.disk.as_ref().filter(|_| self.is_prompt).map(FakeDisk::work);
            self.send();
            tokio::task::yield_now().await;
            if more {
                continue;
            }
            let deadlines = [self.deadline, self.uplink.deadline()].into_iter().flatten();
            let deadline = deadlines.min().unwrap_or(end);
            tokio::select! {
                waited = self.uplink.wait() => waited.unwrap(),
                () = self.bells.wait() => {}
                () = tokio::time::sleep_until(deadline) => {}
                // The peer's, who has no other.
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
        true
    }

    /// Goes on until `done`; whether it was before nothing happened for long. How fast things go says nothing.
    async fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            let before = (self.received(), self.read.len());
            if self.run(PATIENCE, &mut done).await {
                return true;
            }
            if (self.received(), self.read.len()) == before {
                return false;
            }
        }
    }

    fn send(&mut self) {
        let is_input = |kind: &label::Kind| matches!(kind, label::Kind::Input(_));
        let channel = self.peer.channel(wire::Direction::ToGuest, is_input);
        if let (Some(channel), Some(link)) = (channel, &mut self.peer.link) {
            let n = link.write(channel, &self.unsent);
            self.unsent.drain(..n);
        }
    }

    fn types(&mut self, bytes: &[u8]) {
        self.typed.extend_from_slice(bytes);
        match self.packed {
            true => self.packer.push(bytes, &mut self.unsent),
            false => self.unsent.extend_from_slice(bytes),
        }
    }

    /// The process writes what there is room for.
    fn writes(&mut self, which: usize, mut bytes: &[u8]) {
        let n = self.process.outputs.len();
        let (stream, end) = &mut self.process.outputs[which % n];
        while !bytes.is_empty() {
            match end.write(bytes) {
                Ok(n) => {
                    self.written[*stream as usize - 1].extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn reads(&mut self, len: usize) {
        let mut buffer = vec![0; len];
        let Some(stdin) = &mut self.process.stdin else { return };
        match stdin.read(&mut buffer) {
            Ok(n) => self.read.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The multiplexer is there, or takes output again.
    fn listens(&mut self, is_there: bool) {
        self.is_alone &= !is_there;
        self.peer.listen();
    }

    async fn step(&mut self, dice: &mut Dice) {
        match dice.below(10) {
            0..=2 => {
                let longest = [40, 9_000, 100_000][dice.below(3) as usize];
                let len = 1 + dice.below(longest);
                let (is_text, which) = (dice.is(2), dice.below(2) as usize);
                let bytes = dice.bytes(len, is_text);
                self.writes(which, &bytes);
            }
            3 => {
                let longest = [3, 3_000, 30_000][dice.below(3) as usize];
                let len = 1 + dice.below(longest);
                self.types(&dice.bytes(len, true));
            }
            4 => self.reads(1 + dice.below(8_000) as usize),
            5 => self.peer.deaf = true,
            6 => self.listens(dice.is(12)),
            7 => _ = self.disk.as_ref().map(FakeDisk::work),
            _ => {
                let pause = Duration::from_micros(dice.below(8_000));
                self.run(pause, |_| false).await;
            }
        }
    }

    /// What has arrived, by stream.
    fn arrived(&self) -> [Vec<u8>; 2] {
        let is_output = |kind: &label::Kind| matches!(kind, label::Kind::Output(_));
        let channel = self.peer.channel(wire::Direction::ToMux, is_output);
        let bytes = channel.and_then(|it| self.peer.received.get(&it));
        let mut found = [Vec::new(), Vec::new()];
        for entry in peer::entries(bytes.map_or(&[], Vec::as_slice), self.packed) {
            let Entry::Output(Chunk { stream, bytes, .. }) = entry else { panic!("{entry:?}") };
            found[stream as usize - 1].extend_from_slice(&bytes);
        }
        found
    }

    fn received(&self) -> usize {
        self.peer.received.values().map(Vec::len).sum()
    }

    /// The process ends, as the kernel tells the agent.
    fn ends(&mut self) {
        (self.process.stdin, self.process.outputs) = (None, Vec::new());
        self.session.reaped(PID, Exit { code: 3, signal: 0, core_dumped: false, raw: 768 });
        self.bells.ring(0);
    }

    fn record(&self) -> Option<Exited> {
        match self.peer.heard().pop() {
            Some(Body::Exited(record)) => Some(record),
            _ => None,
        }
    }
}

async fn play(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut scene = Scene::new(&mut dice);
    for _ in 0..STEPS {
        scene.step(&mut dice).await;
    }
    // Nobody does anything any more but to take what comes. Some have ended before it is there.
    let ends_early = dice.is(2);
    if ends_early {
        scene.ends();
    }
    scene.listens(true);
    let mut seen = usize::MAX;
    let all_arrived = |scene: &mut Scene| {
        scene.disk.as_ref().map(FakeDisk::work);
        // Nothing is unpacked again before there is more.
        let received = scene.received();
        std::mem::replace(&mut seen, received) != received && scene.arrived() == scene.written
    };
    if !scene.until(all_arrived).await {
        let lens = |all: [Vec<u8>; 2]| all.map(|it| it.len());
        let (arrived, written) = (lens(scene.arrived()), lens(scene.written.clone()));
        let Scene { uplink, session, deadline, .. } = scene;
        panic!(
            "seed {seed}: of {written:?} bytes only {arrived:?} arrive: {deadline:?} {uplink:?} {session:?}"
        );
    }
    if !ends_early {
        let all_read = |scene: &mut Scene| {
            scene.reads(4096);
            scene.read.len() == scene.typed.len()
        };
        let is_all_read = scene.until(all_read).await;
        assert!(is_all_read, "seed {seed}: input stays away: {:?}", scene.session);
        scene.ends();
    }
    assert!(scene.typed.starts_with(&scene.read), "seed {seed}: other input");
    let has_ended = scene.until(|scene| scene.record().is_some()).await;
    assert!(has_ended, "seed {seed}: no end: {:?}", scene.session);
    let record = scene.record().unwrap();
    assert_eq!((record.code, record.output_end()), (3, OutputEnd::Drained), "seed {seed}");
    assert!(scene.session.is_over());
}

/// Scenes that are played at once, as each mostly waits.
const AT_ONCE: u64 = 10;

#[tokio::test]
async fn a_session_that_is_looked_at_only_when_it_asks_for_it_passes_everything_on() {
    let first = std::env::var("WAKES_FIRST").map_or(0, |n| n.parse().unwrap());
    let n = std::env::var("WAKES_SEEDS").map_or(200, |n| n.parse().unwrap());
    let stage = LocalSet::new();
    let players = (first..first + AT_ONCE).map(|player| {
        stage.spawn_local(async move {
            for seed in (player..first + n).step_by(AT_ONCE as usize) {
                play(seed).await;
            }
        })
    });
    let players: Vec<_> = players.collect();
    stage.await;
    for player in players {
        player.await.unwrap();
    }
}
