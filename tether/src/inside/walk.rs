//! A walk through a directory and all below it, by descriptors only.
//!
//! Each step opens one name of a directory that is open already, and follows no link. So whatever is moved
//! or replaced meanwhile, the walk stays below where it began. One descriptor and the names still to come
//! are held for each level; [`MAX_DEPTH`] bounds the levels.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::failure::InsideError;
use super::root::reopen;

/// How deep directories may lie. A path of so many names cannot be typed: the kernel takes 4,096 bytes.
pub const MAX_DEPTH: usize = 2048;

/// One name that was found.
#[derive(Debug)]
pub struct Found {
    /// The name.
    pub name: Vec<u8>,
    /// What has it, not opened for anything (`O_PATH`).
    pub node: OwnedFd,
    /// What it is.
    pub stat: Stat,
}

impl Found {
    /// The kind of file, as the type bits of `st_mode`.
    pub fn kind(&self) -> u32 {
        self.stat.st_mode & libc::S_IFMT
    }
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// The walk. Names come in the order of their bytes, directories before what is in them.
#[derive(Debug, Default)]
pub struct Walk {
    levels: Vec<Level>,
}

impl Walk {
    /// How deep the next name lies below the first directory: 1 is in it.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Goes on with what is in a directory; afterwards with what comes after it.
    ///
    /// # Errors
    ///
    /// [`InsideError`], with `path` in its text.
    pub fn enter(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), InsideError> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(InsideError::TooDeep { path: String::from_utf8_lossy(path).into_owned() });
        }
        let directory = reopen(directory).map_err(InsideError::path("open", path))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(InsideError::path("read", path))? {
            let entry = entry.map_err(InsideError::path("read", path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        self.levels.push(Level { directory, names: names.into_iter() });
        Ok(())
    }

    /// The next name; names that vanish meanwhile are left out. `left` hears of each directory that is done.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn next(&mut self, mut left: impl FnMut()) -> Result<Option<Found>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let Some(name) = level.names.next() else {
                self.levels.pop();
                left();
                continue;
            };
            let node = match openat(&level.directory, name.as_slice(), flags, Mode::empty()) {
                Ok(node) => node,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            let stat = fstat(&node)?;
            return Ok(Some(Found { name, node, stat }));
        }
    }
}
