//! Finished images by key: a file system, and beside it what the image says about its process.
//!
//! ```text
//! <key>.lock      held shared by who copies the image, alone by who makes or removes it
//! <key>.partial   being made; whoever holds the lock alone may overwrite or remove it
//! <key>.img       the file system, read-only
//! <key>.paths     its paths, for `diff`
//! <key>.json      its configuration; written last, so where it is the image is whole
//! ```
//!
//! The lock is flock(2)'s and dies with its holder, so an interrupted run leaves at most a partial file that the
//! next one overwrites.

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufWriter},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{ImageConfig, ImageError, paths};
use crate::home::private_dir;
use crate::lock::{self, Held};
use crate::tree::Tree;

/// An image that can be copied; it is not removed while this exists.
#[derive(Debug)]
pub struct Image {
    /// The ext4 file system, labeled `containerfs`; not to be written.
    pub disk: PathBuf,
    /// What it says about its process.
    pub config: ImageConfig,
    /// Name in the cache.
    pub key: String,
    _in_use: Held,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// What the image was made from, for people.
    origin: String,
    config: ImageConfig,
}

/// The directory of finished images.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(super) fn open(dir: PathBuf) -> Result<Self, ImageError> {
        private_dir(&dir)?;
        Ok(Self { dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The image of this key, made by `make` into an empty file if it is not there. Of several that ask at once,
    /// one makes it and the others wait.
    pub(super) fn get(
        &self,
        key: &str,
        origin: &str,
        make: impl FnOnce(&File) -> Result<ImageConfig, ImageError>,
    ) -> Result<Image, ImageError> {
        let lock = self.lock_file(key)?;
        lock.lock_shared().map_err(|source| self.failed(source))?;
        let lock = Held::new(lock);
        if let Some(config) = self.finished(key) {
            return Ok(self.image(key, config, lock));
        }
        lock.unlock().and_then(|()| lock.lock()).map_err(|source| self.failed(source))?;
        if let Some(config) = self.finished(key) {
            return Ok(self.image(key, config, lock));
        }
        let partial = Partial(self.file(key, "partial"));
        let file = partial.create().map_err(|source| self.failed(source))?;
        let config = make(&file)?;
        let record = Record { origin: origin.to_owned(), config: config.clone() };
        self.finish(key, &partial, &file, &record)
            // flock(2) turns one kind of lock into the other: from here on others may copy it too.
            .and_then(|()| lock.lock_shared())
            .map_err(|source| self.failed(source))?;
        Ok(self.image(key, config, lock))
    }

    fn finish(&self, key: &str, partial: &Partial, file: &File, record: &Record) -> io::Result<()> {
        file.set_permissions(fs::Permissions::from_mode(0o400))?;
        // The names below must not reach the disk before the contents (power loss).
        file.sync_all()?;
        fs::rename(&partial.0, self.file(key, "img"))?;
        let temporary = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer(&temporary, record)?;
        temporary.as_file().sync_all()?;
        temporary.persist(self.file(key, "json")).map_err(|error| error.error)?;
        Ok(())
    }

    /// The configuration, when the image is whole. A record that cannot be read is none: the image is made anew.
    fn finished(&self, key: &str) -> Option<ImageConfig> {
        let record = fs::read(self.file(key, "json")).ok()?;
        let record: Record = serde_json::from_slice(&record).ok()?;
        let whole = self.file(key, "img").is_file() && self.paths(key).is_file();
        whole.then_some(record.config)
    }

    fn image(&self, key: &str, config: ImageConfig, lock: Held) -> Image {
        Image { disk: self.file(key, "img"), config, key: key.to_owned(), _in_use: lock }
    }

    /// Removes finished images that `is_used` does not know, and everything half-made, except what someone works
    /// on just now. The origins of what went.
    pub(super) fn sweep(&self, is_used: &dyn Fn(&str) -> bool) -> Result<Vec<String>, ImageError> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|source| self.failed(source))? {
            let path = entry.map_err(|source| self.failed(source))?.path();
            let (Some(key), Some("lock")) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|ext| ext.to_str()),
            ) else {
                continue;
            };
            let lock = self.lock_file(key)?;
            let _held = match lock.try_lock() {
                Ok(()) => Held::new(lock),
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(source)) => return Err(self.failed(source)),
            };
            removed
                .extend(self.sweep_key(key, is_used(key)).map_err(|source| self.failed(source))?);
        }
        Ok(removed)
    }

    /// The lock file itself stays: removing it would let two processes hold different files of the same name.
    fn sweep_key(&self, key: &str, used: bool) -> io::Result<Option<String>> {
        remove(&self.file(key, "partial"))?;
        if used && self.finished(key).is_some() {
            return Ok(None);
        }
        let record = fs::read(self.file(key, "json")).ok();
        let origin = record
            .and_then(|record| serde_json::from_slice::<Record>(&record).ok())
            .map(|r| r.origin);
        remove(&self.file(key, "json"))?;
        remove(&self.file(key, "img"))?;
        remove(&self.paths(key))?;
        Ok(origin)
    }

    fn lock_file(&self, key: &str) -> Result<File, ImageError> {
        lock::open(&self.file(key, "lock")).map_err(|source| self.failed(source))
    }

    /// Keeps the list of an image's paths; a list that is not whole is not left.
    pub(super) fn list(&self, key: &str, tree: &Tree) -> Result<(), ImageError> {
        let path = self.paths(key);
        let list = File::create(&path).map(BufWriter::new);
        list.and_then(|mut list| paths::write(tree, &mut list)).map_err(|source| {
            // What is wrong is told already, and the next attempt begins with an empty file.
            fs::remove_file(&path).ok();
            match source.kind() {
                io::ErrorKind::StorageFull => ImageError::DiskFull(self.dir.clone()),
                _ => self.failed(source),
            }
        })
    }

    /// The list of the paths of this image.
    pub(super) fn paths(&self, key: &str) -> PathBuf {
        paths::of(&self.file(key, "img"))
    }

    fn file(&self, key: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{key}.{extension}"))
    }

    fn failed(&self, source: io::Error) -> ImageError {
        match source.kind() {
            io::ErrorKind::StorageFull => ImageError::DiskFull(self.dir.clone()),
            _ => ImageError::Cache { dir: self.dir.clone(), source },
        }
    }
}

/// An image being made: removed unless it was renamed.
struct Partial(PathBuf);

impl Partial {
    fn create(&self) -> io::Result<File> {
        remove(&self.0)?;
        File::options().create_new(true).read(true).write(true).open(&self.0)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After success there is nothing left to remove; after a failure that one is what matters.
        drop(remove(&self.0));
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
