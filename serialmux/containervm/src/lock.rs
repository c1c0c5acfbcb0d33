//! Locks that end when their holder says so.

use std::fs::File;
use std::ops::Deref;

/// A file that is locked (flock(2)) as long as this is there. Closing it would not do: a process that another thread
/// starts at this moment has a copy of it until it becomes another program.
#[derive(Debug)]
pub struct Held(File);

impl Held {
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
        let open = || File::create(dir.path().join("lock")).unwrap();
        let file = open();
        file.lock().unwrap();
        // As a process has that is being started.
        let copy = file.try_clone().unwrap();
        let held = Held::new(file);
        assert!(open().try_lock().is_err());
        drop(held);
        open().try_lock().unwrap();
        drop(copy);
    }
}
