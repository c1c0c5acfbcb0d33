//! One ext4 inode as the 256 bytes of its place in the inode table.

use super::{checksum::Checksum, geometry::INODE_SIZE, record::Record};
use crate::tree::{Attributes, Timestamp};

/// File type bits of the mode (`S_IFMT` and its values).
pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
pub(super) const S_IFSOCK: u16 = 0o140_000;

/// The inode maps its blocks by extents (`EXT4_EXTENTS_FL`).
const EXTENTS_FLAG: u32 = 0x8_0000;
/// Bytes of the newer fields behind the first 128.
const EXTRA_SIZE: u16 = 32;
/// Sectors of 512 bytes in a block.
const SECTORS: u64 = (super::BLOCK / 512) as u64;

/// What the 60 bytes of `i_block` hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    /// The root of an extent tree.
    Extents([u8; 60]),
    /// A short link's target, a device number or nothing.
    Inline([u8; 60]),
}

/// Everything of an inode that differs between files.
#[derive(Debug)]
pub(super) struct Inode<'a> {
    pub(super) number: u32,
    pub(super) file_type: u16,
    pub(super) attributes: &'a Attributes,
    pub(super) size: u64,
    pub(super) links: u16,
    /// Blocks on the disk: contents, extent tree and attributes.
    pub(super) n_blocks: u64,
    pub(super) xattr_block: u32,
    pub(super) body: Body,
}

impl Inode<'_> {
    /// The record, checksummed with the file system's seed.
    pub(super) fn encode(&self, seed: Checksum) -> [u8; INODE_SIZE as usize] {
        let attributes = self.attributes;
        let (time, time_extra) = split_time(attributes.modified);
        let (body, flags) = match &self.body {
            Body::Extents(body) => (body, EXTENTS_FLAG),
            Body::Inline(body) => (body, 0),
        };
        let sectors = self.n_blocks * SECTORS;
        let mut record = Record::<{ INODE_SIZE as usize }>::new();
        record
            .u16(0x00, self.file_type | (attributes.mode & 0o7777))
            .u16(0x02, attributes.uid as u16)
            .u32(0x04, self.size as u32)
            .u32(0x08, time)
            .u32(0x0c, time)
            .u32(0x10, time)
            .u16(0x18, attributes.gid as u16)
            .u16(0x1a, self.links)
            .u32(0x1c, sectors as u32)
            .u32(0x20, flags)
            .bytes(0x28, body)
            .u32(0x68, self.xattr_block)
            .u32(0x6c, (self.size >> 32) as u32)
            .u16(0x74, (sectors >> 32) as u16)
            .u16(0x78, (attributes.uid >> 16) as u16)
            .u16(0x7a, (attributes.gid >> 16) as u16)
            .u16(0x80, EXTRA_SIZE)
            .u32(0x84, time_extra)
            .u32(0x88, time_extra)
            .u32(0x8c, time_extra)
            .u32(0x90, time)
            .u32(0x94, time_extra);
        let sum = seed.of_inode(self.number).update(record.as_bytes());
        record.u16(0x7c, sum.low()).u16(0x82, sum.high());
        *record.as_bytes()
    }
}

/// Device numbers in the form of `old_encode_dev` where they fit, else `new_encode_dev`.
pub(super) fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut body = [0; 60];
    if major < 256 && minor < 256 {
        body[..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
    } else {
        let number = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        body[4..8].copy_from_slice(&number.to_le_bytes());
    }
    body
}

/// Low seconds, and the word that holds nanoseconds and two more bits of seconds.
fn split_time(time: Timestamp) -> (u32, u32) {
    let Timestamp { seconds, nanoseconds } = time.on_disk();
    let low = seconds as i32;
    let epoch = ((seconds - i64::from(low)) >> 32) as u32 & 3;
    (low as u32, nanoseconds << 2 | epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_after_2038_use_the_epoch_bits() {
        let at = |seconds| split_time(Timestamp { seconds, nanoseconds: 5 });
        assert_eq!(at(0), (0, 5 << 2));
        assert_eq!(at(1 << 31), (1 << 31, 5 << 2 | 1));
        assert_eq!(at(-1), (u32::MAX, 5 << 2));
        assert_eq!(at(i64::MAX), at((1 << 34) - (1 << 31) - 1));
    }

    #[test]
    fn wide_device_numbers_use_the_second_word() {
        assert_eq!(device(5, 1)[..8], [1, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(device(259, 300)[..8], [0, 0, 0, 0, 0x2c, 0x03, 0x11, 0x00]);
    }
}
