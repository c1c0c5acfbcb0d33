//! A guest and a mux at the two ends of a line, in virtual time, with what they must never get wrong.

use crate::guest::Guest;
use crate::line::{Faults, Line};
use crate::mux::{Lives, Mux};
use crate::plan::{Plan, Sabotage};
use crate::rng::{Odds, Rng};
use crate::tape::{Act, Snapshot};
use crate::witness::Witness;
use std::sync::OnceLock;
use wire::{Entropy, Greeter, Greeting, Instant, Psk};

pub(crate) const KEY: &[u8] = b"the key of this VM";
const SECOND: u64 = 1_000_000;

pub(crate) fn entropy(seed: u64) -> Entropy {
    let mut rng = Rng(seed);
    Box::new(move |bytes| rng.fill(bytes))
}

/// Prints what happens, when asked to by SIM_TRACE.
pub(crate) fn trace(now: u64, what: impl FnOnce() -> String) {
    static ASKED: OnceLock<bool> = OnceLock::new();
    if *ASKED.get_or_init(|| std::env::var_os("SIM_TRACE").is_some()) {
        eprintln!("{now} {}", what());
    }
}

pub(crate) struct Pipe {
    pub(crate) up: Line,
    pub(crate) down: Line,
}

/// What happens to the ends now and then, and how far off it is.
struct Mishaps {
    cut: Odds,
    takeover: Odds,
    kill: Odds,
    power: Odds,
    suspend: Odds,
    jump: Odds,
    reboot: Odds,
    visit: Odds,
    snapshot: Odds,
    restore: Odds,
}

impl Mishaps {
    fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let mut odds = |every| Odds::new(every, rng);
        Self {
            cut: odds(plan.cut),
            takeover: odds(plan.takeover),
            kill: odds(plan.kill),
            power: odds(plan.power),
            suspend: odds(plan.suspend),
            jump: odds(plan.jump),
            reboot: odds(plan.reboot),
            visit: odds(plan.visit),
            snapshot: odds(plan.restore / 2),
            restore: odds(plan.restore),
        }
    }
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) guest: Guest,
    pub(crate) mux: Mux,
    pub(crate) pipe: Pipe,
    /// The pipe that another has taken over from, half-open.
    old: Option<Pipe>,
    greeter: Option<Box<Greeter>>,
    connected_at: u64,
    plan: Plan,
    mishaps: Mishaps,
    rng: Rng,
    /// Bytes that arrived in the last step.
    moved: u64,
    steps: u64,
    snapshot: Option<Snapshot>,
    /// What this boot of the guest writes, in each of its lives.
    truth: Vec<Lives>,
    from_guest: Witness,
    from_mux: Witness,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut rng = Rng(plan.seed ^ 0xabcd);
        let guest = Guest::boot(&plan, 0, 0, rng.next());
        let mux = Mux::new(&plan, &mut rng);
        let mut world = Self {
            now: 0,
            guest,
            mux,
            pipe: pipe(&plan, &mut rng),
            old: None,
            greeter: None,
            connected_at: 0,
            mishaps: Mishaps::new(&plan, &mut rng),
            plan,
            rng,
            moved: 0,
            steps: 0,
            snapshot: None,
            truth: Vec::new(),
            from_guest: Witness::default(),
            from_mux: Witness::default(),
        };
        world.truth = world.lives();
        world.greet();
        world
    }

    /// Runs with faults until `faulty_us`, then without until everything is through; panics if that
    /// takes longer than four times what the line needs and a minute.
    pub(crate) fn run(&mut self, faulty_us: u64) {
        while self.now < faulty_us && !self.is_done() {
            self.mishap();
            self.step();
        }
        self.heal();
        let bytes = self.plan.output.iter().sum::<usize>() + self.plan.input;
        let deadline = self.now + 60 * SECOND + 4 * SECOND * bytes as u64 / self.plan.rate;
        let patience = 30 * SECOND + 2 * SECOND * bytes as u64 / self.plan.rate;
        let mut progress = vec![(0, self.now); self.guest.sources.len() + 1];
        while !self.is_done() {
            self.step();
            assert!(self.now < deadline, "not drained in time: {}", self.state());
            let starved = self.note_progress(&mut progress, patience);
            assert!(!starved, "a channel gets nothing through: {}", self.state());
        }
        self.mux.check_prefixes();
        for (log, source) in self.mux.logs.iter().zip(&self.guest.sources) {
            assert!(log.bytes == source.bytes, "output is of another life");
        }
        assert!(self.guest.stdin_got == self.mux.input, "input differs");
    }

    // Whether any stream that is not through has got nothing through for so long.
    fn note_progress(&self, progress: &mut [(u64, u64)], patience: u64) -> bool {
        let got = self.guest.stdin_got.len() as u64 + u64::from(self.guest.stdin_done);
        let logs = self.mux.logs.iter().map(|log| (log.durable(), log.is_complete()));
        let streams = logs.chain([(got, self.guest.stdin_done)]);
        streams.zip(progress).any(|((amount, through), (seen, at))| {
            if *seen != amount || through {
                (*seen, *at) = (amount, self.now);
            }
            self.now - *at > patience
        })
    }

    fn heal(&mut self) {
        for line in [&mut self.pipe.up, &mut self.pipe.down] {
            line.heal(self.now, &mut self.rng);
        }
        self.old = None;
        self.plan.faults = Faults::default();
        if self.mux.may_splice && self.guest.returns() > 0 {
            // If all packets that used a number again were lost, nobody knows before the next session.
            self.disconnect(0);
        }
        self.guest.paused_until = 0;
        (self.mux.lag_us, self.mux.bad_sync) = (0, 0);
        self.guest.act(&self.plan, Act::LastOrders);
        if self.mux.needs_disk() {
            self.restart_mux(true);
        }
    }

    fn state(&self) -> String {
        let logs: Vec<_> = self.mux.logs.iter().map(|log| (log.written(), log.durable())).collect();
        format!(
            "logs {logs:?} of {:?}, stdin {} of {}, visitors {:?}, guest {:?}, mux {:?}",
            self.plan.output,
            self.guest.stdin_got.len(),
            self.mux.input.len(),
            self.guest.visitors(),
            self.guest.link,
            self.mux.link
        )
    }

    pub(crate) fn is_done(&self) -> bool {
        self.guest.is_done()
            && self.mux.is_done()
            && self.mux.boot_id() == Some(self.guest.boot_id())
    }

    pub(crate) fn step(&mut self) {
        self.advance();
        if self.pipe.up.is_severed() || self.pipe.down.is_severed() {
            self.disconnect(0);
        }
        self.deliver();
        if self.now >= self.guest.paused_until {
            self.guest.act(&self.plan, Act::Turn(self.now));
            self.guest_transmits();
        }
        if self.mux.turn(self.now, &mut self.rng) && self.greeter.is_none() {
            self.greet();
        }
        self.mux_transmits();
        self.steps += 1;
        if self.steps.is_multiple_of(8) {
            self.check_bounds();
        }
    }

    fn check_bounds(&self) {
        let mux = self.mux.link.as_ref().map(|link| (link, self.plan.mux_config()));
        let ends = [Some((&self.guest.link, self.plan.guest_config())), mux];
        for (link, config) in ends.into_iter().flatten() {
            let (held, limit) = (link.memory(), config.memory_limit(link.channels()));
            assert!(held <= limit, "{held} bytes held, {limit} allowed");
        }
    }

    fn advance(&mut self) {
        let lines = [Some(&self.pipe), self.old.as_ref()];
        let lines = lines.into_iter().flatten().flat_map(|pipe| [&pipe.up, &pipe.down]);
        let lines = lines.flat_map(|line| {
            [line.next_arrival(), Some(line.writable_at()).filter(|at| *at > self.now)]
        });
        let greeter = self.greeter.as_ref().and_then(|g| g.poll_timeout()).map(|at| at.as_micros());
        let ends = [self.guest.due(), self.mux.due(), greeter.map(|at| at.max(self.connected_at))];
        let paused = Some(self.guest.paused_until).filter(|at| *at > self.now);
        let next = lines.chain(ends).chain([paused]).flatten().filter(|at| *at > self.now).min();
        // At least a little, as a wake-up takes its time, too.
        self.now = next.unwrap_or(self.now).max(self.now + 20);
    }

    // ---- what goes wrong ----

    fn mishap(&mut self) {
        // At least one a step, so that time passes where nothing moves.
        let n = self.moved.max(1);
        let Self { mishaps, rng, .. } = self;
        let Mishaps { cut, takeover, kill, power, suspend, jump, reboot, .. } = mishaps;
        let [cut, takeover, kill, power, suspend, jump, reboot] =
            [cut, takeover, kill, power, suspend, jump, reboot].map(|odds| odds.pass(n, rng));
        let Mishaps { visit, snapshot, restore, .. } = mishaps;
        let [visit, snapshot, restore] = [visit, snapshot, restore].map(|odds| odds.pass(n, rng));
        if cut {
            let gap = self.rng.below(2 * SECOND);
            self.disconnect(gap);
        }
        if takeover {
            self.take_over();
        }
        if kill {
            self.restart_mux(false);
        }
        if power {
            self.restart_mux(true);
        }
        if suspend {
            self.guest.paused_until = self.now + self.rng.below(3_600 * SECOND);
        }
        if jump {
            let by = self.rng.below(86_400 * SECOND);
            if self.rng.one_in(2) {
                self.guest.act(&self.plan, Act::Jump(by));
            } else {
                self.mux.jump(by);
            }
        }
        if reboot && self.guest.boot < 3 {
            let boot = self.guest.boot + 1;
            self.guest = Guest::boot(&self.plan, boot, self.now, self.rng.next());
            (self.truth, self.snapshot) = (self.lives(), None);
        }
        if visit {
            let seed = self.rng.next();
            self.guest.act(&self.plan, Act::Visit(seed));
        }
        if snapshot {
            self.snapshot = self.guest.snapshot(self.now);
        }
        if restore && let Some(to) = self.snapshot {
            self.restore(to);
        }
    }

    fn lives(&self) -> Vec<Lives> {
        self.guest.sources.iter().map(|source| vec![source.bytes.clone()]).collect()
    }

    // The guest was put back: it goes on from there, and writes something else.
    fn restore(&mut self, to: Snapshot) {
        const MOST: u64 = 6;
        if self.guest.returns() >= MOST {
            return;
        }
        let seed = self.rng.next();
        self.guest.restore(&self.plan, to, self.now, seed);
        trace(self.now, || format!("guest is put back to {to:?}"));
        for (lives, source) in self.truth.iter_mut().zip(&self.guest.sources) {
            lives.push(source.bytes.clone());
        }
        if self.mux.boot_id() == Some(self.guest.boot_id()) {
            (self.mux.truth, self.mux.is_rewound) = (self.truth.clone(), true);
        }
        if !self.plan.keeps_pipe {
            let gap = self.rng.below(2 * SECOND);
            self.disconnect(gap);
        }
    }

    fn disconnect(&mut self, gap: u64) {
        self.pipe = pipe(&self.plan, &mut self.rng);
        self.old = None;
        if let Some(link) = &mut self.mux.link {
            link.handle_disconnected();
        }
        self.connected_at = self.now + gap;
        self.greet();
    }

    // A new pipe, and nobody has noticed that the old one is dead, if it is.
    fn take_over(&mut self) {
        self.old = Some(core::mem::replace(&mut self.pipe, pipe(&self.plan, &mut self.rng)));
        self.greet();
    }

    pub(crate) fn restart_mux(&mut self, power: bool) {
        let gap = self.rng.below(2 * SECOND);
        self.mux.restart(power);
        self.disconnect(gap);
    }

    fn greet(&mut self) {
        let mut instance = [0; 16];
        instance[..8].copy_from_slice(&self.mux.runs.to_le_bytes());
        let (entropy, now) = (entropy(self.rng.next()), Instant::from_micros(self.now));
        let config = self.plan.mux_config();
        self.greeter = Some(Box::new(Greeter::new(&config, instance, entropy, now)));
    }

    // ---- the lines ----

    fn deliver(&mut self) {
        self.moved = 0;
        if let Some(old) = &mut self.old {
            let (up, down) = (old.up.receive(self.now), old.down.receive(self.now));
            self.moved += (up.len() + down.len()) as u64;
            self.guest.act(&self.plan, Act::Bytes(self.now, down));
            let at = self.mux.at(self.now);
            if let Some(link) = &mut self.mux.link {
                link.handle_bytes(at, &up);
            }
        }
        if self.now >= self.guest.paused_until {
            let bytes = self.pipe.down.receive(self.now);
            self.moved += bytes.len() as u64;
            self.guest.act(&self.plan, Act::Bytes(self.now, bytes));
        }
        if self.now >= self.connected_at {
            let bytes = self.pipe.up.receive(self.now);
            self.moved += bytes.len() as u64;
            self.mux_bytes(&bytes);
        }
    }

    fn mux_bytes(&mut self, mut bytes: &[u8]) {
        let now = Instant::from_micros(self.now);
        if let Some(mut greeter) = self.greeter.take() {
            match greet_on(&mut greeter, now, &mut bytes, &self.plan) {
                Some(session) => {
                    self.mux.established(self.now, session, self.truth.clone());
                    self.mux.is_rewound |= self.guest.returns() > 0;
                    self.old = None;
                }
                None => {
                    self.greeter = Some(greeter);
                    return;
                }
            }
        }
        let at = self.mux.at(self.now);
        if let Some(link) = &mut self.mux.link {
            link.handle_bytes(at, bytes);
        }
    }

    fn guest_transmits(&mut self) {
        let mut out = Vec::new();
        // One that was put back is another guest here, as it has to use its numbers once more.
        let life = self.guest.boot * 1_000 + self.guest.returns();
        while self.pipe.up.is_writable(self.now) && self.guest.transmit(self.now, &mut out) {
            let session = self.guest.link.stats().sessions;
            self.from_guest.watch(life, session, &out);
            if self.plan.sabotage == Some(Sabotage::ReuseNumber) && self.now > SECOND {
                self.from_guest.watch(life, session, &out);
            }
            trace(self.now, || format!("guest sends {}", out.len()));
            if self.now >= self.connected_at {
                self.pipe.up.send(self.now, &out, &mut self.rng);
            }
            out.clear();
        }
        let (at, due) = (self.guest.at(self.now), self.guest.link.poll_timeout());
        assert!(due.is_none_or(|due| due > at), "a timer that is due stays due");
    }

    fn mux_transmits(&mut self) {
        let mut out = Vec::new();
        let at = self.mux.at(self.now);
        if let Some(greeter) = &mut self.greeter
            && self.now >= self.connected_at
            && greeter.poll_transmit(Instant::from_micros(self.now), &mut out)
        {
            self.pipe.down.send(self.now, &out, &mut self.rng);
            out.clear();
        }
        let line = match (&self.greeter, &mut self.old) {
            (Some(_), Some(old)) => &mut old.down,
            _ => &mut self.pipe.down,
        };
        let Some(link) = &mut self.mux.link else { return };
        while line.is_writable(self.now) && link.poll_transmit(at, &mut out) {
            self.from_mux.watch(self.mux.lives, link.stats().sessions, &out);
            trace(self.now, || format!("mux sends {}", out.len()));
            line.send(self.now, &out, &mut self.rng);
            out.clear();
        }
        let due = link.poll_timeout();
        assert!(due.is_none_or(|due| due > at), "a timer that is due stays due");
    }
}

fn greet_on(
    greeter: &mut Greeter,
    now: Instant,
    bytes: &mut &[u8],
    plan: &Plan,
) -> Option<wire::Session> {
    while let Some(greeting) = greeter.handle_bytes(now, bytes) {
        match greeting {
            Greeting::Asked(id) => {
                let psk = Psk::derive(KEY);
                assert_eq!(id, psk.id());
                greeter.offer(now, &psk, plan.protection).unwrap();
            }
            Greeting::Rejected(_) => {}
            Greeting::Established(session) => return Some(*session),
        }
    }
    None
}

fn pipe(plan: &Plan, rng: &mut Rng) -> Pipe {
    let mut line = || Line::new(plan.rate, 300, plan.grain, plan.faults, rng);
    Pipe { up: line(), down: line() }
}
