//! The disk for output that nobody takes: raw, of the VM's own, and known by its first line.
//!
//! Nothing else is ever on it that has a meaning to anybody, so it is made empty, and takes only the space that is
//! written to it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use guestinfo::SPOOL_LINE;

use super::LogOpt;
use crate::store::Draft;
use crate::volume::MAX_VOLUMES;

const IMAGE: &str = "spool.img";

/// A spool's disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolDisk {
    /// Its image.
    pub image: PathBuf,
}

/// Why there can be none.
#[derive(Debug, thiserror::Error)]
pub enum SpoolDiskError {
    /// Its controller is full.
    #[error(
        "there is no address left for the spool's disk beside {0} volumes; use {most} at most",
        most = MAX_VOLUMES - 1
    )]
    NoAddress(usize),
    /// It cannot be made.
    #[error("cannot make the spool's disk {path}: {source}")]
    File {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SpoolDisk {
    /// Makes the disk that the options ask for, if they do, for a VM that has so many volumes.
    ///
    /// # Errors
    /// When there is no room, on the host's disk or in the VM.
    pub fn make(
        options: &[LogOpt],
        volumes: usize,
        draft: &Draft,
    ) -> Result<Option<Self>, SpoolDiskError> {
        let mut sizes = options.iter().filter_map(|option| match option {
            LogOpt::Spool(bytes) => Some(*bytes),
            LogOpt::Mode(_) | LogOpt::MaxBufferSize(_) => None,
        });
        // As with the other options, the last one counts.
        let Some(size) = sizes.next_back() else { return Ok(None) };
        if volumes >= MAX_VOLUMES {
            return Err(SpoolDiskError::NoAddress(volumes));
        }
        let path = draft.dir().join(IMAGE);
        let make = || {
            let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(format!("{SPOOL_LINE}\n").as_bytes())?;
            // A disk has whole sectors; QEMU rounds down what has not.
            file.set_len(size.next_multiple_of(512))
        };
        match make() {
            Ok(()) => Ok(Some(Self { image: draft.target().join(IMAGE) })),
            Err(source) => Err(SpoolDiskError::File { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::Home, store::Store};

    #[test]
    fn the_last_size_counts_and_the_disk_begins_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Home::at(dir.path())).unwrap();
        let draft = store.draft(Some("spooled"), "image", false).unwrap();
        assert_eq!(SpoolDisk::make(&[], 0, &draft).unwrap(), None);
        let options = [LogOpt::Spool(5 << 20), LogOpt::Spool((1 << 20) + 1)];
        let error = SpoolDisk::make(&options, MAX_VOLUMES, &draft).unwrap_err().to_string();
        assert!(error.contains("14 volumes; use 13 at most"), "{error}");
        let disk = SpoolDisk::make(&options, 1, &draft).unwrap().unwrap();
        assert_eq!(disk.image, draft.target().join("spool.img"));
        let found = std::fs::read(draft.dir().join("spool.img")).unwrap();
        assert!(found.starts_with(b"# containervm spool\n\0"));
        assert_eq!(found.len(), (1 << 20) + 512);
    }
}
