//! The one place where the daemon reads clocks.

use std::sync::OnceLock;
use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};
use wire::Instant;

fn start() -> StdInstant {
    static START: OnceLock<StdInstant> = OnceLock::new();
    *START.get_or_init(StdInstant::now)
}

/// Now, on the link's scale: microseconds since the daemon first asked.
pub fn now() -> Instant {
    let micros = start().elapsed().as_micros();
    Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The moment `at`, on the runtime's scale.
pub fn deadline(at: Instant) -> tokio::time::Instant {
    (start() + std::time::Duration::from_micros(at.as_micros())).into()
}

/// Wall-clock time, µs since the Unix epoch; 0 before it.
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Random bytes of the system, for the link.
pub fn entropy() -> wire::Entropy {
    Box::new(|bytes| {
        // The kernel's generator is ready once the machine has booted; a daemon that could not
        // read it must not go on with predictable keys.
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    })
}
