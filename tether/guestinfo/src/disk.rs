//! A config disk: a disk or CD-ROM by whose label an agent knows that a VMX file for it is on there.
//!
//! Two forms, each made in one command:
//!
//! * ISO 9660, volume `CONTAINERVM`, with the file `config.vmx` at its top:
//!   `xorrisofs -V CONTAINERVM -o config.iso config.vmx`;
//! * the VMX file itself, byte by byte from the start of the disk, if its first line is
//!   `# containervm config`. It ends at the first NUL or with the disk.
//!
//! Nothing is mounted: both are read here, from devices that may hold anything. Each number is checked before
//! it is used; at most [`MAX_DIRECTORY`] of the directory and [`MAX_CONFIG`] of the file are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::source::{MAX_CONFIG, Source, SourceError, Values, parsed};

/// The first line of a disk that is a VMX file.
pub const FIRST_LINE: &[u8] = b"# containervm config";

/// The volume of an ISO 9660 config disk.
pub const VOLUME: &str = "CONTAINERVM";

/// The name of the VMX file there, as ISO 9660 spells it.
pub const FILE: &str = "CONFIG.VMX";

/// The most of an ISO's top directory that is looked at, bytes: room for a thousand files.
pub const MAX_DIRECTORY: u32 = 64 * 1024;

/// A device that may be a config disk.
#[derive(Debug, Clone)]
pub struct ConfigDisk {
    name: String,
    device: PathBuf,
}

impl ConfigDisk {
    /// The device with this node.
    pub fn new(device: impl Into<PathBuf>) -> Self {
        let device = device.into();
        Self { name: format!("config disk {}", device.display()), device }
    }
}

impl Source for ConfigDisk {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> Result<Option<Values>, SourceError> {
        // Non-blocking: an open of a tray drive must not wait for the tray.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&self.device);
        let file = match file {
            Ok(file) => file,
            Err(error) if is_empty_drive(&error) => return Ok(None),
            Err(source) => return Err(SourceError::Io { path: self.device.clone(), source }),
        };
        match text(&file, &self.device)? {
            Some(text) => parsed(&self.device, &text),
            None => Ok(None),
        }
    }
}

fn is_empty_drive(error: &io::Error) -> bool {
    [libc::ENOENT, libc::ENXIO, libc::ENOMEDIUM].map(Some).contains(&error.raw_os_error())
}

/// Bytes that are read where they are needed.
trait Bytes {
    /// Reads what is there of `buffer`'s length at `offset`.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Bytes for File {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buffer, offset)
    }
}

/// The VMX file of a config disk; `None` if this is none.
fn text(disk: &impl Bytes, path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    let reader = Reader { disk, path };
    match reader.plain()? {
        Some(text) => Ok(Some(text)),
        None => reader.iso(),
    }
}

struct Reader<'a, D> {
    disk: &'a D,
    path: &'a Path,
}

/// The start of ISO 9660's volume descriptors, and the size of one (ECMA-119, 6.2.1).
const DESCRIPTORS: u64 = 16 * SECTOR;
const SECTOR: u64 = 2048;
/// The type of the primary volume descriptor, "CD001", version 1 (8.4).
const PRIMARY: &[u8] = b"\x01CD001\x01";
/// The flags of a directory record that make a file something else: a directory, associated, a part (9.1.6).
const NO_PLAIN_FILE: u8 = 0x02 | 0x04 | 0x80;

impl<D: Bytes> Reader<'_, D> {
    /// `len` bytes at `offset`, or fewer where the disk ends.
    fn take(&self, offset: u64, len: usize) -> Result<Vec<u8>, SourceError> {
        let mut bytes = vec![0; len];
        let mut n_read = 0;
        while let Some(rest) = bytes.get_mut(n_read..).filter(|rest| !rest.is_empty()) {
            match self.disk.read(rest, offset.saturating_add(n_read as u64)) {
                Ok(0) => break,
                Ok(n) => n_read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(SourceError::Io { path: self.path.to_owned(), source }),
            }
        }
        bytes.truncate(n_read);
        Ok(bytes)
    }

    fn too_large(&self) -> SourceError {
        SourceError::TooLarge { path: self.path.to_owned(), limit: MAX_CONFIG }
    }

    fn plain(&self) -> Result<Option<Vec<u8>>, SourceError> {
        const PIECE: usize = 64 * 1024;
        let mut text = self.take(0, FIRST_LINE.len() + 2)?;
        let ended = text.strip_prefix(FIRST_LINE).and_then(|rest| rest.first());
        if !ended.is_some_and(|byte| b"\r\n".contains(byte)) {
            return Ok(None);
        }
        loop {
            let piece = self.take(text.len() as u64, PIECE)?;
            let end = piece.iter().position(|byte| *byte == 0);
            text.extend_from_slice(piece.get(..end.unwrap_or(piece.len())).unwrap_or_default());
            if text.len() as u64 > MAX_CONFIG {
                return Err(self.too_large());
            }
            if end.is_some() || piece.len() < PIECE {
                return Ok(Some(text));
            }
        }
    }

    fn iso(&self) -> Result<Option<Vec<u8>>, SourceError> {
        let volume = self.take(DESCRIPTORS, SECTOR as usize)?;
        let label = volume.get(40..72).unwrap_or_default();
        if !volume.starts_with(PRIMARY)
            || !label.trim_ascii_end().eq_ignore_ascii_case(VOLUME.as_bytes())
        {
            return Ok(None);
        }
        let odd =
            |what: &str| SourceError::Disk { path: self.path.to_owned(), what: what.to_owned() };
        let block =
            volume.get(128..130).and_then(|it| it.try_into().ok()).map_or(0, u16::from_le_bytes);
        if ![512, 1024, 2048].contains(&block) {
            return Err(odd("its blocks have a size that ISO 9660 does not know"));
        }
        let root = volume.get(156..190).and_then(Record::parse);
        let root = root.ok_or_else(|| odd("its top directory is damaged"))?;
        let size = root.size.min(MAX_DIRECTORY) as usize;
        let directory = self.take(root.offset(block), size)?;
        let Some(file) = find(&directory) else {
            return Err(odd("its top directory has no file config.vmx"));
        };
        if u64::from(file.size) > MAX_CONFIG {
            return Err(self.too_large());
        }
        let text = self.take(file.offset(block), file.size as usize)?;
        if text.len() < file.size as usize {
            return Err(odd("it ends within config.vmx"));
        }
        Ok(Some(text))
    }
}

/// A directory record (ECMA-119, 9.1).
struct Record<'a> {
    name: &'a [u8],
    flags: u8,
    block: u32,
    size: u32,
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let name_len = usize::from(*bytes.get(32)?);
        Some(Self {
            name: bytes.get(33..33 + name_len)?,
            flags: *bytes.get(25)?,
            block: number(2)?,
            size: number(10)?,
        })
    }

    fn offset(&self, block_size: u16) -> u64 {
        u64::from(self.block) * u64::from(block_size)
    }

    fn is_config(&self) -> bool {
        // The name ends in a version, as in "CONFIG.VMX;1".
        let name = self.name.split(|byte| *byte == b';').next().unwrap_or_default();
        self.flags & NO_PLAIN_FILE == 0 && name.eq_ignore_ascii_case(FILE.as_bytes())
    }
}

/// The config file's record. Records do not cross sectors; what is left of one is zero (6.8.1.1).
fn find(directory: &[u8]) -> Option<Record<'_>> {
    directory.chunks(SECTOR as usize).find_map(|sector| {
        let mut rest = sector;
        while let Some(len) = rest.first().map(|len| usize::from(*len)).filter(|len| *len > 0) {
            let record = Record::parse(rest.get(..len)?);
            if let Some(record) = record.filter(Record::is_config) {
                return Some(record);
            }
            rest = rest.get(len..)?;
        }
        None
    })
}

#[cfg(test)]
mod tests;
