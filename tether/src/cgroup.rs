//! The container's cgroup (v2): one leaf that holds all of its processes and no other.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Where the cgroup v2 tree is mounted.
pub const TREE: &str = "/sys/fs/cgroup";

/// The controllers a container gets when the kernel has them.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// A leaf; without a cgroup v2 tree in the kernel it is empty and every question has the answer "no".
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: Option<OwnedFd>,
}

/// Enables the controllers for the cgroups below `tree`, as far as the kernel has them.
pub fn enable_controllers(tree: &Path) {
    for controller in CONTROLLERS {
        // One at a time: a line with one unknown name would enable none.
        let _not_offered = fs::write(tree.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

impl Cgroup {
    /// Makes the leaf `name` below `tree`. What the kernel does not offer is left out: a container without
    /// a memory controller still runs.
    pub fn create(tree: &Path, name: &str) -> Self {
        let path = tree.join(name);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory =
            fs::create_dir(&path).ok().and_then(|()| open(&path, flags, Mode::empty()).ok());
        Self { path, directory }
    }

    /// Where the leaf is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The leaf's directory, for starting a process in it.
    pub fn directory(&self) -> Option<&OwnedFd> {
        self.directory.as_ref()
    }

    /// Moves the calling process into it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn join(&self) -> io::Result<()> {
        // "0" is the writer itself, whatever its number (cgroup-v2.rst, "cgroup.procs").
        match self.directory {
            Some(_) => fs::write(self.path.join("cgroup.procs"), "0"),
            None => Ok(()),
        }
    }

    /// Freezes all processes in it, or lets them go on (`cgroup.freeze`). A process in the middle of a system
    /// call that cannot be interrupted stops when that is done.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        fs::write(self.path.join("cgroup.freeze"), if frozen { "1" } else { "0" })
    }

    /// Whether the kernel has killed a process of the container for memory.
    pub fn oom_killed(&self) -> bool {
        fs::read_to_string(self.path.join("memory.events"))
            .is_ok_and(|events| oom_kills(&events) > 0)
    }
}

/// The `oom_kill` counter of a `memory.events` text (`Documentation/admin-guide/cgroup-v2.rst`).
fn oom_kills(events: &str) -> u64 {
    events
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|n| n.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kills_are_told_from_oom_events() {
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 41\noom 7\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills("oom 7\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
