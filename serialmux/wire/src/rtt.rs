//! Round-trip time and delivery rate of one session, and what follows from them.

use crate::time::{Duration, Instant};

const INITIAL_PTO: Duration = Duration::from_millis(500);
const MIN_PTO: Duration = Duration::from_millis(50);
/// However long a round trip seemed, asking again costs 25 bytes.
const MAX_PTO: Duration = Duration::from_secs(5);
/// A sample this long after a silence is a suspended machine, not a slow line.
const SUSPENDED: Duration = Duration::from_secs(2);

/// Smoothed round-trip time (RFC 9002 section 5) and the best recent delivery rate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    min: Option<Duration>,
    /// Bytes per second.
    rate: Option<u64>,
}

impl Rtt {
    /// A packet was acknowledged `sample` after it was sent.
    pub(crate) fn sample(&mut self, sample: Duration) {
        let Some(smoothed) = self.smoothed else {
            // The first may span a suspension, too, and there is nothing to compare it with.
            let sample = sample.min(SUSPENDED);
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            self.min = Some(sample);
            return;
        };
        if sample > SUSPENDED && sample > smoothed * 10 {
            return;
        }
        let diff = smoothed.abs_diff(sample);
        self.variation = (self.variation * 3 + diff) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
        self.min = Some(self.min.map_or(sample, |min| min.min(sample)));
    }

    /// `bytes` were delivered between `since` and `now`. A sample of a sender that had no more to
    /// send says nothing about how slow the line is.
    pub(crate) fn delivered(&mut self, bytes: u64, since: Instant, now: Instant, idle: bool) {
        let micros = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX).max(1);
        let sample = bytes.saturating_mul(1_000_000) / micros;
        self.rate = Some(match self.rate {
            Some(rate) if sample < rate && idle => rate,
            Some(rate) if sample < rate => (rate.saturating_mul(15) + sample) / 16,
            _ => sample,
        });
    }

    /// Smoothed round-trip time, once there was a sample.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Smallest round-trip time of the session.
    pub(crate) fn min(&self) -> Option<Duration> {
        self.min
    }

    /// Delivery rate in bytes per second, once measured.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// How long to wait for an acknowledgement before asking (RFC 9002 section 6.2.1).
    pub(crate) fn pto(&self, max_ack_delay: Duration) -> Duration {
        self.smoothed.map_or(INITIAL_PTO, |smoothed| {
            let slack = (self.variation * 4).max(Duration::from_millis(5));
            (smoothed + slack + max_ack_delay).clamp(MIN_PTO, MAX_PTO)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_suspension_does_not_become_the_round_trip_time() {
        let mut rtt = Rtt::default();
        (0..20).for_each(|_| rtt.sample(Duration::from_millis(3)));
        rtt.sample(Duration::from_secs(3600));
        assert!(rtt.pto(Duration::ZERO) < Duration::from_millis(60));
    }

    #[test]
    fn a_first_round_trip_of_a_day_does_not_stop_the_asking() {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_secs(86_400));
        assert!(rtt.pto(Duration::ZERO) <= MAX_PTO);
        (0..40).for_each(|_| rtt.sample(Duration::from_millis(3)));
        assert!(rtt.pto(Duration::ZERO) < Duration::from_millis(100));
    }

    #[test]
    fn the_rate_rises_at_once_and_falls_slowly() {
        let mut rtt = Rtt::default();
        let at = Instant::from_micros;
        rtt.delivered(1000, at(0), at(1_000), true);
        assert_eq!(rtt.rate(), Some(1_000_000));
        rtt.delivered(0, at(0), at(1_000), true);
        assert_eq!(rtt.rate(), Some(1_000_000), "an idle sender proves nothing");
        rtt.delivered(0, at(0), at(1_000), false);
        assert_eq!(rtt.rate(), Some(937_500));
    }
}
