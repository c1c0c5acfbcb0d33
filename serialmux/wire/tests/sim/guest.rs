//! The guest of a simulated run: its link, the output it writes, the input it gets.

use crate::plan::Plan;
use crate::rng::Rng;
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
}

impl Guest {
    pub(crate) fn boot(plan: &Plan, boot: u64, now: u64, rng: &mut Rng) -> Self {
        let identity = GuestIdentity {
            psk: Psk::derive(KEY),
            protection: plan.protection,
            boot_id: boot_id(boot),
            agent: "sim".into(),
        };
        let skew = rng.below(1_000_000_000);
        let at = Instant::from_micros(now + skew);
        let config = plan.guest_config();
        let mut link = Link::guest(config, identity, entropy(rng.next()), at);
        let classes = [Class::Log, Class::Terminal, Class::Exec, Class::Bulk, Class::Control];
        let sources = (plan.output.iter().enumerate())
            .map(|(i, n)| {
                let open = open(Direction::ToMux, classes[i % 5], i as u8);
                let bytes = plan.bytes(rng, *n);
                Source { id: link.open_channel(open).unwrap(), bytes, written: 0, finished: false }
            })
            .collect();
        let stdin = link.open_channel(open(Direction::ToGuest, Class::Exec, 255)).unwrap();
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

    pub(crate) fn jump(&mut self, by: u64) {
        self.skew += by;
    }

    /// A short channel more, of one of five kinds.
    pub(crate) fn visit(&mut self, rng: &mut Rng) {
        if self.visitors.len() >= MAX_VISITORS {
            return;
        }
        let kind = VISITOR + rng.below(5) as u8;
        let direction = if kind == VISITOR + 4 { Direction::ToGuest } else { Direction::ToMux };
        let id = self.link.open_channel(open(direction, Class::Exec, kind)).unwrap();
        self.link.write(id, &vec![kind; rng.below(3_000) as usize]);
        self.link.finish(id);
        self.visitors.push((id, kind));
    }

    /// Gives up one of the channels it may give up.
    pub(crate) fn change_of_mind(&mut self, rng: &mut Rng) {
        let n = rng.below(self.visitors.len() as u64) as usize;
        if let Some((id, kind)) = self.visitors.get(n)
            && *kind >= VISITOR + 3
        {
            self.link.abandon(*id);
        }
    }

    /// Everybody leaves who would not of their own accord.
    pub(crate) fn last_orders(&mut self) {
        for (id, kind) in &self.visitors {
            if *kind >= VISITOR + 3 && self.link.offset(*id).is_some() {
                self.link.abandon(*id);
            }
        }
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

    /// Events, input, output: everything but the line.
    pub(crate) fn turn(&mut self, now: u64) {
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
            Event::RolledBack(id) => panic!("{id:?} went back in time"),
            Event::Lost { reason } => panic!("a session between honest ends broke: {reason}"),
            Event::Reset(id) => {
                assert!(self.visitors.iter().any(|(v, _)| *v == id), "{id:?} was given up");
            }
            _ => {}
        }
    }
}

fn open(direction: Direction, class: Class, label: u8) -> Open {
    Open { direction, class, label: vec![label] }
}

fn boot_id(boot: u64) -> [u8; 16] {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&boot.to_le_bytes());
    id
}
