//! An IMAGE as given on a command line, turned into a file system that a containerVM can have as its disk.
//!
//! ```text
//! busybox ────────────────────┐
//! directory ──────────────────┤
//! docker export ──── archive ─┼─► Tree ──► ext4 ──► cache (by key)
//! docker save ──┐             │
//! OCI layout ───┴─ packed ────┘
//! ```
//!
//! What a file is, is told by its contents and never by its name. Nothing is extracted on the host; see
//! [`tree`](crate::tree). An image is made once and then found by its key: for files and directories a digest of
//! what `stat(2)` says about them, so a change makes a new image and no change costs no reading.

pub mod archive;
pub mod blob;
mod bundle;
mod busybox;
mod cache;
mod config;
mod directory;
mod header;
pub mod layer;
mod packed;
pub mod paths;
mod pax;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use sha2::{Digest as _, Sha256};

use self::{
    archive::ArchiveError,
    blob::{Blob, BlobError, hex},
    bundle::Bundle,
    cache::Cache,
    packed::Packed,
};
pub use self::{cache::Image, config::ImageConfig};
use crate::{
    ext4::{self, Ext4Error, FormatOptions},
    home::{Home, HomeError},
    tree::{Timestamp, Tree, TreeError},
};

/// Size of a container's disk unless told otherwise: 10 GiB, Docker's own default for device-backed storage.
pub const DEFAULT_DISK: u64 = 10 << 30;
/// Label by which the agent in the VM finds the disk.
pub const LABEL: &str = "containerfs";
/// Part of every key; raised when the same source leads to a different file system than before.
const GENERATION: &str = "1";

/// Why there is no image to run.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing of that name.
    #[error(
        "no image {0:?}: an IMAGE is \"busybox\", a directory, a tar of `docker export` or `docker save`, or an OCI \
         layout (directory or tar); for an image of Docker's, `docker save -o FILE.tar {0}` first"
    )]
    Unknown(String),
    /// A file that is no image.
    #[error("{0} is not an image: it is neither a tar (plain, gzip or zstd) nor a directory")]
    NotAnImage(PathBuf),
    /// A part that the manifest names is missing.
    #[error("{image} is incomplete: it has no {missing}")]
    Incomplete {
        /// The image.
        image: String,
        /// The part.
        missing: String,
    },
    /// A manifest that cannot be read.
    #[error("{file} is not what an image has there: {source}")]
    Json {
        /// The manifest, index or configuration.
        file: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// More than one image.
    #[error("{image} holds {} images ({}); save a single one", names.len(), names.join(", "))]
    Ambiguous {
        /// The file.
        image: String,
        /// Names or digests of what is in it.
        names: Vec<String>,
    },
    /// Made for other machines.
    #[error("{image} is for {}; a containerVM runs linux/amd64", platforms.join(", "))]
    Platform {
        /// The image.
        image: String,
        /// What it is for.
        platforms: Vec<String>,
    },
    /// A digest of unknown form.
    #[error("{image} names the digest {digest:?}; expected \"sha256:\" and 64 hexadecimal digits")]
    Digest {
        /// The image.
        image: String,
        /// What stands there.
        digest: String,
    },
    /// Contents that do not match their digest.
    #[error("{file} is damaged: its digest is {found}, expected {expected}")]
    Mismatch {
        /// The file.
        file: String,
        /// The digest it should have.
        expected: String,
        /// The digest it has.
        found: String,
    },
    /// An absurd number of layers.
    #[error("{image} has {n_layers} layers; images have at most 512")]
    TooManyLayers {
        /// The image.
        image: String,
        /// How many.
        n_layers: usize,
    },
    /// Indexes that lead to indexes without end.
    #[error(
        "{image} has an index inside an index inside an index; no manifest was found within four"
    )]
    TooDeep {
        /// The image.
        image: String,
    },
    /// A damaged archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A damaged or unreadable file.
    #[error(transparent)]
    Blob(BlobError),
    /// A directory that cannot be read.
    #[error("cannot read {path}: {source}")]
    Directory {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that cannot be in an image.
    #[error("{path}: {fault}")]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        fault: TreeError,
    },
    /// No room for the image.
    #[error(
        "no space left in {0} while making the disk image; free some, or set XDG_CACHE_HOME to a larger disk"
    )]
    DiskFull(PathBuf),
    /// The contents cannot become a file system.
    #[error("cannot make a disk of {image}: {source}")]
    Format {
        /// The image.
        image: String,
        /// What is wrong.
        source: Ext4Error,
    },
    /// The cache cannot be used.
    #[error("cannot use the image cache {dir}: {source}")]
    Cache {
        /// Its directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no place for a cache.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The package with busybox could not be had.
    #[error(transparent)]
    Debian(#[from] debian::DebianError),
    /// The package came without busybox.
    #[error(
        "the package busybox-static, unpacked in {path}, has no busybox in it; remove that directory and try again"
    )]
    NoBusybox {
        /// Where it was looked for.
        path: PathBuf,
    },
}

impl From<BlobError> for ImageError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Spool { place, source, .. }
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                Self::DiskFull(place.into())
            }
            other => Self::Blob(other),
        }
    }
}

/// Finds or makes the image called `reference`, with a disk of `disk_size` bytes (which are not taken up until they
/// are used). `tell` gets a line before each step that takes time.
///
/// # Errors
/// When there is no such image, it is damaged, or there is no room; nothing half-made is left then.
pub fn resolve(
    reference: &str,
    disk_size: u64,
    home: &Home,
    tell: &mut dyn FnMut(&str),
) -> Result<Image, ImageError> {
    let origin = Origin::find(reference, home, tell)?;
    let cache = Cache::open(home.images())?;
    let key = origin.key(disk_size)?;
    cache.get(&key, reference, |file| {
        tell(&format!("making a disk image of {reference}"));
        let (tree, config) = origin.read(cache.dir(), tell)?;
        let options = options(&key, disk_size);
        ext4::write(&tree, file, &options).map_err(|error| match error {
            Ext4Error::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                ImageError::DiskFull(cache.dir().to_owned())
            }
            source => ImageError::Format { image: reference.to_owned(), source },
        })?;
        cache.list(&key, &tree)?;
        Ok(config)
    })
}

/// Removes cached images whose key `is_used` does not know, and what interrupted runs left. What they were made from.
///
/// # Errors
/// When the cache cannot be read or written.
pub fn sweep(home: &Home, is_used: &dyn Fn(&str) -> bool) -> Result<Vec<String>, ImageError> {
    Cache::open(home.images())?.sweep(is_used)
}

fn options(key: &str, size: u64) -> FormatOptions {
    let digest = Sha256::digest(key.as_bytes());
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    // Version 8 and variant 1 of RFC 9562: made from what we like.
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp { seconds: now.as_secs().cast_signed(), nanoseconds: 0 };
    FormatOptions { label: LABEL.into(), uuid, size, time }
}

/// Where an image comes from.
#[derive(Debug)]
enum Origin {
    Busybox(PathBuf),
    Directory(PathBuf),
    File(PathBuf),
}

impl Origin {
    fn find(reference: &str, home: &Home, tell: &mut dyn FnMut(&str)) -> Result<Self, ImageError> {
        if matches!(reference, "busybox" | "busybox:latest") {
            return Ok(Self::Busybox(busybox::program(&home.debian(), tell)?));
        }
        let path = PathBuf::from(reference);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(Self::Directory(path)),
            Ok(meta) if meta.is_file() => Ok(Self::File(path)),
            Ok(_) => Err(ImageError::NotAnImage(path)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Err(ImageError::Unknown(reference.to_owned()))
            }
            Err(source) => Err(ImageError::Directory { path, source }),
        }
    }

    fn key(&self, disk_size: u64) -> Result<String, ImageError> {
        let what = match self {
            Self::Busybox(program) => format!("busybox {}", identity(program)?),
            Self::Directory(path) if bundle::is_oci_layout(path) => {
                format!("oci {}", directory::fingerprint(path)?)
            }
            Self::Directory(path) => format!("directory {}", directory::fingerprint(path)?),
            Self::File(path) => format!("file {}", identity(path)?),
        };
        let digest = Sha256::digest(format!("{GENERATION} {disk_size} {what}").as_bytes());
        Ok(hex(&digest))
    }

    fn read(
        &self,
        spool: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(Tree, ImageConfig), ImageError> {
        match self {
            Self::Busybox(program) => Ok((busybox::tree(program)?, busybox::config())),
            Self::Directory(path) if bundle::is_oci_layout(path) => {
                merged(&Packed::from_oci(&Bundle::Directory(path.clone()))?, spool, tell)
            }
            Self::Directory(path) => Ok((directory::tree(path)?, ImageConfig::default())),
            Self::File(path) => read_file(path, spool, tell),
        }
    }
}

fn read_file(
    path: &Path,
    spool: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<(Tree, ImageConfig), ImageError> {
    let blob = Blob::open(path)?.unpacked(spool)?;
    if !archive::is_tar(&blob) {
        return Err(ImageError::NotAnImage(path.to_owned()));
    }
    let bundle = Bundle::of_archive(&blob)?;
    if bundle.has("oci-layout") && bundle.has("index.json") {
        return merged(&Packed::from_oci(&bundle)?, spool, tell);
    }
    if bundle.has("manifest.json")
        && let Some(packed) = Packed::from_docker(&bundle)?
    {
        return merged(&packed, spool, tell);
    }
    let mut tree = Tree::new();
    layer::extract(&blob, &mut tree)?;
    Ok((tree, ImageConfig::default()))
}

fn merged(
    packed: &Packed,
    spool: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<(Tree, ImageConfig), ImageError> {
    Ok((packed.merge(spool, tell)?, packed.config.clone()))
}

/// What tells one version of a file from another without reading it.
fn identity(path: &Path) -> Result<String, ImageError> {
    stat_identity(path).map_err(|source| ImageError::Directory { path: path.to_owned(), source })
}

/// Device, inode, size and times of a file that can be opened.
pub(crate) fn stat_identity(path: &Path) -> io::Result<String> {
    let meta = File::open(path)?.metadata()?;
    Ok(format!(
        "{}:{} {} {}.{} {}.{}",
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    ))
}
