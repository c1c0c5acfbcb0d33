//! The guest of a simulated run: its link, the output it writes, the input it gets.

use crate::plan::Plan;
use crate::rng::Rng;
use crate::tape::{Act, Snapshot, Tape};
use crate::world::{KEY, entropy, trace};
use wire::{ChannelId, Class, Direction, Event, GuestIdentity, Instant, Link, Open, Psk};

/// Labels from here on are visitors: short channels that either end may give up.
pub(crate) const VISITOR: u8 = 200;
const MAX_VISITORS: usize = 40;

/// One output channel.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: ChannelId,
    pub(crate) bytes: Vec<u8>,
    written: usize,
    finished: bool,
    class: Class,
    /// Counts the channels it had, each for all of the output.
    attempt: u8,
}

pub(crate) struct Guest {
    pub(crate) link: Link,
    pub(crate) boot: u64,
    pub(crate) sources: Vec<Source>,
    pub(crate) stdin_got: Vec<u8>,
    pub(crate) stdin_done: bool,
    pub(crate) paused_until: u64,
    stdin: ChannelId,
    visitors: Vec<(ChannelId, u8)>,
    /// What its monotonic clock is ahead of the world's, µs.
    skew: u64,
    /// When and from what it was booted.
    origin: (u64, u64),
    tape: Option<Tape>,
    /// How often it was put back.
    returns: u64,
}

impl Guest {
    pub(crate) fn boot(plan: &Plan, boot: u64, now: u64, seed: u64) -> Self {
        let rng = &mut Rng(seed);
        let identity = GuestIdentity {
            psk: Psk::derive(KEY),
            protection: plan.protection,
            boot_id: boot_id(boot),
            agent: "sim".into(),
        };
        // Large enough to be put back by days.
        let skew = 1_000_000_000_000_000 + rng.below(1_000_000_000);
        let at = Instant::from_micros(now + skew);
        let config = plan.guest_config();
        let mut link = Link::guest(config, identity, entropy(rng.next()), at);
        let classes = [Class::Log, Class::Terminal, Class::Exec, Class::Bulk, Class::Control];
        let sources = (plan.output.iter().enumerate())
            .map(|(i, n)| {
                let (class, bytes) = (classes[i % 5], plan.bytes(rng, *n));
                let id = link.open_channel(open(Direction::ToMux, class, i as u8, 0)).unwrap();
                Source { id, bytes, written: 0, finished: false, class, attempt: 0 }
            })
            .collect();
        let stdin = link.open_channel(open(Direction::ToGuest, Class::Exec, 255, 0)).unwrap();
        Self {
            link,
            boot,
            sources,
            stdin_got: Vec::new(),
            stdin_done: false,
            paused_until: 0,
            stdin,
            visitors: Vec::new(),
            skew,
            origin: (now, seed),
            tape: (plan.restore > 0).then(Tape::default),
            returns: 0,
        }
    }

    /// Does something to it, and remembers that.
    pub(crate) fn act(&mut self, plan: &Plan, act: Act) {
        match &act {
            Act::Bytes(now, bytes) => self.link.handle_bytes(self.at(*now), bytes),
            Act::Turn(now) => self.turn(*now),
            Act::Transmit(now) => {
                self.link.poll_transmit(self.at(*now), &mut Vec::new());
            }
            Act::Visit(seed) => self.visit(&mut Rng(*seed)),
            Act::LastOrders => self.last_orders(),
            Act::Jump(by) => self.skew += by,
            Act::Return(by, seed) => self.went_back(plan, *by, &mut Rng(*seed)),
        }
        if let Some(tape) = &mut self.tape {
            tape.push(act);
        }
    }

    /// Appends its next frame to `out`, if there is one.
    pub(crate) fn transmit(&mut self, now: u64, out: &mut Vec<u8>) -> bool {
        if let Some(tape) = &mut self.tape {
            tape.push(Act::Transmit(now));
        }
        let may = self.link.may_transmit(self.at(now));
        let does = self.link.poll_transmit(self.at(now), out);
        assert!(may || !does, "it had something, and said it had not");
        does
    }

    /// A moment to come back to.
    pub(crate) fn snapshot(&self, now: u64) -> Option<Snapshot> {
        self.tape.as_ref().map(|tape| tape.snapshot(now))
    }

    /// Puts it back.
    pub(crate) fn restore(&mut self, plan: &Plan, to: Snapshot, now: u64, seed: u64) {
        let Some(tape) = self.tape.take() else { return };
        let (booted, origin) = self.origin;
        let fresh = Self::boot(plan, self.boot, booted, origin);
        let returns = self.returns + 1;
        *self = tape.restore(plan, to, fresh, now, seed);
        self.returns = returns;
    }

    /// How often it was put back.
    pub(crate) fn returns(&self) -> u64 {
        self.returns
    }

    fn went_back(&mut self, plan: &Plan, by: u64, rng: &mut Rng) {
        self.skew -= by;
        self.returns += 1;
        for source in &mut self.sources {
            let written = source.written;
            let other = plan.bytes(rng, source.bytes.len());
            source.bytes.truncate(written);
            // In no payload that is all alike the same as before.
            source.bytes.extend(other.iter().skip(written).map(|byte| byte ^ rng.next() as u8));
        }
    }

    pub(crate) fn boot_id(&self) -> [u8; 16] {
        boot_id(self.boot)
    }

    pub(crate) fn at(&self, now: u64) -> Instant {
        Instant::from_micros(now + self.skew)
    }

    /// When it wants to be woken, in the world's time.
    pub(crate) fn due(&self) -> Option<u64> {
        let at = self.link.poll_timeout()?.as_micros();
        Some(at.saturating_sub(self.skew).max(self.paused_until))
    }

    // A short channel more, of one of five kinds; and another one may be given up.
    fn visit(&mut self, rng: &mut Rng) {
        if self.visitors.len() >= MAX_VISITORS {
            self.change_of_mind(rng);
            return;
        }
        let kind = VISITOR + rng.below(5) as u8;
        let direction = if kind == VISITOR + 4 { Direction::ToGuest } else { Direction::ToMux };
        let id = self.link.open_channel(open(direction, Class::Exec, kind, 0)).unwrap();
        self.link.write(id, &vec![kind; rng.below(3_000) as usize]);
        self.link.finish(id);
        self.visitors.push((id, kind));
        self.change_of_mind(rng);
    }

    fn change_of_mind(&mut self, rng: &mut Rng) {
        let n = rng.below(self.visitors.len() as u64) as usize;
        if let Some((id, kind)) = self.visitors.get(n)
            && *kind >= VISITOR + 3
        {
            self.link.abandon(*id);
        }
    }

    // Everybody leaves who would not of their own accord.
    fn last_orders(&mut self) {
        for (id, kind) in &self.visitors {
            if *kind >= VISITOR + 3 && self.link.offset(*id).is_some() {
                self.link.abandon(*id);
            }
        }
    }

    /// Short channels that are still there, with their kinds.
    pub(crate) fn visitors(&self) -> Vec<(ChannelId, u8)> {
        let known = |it: &&(ChannelId, u8)| self.link.offset(it.0).is_some();
        self.visitors.iter().filter(known).copied().collect()
    }

    /// Whether nothing is left to do, and nothing left behind.
    pub(crate) fn is_done(&self) -> bool {
        let gone = |id: &ChannelId| self.link.offset(*id).is_none();
        self.stdin_done
            && self.link.is_drained()
            && gone(&self.stdin)
            && self.sources.iter().all(|source| gone(&source.id))
            && self.visitors.iter().all(|(id, _)| gone(id))
    }

    // Events, input, output: everything but the line.
    fn turn(&mut self, now: u64) {
        let at = self.at(now);
        self.link.handle_timeout(at);
        while let Some(event) = self.link.poll_event() {
            trace(now, || format!("guest {event:?}"));
            self.event(event);
        }
        for source in &mut self.sources {
            source.written += self.link.write(source.id, &source.bytes[source.written..]);
            if source.written == source.bytes.len() && !source.finished {
                source.finished = true;
                self.link.finish(source.id);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Readable(id) if id == self.stdin => loop {
                let bytes = self.link.read(id, 700);
                if bytes.is_empty() {
                    return;
                }
                self.stdin_got.extend_from_slice(&bytes);
                self.link.release(id, self.stdin_got.len() as u64);
            },
            Event::Finished(id) if id == self.stdin => {
                self.stdin_done = true;
                self.link.close(id);
            }
            Event::RolledBack(id) | Event::Reset(id)
                if self.returns > 0 && !self.visitors.iter().any(|(v, _)| *v == id) =>
            {
                self.start_over(id);
            }
            Event::RolledBack(id) => assert!(self.returns > 0, "{id:?} went back in time"),
            Event::Lost { reason } => {
                assert!(self.returns > 0, "a session between honest ends broke: {reason}");
            }
            Event::Reset(id) => {
                assert!(self.visitors.iter().any(|(v, _)| *v == id), "{id:?} was given up");
            }
            _ => {}
        }
    }

    // A stream that is not the mux's any more: all of it again, on a channel of its own.
    fn start_over(&mut self, id: ChannelId) {
        if id == self.stdin {
            let open = open(Direction::ToGuest, Class::Exec, 255, 0);
            self.stdin = self.link.open_channel(open).unwrap();
            (self.stdin_got, self.stdin_done) = (Vec::new(), false);
        }
        let sources = self.sources.iter_mut().enumerate();
        for (i, source) in sources.filter(|(_, source)| source.id == id) {
            source.attempt += 1;
            let open = open(Direction::ToMux, source.class, i as u8, source.attempt);
            source.id = self.link.open_channel(open).unwrap();
            (source.written, source.finished) = (0, false);
        }
    }
}

fn open(direction: Direction, class: Class, label: u8, attempt: u8) -> Open {
    Open { direction, class, label: vec![label, attempt] }
}

fn boot_id(boot: u64) -> [u8; 16] {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&boot.to_le_bytes());
    id
}
