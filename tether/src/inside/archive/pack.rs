//! What is at a path of the container, written as a tar archive.
//!
//! Only regular files are opened, after a look at what they are through the very descriptor that is then
//! reopened: no named pipe can make the writer wait and no device notices. Holes are not read and not sent.
//! A file that changes while it is read keeps the length that its head said: what is missing is sent as
//! zeros. Sockets are left out, as tar knows none; file systems of the kernel (`/proc`, `/sys` and the like)
//! are empty directories.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Stat, fstat, fstatfs};
use rustix::io::Errno;
use wire::message::inside::CopyOut;

use super::header::{Entry, Extent, Xattrs, pad, write_head};
use crate::inside::failure::InsideError;
use crate::inside::root::{ContainerRoot, name_of, read_link, reopen};
use crate::inside::walk::Walk;

/// Files below this size are sent with their holes.
const MIN_SPARSE: u64 = 64 * 1024;
/// Stretches of data in one file beyond which its holes are sent: a map of more is larger than they are.
const MAX_EXTENTS: usize = 16 * 1024;
/// Names of files with several, beyond which further ones are sent as files of their own.
const MAX_LINKED: usize = 64 * 1024;
/// The most that is read of a list of attributes, and of one (`XATTR_SIZE_MAX`).
const MAX_XATTR: usize = 64 * 1024;
/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;
/// Blocks of `st_blocks`, whatever the file system's own are (stat(2)).
const STAT_BLOCK: u64 = 512;

/// File systems that hold nothing of the container (`linux/magic.h`): proc, sysfs, cgroup, cgroup2, devpts,
/// mqueue, debugfs, tracefs, securityfs, configfs, bpf, pstore, efivarfs.
const KERNEL_FILE_SYSTEMS: [u64; 13] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0xcafe_4a11,
    0x6165_676c,
    0xde5e_81e4,
];

/// Writes an archive of a path, which is called as the request says in it.
///
/// # Errors
///
/// [`InsideError`]; the archive is then not whole.
pub fn pack(
    root: &ContainerRoot,
    request: &CopyOut,
    out: &mut impl Write,
) -> Result<(), InsideError> {
    let path = request.path.as_slice();
    let node = root.find(path, request.follow).map_err(InsideError::path("look at", path))?;
    let stat = fstat(&node).map_err(InsideError::path("look at", path))?;
    let mut packer = Packer { out, linked: HashMap::new(), at: path.to_vec() };
    // The root has no name; one that begins with a slash would be refused by whoever unpacks it.
    let mut name = match (request.name.as_slice(), last_component(path)) {
        (b"", b"/") => b".".to_vec(),
        (b"", name) | (name, _) => name.to_vec(),
    };
    let mut walk = Walk::default();
    packer.entry(&mut name, &node, &stat, &mut walk)?;
    loop {
        // Not `left`'s to do: it would need `name`, too.
        let depth = walk.depth();
        let mut n_left = 0;
        let found = walk.next(|| n_left += 1).map_err(InsideError::path("read", &packer.at))?;
        for _ in 0..n_left.min(depth) {
            cut_component(&mut name);
        }
        let Some(found) = found else { break };
        name.push(b'/');
        name.extend(&found.name);
        packer.at = [path, b"/.../", found.name.as_slice()].concat();
        let entered = packer.entry(&mut name, &found.node, &found.stat, &mut walk)?;
        if !entered {
            cut_component(&mut name);
        }
    }
    packer.finish()
}

/// The last name of a path, `/` for the root.
pub fn last_component(path: &[u8]) -> &[u8] {
    let mut names =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"." | b".."));
    names.next_back().unwrap_or(b"/")
}

fn cut_component(name: &mut Vec<u8>) {
    let end = name.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    name.truncate(end);
}

struct Packer<'a, W> {
    out: &'a mut W,
    /// Device and inode of files with several names, and the first of them.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// Where it is, for errors.
    at: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    /// Writes one entry; says whether it was a directory that the walk has entered.
    fn entry(
        &mut self,
        name: &mut [u8],
        node: &OwnedFd,
        stat: &Stat,
        walk: &mut Walk,
    ) -> Result<bool, InsideError> {
        let xattrs = xattrs(node);
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            let name = [name.strip_suffix(b"/").unwrap_or(name), b"/"].concat();
            self.head(&name, Entry::Directory, stat, &xattrs)?;
            if is_of_the_kernel(node) {
                return Ok(false);
            }
            walk.enter(node, &self.at)?;
            return Ok(true);
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&key).cloned() {
                self.head(name, Entry::HardLink(&first), stat, &Xattrs::new())?;
                return Ok(false);
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(key, name.to_vec());
            }
        }
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.file(name, node, stat, &xattrs)?,
            libc::S_IFLNK => {
                use std::os::fd::AsFd as _;
                let target =
                    read_link(node.as_fd()).map_err(InsideError::path("read", &self.at))?;
                self.head(name, Entry::Symlink(&target), stat, &xattrs)?;
            }
            libc::S_IFCHR => self.head(name, Entry::CharDevice, stat, &xattrs)?,
            libc::S_IFBLK => self.head(name, Entry::BlockDevice, stat, &xattrs)?,
            libc::S_IFIFO => self.head(name, Entry::Fifo, stat, &xattrs)?,
            _socket => {}
        }
        Ok(false)
    }

    fn head(
        &mut self,
        name: &[u8],
        entry: Entry<'_>,
        stat: &Stat,
        xattrs: &Xattrs,
    ) -> Result<(), InsideError> {
        write_head(self.out, name, entry, stat, xattrs).map_err(InsideError::Pipe)
    }

    fn file(
        &mut self,
        name: &[u8],
        node: &OwnedFd,
        stat: &Stat,
        xattrs: &Xattrs,
    ) -> Result<(), InsideError> {
        let mut file: File = reopen(node).map_err(InsideError::path("open", &self.at))?.into();
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        let sparse = size >= MIN_SPARSE && blocks.saturating_mul(STAT_BLOCK) < size;
        let extents = if sparse { extents(&file, size) } else { None };
        let Some(extents) = extents else {
            self.head(name, Entry::File(size), stat, xattrs)?;
            self.data(&mut file, (0, size))?;
            return pad(self.out, size).map_err(InsideError::Pipe);
        };
        self.head(name, Entry::Sparse(size, &extents), stat, xattrs)?;
        for extent in &extents {
            self.data(&mut file, *extent)?;
        }
        pad(self.out, extents.iter().map(|(_, len)| len).sum()).map_err(InsideError::Pipe)
    }

    /// Sends a stretch of a file, and zeros for what is not there any more.
    fn data(&mut self, file: &mut File, (offset, len): Extent) -> Result<(), InsideError> {
        let mut buffer = vec![0; CHUNK];
        let mut left = len;
        let mut readable = file.seek(SeekFrom::Start(offset)).is_ok();
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut n = 0;
            if readable {
                n = match file.read(&mut buffer[..step]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(InsideError::path("read", &self.at)(error)),
                    Ok(n) => n,
                };
                readable = n > 0;
            }
            if n == 0 {
                buffer.fill(0);
                n = step;
            }
            self.out.write_all(&buffer[..n]).map_err(InsideError::Pipe)?;
            left -= n as u64;
        }
        Ok(())
    }

    /// Two blocks of zeros end an archive.
    fn finish(self) -> Result<(), InsideError> {
        self.out.write_all(&[0; 1024]).and_then(|()| self.out.flush()).map_err(InsideError::Pipe)
    }
}

fn is_of_the_kernel(directory: &OwnedFd) -> bool {
    // The type is a small number with a sign on some machines.
    #[allow(clippy::cast_sign_loss, reason = "file system types are bit patterns")]
    fstatfs(directory)
        .is_ok_and(|stat| KERNEL_FILE_SYSTEMS.contains(&(stat.f_type as u64 & 0xffff_ffff)))
}

/// Where a file has data; the last extent reaches its end, be it empty. `None` when that cannot be told, or is
/// too long to tell.
fn extents(file: &File, size: u64) -> Option<Vec<Extent>> {
    let mut found: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            // No more data.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        if start >= size {
            break;
        }
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).ok()?.min(size);
        if found.len() >= MAX_EXTENTS || end <= start {
            return None;
        }
        found.push((start, end - start));
        at = end;
    }
    if found.last().is_none_or(|(start, len)| start + len < size) {
        found.push((size, 0));
    }
    Some(found)
}

/// The extended attributes that belong to the file; what cannot be read is left out.
fn xattrs(node: &OwnedFd) -> Xattrs {
    const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];
    let path = name_of(node);
    let mut list = vec![0; MAX_XATTR];
    // Through the link in /proc, which leads to exactly this file.
    let len = rustix::fs::listxattr(path.as_str(), &mut list).unwrap_or(0);
    let names = list[..len].split(|byte| *byte == 0);
    let names = names.filter(|name| NAMESPACES.iter().any(|prefix| name.starts_with(prefix)));
    let mut value = vec![0; if len > 0 { MAX_XATTR } else { 0 }];
    let pairs = names.filter_map(|name| {
        let len = rustix::fs::getxattr(path.as_str(), name, &mut value).ok()?;
        Some((name.to_vec(), value[..len].to_vec()))
    });
    pairs.collect()
}
