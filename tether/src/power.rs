//! The end of the machine: everything stopped, written and unmounted, then off. PID 1 never just exits.

use std::panic::{self, PanicHookInfo};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::unistd::{Pid, getpid, sync};
use tracing::{error, info};

use crate::rootfs::MOUNT_POINT;
use crate::{reap, sys};

/// Ends all processes, writes everything to disk and powers off.
pub fn off() -> ! {
    // Every process but this one. Those of a container die with its PID 1 at the latest.
    let _none_left = sys::kill(Pid::from_raw(-1), libc::SIGKILL);
    wait_for_all();
    release_disk();
    info!("power off");
    cut()
}

/// Collects children until none is left. SIGKILL cannot be refused, so this ends.
fn wait_for_all() {
    // ECHILD ends it.
    while nix::sys::wait::waitpid(Pid::from_raw(-1), None).is_ok() {}
    reap::collect();
}

/// Unmounts the container's disk; when something still holds it, leaves it clean by other means.
fn release_disk() {
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
