//! Another process in a container that runs: in its namespaces and cgroup, beside its first process.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use super::failure::StartFailure;
use super::{Launch, MAKE, Starting, child, program, spawn};
use crate::cgroup::Cgroup;
use crate::stdio::{ChildStdio, Stdio};
use crate::sys;

/// The namespaces of a container, held by its first process.
#[derive(Debug)]
pub struct Inside {
    /// Names the first process, and with it all of its namespaces (setns(2), Linux 5.8).
    first: OwnedFd,
    /// Where the agent's own children belong.
    outside: OwnedFd,
}

impl Inside {
    /// The namespaces of the process `first`, a child that has not been collected.
    ///
    /// # Errors
    ///
    /// When the machine is out of descriptors.
    pub fn of(first: Pid) -> Result<Self, StartFailure> {
        let failed = StartFailure::machine;
        let outside = File::open("/proc/self/ns/pid").map_err(|error| {
            failed("open the PID namespace")(Errno::from_raw(
                error.raw_os_error().unwrap_or(libc::EIO),
            ))
        })?;
        let first = sys::open_process(first).map_err(failed("open the container's process"))?;
        Ok(Self { first, outside: outside.into() })
    }
}

/// Starts a process beside the container's own. Returns at once, as [`super::start`] does.
///
/// # Errors
///
/// When the machine or the container's limits allow no further process.
pub fn start(
    launch: &Launch,
    inside: &Inside,
    cgroup: &Cgroup,
) -> Result<(Starting, Stdio), StartFailure> {
    // Only children enter a PID namespace (pid_namespaces(7)): it is the agent that says where its next one
    // is born, and takes that back.
    setns(&inside.first, CloneFlags::CLONE_NEWPID)
        .map_err(entering("enter the container's PID namespace"))?;
    let spawned = |born: Option<&OwnedFd>| {
        let joins = if born.is_none() { Some(cgroup) } else { None };
        let child =
            |stdio: &ChildStdio, status: &OwnedFd| run(launch, inside, joins, stdio, status);
        spawn(launch, 0, born, child)
    };
    let started = match spawned(cgroup.directory()) {
        // As many tasks as the container may have. That bounds what it makes itself; who looks after one that
        // has used them up must get in. Joining is allowed (cgroup-v2.rst, "PID"), and there are no more than
        // [`crate::sessions::MAX_BESIDE`] of these.
        Err(StartFailure::Machine { errno: Errno::EAGAIN, step: MAKE }) => spawned(None),
        other => other,
    };
    setns(&inside.outside, CloneFlags::CLONE_NEWPID)
        .map_err(StartFailure::machine("leave the container's PID namespace"))?;
    started.map_err(|failure| match failure {
        // fork(2): the machine's own limit on tasks.
        StartFailure::Machine { errno: Errno::EAGAIN, .. } => StartFailure::Tasks,
        // pid_namespaces(7): the namespace's first process is gone, or going.
        StartFailure::Machine { errno: Errno::ENOMEM, step: MAKE } => StartFailure::Gone,
        other => other,
    })
}

/// setns(2) of a process that has ended, whether it has been collected or not.
fn entering(step: &'static str) -> impl FnOnce(Errno) -> StartFailure {
    move |errno| match errno {
        Errno::ESRCH => StartFailure::Gone,
        other => StartFailure::machine(step)(other),
    }
}

fn run(
    launch: &Launch,
    inside: &Inside,
    joins: Option<&Cgroup>,
    stdio: &ChildStdio,
    status: &OwnedFd,
) -> Infallible {
    let Err(failure) = enter(launch, inside, joins, stdio, status);
    child::give_up(&failure, status)
}

fn enter(
    launch: &Launch,
    inside: &Inside,
    joins: Option<&Cgroup>,
    stdio: &ChildStdio,
    status: &OwnedFd,
) -> Result<Infallible, StartFailure> {
    child::begin(launch)?;
    joins.map_or(Ok(()), Cgroup::join).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        StartFailure::machine("join the container's cgroup")(errno)
    })?;
    // All at once, root and working directory included: those of the mount namespace become this process's.
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    setns(&inside.first, namespaces).map_err(entering("enter the container's namespaces"))?;
    child::keep_only(stdio, status, None);
    program::become_program(launch, stdio, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    #[test]
    fn a_container_that_has_ended_and_was_not_collected_is_not_running() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(ended.id().cast_signed());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let inside = Inside::of(pid).unwrap();
        let nowhere = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::create(nowhere.path(), "container");
        let started = start(&Launch::default(), &inside, &cgroup);
        assert_eq!(started.map(drop).unwrap_err(), StartFailure::Gone);
        ended.wait().unwrap();
    }
}
