//! One direction of a bad line, without the line: bytes in, and what becomes of them out.

use super::fault::{Fault, Schedule, Weather};
use std::time::Duration;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// These bytes go on.
    Bytes(Vec<u8>),
    /// Nothing happens for so long.
    Wait(Duration),
    /// A fault of this kind happens.
    Note(&'static str),
    /// The connection ends, and what was behind in the same read is lost.
    Cut,
    /// The same, and the far end is not told.
    HalfOpen,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Distorter {
    schedule: Schedule,
    /// Bytes taken in so far, over all connections.
    offset: u64,
    /// Bytes still to be dropped.
    dropping: usize,
    /// Bytes still to pass slowly, and what each takes.
    slow: (usize, Duration),
}

impl Distorter {
    /// With faults by this seed.
    #[must_use]
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        let schedule = Schedule::new(seed, weather);
        Self { schedule, offset: 0, dropping: 0, slow: (0, Duration::ZERO) }
    }

    /// No faults from now on.
    pub(super) fn clear_up(&mut self) {
        *self = Self { offset: self.offset, ..Self::new(0, Weather::FAIR) };
    }

    /// Takes bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            let mut byte = *byte;
            let offset = self.offset;
            self.offset += 1;
            if offset >= self.schedule.next() {
                let fault = self.schedule.take();
                flush(&mut out, &mut steps);
                steps.push(Step::Note(fault.kind()));
                match fault {
                    Fault::Drop => self.dropping = self.dropping.max(1),
                    Fault::Burst(n) => self.dropping = self.dropping.max(n),
                    Fault::Flip(bits) => byte ^= bits,
                    Fault::Insert(text) => out.extend(text),
                    Fault::Stall(time) => steps.push(Step::Wait(time)),
                    Fault::Slow(n, rate) => self.slow = (n, Duration::from_secs(1) / rate),
                    Fault::Cut | Fault::HalfOpen => {
                        let is_cut = fault == Fault::Cut;
                        steps.push(if is_cut { Step::Cut } else { Step::HalfOpen });
                        return steps;
                    }
                }
            }
            if self.dropping > 0 {
                self.dropping -= 1;
                continue;
            }
            out.push(byte);
            if self.slow.0 > 0 {
                self.slow.0 -= 1;
                flush(&mut out, &mut steps);
                steps.push(Step::Wait(self.slow.1));
            }
        }
        flush(&mut out, &mut steps);
        steps
    }
}

fn flush(out: &mut Vec<u8>, steps: &mut Vec<Step>) {
    if !out.is_empty() {
        steps.push(Step::Bytes(std::mem::take(out)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauge::Kind;

    const N: usize = 200_000;

    /// What comes out, and what went wrong, with the input cut into pieces of `piece` bytes.
    fn run(seed: u64, piece: usize) -> (Vec<u8>, Vec<&'static str>, Duration) {
        let weather = Weather { weights: [20, 20, 20, 20, 10, 5, 0, 0], ..Weather::bad(1000) };
        let mut distorter = Distorter::new(seed, weather);
        let (mut bytes, mut kinds, mut time) = (Vec::new(), Vec::new(), Duration::ZERO);
        for piece in Kind::Text.bytes(N).chunks(piece) {
            for step in distorter.push(piece) {
                match step {
                    Step::Bytes(more) => bytes.extend(more),
                    Step::Note(kind) => kinds.push(kind),
                    Step::Wait(more) => time += more,
                    Step::Cut | Step::HalfOpen => unreachable!("not in this weather"),
                }
            }
        }
        (bytes, kinds, time)
    }

    #[test]
    fn a_seed_says_what_happens_however_the_bytes_are_cut() {
        let whole = run(7, N);
        assert_eq!(whole, run(7, 1));
        assert_eq!(whole, run(7, 613));
        assert_ne!(whole.0, run(8, N).0);
        assert!(whole.1.len() > 100, "{} faults", whole.1.len());
        for kind in ["drops", "bursts", "flips", "insertions", "stalls", "slow stretches"] {
            assert!(whole.1.contains(&kind), "no {kind}");
        }
    }

    #[test]
    fn nothing_happens_in_fair_weather_and_after_it_has_cleared_up() {
        let bytes = Kind::Random.bytes(N);
        let mut distorter = Distorter::new(1, Weather::FAIR);
        assert_eq!(distorter.push(&bytes), [Step::Bytes(bytes.clone())]);
        let mut distorter = Distorter::new(1, Weather::bad(100));
        assert_ne!(distorter.push(&bytes), [Step::Bytes(bytes.clone())]);
        distorter.clear_up();
        assert_eq!(distorter.push(&bytes), [Step::Bytes(bytes.clone())]);
    }

    #[test]
    fn a_connection_ends_at_the_byte_that_the_seed_says() {
        let weather = Weather { gap: 5_000, weights: [0, 0, 0, 0, 0, 0, 1, 1] };
        let mut distorter = Distorter::new(3, weather);
        let mut ends = 0;
        for piece in Kind::Text.bytes(N).chunks(500) {
            let steps = distorter.push(piece);
            ends += steps.iter().filter(|step| matches!(step, Step::Cut | Step::HalfOpen)).count();
            let last = steps.iter().position(|step| matches!(step, Step::Cut | Step::HalfOpen));
            assert!(last.is_none_or(|at| at + 1 == steps.len()), "nothing goes on after an end");
        }
        assert!(ends > 20, "{ends}");
    }
}
