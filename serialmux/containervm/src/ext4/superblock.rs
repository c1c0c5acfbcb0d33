//! The ext4 superblock, group descriptors, bitmaps and the journal's head: what describes the file system as a whole.

use super::{
    BLOCK, FormatOptions,
    allocator::{Allocator, Run},
    checksum::Checksum,
    geometry::{BLOCKS_PER_GROUP, DESCRIPTOR_SIZE, Geometry, INODE_SIZE},
    record::Record,
};

/// First inode that is not reserved.
pub(super) const FIRST_INODE: u32 = 11;
/// The journal's inode.
pub(super) const JOURNAL_INODE: u32 = 8;

/// has_journal, ext_attr, dir_index.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20;
/// filetype, extents.
const INCOMPATIBLE: u32 = 0x2 | 0x40;
/// sparse_super, large_file, dir_nlink, extra_isize, metadata_csum.
const READ_ONLY_COMPATIBLE: u32 = 0x1 | 0x2 | 0x20 | 0x40 | 0x400;

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
/// The table is zero on disk already, so the kernel need not write zeros over it (a hole in a sparse file stays one).
const INODE_ZEROED: u16 = 4;

/// What a group holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) blocks: u32,
    pub(super) inodes: u32,
    pub(super) directories: u32,
    pub(super) has_data: bool,
}

impl Usage {
    pub(super) fn of(
        group: u32,
        geometry: &Geometry,
        allocator: &Allocator<'_>,
        directories: &[u32],
        last: u32,
    ) -> Self {
        let first = group * geometry.inodes_per_group;
        Self {
            blocks: allocator.used_in(group),
            inodes: last.saturating_sub(first).min(geometry.inodes_per_group),
            directories: directories.get(group as usize).copied().unwrap_or(0),
            has_data: allocator.has_data(group),
        }
    }

    /// Whether the group's block bitmap is on the disk. The last group's always is: e2fsprogs expects its padding.
    pub(super) fn has_block_bitmap(&self, group: u32, geometry: &Geometry) -> bool {
        self.has_data || group == 0 || group + 1 == geometry.n_groups
    }
}

/// A bitmap block: `used` ones, then zeros up to `limit`, then ones to the end of the block.
pub(super) fn bitmap(used: u32, limit: u32) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK];
    for bit in (0..used).chain(limit..8 * BLOCK as u32) {
        block[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    block
}

/// The descriptor of one group.
pub(super) fn descriptor(
    group: u32,
    geometry: &Geometry,
    usage: Usage,
    seed: Checksum,
) -> [u8; DESCRIPTOR_SIZE as usize] {
    let blocks = geometry.group_blocks(group);
    let per_group = geometry.inodes_per_group;
    let mut flags = INODE_ZEROED;
    let mut sums = (0, 0);
    if usage.has_block_bitmap(group, geometry) {
        sums.0 = seed.update(&bitmap(usage.blocks, blocks)).low();
    } else {
        flags |= BLOCK_UNINIT;
    }
    if usage.inodes > 0 {
        sums.1 = seed.update(&bitmap(usage.inodes, per_group)[..(per_group / 8) as usize]).low();
    } else {
        flags |= INODE_UNINIT;
    }
    let free_inodes = (per_group - usage.inodes) as u16;
    let mut record = Record::<{ DESCRIPTOR_SIZE as usize }>::new();
    record
        .u32(0x00, geometry.block_bitmap(group))
        .u32(0x04, geometry.inode_bitmap(group))
        .u32(0x08, geometry.inode_table(group))
        .u16(0x0c, (blocks - usage.blocks) as u16)
        .u16(0x0e, free_inodes)
        .u16(0x10, usage.directories as u16)
        .u16(0x12, flags)
        .u16(0x18, sums.0)
        .u16(0x1a, sums.1)
        .u16(0x1c, free_inodes);
    // The checksum field itself counts as zero.
    let sum = seed.update(&group.to_le_bytes()).update(record.as_bytes());
    record.u16(0x1e, sum.low());
    *record.as_bytes()
}

/// The superblock as it stands in `group`.
pub(super) fn superblock(
    group: u32,
    geometry: &Geometry,
    options: &FormatOptions,
    free: (u32, u32),
    journal: &[u8; 60],
) -> [u8; 1024] {
    let time = options.time.seconds as u32;
    let mut label = [0; 16];
    let length = options.label.len().min(label.len());
    label[..length].copy_from_slice(&options.label.as_bytes()[..length]);
    let mut record = Record::<1024>::new();
    record
        .u32(0x00, geometry.n_inodes())
        .u32(0x04, geometry.n_blocks)
        .u32(0x0c, free.0)
        .u32(0x10, free.1)
        .u32(0x18, 2)
        .u32(0x1c, 2)
        .u32(0x20, BLOCKS_PER_GROUP)
        .u32(0x24, BLOCKS_PER_GROUP)
        .u32(0x28, geometry.inodes_per_group)
        .u32(0x30, time)
        .u16(0x36, u16::MAX)
        .u16(0x38, 0xef53)
        .u16(0x3a, 1)
        // On an error: mount read-only, for a container's disk must not be written on after damage.
        .u16(0x3c, 2)
        .u32(0x40, time)
        .u32(0x4c, 1)
        .u32(0x54, FIRST_INODE)
        .u16(0x58, INODE_SIZE as u16)
        .u16(0x5a, group as u16)
        .u32(0x5c, COMPATIBLE)
        .u32(0x60, INCOMPATIBLE)
        .u32(0x64, READ_ONLY_COMPATIBLE)
        .bytes(0x68, &options.uuid)
        .bytes(0x78, &label)
        .u32(0xe0, JOURNAL_INODE)
        // Any seed will do for the hash of directory names; the UUID differs per image.
        .bytes(0xec, &options.uuid)
        .u8(0xfc, 1)
        .u8(0xfd, 1)
        // Mount with user_xattr and acl.
        .u32(0x100, 0x4 | 0x8)
        .u32(0x108, time)
        // A copy of the journal's map and size, should its inode be lost.
        .bytes(0x10c, journal)
        .u32(0x10c + 64, geometry.journal_blocks * BLOCK as u32)
        .u16(0x15c, 32)
        .u16(0x15e, 32)
        // Names are hashed as signed characters, as x86 does.
        .u32(0x160, 1)
        .u8(0x175, 1);
    let sum = Checksum::fresh().update(&record.as_bytes()[..0x3fc]).value();
    record.u32(0x3fc, sum);
    *record.as_bytes()
}

/// The journal's first block: an empty log. Its numbers are big-endian, unlike all else.
pub(super) fn journal_head(geometry: &Geometry, uuid: &[u8; 16]) -> [u8; 1024] {
    let mut record = Record::<1024>::new();
    for (at, value) in [
        (0x00, 0xc03b_3998u32),
        (0x04, 4),
        (0x0c, BLOCK as u32),
        (0x10, geometry.journal_blocks),
        (0x14, 1),
        (0x18, 1),
        (0x40, 1),
    ] {
        record.bytes(at, &value.to_be_bytes());
    }
    record.bytes(0x30, uuid);
    *record.as_bytes()
}

/// Blocks of these runs.
pub(super) fn total(runs: &[Run]) -> u64 {
    runs.iter().map(|run| u64::from(run.blocks)).sum()
}
