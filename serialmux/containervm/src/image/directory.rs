//! A directory of the host as a file tree, and a fingerprint that changes whenever the directory does.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _, ffi::OsStringExt as _, fs::FileTypeExt as _, fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{SeekFrom, seek};
use sha2::{Digest as _, Sha256};

use super::{ImageError, blob::hex};
use crate::tree::{Attributes, Extent, Kind, NodeId, Source, Timestamp, Tree, has_namespace};

/// Largest value of an extended attribute (`XATTR_SIZE_MAX`), and of the list of names.
const MAX_XATTR: usize = 65_536;

/// Everything below `root` in one order, parents first, without following links.
fn walk(
    root: &Path,
    each: &mut dyn FnMut(&Path, &Path, &Metadata) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = root.join(&relative);
        let meta = fs::symlink_metadata(&path).map_err(|source| unreadable(&path, source))?;
        each(&path, &relative, &meta)?;
        if meta.is_dir() {
            let list = || -> io::Result<Vec<PathBuf>> {
                fs::read_dir(&path)?.map(|entry| Ok(relative.join(entry?.file_name()))).collect()
            };
            let mut names = list().map_err(|source| unreadable(&path, source))?;
            names.sort_unstable_by(|a, b| b.cmp(a));
            todo.append(&mut names);
        }
    }
    Ok(())
}

fn unreadable(path: &Path, source: io::Error) -> ImageError {
    ImageError::Directory { path: path.to_owned(), source }
}

/// A digest of every name, size, owner, mode and time below `root`. Contents are not read: a change of contents
/// changes the times.
pub(super) fn fingerprint(root: &Path) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    walk(root, &mut |_, relative, meta| {
        let name = relative.as_os_str().as_bytes();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        for number in
            [meta.dev(), meta.ino(), meta.size(), u64::from(meta.mode()), meta.rdev(), meta.nlink()]
        {
            hash.update(number.to_le_bytes());
        }
        for number in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
            hash.update(number.to_le_bytes());
        }
        Ok(())
    })?;
    Ok(hex(&hash.finalize()))
}

/// The tree below `root`. When the user is not root, what is theirs becomes root's, as it would look to someone who
/// made the directory under fakeroot; other owners are kept.
pub(super) fn tree(root: &Path) -> Result<Tree, ImageError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut tree = Tree::new();
    let mut seen: HashMap<(u64, u64), NodeId> = HashMap::new();
    let mut names: HashMap<NodeId, PathBuf> = HashMap::new();
    walk(root, &mut |path, relative, meta| {
        let name = relative.as_os_str().as_bytes();
        let refused = |fault| ImageError::Name { path: path.to_owned(), fault };
        if let Some(first) = seen.get(&(meta.dev(), meta.ino())).and_then(|id| names.get(id)) {
            return tree.link(name, first.as_os_str().as_bytes()).map_err(refused);
        }
        let attributes = Attributes {
            mode: (meta.mode() & 0o7777) as u16,
            uid: if meta.uid() == uid { 0 } else { meta.uid() },
            gid: if meta.gid() == gid { 0 } else { meta.gid() },
            modified: Timestamp { seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() as u32 },
            xattrs: xattrs(path).map_err(|source| unreadable(path, source))?,
        };
        let kind = kind(path, meta).map_err(|source| unreadable(path, source))?;
        let id = tree.insert(name, attributes, kind).map_err(refused)?;
        if meta.nlink() > 1 && !meta.is_dir() {
            seen.insert((meta.dev(), meta.ino()), id);
            names.insert(id, relative.to_owned());
        }
        Ok(())
    })?;
    Ok(tree)
}

fn kind(path: &Path, meta: &Metadata) -> io::Result<Kind> {
    let file_type = meta.file_type();
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(if file_type.is_dir() {
        Kind::directory()
    } else if file_type.is_symlink() {
        Kind::Symlink(fs::read_link(path)?.into_os_string().into_vec())
    } else if file_type.is_char_device() {
        Kind::CharDevice { major, minor }
    } else if file_type.is_block_device() {
        Kind::BlockDevice { major, minor }
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        Kind::File { size: meta.size(), extents: extents(path, meta.size())? }
    })
}

/// The data of a file without its holes (`lseek(2)`, `SEEK_DATA`).
fn extents(path: &Path, size: u64) -> io::Result<Vec<Extent>> {
    let file = fs::File::open(path)?;
    let source = Arc::new(path.to_owned());
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = seek(&file, SeekFrom::Hole(start))?.min(size);
        if at <= start {
            break;
        }
        let source = Source::Path { path: source.clone(), offset: start };
        extents.push(Extent { start, length: at - start, source });
    }
    Ok(extents)
}

fn xattrs(path: &Path) -> io::Result<std::collections::BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; MAX_XATTR];
    let n = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(n) => n,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0; MAX_XATTR];
    list[..n]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        // The host's own labels say nothing about the image.
        .filter(|name| *name != b"security.selinux" && has_namespace(name))
        .map(|name| {
            let n = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            Ok((name.to_vec(), value[..n].to_vec()))
        })
        .collect()
}
