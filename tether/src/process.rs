//! The container's process: what to start, and the start itself.
//!
//! [`start`] makes the namespaces and returns at once; the child then prepares its root (`child`) and its
//! identity (`program`) on its own while the agent goes on serving the link. How that ended comes through
//! [`Starting::poll_outcome`]: nothing when the program runs, a record when it does not.

pub mod attributes;
mod child;
pub mod exec;
pub mod executable;
pub mod failure;
pub mod init;
mod program;

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Pid, pipe2, read};
use tokio::io::unix::AsyncFd;

use self::attributes::Attributes;
use self::failure::{FailureRecord, MAX_RECORD, StartFailure};
use crate::cgroup::Cgroup;
use crate::rootfs::Rootfs;
use crate::stdio::{self, ChildStdio, Stdio};
use crate::sys::{self, Cloned};

/// What to start, in plain words; made from the session config by [`crate::session`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launch {
    /// The program: a path or a name for `PATH`.
    pub program: String,
    /// The arguments with `argv[0]`.
    pub args: Vec<String>,
    /// `KEY=VALUE` entries as configured.
    pub env: Vec<String>,
    /// The working directory; empty means `/`.
    pub dir: String,
    /// `name|uid[:group|gid]`; empty means root.
    pub user: String,
    /// The host name inside.
    pub hostname: String,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Whether anything can be written to its stdin.
    pub open_stdin: bool,
    /// Whether nobody wants its output: its streams are `/dev/null` then, unless it has a terminal.
    pub detached: bool,
    /// Its limits, capabilities and the like.
    pub attributes: Attributes,
    /// Whether it gets an init above it; for the container's first process only.
    pub init: bool,
}

/// The step whose failure may be the container's limit on tasks.
const MAKE: &str = "make the process";

/// A process on its way to its program.
#[derive(Debug)]
pub struct Starting {
    /// Its id outside its own PID namespace.
    pub pid: Pid,
    status: AsyncFd<OwnedFd>,
}

impl Starting {
    /// Of a process that a test has made, which says on this pipe how it went.
    #[cfg(test)]
    pub(crate) fn of(pid: Pid, status: OwnedFd) -> Result<Self, nix::errno::Errno> {
        Ok(Self { pid, status: stdio::watch(status)? })
    }

    /// Whether the program runs (`None`) or the start has failed, once that is known; the context's task is
    /// woken then.
    ///
    /// # Errors
    ///
    /// When the status pipe itself cannot be read.
    pub fn poll_outcome(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<FailureRecord>>> {
        loop {
            let mut ready = match self.status.poll_read_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Poll::Pending,
            };
            // The record is one atomic write and is read at once.
            let mut record = [0; MAX_RECORD];
            match ready.try_io(|fd| Ok(read(fd.get_ref(), &mut record)?)) {
                Ok(Ok(len)) => return Poll::Ready(Ok(FailureRecord::decode(&record[..len]))),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Starts the container's process in fresh mount, PID, IPC and UTS namespaces (the network is the machine's)
/// and in `cgroup`.
///
/// # Errors
///
/// When the machine cannot make pipes, a terminal or the process. Everything that depends on the image comes
/// later, through [`Starting::poll_outcome`].
pub fn start(
    launch: &Launch,
    rootfs: &Rootfs,
    cgroup: &Cgroup,
) -> Result<(Starting, Stdio), StartFailure> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let child = |stdio: &ChildStdio, status: &OwnedFd| child::run(launch, rootfs, stdio, status);
    spawn(launch, flags, cgroup.directory(), child)
}

/// Makes a process in `cgroup`, or in the agent's own, and has it run `child`, which never returns.
fn spawn(
    launch: &Launch,
    flags: libc::c_int,
    cgroup: Option<&OwnedFd>,
    child: impl FnOnce(&ChildStdio, &OwnedFd) -> Infallible,
) -> Result<(Starting, Stdio), StartFailure> {
    let (stdio, child_stdio) = match launch {
        Launch { detached: true, tty: false, .. } => Stdio::nothing(),
        Launch { tty, open_stdin, .. } => Stdio::open(*tty, *open_stdin)?,
    };
    let (status_read, status_write) =
        pipe2(OFlag::O_CLOEXEC).map_err(StartFailure::machine("make the status pipe"))?;
    // Between birth and reset, the child must not run the agent's signal handlers: they write into a pipe
    // that parent and child share.
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(StartFailure::machine("block signals"))?;
    let cloned = sys::clone_process(flags, cgroup);
    if matches!(cloned, Ok(Cloned::Child)) {
        child(&child_stdio, &status_write);
    }
    mask.thread_set_mask().map_err(StartFailure::machine("unblock signals"))?;
    let pid = match cloned.map_err(StartFailure::machine(MAKE))? {
        Cloned::Parent(pid) => pid,
        Cloned::Child => unreachable!("the child has become its program or ended"),
    };
    // The child's ends close here; only then do its exits show as ends of file.
    drop((child_stdio, status_write));
    let status =
        stdio::watch(status_read).map_err(StartFailure::machine("watch the status pipe"))?;
    Ok((Starting { pid, status }, stdio))
}
