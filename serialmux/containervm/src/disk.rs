//! A VM's own copy of an image's disk: shared blocks where the file system can, else only what is not a hole.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt as _},
    path::Path,
};

use rustix::{
    fs::{SeekFrom, ioctl_ficlone, seek},
    io::Errno,
    process::{Flock, FlockType, fcntl_getlk},
};

/// Bytes moved at once.
const CHUNK: usize = 1 << 20;

/// Whether a QEMU has the disk open: it locks some bytes of the file (QEMU's `docs/devel`, "image locking").
///
/// # Errors
/// When the file cannot be opened.
pub fn is_in_use(path: &Path) -> io::Result<bool> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut whole = Flock::from(FlockType::WriteLock);
    whole.length = 0;
    Ok(fcntl_getlk(&file, &whole)?.is_some())
}

/// Copies the disk at `from` to the new file `to`, which only the user can read.
///
/// # Errors
/// When either cannot be read or written; `to` is then not there.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().create_new(true).read(true).write(true).mode(0o600).open(to)?;
    let copied = match ioctl_ficlone(&target, &source) {
        Ok(()) => Ok(()),
        // Other file systems, and copies from one to another; whatever it is, copying tells.
        Err(_) => copy_data(&source, &target),
    };
    copied.inspect_err(|_| {
        // The copy's own failure is what matters.
        drop(std::fs::remove_file(to));
    })
}

/// Copies what lies between holes (`lseek(2)`, `SEEK_DATA`).
fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        let start = match seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = seek(source, SeekFrom::Hole(start))?.min(length);
        copy_range(source, target, start..at, &mut buffer)?;
    }
    Ok(())
}

fn copy_range(
    source: &File,
    target: &File,
    range: std::ops::Range<u64>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(buffer.len() as u64) as usize;
        let chunk = &mut buffer[..length];
        source.read_exact_at(chunk, at)?;
        target.write_all_at(chunk, at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn a_copy_is_equal_and_keeps_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(3 << 30).unwrap();
        for at in [0, 5 << 20, (3 << 30) - 6] {
            file.write_all_at(b"block!", at).unwrap();
        }
        copy(&from, &to).unwrap();
        let copied = File::open(&to).unwrap();
        assert_eq!(copied.metadata().unwrap().len(), 3 << 30);
        assert!(copied.metadata().unwrap().blocks() * 512 < 1 << 20);
        for at in [0, 5 << 20, (3 << 30) - 6] {
            let mut bytes = [0; 6];
            copied.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(&bytes, b"block!");
        }
        assert!(copy(&from, &to).is_err(), "never over another disk");
        assert!(fs::metadata(&to).is_err() || copied.metadata().unwrap().mode() & 0o777 == 0o600);
    }
}
