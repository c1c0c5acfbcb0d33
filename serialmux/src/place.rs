//! Where a daemon keeps its state, and where its clients find it.

use std::env;
use std::path::{Path, PathBuf};

/// A daemon's state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// `dir` if given; else `$SERIALMUX_STATE`, `$CONTAINERVM_HOME/serialmux` (a home of its own has a daemon of its
    /// own), `$XDG_STATE_HOME/serialmux`, `~/.local/state/serialmux`, and `/var/lib/serialmux` where there is no home.
    pub fn new(dir: Option<PathBuf>) -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self(
            dir.or_else(|| var("SERIALMUX_STATE"))
                .or_else(|| var("CONTAINERVM_HOME").map(|home| home.join("serialmux")))
                .or_else(|| var("XDG_STATE_HOME").map(|home| home.join("serialmux")))
                .or_else(|| var("HOME").map(|home| home.join(".local/state/serialmux")))
                .unwrap_or_else(|| PathBuf::from("/var/lib/serialmux")),
        )
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The socket that clients talk to.
    pub fn socket(&self) -> PathBuf {
        self.0.join("serialmux.sock")
    }

    /// The file that a running daemon holds a lock on.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The file that is locked by whoever starts a daemon, until that is ready.
    pub fn launching(&self) -> PathBuf {
        self.0.join("launching")
    }

    /// The daemon's own log, when it runs in the background.
    pub fn log(&self) -> PathBuf {
        self.0.join("serialmux.log")
    }

    /// A directory per container.
    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }
}
