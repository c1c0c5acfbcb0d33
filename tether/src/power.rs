//! The end of the machine: everything stopped, written and unmounted, then off. PID 1 never just exits.

use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid, sync};
use tracing::{error, info, warn};

use crate::inside::freezer;
use crate::rootfs::MOUNT_POINT;
use crate::{reap, sys};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends all processes, writes everything to disk and powers off.
pub fn off() -> ! {
    end_all();
    info!("power off");
    cut()
}

/// Ends all processes, writes everything to disk and starts the machine again.
pub fn restart() -> ! {
    end_all();
    info!("restart");
    let refused = reboot(RebootMode::RB_AUTOBOOT);
    error!("restart refused: {refused:?}");
    cut()
}

fn end_all() {
    // Every process but this one. Those of a container die with its PID 1 at the latest.
    let _none_left = sys::kill(Pid::from_raw(-1), libc::SIGKILL);
    wait_for_all();
    release_disk();
}

/// Collects children until none is left, or until [`PATIENCE`] is over: a process that hangs in the kernel on
/// a dead device cannot be killed and must not keep the machine on.
fn wait_for_all() {
    let mut sigchld = SigSet::empty();
    sigchld.add(Signal::SIGCHLD);
    // Blocked and awaited: the order "look, then wait" has no gap then.
    let watched =
        sigchld.thread_block().and_then(|()| SignalFd::with_flags(&sigchld, SfdFlags::SFD_CLOEXEC));
    let Ok(watched) = watched else { return };
    let end = Instant::now() + PATIENCE;
    while waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD) {
        reap::collect();
        let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now()))
            .unwrap_or(PollTimeout::ZERO);
        if left == PollTimeout::ZERO {
            return warn!("some processes do not end, the machine stops without them");
        }
        if let Ok(1..) = poll(&mut [PollFd::new(watched.as_fd(), PollFlags::POLLIN)], left) {
            // Taken off, so that the next wait is for the next one.
            let _taken = watched.read_signal();
        }
    }
}

/// Unmounts the container's disk; when something still holds it, leaves it clean by other means.
fn release_disk() {
    // Nothing can be written to a frozen disk, and nobody is left to thaw it.
    freezer::thaw_now();
    sync();
    if umount2(MOUNT_POINT, MntFlags::empty()).is_err() {
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        // Not mounted at all is the one expected failure; after sync the journal covers any other.
        let _not_mounted = mount(None::<&str>, MOUNT_POINT, None::<&str>, read_only, None::<&str>);
    }
}

/// Powers off now.
fn cut() -> ! {
    sync();
    let refused = reboot(RebootMode::RB_POWER_OFF);
    // Only a machine without a power switch gets here; stopping is the next best thing.
    error!("power off refused: {refused:?}");
    let _halted = reboot(RebootMode::RB_HALT_SYSTEM);
    loop {
        nix::unistd::pause();
    }
}

/// Makes a panic report itself and then power off, and Ctrl-Alt-Del an ordered stop (as SIGINT) instead of
/// an instant reset. For PID 1 only.
pub fn guard() {
    panic::set_hook(Box::new(report_panic));
    // Refused only outside a machine of one's own.
    let _refused = set_cad_enabled(false);
}

fn report_panic(info: &PanicHookInfo<'_>) {
    error!("panic: {info}; this is a defect of the agent, the machine stops");
    // The child of a clone shares this hook until its exec; only PID 1 of the machine has a power switch,
    // and inside a PID namespace the child is PID 1 too, but its reboot ends only the namespace (pid_namespaces(7)).
    if getpid() == Pid::from_raw(1) {
        cut();
    }
}
