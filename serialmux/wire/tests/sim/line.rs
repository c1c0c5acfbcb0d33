//! A serial line in virtual time: a rate, a delay, and everything that goes wrong with bytes.

use crate::rng::{Odds, Rng};
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

impl Faults {
    /// Whether a packet may be lost on the way.
    pub(crate) fn can_lose(&self) -> bool {
        self.drop + self.burst + self.flip + self.insert + self.text + self.repeat > 0
    }
}

/// The same, each with how far off it is.
#[derive(Debug)]
struct Weather {
    drop: Odds,
    burst: Odds,
    flip: Odds,
    insert: Odds,
    text: Odds,
    repeat: Odds,
    stall: Odds,
    rate: Odds,
}

impl Weather {
    fn new(faults: Faults, rng: &mut Rng) -> Self {
        let mut odds = |every| Odds::new(every, rng);
        Self {
            drop: odds(faults.drop),
            burst: odds(faults.burst),
            flip: odds(faults.flip),
            insert: odds(faults.insert),
            text: odds(faults.text),
            repeat: odds(faults.repeat),
            stall: odds(faults.stall),
            rate: odds(faults.rate),
        }
    }

    fn all(&mut self) -> [&mut Odds; 8] {
        let Self { drop, burst, flip, insert, text, repeat, stall, rate } = self;
        [drop, burst, flip, insert, text, repeat, stall, rate]
    }

    fn calm(&mut self) -> u64 {
        self.all().into_iter().map(|odds| odds.calm()).min().unwrap_or(0)
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Line {
    /// Bytes ever sent.
    pub(crate) sent: u64,
    /// The line is cut for good after so many bytes.
    pub(crate) cut_after: Option<u64>,
    weather: Weather,
    /// The receiver is woken for so many bytes at once, or for what there is.
    grain: usize,
    usual_rate: u64,
    rate: u64,
    delay_us: u64,
    queue: VecDeque<(u64, u8)>,
    keeps_last: bool,
    last: VecDeque<u8>,
    free_at: u64,
    stalled_until: u64,
    dropping: u64,
}

impl Line {
    pub(crate) fn new(
        rate: u64,
        delay_us: u64,
        grain: usize,
        faults: Faults,
        rng: &mut Rng,
    ) -> Self {
        Self {
            sent: 0,
            cut_after: None,
            weather: Weather::new(faults, rng),
            grain,
            usual_rate: rate,
            rate,
            delay_us,
            queue: VecDeque::new(),
            keeps_last: faults.repeat > 0,
            last: VecDeque::new(),
            free_at: 0,
            stalled_until: 0,
            dropping: 0,
        }
    }

    /// No more faults from now on.
    pub(crate) fn heal(&mut self, now: u64, rng: &mut Rng) {
        self.weather = Weather::new(Faults::default(), rng);
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
        let mut rest = bytes;
        if let Some(n) = self.cut_after {
            let n = usize::try_from(n.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            self.sent += bytes.len().saturating_sub(n) as u64;
            rest = bytes.get(..n).unwrap_or(bytes);
        }
        self.sent += rest.len() as u64;
        while !rest.is_empty() {
            let n = usize::try_from(self.weather.calm()).unwrap_or(usize::MAX).min(rest.len());
            let (calm, after) = rest.split_at(n);
            for byte in calm {
                self.carry(now, *byte);
            }
            self.weather.all().into_iter().for_each(|odds| {
                odds.pass(n as u64, rng);
            });
            rest = after;
            if let Some((byte, after)) = rest.split_first() {
                self.storm(now, *byte, rng);
                rest = after;
            }
        }
    }

    fn arrival(&mut self, now: u64) -> u64 {
        self.free_at = self.free_at.max(now) + 1_000_000 / self.rate;
        (self.free_at + self.delay_us).max(self.stalled_until)
    }

    fn carry(&mut self, now: u64, byte: u8) {
        let at = self.arrival(now);
        if self.dropping > 0 {
            self.dropping -= 1;
            return;
        }
        self.queue.push_back((at, byte));
        if self.keeps_last {
            self.last.push_back(byte);
            if self.last.len() > 600 {
                self.last.pop_front();
            }
        }
    }

    // A byte at which something goes wrong.
    fn storm(&mut self, now: u64, byte: u8, rng: &mut Rng) {
        if self.weather.burst.pass(1, rng) {
            self.dropping = 1 + rng.below(16);
        }
        if self.weather.rate.pass(1, rng) {
            let slower = [1, 2, 10, 100][rng.below(4) as usize];
            self.rate = (self.usual_rate / slower).max(1_000);
        }
        if self.weather.stall.pass(1, rng) {
            // 1 ms, 10 ms, ... 1000 s, and an hour.
            let longest = 1_000 * 10_u64.pow(rng.below(8) as u32);
            self.stalled_until = now + rng.below(longest.min(3_600_000_000));
        }
        let at = (self.free_at.max(now) + self.delay_us).max(self.stalled_until);
        if self.weather.text.pass(1, rng) {
            self.queue.extend(b"[   12.3] printk\r\n".iter().map(|b| (at, *b)));
        }
        if self.weather.insert.pass(1, rng) {
            self.queue.push_back((at, rng.next() as u8));
        }
        if self.weather.repeat.pass(1, rng) {
            let n = self.last.len() - rng.below(self.last.len() as u64 + 1) as usize;
            self.queue.extend(self.last.iter().skip(n).map(|b| (at, *b)));
        }
        let flip = if self.weather.flip.pass(1, rng) { 1 << rng.below(8) } else { 0 };
        self.dropping = self.dropping.max(u64::from(self.weather.drop.pass(1, rng)));
        self.carry(now, byte ^ flip);
    }

    /// Everything that has arrived by `now`.
    pub(crate) fn receive(&mut self, now: u64) -> Vec<u8> {
        let n = self.queue.iter().take_while(|(at, _)| *at <= now).count();
        self.queue.drain(..n).map(|(_, byte)| byte).collect()
    }

    /// When the receiver is woken next.
    pub(crate) fn next_arrival(&self) -> Option<u64> {
        self.queue.get(self.grain - 1).or(self.queue.back()).map(|(at, _)| *at)
    }

    /// Whether the line has come to its directed end and delivered all before it.
    pub(crate) fn is_severed(&self) -> bool {
        self.cut_after.is_some_and(|n| self.sent >= n) && self.queue.is_empty()
    }
}
