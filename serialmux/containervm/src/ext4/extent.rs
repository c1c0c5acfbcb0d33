//! The extent tree of one inode: in the inode itself, or one level of blocks below it.

use super::{BLOCK, allocator::Run, checksum::Checksum};

const MAGIC: u16 = 0xf30a;
/// Extents or indexes that fit in the inode.
const IN_INODE: usize = 4;
/// Extents of one block, which ends with a checksum.
const IN_BLOCK: usize = (BLOCK - 12 - 4) / 12;
/// Extents one inode can have here. Files with more pieces are stored without holes.
pub(super) const MAX_RUNS: usize = IN_INODE * IN_BLOCK;

/// Blocks needed besides the inode.
pub(super) fn n_blocks(runs: &[Run]) -> usize {
    if runs.len() <= IN_INODE { 0 } else { runs.len().div_ceil(IN_BLOCK) }
}

/// The inode's 60 bytes, and a block for each of `places` (as many as [`n_blocks`] asks for).
pub(super) fn encode(runs: &[Run], places: &[u32], seed: Checksum) -> ([u8; 60], Vec<Vec<u8>>) {
    let mut root = [0; 60];
    if places.is_empty() {
        header(&mut root, runs.len(), IN_INODE, 0);
        leaf(&mut root, runs);
        return (root, Vec::new());
    }
    header(&mut root, places.len(), IN_INODE, 1);
    let mut blocks = Vec::with_capacity(places.len());
    for (index, (part, place)) in runs.chunks(IN_BLOCK).zip(places).enumerate() {
        let at = 12 * (index + 1);
        let first = part.first().map_or(0, |run| run.logical);
        root[at..at + 4].copy_from_slice(&first.to_le_bytes());
        root[at + 4..at + 8].copy_from_slice(&place.to_le_bytes());
        let mut block = vec![0; BLOCK];
        header(&mut block, part.len(), IN_BLOCK, 0);
        leaf(&mut block, part);
        let end = 12 * (IN_BLOCK + 1);
        let sum = seed.update(&block[..end]).value();
        block[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        blocks.push(block);
    }
    (root, blocks)
}

fn header(out: &mut [u8], used: usize, room: usize, depth: u16) {
    out[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    out[2..4].copy_from_slice(&(used as u16).to_le_bytes());
    out[4..6].copy_from_slice(&(room as u16).to_le_bytes());
    out[6..8].copy_from_slice(&depth.to_le_bytes());
}

fn leaf(out: &mut [u8], runs: &[Run]) {
    for (run, out) in runs.iter().zip(out[12..].chunks_exact_mut(12)) {
        out[0..4].copy_from_slice(&run.logical.to_le_bytes());
        out[4..6].copy_from_slice(&(run.blocks as u16).to_le_bytes());
        out[8..12].copy_from_slice(&run.physical.to_le_bytes());
    }
}
