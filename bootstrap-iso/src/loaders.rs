//! The boot loaders' files, taken from their packages without installing them.

use std::path::{Path, PathBuf};

use debian::{DebianError, Need, Probe, Tell, ensure, unpack};

/// Where each loader's file is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaders {
    /// What a BIOS starts.
    pub isolinux: PathBuf,
    /// isolinux's other half; it loads this before anything else.
    pub ldlinux: PathBuf,
    /// What UEFI starts: a GRUB complete in one file, which looks for its configuration on the
    /// volume that has `/.disk/info`.
    pub grub: PathBuf,
}

impl Loaders {
    /// Unpacks the loaders under `cache_root`, and makes sure xorriso is there to use them.
    ///
    /// # Errors
    /// A package that cannot be had.
    pub fn of_distribution(cache_root: &Path, tell: Tell<'_>) -> Result<Self, DebianError> {
        ensure(&[XORRISO], tell)?;
        let mut file = |package: &str, path: &str| {
            unpack(package, cache_root, tell).map(|directory| directory.join(path))
        };
        Ok(Self {
            isolinux: file("isolinux", "usr/lib/ISOLINUX/isolinux.bin")?,
            ldlinux: file("syslinux-common", "usr/lib/syslinux/modules/bios/ldlinux.c32")?,
            grub: file("grub-efi-amd64-bin", "usr/lib/grub/x86_64-efi/monolithic/gcdx64.efi")?,
        })
    }
}

const XORRISO: Need = Need {
    package: "xorriso",
    probe: Probe::Program("xorriso"),
    why: "to write ISO images that BIOS and UEFI can boot",
};
