//! A tar archive read entry by entry: POSIX, PAX and GNU heads, and the old GNU form of files with holes.
//!
//! Extended heads are bounded by `MAX_EXTENDED`, maps of holes by `MAX_EXTENTS`; everything else streams.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::header::{BLOCK, Extent, Xattrs};
use crate::inside::failure::InsideError;

/// The most bytes of PAX records, or of one long name.
const MAX_EXTENDED: u64 = 1 << 20;
/// The most stretches of data in one sparse file.
const MAX_EXTENTS: usize = 1 << 20;
const BLOCK_LEN: usize = BLOCK as usize;

/// What an entry says of a file.
#[derive(Debug)]
pub struct Head {
    /// Its name, as it stands there.
    pub name: Vec<u8>,
    /// Where a link leads.
    pub target: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Device numbers.
    pub device: (u32, u32),
    /// Length of the file.
    pub size: u64,
    /// Where its data belongs.
    pub extents: Vec<Extent>,
    /// Its extended attributes.
    pub xattrs: Xattrs,
}

/// The reader.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the entry that have not been read, and of its last block.
    left: u64,
    padding: u64,
}

fn odd(text: impl Into<String>) -> InsideError {
    InsideError::Archive(io::Error::other(text.into()))
}

impl<R: Read> Reader<R> {
    /// Reads what `input` gives.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// The next entry; the rest of the one before is passed over. `None` at the end of the archive, after
    /// which everything is read that still comes.
    ///
    /// # Errors
    ///
    /// [`InsideError::Archive`].
    pub fn next_head(&mut self) -> Result<Option<Head>, InsideError> {
        let mut pax = BTreeMap::new();
        let (mut long_name, mut long_target) = (None, None);
        let mut n_extended = 0;
        loop {
            self.skip(self.left + self.padding)?;
            let Some(block) = self.block()? else { return Ok(None) };
            let header = Header::from_byte_slice(&block);
            let size = header.entry_size().map_err(InsideError::Archive)?;
            self.announce(size)?;
            if header.entry_type() == EntryType::XHeader {
                n_extended += size.min(MAX_EXTENDED);
                if n_extended > MAX_EXTENDED {
                    return Err(odd("extended heads without end"));
                }
            }
            match header.entry_type() {
                EntryType::XHeader => pax.append(&mut records(&self.extended()?)?),
                EntryType::XGlobalHeader => drop(self.extended()?),
                EntryType::GNULongName => long_name = Some(text(self.extended()?)),
                EntryType::GNULongLink => long_target = Some(text(self.extended()?)),
                kind => {
                    if pax.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
                        return Err(odd("a sparse file in POSIX form; give --format=gnu to tar"));
                    }
                    let mut head = plain(header, kind)?;
                    if kind == EntryType::GNUSparse {
                        self.sparse(&block, &mut head)?;
                    } else if let Some(size) = number(&pax, b"size")? {
                        self.announce(size)?;
                        head.size = size;
                        head.extents = vec![(0, size)];
                    }
                    head.name = pax.remove(b"path".as_slice()).or(long_name).unwrap_or(head.name);
                    let target = pax.remove(b"linkpath".as_slice()).or(long_target);
                    head.target = target.unwrap_or(head.target);
                    extend(&mut head, pax)?;
                    return Ok(Some(head));
                }
            }
        }
    }

    /// Reads data of the entry.
    ///
    /// # Errors
    ///
    /// The input's, and its early end.
    pub fn data(&mut self, buffer: &mut [u8]) -> Result<usize, InsideError> {
        let max = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if max == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buffer[..max]) {
                Ok(0) => return Err(InsideError::Archive(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    self.left -= n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(InsideError::Archive(error)),
            }
        }
    }

    /// Reads and drops all that still comes: who writes must not find a pipe that nobody reads.
    pub fn drain(&mut self) {
        // Nothing depends on it.
        let _drained = io::copy(&mut self.input, &mut io::sink());
    }

    fn announce(&mut self, size: u64) -> Result<(), InsideError> {
        let blocks = size.checked_next_multiple_of(BLOCK);
        self.padding = blocks.ok_or_else(|| odd(format!("an entry of {size} bytes")))? - size;
        self.left = size;
        Ok(())
    }

    fn skip(&mut self, len: u64) -> Result<(), InsideError> {
        let skipped = io::copy(&mut (&mut self.input).take(len), &mut io::sink());
        match skipped.map_err(InsideError::Archive)? {
            n if n == len => Ok(()),
            _ => Err(InsideError::Archive(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// One block with a right checksum; `None` at the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_LEN]>, InsideError> {
        let mut block = [0; BLOCK_LEN];
        let mut filled = 0;
        while filled < BLOCK_LEN {
            match self.input.read(&mut block[filled..]) {
                // An archive may end without its two blocks of zeros.
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(InsideError::Archive(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(InsideError::Archive(error)),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum of all bytes, those of the checksum itself taken as blanks.
        let sum: u32 = (0..).zip(&block).fold(0, |sum, (at, byte)| {
            sum + if (148..156).contains(&at) { 32 } else { u32::from(*byte) }
        });
        match Header::from_byte_slice(&block).cksum() {
            Ok(told) if told == sum => Ok(Some(block)),
            _ => Err(odd("a head's checksum is wrong")),
        }
    }

    fn extended(&mut self) -> Result<Vec<u8>, InsideError> {
        if self.left > MAX_EXTENDED {
            return Err(odd(format!("an extended head of {} bytes", self.left)));
        }
        let mut bytes = Vec::new();
        (&mut self.input).take(self.left).read_to_end(&mut bytes).map_err(InsideError::Archive)?;
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }

    fn sparse(&mut self, block: &[u8; BLOCK_LEN], head: &mut Head) -> Result<(), InsideError> {
        let header = Header::from_byte_slice(block);
        let gnu = header.as_gnu().ok_or_else(|| odd("a sparse file without a GNU head"))?;
        head.size = gnu.real_size().map_err(InsideError::Archive)?;
        let mut more = gnu.is_extended();
        let mut slots: Vec<Extent> = Vec::new();
        take_extents(&gnu.sparse, &mut slots)?;
        while more {
            let mut next = tar::GnuExtSparseHeader::new();
            self.input.read_exact(next.as_mut_bytes()).map_err(InsideError::Archive)?;
            take_extents(&next.sparse, &mut slots)?;
            more = next.is_extended();
        }
        let stored: u64 = slots.iter().map(|(_, len)| *len).fold(0, u64::saturating_add);
        let inside =
            slots.iter().all(|(at, len)| at.checked_add(*len).is_some_and(|end| end <= head.size));
        if stored != self.left || !inside {
            return Err(odd("a sparse file whose map does not fit its data"));
        }
        head.extents = slots;
        Ok(())
    }
}

fn take_extents(slots: &[tar::GnuSparseHeader], into: &mut Vec<Extent>) -> Result<(), InsideError> {
    for slot in slots.iter().filter(|slot| !slot.is_empty()) {
        let at = slot.offset().map_err(InsideError::Archive)?;
        let len = slot.length().map_err(InsideError::Archive)?;
        if into.len() >= MAX_EXTENTS {
            return Err(odd("a sparse file in too many pieces"));
        }
        into.push((at, len));
    }
    Ok(())
}

fn plain(header: &Header, kind: EntryType) -> Result<Head, InsideError> {
    let odd = InsideError::Archive;
    let narrow =
        |n: u64| u32::try_from(n).map_err(|_| self::odd(format!("{n} is no user or group")));
    let size = header.entry_size().map_err(odd)?;
    Ok(Head {
        name: header.path_bytes().into_owned(),
        target: header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default(),
        kind,
        mode: header.mode().map_err(odd)? & 0o7777,
        uid: narrow(header.uid().map_err(odd)?)?,
        gid: narrow(header.gid().map_err(odd)?)?,
        modified: (header.mtime().map_err(odd)?.cast_signed(), 0),
        device: (
            header.device_major().ok().flatten().unwrap_or(0),
            header.device_minor().ok().flatten().unwrap_or(0),
        ),
        size,
        extents: vec![(0, size)],
        xattrs: Xattrs::new(),
    })
}

/// GNU's long names end with a zero byte.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Cuts records apart: each begins with its own length, so a value may hold anything.
fn records(mut bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, InsideError> {
    let broken = || odd("a PAX record is broken");
    let mut found = BTreeMap::new();
    while bytes.first().is_some_and(u8::is_ascii_digit) {
        let blank = bytes.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let len = std::str::from_utf8(&bytes[..blank]).ok().and_then(|n| n.parse::<usize>().ok());
        let record = len.and_then(|len| bytes.get(blank + 1..len)).ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let value = record[equals + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
        found.insert(record[..equals].to_vec(), value.to_vec());
        bytes = &bytes[blank + 1 + record.len()..];
    }
    Ok(found)
}

fn number(pax: &BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8]) -> Result<Option<u64>, InsideError> {
    let Some(value) = pax.get(key) else { return Ok(None) };
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| odd("a PAX record is no number"))
}

fn extend(head: &mut Head, pax: BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), InsideError> {
    let narrow = |n: u64| u32::try_from(n).map_err(|_| odd(format!("{n} is no user or group")));
    if let Some(uid) = number(&pax, b"uid")? {
        head.uid = narrow(uid)?;
    }
    if let Some(gid) = number(&pax, b"gid")? {
        head.gid = narrow(gid)?;
    }
    for (key, value) in pax {
        if key == b"mtime" {
            head.modified = moment(&value).ok_or_else(|| odd("a PAX time is no number"))?;
        } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            head.xattrs.insert(name.to_vec(), value);
        }
    }
    Ok(())
}

/// Seconds with a fraction, which counts upwards from the whole seconds also before 1970.
fn moment(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanoseconds) = (whole.parse::<i64>().ok()?, digits.parse::<u32>().ok()?);
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}
