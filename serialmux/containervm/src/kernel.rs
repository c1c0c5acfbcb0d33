//! The kernel, initramfs and command line that lie on a bootstrap ISO, taken out for booting without firmware.
//!
//! They are kept by what `stat(2)` says about the ISO, so that finding them again costs no reading, and appear by renaming a finished directory, so what is there is whole. Whoever
//! takes them out holds a lock, and first removes what an interrupted predecessor left.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use iso9660::{Image, Iso9660Error};
use sha2::{Digest as _, Sha256};

use crate::{
    home::{Home, HomeError, private_dir},
    image::{blob::hex, stat_identity},
    lock::Held,
};

/// Paths on the ISO.
const KERNEL: &str = "/boot/vmlinuz";
const INITRAMFS: &str = "/boot/initramfs.img";
const CMDLINE: &str = "/boot/cmdline";
/// Held while kernels are taken out or removed.
const LOCK: &str = ".lock";
/// Longest command line: Linux on x86 takes 2048 bytes (`COMMAND_LINE_SIZE`).
const MAX_CMDLINE: u64 = 2048;

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The ISO cannot be read.
    #[error("cannot read the ISO {iso}: {source}")]
    Read {
        /// The ISO.
        iso: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no bootstrap ISO.
    #[error("{iso} is not a bootstrap ISO: {source}")]
    Iso {
        /// The ISO.
        iso: PathBuf,
        /// What is wrong.
        source: Iso9660Error,
    },
    /// The files cannot be kept.
    #[error("cannot keep the kernel of {iso} in {dir}: {source}")]
    Keep {
        /// The ISO.
        iso: PathBuf,
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no place for a cache.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// What QEMU needs to boot directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system.
    pub initramfs: PathBuf,
    /// Its command line.
    pub cmdline: String,
}

impl Kernel {
    /// The kernel of an ISO.
    ///
    /// # Errors
    /// When the ISO is none of ours, or there is no room.
    pub fn of_iso(iso: &Path, home: &Home) -> Result<Self, KernelError> {
        let identity = stat_identity(iso)
            .map_err(|source| KernelError::Read { iso: iso.to_owned(), source })?;
        let dir = home.boot().join(hex(&Sha256::digest(identity.as_bytes())));
        if !dir.exists() {
            private_dir(&home.boot())?;
            extract(iso, &home.boot(), &dir)?;
        }
        let keep = |source| KernelError::Keep { iso: iso.to_owned(), dir: dir.clone(), source };
        let cmdline = fs::read_to_string(dir.join("cmdline")).map_err(keep)?.trim().to_owned();
        Ok(Self { kernel: dir.join("vmlinuz"), initramfs: dir.join("initramfs.img"), cmdline })
    }
}

/// Removes all kernels that were taken out, and says whether there were any. A QEMU that runs has read its own.
///
/// # Errors
/// When one cannot be removed.
pub fn sweep(home: &Home) -> io::Result<bool> {
    if !home.boot().exists() {
        return Ok(false);
    }
    let _held = Held::take(&home.boot().join(LOCK))?;
    let mut any = false;
    for entry in fs::read_dir(home.boot())? {
        let path = entry?.path();
        if path.is_dir() {
            remove_dir(&path)?;
            any = true;
        }
    }
    Ok(any)
}

fn extract(iso: &Path, parent: &Path, dir: &Path) -> Result<(), KernelError> {
    let keep = |source| KernelError::Keep { iso: iso.to_owned(), dir: dir.to_owned(), source };
    let wrong = |source| KernelError::Iso { iso: iso.to_owned(), source };
    let _held = Held::take(&parent.join(LOCK)).map_err(keep)?;
    if dir.exists() {
        return Ok(());
    }
    let partial = parent.join(".partial");
    remove_dir(&partial).and_then(|()| fs::create_dir(&partial)).map_err(keep)?;
    let mut image = Image::open(File::open(iso).map_err(keep)?).map_err(wrong)?;
    for (from, to) in [(KERNEL, "vmlinuz"), (INITRAMFS, "initramfs.img")] {
        let mut file = File::create(partial.join(to)).map_err(keep)?;
        image.copy(from, &mut file).map_err(wrong)?;
        file.sync_all().map_err(keep)?;
    }
    let cmdline = image.read(CMDLINE, MAX_CMDLINE).map_err(wrong)?;
    fs::write(partial.join("cmdline"), cmdline)
        .and_then(|()| fs::rename(&partial, dir))
        .map_err(keep)
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_three_files_come_out_of_an_iso_once() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join("root/boot");
        fs::create_dir_all(&boot).unwrap();
        for (name, contents) in
            [("vmlinuz", "kernel"), ("initramfs.img", "init"), ("cmdline", "console=ttyS1 quiet\n")]
        {
            fs::write(boot.join(name), contents).unwrap();
        }
        let iso = dir.path().join("b.iso");
        let made = Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-R", "-o"])
            .arg(&iso)
            .arg(dir.path().join("root"))
            .output();
        let Ok(made) = made else {
            eprintln!("skipped: making an ISO needs xorriso");
            return;
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let home = Home::at(&dir.path().join("home"));
        let kernel = Kernel::of_iso(&iso, &home).unwrap();
        assert_eq!(fs::read_to_string(&kernel.kernel).unwrap(), "kernel");
        assert_eq!(fs::read_to_string(&kernel.initramfs).unwrap(), "init");
        assert_eq!(kernel.cmdline, "console=ttyS1 quiet");
        assert_eq!(Kernel::of_iso(&iso, &home).unwrap(), kernel);
        assert_eq!(fs::read_dir(home.boot()).unwrap().count(), 2, "a lock and a directory");
        assert!(sweep(&home).unwrap() && !sweep(&home).unwrap() && !kernel.kernel.exists());
    }

    #[test]
    fn another_file_is_said_to_be_no_bootstrap_iso() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.iso");
        fs::write(&file, [0; 100_000]).unwrap();
        let text = Kernel::of_iso(&file, &Home::at(dir.path())).unwrap_err().to_string();
        assert!(text.contains("x.iso is not a bootstrap ISO: "), "{text}");
    }
}
