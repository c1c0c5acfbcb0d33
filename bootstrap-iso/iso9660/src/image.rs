//! An image: finds the primary volume, follows paths through its directories, reads files.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::SECTOR;
use crate::record::{Entry, Record, little_endian, root};

/// Longest directory that is read, in bytes: some ten thousand names.
pub const MAX_DIRECTORY: u64 = 1 << 20;
/// Deepest directory that [`Image::walk`] enters; ECMA-119 6.8.2.1 itself allows eight levels.
pub const MAX_DEPTH: usize = 16;
/// Most entries that [`Image::walk`] lists.
pub const MAX_ENTRIES: usize = 65_536;

/// Most bytes of directories that [`Image::walk`] reads, one that is listed several times counted as often.
pub const MAX_WALK: u64 = 128 << 20;

/// Where the volume descriptors begin, in sectors: the first 16 are for boot code (ECMA-119 6.2.1).
const FIRST_DESCRIPTOR: u64 = 16;
/// How many volume descriptors are looked at before the primary one must have come.
const MAX_DESCRIPTORS: u64 = 64;

/// Why an image, or a file of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Iso9660Error {
    /// The file is something else.
    #[error(
        "not an ISO 9660 image: no volume descriptor at byte 32768; expected the signature CD001"
    )]
    NotAnImage,
    /// The image contradicts itself or the standard.
    #[error("the ISO 9660 image is damaged: {what}; build or download it again")]
    Corrupt {
        /// What was found.
        what: &'static str,
    },
    /// The image is legal but uses what this reader does not read.
    #[error("the ISO 9660 image has {what}, which this reader does not support")]
    Unsupported {
        /// What was found.
        what: &'static str,
    },
    /// No file of that path.
    #[error("the ISO 9660 image has no {path}")]
    NotFound {
        /// The path asked for.
        path: String,
    },
    /// The path is a directory where a file was expected, or the other way around.
    #[error("{path} in the ISO 9660 image is not a {expected}")]
    WrongKind {
        /// The path asked for.
        path: String,
        /// "file" or "directory".
        expected: &'static str,
    },
    /// The file is larger than the caller allowed.
    #[error("{path} in the ISO 9660 image has {size} bytes; expected at most {limit}")]
    TooLarge {
        /// The path asked for.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// Reading the image, or writing what was read, failed.
    #[error("cannot copy from the ISO 9660 image: {0}")]
    Io(io::Error),
}

impl From<io::Error> for Iso9660Error {
    fn from(reason: io::Error) -> Self {
        Self::Io(reason)
    }
}

/// An opened image.
#[derive(Debug)]
pub struct Image<R> {
    source: R,
    length: u64,
    root: Entry,
    /// Bytes of each record's system use area that are not Rock Ridge's.
    skip: usize,
}

impl<R: Read + Seek> Image<R> {
    /// Finds the primary volume of the image in `source`.
    ///
    /// # Errors
    /// [`Iso9660Error::NotAnImage`], a damaged descriptor, or a failed read.
    pub fn open(mut source: R) -> Result<Self, Iso9660Error> {
        let length = source.seek(SeekFrom::End(0))?;
        let descriptor = primary_descriptor(&mut source, length)?;
        // Logical block size (ECMA-119 8.4.12); nothing but 2048 is written by any tool.
        if u64::from(little_endian(&descriptor[128..130])) != SECTOR {
            return Err(Iso9660Error::Unsupported { what: "a logical block size other than 2048" });
        }
        let root = root(&descriptor[156..190])?;
        let mut image = Self { source, length, root, skip: 0 };
        let top = image.root.clone();
        let bytes = image.directory_bytes(&top)?;
        if let Some(Record::Dot { skip }) = records(&bytes, 0).next().transpose()? {
            image.skip = skip;
        }
        Ok(image)
    }

    /// The entry at `path`, whose parts are separated by `/`, with or without one in front.
    ///
    /// # Errors
    /// [`Iso9660Error::NotFound`], or a damaged or unreadable directory on the way.
    pub fn find(&mut self, path: &str) -> Result<Entry, Iso9660Error> {
        let mut entry = self.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let found = match entry.is_dir {
                true => self.entries(&entry)?.into_iter().find(|child| child.name == part),
                false => None,
            };
            entry = found.ok_or_else(|| Iso9660Error::NotFound { path: path.to_owned() })?;
        }
        Ok(entry)
    }

    /// What the directory at `path` holds, in the image's order.
    ///
    /// # Errors
    /// As [`find`](Self::find), and [`Iso9660Error::WrongKind`] for a file.
    pub fn list(&mut self, path: &str) -> Result<Vec<Entry>, Iso9660Error> {
        let entry = self.find(path)?;
        if !entry.is_dir {
            return Err(Iso9660Error::WrongKind { path: path.to_owned(), expected: "directory" });
        }
        self.entries(&entry)
    }

    /// The content of the file at `path`, if it is no longer than `limit` bytes.
    ///
    /// # Errors
    /// As [`find`](Self::find); a directory; [`Iso9660Error::TooLarge`].
    pub fn read(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, Iso9660Error> {
        let entry = self.file(path)?;
        if entry.size > limit {
            return Err(Iso9660Error::TooLarge { path: path.to_owned(), size: entry.size, limit });
        }
        let mut content = Vec::new();
        self.content(&entry)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Writes the content of the file at `path` to `to`; gives its length in bytes.
    ///
    /// # Errors
    /// As [`find`](Self::find); a directory; a failed read or write, after which `to` may
    /// hold a part of the file.
    pub fn copy(&mut self, path: &str, to: &mut impl Write) -> Result<u64, Iso9660Error> {
        let entry = self.file(path)?;
        let copied = io::copy(&mut self.content(&entry)?, to)?;
        if copied != entry.size {
            return Err(Iso9660Error::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(copied)
    }

    /// Every file of the image as its absolute path and entry, directories left out, sorted by path.
    ///
    /// # Errors
    /// A damaged or unreadable directory, or more than [`MAX_DEPTH`], [`MAX_ENTRIES`] or [`MAX_WALK`].
    pub fn walk(&mut self) -> Result<Vec<(String, Entry)>, Iso9660Error> {
        let mut files = Vec::new();
        let mut directories = vec![(String::new(), self.root.clone(), 0)];
        let (mut n_seen, mut n_read) = (0, 0);
        while let Some((path, directory, depth)) = directories.pop() {
            // Directories of a damaged image can contain each other.
            if depth > MAX_DEPTH {
                return Err(Iso9660Error::Corrupt { what: "directories nested too deep" });
            }
            // A large one that is listed thousands of times is as much to read as thousands of them.
            n_read += directory.size;
            if n_read > MAX_WALK {
                return Err(Iso9660Error::Corrupt {
                    what: "directories that are too long together",
                });
            }
            for entry in self.entries(&directory)? {
                n_seen += 1;
                if n_seen > MAX_ENTRIES {
                    return Err(Iso9660Error::Corrupt { what: "too many files" });
                }
                let path = format!("{path}/{}", entry.name);
                match entry.is_dir {
                    true => directories.push((path, entry, depth + 1)),
                    false => files.push((path, entry)),
                }
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(files)
    }

    fn file(&mut self, path: &str) -> Result<Entry, Iso9660Error> {
        let entry = self.find(path)?;
        match entry.is_dir {
            true => Err(Iso9660Error::WrongKind { path: path.to_owned(), expected: "file" }),
            false => Ok(entry),
        }
    }

    fn entries(&mut self, directory: &Entry) -> Result<Vec<Entry>, Iso9660Error> {
        let bytes = self.directory_bytes(directory)?;
        let entries = records(&bytes, self.skip).filter_map(|record| match record {
            Ok(Record::Entry(entry)) => Some(Ok(entry)),
            Ok(Record::Dot { .. } | Record::Parent) => None,
            Err(error) => Some(Err(error)),
        });
        entries.collect()
    }

    fn directory_bytes(&mut self, directory: &Entry) -> Result<Vec<u8>, Iso9660Error> {
        if directory.size > MAX_DIRECTORY {
            return Err(Iso9660Error::Corrupt { what: "a directory of over a megabyte" });
        }
        let mut bytes = Vec::new();
        self.content(directory)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn content(&mut self, entry: &Entry) -> Result<io::Take<&mut R>, Iso9660Error> {
        let start = u64::from(entry.sector) * SECTOR;
        // Sizes are 32 bits wide and sectors too, so this cannot overflow.
        if start + entry.size > self.length {
            return Err(Iso9660Error::Corrupt { what: "a file that lies beyond the image's end" });
        }
        self.source.seek(SeekFrom::Start(start))?;
        Ok(self.source.by_ref().take(entry.size))
    }
}

/// The volume descriptor of type 1; type 255 ends their sequence (ECMA-119 8.1).
fn primary_descriptor<R: Read + Seek>(
    source: &mut R,
    length: u64,
) -> Result<Vec<u8>, Iso9660Error> {
    for index in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
        if (index + 1) * SECTOR > length {
            break;
        }
        source.seek(SeekFrom::Start(index * SECTOR))?;
        let mut descriptor = vec![0; 2048];
        source.read_exact(&mut descriptor)?;
        if &descriptor[1..6] != b"CD001" {
            break;
        }
        match descriptor[0] {
            1 => return Ok(descriptor),
            255 => break,
            _ => {}
        }
    }
    Err(Iso9660Error::NotAnImage)
}

/// The records of a directory. None crosses a sector; a length of zero means that the rest of
/// the sector is unused (ECMA-119 6.8.1.1).
fn records(bytes: &[u8], skip: usize) -> impl Iterator<Item = Result<Record, Iso9660Error>> {
    bytes.chunks(2048).flat_map(move |sector| {
        let mut rest = sector;
        std::iter::from_fn(move || {
            let length = usize::from(*rest.first()?);
            if length == 0 {
                return None;
            }
            let Some((record, after)) = rest.split_at_checked(length) else {
                rest = &[];
                return Some(Err(Iso9660Error::Corrupt {
                    what: "a record that leaves its sector",
                }));
            };
            rest = after;
            Some(Record::parse(record, skip))
        })
    })
}
