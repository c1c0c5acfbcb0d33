//! The mux of a simulated run: its link, its disk, its slow readers, and what it sends.

use crate::disk::Log;
use crate::guest::VISITOR;
use crate::plan::{Plan, Sabotage};
use crate::rng::Rng;
use crate::world::trace;
use std::collections::VecDeque;
use wire::{ChannelId, Event, Instant, Link, LinkConfig, Session};

const GONE: &str = "the pipe is gone";

/// All that one output channel may say, one entry for each time that its guest was put back.
pub(crate) type Lives = Vec<Vec<u8>>;

pub(crate) struct Mux {
    pub(crate) link: Option<Link>,
    pub(crate) runs: u64,
    /// Links so far.
    pub(crate) lives: u64,
    pub(crate) logs: Vec<Log>,
    /// What the logs' boot writes in the end, each, in every life it had.
    pub(crate) truth: Vec<Lives>,
    /// The guest was put back to a snapshot.
    pub(crate) is_rewound: bool,
    /// What was received before that was noticed may be of two lives.
    pub(crate) may_splice: bool,
    /// What the guest's input is in the end.
    pub(crate) input: Vec<u8>,
    pub(crate) lag_us: u64,
    pub(crate) bad_sync: u64,
    boot_id: Option<[u8; 16]>,
    outputs: Vec<Option<ChannelId>>,
    /// Which attempt at its output each log is of.
    attempts: Vec<u8>,
    /// Another run's clients type the same.
    keeps_input: bool,
    visitors: Vec<(ChannelId, u8)>,
    stdin: Option<ChannelId>,
    stdin_sent: usize,
    decisions: VecDeque<(u64, ChannelId, [u8; 2], u64)>,
    reads: VecDeque<(u64, ChannelId)>,
    syncs: VecDeque<(u64, usize, u64)>,
    skew: u64,
    config: LinkConfig,
    sabotage: Option<Sabotage>,
}

impl Mux {
    pub(crate) fn new(plan: &Plan, rng: &mut Rng) -> Self {
        Self {
            link: None,
            runs: 0,
            lives: 0,
            logs: Vec::new(),
            truth: Vec::new(),
            is_rewound: false,
            may_splice: plan.keeps_pipe && plan.faults.can_lose(),
            attempts: Vec::new(),
            keeps_input: plan.restore > 0,
            input: plan.bytes(rng, plan.input),
            lag_us: plan.lag_us,
            bad_sync: plan.bad_sync,
            boot_id: None,
            outputs: Vec::new(),
            visitors: Vec::new(),
            stdin: None,
            stdin_sent: 0,
            decisions: VecDeque::new(),
            reads: VecDeque::new(),
            syncs: VecDeque::new(),
            skew: rng.below(1_000_000_000),
            config: plan.mux_config(),
            sabotage: plan.sabotage,
        }
    }

    pub(crate) fn at(&self, now: u64) -> Instant {
        Instant::from_micros(now + self.skew)
    }

    /// When it wants to be woken, in the world's time.
    pub(crate) fn due(&self) -> Option<u64> {
        let link = self.link.as_ref().and_then(Link::poll_timeout);
        let link = link.map(|at| at.as_micros().saturating_sub(self.skew));
        let decision = self.decisions.front().map(|(at, ..)| *at);
        let read = self.reads.front().map(|(at, ..)| *at);
        let sync = self.syncs.front().map(|(at, ..)| *at);
        [link, decision, read, sync].into_iter().flatten().min()
    }

    pub(crate) fn jump(&mut self, by: u64) {
        self.skew += by;
    }

    /// The process is killed, and with `power` the machine; another run starts on the same disk.
    pub(crate) fn restart(&mut self, power: bool) {
        self.runs += 1;
        self.link = None;
        self.forget_channels();
        for log in &mut self.logs {
            if power {
                log.lose_power();
            }
            log.recover();
        }
    }

    fn forget_channels(&mut self) {
        self.decisions.clear();
        self.reads.clear();
        self.syncs.clear();
        self.visitors.clear();
        self.stdin = None;
        self.outputs = vec![None; self.logs.len()];
    }

    pub(crate) fn needs_disk(&self) -> bool {
        self.logs.iter().any(Log::is_broken)
    }

    pub(crate) fn is_done(&self) -> bool {
        let known =
            |id: &ChannelId| self.link.as_ref().is_some_and(|link| link.offset(*id).is_some());
        self.logs.iter().all(Log::is_complete)
            && !self.outputs.iter().flatten().any(known)
            && !self.visitors.iter().any(|(id, _)| known(id))
            && !self.stdin.iter().any(known)
    }

    /// Which boot the logs are of.
    pub(crate) fn boot_id(&self) -> Option<[u8; 16]> {
        self.boot_id
    }

    /// A greeter brought a session; `truth` is what this boot of the guest writes.
    pub(crate) fn established(&mut self, now: u64, session: Session, truth: Vec<Lives>) {
        let at = self.at(now);
        let same_boot = self.boot_id == Some(session.peer().id);
        if !same_boot {
            if !(self.may_splice && self.is_rewound) {
                self.check_prefixes();
            }
            self.boot_id = Some(session.peer().id);
            self.logs = truth.iter().map(|_| Log::default()).collect();
            self.attempts = vec![0; truth.len()];
            (self.truth, self.is_rewound) = (truth, false);
            self.forget_channels();
        }
        match &mut self.link {
            Some(link) if same_boot => link.install(at, session),
            link => {
                self.lives += 1;
                *link = Some(Link::mux(self.config.clone(), session, at));
            }
        }
    }

    /// What is in the logs is what was written, as far as it goes.
    pub(crate) fn check_prefixes(&self) {
        for (truth, log) in self.truth.iter().zip(&self.logs) {
            let differs = "output differs";
            assert!(truth.iter().any(|truth| truth.starts_with(&log.bytes)), "{differs}");
            let is_whole = truth.contains(&log.bytes);
            assert!(!log.is_complete() || is_whole, "output ends too early");
        }
    }

    /// Events, disk, input: everything but the line. Says whether the guest asks for a session.
    pub(crate) fn turn(&mut self, now: u64, rng: &mut Rng) -> bool {
        let at = self.at(now);
        let Some(mut link) = self.link.take() else { return false };
        link.handle_timeout(at);
        let mut greet = false;
        while let Some(event) = link.poll_event() {
            trace(now, || format!("mux {event:?}"));
            greet |= match &event {
                Event::Lost { reason } => reason != GONE,
                event => *event == Event::Greet,
            };
            self.event(now, &mut link, event, rng);
        }
        self.decide(now, &mut link, rng);
        self.read(now, &mut link, rng);
        self.sync(now, &mut link, rng);
        self.feed(&mut link);
        self.link = Some(link);
        greet
    }

    fn event(&mut self, now: u64, link: &mut Link, event: Event, rng: &mut Rng) {
        match event {
            Event::Opened { channel, label, base, .. } => {
                let due = now + rng.below(self.lag_us.min(200_000) + 1);
                self.decisions.push_back((due, channel, [label[0], label[1]], base));
                if due == now {
                    self.decide(now, link, rng);
                }
            }
            Event::Readable(id) => self.reads.push_back((now + rng.below(self.lag_us + 1), id)),
            Event::Finished(id) => self.finished(now, link, id, rng),
            Event::RolledBack(id) => {
                assert!(self.is_rewound, "{id:?} went back in time");
                self.let_go(id);
            }
            Event::Lost { reason } if reason != GONE => {
                assert!(self.is_rewound, "a session between honest ends broke: {reason}");
            }
            Event::Reset(id) if self.is_rewound => self.let_go(id),
            Event::Reset(id) => {
                let output = self.outputs.iter().position(|o| *o == Some(id));
                assert!(output.is_none_or(|i| self.logs[i].is_complete()), "{id:?} was given up");
                assert!(self.stdin != Some(id), "the input was given up");
            }
            _ => {}
        }
    }

    fn let_go(&mut self, id: ChannelId) {
        self.outputs.iter_mut().filter(|it| **it == Some(id)).for_each(|it| *it = None);
        self.stdin = self.stdin.filter(|stdin| *stdin != id);
    }

    fn decide(&mut self, now: u64, link: &mut Link, rng: &mut Rng) {
        while self.decisions.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, channel, label, base)) = self.decisions.pop_front() else { return };
            let [label, attempt] = label;
            match label {
                255 => self.take_input(link, channel, base, rng),
                VISITOR => link.refuse(channel),
                label if label > VISITOR => {
                    self.visitors.push((channel, label));
                    link.accept(channel, base);
                }
                i => self.take_output(link, channel, (usize::from(i), attempt), base),
            }
        }
    }

    // Another run's clients type something else from here on.
    fn take_input(&mut self, link: &mut Link, channel: ChannelId, base: u64, rng: &mut Rng) {
        let base = usize::try_from(base).unwrap();
        assert!(base <= self.input.len(), "an ended input was offered again");
        if self.runs > 0 && !self.keeps_input {
            rng.fill(&mut self.input[base..]);
        }
        self.stdin_sent = base;
        self.stdin = Some(channel);
        link.accept(channel, 0);
    }

    fn take_output(&mut self, link: &mut Link, channel: ChannelId, what: (usize, u8), base: u64) {
        let (i, attempt) = what;
        if attempt < self.attempts[i] {
            link.abandon(channel);
            return;
        }
        // Two lives that began at one snapshot count alike. Of the other one's log the disk may know nothing yet.
        let is_another = self.logs[i].durable() == 0 && self.logs[i].written() > 0;
        if attempt > self.attempts[i] || is_another {
            // What came before stays as it is, with a mark; this log is a new one.
            if !self.may_splice {
                self.check_prefixes();
            }
            self.attempts[i] = attempt;
            self.logs[i] = Log::default();
            self.syncs.retain(|(_, of, _)| *of != i);
        }
        let log = &self.logs[i];
        assert!(base <= log.durable(), "{base} was released, {} is durable", log.durable());
        let cheat = u64::from(self.sabotage == Some(Sabotage::ClaimTooMuch) && self.runs > 0);
        self.outputs[i] = Some(channel);
        if cheat > 0 {
            link.accept(channel, log.durable() + cheat);
        } else {
            let mut digest = link.blank_digest();
            digest.update(log.kept());
            link.accept_known(channel, log.durable(), digest);
        }
        if log.is_complete() {
            link.close(channel);
        }
    }

    fn read(&mut self, now: u64, link: &mut Link, rng: &mut Rng) {
        while self.reads.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.reads.pop_front() else { return };
            if let Some((_, kind)) = self.visitors.iter().find(|(v, _)| *v == id) {
                if *kind == VISITOR + 1 {
                    link.abandon(id);
                }
                let offset = link.offset(id).unwrap_or(0);
                while !link.read(id, 3000).is_empty() {}
                link.release(id, offset);
                continue;
            }
            let Some(i) = self.outputs.iter().position(|o| *o == Some(id)) else { continue };
            if self.sabotage == Some(Sabotage::Starve) && self.logs[i].bytes.len() > 8_000 {
                continue;
            }
            loop {
                let bytes = link.read(id, 3000);
                if bytes.is_empty() {
                    break;
                }
                self.write(i, &bytes);
            }
            if self.sabotage == Some(Sabotage::ReleaseBeforeSync) {
                link.release(id, self.logs[i].written());
            }
            self.syncs.push_back((now + rng.below(40_000), i, self.logs[i].written()));
        }
    }

    fn write(&mut self, i: usize, bytes: &[u8]) {
        let log = &mut self.logs[i];
        let due = log.bytes.len() > 5_000 && bytes.len() > 8;
        match self.sabotage {
            Some(Sabotage::Reorder) if due => {
                let (a, b) = bytes.split_at(bytes.len() / 2);
                log.write(b);
                log.write(a);
            }
            Some(Sabotage::Repeat) if due => {
                log.write(bytes);
                log.write(bytes);
            }
            Some(Sabotage::Omit) if due => log.write(&bytes[1..]),
            _ => log.write(bytes),
        }
    }

    fn finished(&mut self, now: u64, link: &mut Link, id: ChannelId, rng: &mut Rng) {
        match self.outputs.iter().position(|o| *o == Some(id)) {
            Some(i) => {
                self.logs[i].end();
                self.syncs.push_back((now + rng.below(40_000), i, self.logs[i].written()));
            }
            None => link.close(id),
        }
    }

    // One disk operation a turn, so that a kill can come between any two.
    fn sync(&mut self, now: u64, link: &mut Link, rng: &mut Rng) {
        if self.syncs.front().is_none_or(|(at, ..)| *at > now) {
            return;
        }
        let Some((_, i, upto)) = self.syncs.pop_front() else { return };
        let log = &mut self.logs[i];
        if !log.sync(upto, !rng.one_in(self.bad_sync)) {
            return;
        }
        let Some(id) = self.outputs[i] else { return };
        link.release(id, log.durable());
        if log.is_complete() {
            link.close(id);
        }
    }

    fn feed(&mut self, link: &mut Link) {
        let Some(id) = self.stdin else { return };
        self.stdin_sent += link.write(id, &self.input[self.stdin_sent..]);
        if self.stdin_sent == self.input.len() {
            link.finish(id);
        }
    }
}
