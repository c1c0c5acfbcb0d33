//! Which pipe to use: the best one that answers.
//!
//! A pure state machine without descriptors or clock. It knows of each pipe whether it is open, which one
//! carries the link, and whether that one answers; it says which others should ask to take over, and when the
//! one in use should be called. Taking over is up to the handshake: only a pipe that carries bytes both ways
//! completes one, so nothing here has to guess.
//!
//! - A better pipe than the one in use always asks.
//! - When the one in use is closed, has no session, or owes an answer for [`PATIENCE`], all others ask; the
//!   first that answers is used, and a better one climbs over it later. When the multiplexer is away, none
//!   answers, and nothing changes.
//! - A pipe that was left because it did not answer must wait before it may climb back, longer each time:
//!   one that is half dead would cost [`PATIENCE`] again and again.

use std::time::Duration;

use wire::{Instant, Transport};

/// How long an answer may be owed.
pub const PATIENCE: Duration = Duration::from_secs(3);

const FIRST_PENALTY: Duration = Duration::from_secs(2);
const LAST_PENALTY: Duration = Duration::from_secs(120);
/// One that did well for so long has made up for what was.
const REHABILITATED: Duration = Duration::from_secs(120);

#[derive(Debug, Default, Clone, Copy)]
struct Rung {
    is_open: bool,
    /// It may not climb before.
    shunned_until: Option<Instant>,
    penalty: Duration,
}

/// The pipes of a guest, worst first. See the module's text.
#[derive(Debug)]
pub struct Ladder {
    rungs: [Rung; Transport::ALL.len()],
    used: Transport,
    used_since: Instant,
    /// Since when the one in use owes an answer.
    unanswered: Option<Instant>,
    is_live: bool,
    is_silent: bool,
    called: Option<Instant>,
}

impl Ladder {
    /// With one pipe in use, which need not have a session yet.
    pub fn new(used: Transport, now: Instant) -> Self {
        let mut ladder = Self {
            rungs: [Rung::default(); 3],
            used,
            used_since: now,
            unanswered: None,
            is_live: false,
            is_silent: false,
            called: None,
        };
        ladder.rungs[used as usize].is_open = true;
        ladder
    }

    /// The one in use.
    pub fn used(&self) -> Transport {
        self.used
    }

    /// A pipe has been opened or closed.
    pub fn set_open(&mut self, pipe: Transport, is_open: bool) {
        // One that is opened anew is not the one that did not answer.
        self.rungs[pipe as usize] = Rung { is_open, ..Rung::default() };
    }

    /// Whether a pipe is open.
    pub fn is_open(&self, pipe: Transport) -> bool {
        self.rungs[pipe as usize].is_open
    }

    /// The link has gone over to a pipe.
    pub fn moved(&mut self, pipe: Transport, now: Instant) {
        let is_recent = now.since(self.used_since) < REHABILITATED;
        let left = &mut self.rungs[self.used as usize];
        if self.is_silent && left.is_open {
            let before = if is_recent { left.penalty } else { Duration::ZERO };
            left.penalty = (before * 2).clamp(FIRST_PENALTY, LAST_PENALTY);
            left.shunned_until = Some(now + left.penalty);
        }
        (self.used, self.used_since) = (pipe, now);
        (self.unanswered, self.is_silent, self.called) = (None, false, None);
        self.is_live = true;
    }

    /// How the link does: whether it has a session, and since when an answer is owed. Returns whether the
    /// multiplexer should be called on the pipe in use.
    pub fn look(&mut self, is_live: bool, unanswered: Option<Instant>, now: Instant) -> bool {
        (self.is_live, self.unanswered) = (is_live, unanswered);
        self.is_silent = unanswered.is_some_and(|since| since + PATIENCE <= now);
        if !self.is_silent {
            self.called = None;
            return false;
        }
        let is_due = self.called.is_none_or(|called| called + PATIENCE <= now);
        if is_due {
            self.called = Some(now);
        }
        is_due && self.is_open(self.used)
    }

    /// Whether a pipe should ask to take over.
    pub fn wants(&self, pipe: Transport, now: Instant) -> bool {
        let rung = &self.rungs[pipe as usize];
        let is_needed = !self.is_open(self.used) || !self.is_live || self.is_silent;
        let is_shunned = rung.shunned_until.is_some_and(|until| now < until);
        pipe != self.used && rung.is_open && (is_needed || (pipe > self.used && !is_shunned))
    }

    /// When the answers may change by time alone.
    pub fn deadline(&self) -> Option<Instant> {
        let silence = match self.called {
            Some(called) => Some(called + PATIENCE),
            None => self.unanswered.map(|since| since + PATIENCE),
        };
        let climbs = Transport::ALL.into_iter().filter(|pipe| *pipe > self.used);
        let climbs = climbs.filter_map(|pipe| {
            let rung = &self.rungs[pipe as usize];
            rung.shunned_until.filter(|until| rung.is_open && *until > self.used_since)
        });
        climbs.chain(silence).min()
    }

    /// The moment [`deadline`](Self::deadline) named has come.
    pub fn forgive(&mut self, now: Instant) {
        for rung in &mut self.rungs {
            rung.shunned_until = rung.shunned_until.filter(|until| *until > now);
        }
    }
}

#[cfg(test)]
mod tests;
