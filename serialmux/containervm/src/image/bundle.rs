//! The files an image is delivered in, by path: an unpacked directory, or members of a tar.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    ImageError,
    archive::{self, EntryType},
    blob::Blob,
};

/// Largest manifest or configuration; registries allow 4 MiB.
const MAX_JSON: u64 = 4 << 20;

/// Files by path.
#[derive(Debug)]
pub(super) enum Bundle {
    /// Below a directory of the host.
    Directory(PathBuf),
    /// Inside an archive.
    Archive {
        /// The whole archive.
        blob: Blob,
        /// What it holds at its first levels.
        members: HashMap<Vec<u8>, Member>,
    },
}

#[derive(Debug)]
pub(super) enum Member {
    File {
        offset: u64,
        length: u64,
    },
    /// `docker save` once stored a layer used twice as a link to the first.
    Link(Vec<u8>),
}

impl Bundle {
    /// Lists an archive without reading its contents.
    pub(super) fn of_archive(blob: &Blob) -> Result<Self, ImageError> {
        let mut members = HashMap::new();
        archive::read(blob, &mut |entry| {
            let member = match (entry.entry_type, entry.extents.as_slice()) {
                (EntryType::Symlink | EntryType::HardLink, _) => Member::Link(entry.link),
                (EntryType::File, [extent]) => {
                    let crate::tree::Source::Open { offset, .. } = extent.source else {
                        return Ok(());
                    };
                    Member::File { offset, length: extent.length }
                }
                _ => return Ok(()),
            };
            let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path).to_vec();
            members.insert(path, member);
            Ok(())
        })?;
        Ok(Self::Archive { blob: blob.clone(), members })
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &str) -> bool {
        match self {
            Self::Directory(root) => root.join(path).is_file(),
            Self::Archive { members, .. } => members.contains_key(path.as_bytes()),
        }
    }

    /// The file at `path`, which must come from a checked digest or be a constant when this is a directory.
    pub(super) fn open(&self, path: &str) -> Result<Blob, ImageError> {
        let missing = || ImageError::Incomplete { image: self.name(), missing: path.to_owned() };
        match self {
            Self::Directory(root) => {
                let path = root.join(path);
                if !path.is_file() {
                    return Err(missing());
                }
                Ok(Blob::open(&path)?)
            }
            Self::Archive { blob, members } => {
                let mut at = path.as_bytes().to_vec();
                // A link leads to a file; a link to a link is nothing any writer makes.
                for _ in 0..2 {
                    match members.get(&at).ok_or_else(missing)? {
                        Member::File { offset, length } => {
                            let name = format!("{}: {path}", blob.name);
                            return Ok(Blob {
                                file: blob.file.clone(),
                                offset: *offset,
                                length: *length,
                                name,
                            });
                        }
                        Member::Link(target) => at = beside(&at, target),
                    }
                }
                Err(missing())
            }
        }
    }

    /// A JSON file.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ImageError> {
        self.parse(&self.open(path)?)
    }

    /// A JSON file already opened.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        blob: &Blob,
    ) -> Result<T, ImageError> {
        let bytes = blob.read_all(MAX_JSON)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ImageError::Json { file: blob.name.clone(), source })
    }

    /// What to call it in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Directory(root) => root.display().to_string(),
            Self::Archive { blob, .. } => blob.name.clone(),
        }
    }
}

/// Whether a directory is an OCI layout rather than a root file system.
pub(super) fn is_oci_layout(path: &Path) -> bool {
    path.join("index.json").is_file()
        && fs::metadata(path.join("oci-layout")).is_ok_and(|meta| meta.is_file())
}

/// `target` seen from the directory of `link`.
fn beside(link: &[u8], target: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = link.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b".." => {
                parts.pop();
            }
            b"" | b"." => {}
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn a_link_counts_from_its_own_directory() {
        assert_eq!(beside(b"abc/layer.tar", b"../def/layer.tar"), b"def/layer.tar");
        assert_eq!(beside(b"layer.tar", b"../../x"), b"x");
    }
}
