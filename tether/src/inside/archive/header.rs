//! One entry's head in a tar archive: a POSIX header, and a PAX one before it for what that cannot hold.
//!
//! Names, link targets, times with fractions and extended attributes (`SCHILY.xattr.`) go into PAX records
//! when they must (pax(1)). A file with holes is an old GNU sparse entry, which GNU tar, Go's and Python's
//! readers and the `tar` crate all read, also behind a PAX header.

use std::collections::BTreeMap;
use std::io::{self, Write};

use rustix::fs::Stat;
use tar::{EntryType, Header};

/// Size of all units of an archive.
pub const BLOCK: u64 = 512;
/// Longest name or link target in a POSIX header.
const SHORT: usize = 100;
/// Largest size in a POSIX header: 11 octal digits.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// A stretch of a file that has data: offset and length.
pub type Extent = (u64, u64);

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// A file of this many bytes, all of which follow.
    File(u64),
    /// A file of this many bytes, of which only the extents follow.
    Sparse(u64, &'a [Extent]),
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink(&'a [u8]),
    /// Another name of an earlier entry.
    HardLink(&'a [u8]),
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// Extended attributes by full name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes the head of an entry called `name`.
///
/// # Errors
///
/// The writer's.
pub fn write_head(
    out: &mut impl Write,
    name: &[u8],
    entry: Entry<'_>,
    stat: &Stat,
    xattrs: &Xattrs,
) -> io::Result<()> {
    let mut records = Vec::new();
    let mut header = match entry {
        Entry::Sparse(..) => Header::new_gnu(),
        _ => Header::new_ustar(),
    };
    if name.len() > SHORT {
        record(&mut records, b"path", name);
    }
    put(&mut header.as_old_mut().name, name);
    if let Entry::Symlink(target) | Entry::HardLink(target) = entry {
        if target.len() > SHORT {
            record(&mut records, b"linkpath", target);
        }
        put(&mut header.as_old_mut().linkname, target);
    }
    let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec);
    if nanoseconds != 0 || seconds < 0 {
        let text =
            if seconds < 0 { format!("{seconds}") } else { format!("{seconds}.{nanoseconds:09}") };
        record(&mut records, b"mtime", text.as_bytes());
    }
    for (key, value) in xattrs {
        record(&mut records, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    header.set_size(0);
    header.set_entry_type(entry_type(entry));
    match entry {
        Entry::File(size) => {
            if size > MAX_OCTAL {
                record(&mut records, b"size", size.to_string().as_bytes());
            }
            header.set_size(size);
        }
        Entry::CharDevice | Entry::BlockDevice => {
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
        }
        _ => {}
    }
    write_records(out, &records)?;
    match entry {
        Entry::Sparse(size, extents) => write_sparse(out, header, size, extents),
        _ => finish(out, header),
    }
}

fn entry_type(entry: Entry<'_>) -> EntryType {
    match entry {
        Entry::File(_) => EntryType::Regular,
        Entry::Sparse(..) => EntryType::GNUSparse,
        Entry::Directory => EntryType::Directory,
        Entry::Symlink(_) => EntryType::Symlink,
        Entry::HardLink(_) => EntryType::Link,
        Entry::CharDevice => EntryType::Char,
        Entry::BlockDevice => EntryType::Block,
        Entry::Fifo => EntryType::Fifo,
    }
}

fn finish(out: &mut impl Write, mut header: Header) -> io::Result<()> {
    header.set_cksum();
    out.write_all(header.as_bytes())
}

/// As much of `text` as fits; the whole of it is in a record then.
fn put(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
}

/// Appends a record: its own length in decimal, a blank, key, `=`, value, newline.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits, which may make it one digit longer.
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(len.to_string().bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

fn write_records(out: &mut impl Write, records: &[u8]) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let mut header = Header::new_ustar();
    put(&mut header.as_old_mut().name, b"PaxHeaders/entry");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(EntryType::XHeader);
    header.set_size(records.len() as u64);
    finish(out, header)?;
    out.write_all(records)?;
    pad(out, records.len() as u64)
}

/// Fills the last block of something of `len` bytes with zeros.
///
/// # Errors
///
/// The writer's.
pub fn pad(out: &mut impl Write, len: u64) -> io::Result<()> {
    let rest = usize::try_from(len.next_multiple_of(BLOCK) - len).unwrap_or(0);
    out.write_all(&[0; BLOCK as usize][..rest])
}

/// The map of a sparse file: four extents in the header, 21 in each block after it.
fn write_sparse(
    out: &mut impl Write,
    mut header: Header,
    size: u64,
    extents: &[Extent],
) -> io::Result<()> {
    const IN_HEADER: usize = 4;
    const IN_BLOCK: usize = 21;
    header.set_size(extents.iter().map(|(_, len)| len).sum());
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_real_size(size);
        gnu.set_is_extended(extents.len() > IN_HEADER);
        for (slot, (offset, len)) in gnu.sparse.iter_mut().zip(extents) {
            slot.set_offset(*offset);
            slot.set_length(*len);
        }
    }
    finish(out, header)?;
    let rest = extents.get(IN_HEADER..).unwrap_or_default();
    let mut blocks = rest.chunks(IN_BLOCK).peekable();
    while let Some(chunk) = blocks.next() {
        let mut block = tar::GnuExtSparseHeader::new();
        for (slot, (offset, len)) in block.sparse.iter_mut().zip(chunk) {
            slot.set_offset(*offset);
            slot.set_length(*len);
        }
        block.set_is_extended(blocks.peek().is_some());
        out.write_all(block.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        for len in [1, 80, 88, 89, 90, 91, 92, 980, 985, 990, 995, 9980, 9990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; len]);
            let text = String::from_utf8(records.clone()).unwrap();
            let told: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, records.len(), "{len}");
        }
    }
}
