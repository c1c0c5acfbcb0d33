//! Where something is mounted in the container: a directory, made if it is missing, that no link leads out of.
//!
//! Paths are looked up as [`ContainerRoot`] does it, so an absolute link of the image counts from the
//! container's root, and nothing in a `/proc` is followed. What was found is a descriptor: whatever the
//! container moves afterwards, the mount goes where was looked.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, mkdirat};

use crate::inside::root::{ContainerRoot, name_of};
use crate::sys;

/// The directory at `path`, made with those above it when they are missing. A link to nothing is not filled.
///
/// # Errors
///
/// The kernel's.
pub fn directory(root: &ContainerRoot, path: &str) -> Result<OwnedFd, Errno> {
    let mut at = Vec::new();
    let mut directory = root.directory(b"/").map_err(errno)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at.push(b'/');
        at.extend_from_slice(name.as_bytes());
        directory = match root.directory(&at) {
            Err(rustix::io::Errno::NOENT) => {
                match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => root.directory(&at).map_err(errno)?,
                    Err(error) => return Err(errno(error)),
                }
            }
            result => result.map_err(errno)?,
        };
    }
    Ok(directory)
}

/// Attaches a detached mount at `path`.
///
/// # Errors
///
/// The kernel's.
pub fn attach(tree: &OwnedFd, root: &ContainerRoot, path: &str) -> Result<(), Errno> {
    sys::attach_mount(tree, &directory(root, path)?)
}

/// Mounts memory at `path`. For the container's process before its program runs: this `/proc` is the kernel's.
///
/// # Errors
///
/// The kernel's.
pub fn attach_memory(
    root: &ContainerRoot,
    path: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), Errno> {
    // Open until it is mounted on: the name says nothing else.
    let place = directory(root, path)?;
    mount(Some("tmpfs"), name_of(&place).as_str(), Some("tmpfs"), flags, Some(options))
}

/// The same number in the other crate's type.
pub(super) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn missing_directories_are_made_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        fs::create_dir_all(inside.join("var")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink(dir.path().join("outside"), inside.join("absolute")).unwrap();
        symlink("../../../../outside", inside.join("up")).unwrap();
        symlink("/var", inside.join("link")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        let root = ContainerRoot::at(&inside);
        let number = |node: &OwnedFd| rustix::fs::fstat(node).unwrap().st_ino;
        let made = directory(&root, "/a/b//c").unwrap();
        assert_eq!(number(&made), fs::metadata(inside.join("a/b/c")).unwrap().ino());
        let made = directory(&root, "/link/lib").unwrap();
        assert_eq!(number(&made), fs::metadata(inside.join("var/lib")).unwrap().ino());
        for dangling in ["/absolute/x", "/up/x", "/magic/etc", "/absolute"] {
            assert_eq!(directory(&root, dangling).unwrap_err(), Errno::ENOENT, "{dangling}");
        }
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        fs::write(inside.join("file"), "").unwrap();
        assert_eq!(directory(&root, "/file/x").unwrap_err(), Errno::ENOTDIR);
    }
}
