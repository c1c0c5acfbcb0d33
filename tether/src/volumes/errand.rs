//! A child of the agent that does what may wait, and leaves one record of how it went in a pipe.
//!
//! It is a copy of the agent, so that what it loads and allocates is gone with it. A child that is killed leaves
//! no record.

use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, pipe2, read, write};
use tokio::io::unix::AsyncFd;

use crate::stdio;
use crate::sys::{self, Cloned};

/// The longest record: `PIPE_BUF`, so that one write is atomic.
const MAX_RECORD: usize = 4096;

/// A child on its way.
#[derive(Debug)]
pub struct Errand {
    pid: Pid,
    status: AsyncFd<OwnedFd>,
}

impl Errand {
    /// Sends a child to do `work`, which is given the pipe that its record will go to. What it returns as an
    /// error is the record.
    ///
    /// # Errors
    ///
    /// When there can be no child, with the step.
    pub fn start(
        work: impl FnOnce(&OwnedFd) -> Result<(), String>,
    ) -> Result<Self, (&'static str, Errno)> {
        let failed = |step| move |errno| (step, errno);
        let (status, child_status) = pipe2(OFlag::O_CLOEXEC).map_err(failed("make a pipe"))?;
        // Between birth and reset, the child must not run the agent's signal handlers.
        let mask = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(failed("block signals"))?;
        let cloned = sys::clone_process(0, None);
        if matches!(cloned, Ok(Cloned::Child)) {
            run(&child_status, work);
        }
        mask.thread_set_mask().map_err(failed("unblock signals"))?;
        let pid = match cloned.map_err(failed("make a process"))? {
            Cloned::Parent(pid) => pid,
            Cloned::Child => unreachable!("the child has ended"),
        };
        drop(child_status);
        let status = stdio::watch(status).map_err(failed("watch a pipe"))?;
        Ok(Self { pid, status })
    }

    /// Waits until it is known how it went.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn ready(&self) {
        match self.status.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_shutting_down) => std::future::pending().await,
        }
    }

    /// How it went, once that is known; the context's task is woken then.
    pub fn poll_outcome(&self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        loop {
            let mut ready = match self.status.poll_read_ready(context) {
                Poll::Ready(Ok(ready)) => ready,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                Poll::Pending => return Poll::Pending,
            };
            let mut record = [0; MAX_RECORD];
            match ready.try_io(|fd| Ok(read(fd.get_ref(), &mut record)?)) {
                Ok(Ok(len)) => return Poll::Ready(outcome(&record[..len])),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error.to_string())),
                Err(_would_block) => {}
            }
        }
    }

    /// Kills the child. Not to be called once [`Self::poll_outcome`] has said how it went: its number may be
    /// another's then.
    pub fn kill(&self) {
        // One that has ended just now cannot be, and need not be.
        let _gone = sys::kill(self.pid, libc::SIGKILL);
    }
}

/// A line break is success, anything else the reason.
fn outcome(record: &[u8]) -> Result<(), String> {
    match record {
        [] => Err("what was mounting it was killed".to_owned()),
        b"\n" => Ok(()),
        text => Err(String::from_utf8_lossy(text).into_owned()),
    }
}

fn run(status: &OwnedFd, work: impl FnOnce(&OwnedFd) -> Result<(), String>) -> ! {
    sys::reset_signals();
    umask(Mode::from_bits_truncate(0o022));
    let mut record = match work(status) {
        Ok(()) => "\n".to_owned(),
        Err(text) => text,
    };
    record.truncate(record.floor_char_boundary(MAX_RECORD));
    // The only reader is the agent; when even this write fails, there is nobody left to tell.
    let _unreported = write(status, record.as_bytes());
    sys::exit_now(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_success_a_reason_or_missing() {
        assert_eq!(outcome(b"\n"), Ok(()));
        assert_eq!(outcome(b"no room"), Err("no room".to_owned()));
        assert_eq!(outcome(b""), Err("what was mounting it was killed".to_owned()));
    }
}
