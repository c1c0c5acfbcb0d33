//! What was done to a simulated guest, so that it can be put back to what it was at any moment.
//!
//! A guest depends on nothing but its seed and this: doing the first part of it again to a fresh guest
//! is a snapshot restored, random numbers and all.

use crate::guest::Guest;
use crate::plan::Plan;

/// One thing done to a guest.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Bytes came from the line.
    Bytes(u64, Vec<u8>),
    /// It had its turn.
    Turn(u64),
    /// It was asked for a frame.
    Transmit(u64),
    /// It opened a short channel more, or gave one up, as this seed says.
    Visit(u64),
    /// Everybody left.
    LastOrders,
    /// Its clock went ahead.
    Jump(u64),
    /// It was put back so long ago, µs, and from then on wrote other output, as this seed says.
    Return(u64, u64),
}

/// Everything done since it was booted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tape(Vec<Act>);

/// A moment that a guest can be put back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    acts: usize,
    at: u64,
}

impl Tape {
    pub(crate) fn push(&mut self, act: Act) {
        self.0.push(act);
    }

    pub(crate) fn snapshot(&self, now: u64) -> Snapshot {
        Snapshot { acts: self.0.len(), at: now }
    }

    /// The guest as it was, which goes on now.
    pub(crate) fn restore(
        mut self,
        plan: &Plan,
        to: Snapshot,
        fresh: Guest,
        now: u64,
        seed: u64,
    ) -> Guest {
        self.0.truncate(to.acts);
        let mut guest = fresh;
        for act in self.0 {
            guest.act(plan, act);
        }
        guest.act(plan, Act::Return(now - to.at, seed));
        guest
    }
}
