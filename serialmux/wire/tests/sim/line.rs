//! A serial line in virtual time: a rate, a delay, and everything that goes wrong with bytes.

use std::collections::VecDeque;

/// A small fast generator (SplitMix64), so that a seed is all a run depends on.
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

/// How often each fault strikes: once in so many bytes; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) drop: u64,
    pub(crate) burst: u64,
    pub(crate) flip: u64,
    pub(crate) insert: u64,
    pub(crate) text: u64,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) bytes_per_second: u64,
    pub(crate) delay_us: u64,
    pub(crate) faults: Faults,
    queue: VecDeque<(u64, u8)>,
    free_at: u64,
    dropping: u64,
}

impl Line {
    pub(crate) fn new(bytes_per_second: u64, delay_us: u64, faults: Faults) -> Self {
        Self { bytes_per_second, delay_us, faults, queue: VecDeque::new(), free_at: 0, dropping: 0 }
    }

    /// Whether the sender's queue has room, as a tty does that is nearly drained.
    pub(crate) fn is_writable(&self, now: u64) -> bool {
        self.free_at.saturating_sub(now) * self.bytes_per_second / 1_000_000 < 256
    }

    /// When it will have.
    pub(crate) fn writable_at(&self) -> u64 {
        self.free_at.saturating_sub(200 * 1_000_000 / self.bytes_per_second)
    }

    pub(crate) fn send(&mut self, now: u64, bytes: &[u8], rng: &mut Rng) {
        for byte in bytes {
            self.free_at = self.free_at.max(now) + 1_000_000 / self.bytes_per_second;
            let at = self.free_at + self.delay_us;
            if rng.one_in(self.faults.burst) {
                self.dropping = 1 + rng.below(16);
            }
            if rng.one_in(self.faults.text) {
                self.queue.extend(b"[   12.3] printk\r\n".iter().map(|b| (at, *b)));
            }
            if rng.one_in(self.faults.insert) {
                self.queue.push_back((at, rng.next() as u8));
            }
            if self.dropping > 0 || rng.one_in(self.faults.drop) {
                self.dropping = self.dropping.saturating_sub(1);
                continue;
            }
            let flip = if rng.one_in(self.faults.flip) { 1 << rng.below(8) } else { 0 };
            self.queue.push_back((at, byte ^ flip));
        }
    }

    /// Everything that has arrived by `now`.
    pub(crate) fn receive(&mut self, now: u64) -> Vec<u8> {
        let n = self.queue.iter().take_while(|(at, _)| *at <= now).count();
        self.queue.drain(..n).map(|(_, byte)| byte).collect()
    }

    pub(crate) fn next_arrival(&self) -> Option<u64> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// The pipe is cut: what is on the way is gone.
    pub(crate) fn cut(&mut self) {
        self.queue.clear();
    }
}
