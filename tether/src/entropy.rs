//! Bytes from the multiplexer for the kernel's random generator.
//!
//! A VM has few sources of its own, and one restored from a snapshot would repeat what it has drawn before.
//! So each session with the multiplexer brings [`SEED`] bytes. They count as entropy on a sealed link, where
//! nobody else can know them; on a plain one they are mixed in all the same, which can do no harm.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tracing::{debug, warn};

use crate::sys;

/// As many bytes as the kernel's generator has for its key.
pub const SEED: usize = 32;

/// Gives them to the kernel; a seed of another length is not used.
pub fn add(seed: &[u8], secret: bool) {
    let Ok(seed) = <&[u8; SEED]>::try_from(seed) else {
        return warn!("a seed of {} bytes is not used, {SEED} are expected", seed.len());
    };
    match give(seed, secret) {
        Ok(()) => debug!("random generator seeded by the multiplexer"),
        Err(errno) => warn!("the random generator takes no seed: {errno}"),
    }
}

fn give(seed: &[u8; SEED], secret: bool) -> Result<(), Errno> {
    let device = open("/dev/random", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    sys::add_entropy(&device, seed, secret)
}
