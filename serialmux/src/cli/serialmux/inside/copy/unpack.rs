//! A guest's tar archive, unpacked here. What it says is bounded and leads nowhere but below the target.

use anyhow::{Context, bail};
use bytes::{Buf, Bytes};
use std::cell::Cell;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path};
use std::rc::Rc;
use tokio::sync::mpsc;

/// What an entry may say of itself: its name, where it leads, attributes, the map of its holes.
const MAX_HEAD: u64 = 1 << 20;
/// What all directories together may say that wait for the end. The others are dressed at once.
const MAX_WAITING: u64 = 64 << 20;

/// Bytes that come in pieces, for a thread that reads them.
struct Incoming {
    pieces: mpsc::Receiver<Bytes>,
    held: Bytes,
    /// How much the archive's reader may take until somebody says more. It keeps heads whole, whatever their size.
    allowed: Rc<Cell<u64>>,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() {
            match self.pieces.blocking_recv() {
                Some(bytes) => self.held = bytes,
                None => return Ok(0),
            }
        }
        if self.allowed.get() == 0 {
            let why = format!("an entry says more than {MAX_HEAD} bytes of itself");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let allowed = usize::try_from(self.allowed.get()).unwrap_or(usize::MAX);
        let n = self.held.len().min(buffer.len()).min(allowed);
        self.held.copy_to_slice(&mut buffer[..n]);
        self.allowed.set(self.allowed.get() - n as u64);
        Ok(n)
    }
}

/// Unpacks below `directory`. The archive is a guest's and not to be trusted: `unpack_in` refuses whatever
/// would lead out of the directory, through links that it brings, too.
pub(super) fn unpack(
    pieces: mpsc::Receiver<Bytes>,
    directory: &Path,
    owners: bool,
) -> anyhow::Result<()> {
    let allowed = Rc::new(Cell::new(MAX_HEAD));
    let incoming = Incoming { pieces, held: Bytes::new(), allowed: Rc::clone(&allowed) };
    let mut archive = tar::Archive::new(incoming);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(owners);
    // Directories last: an unwritable one must not keep out what belongs in it.
    let mut waiting = Vec::new();
    let mut n_waiting = 0;
    let mut entries = archive.entries()?;
    loop {
        allowed.set(MAX_HEAD);
        let Some(entry) = entries.next() else { break };
        let n_head = MAX_HEAD - allowed.get();
        allowed.set(u64::MAX);
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let failed = || format!("{} cannot be copied to {}", path.display(), directory.display());
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            let place = directory.join(&path);
            if fs::symlink_metadata(&place).is_ok_and(|found| !found.is_dir()) {
                bail!("cannot overwrite non-directory {} with directory", place.display());
            }
            let is_clean =
                path.components().all(|it| matches!(it, Component::Normal(_) | Component::CurDir));
            if !is_clean {
                bail!("the archive has an entry {}, which is refused", path.display());
            }
            make_directory(directory, &path).with_context(failed)?;
            if n_waiting + n_head <= MAX_WAITING {
                n_waiting += n_head;
                waiting.push(entry);
                continue;
            }
        } else if !(kind.is_file()
            || kind.is_symlink()
            || kind.is_hard_link()
            || kind.is_gnu_sparse())
        {
            eprintln!("serialmux: {} is a device or a pipe and is left out", path.display());
            continue;
        }
        if !entry.unpack_in(directory).with_context(failed)? {
            bail!("the archive has an entry {}, which is refused", path.display());
        }
    }
    for mut entry in waiting.into_iter().rev() {
        entry.unpack_in(directory)?;
    }
    Ok(())
}

/// Makes the directory, one name at a time, through no link.
fn make_directory(base: &Path, path: &Path) -> io::Result<()> {
    let mut place = base.to_owned();
    for part in path.components() {
        if let Component::Normal(name) = part {
            place.push(name);
            match fs::create_dir(&place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !fs::symlink_metadata(&place)?.is_dir() {
                        return Err(io::ErrorKind::NotADirectory.into());
                    }
                }
                result => result?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::EntryType;

    fn unpacked(archive: &[u8], to: &Path) -> anyhow::Result<()> {
        let (sender, pieces) = mpsc::channel(archive.len() / 4096 + 1);
        for piece in archive.chunks(4096) {
            sender.blocking_send(Bytes::copy_from_slice(piece)).expect("there is room");
        }
        drop(sender);
        unpack(pieces, to, false)
    }

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        header
    }

    #[test]
    fn a_guests_archive_cannot_leave_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        for (name, kind) in [("way/made", EntryType::Directory), ("way/file", EntryType::Regular)] {
            let mut evil = tar::Builder::new(Vec::new());
            evil.append_link(&mut header(EntryType::Symlink, 0), "way", "..").unwrap();
            evil.append_data(&mut header(kind, 0), name, io::empty()).unwrap();
            assert!(unpacked(&evil.into_inner().unwrap(), &to).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_entry_says_no_more_of_itself_than_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let attributes = |len: usize| {
            let mut archive = tar::Builder::new(Vec::new());
            let long = vec![b'x'; len];
            archive.append_pax_extensions([("comment", long.as_slice())]).unwrap();
            archive.append_data(&mut header(EntryType::Regular, 2), "file", &b"ab"[..]).unwrap();
            archive.into_inner().unwrap()
        };
        let most = usize::try_from(MAX_HEAD).unwrap() - 4096;
        unpacked(&attributes(most), dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"ab");
        let refused = |archive: &[u8]| format!("{:#}", unpacked(archive, dir.path()).unwrap_err());
        let more = refused(&attributes(most + 8192));
        assert!(more.contains("more than 1048576 bytes of itself"), "{more}");
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            // Endless, as far as the reader can tell.
            let mut archive = header(kind, 1 << 40).as_bytes().to_vec();
            archive.resize(archive.len() + 2 * most, b'x');
            let endless = refused(&archive);
            assert!(endless.contains("more than 1048576 bytes of itself"), "{kind:?}: {endless}");
        }
    }

    #[test]
    fn directories_are_dressed_however_many_there_are() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let long = vec![b'x'; usize::try_from(MAX_HEAD).unwrap() - 4096];
        let n = MAX_WAITING / MAX_HEAD + 4;
        for number in 0..n {
            archive.append_pax_extensions([("comment", long.as_slice())]).unwrap();
            let mut head = header(EntryType::Directory, 0);
            head.set_mode(0o711);
            archive.append_data(&mut head, number.to_string(), io::empty()).unwrap();
        }
        unpacked(&archive.into_inner().unwrap(), dir.path()).unwrap();
        for number in 0..n {
            let made = fs::metadata(dir.path().join(number.to_string())).unwrap();
            assert_eq!(made.permissions().mode() & 0o777, 0o711, "{number}");
        }
    }
}
