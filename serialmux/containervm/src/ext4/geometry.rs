//! Where the fixed parts of an ext4 file system lie: block groups and the metadata at the head of each.
//!
//! ```text
//! group: [superblock copy | descriptors] block bitmap | inode bitmap | inode table | data …
//!         only groups 0, 1, 3ⁿ, 5ⁿ, 7ⁿ (sparse_super)
//! ```
//!
//! Every group carries its own metadata at its head (no `flex_bg`), so the used blocks of a group are always one
//! run from its first block, and a group without data needs no bitmap on disk at all (`BLOCK_UNINIT`).

use super::{BLOCK, Ext4Error};

/// Blocks of one group: as many as one block of bitmap has bits.
pub(super) const BLOCKS_PER_GROUP: u32 = 8 * BLOCK as u32;
/// Bytes of one inode; the kernel's default since 2008, with room for nanoseconds and checksums.
pub(super) const INODE_SIZE: u32 = 256;
/// Bytes of one group descriptor without the `64bit` feature.
pub(super) const DESCRIPTOR_SIZE: u32 = 32;
/// Bytes of disk per inode, `mke2fs`'s default ratio.
const BYTES_PER_INODE: u64 = 16 * 1024;
/// Smallest file system: room for metadata, journal and a few files.
const MIN_BYTES: u64 = 16 * 1024 * 1024;
/// Largest: 32-bit block numbers of 4 KiB, less a margin of one group.
const MAX_BYTES: u64 = ((1 << 32) - BLOCKS_PER_GROUP as u64) * BLOCK as u64;

/// The fixed layout of one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Blocks in all.
    pub(super) n_blocks: u32,
    /// Groups, the last possibly short.
    pub(super) n_groups: u32,
    /// Inodes of each group; a multiple of 8 and of a block's worth.
    pub(super) inodes_per_group: u32,
    /// Blocks of the journal.
    pub(super) journal_blocks: u32,
}

impl Geometry {
    /// The layout for `size` bytes that holds at least `n_inodes`.
    pub(super) fn new(size: u64, n_inodes: u64) -> Result<Self, Ext4Error> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&size) {
            return Err(Ext4Error::DiskSize { size, min: MIN_BYTES, max: MAX_BYTES });
        }
        let n_blocks = (size / BLOCK as u64) as u32;
        let inodes_per_block = BLOCK as u32 / INODE_SIZE;
        let n_groups = n_blocks.div_ceil(BLOCKS_PER_GROUP);
        // Half as many again as the image needs, so that a full image can still grow.
        let wanted = (size / BYTES_PER_INODE).max(n_inodes + n_inodes / 2);
        let per_group =
            wanted.div_ceil(u64::from(n_groups)).next_multiple_of(u64::from(inodes_per_block));
        if per_group > u64::from(BLOCKS_PER_GROUP) {
            return Err(Ext4Error::Full { size });
        }
        let mut geometry =
            Self { n_blocks, n_groups, inodes_per_group: per_group as u32, journal_blocks: 0 };
        // A last group too short for its own metadata and some data is dropped; the others take its inodes over.
        let tail = n_blocks % BLOCKS_PER_GROUP;
        if n_groups > 1 && tail != 0 && tail < geometry.overhead(n_groups - 1) + 64 {
            return Self::new(u64::from(n_blocks - tail) * BLOCK as u64, n_inodes);
        }
        geometry.journal_blocks = match u64::from(n_blocks) * BLOCK as u64 {
            0..=0x0fff_ffff => 1024,
            0x1000_0000..=0x3fff_ffff => 4096,
            _ => 8192,
        };
        Ok(geometry)
    }

    /// Inodes in all.
    pub(super) fn n_inodes(&self) -> u32 {
        self.n_groups.saturating_mul(self.inodes_per_group)
    }

    /// Blocks of the group, fewer in the last.
    pub(super) fn group_blocks(&self, group: u32) -> u32 {
        (self.n_blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    /// Whether the group holds a copy of superblock and descriptors.
    pub(super) fn has_superblock(group: u32) -> bool {
        let power_of = |base: u32| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    /// Blocks of the descriptor table.
    pub(super) fn descriptor_blocks(&self) -> u32 {
        (self.n_groups * DESCRIPTOR_SIZE).div_ceil(BLOCK as u32)
    }

    /// Blocks of a group's inode table.
    pub(super) fn inode_table_blocks(&self) -> u32 {
        self.inodes_per_group * INODE_SIZE / BLOCK as u32
    }

    /// Blocks before a group's data.
    pub(super) fn overhead(&self, group: u32) -> u32 {
        self.copies(group) + 2 + self.inode_table_blocks()
    }

    /// First block of the group.
    pub(super) fn first_block(group: u32) -> u32 {
        group * BLOCKS_PER_GROUP
    }

    /// The group's block bitmap.
    pub(super) fn block_bitmap(&self, group: u32) -> u32 {
        Self::first_block(group) + self.copies(group)
    }

    /// The group's inode bitmap.
    pub(super) fn inode_bitmap(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 1
    }

    /// First block of the group's inode table.
    pub(super) fn inode_table(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 2
    }

    fn copies(&self, group: u32) -> u32 {
        if Self::has_superblock(group) { 1 + self.descriptor_blocks() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_the_superblock_are_where_sparse_super_puts_them() {
        let groups: Vec<u32> = (0..130).filter(|group| Geometry::has_superblock(*group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn a_last_group_without_room_for_data_is_left_out() {
        let group = u64::from(BLOCKS_PER_GROUP) * BLOCK as u64;
        let geometry = Geometry::new(2 * group + 40 * BLOCK as u64, 0).unwrap();
        assert_eq!((geometry.n_groups, geometry.n_blocks), (2, 2 * BLOCKS_PER_GROUP));
    }

    #[test]
    fn there_are_inodes_for_all_files_whatever_is_left_out() {
        let group = u64::from(BLOCKS_PER_GROUP) * BLOCK as u64;
        for size in (0..200).map(|n| group + n * 4 * BLOCK as u64) {
            for n_inodes in [11, 8_000, 20_000, 21_000] {
                let geometry = Geometry::new(size, n_inodes).unwrap();
                assert!(u64::from(geometry.n_inodes()) >= n_inodes, "{size}: {geometry:?}");
            }
        }
    }

    #[test]
    fn sizes_outside_the_format_are_refused() {
        assert!(matches!(Geometry::new(4096, 0), Err(Ext4Error::DiskSize { .. })));
        assert!(matches!(Geometry::new(1 << 45, 0), Err(Ext4Error::DiskSize { .. })));
    }
}
