//! Reads files out of an ISO 9660 image, without mounting it and without trusting it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut image = iso9660::Image::open(std::fs::File::open("bootstrap.iso")?)?;
//! let cmdline = image.read("/boot/cmdline", 4096)?;
//! image.copy("/boot/vmlinuz", &mut std::fs::File::create("vmlinuz")?)?;
//! # Ok(()) }
//! ```
//!
//! Names are Rock Ridge's where the image has them, else the plain identifiers in lower case and
//! without their version, as Linux shows them. What the crate does not read, and says so: files in
//! several extents (4 GiB and more) and interleaved files. Symbolic links are listed as empty files.
//!
//! Whatever bytes the image holds, every call ends with a result after a bounded amount of
//! work: a directory is at most [`MAX_DIRECTORY`] bytes, a [`walk`](Image::walk) at most
//! [`MAX_DEPTH`] deep, [`MAX_ENTRIES`] long and [`MAX_WALK`] bytes of directories, and no extent may leave the image.
//!
//! Layout: ECMA-119 4th edition (sections cited in the code); names: IEEE P1282 (Rock Ridge).

mod image;
mod record;

pub use image::{Image, Iso9660Error, MAX_DEPTH, MAX_DIRECTORY, MAX_ENTRIES, MAX_WALK};
pub use record::Entry;

/// Bytes in a sector, and in the only logical block size in use.
pub(crate) const SECTOR: u64 = 2048;
