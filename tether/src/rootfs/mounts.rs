//! The file systems of a container besides its root: those every one gets, those asked for, and what is hidden.

use std::fs;
use std::path::Path;

use guestinfo::Tmpfs;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use rustix::fs::statfs;

use super::plain_directory;
use crate::inside::root::{ContainerRoot, name_of};
use crate::process::failure::StartFailure;
use crate::volumes::place;

pub(super) const NO_EXEC: MsFlags =
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Docker's size of `/dev/shm`, bytes.
const DEFAULT_SHM: u64 = 64 << 20;
const SHM: &str = "/dev/shm";

/// One file system to mount in the container.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: Option<&'static str>,
    /// Whether the container can do without.
    optional: bool,
}

/// In order; `/dev/pts` is not among them, it is the agent's. `/sys` and the cgroup tree are writable: the
/// machine is the border, not the mount.
const MOUNTS: [Mount; 5] = [
    Mount { kind: "proc", target: "/proc", flags: NO_EXEC, options: None, optional: false },
    Mount {
        kind: "tmpfs",
        target: "/dev",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_STRICTATIME),
        options: Some("mode=755,size=65536k"),
        optional: false,
    },
    Mount { kind: "sysfs", target: "/sys", flags: NO_EXEC, options: None, optional: false },
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: NO_EXEC,
        options: None,
        optional: true,
    },
    Mount { kind: "mqueue", target: "/dev/mqueue", flags: NO_EXEC, options: None, optional: true },
];

/// What Docker hides of a machine that is shared: nothing to see in it.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What Docker makes read-only of it.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Mounts what every container gets; sizes are in bytes. `shm_size` is 0 for the usual, `memory` what the
/// container may use.
pub(super) fn mount_usual(shm_size: u64, memory: u64) -> Result<(), StartFailure> {
    for entry in &MOUNTS {
        let Mount { kind, target, flags, options, optional } = *entry;
        let result = plain_directory(target).and_then(|_checked| {
            mount(Some(kind), target, Some(kind), flags, options)
                .map_err(StartFailure::rootfs("mount", target))
        });
        if !optional {
            result?;
        }
    }
    let bytes = if shm_size == 0 { DEFAULT_SHM } else { shm_size };
    let options = format!("mode=1777,size={bytes}");
    plain_directory(SHM)?;
    mount(Some("shm"), SHM, Some("tmpfs"), NO_EXEC, Some(options.as_str()))
        .map_err(StartFailure::rootfs("mount", SHM))?;
    bound(SHM, NO_EXEC, memory / 8 * 3)
}

/// Makes a file system in memory hold no more than `most` bytes, 0 for what it may. Files are not given back when
/// somebody is killed, so one that fills all of a container's memory would bring it to a halt for good.
fn bound(path: &str, flags: MsFlags, most: u64) -> Result<(), StartFailure> {
    // One that may grow without end has no blocks (tmpfs.rst, "size").
    if most == 0 || (1..=most).contains(&size(path)?) {
        return Ok(());
    }
    let options = format!("size={most}");
    mount(None::<&str>, path, None::<&str>, flags | MsFlags::MS_REMOUNT, Some(options.as_str()))
        .map_err(StartFailure::rootfs("bound the size of", path))
}

/// Bytes that a file system has room for in all.
fn size(path: &str) -> Result<u64, StartFailure> {
    let size = statfs(path).map_err(|error| {
        StartFailure::rootfs("look at", path)(Errno::from_raw(error.raw_os_error()))
    })?;
    Ok(size.f_blocks.saturating_mul(u64::try_from(size.f_bsize).unwrap_or(1)))
}

/// Mounts a file system in memory, where the image's links lead below its root.
pub(super) fn mount_tmpfs(
    root: &ContainerRoot,
    tmpfs: &Tmpfs,
    memory: u64,
) -> Result<(), StartFailure> {
    let path = tmpfs.path();
    let (flags, data) = tmpfs_options(tmpfs);
    place::attach_memory(root, path, flags, &data)
        .map_err(StartFailure::rootfs("mount a tmpfs on", path))?;
    let mounted = place::directory(root, path).map_err(StartFailure::rootfs("open", path))?;
    // A quarter is for the processes, whatever is in here and in /dev/shm.
    bound(&name_of(&mounted), flags, (memory / 4 * 3).saturating_sub(size(SHM)?))
}

/// Flags and data for mount(2), over Docker's defaults.
pub(crate) fn tmpfs_options(tmpfs: &Tmpfs) -> (MsFlags, String) {
    let mut flags = NO_EXEC;
    // As tmpfs itself has it, whatever the kernel was built with.
    let mut data = vec!["mode=1777"];
    for option in tmpfs.options() {
        let (flag, on) = match option {
            "ro" => (MsFlags::MS_RDONLY, true),
            "rw" => (MsFlags::MS_RDONLY, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "suid" => (MsFlags::MS_NOSUID, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "atime" => (MsFlags::MS_NOATIME, false),
            "nodiratime" => (MsFlags::MS_NODIRATIME, true),
            "diratime" => (MsFlags::MS_NODIRATIME, false),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            "relatime" => (MsFlags::MS_RELATIME, true),
            // The config knows no others: the rest is tmpfs's own.
            value => {
                data.push(value);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, data.join(","))
}

/// Hides what concerns the whole machine, as far as this kernel has it.
pub(super) fn mask() -> Result<(), StartFailure> {
    let none = None::<&str>;
    for path in MASKED {
        let failed = || StartFailure::rootfs("hide", path);
        let Ok(metadata) = fs::metadata(path) else { continue };
        if metadata.is_dir() {
            let flags = NO_EXEC | MsFlags::MS_RDONLY;
            mount(Some("tmpfs"), path, Some("tmpfs"), flags, none).map_err(failed())?;
        } else {
            mount(Some("/dev/null"), path, none, MsFlags::MS_BIND, none).map_err(failed())?;
        }
    }
    for path in READ_ONLY.into_iter().filter(|path| Path::new(path).exists()) {
        let failed = || StartFailure::rootfs("protect", path);
        mount(Some(path), path, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(failed())?;
        let flags = NO_EXEC | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, path, none, flags, none).map_err(failed())?;
    }
    Ok(())
}

/// Makes the root itself read-only; what is mounted on it is not concerned.
pub(super) fn seal() -> Result<(), Errno> {
    let none = None::<&str>;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    mount(none, "/", none, flags, none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_laid_over_dockers_defaults() {
        let check = |text: &str, flags: MsFlags, data: &str| {
            assert_eq!(tmpfs_options(&text.parse().unwrap()), (flags, data.to_owned()), "{text}");
        };
        check("/t", NO_EXEC, "mode=1777");
        check("/t:exec,size=64m", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777,size=64m");
        check("/t:ro,mode=700,uid=5", NO_EXEC | MsFlags::MS_RDONLY, "mode=1777,mode=700,uid=5");
        check("/t:exec,noexec,suid,dev", MsFlags::MS_NOEXEC, "mode=1777");
    }
}
