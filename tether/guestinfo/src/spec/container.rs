//! What surrounds all processes of a container: its root's mounts, its init, and what it may use in all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What surrounds the container's processes. Ours, below `guestinfo.vice./container/`. The words are
/// those of `docker run`'s options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Whether nothing can be written to the root file system.
    #[serde(rename = "/readOnly")]
    pub read_only: bool,
    /// Further file systems in memory.
    #[serde(rename = "/tmpfs")]
    pub tmpfs: Vec<Tmpfs>,
    /// Size of `/dev/shm` in bytes; 0 for Docker's 64 MiB.
    #[serde(rename = "/shmSize")]
    pub shm_size: u64,
    /// Whether those parts of `/proc` and `/sys` are hidden or read-only that concern the whole
    /// machine, as in a container that shares it. This one does not, so they usually are not.
    #[serde(rename = "/maskPaths")]
    pub mask_paths: bool,
    /// Whether the container's process 1 is an init that passes signals on and collects orphans.
    #[serde(rename = "/init")]
    pub init: bool,
    /// Bytes of memory all processes may use; 0 for what the machine has, less the agent's reserve.
    #[serde(rename = "/memory")]
    pub memory: u64,
    /// Processes and threads there may be; 0 for what the kernel can bear.
    #[serde(rename = "/pids")]
    pub pids: u64,
    /// Processor time per second, in nanoseconds; 0 for all there is.
    #[serde(rename = "/nanoCpus")]
    pub nano_cpus: u64,
}

/// A file system in memory: `PATH[:OPTION,...]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tmpfs {
    path: String,
    options: Vec<String>,
}

/// Options without a value: those of mount(8) that concern any file system.
const FLAGS: [&str; 14] = [
    "rw",
    "ro",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "strictatime",
    "relatime",
];
/// Options with a value: those of tmpfs(5).
const VALUES: [&str; 6] = ["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid"];

impl Tmpfs {
    /// Where in the container: an absolute path without `..`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The options, each known: a word of mount(8), or `NAME=VALUE` of tmpfs(5).
    pub fn options(&self) -> impl Iterator<Item = &str> {
        self.options.iter().map(String::as_str)
    }
}

impl FromStr for Tmpfs {
    type Err = TmpfsError;

    fn from_str(text: &str) -> Result<Self, TmpfsError> {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let parts = || path.split('/').filter(|part| !part.is_empty());
        let odd = |part: &str| matches!(part, "." | "..") || part.contains('\0');
        if !path.starts_with('/') || parts().next().is_none() || parts().any(odd) {
            return Err(TmpfsError::Path(path.to_owned()));
        }
        let options: Vec<String> =
            options.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let known = |option: &String| match option.split_once('=') {
            Some((name, value)) => VALUES.contains(&name) && is_amount(value),
            None => FLAGS.contains(&option.as_str()),
        };
        if let Some(unknown) = options.iter().find(|option| !known(option)) {
            return Err(TmpfsError::Option(unknown.clone()));
        }
        Ok(Self { path: path.to_owned(), options })
    }
}

/// Digits, with a unit or a percent sign: the kernel says what it makes of them.
fn is_amount(value: &str) -> bool {
    let digits = value.trim_end_matches(|c: char| "kKmMgG%".contains(c));
    !digits.is_empty()
        && value.len() - digits.len() <= 1
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Tmpfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.options.is_empty() { Ok(()) } else { write!(f, ":{}", self.options.join(",")) }
    }
}

impl TryFrom<String> for Tmpfs {
    type Error = TmpfsError;

    fn try_from(text: String) -> Result<Self, TmpfsError> {
        text.parse()
    }
}

impl From<Tmpfs> for String {
    fn from(tmpfs: Tmpfs) -> Self {
        tmpfs.to_string()
    }
}

/// Not a file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TmpfsError {
    /// A path that cannot be.
    #[error("{0:?} is no place for a tmpfs; expected an absolute path below /, without \"..\"")]
    Path(String),
    /// An option that tmpfs does not have.
    #[error(
        "tmpfs has no option {0:?}; expected words such as ro, exec, size=64m, mode=1777, uid=1000, separated by commas"
    )]
    Option(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_is_a_path_with_options() {
        for text in ["/run", "/tmp:size=64m,exec", "/a/b:mode=1777,uid=5,ro"] {
            let tmpfs: Tmpfs = text.parse().unwrap();
            assert_eq!(tmpfs.to_string(), text);
        }
        let tmpfs: Tmpfs = "/tmp:size=64m,exec".parse().unwrap();
        assert_eq!(
            (tmpfs.path(), tmpfs.options().collect::<Vec<_>>()),
            ("/tmp", vec!["size=64m", "exec"])
        );
    }

    #[test]
    fn what_no_tmpfs_can_be_is_refused() {
        for bad in ["", "tmp", "/", "//", "/a/../b", "/./a", "/a\0"] {
            assert!(matches!(bad.parse::<Tmpfs>(), Err(TmpfsError::Path(_))), "{bad:?}");
        }
        for bad in ["/a:size", "/a:size=", "/a:size=m", "/a:size=1mm", "/a:mode=x", "/a:lowerdir=/"]
        {
            assert!(matches!(bad.parse::<Tmpfs>(), Err(TmpfsError::Option(_))), "{bad:?}");
        }
    }
}
