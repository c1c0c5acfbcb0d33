//! What can go wrong on a line, and how often.

use gauge::Noise;
use std::time::Duration;

/// Text such as a kernel writes to a port that it was not told to leave alone.
const PRINTK: &[u8] = b"[   12.345678] random: crng init done\r\n";

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// A byte is missing.
    Drop,
    /// Some bytes in a row are missing, as when a FIFO overruns.
    Burst(usize),
    /// Bits of a byte are turned over.
    Flip(u8),
    /// Bytes come from nowhere.
    Insert(Vec<u8>),
    /// Nothing moves for a while.
    Stall(Duration),
    /// So many bytes pass one by one, at so many bytes a second.
    Slow(usize, u32),
    /// The connection ends.
    Cut,
    /// The VM's end of the connection ends, and serialmux is not told.
    HalfOpen,
}

impl Fault {
    /// Its kind, for counts.
    #[must_use]
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Drop => "drops",
            Self::Burst(_) => "bursts",
            Self::Flip(_) => "flips",
            Self::Insert(_) => "insertions",
            Self::Stall(_) => "stalls",
            Self::Slow(..) => "slow stretches",
            Self::Cut => "cuts",
            Self::HalfOpen => "half-open connections",
        }
    }

    fn draw(weather: &Weather, noise: &mut Noise) -> Self {
        let kinds = weather.weights;
        let mut left = noise.below(kinds.iter().map(|it| u64::from(*it)).sum::<u64>().max(1));
        let kind = kinds.iter().position(|weight| {
            let is_it = left < u64::from(*weight);
            left = left.saturating_sub(u64::from(*weight));
            is_it
        });
        let some = |noise: &mut Noise, n: u64| usize::try_from(noise.below(n)).unwrap_or(0);
        match kind {
            Some(1) => Self::Burst(2 + some(noise, 15)),
            Some(2) => Self::Flip(1 << noise.below(8)),
            Some(3) if noise.below(2) == 0 => Self::Insert(PRINTK.to_vec()),
            Some(3) => Self::Insert(vec![0; 1 + some(noise, 40)]),
            Some(4) => Self::Stall(Duration::from_millis(1 + noise.below(300))),
            Some(5) => Self::Slow(256 + some(noise, 1024), 5_000),
            Some(6) => Self::Cut,
            Some(7) => Self::HalfOpen,
            _ => Self::Drop,
        }
    }
}

/// How often things go wrong, and which.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Bytes between two faults, on the average; 0: there are none.
    pub gap: u64,
    /// How often each fault is chosen, in the order of `Fault`.
    pub weights: [u32; 8],
}

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self { gap: 0, weights: [0; 8] };

    /// All of it, every `gap` bytes. A connection that ends is rare: the VM takes a second to call again.
    #[must_use]
    pub const fn bad(gap: u64) -> Self {
        Self { gap, weights: [20, 20, 20, 20, 10, 5, 3, 2] }
    }
}

/// The faults of one direction: where each is, by offset in the stream.
#[derive(Debug)]
pub(super) struct Schedule {
    noise: Noise,
    weather: Weather,
    next: u64,
}

impl Schedule {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        let mut schedule = Self { noise: Noise::new(seed), weather, next: 0 };
        schedule.advance();
        schedule
    }

    /// Offset of the next fault.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// That fault; the one after it becomes the next.
    pub(super) fn take(&mut self) -> Fault {
        let fault = Fault::draw(&self.weather, &mut self.noise);
        self.advance();
        fault
    }

    fn advance(&mut self) {
        self.next = match self.weather.gap {
            0 => u64::MAX,
            gap => self.next + 1 + self.noise.below(2 * gap),
        };
    }
}
