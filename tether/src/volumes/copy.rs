//! A tree of files copied into an empty directory with all that Docker keeps: owners, modes, times, links,
//! devices, extended attributes.
//!
//! Every step opens one name of an open directory and follows no link; what is already there in the target, from
//! a copy that was cut off, gives way. Holes stay holes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;

use nix::errno::Errno as Number;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens, linkat, mkdirat, mknodat,
    openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use thiserror::Error;

use crate::inside::failure::InsideError;
use crate::inside::root::{read_link, reopen};
use crate::inside::walk::{Found, Walk};

/// Bytes moved at once, and those of zeros that are left out.
const CHUNK: usize = 64 * 1024;
/// Files with several names that are remembered; of any more, each name becomes a file of its own.
const MAX_LINKED: usize = 64 * 1024;
/// The longest list of attributes, and the longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX` of linux/limits.h).
const MAX_XATTR: usize = 65_536;

/// Where a copy ended.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The kernel refused a step.
    #[error("cannot {step} {path}: {error}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// The file, from the directory that is copied.
        path: String,
        /// What it said.
        error: Errno,
    },
    /// The source cannot be walked through.
    #[error(transparent)]
    Walk(#[from] InsideError),
}

impl CopyError {
    /// For `map_err`.
    pub fn at(step: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Self {
        let path = if path.is_empty() { "it".into() } else { String::from_utf8_lossy(path) };
        let path = path.into_owned();
        move |error| Self::Kernel { step, path, error }
    }
}

/// The same number in the other crate's type.
pub(super) fn errno(error: Errno) -> Number {
    Number::from_raw(error.raw_os_error())
}

/// A directory of the target on the way down, and what it gets when all in it is there.
struct Level {
    directory: OwnedFd,
    stat: Stat,
}

/// Copies what is in the directory `from` into the directory `to`, which is open for reading.
///
/// # Errors
///
/// [`CopyError`]; what was copied so far stays.
pub fn copy_tree(from: &OwnedFd, to: &OwnedFd) -> Result<(), CopyError> {
    let mut walk = Walk::default();
    walk.enter(from, b"")?;
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut levels: Vec<Level> = Vec::new();
    let mut linked: HashMap<(u64, u64), (OwnedFd, Vec<u8>)> = HashMap::new();
    loop {
        let mut n_left = 0;
        let found = walk.next(|| n_left += 1).map_err(CopyError::at("read", &shown(&path)))?;
        for _ in 0..n_left {
            if let Some(level) = levels.pop() {
                let moment = times(&level.stat);
                futimens(&level.directory, &moment)
                    .map_err(CopyError::at("date", &shown(&path)))?;
                path.pop();
            }
        }
        let Some(found) = found else { return Ok(()) };
        let parent = levels.last().map_or(to, |level| &level.directory);
        path.push(found.name.clone());
        let full = shown(&path);
        let key = (found.stat.st_dev, found.stat.st_ino);
        if found.kind() == libc::S_IFDIR {
            let directory = copy_directory(&found, parent, &full)?;
            walk.enter(&found.node, &full)?;
            levels.push(Level { directory, stat: found.stat });
            continue;
        }
        match linked.get(&key) {
            Some((directory, name)) => {
                remove(parent, &found.name);
                linkat(directory, name.as_slice(), parent, found.name.as_slice(), AtFlags::empty())
                    .map_err(CopyError::at("link", &full))?;
            }
            None => copy_other(&found, parent, &full)?,
        }
        if found.stat.st_nlink > 1 && linked.len() < MAX_LINKED && !linked.contains_key(&key) {
            let directory = reopen_any(parent).map_err(CopyError::at("open", &full))?;
            linked.insert(key, (directory, found.name));
        }
        path.pop();
    }
}

fn shown(path: &[Vec<u8>]) -> Vec<u8> {
    path.join(&b'/')
}

fn reopen_any(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    directory.try_clone().map_err(|_| Errno::MFILE)
}

/// What is in the way is from a copy that was cut off.
fn remove(parent: &OwnedFd, name: &[u8]) {
    // Mostly nothing is there; what cannot go shows in the next step.
    let _absent = unlinkat(parent, name, AtFlags::empty());
}

fn copy_directory(found: &Found, parent: &OwnedFd, path: &[u8]) -> Result<OwnedFd, CopyError> {
    let failed = |step| CopyError::at(step, path);
    match mkdirat(parent, found.name.as_slice(), Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed("make")(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(parent, found.name.as_slice(), flags, Mode::empty());
    let made = made.map_err(failed("open the copy of"))?;
    let source = reopen(&found.node).map_err(failed("open"))?;
    dress(&source, &made, &found.stat).map_err(failed("set the attributes of"))?;
    Ok(made)
}

fn copy_other(found: &Found, parent: &OwnedFd, path: &[u8]) -> Result<(), CopyError> {
    let failed = |step| CopyError::at(step, path);
    let name = found.name.as_slice();
    remove(parent, name);
    let stat = &found.stat;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let kind = match found.kind() {
        libc::S_IFREG => return copy_file(found, parent, path),
        libc::S_IFLNK => {
            let target = read_link(std::os::fd::AsFd::as_fd(&found.node));
            let target = target.map_err(|error| number(&error)).map_err(failed("read the link"))?;
            symlinkat(target.as_slice(), parent, name).map_err(failed("make the link"))?;
            None
        }
        libc::S_IFCHR => Some(FileType::CharacterDevice),
        libc::S_IFBLK => Some(FileType::BlockDevice),
        libc::S_IFIFO => Some(FileType::Fifo),
        // A socket without its program is of no use, as Docker has it.
        _ => return Ok(()),
    };
    if let Some(kind) = kind {
        mknodat(parent, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
            .map_err(failed("make the device"))?;
    }
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("chown"))?;
    if kind.is_some() {
        // Just made, by a name that nobody else knows yet: it is no link.
        chmodat(parent, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
            .map_err(failed("chmod"))?;
    }
    utimensat(parent, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("date"))
}

fn copy_file(found: &Found, parent: &OwnedFd, path: &[u8]) -> Result<(), CopyError> {
    let failed = |step| CopyError::at(step, path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(parent, found.name.as_slice(), flags, Mode::from_raw_mode(0o600));
    let made = made.map_err(failed("make"))?;
    let source = reopen(&found.node).map_err(failed("open"))?;
    let (mut from, mut to) = (File::from(source), File::from(made));
    pour(&mut from, &mut to, found.stat.st_size)
        .map_err(|error| number(&error))
        .map_err(failed("copy"))?;
    let (source, made) = (OwnedFd::from(from), OwnedFd::from(to));
    dress(&source, &made, &found.stat).map_err(failed("set the attributes of"))?;
    futimens(&made, &times(&found.stat)).map_err(failed("date"))
}

fn pour(from: &mut File, to: &mut File, size: i64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = &buffer[..n];
        if piece.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(i64::try_from(n).unwrap_or(0)))?;
        } else {
            to.write_all(piece)?;
        }
    }
    // Also makes a hole of what was left out at the end.
    to.set_len(u64::try_from(size).unwrap_or(0))
}

/// Owner, mode and extended attributes, in the one order in which none undoes another: a change of the owner
/// takes set-id bits and capabilities away.
fn dress(source: &OwnedFd, made: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut list = vec![0; MAX_XATTR];
    let len = match flistxattr(source, list.as_mut_slice()) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    let mut value = vec![0; MAX_XATTR];
    for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let len = fgetxattr(source, name, value.as_mut_slice())?;
        match fsetxattr(made, name, &value[..len], XattrFlags::empty()) {
            // Those that the file system has no room or no kind for are left out, as Docker does.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let moment = |tv_sec, nanoseconds: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: moment(stat.st_atime, stat.st_atime_nsec),
        last_modification: moment(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn number(error: &io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;

    fn open(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    /// What can be seen of everything below a directory.
    fn listing(dir: &Path) -> String {
        let script = "find . -mindepth 1 -printf '%P %y %m %U %G %s %n %T@ %l\\n' | sort; getfattr -dR -m - . 2>/dev/null; true";
        let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_copy_cannot_be_told_from_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("deep/er/est")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("deep/er/file"), "x".repeat(200_000)).unwrap();
        fs::set_permissions(from.join("deep/er/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(from.join("deep/er/file"), from.join("another")).unwrap();
        fs::set_permissions(from.join("deep/er"), fs::Permissions::from_mode(0o2705)).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(50 << 20).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(86_400_000_000_123);
        let moment = fs::FileTimes::new().set_modified(long_ago);
        open_rw(&from.join("deep/er/file")).set_times(moment).unwrap();
        File::open(from.join("deep")).unwrap().set_times(moment).unwrap();
        copy_tree(&open(&from), &open(&to)).unwrap();
        assert_eq!(listing(&to), listing(&from));
        assert!(listing(&to).contains(" 86400.0000001230 "), "{}", listing(&to));
        let copied = fs::metadata(to.join("sparse")).unwrap();
        assert!(copied.blocks() < 1000, "{} blocks", copied.blocks());
        assert_eq!(fs::metadata(to.join("another")).unwrap().nlink(), 2);
        // And once more over what is there.
        fs::write(to.join("deep/er/file"), "half").unwrap();
        copy_tree(&open(&from), &open(&to)).unwrap();
        assert_eq!(listing(&to), listing(&from));
    }

    fn open_rw(path: &Path) -> File {
        File::options().write(true).open(path).unwrap()
    }
}
