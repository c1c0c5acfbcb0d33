//! Why a look into the container, or a copy in or out of it, came to nothing; the texts go to the client.

use std::io;

use thiserror::Error;

/// A request that was not carried out.
#[derive(Debug, Error)]
pub enum InsideError {
    /// The disk is not there yet, or could not be mounted.
    #[error("the container's disk is not mounted; try again when the container has been started")]
    NoDisk,
    /// More at once than there is memory for.
    #[error("{max} copies and looks are under way; try again when one is done", max = super::job::MAX_JOBS)]
    TooMany,
    /// Frozen already.
    #[error("the container's disk is frozen already; thaw it first")]
    Frozen,
    /// A request that only a newer agent knows.
    #[error("this agent does not know the request; a newer one may")]
    Unknown,
    /// Something about one path.
    #[error("cannot {step} {path}: {error}")]
    Path {
        /// What was being done.
        step: &'static str,
        /// The path as the container sees it.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// There is nothing at a path. Named apart, for clients tell it apart.
    #[error("no such file or directory: {0}")]
    Missing(String),
    /// Paths are absolute.
    #[error("{0:?} is no absolute path; give one that begins with /")]
    Relative(String),
    /// An archive that wants to climb out of where it is unpacked.
    #[error("the archive has an entry {0:?}, which leads out of the directory; it is refused")]
    Escapes(String),
    /// A file where the archive has a directory.
    #[error("cannot overwrite non-directory {0:?} with directory")]
    FileInTheWay(String),
    /// A directory where the archive has something else.
    #[error("cannot overwrite directory {0:?} with non-directory")]
    DirectoryInTheWay(String),
    /// Directories in directories, without end as it seems.
    #[error("directories lie more than {max} deep at {path}; copy a part of them", max = super::walk::MAX_DEPTH)]
    TooDeep {
        /// Where.
        path: String,
    },
    /// The archive cannot be read.
    #[error("the archive cannot be read: {0}; it must be a tar file, not compressed")]
    Archive(io::Error),
    /// The pipe to the agent, whose other end has gone.
    #[error("the copy was given up: {0}")]
    Pipe(io::Error),
    /// Something of the machine.
    #[error("cannot {step}: {error}")]
    Machine {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl InsideError {
    /// For `map_err`: the kernel's answer about a path.
    pub fn path<E: Into<io::Error>>(step: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        move |error| {
            let error: io::Error = error.into();
            match error.kind() {
                io::ErrorKind::NotFound => Self::Missing(path),
                _ => Self::Path { step, path, error },
            }
        }
    }

    /// For `map_err`: the kernel's answer about something else.
    pub fn machine<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Machine { step, error: error.into() }
    }
}
