//! What an image was made from, recorded beside it, so that an unchanged one is not made again.
//!
//! The record holds two SHA-256 sums: of everything that goes in (this program included, as it
//! decides what becomes of the rest) and of the image that came out. Both must still
//! be true; file times are not trusted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A sum over the inputs of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    inputs: String,
}

impl Stamp {
    /// Sums up `parts`, each with its length so that no two lists of parts run together.
    ///
    /// # Errors
    /// This program's own file cannot be read.
    pub(crate) fn of(parts: &[&[u8]]) -> io::Result<Self> {
        let program = fs::read(std::env::current_exe()?)?;
        let mut sum = Sha256::new();
        for part in [program.as_slice()].iter().chain(parts) {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
        Ok(Self { inputs: hex(&sum.finalize()) })
    }

    /// Whether `image` is what these inputs once gave, and unharmed since.
    #[must_use]
    pub(crate) fn holds(&self, image: &Path) -> bool {
        let record = fs::read_to_string(record_of(image)).unwrap_or_default();
        let expected = fs::read(image).map(|content| self.record(&content));
        expected.is_ok_and(|expected| expected == record)
    }

    /// Records that `image` was made from these inputs.
    ///
    /// # Errors
    /// The image cannot be read or the record not written.
    pub(crate) fn record_for(&self, image: &Path) -> io::Result<()> {
        fs::write(record_of(image), self.record(&fs::read(image)?))
    }

    fn record(&self, image: &[u8]) -> String {
        format!("inputs {}\nimage {}\n", self.inputs, hex(&Sha256::digest(image)))
    }
}

/// `bootstrap.iso` → `bootstrap.iso.sha256`.
fn record_of(image: &Path) -> PathBuf {
    let mut name = image.file_name().unwrap_or_default().to_owned();
    name.push(".sha256");
    image.with_file_name(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_good_until_it_or_its_inputs_change() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("x.iso");
        let stamp = Stamp::of(&[b"ab", b"c"]).unwrap();
        assert!(!stamp.holds(&image), "no image yet");
        fs::write(&image, "image").unwrap();
        assert!(!stamp.holds(&image), "no record yet");
        stamp.record_for(&image).unwrap();
        assert!(stamp.holds(&image));
        assert!(!Stamp::of(&[b"a", b"bc"]).unwrap().holds(&image), "other inputs");
        fs::write(&image, "imag").unwrap();
        assert!(!stamp.holds(&image), "a damaged image");
    }
}
