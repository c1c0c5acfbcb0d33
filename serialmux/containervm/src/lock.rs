//! Locks that end when their holder says so.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// Opens a file to be locked, made if it is not there.
///
/// # Errors
/// As the file system says.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

/// A file that is locked (flock(2)) as long as this is there. Closing it would not do: a process that another thread
/// starts at this moment has a copy of it until it becomes another program.
#[derive(Debug)]
pub struct Held(File);

impl Held {
    /// Waits until nobody else holds the file at `path`.
    ///
    /// # Errors
    /// As the file system says.
    pub fn take(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Ok(Self(file))
    }

    /// Takes over a file that was locked.
    #[must_use]
    pub const fn new(locked: File) -> Self {
        Self(locked)
    }
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It is locked, and so it can be unlocked.
        drop(self.0.unlock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_file_does_not_keep_it_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = || open(&path).unwrap();
        let held = Held::take(&path).unwrap();
        // As a process has that is being started.
        let copy = held.try_clone().unwrap();
        assert!(open().try_lock().is_err());
        drop(held);
        open().try_lock().unwrap();
        drop(copy);
    }
}
