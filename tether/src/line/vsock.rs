//! A vsock connection to the host, and when to try to make it.
//!
//! Nothing announces that somebody listens on the host, so a refusal is answered by another attempt later,
//! in growing intervals, and only where the kernel has vsock at all, whose driver comes with its device.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use wire::{Instant, Transport};

use super::Line;

/// The port on which the multiplexer listens.
pub const PORT: u32 = 2377;

/// The hypervisor's side, whatever it is (`VMADDR_CID_HOST` in vsock(7)).
const HOST: u32 = 2;

/// There once the kernel has loaded vsock.
const DEVICE: &str = "/dev/vsock";

const FIRST_GAP: Duration = Duration::from_millis(250);
const LAST_GAP: Duration = Duration::from_secs(30);

/// When to connect next.
#[derive(Debug)]
pub struct Attempts {
    /// `None`: not before a device announces itself.
    next: Option<Instant>,
    gap: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { next: None, gap: FIRST_GAP }
    }
}

impl Attempts {
    /// A device has come that may be vsock's.
    pub fn encourage(&mut self, now: Instant) {
        if is_there() {
            (self.next, self.gap) = (Some(now), FIRST_GAP);
        }
    }

    /// One is under way.
    pub fn started(&mut self) {
        self.next = None;
    }

    /// The connection has been made; should it end, it is tried again soon.
    pub fn succeeded(&mut self) {
        (self.next, self.gap) = (None, FIRST_GAP);
    }

    /// It was refused, or has ended.
    pub fn failed(&mut self, now: Instant) {
        self.next = Some(now + self.gap);
        self.gap = (self.gap * 2).min(LAST_GAP);
    }

    /// Whether it is time.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|at| at <= now)
    }

    /// When it will be.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// Whether the kernel has vsock by now.
pub fn is_there() -> bool {
    Path::new(DEVICE).exists()
}

/// Begins to connect.
///
/// # Errors
///
/// The kernel's.
pub fn begin() -> io::Result<Line> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &VsockAddr::new(HOST, PORT)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Line::connecting(fd, Transport::Vsock),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_rare_and_start_over_after_a_success() {
        let mut attempts = Attempts::default();
        assert!(!attempts.is_due(Instant::from_micros(u64::MAX)), "without vsock there is none");
        let mut now = Instant::default();
        let mut gaps = Vec::new();
        for _ in 0..9 {
            attempts.failed(now);
            let next = attempts.next().unwrap();
            gaps.push(next.since(now).as_millis());
            now = next;
            assert!(attempts.is_due(now));
        }
        assert_eq!(gaps, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        attempts.succeeded();
        assert!(!attempts.is_due(now));
        attempts.failed(now);
        assert_eq!(attempts.next(), Some(now + FIRST_GAP));
    }
}
