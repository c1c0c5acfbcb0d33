//! The ISO image itself: xorriso writes it, then we read it back with other code than wrote it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use iso9660::{Image, Iso9660Error};

use crate::tree::{CATALOG, ESP, ISOLINUX, Tree};

/// Why no image came about.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of the working directory could not be written.
    #[error("cannot write {}: {reason}; check that the directory is writable and the disk not full", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The reason of the operating system.
        reason: io::Error,
    },
    /// xorriso could not be started.
    #[error("cannot start xorriso: {0}; install the package xorriso")]
    NoXorriso(io::Error),
    /// xorriso failed.
    #[error("xorriso could not write {}:{detail}", path.display())]
    Xorriso {
        /// The image.
        path: PathBuf,
        /// Its last lines, indented.
        detail: String,
    },
    /// The finished image could not be read back.
    #[error("the image just written cannot be read back: {0}")]
    ReadBack(Iso9660Error),
    /// The finished image holds something else than what went in.
    #[error(
        "the image just written differs at {path}: expected {expected}; report this with the version of xorriso"
    )]
    Differs {
        /// The path inside the image.
        path: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl From<Iso9660Error> for ImageError {
    fn from(reason: Iso9660Error) -> Self {
        Self::ReadBack(reason)
    }
}

/// The date of everything in the image, as xorriso takes it: one fixed second, so that building
/// again gives the same bytes.
const DATE: &str = "2024010100000000";

/// The same second as `SOURCE_DATE_EPOCH`, for what xorriso derives from that.
const EPOCH: &str = "1704067200";

/// Writes the image of `tree` to `path`, using the empty directory `work`, and reads it back.
///
/// # Errors
/// xorriso missing or failing, a full disk, or an image that does not hold what it should.
pub(crate) fn write(tree: &Tree, work: &Path, path: &Path) -> Result<(), ImageError> {
    let root = work.join("tree");
    tree.write(&root).map_err(|reason| ImageError::Write { path: root.clone(), reason })?;
    let image = work.join("image.iso");
    xorriso(&root, &image)?;
    verify(tree, &image)?;
    fs::rename(&image, path).map_err(|reason| ImageError::Write { path: path.to_owned(), reason })
}

fn xorriso(root: &Path, image: &Path) -> Result<(), ImageError> {
    let relative = |path: &str| path.trim_start_matches('/').to_owned();
    let output = Command::new("xorriso")
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("TZ", "UTC")
        .args(["-no_rc", "-as", "mkisofs", "-quiet", "-o"])
        .arg(image)
        .args(["-V", "BOOTSTRAP", "-iso-level", "3"])
        // Rock Ridge with owners and permissions set to root's, whoever builds.
        .arg("-r")
        .args([&format!("--modification-date={DATE}"), "--set_all_file_dates", DATE])
        .args(["-b", &relative(ISOLINUX), "-c", &relative(CATALOG)])
        .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["-eltorito-alt-boot", "-e", &relative(ESP), "-no-emul-boot"])
        .arg(root)
        .output()
        .map_err(ImageError::NoXorriso)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(6)..];
    let detail = last.iter().map(|line| format!("\n  {line}")).collect();
    Err(ImageError::Xorriso { path: image.to_owned(), detail })
}

/// Checks that the image holds exactly the files of `tree`, each with its bytes.
fn verify(tree: &Tree, path: &Path) -> Result<(), ImageError> {
    let file = File::open(path).map_err(Iso9660Error::from)?;
    let mut image = Image::open(file)?;
    let files = tree.files();
    for (path, _) in image.walk()? {
        if path != CATALOG && !files.iter().any(|(wanted, _)| *wanted == path) {
            return Err(ImageError::Differs { path, expected: "no such file" });
        }
    }
    for (path, content) in files {
        let read = image.read(path, content.len() as u64)?;
        // xorriso patches a table into isolinux (`-boot-info-table`): its first 64 bytes differ.
        let from = if path == ISOLINUX { 64 } else { 0 };
        if read.len() != content.len() || read.get(from..) != content.get(from..) {
            return Err(ImageError::Differs { path: path.to_owned(), expected: "the file given" });
        }
    }
    Ok(())
}
