//! The CRC-32C that guards every ext4 structure (`metadata_csum`), in the kernel's convention.

/// A running checksum: the kernel's `ext4_chksum`, which inverts neither its seed nor its result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// The start of a file system's own chain: its UUID.
    pub(super) fn of_file_system(uuid: &[u8; 16]) -> Self {
        Self(!0).update(uuid)
    }

    /// The start for a structure that is not tied to a file system: the superblock.
    pub(super) fn fresh() -> Self {
        Self(!0)
    }

    /// The start for everything that belongs to inode `number` (generation 0).
    pub(super) fn of_inode(self, number: u32) -> Self {
        self.update(&number.to_le_bytes()).update(&0u32.to_le_bytes())
    }

    #[must_use]
    pub(super) fn update(self, bytes: &[u8]) -> Self {
        // The crate inverts seed and result as RFC 3720 has it; undo both.
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    pub(super) fn value(self) -> u32 {
        self.0
    }

    /// The lower half, for 16-bit fields.
    pub(super) fn low(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The upper half.
    pub(super) fn high(self) -> u16 {
        (self.0 >> 16) as u16
    }
}
