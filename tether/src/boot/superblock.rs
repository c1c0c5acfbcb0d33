//! The ext2/3/4 superblock, as far as it is needed to recognize a disk by its label.
//!
//! Layout: `Documentation/filesystems/ext4/super.rst` in the kernel. The superblock starts 1024 bytes into
//! the device whatever the block size; the magic is at +0x38, the 16-byte volume name at +0x78.

/// Bytes to read from the start of a device before calling [`label`].
pub const PROBE_LEN: usize = OFFSET + NAME_AT + NAME_LEN;

const OFFSET: usize = 1024;
const MAGIC_AT: usize = 0x38;
const MAGIC: [u8; 2] = 0xEF53_u16.to_le_bytes();
const NAME_AT: usize = 0x78;
const NAME_LEN: usize = 16;

/// The volume label when `start` (the first bytes of a device) holds an ext superblock; `Some("")` when the
/// file system has no label, `None` when this is no ext file system.
pub fn label(start: &[u8]) -> Option<String> {
    let superblock = start.get(OFFSET..)?;
    if superblock.get(MAGIC_AT..MAGIC_AT + MAGIC.len())? != MAGIC {
        return None;
    }
    let name = superblock.get(NAME_AT..NAME_AT + NAME_LEN)?;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN);
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(magic: u16, name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; PROBE_LEN];
        bytes[1024 + 0x38..1024 + 0x3A].copy_from_slice(&magic.to_le_bytes());
        bytes[1024 + 0x78..1024 + 0x78 + name.len()].copy_from_slice(name);
        bytes
    }

    #[test]
    fn the_label_ends_at_the_first_zero_or_after_sixteen_bytes() {
        for (name, expected) in [
            (&b"containerfs"[..], "containerfs"),
            (b"", ""),
            (b"0123456789abcdef", "0123456789abcdef"),
            (b"a\0b", "a"),
        ] {
            assert_eq!(label(&device(0xEF53, name)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn another_magic_is_no_ext_file_system() {
        assert_eq!(label(&device(0xEF52, b"containerfs")), None);
    }

    #[test]
    fn every_truncation_is_no_ext_file_system() {
        let bytes = device(0xEF53, b"containerfs");
        for len in 0..bytes.len() {
            assert_eq!(label(&bytes[..len]), None, "{len}");
        }
    }
}
