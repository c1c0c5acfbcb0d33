//! A serial line in virtual time: a rate, a delay, and everything that goes wrong with bytes.

use crate::rng::Rng;
use std::collections::VecDeque;

/// How often each fault strikes: once in so many bytes; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) drop: u64,
    pub(crate) burst: u64,
    pub(crate) flip: u64,
    pub(crate) insert: u64,
    pub(crate) text: u64,
    /// The last bytes come once more, up to 600 of them.
    pub(crate) repeat: u64,
    /// Nothing arrives for 1 ms to 1 h.
    pub(crate) stall: u64,
    /// The rate changes by up to 100 times.
    pub(crate) rate: u64,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) faults: Faults,
    /// Bytes ever sent.
    pub(crate) sent: u64,
    /// The line is cut for good after so many bytes.
    pub(crate) cut_after: Option<u64>,
    usual_rate: u64,
    rate: u64,
    delay_us: u64,
    queue: VecDeque<(u64, u8)>,
    last: VecDeque<u8>,
    free_at: u64,
    stalled_until: u64,
    dropping: u64,
}

impl Line {
    pub(crate) fn new(rate: u64, delay_us: u64, faults: Faults) -> Self {
        Self {
            faults,
            sent: 0,
            cut_after: None,
            usual_rate: rate,
            rate,
            delay_us,
            queue: VecDeque::new(),
            last: VecDeque::new(),
            free_at: 0,
            stalled_until: 0,
            dropping: 0,
        }
    }

    /// No more faults from now on.
    pub(crate) fn heal(&mut self, now: u64) {
        self.faults = Faults::default();
        self.rate = self.usual_rate;
        self.stalled_until = self.stalled_until.min(now);
        self.free_at = self.free_at.min(now + 1_000_000);
        self.queue.iter_mut().for_each(|(at, _)| *at = (*at).min(now + 1_000_000));
    }

    /// Whether the sender's queue has room, as a tty does that is nearly drained.
    pub(crate) fn is_writable(&self, now: u64) -> bool {
        self.free_at.saturating_sub(now) * self.rate / 1_000_000 < 256
    }

    /// When it will have.
    pub(crate) fn writable_at(&self) -> u64 {
        self.free_at.saturating_sub(200 * 1_000_000 / self.rate)
    }

    pub(crate) fn send(&mut self, now: u64, bytes: &[u8], rng: &mut Rng) {
        for byte in bytes {
            self.sent += 1;
            if self.cut_after.is_some_and(|n| self.sent > n) {
                continue;
            }
            self.weather(now, rng);
            self.free_at = self.free_at.max(now) + 1_000_000 / self.rate;
            let at = (self.free_at + self.delay_us).max(self.stalled_until);
            if rng.one_in(self.faults.text) {
                self.queue.extend(b"[   12.3] printk\r\n".iter().map(|b| (at, *b)));
            }
            if rng.one_in(self.faults.insert) {
                self.queue.push_back((at, rng.next() as u8));
            }
            if rng.one_in(self.faults.repeat) {
                let n = self.last.len() - rng.below(self.last.len() as u64 + 1) as usize;
                self.queue.extend(self.last.iter().skip(n).map(|b| (at, *b)));
            }
            if self.dropping > 0 || rng.one_in(self.faults.drop) {
                self.dropping = self.dropping.saturating_sub(1);
                continue;
            }
            let flip = if rng.one_in(self.faults.flip) { 1 << rng.below(8) } else { 0 };
            self.queue.push_back((at, byte ^ flip));
            if self.faults.repeat > 0 {
                self.last.push_back(byte ^ flip);
                if self.last.len() > 600 {
                    self.last.pop_front();
                }
            }
        }
    }

    fn weather(&mut self, now: u64, rng: &mut Rng) {
        if rng.one_in(self.faults.burst) {
            self.dropping = 1 + rng.below(16);
        }
        if rng.one_in(self.faults.rate) {
            let slower = [1, 2, 10, 100][rng.below(4) as usize];
            self.rate = (self.usual_rate / slower).max(1_000);
        }
        if rng.one_in(self.faults.stall) {
            // 1 ms, 10 ms, ... 1000 s, and an hour.
            let longest = 1_000 * 10_u64.pow(rng.below(8) as u32);
            self.stalled_until = now + rng.below(longest.min(3_600_000_000));
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

    /// Whether the line has come to its directed end and delivered all before it.
    pub(crate) fn is_severed(&self) -> bool {
        self.cut_after.is_some_and(|n| self.sent >= n) && self.queue.is_empty()
    }
}
