//! Finding a disk by the label of its file system, without udev: superblocks are read as devices appear.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::superblock;

/// The label of the disk that holds the container's root (VIC's name for it).
pub const CONTAINERFS: &str = "containerfs";

/// What the disk for a spool is awaited as. No file system can be labeled so: labels have 16 bytes.
pub const SPOOL: &str = guestinfo::SPOOL_LINE;

/// What a look at one block device found.
#[derive(Debug)]
pub enum Probe {
    /// An ext file system with this label.
    Ext(String),
    /// A disk that is there for a spool.
    Spool,
    /// Something else, or nothing.
    Other,
    /// A device that cannot be read, such as a drive without a medium.
    Unreadable(io::Error),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ext(label) if label.is_empty() => {
                write!(f, "an ext4 file system without a label")
            }
            Self::Ext(label) => write!(f, "an ext4 file system labeled {label:?}"),
            Self::Spool => write!(f, "for a spool"),
            Self::Other => write!(f, "no ext4 file system"),
            Self::Unreadable(error) => write!(f, "unreadable: {error}"),
        }
    }
}

/// Looks at one device by its node's name below `/dev`.
pub fn probe(name: &str) -> Probe {
    match read_start(&node(name)) {
        Ok(Some(start)) => recognize(&start),
        Ok(None) => Probe::Other,
        Err(error) => Probe::Unreadable(error),
    }
}

fn recognize(start: &[u8]) -> Probe {
    let rest = start.strip_prefix(SPOOL.as_bytes());
    // A file system that was made over it has left the line alone.
    match (superblock::label(start), rest) {
        (Some(label), _) => Probe::Ext(label),
        (None, Some([b'\n' | b'\r', ..])) => Probe::Spool,
        (None, _) => Probe::Other,
    }
}

/// The node of a device below `/dev`.
pub fn node(name: &str) -> PathBuf {
    // sysfs writes the slashes of node names as exclamation marks (`cciss!c0d0`).
    Path::new("/dev").join(name.replace('!', "/"))
}

/// One line per block device, for the report when the disk does not come.
pub fn survey() -> Vec<String> {
    present().into_iter().map(|name| format!("block device {name}: {}", probe(&name))).collect()
}

/// The names of all block devices, sorted.
pub fn present() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The bytes that hold the superblock; `None` for a device that is too small for one.
fn read_start(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Non-blocking: an open of a tray drive must not wait for the tray.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut start = vec![0; superblock::PROBE_LEN];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(Some(start)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spools_disk_begins_with_its_line_and_holds_no_file_system() {
        let disk = |line: &str| {
            let mut start = vec![0; superblock::PROBE_LEN];
            start[..line.len()].copy_from_slice(line.as_bytes());
            start
        };
        for line in ["# containervm spool\n", "# containervm spool\r\n"] {
            assert!(matches!(recognize(&disk(line)), Probe::Spool), "{line:?}");
        }
        for line in ["", "# containervm spool", "# containervm spools\n", " # containervm spool\n"]
        {
            assert!(matches!(recognize(&disk(line)), Probe::Other), "{line:?}");
        }
        let mut formatted = disk("# containervm spool\n");
        formatted[1024 + 0x38..1024 + 0x3A].copy_from_slice(&[0x53, 0xEF]);
        assert!(matches!(recognize(&formatted), Probe::Ext(_)));
    }
}
