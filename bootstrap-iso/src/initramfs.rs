//! The initramfs: the agent as `/init`, a containerVM's modules, `/dev/console`, and nothing else.

use crate::cpio::Archive;
use crate::modules::Modules;

/// How the archive is stored in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// As it is: largest to read, nothing to unpack.
    None,
    /// Small, and slow to unpack.
    Gzip,
    /// Boots fastest: a little larger than gzip, and unpacked in next to no time.
    Lz4,
}

/// Largest block of the legacy LZ4 format (LEGACY_BLOCKSIZE in lz4's lz4cli; the kernel's
/// lib/decompress_unlz4.c expects no larger one).
const LZ4_BLOCK: usize = 8 << 20;

/// First bytes of the legacy LZ4 format, the only one of LZ4's that the kernel reads.
const LZ4_MAGIC: u32 = 0x184C_2102;

/// Composes the archive, uncompressed.
#[must_use]
pub fn compose(agent: Vec<u8>, modules: &Modules) -> Vec<u8> {
    let mut archive = Archive::with_console();
    archive.file("init", agent, true);
    modules.add_to(&mut archive);
    archive.to_bytes()
}

impl Compression {
    /// The stored form of `archive`; the same bytes for the same input.
    #[must_use]
    pub fn apply(self, archive: &[u8]) -> Vec<u8> {
        match self {
            Self::None => archive.to_vec(),
            Self::Gzip => gzip(archive),
            Self::Lz4 => lz4(archive),
        }
    }
}

fn gzip(archive: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(archive, flate2::Compression::best());
    // Reading from a slice into memory has nothing that can fail.
    encoder.read_to_end(&mut bytes).expect("compressing from memory to memory");
    bytes
}

fn lz4(archive: &[u8]) -> Vec<u8> {
    let mut bytes = LZ4_MAGIC.to_le_bytes().to_vec();
    for block in archive.chunks(LZ4_BLOCK) {
        let compressed = lz4_flex::block::compress(block);
        let length = u32::try_from(compressed.len()).expect("a block of 8 MiB stays below 4 GiB");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&compressed);
    }
    // The format has no end of its own: the kernel would take another archive behind it for a block. A block of
    // length 0 ends it, and archives begin at multiples of four (lib/decompress_unlz4.c; initramfs buffer format).
    bytes.resize((bytes.len() + 4).next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lz4_blocks_hold_the_archive_in_order() {
        let archive: Vec<u8> = (0..9u32 << 20).map(|it| it.to_le_bytes()[1]).collect();
        let stored = Compression::Lz4.apply(&archive);
        assert_eq!(stored[..4], [0x02, 0x21, 0x4c, 0x18]);
        let (mut rest, mut unpacked) = (&stored[4..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            if *length == [0; 4] {
                assert!(after.len() < 4 && stored.len().is_multiple_of(4), "it ends here");
                break;
            }
            let (block, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            unpacked.extend(lz4_flex::block::decompress(block, LZ4_BLOCK).unwrap());
            rest = after;
        }
        assert_eq!(unpacked, archive);
    }

    #[test]
    fn gzip_carries_no_time_and_no_name() {
        let stored = Compression::Gzip.apply(b"archive");
        assert_eq!(stored[..3], [0x1f, 0x8b, 8]);
        assert_eq!(stored[3..8], [0, 0, 0, 0, 0]);
    }
}
