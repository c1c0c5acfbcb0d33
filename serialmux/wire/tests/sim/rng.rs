//! The generator that a simulated run draws everything from, so that its seed is all it depends on.

/// SplitMix64: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True once in `n` times; never for 0.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next() as u8);
    }
}

/// Something that strikes once in so many bytes or so: how many are left until it does, so that a
/// draw is needed when it strikes and not for every byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Odds {
    every: u64,
    left: u64,
}

impl Odds {
    /// Once in `every` on average; never for 0.
    pub(crate) fn new(every: u64, rng: &mut Rng) -> Self {
        let mut odds = Self { every, left: u64::MAX };
        odds.draw(rng);
        odds
    }

    fn draw(&mut self, rng: &mut Rng) {
        self.left = if self.every == 0 { u64::MAX } else { 1 + rng.below(2 * self.every) };
    }

    /// How many bytes pass before it strikes.
    pub(crate) fn calm(&self) -> u64 {
        self.left - 1
    }

    /// `n` bytes pass, at most those of the calm and one more. Says whether it strikes.
    pub(crate) fn pass(&mut self, n: u64, rng: &mut Rng) -> bool {
        if self.every == 0 {
            return false;
        }
        let strikes = n >= self.left;
        self.left = self.left.saturating_sub(n);
        if strikes {
            self.draw(rng);
        }
        strikes
    }
}
