//! A guest and a mux at the two ends of a line, in virtual time, with what they must never get wrong.

use crate::line::{Faults, Line, Rng};
use std::collections::VecDeque;
use wire::{
    ChannelId, Class, Direction, Entropy, Event, Greeter, Greeting, GuestIdentity, Instant, Link,
    LinkConfig, Open, Protection, Psk,
};

const KEY: &[u8] = b"the key of this VM";

fn entropy(seed: u64) -> Entropy {
    let mut rng = Rng(seed);
    Box::new(move |bytes| rng.fill(bytes))
}

/// What a run is like; drawn from its seed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) rate: u64,
    pub(crate) protection: Protection,
    /// Bytes out of each output channel, and into the input channel.
    pub(crate) output: Vec<usize>,
    pub(crate) input: usize,
    /// How often the pipe is cut, the mux killed, the guest suspended: once in so many steps.
    pub(crate) cut: u64,
    pub(crate) kill: u64,
    pub(crate) suspend: u64,
}

enum MuxEnd {
    Greeting(Box<Greeter>),
    Live,
}

/// What one output channel's log holds at the mux: all of it, and how much of it survives a crash.
#[derive(Debug, Default)]
struct Log {
    bytes: Vec<u8>,
    durable: usize,
    complete: bool,
}

pub(crate) struct World {
    pub(crate) now: u64,
    plan: Plan,
    rng: Rng,
    guest: Link,
    up: Line,
    down: Line,
    end: MuxEnd,
    mux: Option<Link>,
    mux_runs: u64,
    connected_at: u64,
    // guest's application
    sources: Vec<(ChannelId, Vec<u8>, usize, bool)>,
    stdin: ChannelId,
    stdin_got: Vec<u8>,
    stdin_done: bool,
    // mux's application
    logs: Vec<Log>,
    outputs: Vec<Option<ChannelId>>,
    input_channel: Option<ChannelId>,
    input: Vec<u8>,
    input_sent: usize,
    syncs: VecDeque<(u64, usize, usize)>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut rng = Rng(plan.seed ^ 0xabcd);
        let identity = GuestIdentity {
            psk: Psk::derive(KEY),
            protection: plan.protection,
            boot_id: [7; 16],
            agent: "sim".into(),
        };
        let at = Instant::from_micros(0);
        let mut guest = Link::guest(LinkConfig::uart(), identity, entropy(rng.next()), at);
        let classes = [Class::Log, Class::Terminal, Class::Exec, Class::Bulk];
        let sources: Vec<_> = plan
            .output
            .iter()
            .enumerate()
            .map(|(i, n)| {
                let label = vec![i as u8];
                let open = Open { direction: Direction::ToMux, class: classes[i % 4], label };
                let mut bytes = vec![0; *n];
                rng.fill(&mut bytes);
                (guest.open_channel(open).unwrap(), bytes, 0, false)
            })
            .collect();
        let open = Open { direction: Direction::ToGuest, class: Class::Exec, label: vec![255] };
        let stdin = guest.open_channel(open).unwrap();
        let mut input = vec![0; plan.input];
        rng.fill(&mut input);
        let line = || Line::new(plan.rate, 300, plan.faults);
        let n = plan.output.len();
        Self {
            now: 0,
            guest,
            up: line(),
            down: line(),
            end: MuxEnd::Greeting(greeter(&mut rng, 0, 0)),
            mux: None,
            mux_runs: 0,
            connected_at: 0,
            sources,
            stdin,
            stdin_got: Vec::new(),
            stdin_done: false,
            logs: (0..n).map(|_| Log::default()).collect(),
            outputs: vec![None; n],
            input_channel: None,
            input,
            input_sent: 0,
            syncs: VecDeque::new(),
            rng,
            plan,
        }
    }

    fn at(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    /// Runs until everything is through; panics if that takes longer than `limit_us` without faults.
    pub(crate) fn run(&mut self, faulty_us: u64, limit_us: u64) {
        while self.now < faulty_us && !self.is_done() {
            self.step(true);
        }
        self.up.faults = Faults::default();
        self.down.faults = Faults::default();
        let deadline = self.now + limit_us;
        while !self.is_done() {
            self.step(false);
            assert!(self.now < deadline, "not drained in time: {}", self.state());
        }
        self.check();
    }

    fn state(&self) -> String {
        let logs: Vec<_> =
            self.logs.iter().map(|log| (log.bytes.len(), log.durable, log.complete)).collect();
        format!(
            "logs {logs:?} of {:?}, stdin {} of {}, guest {:?}, mux {:?}",
            self.plan.output,
            self.stdin_got.len(),
            self.input.len(),
            self.guest,
            self.mux
        )
    }

    pub(crate) fn is_done(&self) -> bool {
        let input_lost = self.mux_runs > 0;
        self.logs.iter().all(|log| log.complete)
            && self.guest.is_drained()
            && (self.stdin_done || input_lost)
    }

    fn check(&self) {
        for ((_, source, ..), log) in self.sources.iter().zip(&self.logs) {
            assert!(log.bytes == *source, "output differs");
        }
        assert!(self.input.starts_with(&self.stdin_got) || self.mux_runs > 0, "input differs");
    }

    fn step(&mut self, faulty: bool) {
        self.advance();
        if faulty {
            self.mishap();
        }
        let bytes = self.up.receive(self.now);
        self.mux_bytes(&bytes);
        let bytes = self.down.receive(self.now);
        let at = self.at();
        self.guest.handle_bytes(at, &bytes);
        self.guest_turn();
        self.mux_turn();
    }

    fn advance(&mut self) {
        let at = |instant: Option<Instant>| instant.map(Instant::as_micros);
        let mux = match &self.end {
            MuxEnd::Greeting(greeter) => Some(greeter.poll_timeout().as_micros()),
            MuxEnd::Live => at(self.mux.as_ref().and_then(Link::poll_timeout)),
        };
        let next = [
            self.up.next_arrival(),
            self.down.next_arrival(),
            at(self.guest.poll_timeout()),
            mux,
            self.syncs.front().map(|(at, ..)| *at),
            Some(self.up.writable_at()).filter(|at| *at > self.now),
            Some(self.down.writable_at()).filter(|at| *at > self.now),
        ];
        let next = next.into_iter().flatten().min().unwrap_or(self.now);
        // At least a little, as a wake-up takes its time, too.
        self.now = next.max(self.now + 20).max(self.connected_at);
    }

    fn mishap(&mut self) {
        if self.rng.one_in(self.plan.cut) {
            self.disconnect();
        }
        if self.rng.one_in(self.plan.kill) {
            self.kill_mux();
        }
        if self.rng.one_in(self.plan.suspend) {
            self.now += self.rng.below(3_600_000_000);
        }
    }

    fn disconnect(&mut self) {
        self.up.cut();
        self.down.cut();
        if let Some(mux) = &mut self.mux {
            mux.handle_disconnected();
        }
        self.connected_at = self.now + self.rng.below(2_000_000);
        self.end = MuxEnd::Greeting(greeter(&mut self.rng, self.mux_runs, self.connected_at));
    }

    fn kill_mux(&mut self) {
        self.mux_runs += 1;
        self.disconnect();
        self.mux = None;
        self.syncs.clear();
        self.outputs.iter_mut().for_each(|id| *id = None);
        self.input_channel = None;
        for log in &mut self.logs {
            log.bytes.truncate(log.durable);
        }
    }

    // ---- the guest's application ----

    fn guest_turn(&mut self) {
        let at = self.at();
        self.guest.handle_timeout(at);
        while let Some(event) = self.guest.poll_event() {
            if std::env::var_os("SIM_TRACE").is_some() {
                eprintln!("{} guest {event:?}", self.now);
            }
            match event {
                Event::Readable(id) if id == self.stdin => {
                    let bytes = self.guest.read(id, 700);
                    self.stdin_got.extend_from_slice(&bytes);
                    self.guest.release(id, self.stdin_got.len() as u64);
                    if !bytes.is_empty() {
                        self.guest_reads_on();
                    }
                }
                Event::Finished(id) => {
                    self.stdin_done = true;
                    self.guest.close(id);
                }
                Event::RolledBack(id) => panic!("{id:?} went back in time"),
                _ => {}
            }
        }
        for (id, bytes, written, finished) in &mut self.sources {
            *written += self.guest.write(*id, &bytes[*written..]);
            if *written == bytes.len() && !*finished {
                *finished = true;
                self.guest.finish(*id);
            }
        }
        let mut out = Vec::new();
        while self.up.is_writable(self.now) && self.guest.poll_transmit(at, &mut out) {
            self.up.send(self.now, &out, &mut self.rng);
            out.clear();
        }
    }

    fn guest_reads_on(&mut self) {
        loop {
            let bytes = self.guest.read(self.stdin, 700);
            if bytes.is_empty() {
                return;
            }
            self.stdin_got.extend_from_slice(&bytes);
            self.guest.release(self.stdin, self.stdin_got.len() as u64);
        }
    }

    // ---- the mux's application ----

    fn mux_bytes(&mut self, mut bytes: &[u8]) {
        let at = self.at();
        if let MuxEnd::Greeting(greeter) = &mut self.end {
            while let Some(greeting) = greeter.handle_bytes(at, &mut bytes) {
                match greeting {
                    Greeting::Asked(id) => {
                        let psk = Psk::derive(KEY);
                        assert_eq!(id, psk.id());
                        greeter.offer(at, &psk, self.plan.protection).unwrap();
                    }
                    Greeting::Rejected(_) => {}
                    Greeting::Established(session) => {
                        match &mut self.mux {
                            Some(mux) => mux.install(at, *session),
                            none => *none = Some(Link::mux(LinkConfig::uart_mux(), *session, at)),
                        }
                        self.end = MuxEnd::Live;
                        break;
                    }
                }
            }
        }
        if let (MuxEnd::Live, Some(mux)) = (&self.end, &mut self.mux) {
            mux.handle_bytes(at, bytes);
        }
    }

    fn mux_turn(&mut self) {
        let at = self.at();
        let mut out = Vec::new();
        if let MuxEnd::Greeting(greeter) = &mut self.end {
            if greeter.poll_transmit(at, &mut out) {
                self.down.send(self.now, &out, &mut self.rng);
            }
            return;
        }
        let Some(mut mux) = self.mux.take() else { return };
        mux.handle_timeout(at);
        let mut greet = false;
        while let Some(event) = mux.poll_event() {
            if std::env::var_os("SIM_TRACE").is_some() {
                eprintln!("{} mux {event:?}", self.now);
            }
            greet |= matches!(event, Event::Greet | Event::Lost { .. });
            self.mux_event(&mut mux, event);
        }
        self.sync(&mut mux);
        self.feed(&mut mux);
        while self.down.is_writable(self.now) && mux.poll_transmit(at, &mut out) {
            self.down.send(self.now, &out, &mut self.rng);
            out.clear();
        }
        self.mux = Some(mux);
        if greet {
            self.end = MuxEnd::Greeting(greeter(&mut self.rng, self.mux_runs, self.now));
        }
    }

    fn mux_event(&mut self, mux: &mut Link, event: Event) {
        match event {
            Event::Opened { channel, label, .. } if label[0] == 255 => {
                self.input_channel = Some(channel);
                mux.accept(channel, 0);
            }
            Event::Opened { channel, label, .. } => {
                let i = usize::from(label[0]);
                self.outputs[i] = Some(channel);
                let log = &self.logs[i];
                mux.accept(channel, (log.durable + usize::from(log.complete)) as u64);
                if log.complete {
                    mux.close(channel);
                }
            }
            Event::Readable(id) => {
                let Some(i) = self.outputs.iter().position(|o| *o == Some(id)) else { return };
                loop {
                    let bytes = mux.read(id, 3000);
                    if bytes.is_empty() {
                        break;
                    }
                    self.logs[i].bytes.extend_from_slice(&bytes);
                }
                let due = self.now + self.rng.below(40_000);
                self.syncs.push_back((due, i, self.logs[i].bytes.len()));
            }
            Event::Finished(id) => {
                let i = self.outputs.iter().position(|o| *o == Some(id)).unwrap();
                let log = &mut self.logs[i];
                (log.durable, log.complete) = (log.bytes.len(), true);
                mux.close(id);
            }
            Event::RolledBack(id) => panic!("{id:?} went back in time"),
            _ => {}
        }
    }

    // A disk that makes bytes durable some time after they were written.
    fn sync(&mut self, mux: &mut Link) {
        while self.syncs.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, i, n)) = self.syncs.pop_front() else { return };
            self.logs[i].durable = self.logs[i].durable.max(n);
            if let Some(id) = self.outputs[i] {
                mux.release(id, n as u64);
            }
        }
    }

    fn feed(&mut self, mux: &mut Link) {
        let Some(id) = self.input_channel else { return };
        self.input_sent += mux.write(id, &self.input[self.input_sent..]);
        if self.input_sent == self.input.len() {
            mux.finish(id);
        }
    }
}

fn greeter(rng: &mut Rng, run: u64, now: u64) -> Box<Greeter> {
    let mut instance = [0; 16];
    instance[..8].copy_from_slice(&run.to_le_bytes());
    let now = Instant::from_micros(now);
    Box::new(Greeter::new(&LinkConfig::uart_mux(), instance, entropy(rng.next()), now))
}
