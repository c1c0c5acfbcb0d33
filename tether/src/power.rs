//! The end of the machine: everything stopped, written and unmounted, then off. PID 1 never just exits.
//!
//! In order: frozen disks are thawed, every process is killed and collected, servers' directories are unmounted,
//! what was lent is given back, everything is written and unmounted, the power goes off. Each step has a limit: a process that hangs in the kernel or a disk that
//! does not answer must not keep the machine on. The exit record has gone before all of this (see
//! [`crate::agent`]); what is left to say goes to the console.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, sync};
use tracing::{error, info, warn};

use crate::afterlife;
use crate::reap;
use crate::sys::{self, Cloned};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long servers may take to have what was written to their directories.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);

/// How long the disks may take to have everything: a fifth of the memory at most (`vm.dirty_ratio`), on a
/// slow disk.
const DISK_PATIENCE: Duration = Duration::from_secs(300);

/// The same after a panic, when what counts is that the machine stops.
pub(crate) const PANIC_PATIENCE: Duration = Duration::from_secs(10);

/// Ends all processes, writes everything to disk and powers off. `give_back` is called when nobody uses a network
/// any more.
pub fn off(give_back: impl FnOnce()) -> ! {
    end_all(give_back);
    info!("power off");
    cut()
}

/// Ends all processes, writes everything to disk and starts the machine again. `give_back` as with [`off`].
pub fn restart(give_back: impl FnOnce()) -> ! {
    end_all(give_back);
    info!("restart");
    let refused = reboot(RebootMode::RB_AUTOBOOT);
    error!("restart refused: {refused:?}");
    cut()
}

fn end_all(give_back: impl FnOnce()) {
    let Mounts { disks, shares } =
        Mounts::of(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    disks.iter().for_each(|disk| thaw(disk));
    // Every process but this one. Those of a container die with its PID 1 at the latest.
    let _none_left = sys::kill(Pid::from_raw(-1), libc::SIGKILL);
    let none = || {
        reap::collect();
        waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD)
    };
    if !await_children(PATIENCE, none) {
        warn!("some processes do not end, the machine stops without them");
    }
    let left = leave(&shares);
    give_back();
    if !within(DISK_PATIENCE, || release(&disks, left)) {
        error!("the disks do not answer, the machine stops without them");
    }
}

/// What the agent has mounted, the last mounted first.
#[derive(Debug, PartialEq, Eq)]
struct Mounts {
    /// Where file systems with a device of their own are.
    disks: Vec<String>,
    /// Where directories of servers are.
    shares: Vec<String>,
}

impl Mounts {
    /// As a `mountinfo` text tells it (proc(5)).
    fn of(mountinfo: &str) -> Self {
        let mut mounts = Self { disks: Vec::new(), shares: Vec::new() };
        for line in mountinfo.lines().rev() {
            let Some((place, device)) = line.split_once(" - ") else { continue };
            let Some(target) = place.split(' ').nth(4).map(unescaped) else { continue };
            match device.split(' ').collect::<Vec<_>>().as_slice() {
                ["nfs" | "nfs4", ..] => mounts.shares.push(target),
                [_, source, ..] if source.starts_with("/dev/") => mounts.disks.push(target),
                _ => {}
            }
        }
        mounts
    }
}

/// Has servers get what was written to their directories, and unmounts these; whether that could be done. What a
/// server that does not answer was to get is lost.
fn leave(shares: &[String]) -> bool {
    if shares.is_empty() {
        return true;
    }
    let left = within(SERVER_PATIENCE, || {
        for share in shares {
            // The unmount does not wait for what was written, while a process that hangs has the directory, too.
            if let Ok(directory) = open_directory(share) {
                // Whether all is there, the server alone knows.
                let _written = rustix::fs::syncfs(directory);
            }
            let _held = umount2(share.as_str(), MntFlags::empty());
        }
    });
    if !left {
        error!("a server of a volume does not answer, what was written last is not there");
        within(PATIENCE, || {
            for share in shares {
                // Fails what waits for the server (umount(2)).
                let _gone = umount2(share.as_str(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
            }
        });
    }
    left
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The kernel writes blanks and the like as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Lets writes go on that somebody has suspended: who waits for them could not be killed.
fn thaw(disk: &str) {
    if open_directory(disk).is_ok_and(|directory| sys::thaw(&directory).is_ok()) {
        warn!("the disk at {disk} was frozen, and is thawed");
    }
}

/// Writes everything and unmounts; when something still holds a disk, leaves it clean by other means. Where a
/// server does not answer, the disks alone are written: a sync would wait for the server, too.
fn release(disks: &[String], everything: bool) {
    if everything {
        sync();
    }
    let held = disks.iter().filter(|disk| {
        let disk = disk.as_str();
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        umount2(disk, MntFlags::empty()).is_err()
            && mount(None::<&str>, disk, None::<&str>, read_only, None::<&str>).is_err()
    });
    if held.count() > 0 {
        // Remounts all file systems read-only by force (Documentation/admin-guide/sysrq.rst). After the sync
        // the journal covers whatever this misses.
        let _forced = fs::write("/proc/sysrq-trigger", "u");
    }
}

/// Does something that may hang in the kernel, in a process of its own, and waits for no longer than `limit`;
/// whether it was done by then.
pub(crate) fn within(limit: Duration, work: impl FnOnce()) -> bool {
    match sys::clone_process(0, None) {
        Ok(Cloned::Child) => {
            work();
            sys::exit_now(0)
        }
        Ok(Cloned::Parent(child)) => {
            let gone = || {
                waitpid(child, Some(WaitPidFlag::WNOHANG))
                    != Ok(nix::sys::wait::WaitStatus::StillAlive)
            };
            await_children(limit, gone)
        }
        // Better late than not at all.
        Err(_no_process) => {
            work();
            true
        }
    }
}

/// Waits until it `is_so`, asked anew whenever a child has ended; whether it came to be within `limit`.
fn await_children(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let mut sigchld = SigSet::empty();
    sigchld.add(Signal::SIGCHLD);
    // Blocked and awaited: the order "look, then wait" has no gap then.
    let watched =
        sigchld.thread_block().and_then(|()| SignalFd::with_flags(&sigchld, SfdFlags::SFD_CLOEXEC));
    let Ok(watched) = watched else { return is_so() };
    let end = Instant::now() + limit;
    while !is_so() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if let Ok(1..) = poll(&mut [PollFd::new(watched.as_fd(), PollFlags::POLLIN)], left) {
            // Taken off, so that the next wait is for the next one.
            let _taken = watched.read_signal();
        }
    }
    true
}

/// Powers off now.
pub(crate) fn cut() -> ! {
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
    afterlife::guard();
    // Refused only outside a machine of one's own.
    let _refused = set_cad_enabled(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_what_has_a_device_the_last_mounted_first_and_shares_are_what_has_a_server() {
        let mountinfo = "21 1 0:19 / /proc rw - proc proc rw\n\
            30 1 8:0 / /containerfs rw,noatime - ext4 /dev/sda rw\n\
            31 30 8:16 / /containerfs/my\\040data rw shared:1 - ext4 /dev/sdb rw\n\
            32 1 0:33 / /run rw - tmpfs tmpfs rw\nodd\n\
            33 32 0:40 / /run/tether/volumes/0 rw - nfs4 10.0.2.2:/dev/x rw\n";
        let mounts = Mounts::of(mountinfo);
        assert_eq!(mounts.disks, ["/containerfs/my data", "/containerfs"]);
        assert_eq!(mounts.shares, ["/run/tether/volumes/0"]);
    }

    #[test]
    fn escapes_are_the_kernels() {
        for (text, plain) in [("/a", "/a"), ("/a\\011b\\134", "/a\tb\\"), ("/x\\9z", "/x\\9z")] {
            assert_eq!(unescaped(text), plain);
        }
    }
}
