//! Writes a [`Tree`] as an ext4 file system, straight into a sparse file, as an unprivileged user.
//!
//! ```text
//! tree ──► plan: inode numbers, link counts ──► contents and directories, front to back ──► tables, superblocks
//! ```
//!
//! The result has a journal, metadata checksums, extents, nanosecond times, owners, devices and extended attributes,
//! and is as long as asked for while it takes only as much disk as it has contents: blocks of zeros are never
//! written, and neither are the tables of groups in which nothing lies. There is no `lost+found`, for a container's
//! root must look as its image does; e2fsck makes one when it has to put something there.
//!
//! The layout is decided in `geometry`. Format: Linux `Documentation/filesystems/ext4/`.

mod allocator;
mod checksum;
mod contents;
mod directory;
mod extent;
mod geometry;
mod inode;
mod plan;
mod record;
mod superblock;
#[cfg(test)]
mod tests;
mod writer;
mod xattr;

use std::{fs::File, io};

pub use self::xattr::XattrError;
use crate::tree::{Timestamp, Tree};

/// Bytes of a block.
const BLOCK: usize = 4096;

/// What a file system is called and how large it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatOptions {
    /// Volume label, at most 16 bytes; longer ones are cut.
    pub label: String,
    /// Identity of the file system.
    pub uuid: [u8; 16],
    /// Size in bytes; a remainder below 4096 is left unused.
    pub size: u64,
    /// When it was made; part of the superblock.
    pub time: Timestamp,
}

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// A size that the format or this writer cannot do.
    #[error("a disk of {size} bytes is not possible; choose between {min} and {max}")]
    DiskSize {
        /// What was asked for.
        size: u64,
        /// Smallest possible.
        min: u64,
        /// Largest possible.
        max: u64,
    },
    /// The contents need more room than the disk has.
    #[error("the image does not fit on a disk of {} MiB; choose a larger disk", size >> 20)]
    Full {
        /// Size of the disk in bytes.
        size: u64,
    },
    /// A file with more names than ext4 counts.
    #[error("{path} has {links} hard links; ext4 allows 65000")]
    TooManyLinks {
        /// One of its names.
        path: String,
        /// How many there are.
        links: u32,
    },
    /// A file of more pieces than two levels of its map hold: about 170 GB of contents, or 16 TiB in all.
    #[error("{path} is {size} bytes long, in more pieces than are possible here; split it")]
    FileTooBig {
        /// Its name.
        path: String,
        /// Its size.
        size: u64,
    },
    /// Attributes that ext4 cannot hold.
    #[error("{path}: {source}")]
    Attributes {
        /// The file they belong to.
        path: String,
        /// What is wrong.
        source: XattrError,
    },
    /// A file's contents could not be read.
    #[error("cannot read the contents of {path}: {source}")]
    Read {
        /// The file's name in the image.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The image could not be written.
    #[error("cannot write the disk image: {0}")]
    Write(#[from] io::Error),
}

/// Formats `out` (empty and writable) as `options` say and puts `tree` on it.
///
/// # Errors
/// When the tree does not fit the disk or the format, or a read or write fails; `out` is then not usable.
pub fn write(tree: &Tree, out: &File, options: &FormatOptions) -> Result<(), Ext4Error> {
    let plan = plan::Plan::of(tree)?;
    let geometry = geometry::Geometry::new(options.size, u64::from(plan.last_inode()))?;
    out.set_len(u64::from(geometry.n_blocks) * BLOCK as u64)?;
    writer::Writer::new(out, &geometry, options).write(&plan)
}
