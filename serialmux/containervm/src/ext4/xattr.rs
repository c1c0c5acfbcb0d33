//! Extended attributes of one inode, packed into one ext4 attribute block.

use std::collections::BTreeMap;

use super::{BLOCK, checksum::Checksum};

const MAGIC: u32 = 0xea02_0000;
const HEADER: usize = 32;
const ENTRY: usize = 16;
/// Most inodes that may share one block (`EXT4_XATTR_REFCOUNT_MAX`).
pub(super) const MAX_SHARED: u32 = 1024;

/// Name prefixes that the format stores as a number, longest first where one contains another.
const PREFIXES: [(&[u8], u8); 6] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
];

/// Why attributes cannot be stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum XattrError {
    /// A namespace that Linux does not have.
    #[error(
        "the extended attribute {0:?} is in no namespace Linux knows (user, trusted, security, system)"
    )]
    Namespace(String),
    /// More than one block of them.
    #[error("its extended attributes need {0} bytes; ext4 keeps at most {BLOCK} per file")]
    TooBig(usize),
    /// An access list that is not in the form of `setxattr(2)`.
    #[error("the access list in {0:?} is damaged")]
    AccessList(String),
}

struct Entry {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Packs the attributes; the count of users, hash and checksum are set by [`seal`].
pub(super) fn encode(attributes: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Vec<u8>, XattrError> {
    let mut entries =
        attributes.iter().map(|(name, value)| entry(name, value)).collect::<Result<Vec<_>, _>>()?;
    // The order in which the kernel searches a block (`ext4_xattr_cmp_names`).
    entries.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
    let needed = HEADER
        + 4
        + entries
            .iter()
            .map(|entry| {
                ENTRY + entry.name.len().next_multiple_of(4) + entry.value.len().next_multiple_of(4)
            })
            .sum::<usize>();
    if needed > BLOCK {
        return Err(XattrError::TooBig(needed));
    }
    let mut block = vec![0; BLOCK];
    let (mut at, mut end, mut block_hash) = (HEADER, BLOCK, 0u32);
    for entry in &entries {
        end -= entry.value.len().next_multiple_of(4);
        let hash = hash(&entry.name, &entry.value);
        block_hash = block_hash.rotate_left(16) ^ hash;
        block[at] = entry.name.len() as u8;
        block[at + 1] = entry.index;
        let offset = if entry.value.is_empty() { 0 } else { end as u16 };
        block[at + 2..at + 4].copy_from_slice(&offset.to_le_bytes());
        block[at + 8..at + 12].copy_from_slice(&(entry.value.len() as u32).to_le_bytes());
        block[at + 12..at + 16].copy_from_slice(&hash.to_le_bytes());
        block[at + ENTRY..at + ENTRY + entry.name.len()].copy_from_slice(&entry.name);
        block[end..end + entry.value.len()].copy_from_slice(&entry.value);
        at += ENTRY + entry.name.len().next_multiple_of(4);
    }
    block[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    block[8..12].copy_from_slice(&1u32.to_le_bytes());
    block[12..16].copy_from_slice(&block_hash.to_le_bytes());
    Ok(block)
}

/// Writes the number of inodes that share the block, and the checksum for its place on the disk.
pub(super) fn seal(block: &mut [u8], users: u32, place: u32, seed: Checksum) {
    block[4..8].copy_from_slice(&users.to_le_bytes());
    block[16..20].fill(0);
    let sum = seed.update(&u64::from(place).to_le_bytes()).update(block).value();
    block[16..20].copy_from_slice(&sum.to_le_bytes());
}

fn entry(name: &[u8], value: &[u8]) -> Result<Entry, XattrError> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    let (prefix, index) = PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .ok_or_else(|| XattrError::Namespace(shown()))?;
    let rest = &name[prefix.len()..];
    let is_acl = matches!(index, 2 | 3);
    if rest.is_empty() != is_acl || rest.len() > 255 {
        return Err(XattrError::Namespace(shown()));
    }
    let value = if is_acl {
        acl(value).ok_or_else(|| XattrError::AccessList(shown()))?
    } else {
        value.to_vec()
    };
    Ok(Entry { index: *index, name: rest.to_vec(), value })
}

/// Turns an access list from the form of `setxattr(2)` (version 2) into the one ext4 keeps (version 1), which drops
/// the id where the tag needs none.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    const NAMED: [u16; 2] = [0x02, 0x08];
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    if entries.len() % 8 != 0 {
        return None;
    }
    let mut out = 1u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        out.extend_from_slice(if NAMED.contains(&tag) { entry } else { &entry[..4] });
    }
    Some(out)
}

/// The hash that lets the kernel find equal blocks (`ext4_xattr_hash_entry`); e2fsck verifies it.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let named = name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    value.chunks(4).fold(named, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        BTreeMap::from([(name.as_bytes().to_vec(), value.to_vec())])
    }

    #[test]
    fn what_ext4_cannot_hold_is_refused() {
        assert_eq!(
            encode(&one("com.apple.x", b"")).unwrap_err(),
            XattrError::Namespace("com.apple.x".into())
        );
        assert!(matches!(encode(&one("user.big", &[1; 5000])), Err(XattrError::TooBig(_))));
        assert!(matches!(
            encode(&one("system.posix_acl_access", b"junk")),
            Err(XattrError::AccessList(_))
        ));
    }

    #[test]
    fn an_access_list_loses_the_ids_that_mean_nothing() {
        let wire = [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 232, 3, 0, 0];
        assert_eq!(acl(&wire).unwrap(), [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0, 232, 3, 0, 0]);
    }
}
