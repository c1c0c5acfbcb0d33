//! A stretch of an open file: an archive, a layer inside one, or what a compressed one unpacked to.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

/// Bytes moved at once.
const CHUNK: usize = 128 * 1024;
/// Largest window a zstd frame may ask for, as memory is set aside for it: what `zstd` itself grants by default.
const MAX_WINDOW: usize = 128 << 20;

/// Why a blob could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Compressed in a way this program does not read.
    #[error("{name} is compressed with {format}; unpack it first, or use gzip or zstd")]
    Compression {
        /// What was read.
        name: String,
        /// The compression found.
        format: &'static str,
    },
    /// The compressed data is damaged.
    #[error("{name} is damaged: {reason} (after {done} bytes of its contents)")]
    Damaged {
        /// What was read.
        name: String,
        /// What the decoder said.
        reason: String,
        /// Bytes that could still be unpacked.
        done: u64,
    },
    /// Reading failed.
    #[error("cannot read {name}: {source}")]
    Read {
        /// What was read.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The unpacked contents could not be put anywhere.
    #[error("cannot unpack {name} into {place}: {source}")]
    Spool {
        /// What was read.
        name: String,
        /// The directory of the temporary file.
        place: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Bytes `offset..offset + length` of a file, under a name for messages.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The file, shared with whatever refers to its contents.
    pub file: Arc<File>,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// What to call it in messages.
    pub name: String,
}

impl Blob {
    /// All of a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, BlobError> {
        let name = path.display().to_string();
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) =
            open().map_err(|source| BlobError::Read { name: name.clone(), source })?;
        Ok(Self { file: Arc::new(file), offset: 0, length, name })
    }

    /// Fills `into` from position `at`.
    ///
    /// # Errors
    /// When the file ends before, or cannot be read.
    pub fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        if at.checked_add(into.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(into, self.offset + at)
    }

    /// The contents in order.
    #[must_use]
    pub fn reader(&self) -> BlobReader<'_> {
        BlobReader { blob: self, at: 0 }
    }

    /// All of it, if it is at most `limit` bytes long.
    ///
    /// # Errors
    /// When it is longer or cannot be read.
    pub fn read_all(&self, limit: u64) -> Result<Vec<u8>, BlobError> {
        let read = |source| BlobError::Read { name: self.name.clone(), source };
        if self.length > limit {
            return Err(read(io::Error::other(format!(
                "it is {} bytes long; at most {limit} make sense",
                self.length
            ))));
        }
        let mut bytes = vec![0; self.length as usize];
        self.read_at(&mut bytes, 0).map_err(read)?;
        Ok(bytes)
    }

    /// Its SHA-256 in hexadecimal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sha256(&self) -> Result<String, BlobError> {
        let mut hash = Sha256::new();
        let mut reader = self.reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = reader
                .read(&mut buffer)
                .map_err(|source| BlobError::Read { name: self.name.clone(), source })?;
            if n == 0 {
                return Ok(hex(&hash.finalize()));
            }
            hash.update(&buffer[..n]);
        }
    }

    /// Itself if it is not compressed, else what it unpacks to, in an unnamed file in `spool` that is gone with
    /// its last user.
    ///
    /// # Errors
    /// When it is damaged, compressed in another way than gzip or zstd, or `spool` has no room.
    pub fn unpacked(&self, spool: &Path) -> Result<Self, BlobError> {
        let mut head = [0; 6];
        let n = self.length.min(6) as usize;
        self.read_at(&mut head[..n], 0)
            .map_err(|source| BlobError::Read { name: self.name.clone(), source })?;
        match head {
            [0x1f, 0x8b, ..] => self.spool(spool, |out| self.gunzip(out)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                self.spool(spool, |out| self.unzstd(out))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => self.unknown("xz"),
            [b'B', b'Z', b'h', ..] => self.unknown("bzip2"),
            _ => Ok(self.clone()),
        }
    }

    fn unknown(&self, format: &'static str) -> Result<Self, BlobError> {
        Err(BlobError::Compression { name: self.name.clone(), format })
    }

    fn spool(
        &self,
        place: &Path,
        unpack: impl FnOnce(&mut Spool<'_>) -> Result<(), BlobError>,
    ) -> Result<Self, BlobError> {
        let failed = |source| BlobError::Spool {
            name: self.name.clone(),
            place: place.display().to_string(),
            source,
        };
        let mut file = tempfile::tempfile_in(place).map_err(failed)?;
        let mut spool = Spool { file: &mut file, blob: self, place, written: 0 };
        unpack(&mut spool)?;
        let length = spool.written;
        file.rewind().map_err(failed)?;
        Ok(Self { file: Arc::new(file), offset: 0, length, name: self.name.clone() })
    }

    fn gunzip(&self, out: &mut Spool<'_>) -> Result<(), BlobError> {
        let reader = io::BufReader::with_capacity(CHUNK, self.reader());
        out.take_all(&mut flate2::bufread::MultiGzDecoder::new(reader))
    }

    fn unzstd(&self, out: &mut Spool<'_>) -> Result<(), BlobError> {
        use ruzstd::decoding::{
            StreamingDecoder,
            errors::{FrameDecoderError, ReadFrameHeaderError},
        };
        let mut reader = io::BufReader::with_capacity(CHUNK, self.reader());
        loop {
            let at_end = io::BufRead::fill_buf(&mut reader)
                .map_err(|source| BlobError::Read { name: self.name.clone(), source })?
                .is_empty();
            if at_end {
                return Ok(());
            }
            let damaged =
                |reason: String, done| BlobError::Damaged { name: self.name.clone(), reason, done };
            let mut decoder =
                match StreamingDecoder::new_with_max_window_size(&mut reader, MAX_WINDOW as u64) {
                    Ok(decoder) => decoder,
                    Err(FrameDecoderError::ReadFrameHeaderError(
                        ReadFrameHeaderError::SkipFrame { length, .. },
                    )) => {
                        io::copy(&mut (&mut reader).take(u64::from(length)), &mut io::sink())
                            .map_err(|source| BlobError::Read {
                                name: self.name.clone(),
                                source,
                            })?;
                        continue;
                    }
                    Err(error) => return Err(damaged(error.to_string(), out.written)),
                };
            out.take_all(&mut decoder)?;
            let frame = decoder.into_frame_decoder();
            if let (Some(stored), Some(real)) =
                (frame.get_checksum_from_data(), frame.get_calculated_checksum())
                && stored != real
            {
                return Err(damaged(
                    "its contents do not match their checksum".into(),
                    out.written,
                ));
            }
        }
    }
}

/// Reads a [`Blob`] from its start.
#[derive(Debug)]
pub struct BlobReader<'a> {
    blob: &'a Blob,
    at: u64,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = (self.blob.length - self.at).min(into.len() as u64) as usize;
        let n = self.blob.file.read_at(&mut into[..n], self.blob.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// The temporary file that a blob is unpacked to.
struct Spool<'a> {
    file: &'a mut File,
    blob: &'a Blob,
    place: &'a Path,
    written: u64,
}

impl Spool<'_> {
    fn take_all(&mut self, from: &mut dyn Read) -> Result<(), BlobError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let (name, reason) = (self.blob.name.clone(), error.to_string());
                    return Err(BlobError::Damaged { name, reason, done: self.written });
                }
            };
            self.file.write_all(&buffer[..n]).map_err(|source| BlobError::Spool {
                name: self.blob.name.clone(),
                place: self.place.display().to_string(),
                source,
            })?;
            self.written += n as u64;
        }
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: &[u8]) -> Blob {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Blob { file: Arc::new(file), offset: 0, length: bytes.len() as u64, name: "x.tar".into() }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, BlobError> {
        blob(bytes).unpacked(&std::env::temp_dir())?.read_all(1 << 20)
    }

    #[test]
    fn members_of_gzip_and_frames_of_zstd_are_joined() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpacked(&two).unwrap(), b"one two");
        let frame = |bytes: &[u8]| {
            ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
        };
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9];
        let two = [frame(b"one ").as_slice(), &skipped, &frame(b"two")].concat();
        assert_eq!(unpacked(&two).unwrap(), b"one two");
    }

    #[test]
    fn damage_and_other_compressions_are_named() {
        let mut cut = gzip(&[7; 100_000]);
        cut.truncate(cut.len() - 12);
        let text = unpacked(&cut).unwrap_err().to_string();
        assert!(text.starts_with("x.tar is damaged"), "{text}");
        let text = unpacked(b"\xfd7zXZ\0rest").unwrap_err().to_string();
        assert!(text.contains("compressed with xz"), "{text}");
    }

    #[test]
    fn a_stretch_never_reads_beyond_itself() {
        let all = blob(b"0123456789");
        let part = Blob { offset: 2, length: 3, ..all };
        assert_eq!(part.read_all(10).unwrap(), b"234");
        let mut into = [0; 2];
        assert!(part.read_at(&mut into, 2).is_err() && part.read_at(&mut into, u64::MAX).is_err());
        assert_eq!(io::read_to_string(part.reader()).unwrap(), "234");
    }
}
