//! The blocks of an ext4 directory: names in one linear list per block, each block ended by its checksum.
//!
//! No hash index is written. The kernel reads linear directories of any size and indexes those it makes itself.

use super::{BLOCK, checksum::Checksum};

/// Bytes of the checksum record at the end of each block.
const TAIL: usize = 12;
/// Type that marks the checksum record (`EXT4_FT_DIR_CSUM`).
const TAIL_TYPE: u8 = 0xde;

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
    /// The format's file type (`EXT4_FT_*`).
    pub(super) file_type: u8,
}

impl Entry<'_> {
    fn length(&self) -> usize {
        (8 + self.name.len()).next_multiple_of(4)
    }
}

/// Encodes the names into whole blocks, checksummed with the directory's own seed.
pub(super) fn encode<'a>(entries: impl Iterator<Item = Entry<'a>>, seed: Checksum) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = Vec::with_capacity(BLOCK);
    let mut last = 0;
    for entry in entries {
        if block.len() + entry.length() > BLOCK - TAIL {
            finish(&mut out, &mut block, last, seed);
        }
        last = block.len();
        let length = entry.length() as u16;
        block.extend_from_slice(&entry.inode.to_le_bytes());
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&[entry.name.len() as u8, entry.file_type]);
        block.extend_from_slice(entry.name);
        block.resize(last + usize::from(length), 0);
    }
    finish(&mut out, &mut block, last, seed);
    out
}

/// Stretches the last name over the rest of the block, as the format wants, and seals it.
fn finish(out: &mut Vec<u8>, block: &mut Vec<u8>, last: usize, seed: Checksum) {
    let length = (BLOCK - TAIL - last) as u16;
    block.resize(BLOCK - TAIL, 0);
    block[last + 4..last + 6].copy_from_slice(&length.to_le_bytes());
    let sum = seed.update(block).value();
    block.extend_from_slice(&0u32.to_le_bytes());
    block.extend_from_slice(&(TAIL as u16).to_le_bytes());
    block.extend_from_slice(&[0, TAIL_TYPE]);
    block.extend_from_slice(&sum.to_le_bytes());
    out.append(block);
}
