//! How long anything may take before a test gives up: generous, for a deadline is only there for what hangs.

use std::time::Duration;

/// What an unloaded machine with KVM never comes near to.
const BASE: Duration = Duration::from_secs(60);
/// Emulation, on few cores with other tests beside, is slower by about this.
const EMULATED: u32 = 3;

/// The longest wait of any test.
#[must_use]
pub fn deadline() -> Duration {
    if crate::lab::accel() == "kvm" { BASE } else { BASE * EMULATED }
}

/// How long a program may still talk after its QEMU has ended: its clients must learn of the end by
/// then.
#[must_use]
pub fn grace() -> Duration {
    BASE / 2
}
