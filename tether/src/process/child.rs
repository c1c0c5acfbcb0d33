//! The new process between its birth and its root: namespaces, names, descriptors, the root's mounts.
//!
//! Runs in the copy of the agent that [`crate::sys::clone_process`] made, as PID 1 of the container's
//! namespaces, and goes on in [`program`]. Whatever fails ends here, as one record in the status pipe; when
//! the program starts, the pipe closes by itself without a byte.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{sethostname, setsid, write};

use super::failure::{FailureRecord, StartFailure};
use super::init::InitProgram;
use super::{ChildStdio, Launch, program};
use crate::rootfs::Rootfs;
use crate::sys;

/// Becomes the container's process, or reports why not and ends.
pub(super) fn run(
    launch: &Launch,
    rootfs: &Rootfs,
    stdio: &ChildStdio,
    status: &OwnedFd,
) -> Infallible {
    let Err(failure) = start(launch, rootfs, stdio, status);
    give_up(&failure, status)
}

/// Reports why there will be no program, and ends.
pub(super) fn give_up(failure: &StartFailure, status: &OwnedFd) -> ! {
    // The only reader is the agent; when even this write fails, there is nobody left to tell.
    let _unreported = write(status, &FailureRecord::encode(failure));
    sys::exit_now(failure.exit_code())
}

fn start(
    launch: &Launch,
    rootfs: &Rootfs,
    stdio: &ChildStdio,
    status: &OwnedFd,
) -> Result<Infallible, StartFailure> {
    begin(launch)?;
    // After CLONE_INTO_CGROUP, so that the namespace's root is the container's own cgroup.
    unshare(CloneFlags::CLONE_NEWCGROUP)
        .map_err(StartFailure::machine("make a cgroup namespace"))?;
    sethostname(&launch.hostname).map_err(StartFailure::machine("set the host name"))?;
    let init = if launch.init { Some(InitProgram::open(status)?) } else { None };
    keep_only(stdio, status, init.as_ref());
    rootfs.enter(stdio.terminal)?;
    program::make_directory(&launch.dir);
    rootfs.seal()?;
    program::become_program(launch, stdio, init)
}

/// What every new process does first, still among the agent's files.
pub(super) fn begin(launch: &Launch) -> Result<(), StartFailure> {
    sys::reset_signals();
    umask(Mode::from_bits_truncate(0o022));
    setsid().map_err(StartFailure::machine("start a session"))?;
    launch.attributes.set_oom_score()
}

/// Closes every descriptor that the program's start does not need. Through `/proc/self/fd` the image's links
/// could name the others, and they lead out of its root. Nothing of the agent that holds one runs any more.
pub(super) fn keep_only(stdio: &ChildStdio, status: &OwnedFd, init: Option<&InitProgram<'_>>) {
    let pipes = [&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten();
    let needed = pipes.chain([status]).chain(init.map(InitProgram::file));
    sys::close_all_but(needed.map(AsRawFd::as_raw_fd).collect());
}
