//! A tar archive read in place: every entry with its attributes, and where in the file its contents are.
//!
//! Nothing is copied. Contents become [`Extent`]s of the archive itself, which the `tar` crate cannot give for sparse
//! files; it also splits pax records at line ends, which damages binary attributes such as `security.capability`.
//! Understood are the old, ustar, GNU (long names, sparse, base-256 numbers) and pax forms (`tar(5)`,
//! `pax(1)` of POSIX.1-2001, "Storing Sparse Files" of the GNU tar manual).
//!
//! An archive is untrusted: memory per entry is bounded (`MAX_RECORD`, `MAX_PIECES`), and every fault names
//! archive, entry and byte.

use std::{collections::BTreeMap, io, mem};

use super::{
    blob::Blob,
    header::{self, Field, Header},
    pax,
};
use crate::tree::{Attributes, Extent, Source, Timestamp, TreeError, has_namespace};

const BLOCK: u64 = 512;
/// Longest long name or pax record set, all of one entry's together: names are at most 4096 bytes and attributes 64
/// KiB each.
const MAX_RECORD: u64 = 1 << 20;
/// Most bytes of records that hold for all entries behind them, as each of those is given its own copy.
const MAX_GLOBAL: u64 = 64 << 10;
/// Most bytes of a file's extended attributes: twice what a disk keeps of them, however it packs them.
const MAX_XATTRS: usize = 8192;
/// Most pieces of a sparse file.
const MAX_PIECES: usize = 1 << 16;

/// Where in which archive something is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{archive}: {}at byte {offset}: {fault}", entry.as_ref().map(|name| format!("{name:?}, ")).unwrap_or_default())]
pub struct ArchiveError {
    /// The archive.
    pub archive: String,
    /// The entry, once its name is known.
    pub entry: Option<String>,
    /// Position of its header.
    pub offset: u64,
    /// What is wrong there.
    #[source]
    pub fault: ArchiveFault,
}

/// What can be wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// The file ends too early.
    #[error("the archive ends in the middle of it; it is cut short or still being written")]
    Truncated,
    /// The header's checksum does not fit.
    #[error("there is no tar header where one must be (wrong checksum); the archive is damaged")]
    Checksum,
    /// A number that is none.
    #[error("its {0} is not a number that is possible there; the archive is damaged")]
    Number(&'static str),
    /// A pax record that is none.
    #[error(
        "its extended header is not a list of \"LENGTH KEY=VALUE\" lines; the archive is damaged"
    )]
    Pax,
    /// A name or record set of absurd length.
    #[error("its extended header is {0} bytes long; at most {MAX_RECORD} make sense")]
    RecordTooLong(u64),
    /// Records for all entries, of absurd length.
    #[error("what it says of all entries is {0} bytes long; at most {MAX_GLOBAL} make sense")]
    GlobalTooLong(u64),
    /// More attributes than a file can have.
    #[error("its extended attributes take {0} bytes; a disk keeps 4096 of a file")]
    XattrsTooBig(usize),
    /// A sparse map that contradicts itself.
    #[error("its list of sparse pieces is damaged: {0}")]
    Sparse(&'static str),
    /// An entry type without meaning here.
    #[error("its type {0:?} is none that an image can hold")]
    Type(char),
    /// A name the image cannot hold.
    #[error("{0}")]
    Name(TreeError),
    /// Reading failed.
    #[error("cannot read it: {0}")]
    Read(io::Error),
}

impl From<TreeError> for ArchiveFault {
    fn from(error: TreeError) -> Self {
        Self::Name(error)
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry.
#[derive(Debug)]
pub struct Entry {
    /// Its name as stored.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// What it is.
    pub entry_type: EntryType,
    /// Mode, owner and the like.
    pub attributes: Attributes,
    /// Size of a file.
    pub size: u64,
    /// Where a file's contents are.
    pub extents: Vec<Extent>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// Calls `each` for every entry, in order.
///
/// # Errors
/// The first fault of the archive, or the one `each` found with an entry.
pub fn read(
    blob: &Blob,
    each: &mut dyn FnMut(Entry) -> Result<(), ArchiveFault>,
) -> Result<(), ArchiveError> {
    let mut walk = Walk {
        blob,
        at: 0,
        started: 0,
        entry: None,
        pending: Pending::default(),
        global: BTreeMap::new(),
    };
    walk.all(each).map_err(|fault| ArchiveError {
        archive: blob.name.clone(),
        entry: walk.entry,
        offset: walk.started,
        fault,
    })
}

/// Whether this begins like a tar archive. An empty archive is two blocks of zeros.
#[must_use]
pub fn is_tar(blob: &Blob) -> bool {
    let mut head = [0; BLOCK as usize];
    blob.read_at(&mut head, 0).is_ok()
        && (Header(&head).checksum_fits() || head.iter().all(|byte| *byte == 0))
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Pending {
    /// Their length.
    length: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The pieces of a pax sparse file of format 0.0, where their order counts.
    sparse: Vec<(u64, u64)>,
}

struct Walk<'a> {
    blob: &'a Blob,
    at: u64,
    /// Start of the entry being read, its extension headers included.
    started: u64,
    entry: Option<String>,
    pending: Pending,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Walk<'_> {
    fn all(
        &mut self,
        each: &mut dyn FnMut(Entry) -> Result<(), ArchiveFault>,
    ) -> Result<(), ArchiveFault> {
        while let Some(block) = self.next_block()? {
            let header = Header(&block);
            if block.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            if !header.checksum_fits() {
                return Err(ArchiveFault::Checksum);
            }
            let size = header.number(Field::SIZE)?;
            match header.entry_type() {
                b'L' => self.pending.path = Some(pax::until_zero(self.pending_record(size)?)),
                b'K' => self.pending.link = Some(pax::until_zero(self.pending_record(size)?)),
                b'x' => {
                    let record = self.pending_record(size)?;
                    self.pax(&record)?;
                }
                b'g' => {
                    let record = self.record(size)?;
                    self.global(&record)?;
                }
                // A volume label: a name for people.
                b'V' => self.skip(size)?,
                _ => {
                    let pending = mem::take(&mut self.pending);
                    let entry = self.entry(&header, pending)?;
                    each(entry)?;
                    self.entry = None;
                    self.started = self.at;
                }
            }
        }
        Ok(())
    }

    /// The next block; none at the end of an archive that lacks its closing zeros, as some writers leave it.
    fn next_block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, ArchiveFault> {
        if self.at == self.blob.length && self.started == self.at && self.at > 0 {
            return Ok(None);
        }
        let mut block = [0; BLOCK as usize];
        self.fill(&mut block)?;
        Ok(Some(block))
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), ArchiveFault> {
        self.blob.read_at(into, self.at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveFault::Truncated,
            _ => ArchiveFault::Read(error),
        })?;
        self.at += into.len() as u64;
        Ok(())
    }

    fn skip(&mut self, size: u64) -> Result<(), ArchiveFault> {
        let end = self
            .at
            .checked_add(size)
            .filter(|end| *end <= self.blob.length)
            .ok_or(ArchiveFault::Truncated)?;
        // The padding of the very last entry may be missing.
        self.at = end.next_multiple_of(BLOCK).min(self.blob.length);
        Ok(())
    }

    /// The contents of an extension header.
    fn record(&mut self, size: u64) -> Result<Vec<u8>, ArchiveFault> {
        if size > MAX_RECORD {
            return Err(ArchiveFault::RecordTooLong(size));
        }
        let mut bytes = vec![0; size as usize];
        let begin = self.at;
        self.fill(&mut bytes)?;
        self.at = begin;
        self.skip(size)?;
        Ok(bytes)
    }

    /// One that is kept until its entry comes.
    fn pending_record(&mut self, size: u64) -> Result<Vec<u8>, ArchiveFault> {
        let length = self.pending.length.saturating_add(size);
        if length > MAX_RECORD {
            return Err(ArchiveFault::RecordTooLong(length));
        }
        self.pending.length = length;
        self.record(size)
    }

    fn global(&mut self, record: &[u8]) -> Result<(), ArchiveFault> {
        for (key, value) in pax::parse(record).ok_or(ArchiveFault::Pax)? {
            self.global.insert(key.to_vec(), value.to_vec());
        }
        match self.global.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum() {
            0..=MAX_GLOBAL => Ok(()),
            length => Err(ArchiveFault::GlobalTooLong(length)),
        }
    }

    fn pax(&mut self, record: &[u8]) -> Result<(), ArchiveFault> {
        let mut offset = None;
        for (key, value) in pax::parse(record).ok_or(ArchiveFault::Pax)? {
            match key {
                b"GNU.sparse.offset" => offset = Some(pax::number(value, "sparse offset")?),
                b"GNU.sparse.numbytes" => {
                    let offset =
                        offset.take().ok_or(ArchiveFault::Sparse("a length without an offset"))?;
                    self.pending.sparse.push((offset, pax::number(value, "sparse length")?));
                }
                _ => {
                    self.pending.pax.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, pending: Pending) -> Result<Entry, ArchiveFault> {
        let Pending { path, link, mut pax, sparse, .. } = pending;
        for (key, value) in &self.global {
            pax.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let named = |key: &[u8]| pax.get(key).cloned();
        let path = named(b"GNU.sparse.name")
            .or_else(|| named(b"path"))
            .or(path)
            .unwrap_or_else(|| header.path());
        self.entry = Some(String::from_utf8_lossy(&path).into_owned());
        let link = named(b"linkpath").or(link).unwrap_or_else(|| header.link());
        let stored = match pax.get(&b"size"[..]) {
            Some(size) => pax::number(size, "size")?,
            None => header.number(Field::SIZE)?,
        };
        let entry_type = entry_type(header.entry_type(), &path)?;
        let attributes = attributes(header, &pax)?;
        let device = match entry_type {
            EntryType::CharDevice | EntryType::BlockDevice => {
                let number = |field: Field| {
                    u32::try_from(header.number(field)?)
                        .map_err(|_| ArchiveFault::Number(field.name))
                };
                (number(Field::MAJOR)?, number(Field::MINOR)?)
            }
            _ => (0, 0),
        };
        let (size, extents) = if entry_type == EntryType::File {
            self.contents(header, &pax, sparse, stored)?
        } else {
            // Only files have contents; a size elsewhere (old links repeat their target's) is no data, except
            // that GNU tar stores directory lists in entries of type D.
            if header.entry_type() == b'D' {
                self.skip(stored)?;
            }
            (0, Vec::new())
        };
        Ok(Entry { path, link, entry_type, attributes, size, extents, device })
    }

    fn contents(
        &mut self,
        header: &Header<'_>,
        pax: &BTreeMap<Vec<u8>, Vec<u8>>,
        listed: Vec<(u64, u64)>,
        stored: u64,
    ) -> Result<(u64, Vec<Extent>), ArchiveFault> {
        let has = |key: &str| pax.get(key.as_bytes());
        let real = |key: &str| has(key).map(|value| pax::number(value, "real size")).transpose();
        let (size, map, data, left) = if header.entry_type() == b'S' {
            let (size, map) = self.gnu_map(header)?;
            (size, map, self.at, stored)
        } else if has("GNU.sparse.major").is_some_and(|major| major == b"1") {
            let size = real("GNU.sparse.realsize")?.ok_or(ArchiveFault::Sparse("no real size"))?;
            let begin = self.at;
            let map = self.leading_map(stored)?;
            let data = self.at;
            self.at = begin;
            (size, map, data, stored.checked_sub(data - begin).ok_or(ArchiveFault::Truncated)?)
        } else if let Some(size) = real("GNU.sparse.size")? {
            let map = match has("GNU.sparse.map") {
                Some(text) => {
                    pax::pairs(text).ok_or(ArchiveFault::Sparse("not a list of numbers"))?
                }
                None => listed,
            };
            (size, map, self.at, stored)
        } else {
            (stored, vec![(0, stored)], self.at, stored)
        };
        // All that is stored is in the archive: nothing below can be beyond its end.
        self.skip(stored)?;
        let extents = self.extents(size, &map, data, left)?;
        Ok((size, extents))
    }

    /// Turns a sparse map into extents of the archive, whose pieces follow each other from `data` on.
    fn extents(
        &self,
        size: u64,
        map: &[(u64, u64)],
        data: u64,
        left: u64,
    ) -> Result<Vec<Extent>, ArchiveFault> {
        if map.len() > MAX_PIECES {
            return Err(ArchiveFault::Sparse("too many pieces"));
        }
        let (mut end, mut used) = (0, 0u64);
        let mut extents = Vec::new();
        for (start, length) in map.iter().copied().filter(|(_, length)| *length > 0) {
            let next = start.checked_add(length).filter(|next| start >= end && *next <= size);
            end = next
                .ok_or(ArchiveFault::Sparse("a piece overlaps another or the end of the file"))?;
            if left.checked_sub(used).is_none_or(|left| length > left) {
                return Err(ArchiveFault::Sparse("its pieces are longer than what is stored"));
            }
            let offset = self.blob.offset + data + used;
            extents.push(Extent {
                start,
                length,
                source: Source::Open { file: self.blob.file.clone(), offset },
            });
            used += length;
        }
        Ok(extents)
    }

    /// The map of an old GNU sparse entry: in the header, and in blocks after it.
    fn gnu_map(&mut self, header: &Header<'_>) -> Result<(u64, Vec<(u64, u64)>), ArchiveFault> {
        let size = header.number(Field::REAL_SIZE)?;
        let mut map = header::sparse_pieces(header.0, 386, 4)?;
        let mut more = header.0[482] != 0;
        while more {
            let mut block = [0; BLOCK as usize];
            self.fill(&mut block)?;
            map.extend(header::sparse_pieces(&block, 0, 21)?);
            more = block[504] != 0;
            if map.len() > MAX_PIECES {
                return Err(ArchiveFault::Sparse("too many pieces"));
            }
        }
        Ok((size, map))
    }

    /// The map of a pax 1.0 sparse entry: decimal lines at the head of its contents, padded to a block.
    fn leading_map(&mut self, stored: u64) -> Result<Vec<(u64, u64)>, ArchiveFault> {
        let end = self.at.checked_add(stored).ok_or(ArchiveFault::Truncated)?;
        let mut numbers: Vec<u64> = Vec::new();
        let mut digits: Vec<u8> = Vec::new();
        loop {
            if self.at + BLOCK > end {
                return Err(ArchiveFault::Sparse("it does not end"));
            }
            let mut block = [0; BLOCK as usize];
            self.fill(&mut block)?;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(ArchiveFault::Sparse("not a list of numbers"));
                    }
                    continue;
                }
                numbers.push(pax::number(&mem::take(&mut digits), "sparse map")?);
                let n_pieces = numbers.first().copied().unwrap_or(0) as usize;
                if n_pieces > MAX_PIECES {
                    return Err(ArchiveFault::Sparse("too many pieces"));
                }
                if numbers.len() == 1 + 2 * n_pieces {
                    return Ok(numbers[1..]
                        .chunks_exact(2)
                        .map(|pair| (pair[0], pair[1]))
                        .collect());
                }
            }
        }
    }
}

fn entry_type(byte: u8, path: &[u8]) -> Result<EntryType, ArchiveFault> {
    Ok(match byte {
        // Before ustar, a directory was a file whose name ends in a slash.
        b'0' | 0 if path.ends_with(b"/") => EntryType::Directory,
        b'0' | 0 | b'7' | b'S' => EntryType::File,
        b'1' => EntryType::HardLink,
        b'2' => EntryType::Symlink,
        b'3' => EntryType::CharDevice,
        b'4' => EntryType::BlockDevice,
        b'5' | b'D' => EntryType::Directory,
        b'6' => EntryType::Fifo,
        other => return Err(ArchiveFault::Type(char::from(other))),
    })
}

fn attributes(
    header: &Header<'_>,
    pax: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<Attributes, ArchiveFault> {
    // A number too large must not wrap around: 2³² would be root.
    let owner = |key: &str, field: Field| {
        let number = match pax.get(key.as_bytes()) {
            Some(value) => pax::number(value, field.name)?,
            None => header.number(field)?,
        };
        u32::try_from(number).map_err(|_| ArchiveFault::Number(field.name))
    };
    let modified = match pax.get(&b"mtime"[..]) {
        Some(value) => pax::time(value).ok_or(ArchiveFault::Number("modification time"))?,
        None => Timestamp { seconds: header.number(Field::MTIME)? as i64, nanoseconds: 0 },
    };
    let xattrs: BTreeMap<_, _> = pax
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value)))
        // Archives made on other systems carry namespaces that Linux refuses (com.apple.…); docker drops them too.
        .filter(|(name, _)| has_namespace(name))
        .map(|(name, value)| (name.to_vec(), value.clone()))
        .collect();
    let length = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if length > MAX_XATTRS {
        return Err(ArchiveFault::XattrsTooBig(length));
    }
    Ok(Attributes {
        mode: (header.number(Field::MODE)? & 0o7777) as u16,
        uid: owner("uid", Field::UID)?,
        gid: owner("gid", Field::GID)?,
        modified,
        xattrs,
    })
}
