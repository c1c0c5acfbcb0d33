//! What a container's disk has that its image has not, and the other way round: `diff`.
//!
//! Both sides are lists of names in the same order, with the time of each one's last change. Image and disk
//! begin as the same blocks, in which each file's change time is one that `containervm` has written; the
//! kernel sets it anew with every change of a file's contents, owner, mode, attributes or names, and no
//! program can set it back. So whatever has another change time has changed, whatever the clocks say.
//!
//! What the agent mounts over or makes for itself is left out, as Docker leaves it out.

use crate::api::inside::Change;
use containervm::tree::MAX_NAME;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use thiserror::Error;
use wire::message::inside::Listed;

/// The most names in an image or on a disk that are compared.
const MAX_NAMES: usize = 4_000_000;
/// The most bytes of paths that differ. A path may be long, and each stands in full.
const MAX_BYTES: usize = 64 << 20;
/// How deep directories may lie.
const MAX_DEPTH: usize = 4096;

/// Paths that the agent makes or mounts over; what is below them does not show either.
const OURS: [&[u8]; 8] = [
    b"/dev",
    b"/proc",
    b"/sys",
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/resolv.conf",
    b"/.tether",
    b"/lost+found",
];

/// What cannot be compared.
#[derive(Debug, Error)]
pub enum DifferenceError {
    /// The list of the image's paths cannot be read.
    #[error("cannot read the list of the image's files, {path}: {source}")]
    Unreadable {
        /// Where it should be.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is no such list.
    #[error(
        "the list of the image's files is damaged in line {0}; make the image anew: containervm gc"
    )]
    Damaged(usize),
    /// Too much of it.
    #[error("more than {MAX_NAMES} names cannot be compared")]
    TooMany,
    /// Too much that is not the same.
    #[error("more than {} MiB of paths that differ cannot be told", MAX_BYTES >> 20)]
    TooLong,
    /// The guest's list does not hang together.
    #[error("the agent's list of names is not in order")]
    Disorder,
}

/// Seconds and nanoseconds of a file's last change.
type Moment = (i64, u32);

/// The paths of an image, with the time of each one's last change.
#[derive(Debug, Default)]
pub struct ImagePaths(BTreeMap<Vec<u8>, Moment>);

impl ImagePaths {
    /// Reads the list that `containervm` keeps beside a VM's disk.
    ///
    /// # Errors
    /// [`DifferenceError`].
    pub fn read(path: &Path) -> Result<Self, DifferenceError> {
        let bytes = fs::read(path).map_err(|source| DifferenceError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(&bytes)
    }

    /// Such a list: each entry is `seconds.nanoseconds path`, ended by a zero byte.
    ///
    /// # Errors
    /// [`DifferenceError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DifferenceError> {
        let mut paths = BTreeMap::new();
        for (n, line) in bytes.split(|byte| *byte == 0).enumerate() {
            if line.is_empty() {
                continue;
            }
            let damaged = || DifferenceError::Damaged(n + 1);
            let blank = line.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let time = std::str::from_utf8(&line[..blank]).map_err(|_| damaged())?;
            let (seconds, nanoseconds) = time.split_once('.').ok_or_else(damaged)?;
            let moment = (
                seconds.parse().map_err(|_| damaged())?,
                nanoseconds.parse().map_err(|_| damaged())?,
            );
            paths.insert(line[blank + 1..].to_vec(), moment);
            if paths.len() > MAX_NAMES {
                return Err(DifferenceError::TooMany);
            }
        }
        Ok(Self(paths))
    }
}

/// A comparison under way.
#[derive(Debug)]
pub struct Comparison {
    /// What has not been found on the disk so far.
    image: BTreeMap<Vec<u8>, Moment>,
    /// Lengths of the path's parts, by depth.
    ends: Vec<usize>,
    path: Vec<u8>,
    changes: Vec<Change>,
    /// Directories in which the agent has made something.
    made: Vec<Vec<u8>>,
    n_names: usize,
    n_bytes: usize,
}

impl Comparison {
    /// Compares with an image.
    pub fn new(image: ImagePaths) -> Self {
        Self {
            image: image.0,
            ends: vec![0],
            path: Vec::new(),
            changes: Vec::new(),
            made: Vec::new(),
            n_names: 0,
            n_bytes: 0,
        }
    }

    /// The next name on the disk.
    ///
    /// # Errors
    /// [`DifferenceError`] for a list that is none.
    pub fn listed(&mut self, listed: &Listed) -> Result<(), DifferenceError> {
        let depth = usize::try_from(listed.depth).unwrap_or(usize::MAX);
        let name = &listed.name;
        let is_name = (1..=MAX_NAME).contains(&name.len())
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if depth == 0 || depth > self.ends.len() || depth > MAX_DEPTH || !is_name {
            return Err(DifferenceError::Disorder);
        }
        self.n_names += 1;
        if self.n_names > MAX_NAMES {
            return Err(DifferenceError::TooMany);
        }
        self.ends.truncate(depth);
        self.path.truncate(self.ends.last().copied().unwrap_or(0));
        self.path.push(b'/');
        self.path.extend(name);
        self.ends.push(self.path.len());
        if is_ours(&self.path) {
            let directory = parent(&self.path);
            // What is below one of ours is in a directory that is not told itself.
            if self.image.remove(&self.path).is_none()
                && !is_ours(directory)
                && !self.made.iter().any(|made| made == directory)
            {
                self.made.push(directory.to_vec());
            }
            return Ok(());
        }
        let kind = match self.image.remove(&self.path) {
            None => 1,
            Some(moment) if moment != (listed.changed, listed.changed_ns) => 0,
            Some(_) => return Ok(()),
        };
        self.n_bytes += self.path.len();
        if self.n_bytes > MAX_BYTES {
            return Err(DifferenceError::TooLong);
        }
        self.changes.push(Change { path: self.path.clone(), kind });
        Ok(())
    }

    /// All differences, in order of their paths. What is below a directory that is gone is not told again.
    pub fn finish(mut self) -> Vec<Change> {
        for path in self.image.keys() {
            if !is_ours(path) && !self.image.contains_key(parent(path)) {
                self.changes.push(Change { path: path.clone(), kind: 2 });
            }
        }
        // A directory that holds nothing new but what the agent has made there has not changed for its user.
        for directory in self.made {
            let inside = |change: &Change| change.kind != 0 && parent(&change.path) == directory;
            if !self.changes.iter().any(inside) {
                self.changes.retain(|change| change.kind != 0 || change.path != directory);
            }
        }
        self.changes.sort_by(|a, b| a.path.cmp(&b.path));
        self.changes
    }
}

fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

fn is_ours(path: &[u8]) -> bool {
    OURS.iter().any(|ours| {
        path.strip_prefix(*ours).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(depth: u32, name: &str, changed: i64) -> Listed {
        Listed { depth, name: name.into(), mode: 0, changed, changed_ns: 7 }
    }

    /// All of them changed at the same time.
    fn image(paths: &[&str]) -> ImagePaths {
        let list: String = paths.iter().map(|path| format!("5.7 {path}\0")).collect();
        ImagePaths::parse(list.as_bytes()).unwrap()
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        let letter = |kind| ["C", "A", "D"][kind as usize];
        let path = |change: &Change| String::from_utf8_lossy(&change.path).into_owned();
        changes.iter().map(|change| format!("{} {}", letter(change.kind), path(change))).collect()
    }

    #[test]
    fn additions_changes_and_deletions_are_told_as_docker_does() {
        let image = image(&[
            "/bin",
            "/bin/sh",
            "/etc",
            "/etc/passwd",
            "/etc/hosts",
            "/tmp",
            "/tmp/a",
            "/tmp/a/b",
            "/tmp-file",
            "/dev",
            "/dev/null",
        ]);
        let mut comparison = Comparison::new(image);
        for name in [
            listed(1, "a", 9),
            listed(1, "bin", 5),
            listed(2, "sh", 5),
            listed(1, "dev", 8),
            listed(2, "x", 8),
            listed(1, "etc", 9),
            listed(2, "hosts", 9),
            listed(2, "passwd", 9),
            listed(1, "home", 9),
            listed(2, "krusty", 5),
            listed(1, "proc", 9),
            listed(1, "tmp-file", 5),
        ] {
            comparison.listed(&name).unwrap();
        }
        assert_eq!(
            shown(&comparison.finish()),
            ["A /a", "C /etc", "C /etc/passwd", "A /home", "A /home/krusty", "D /tmp"]
        );
    }

    #[test]
    fn what_the_agent_makes_in_a_directory_does_not_change_it() {
        let image = || image(&["/etc", "/etc/passwd"]);
        let disk = [listed(1, "etc", 9), listed(2, "hosts", 9), listed(2, "passwd", 5)];
        let mut comparison = Comparison::new(image());
        disk.iter().for_each(|name| comparison.listed(name).unwrap());
        assert_eq!(shown(&comparison.finish()), [""; 0]);
        let mut comparison = Comparison::new(image());
        disk.iter().for_each(|name| comparison.listed(name).unwrap());
        comparison.listed(&listed(2, "x", 9)).unwrap();
        assert_eq!(shown(&comparison.finish()), ["C /etc", "A /etc/x"]);
    }

    #[test]
    fn a_directory_that_is_gone_is_told_once() {
        // Between a directory and what is in it stands, in order, whatever has a `-` where that has a `/`.
        let image = image(&["/tmp", "/tmp-file", "/tmp/a", "/tmp/a-b", "/tmp/a/b", "/usr"]);
        let mut comparison = Comparison::new(image);
        comparison.listed(&listed(1, "usr", 5)).unwrap();
        assert_eq!(shown(&comparison.finish()), ["D /tmp", "D /tmp-file"]);
    }

    #[test]
    fn a_fraction_of_a_second_makes_a_difference() {
        let mut comparison = Comparison::new(ImagePaths::parse(b"5.8 /f\0").unwrap());
        comparison.listed(&listed(1, "f", 5)).unwrap();
        assert_eq!(shown(&comparison.finish()), ["C /f"]);
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        for text in ["x", "1 /a", "1.x /a", " /a"] {
            assert!(ImagePaths::parse(text.as_bytes()).is_err(), "{text}");
        }
        let mut comparison = Comparison::new(ImagePaths::default());
        assert!(comparison.listed(&listed(0, "a", 1)).is_err());
        assert!(comparison.listed(&listed(2, "a", 1)).is_err());
        for name in ["", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(comparison.listed(&listed(1, name, 1)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_guest_that_lists_without_end_is_given_up() {
        let long = "x".repeat(255);
        let mut deep = Comparison::new(ImagePaths::default());
        let mut n = 0;
        let error = loop {
            n += 1;
            if let Err(error) = deep.listed(&listed(n.min(4096), &long, 1)) {
                break error;
            }
        };
        assert!(matches!(error, DifferenceError::TooLong), "{error}");
        let mut ours = Comparison::new(ImagePaths::default());
        for n in 0..1000 {
            ours.listed(&listed(1, "dev", 1)).unwrap();
            ours.listed(&listed(2, &format!("{n}"), 1)).unwrap();
        }
        assert_eq!(ours.made, [b""]);
    }
}
