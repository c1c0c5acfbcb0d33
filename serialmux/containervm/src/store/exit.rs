//! How a VM's last run ended, kept in its directory.

use std::{
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

const FILE: &str = "exit.json";

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code of the container's process, once its client has told.
    pub code: Option<i32>,
    /// How QEMU ended: `powered off`, or what was wrong. Empty while it still runs.
    #[serde(default)]
    pub how: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl Exit {
    pub(super) fn now() -> Self {
        Self { code: None, how: String::new(), at: now() }
    }

    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        write_json(dir, FILE, self)
    }

    /// Before a new run.
    pub(super) fn forget(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Writes a file by renaming a finished one.
pub(super) fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let temporary = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer_pretty(&temporary, value)?;
    temporary.persist(dir.join(name)).map_err(|error| error.error)?;
    Ok(())
}
