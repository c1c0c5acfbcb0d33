//! The container's disk held still: for a snapshot that shall be whole.
//!
//! A child of the agent freezes the file system, and thaws it when it is told to, when its time is over, or
//! when the agent is gone, whichever comes first. The agent itself calls nothing that could wait for the
//! frozen disk. A child that fails to thaw is made up for by the agent: thawing does not wait for writers.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2, read, write};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};
use wire::message::guest;

use super::failure::InsideError;
use crate::reap::Exit;
use crate::rootfs::MOUNT_POINT;
use crate::stdio::watch;
use crate::sys::{self, Cloned};

/// The longest time a disk may be held; writers wait that long.
pub const MAX_SECONDS: u32 = 3600;

/// Exit codes of the child.
const THAWED: i32 = 0;
const OVERDUE: i32 = 1;
const FAILED: u8 = 2;

/// A disk that is frozen, or about to be.
#[derive(Debug)]
pub struct Freezer {
    request: u64,
    pid: Pid,
    /// Tells how the freeze went, with a byte or a number.
    told: Option<AsyncFd<OwnedFd>>,
    /// Thaws when it is closed.
    hold: Option<OwnedFd>,
    /// Who waits for the thaw.
    thaws: Vec<u64>,
}

/// What came of a freezer's end.
#[derive(Debug, Default)]
pub struct Thawed {
    /// Who waited for it.
    pub requests: Vec<u64>,
    /// Whether nobody did: the time was over.
    pub overdue: bool,
}

impl Freezer {
    /// Begins to freeze the disk for at most `seconds`.
    ///
    /// # Errors
    ///
    /// [`InsideError::Machine`].
    pub fn start(request: u64, seconds: u32) -> Result<Self, InsideError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let disk = open(MOUNT_POINT, flags, Mode::empty())
            .map_err(InsideError::machine("open the container's disk"))?;
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(InsideError::machine("make a pipe"));
        let (told, tell) = pipe()?;
        let (held, hold) = pipe()?;
        let mask = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(InsideError::machine("block signals"))?;
        let cloned = sys::clone_process(0, None);
        if matches!(cloned, Ok(Cloned::Child)) {
            run(&disk, &tell, &held, seconds.clamp(1, MAX_SECONDS));
        }
        mask.thread_set_mask().map_err(InsideError::machine("unblock signals"))?;
        let pid = match cloned.map_err(InsideError::machine("make a process to freeze"))? {
            Cloned::Parent(pid) => pid,
            Cloned::Child => unreachable!("the child has ended"),
        };
        drop((tell, held));
        let told = watch(told).map_err(InsideError::machine("watch a pipe"))?;
        Ok(Self { request, pid, told: Some(told), hold: Some(hold), thaws: Vec::new() })
    }

    /// The child's id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The answer to the request, once it is known.
    pub fn answer(&mut self) -> Option<guest::Reply> {
        let mut text = [0; 256];
        let told = self.told.as_ref()?;
        let read = told.try_io(tokio::io::Interest::READABLE, |fd| Ok(read(fd, &mut text)?));
        let error = match read {
            Ok(0) => "the process that should freeze it has ended".to_owned(),
            Ok(len) => String::from_utf8_lossy(&text[..len]).trim().to_owned(),
            Err(_not_yet) => return None,
        };
        self.told = None;
        if error.is_empty() {
            info!("the container's disk is frozen");
        }
        Some(guest::Reply { request: self.request, error, body: Vec::new() })
    }

    /// Lets writes go on; the request is answered when they do.
    pub fn thaw(&mut self, request: u64) {
        self.thaws.push(request);
        self.hold = None;
    }

    /// The child has ended.
    pub fn ended(self, exit: Exit) -> Thawed {
        if exit.signal != 0 {
            warn!("the process that held the disk was killed by signal {}", exit.signal);
            thaw_now();
        }
        let overdue = exit.code == OVERDUE || exit.signal != 0;
        if overdue {
            warn!("the container's disk was thawed because its time was over");
        } else if exit.code == THAWED {
            info!("the container's disk is thawed");
        }
        Thawed { requests: self.thaws, overdue }
    }

    /// Waits until the answer may be known.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn wait(&self) {
        let Some(told) = &self.told else { return std::future::pending().await };
        match told.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_shutting_down) => std::future::pending().await,
        }
    }
}

/// Thaws the container's disk if it is frozen, as before the machine's end: nothing could be written then.
pub fn thaw_now() {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    if let Ok(disk) = open(MOUNT_POINT, flags, Mode::empty()) {
        // Fails when it is not frozen, which is what is wanted.
        let _not_frozen = sys::thaw(&disk);
    }
}

/// The child's life. It must not be killed for memory, and needs little.
fn run(disk: &OwnedFd, tell: &OwnedFd, held: &OwnedFd, seconds: u32) -> ! {
    sys::reset_signals();
    sys::close_all_but(vec![disk.as_raw_fd(), tell.as_raw_fd(), held.as_raw_fd()]);
    if let Err(errno) = sys::freeze(disk) {
        let text = match errno {
            Errno::EBUSY => "the container's disk is frozen already".to_owned(),
            errno => format!("cannot freeze the container's disk: {errno}"),
        };
        // The only reader is the agent.
        let _unreported = write(tell, text.as_bytes());
        sys::exit_now(FAILED);
    }
    // A blank is no error text, and the agent reads more than nothing.
    let _unreported = write(tell, b" ");
    let overdue = hold(held, Duration::from_secs(seconds.into()));
    let _not_frozen = sys::thaw(disk);
    sys::exit_now(u8::from(overdue))
}

/// Waits for the end of the pipe; says whether the time was over first.
fn hold(held: &OwnedFd, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        // poll(2) counts in ints; an hour of milliseconds fits.
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if let Ok(1..) = poll(&mut [PollFd::new(held.as_fd(), PollFlags::POLLIN)], timeout) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_when_the_other_end_closes_and_else_in_time() {
        let (held, hold_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
        assert!(hold(&held, Duration::from_millis(5)));
        drop(hold_end);
        assert!(!hold(&held, Duration::from_secs(3600)));
    }
}
