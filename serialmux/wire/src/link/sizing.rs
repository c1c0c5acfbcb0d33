//! How large packets may be on a line that damages some: what is lost with a byte is the packet around it.
//!
//! Additive growth and multiplicative decrease (Chiu & Jain 1989), as of a congestion window, but of one packet:
//! on a line that loses one byte in `n`, packets settle where one in nine is lost, which is at an eighth of
//! `n`. That is near the best for any `n`; and a line that loses nothing is as if this were not here.

/// A thirty-second of what arrived is gained, a quarter lost.
const GAIN: usize = 32;

/// The most bytes of a packet, by what became of others.
#[derive(Debug)]
pub(super) struct Sizing {
    most: usize,
}

impl Default for Sizing {
    fn default() -> Self {
        Self { most: usize::MAX }
    }
}

impl Sizing {
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// From how many bytes on a packet says something about the size of those to come, where these have up to
    /// `limit`: a keystroke's does not.
    pub(super) fn evidence(limit: usize) -> usize {
        limit / 2
    }

    /// So many bytes arrived in packets that are evidence.
    pub(super) fn arrived(&mut self, bytes: usize) {
        self.most = self.most.saturating_add(bytes / GAIN);
    }

    /// One that is evidence was lost, where they have up to `limit`, but not less than `least`.
    pub(super) fn lost(&mut self, limit: usize, least: usize) {
        self.most = self.most.min(limit / 4 * 3).max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_settle_where_one_in_nine_is_lost() {
        // One byte in 5,000 is lost, by a generator of Knuth's (MMIX).
        let mut state = 1u64;
        let mut is_lost = move |len: usize| {
            (0..len).any(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33).is_multiple_of(5_000)
            })
        };
        let mut sizing = Sizing::default();
        let (mut sum, mut lost, n) = (0, 0, 20_000);
        for _ in 0..n {
            let len = sizing.most().clamp(256, 16_384);
            sum += len;
            if is_lost(len) {
                lost += 1;
                sizing.lost(len, 256);
            } else {
                sizing.arrived(len);
            }
        }
        assert!((500..700).contains(&(sum / n)), "{}", sum / n);
        assert!((9..14).contains(&(lost * 100 / n)), "{lost}");
    }

    #[test]
    fn what_was_lost_is_forgotten_when_nothing_more_is() {
        let mut sizing = Sizing::default();
        (0..20).for_each(|_| sizing.lost(sizing.most().min(16_384), 256));
        assert_eq!(sizing.most(), 256);
        (0..200).for_each(|_| sizing.arrived(sizing.most()));
        assert!(sizing.most() > 16_384);
    }
}
