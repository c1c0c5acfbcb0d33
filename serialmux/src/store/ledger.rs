//! Whose input went where: which bytes of which client are which bytes of the guest's input channel.
//!
//! A client keeps its input until the guest has taken it, and comes back with a token when the daemon
//! was restarted. The guest knows how many bytes of the channel it has; from this file the new daemon
//! knows which bytes of which client those were, so that each is passed on once.
//!
//! An entry is written before its bytes are given to the link. It need not survive a crash of the
//! machine, which ends the clients too, so nothing is synced.
//!
//! ```text
//! +---------+----------+------------+------------+--------+------------+
//! | channel | token 16 | at client 8| at guest 8 | len 4  | CRC-32C 4  |  little-endian
//! | 4       |          |            |            |        |            |
//! +---------+----------+------------+------------+--------+------------+
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A client, by what it calls itself.
pub type Token = [u8; 16];

const ENTRY: usize = 44;
/// Entries after which the file is written anew with those that still matter.
const MAX_ENTRIES: usize = 4096;
/// Clients remembered; the one that was idle longest is forgotten beyond that.
const MAX_CLIENTS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    channel: u32,
    token: Token,
    at_client: u64,
    at_guest: u64,
    len: u32,
}

impl Entry {
    fn end(&self) -> u64 {
        self.at_guest + u64::from(self.len)
    }

    /// How far the client's input is with the guest, when that has everything below `guest`.
    fn reaches(&self, guest: u64) -> u64 {
        self.at_client + guest.saturating_sub(self.at_guest).min(u64::from(self.len))
    }

    fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..4].copy_from_slice(&self.channel.to_le_bytes());
        bytes[4..20].copy_from_slice(&self.token);
        bytes[20..28].copy_from_slice(&self.at_client.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.at_guest.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.len.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (channel, rest) = body.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (at_client, rest) = rest.split_first_chunk()?;
        let (at_guest, len) = rest.split_first_chunk()?;
        Some(Self {
            channel: u32::from_le_bytes(*channel),
            token: *token,
            at_client: u64::from_le_bytes(*at_client),
            at_guest: u64::from_le_bytes(*at_guest),
            len: u32::from_le_bytes(len.try_into().ok()?),
        })
    }
}

/// The ledger of one container's run.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
    n_written: usize,
    /// In order of `at_guest`, without overlap; of what the guest has taken, only each client's last.
    entries: Vec<Entry>,
}

impl Ledger {
    /// Reads the ledger at `path`, if there is one; what is torn at its end was never acted on.
    ///
    /// # Errors
    /// As the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut ledger =
            Self { path: path.to_owned(), file: None, n_written: 0, entries: Vec::new() };
        for entry in bytes.chunks(ENTRY).map_while(Entry::decode) {
            ledger.take(entry);
            ledger.n_written += 1;
        }
        Ok(ledger)
    }

    /// Whether nobody's input has gone anywhere.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that `len` bytes of a client, from `at_client` on, become the channel's from `at_guest` on.
    ///
    /// # Errors
    /// As the file system says; the bytes must not be passed on then.
    pub fn place(
        &mut self,
        channel: u32,
        token: Token,
        at_client: u64,
        at_guest: u64,
        len: usize,
    ) -> io::Result<()> {
        let len = u32::try_from(len).map_err(io::Error::other)?;
        let entry = Entry { channel, token, at_client, at_guest, len };
        if self.n_written >= MAX_ENTRIES.max(2 * self.entries.len()) {
            self.rewrite()?;
        }
        self.append(&entry)?;
        self.take(entry);
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut options = File::options();
                options.write(true).create(true).truncate(false).mode(0o600);
                none.insert(options.open(&self.path)?)
            }
        };
        file.write_all_at(&entry.encode(), (self.n_written * ENTRY) as u64)?;
        self.n_written += 1;
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let temp = self.path.with_extension("new");
        let bytes: Vec<u8> = self.entries.iter().flat_map(Entry::encode).collect();
        fs::write(&temp, bytes)?;
        fs::rename(&temp, &self.path)?;
        self.file = None;
        self.n_written = self.entries.len();
        Ok(())
    }

    // A guest that has less than was thought gets other bytes for what it lacks: the later entry is the
    // one that holds.
    fn take(&mut self, entry: Entry) {
        self.entries.retain(|before| before.channel == entry.channel);
        self.cut(entry.at_guest);
        if let Some(last) = self.entries.last_mut()
            && last.token == entry.token
            && last.end() == entry.at_guest
            && last.reaches(u64::MAX) == entry.at_client
            && let Some(len) = last.len.checked_add(entry.len)
        {
            last.len = len;
            return;
        }
        self.entries.push(entry);
    }

    fn cut(&mut self, end: u64) {
        self.entries.retain(|entry| entry.at_guest <= end);
        for entry in &mut self.entries {
            let keep = end.saturating_sub(entry.at_guest);
            entry.len = entry.len.min(u32::try_from(keep).unwrap_or(u32::MAX));
        }
    }

    /// The guest has `next` bytes of this channel: what was placed behind them is lost and will come
    /// again. Of another channel than the one known so far, nothing is known.
    pub fn resume(&mut self, channel: u32, next: u64) {
        self.entries.retain(|entry| entry.channel == channel);
        self.cut(next);
    }

    /// The guest has taken everything below `taken` for good.
    pub fn taken(&mut self, taken: u64) {
        let mut last: BTreeMap<Token, u64> = BTreeMap::new();
        for entry in &self.entries {
            last.insert(entry.token, entry.at_guest);
        }
        let is_last = |entry: &Entry| last.get(&entry.token) == Some(&entry.at_guest);
        self.entries.retain(|entry| entry.end() > taken || is_last(entry));
        if last.len() > MAX_CLIENTS
            && let Some(idle) = self.entries.first().filter(|entry| entry.end() <= taken).copied()
        {
            self.entries.retain(|entry| entry.token != idle.token);
        }
    }

    /// For each client, how much of its input is among the first `guest` bytes of the channel.
    pub fn progress(&self, guest: u64) -> BTreeMap<Token, u64> {
        let mut progress = BTreeMap::new();
        for entry in &self.entries {
            let reaches = progress.entry(entry.token).or_insert(entry.at_client);
            if entry.at_guest <= guest {
                *reaches = entry.reaches(guest);
            }
        }
        progress
    }

    /// A new run begins.
    ///
    /// # Errors
    /// As the file system says.
    pub fn clear(&mut self) -> io::Result<()> {
        self.entries.clear();
        (self.file, self.n_written) = (None, 0);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Token = [1; 16];
    const B: Token = [2; 16];

    fn ledger(dir: &tempfile::TempDir) -> Ledger {
        Ledger::open(&dir.path().join("inputs")).unwrap()
    }

    #[test]
    fn each_client_learns_how_much_of_its_input_the_guest_has() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = ledger(&dir);
        first.place(7, A, 0, 0, 10).unwrap();
        first.place(7, A, 10, 10, 10).unwrap();
        first.place(7, B, 0, 20, 5).unwrap();
        first.place(7, A, 20, 25, 100).unwrap();
        for (guest, a, b) in [(0, 0, 0), (15, 15, 0), (22, 20, 2), (30, 25, 5), (200, 120, 5)] {
            let mut again = ledger(&dir);
            again.resume(7, guest);
            let progress = again.progress(guest);
            assert_eq!(progress[&A], a, "of A, with {guest} at the guest");
            assert_eq!(progress.get(&B).copied().unwrap_or(0), b, "of B, with {guest}");
        }
    }

    #[test]
    fn what_was_lost_is_placed_again_and_the_later_entry_holds() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = ledger(&dir);
        first.place(7, A, 0, 0, 100).unwrap();
        let mut second = ledger(&dir);
        second.resume(7, 40);
        second.place(7, B, 0, 40, 10).unwrap();
        second.place(7, A, 40, 50, 60).unwrap();
        let third = ledger(&dir);
        let progress = third.progress(60);
        assert_eq!((progress[&A], progress[&B]), (50, 10));
    }

    #[test]
    fn the_file_stays_small_and_still_knows() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = ledger(&dir);
        for i in 0..10_000 {
            // Never next to each other, so that none are put together.
            first.place(7, if i % 2 == 0 { A } else { B }, i, i, 1).unwrap();
            first.taken(i);
        }
        let size = fs::metadata(dir.path().join("inputs")).unwrap().len();
        assert!(size <= (MAX_ENTRIES * ENTRY) as u64, "{size} bytes");
        assert_eq!(ledger(&dir).progress(10_000), first.progress(10_000));
        assert_eq!(first.progress(10_000)[&B], 10_000);
    }

    #[test]
    fn another_channel_and_a_torn_end_are_nothing_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = ledger(&dir);
        first.place(7, A, 0, 0, 10).unwrap();
        first.place(7, B, 0, 10, 10).unwrap();
        let path = dir.path().join("inputs");
        let torn = fs::metadata(&path).unwrap().len() - 1;
        File::options().write(true).open(&path).unwrap().set_len(torn).unwrap();
        assert_eq!(ledger(&dir).progress(99), BTreeMap::from([(A, 10)]));
        let mut other = ledger(&dir);
        other.resume(8, 0);
        assert!(other.is_empty());
        first.clear().unwrap();
        assert!(ledger(&dir).is_empty());
    }
}
