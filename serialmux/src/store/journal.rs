//! A container's output on disk: append-only, found whole again after a crash, read at any speed.
//!
//! The daemon appends and syncs; each reader has a position of its own and reads the file, so no
//! reader can slow the container or another reader.

use super::record::{self, MAGIC, Place, Record, Taken};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use wire::STATE_LEN;

const READ_STEP: usize = 256 * 1024;
/// A batch of so many bytes is to be written before more is added to it.
pub const FULL: usize = 1024 * 1024;

/// A journal that cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("journal {path}: {source}")]
    Io {
        /// The journal's file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Not a journal, or one of a newer format.
    #[error("journal {path} does not start with `cvmlog3`: not a journal, or of a newer version")]
    Magic {
        /// The file.
        path: PathBuf,
    },
}

/// How far one channel got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Where the guest is to go on.
    pub place: Place,
    /// The offset of its end and the digest of all of it, if that was reached.
    pub ended: Option<(u64, [u8; STATE_LEN])>,
}

/// The one writer of a journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    len: u64,
    batch: Vec<u8>,
    boot: Option<[u8; 16]>,
    channels: BTreeMap<u32, Progress>,
}

impl Journal {
    /// Opens or makes the journal at `path`; whatever is damaged at its end is cut off.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        let mut journal = Self {
            path: path.to_owned(),
            len: 0,
            batch: Vec::new(),
            boot: None,
            channels: BTreeMap::new(),
            file: file.try_clone().map_err(io)?,
        };
        if file.metadata().map_err(io)?.len() < MAGIC.len() as u64 {
            file.set_len(0).map_err(io)?;
            file.write_all(MAGIC).map_err(io)?;
        }
        journal.recover(&mut file)?;
        file.set_len(journal.len).map_err(io)?;
        file.sync_all().map_err(io)?;
        journal.file.seek(SeekFrom::Start(journal.len)).map_err(io)?;
        Ok(journal)
    }

    fn recover(&mut self, file: &mut File) -> Result<(), JournalError> {
        let path = self.path.clone();
        let io = |source| JournalError::Io { path: path.clone(), source };
        let mut magic = [0; 8];
        file.rewind().map_err(io)?;
        file.read_exact(&mut magic).map_err(io)?;
        if magic != *MAGIC {
            return Err(JournalError::Magic { path });
        }
        self.len = MAGIC.len() as u64;
        let mut held = BytesMut::new();
        let mut step = vec![0; READ_STEP];
        loop {
            let n = file.read(&mut step).map_err(io)?;
            held.extend_from_slice(step.get(..n).unwrap_or_default());
            let mut whole = held.split().freeze();
            loop {
                match record::take(&whole) {
                    Taken::Record(record, taken) => {
                        self.note(&record);
                        self.len += taken as u64;
                        whole = whole.slice(taken..);
                    }
                    Taken::Damage => return Ok(()),
                    Taken::More => break,
                }
            }
            if n == 0 {
                return Ok(());
            }
            held.extend_from_slice(&whole);
        }
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::Begin { boot, channel } => {
                if self.boot != Some(*boot) {
                    self.boot = Some(*boot);
                    self.channels.clear();
                }
                self.channels.insert(*channel, Progress::default());
            }
            Record::Output { channel, place, .. } | Record::Gap { channel, place, .. } => {
                self.channels.entry(*channel).or_default().place = *place;
            }
            Record::End { channel, length, digest } => {
                self.channels.entry(*channel).or_default().ended = Some((*length, *digest));
            }
            // What came over it belongs to a guest that is no more.
            Record::Rollback { channel, .. } => _ = self.channels.remove(channel),
        }
    }

    /// Where `channel` of `boot` got to, if it is in the journal.
    pub fn progress(&self, boot: [u8; 16], channel: u32) -> Option<Progress> {
        (self.boot == Some(boot)).then(|| self.channels.get(&channel).copied()).flatten()
    }

    /// Whether a channel of `boot` has come to its end, behind so many bytes.
    pub fn has_ended(&self, boot: &[u8], length: u64) -> bool {
        let is_end = |progress: &Progress| progress.ended.is_some_and(|(end, _)| end >= length);
        self.boot.is_some_and(|it| it == boot) && self.channels.values().any(is_end)
    }

    /// Whether there is something that is not written.
    pub fn has_batch(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Bytes that are not written.
    pub fn waiting(&self) -> usize {
        self.batch.len()
    }

    /// Adds a record to the batch.
    pub fn push(&mut self, record: &Record) {
        self.note(record);
        record::put(record, &mut self.batch);
    }

    /// Writes the batch, so that readers see it; returns the journal's length.
    ///
    /// # Errors
    /// [`JournalError::Io`]; what could not be written is kept and tried again by the next call.
    pub fn write(&mut self) -> Result<u64, JournalError> {
        let written = self.file.write_all_at(&self.batch, self.len);
        written.map_err(|source| JournalError::Io { path: self.path.clone(), source })?;
        self.len += self.batch.len() as u64;
        self.batch.clear();
        Ok(self.len)
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing but the magic is in it.
    pub fn is_empty(&self) -> bool {
        self.len <= MAGIC.len() as u64
    }

    /// A handle to make what was written durable with (`fdatasync`) on another thread.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn handle(&self) -> Result<File, JournalError> {
        self.file.try_clone().map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

/// One reader of a journal.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    file: File,
    position: u64,
}

impl Cursor {
    /// A reader at the start of the journal at `path`.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, position: MAGIC.len() as u64 })
    }

    /// Goes to `position`, which must be the end of a record.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// Where the reader is.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next records below `end`, some tens of kilobytes of them; empty when there are none.
    ///
    /// # Errors
    /// [`JournalError::Io`], also for damage below `end`.
    pub fn read(&mut self, end: u64) -> Result<Vec<Record>, JournalError> {
        Ok(self.read_placed(end)?.into_iter().map(|(_, record)| record).collect())
    }

    /// As [`read`](Self::read), with the position behind each record, from which a reader that was
    /// interrupted goes on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_placed(&mut self, end: u64) -> Result<Vec<(u64, Record)>, JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        let want = usize::try_from(end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if want == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = vec![0; want.min(READ_STEP)];
        let n = self.file.read_at(&mut buffer, self.position).map_err(io)?;
        buffer.truncate(n);
        let mut rest = Bytes::from(buffer);
        let mut records = Vec::new();
        loop {
            match record::take(&rest) {
                Taken::Record(record, taken) => {
                    self.position += taken as u64;
                    rest = rest.slice(taken..);
                    records.push((self.position, record));
                }
                Taken::More if !records.is_empty() => return Ok(records),
                Taken::More | Taken::Damage => {
                    return Err(io(io::Error::new(io::ErrorKind::InvalidData, "damaged record")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::chunk::Stream;

    const BOOT: [u8; 16] = [3; 16];

    fn output(segment: u64, bytes: &'static [u8]) -> Record {
        let bytes = Bytes::from_static(bytes);
        let place = Place { segment, before_us: segment, stored: 10, ..Place::default() };
        Record::Output { channel: 2, place, stream: Stream::Stdout, time_us: segment, bytes }
    }

    fn filled(path: &Path) -> Journal {
        let mut journal = Journal::open(path).unwrap();
        journal.push(&Record::Begin { boot: BOOT, channel: 2 });
        (1..=50).for_each(|i| journal.push(&output(i * 10, b"0123456789")));
        journal.write().unwrap();
        journal
    }

    #[test]
    fn a_journal_cut_anywhere_is_recovered_to_its_last_whole_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let whole = filled(&path).len();
        for cut in [whole - 1, whole - 20, whole / 2, 9, 3] {
            filled(&path);
            File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
            let journal = Journal::open(&path).unwrap();
            let next = journal.progress(BOOT, 2).map_or(0, |p| p.place.segment);
            let mut cursor = Cursor::open(&path).unwrap();
            let records = cursor.read(journal.len()).unwrap();
            let last = records.iter().rev().find_map(|r| match r {
                Record::Output { place, .. } => Some(place.segment),
                _ => None,
            });
            assert_eq!(last.unwrap_or(0), next);
            assert!(journal.len() <= cut.max(8));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn another_boot_starts_from_zero() {
        let dir = tempfile::tempdir().unwrap();
        let journal = filled(&dir.path().join("j"));
        assert_eq!(journal.progress(BOOT, 2).unwrap().place.segment, 500);
        assert_eq!(journal.progress([4; 16], 2), None);
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        std::fs::write(&path, "precious data").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Magic { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious data");
    }
}
