//! The pseudo file systems of the machine, and sane descriptors 0 to 2.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use thiserror::Error;

/// A file system without which nothing can run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot mount {kind} on {target}: {errno}; the kernel of a containerVM must offer it")]
pub struct FilesystemError {
    kind: &'static str,
    target: &'static str,
    errno: Errno,
}

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Kind, target, flags, options, in order.
const MOUNTS: [(&str, &str, MsFlags, Option<&str>); 5] = [
    ("proc", "/proc", PLAIN, None),
    ("sysfs", "/sys", PLAIN, None),
    // Kernels can mount it by themselves (CONFIG_DEVTMPFS_MOUNT), but never for an initramfs.
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, Some("mode=755")),
    ("tmpfs", "/run", PLAIN, Some("mode=755")),
    ("cgroup2", "/sys/fs/cgroup", PLAIN, None),
];

/// Mounts everything. A missing cgroup tree is tolerated, see [`crate::cgroup`].
///
/// # Errors
///
/// The first file system that cannot be mounted and must be.
pub fn mount_all() -> Result<(), FilesystemError> {
    for (kind, target, flags, options) in MOUNTS {
        // An existing directory is the usual case; a failure shows in the mount.
        let _exists = fs::create_dir_all(target);
        match mount(Some(kind), target, Some(kind), flags, options) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(_) if kind == "cgroup2" => {}
            Err(errno) => return Err(FilesystemError { kind, target, errno }),
        }
    }
    Ok(())
}

/// Puts `/dev/null` on descriptors 0 to 2: the kernel leaves them closed when it found no console, and then
/// the first file opened would become somebody's stdout.
///
/// # Errors
///
/// When `/dev/null` cannot be opened.
pub fn sane_descriptors() -> Result<(), Errno> {
    let null = open(Path::new("/dev/null"), OFlag::O_RDWR, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}

/// Descriptors that the agent may hold: the kernel gives process 1 a soft limit of 1024, and four hundred
/// processes beside the container's own have up to five each (three streams, how the start went, a terminal).
const MAX_OPEN_FILES: u64 = 65_536;

/// Sets what concerns the whole machine. These are wishes: a kernel without one still runs containers.
pub fn tune() {
    let _wish = setrlimit(Resource::RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES);
    // Databases map more than the default allows (vm.max_map_count, as in VIC's machines).
    let _wish = fs::write("/proc/sys/vm/max_map_count", "262144");
}
