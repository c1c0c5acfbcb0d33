//! The agent's two clocks: a monotonic one that drives the link, and the wall clock that stamps records.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Monotonic time since the agent's start, in the link's terms.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The present moment for the link.
    pub fn now(self) -> wire::Instant {
        let micros = Instant::now().duration_since(self.start).as_micros();
        wire::Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// A moment of the link as the runtime's timers know it.
    pub fn to_runtime(self, moment: wire::Instant) -> Instant {
        self.start + Duration::from_micros(moment.as_micros())
    }
}

/// Wall-clock time in microseconds since the Unix epoch; 0 when the clock is set before it.
pub fn wall_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}
