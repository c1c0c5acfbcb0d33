//! The machine's wall clock, kept right by the multiplexer's.
//!
//! The hardware clock of a VM counts whole seconds, and a VM that was suspended or moved wakes up in the
//! past. So the agent asks what time it is: when a session begins, and then every `PERIOD`. An answer is
//! worth as much as its round trip was short, since the time told is of some moment in between; one that took
//! longer than `MAX_ROUND_TRIP` counts for nothing and is asked for again. An answer to an older question,
//! such as one that comes again after the connection was cut, counts for nothing either.
//!
//! | difference | what is done |
//! |---|---|
//! | within the round trip, or below 50 ms | nothing |
//! | on the first answer since the machine's start | the clock is set |
//! | below 1 s | the clock is slewed, at the kernel's 0.5 ms per second: no moment is skipped or comes twice |
//! | 1 s and more, in either direction | the clock is set, and that is logged as a warning |
//!
//! The container may set the clock, too; the next answer sets it back.

use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wire::message::guest;
use wire::message::upkeep::{AskTime, Time};

use crate::uplink::Uplink;
use crate::{clock, sys};

/// How long an answer is good for. A crystal drifts 2 ms in that time, a suspended VM any amount.
const PERIOD: Duration = Duration::from_secs(30);

/// When the question is asked again whose answer was of no use.
const RETRY: Duration = Duration::from_secs(5);

/// The longest round trip of a useful answer: a line under full load keeps control messages waiting for some
/// 10 ms.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// What is left alone at any rate, microseconds: people and programs do not notice.
const TOLERANCE: i64 = 50_000;

/// From where on the clock is set, microseconds: slewing this much takes half an hour.
const STEP: i64 = 1_000_000;

/// What to do about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adjustment {
    None,
    Slew,
    Step,
}

/// Asks for the time, and acts on the answers.
#[derive(Debug)]
pub struct Timekeeper {
    /// Sessions of the link when it was asked last.
    sessions: u64,
    /// When to ask next; nobody can be asked before the first session.
    due: Option<Instant>,
    /// Number and moment of the question that is open.
    asked: Option<(u64, Instant)>,
    last_stamp: u64,
    is_set: bool,
}

impl Timekeeper {
    /// Nothing asked yet.
    pub fn new() -> Self {
        Self { sessions: 0, due: None, asked: None, last_stamp: 0, is_set: false }
    }

    /// Asks if it is time to.
    pub fn turn(&mut self, uplink: &mut Uplink) {
        let now = Instant::now();
        if uplink.sessions() != self.sessions {
            self.sessions = uplink.sessions();
            self.due = Some(now);
        }
        // The next question comes with the answer, or with another session: questions never pile up.
        if self.due.take_if(|due| *due <= now).is_some() {
            self.last_stamp += 1;
            self.asked = Some((self.last_stamp, now));
            uplink.say(guest::Body::AskTime(AskTime { stamp: self.last_stamp }));
        }
    }

    /// When the next [`Self::turn`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Takes an answer, and sets the clock if it must be.
    pub fn answered(&mut self, answer: Time) {
        let now = Instant::now();
        let wall = clock::wall_us();
        let Some(round_trip) = self.round_trip(answer, now) else { return };
        self.due = Some(now + PERIOD);
        let error = micros(round_trip) / 2;
        let difference = signed(answer.wall_us) + error - signed(wall);
        let adjustment = judge(difference, error, !self.is_set);
        self.is_set = true;
        if let Err(errno) = apply(adjustment, difference) {
            warn!("the clock cannot be set: {errno}");
        }
    }

    /// How long the answer has taken, if it is one that counts.
    fn round_trip(&mut self, answer: Time, now: Instant) -> Option<Duration> {
        let (_, asked) = self.asked.take_if(|(stamp, _)| *stamp == answer.stamp)?;
        let round_trip = now.duration_since(asked);
        if round_trip > MAX_ROUND_TRIP {
            self.due = Some(now + RETRY);
            debug!("the time took {round_trip:.1?} to come and is not used");
            return None;
        }
        Some(round_trip)
    }
}

impl Default for Timekeeper {
    fn default() -> Self {
        Self::new()
    }
}

fn judge(difference: i64, error: i64, is_first: bool) -> Adjustment {
    match difference.saturating_abs() {
        small if small <= error.max(TOLERANCE) => Adjustment::None,
        _ if is_first => Adjustment::Step,
        less if less < STEP => Adjustment::Slew,
        _ => Adjustment::Step,
    }
}

fn apply(adjustment: Adjustment, difference: i64) -> Result<(), Errno> {
    let seconds = difference as f64 / 1e6;
    match adjustment {
        Adjustment::None => {
            debug!("the clock is right to {seconds:+.3} s");
            Ok(())
        }
        Adjustment::Slew => {
            info!("the clock is slewed by {seconds:+.3} s");
            sys::slew_clock(difference)
        }
        Adjustment::Step => {
            warn!("the clock was wrong and is set: {seconds:+.3} s");
            // An older slew would go on otherwise.
            sys::slew_clock(0)?;
            sys::set_clock(signed(clock::wall_us()) + difference)
        }
    }
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX / 4)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_set_slewed_or_left_as_documented() {
        for (difference, error, is_first, expected) in [
            (0, 0, true, Adjustment::None),
            (50_000, 0, true, Adjustment::None),
            (50_001, 0, true, Adjustment::Step),
            (-400_000, 1000, true, Adjustment::Step),
            (400_000, 1000, false, Adjustment::Slew),
            (-999_999, 1000, false, Adjustment::Slew),
            (300_000, 400_000, false, Adjustment::None),
            (1_000_000, 1000, false, Adjustment::Step),
            (-3_600_000_000, 1000, false, Adjustment::Step),
            (i64::MIN, 0, false, Adjustment::Step),
        ] {
            assert_eq!(judge(difference, error, is_first), expected, "{difference}");
        }
    }

    #[test]
    fn only_a_prompt_answer_to_the_open_question_counts() {
        let mut keeper = Timekeeper::new();
        let answer = |stamp| Time { stamp, wall_us: 1 };
        let now = Instant::now();
        assert_eq!(keeper.round_trip(answer(1), now), None, "nobody asked");
        keeper.asked = Some((2, now));
        let soon = now + Duration::from_millis(30);
        assert_eq!(keeper.round_trip(answer(1), soon), None, "an older question");
        assert_eq!(keeper.round_trip(answer(2), soon), Some(Duration::from_millis(30)));
        assert_eq!(keeper.round_trip(answer(2), soon), None, "it comes again");
        keeper.asked = Some((3, now));
        assert_eq!(keeper.round_trip(answer(3), now + Duration::from_millis(1001)), None);
        assert!(keeper.due.is_some(), "it is asked again");
    }
}
