//! The kernel an image boots: where its two parts are, given by hand or taken from the distribution.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use debian::{DebianError, Tell, unpack, unpack_dependency};

use crate::modules::Signatures;

/// A kernel image and its modules, as files of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Its `lib/modules/<release>`.
    pub modules: PathBuf,
    /// What to do with the modules' signatures.
    pub signatures: Signatures,
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The distribution's package could not be had.
    #[error(transparent)]
    Package(#[from] DebianError),
    /// The package is not laid out as expected.
    #[error("the kernel package in {} has no {wanted}; give another kernel with --kernel and --modules", dir.display())]
    Layout {
        /// Where the package is unpacked.
        dir: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The unpacked package could not be read.
    #[error("cannot read {}: {reason}; remove it to have it brought in again", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// The reason of the operating system.
        reason: io::Error,
    },
}

impl Kernel {
    /// A kernel given by hand. Its modules keep their signatures, as it may insist on them.
    #[must_use]
    pub fn given(image: PathBuf, modules: PathBuf) -> Self {
        Self { image, modules, signatures: Signatures::Keep }
    }

    /// The distribution's kernel for virtual machines, unpacked under `cache_root` and not installed.
    ///
    /// # Errors
    /// No such package, no network, or a package of unknown layout.
    pub fn of_distribution(cache_root: &Path, tell: Tell<'_>) -> Result<Self, KernelError> {
        let metapackage =
            if is_ubuntu() { "linux-image-virtual" } else { "linux-image-cloud-amd64" };
        let package = unpack_dependency(metapackage, "linux-image-", cache_root, tell)?;
        let image = entry_starting(&package.join("boot"), "vmlinuz-")?;
        let image = image.ok_or_else(|| layout(&package, "boot/vmlinuz-*"))?;
        let modules = match modules_in(&package)? {
            Some(modules) => modules,
            // Ubuntu keeps them in a package of their own, named for the kernel's release.
            None => {
                let name = image.file_name().unwrap_or_default().to_string_lossy();
                let release = name.trim_start_matches("vmlinuz-");
                let package = unpack(&format!("linux-modules-{release}"), cache_root, tell)?;
                modules_in(&package)?.ok_or_else(|| layout(&package, "lib/modules/*"))?
            }
        };
        Ok(Self { image, modules, signatures: Signatures::Drop })
    }
}

/// Whether the host's package archive is Ubuntu's, which names its kernels differently (os-release(5)).
fn is_ubuntu() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let ids =
        release.lines().filter_map(|it| it.strip_prefix("ID=").or(it.strip_prefix("ID_LIKE=")));
    ids.flat_map(|it| it.trim_matches('"').split(' ')).any(|id| id == "ubuntu")
}

/// Debian 13 moved `lib` under `usr`.
fn modules_in(package: &Path) -> Result<Option<PathBuf>, KernelError> {
    for place in ["lib/modules", "usr/lib/modules"] {
        if let Some(found) = entry_starting(&package.join(place), "")? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The first entry, by name, of a directory that may not be there.
fn entry_starting(dir: &Path, prefix: &str) -> Result<Option<PathBuf>, KernelError> {
    let unreadable = |reason| KernelError::Read { path: dir.to_owned(), reason };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut first: Option<PathBuf> = None;
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let starts = entry.file_name().to_string_lossy().starts_with(prefix);
        if starts && first.as_ref().is_none_or(|first| entry.path() < *first) {
            first = Some(entry.path());
        }
    }
    Ok(first)
}

fn layout(dir: &Path, wanted: &'static str) -> KernelError {
    KernelError::Layout { dir: dir.to_owned(), wanted }
}
