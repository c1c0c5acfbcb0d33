//! Pauses in what goes into a serial port, for the sake of what comes out of it.
//!
//! A VM that writes into an emulated port keeps its processor to itself: of a keystroke's frame the port's FIFO takes
//! 14 bytes, and the next ones only when the writing stops; and the process that is to answer it gets to run no
//! sooner. So when the first bytes of such a frame have come, or a process has been given input, the
//! agent says nothing more for a moment, or until the rest, or the answer, is there.

use wire::{Duration, Instant};

/// How long.
const LENGTH: Duration = Duration::from_millis(1);

/// How long in all until something is said in between: whoever types without a pause does not keep it from that.
const MOST: Duration = Duration::from_millis(2);

/// The pause, if there is one.
#[derive(Debug, Default)]
pub(super) struct Hush {
    until: Option<Instant>,
    /// When the last one ends since something was said.
    latest: Option<Instant>,
}

impl Hush {
    /// Something is worth waiting for.
    pub(super) fn begin(&mut self, now: Instant) {
        let latest = *self.latest.get_or_insert(now + MOST);
        self.until = Some(latest.min(now + LENGTH)).filter(|until| *until > now);
    }

    /// It has come.
    pub(super) fn end(&mut self) {
        self.until = None;
    }

    /// Something was said.
    pub(super) fn said(&mut self) {
        self.latest = None;
    }

    /// Ends it if its time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.until.take_if(|until| *until <= now);
    }

    /// Whether nothing is to be said.
    pub(super) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// When to let it [expire](Self::expire).
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_itself_or_when_what_was_waited_for_has_come() {
        let (mut hush, start) = (Hush::default(), Instant::default());
        assert!(!hush.is_on());
        hush.begin(start);
        assert_eq!(hush.deadline(), Some(start + LENGTH));
        hush.expire(start);
        assert!(hush.is_on());
        hush.expire(start + LENGTH);
        assert!(!hush.is_on());
        hush.begin(start + LENGTH);
        assert!(hush.is_on());
        hush.end();
        assert!(!hush.is_on());
    }

    #[test]
    fn something_is_said_at_least_every_so_often() {
        let (mut hush, start) = (Hush::default(), Instant::default());
        let step = LENGTH / 4;
        let silent = (0..1000).map(|n| start + step * n).find(|now| {
            hush.begin(*now);
            !hush.is_on()
        });
        assert_eq!(silent, Some(start + MOST));
        hush.said();
        hush.begin(start + MOST);
        assert!(hush.is_on());
    }
}
