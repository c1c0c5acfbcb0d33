//! The only notion of time in this crate: microseconds since an arbitrary start, always passed in.

use core::ops::{Add, Sub};
pub use core::time::Duration;

/// A moment on the caller's monotonic clock, in microseconds since an arbitrary start.
///
/// The crate never reads a clock: every `handle_*` and `poll_*` takes `now`. Going backwards is
/// tolerated (differences saturate at zero), so a suspended machine cannot cause a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment `micros` microseconds after the arbitrary start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the arbitrary start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}
