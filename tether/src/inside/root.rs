//! The container's root directory, seen from the agent's side: the one way by which its paths are looked up.
//!
//! Every path of a client or of an archive is resolved by openat2(2) with `RESOLVE_IN_ROOT` (links, absolute
//! ones too, and `..` stay inside, also while somebody moves directories about) and `RESOLVE_NO_MAGICLINKS`
//! (nothing in a `/proc` of the container leads out of it). There is no check before a use that a change in
//! between could make worthless: what was looked up is a descriptor.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::failure::InsideError;
use crate::rootfs::MOUNT_POINT;

/// How often a look-up is tried that somebody's renames disturbed (`EAGAIN` of openat2(2)).
const TRIES: usize = 64;

/// The root of a container.
#[derive(Debug)]
pub struct ContainerRoot {
    directory: OwnedFd,
}

impl ContainerRoot {
    /// The root as the process sees it, with all that is mounted there; without a process, the bare disk.
    ///
    /// Neither waits for a disk: this is called by the agent itself.
    ///
    /// # Errors
    ///
    /// [`InsideError::Machine`].
    pub fn open(process: Option<Pid>) -> Result<Self, InsideError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let of_process = process.map(|pid| format!("/proc/{pid}/root"));
        // A process that has just ended has no root any more.
        let directory = of_process
            .and_then(|path| open(path, flags, Mode::empty()).ok())
            .map_or_else(|| open(MOUNT_POINT, flags, Mode::empty()), Ok)
            .map_err(InsideError::machine("open the container's root"))?;
        Ok(Self { directory })
    }

    /// The root of the calling process, one that is inside the container.
    ///
    /// # Errors
    ///
    /// [`InsideError::Machine`].
    pub fn open_own() -> Result<Self, InsideError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open("/", flags, Mode::empty());
        let directory = directory.map_err(InsideError::machine("open the container's root"))?;
        Ok(Self { directory })
    }

    /// The root that `directory` is.
    #[cfg(test)]
    pub fn at(directory: &std::path::Path) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self { directory: open(directory, flags, Mode::empty()).unwrap() }
    }

    /// The descriptor's number, which a child must keep.
    pub fn number(&self) -> i32 {
        self.directory.as_raw_fd()
    }

    /// What is at `path`, not opened for anything.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn find(&self, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        self.look_up(path, flags)
    }

    /// The directory at `path`, whatever links lead there.
    ///
    /// # Errors
    ///
    /// The kernel's, `ENOTDIR` among them.
    pub fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.look_up(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn look_up(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { b"." } else { path };
        for _ in 0..TRIES {
            match openat2(&self.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Reads a regular file that is small by nature, at most `max` bytes of it; anything else reads as empty.
    pub fn read_small(&self, path: &[u8], max: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Ok(node) = self.find(path, true) else { return bytes };
        if rustix::fs::fstat(&node).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
            && let Ok(file) = reopen(&node)
        {
            // What was read until an error is what there is.
            let _partial = File::from(file).take(max).read_to_end(&mut bytes);
        }
        bytes
    }
}

/// Opens for reading what was looked up and found to be a regular file or a directory. Never waits for a
/// peer, never becomes anybody's terminal, and cannot be led elsewhere: the descriptor says what is opened.
///
/// # Errors
///
/// The kernel's.
pub fn reopen(node: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, name_of(node), flags, Mode::empty())
}

/// A path in the agent's own `/proc` that stands for what an `O_PATH` descriptor is of; calls without an `fd`
/// variant for those take it.
pub fn name_of(node: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", node.as_raw_fd())
}

/// Reads a link that was looked up.
///
/// # Errors
///
/// The kernel's.
pub fn read_link(node: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(node, "", Vec::new())?.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_path_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        fs::create_dir_all(inside.join("etc")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        fs::write(inside.join("secret"), "inside").unwrap();
        symlink("../../../secret", inside.join("etc/up")).unwrap();
        symlink(dir.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("/secret", inside.join("etc/slash")).unwrap();
        symlink("/proc/self/root/secret", inside.join("magic")).unwrap();
        let root = ContainerRoot::at(&inside);
        for path in ["/secret", "../secret", "/etc/../../../secret", "/etc/up", "/etc/slash"] {
            assert_eq!(root.read_small(path.as_bytes(), 99), b"inside", "{path}");
        }
        for path in ["/absolute", "/magic", "/proc/self/root"] {
            assert_eq!(root.find(path.as_bytes(), true).unwrap_err(), Errno::NOENT, "{path}");
        }
    }

    #[test]
    fn magic_links_of_a_proc_are_not_followed() {
        // The whole machine as a root: then there is a /proc in it.
        let root = ContainerRoot::at(std::path::Path::new("/"));
        assert_eq!(root.find(b"/proc/self/root/etc", true).unwrap_err(), Errno::LOOP);
        assert!(root.find(b"/proc/self/status", true).is_ok());
    }

    #[test]
    fn what_is_no_regular_file_reads_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = ContainerRoot::at(dir.path());
        assert_eq!(root.read_small(b"fifo", 9), b"");
        assert_eq!(root.read_small(b".", 9), b"");
    }
}
