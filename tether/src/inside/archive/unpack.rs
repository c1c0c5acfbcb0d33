//! A tar archive unpacked in a directory of the container.
//!
//! The directory of each entry is looked up from the container's root, anew when it is another than the last
//! one's; then one name in it is made, replaced or linked, and no link at that name is followed. So an archive
//! can write wherever its path leads inside the container, and nowhere else; `..` in a name is refused. Names
//! are replaced as Docker does it: anything but a directory gives way to anything but a directory. A file that
//! something is mounted over (`/etc/hosts`) cannot be replaced and is rewritten in place.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
    fchown, futimens, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use tar::EntryType;

use super::header::Xattrs;
use super::reader::{Head, Reader};
use crate::inside::failure::InsideError;
use crate::inside::root::{ContainerRoot, name_of};

/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;
/// Blocks of zeros of this size are not written but left as holes.
const HOLE: usize = 4096;
/// Directories whose times are set at the end; for any more they are what the unpacking made them.
const MAX_DIRECTORIES: usize = 64 * 1024;

/// Unpacks what `input` gives in `directory`; everything belongs to `owner`, if given.
///
/// # Errors
///
/// [`InsideError`]; what was unpacked so far stays.
pub fn unpack(
    root: &ContainerRoot,
    directory: &[u8],
    owner: Option<(u32, u32)>,
    input: impl Read,
) -> Result<(), InsideError> {
    root.directory(directory).map_err(InsideError::path("open", directory))?;
    let mut reader = Reader::new(input);
    let mut unpacker =
        Unpacker { root, base: directory.to_vec(), owner, parent: None, directories: Vec::new() };
    while let Some(mut head) = reader.next_head()? {
        if let Some((uid, gid)) = owner {
            (head.uid, head.gid) = (uid, gid);
        }
        unpacker.entry(&head, &mut reader)?;
    }
    reader.drain();
    unpacker.finish();
    Ok(())
}

struct Unpacker<'a> {
    root: &'a ContainerRoot,
    base: Vec<u8>,
    owner: Option<(u32, u32)>,
    /// The directory of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories made, and when they were changed last.
    directories: Vec<(OwnedFd, Timestamps)>,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, head: &Head, reader: &mut Reader<R>) -> Result<(), InsideError> {
        let (parent, name) = split(&head.name)?;
        // An old archive says by a slash that it is a directory.
        let is_directory =
            head.kind == EntryType::Directory || (head.kind.is_file() && head.name.ends_with(b"/"));
        let Some(name) = name else {
            // The directory itself; its place is not the archive's to change.
            return Ok(());
        };
        let place = self.parent(&parent)?;
        let existing = match statat(&place, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat.st_mode & libc::S_IFMT),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(InsideError::path("look at", &head.name)(errno)),
        };
        let shown = || String::from_utf8_lossy(&head.name).into_owned();
        match (existing, is_directory) {
            (Some(libc::S_IFDIR), true) | (None, _) => {}
            (Some(libc::S_IFDIR), false) => return Err(InsideError::DirectoryInTheWay(shown())),
            (Some(_), true) => return Err(InsideError::FileInTheWay(shown())),
            (Some(_), false) => match unlinkat(&place, name.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::BUSY) if head.kind.is_file() => {
                    return rewrite(&place, &name, head, reader);
                }
                Err(errno) => return Err(InsideError::path("replace", &head.name)(errno)),
            },
        }
        let made = match head.kind {
            _ if is_directory => self.directory(&place, &name, head, existing.is_some()),
            EntryType::Symlink => symlink(&place, &name, head),
            EntryType::Link => return self.link(&place, &name, head),
            EntryType::Char | EntryType::Block | EntryType::Fifo => node(&place, &name, head),
            kind if kind.is_file()
                || kind == EntryType::GNUSparse
                || kind == EntryType::Continuous =>
            {
                return file(&place, &name, head, reader);
            }
            _unknown => Ok(()),
        };
        made.map_err(InsideError::path("make", &head.name))
    }

    /// The directory that an entry is in, made if it is missing.
    fn parent(&mut self, names: &[Vec<u8>]) -> Result<OwnedFd, InsideError> {
        let mut path = self.base.clone();
        for name in names {
            path.push(b'/');
            path.extend(name);
        }
        if let Some((last, directory)) = &self.parent
            && *last == path
        {
            return directory.try_clone().map_err(InsideError::machine("keep a directory open"));
        }
        let opened = match self.root.directory(&path) {
            Err(Errno::NOENT) => self.make_parents(names),
            result => result.map_err(InsideError::path("open", &path)),
        }?;
        let copy = opened.try_clone().map_err(InsideError::machine("keep a directory open"))?;
        self.parent = Some((path, copy));
        Ok(opened)
    }

    fn make_parents(&self, names: &[Vec<u8>]) -> Result<OwnedFd, InsideError> {
        let mut path = self.base.clone();
        let mut directory = self.root.directory(&path).map_err(InsideError::path("open", &path))?;
        for name in names {
            path.push(b'/');
            path.extend(name);
            match mkdirat(&directory, name.as_slice(), Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let (uid, gid) = self.owner.unwrap_or((0, 0));
                    own(&directory, name, uid, gid).map_err(InsideError::path("chown", &path))?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(InsideError::path("make", &path)(errno)),
            }
            directory = self.root.directory(&path).map_err(InsideError::path("open", &path))?;
        }
        Ok(directory)
    }

    fn directory(
        &mut self,
        place: &OwnedFd,
        name: &[u8],
        head: &Head,
        exists: bool,
    ) -> Result<(), Errno> {
        if !exists {
            mkdirat(place, name, Mode::from_raw_mode(0o700))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(place, name, flags, Mode::empty())?;
        dress(&made, head)?;
        if self.directories.len() < MAX_DIRECTORIES {
            self.directories.push((handle(place, name)?, times(head)));
        }
        Ok(())
    }

    fn link(&mut self, place: &OwnedFd, name: &[u8], head: &Head) -> Result<(), InsideError> {
        let (parent, target) = split(&head.target)?;
        let target = target.unwrap_or_default();
        let from = self.parent(&parent)?;
        // Without AT_SYMLINK_FOLLOW: a link that stands there is linked, not what it leads to.
        linkat(&from, target.as_slice(), place, name, AtFlags::empty())
            .map_err(InsideError::path("link", &head.name))
    }

    /// Sets the times of directories, now that nothing more is made in them.
    fn finish(self) {
        for (directory, times) in self.directories {
            // One that was removed meanwhile needs none.
            let _gone = utimensat(rustix::fs::CWD, name_of(&directory), &times, AtFlags::empty());
        }
    }
}

fn handle(place: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(place, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Names of a path, outermost first.
type Names = Vec<Vec<u8>>;

/// The names of a path; the last is apart. A path that names the archive's own root has none.
fn split(path: &[u8]) -> Result<(Names, Option<Vec<u8>>), InsideError> {
    let mut names = Names::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(InsideError::Escapes(String::from_utf8_lossy(path).into_owned())),
            name => names.push(name.to_vec()),
        }
    }
    let last = names.pop();
    Ok((names, last))
}

fn file<R: Read>(
    place: &OwnedFd,
    name: &[u8],
    head: &Head,
    reader: &mut Reader<R>,
) -> Result<(), InsideError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(place, name, flags, Mode::from_raw_mode(0o600))
        .map_err(InsideError::path("make", &head.name))?;
    let mut made = File::from(made);
    fill(&mut made, head, reader)?;
    dress(&made, head).map_err(InsideError::path("set the attributes of", &head.name))?;
    futimens(&made, &times(head)).map_err(InsideError::path("set the time of", &head.name))
}

/// Writes over a file that cannot be replaced, and leaves it its owner and mode.
fn rewrite<R: Read>(
    place: &OwnedFd,
    name: &[u8],
    head: &Head,
    reader: &mut Reader<R>,
) -> Result<(), InsideError> {
    let flags =
        OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let there = openat(place, name, flags, Mode::empty())
        .map_err(InsideError::path("write to", &head.name))?;
    fill(&mut File::from(there), head, reader)
}

fn fill<R: Read>(made: &mut File, head: &Head, reader: &mut Reader<R>) -> Result<(), InsideError> {
    let failed = || InsideError::path("write to", &head.name);
    let mut buffer = vec![0; CHUNK];
    for (offset, len) in &head.extents {
        let mut at = *offset;
        while at < offset + len {
            let step = usize::try_from(offset + len - at).unwrap_or(CHUNK).min(CHUNK);
            let n = reader.data(&mut buffer[..step])?;
            for piece in buffer[..n].chunks(HOLE) {
                if piece.iter().any(|byte| *byte != 0) {
                    made.seek(SeekFrom::Start(at)).map_err(failed())?;
                    made.write_all(piece).map_err(failed())?;
                }
                at += piece.len() as u64;
            }
        }
    }
    // Also makes a hole of what was left out at the end.
    made.set_len(head.size).map_err(failed())
}

/// Owner, mode and extended attributes, in the one order in which none undoes another: a change of the owner
/// takes set-id bits and capabilities away.
fn dress(made: impl AsFd, head: &Head) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(head.uid), Gid::from_raw(head.gid));
    fchown(&made, Some(uid), Some(gid))?;
    fchmod(&made, Mode::from_raw_mode(head.mode))?;
    set_xattrs(&head.xattrs, |name, value| {
        rustix::fs::fsetxattr(&made, name, value, rustix::fs::XattrFlags::empty())
    })
}

/// Attributes that the file system has no room or no kind for are left out, as Docker does.
fn set_xattrs(
    xattrs: &Xattrs,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    for (name, value) in xattrs {
        match set(name, value) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn symlink(place: &OwnedFd, name: &[u8], head: &Head) -> Result<(), Errno> {
    symlinkat(head.target.as_slice(), place, name)?;
    own(place, name, head.uid, head.gid)?;
    utimensat(place, name, &times(head), AtFlags::SYMLINK_NOFOLLOW)
}

fn node(place: &OwnedFd, name: &[u8], head: &Head) -> Result<(), Errno> {
    let kind = match head.kind {
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let (major, minor) = head.device;
    mknodat(place, name, kind, Mode::from_raw_mode(0o600), makedev(major, minor))?;
    own(place, name, head.uid, head.gid)?;
    // Through a descriptor, so that nothing else can be at the name by now; an O_PATH one, so that no device
    // is opened.
    let made = handle(place, name)?;
    chmodat(rustix::fs::CWD, name_of(&made), Mode::from_raw_mode(head.mode), AtFlags::empty())?;
    utimensat(place, name, &times(head), AtFlags::SYMLINK_NOFOLLOW)
}

fn own(place: &OwnedFd, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(place, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(head: &Head) -> Timestamps {
    let (seconds, nanoseconds) = head.modified;
    let moment = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: moment, last_modification: moment }
}
