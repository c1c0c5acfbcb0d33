//! The spool's disk, and the child that waits for it.
//!
//! ```text
//!  agent ── write, read ──▶ socket ──▶ child ──▶ disk
//!        ◀── done, bytes ──        ◀──
//! ```
//!
//! A disk may be slow or never answer, and the agent must not wait. So a child of the agent does: it takes one
//! message after the other, writes or reads past the kernel's own memory, and answers. It knows nothing of
//! what the bytes mean, and ends when the agent's end of the socket is closed.
//!
//! ```text
//! +------+---------+------------------+-------------+----------------+
//! | kind | 3 zeros | length, or errno | place       | bytes          |
//! | 1    |         | 4, little-endian | 8, likewise | pages, or none |
//! +------+---------+------------------+-------------+----------------+
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ring::{MAX_RECORD, PAGE};
use crate::stdio;
use crate::sys::{self, Cloned};

/// A message's head.
pub(super) const HEAD: usize = 16;

/// The first page holds what the disk is known by, and is never written.
const FIRST: u64 = PAGE as u64;

/// Fewer pages are no use: one record would be there, and another on its way.
const LEAST: u64 = 4 * (MAX_RECORD / PAGE) as u64;

/// Why there can be no spool on a disk.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// It cannot be written to.
    #[error("the spool's disk {path} cannot be used: {error}")]
    Open {
        /// Its node.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// There is no room on it.
    #[error(
        "the spool's disk {path} has {bytes} bytes, which is too few; at least {} are needed",
        FIRST + LEAST * PAGE as u64
    )]
    Small {
        /// Its node.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// There can be no child.
    #[error("the spool cannot {step}: {errno}")]
    Machine {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

/// For `map_err`: what the kernel said to a step.
pub(super) fn machine(step: &'static str) -> impl FnOnce(Errno) -> SpoolError {
    move |errno| SpoolError::Machine { step, errno }
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write = 1,
    Read = 2,
}

/// A message's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    /// Of a question the bytes to write or read, of an answer the kernel's number, or 0.
    pub number: u32,
    /// Where on the disk, behind its first page.
    pub place: u64,
}

impl Head {
    pub(super) fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.place.to_le_bytes());
        bytes
    }

    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let (head, _) = message.split_first_chunk::<HEAD>()?;
        let kind = match head[0] {
            1 => Kind::Write,
            2 => Kind::Read,
            _ => return None,
        };
        let number = u32::from_le_bytes(*head[4..].first_chunk()?);
        Some(Self { kind, number, place: u64::from_le_bytes(*head[8..].first_chunk()?) })
    }
}

/// What carries out messages, one after the other.
pub trait Drive: fmt::Debug {
    /// Gives it a message.
    ///
    /// # Errors
    ///
    /// When it takes none, now or ever.
    fn ask(&mut self, message: &[u8]) -> io::Result<()>;

    /// Puts its next answer into `into`; `false` when there is none yet.
    ///
    /// # Errors
    ///
    /// When there will never be one.
    fn answer(&mut self, into: &mut Vec<u8>) -> io::Result<bool>;

    /// Ready when there may be an answer; else the context's task is woken then.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// A child with a disk.
#[derive(Debug)]
pub(super) struct Child {
    socket: AsyncFd<OwnedFd>,
}

impl Child {
    /// Starts one; also how many pages the disk has for records.
    pub(super) fn start(node: &Path) -> Result<(Self, u64), SpoolError> {
        let (disk, pages) = open(node)?;
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (socket, childs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)
            .map_err(machine("make a socket"))?;
        // Between birth and reset, the child must not run the agent's signal handlers.
        let mask = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(machine("block signals"))?;
        let cloned = sys::clone_process(0, None);
        if matches!(cloned, Ok(Cloned::Child)) {
            run(&childs, &disk, pages);
        }
        mask.thread_set_mask().map_err(machine("unblock signals"))?;
        cloned.map_err(machine("make a process"))?;
        Ok((Self::at(socket)?, pages))
    }

    fn at(socket: OwnedFd) -> Result<Self, SpoolError> {
        Ok(Self { socket: stdio::watch(socket).map_err(machine("watch a socket"))? })
    }
}

impl Drive for Child {
    fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        // A message is taken whole or not at all. There is room for it: no more than two are ever on their way.
        Ok(write(self.socket.get_ref(), message).map(drop)?)
    }

    fn answer(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        into.resize(HEAD + MAX_RECORD, 0);
        loop {
            match self.socket.try_io(Interest::READABLE, |fd| Ok(read(fd, into)?)) {
                Ok(0) => return Err(io::Error::other("its process has ended")),
                Ok(len) => {
                    into.truncate(len);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_read_ready(context).map(drop)
    }
}

/// For this alone: a disk that something is mounted from is refused by the kernel.
fn open(node: &Path) -> Result<(File, u64), SpoolError> {
    let failed = |error| SpoolError::Open { path: node.to_owned(), error };
    let with = |flags| File::options().read(true).write(true).custom_flags(flags).open(node);
    let mut disk = match with(libc::O_EXCL | libc::O_DIRECT) {
        // What cannot do without the kernel's own memory.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => with(libc::O_EXCL),
        result => result,
    }
    .map_err(failed)?;
    let bytes = disk.seek(SeekFrom::End(0)).map_err(failed)?;
    let pages = bytes.saturating_sub(FIRST) / PAGE as u64;
    if pages < LEAST {
        return Err(SpoolError::Small { path: node.to_owned(), bytes });
    }
    Ok((disk, pages))
}

/// The child's life.
fn run(socket: &OwnedFd, disk: &File, pages: u64) -> ! {
    sys::reset_signals();
    sys::close_all_but(vec![socket.as_raw_fd(), disk.as_raw_fd()]);
    // The agent sees that the socket is closed; there is nobody else to tell.
    let _told_by_the_end = serve(socket, disk, pages);
    sys::exit_now(0)
}

/// Carries out what comes, until nothing more can.
fn serve(socket: &OwnedFd, disk: &File, pages: u64) -> io::Result<()> {
    // Past the kernel's memory only whole pages at whole pages of this process's memory can be moved; a head
    // stands before the first.
    let mut memory = vec![0; 2 * PAGE + MAX_RECORD];
    let first = memory.as_ptr().align_offset(PAGE) + PAGE;
    let (start, end) = (first - HEAD, first + MAX_RECORD);
    loop {
        if read(socket, &mut memory[start..end])? == 0 {
            return Ok(());
        }
        let odd = || io::Error::from(io::ErrorKind::InvalidData);
        let head = Head::parse(&memory[start..]).ok_or_else(odd)?;
        let bytes = memory.get_mut(first..first + head.number as usize).ok_or_else(odd)?;
        let done = move_pages(disk, pages * PAGE as u64, head, bytes);
        let answered = if head.kind == Kind::Read && done.is_ok() { bytes.len() } else { 0 };
        let number = match done {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO).cast_unsigned(),
        };
        memory[start..first].copy_from_slice(&Head { number, ..head }.to_bytes());
        write(socket, &memory[start..first + answered])?;
    }
}

/// Writes or reads, going on at the start where the disk ends.
fn move_pages(disk: &File, size: u64, head: Head, bytes: &mut [u8]) -> io::Result<()> {
    let until_end = usize::try_from(size.saturating_sub(head.place)).unwrap_or(usize::MAX);
    let (before, behind) = bytes.split_at_mut(until_end.min(bytes.len()));
    for (piece, place) in [(before, head.place), (behind, 0)] {
        if piece.is_empty() {
            continue;
        }
        match head.kind {
            Kind::Write => disk.write_all_at(piece, FIRST + place)?,
            Kind::Read => disk.read_exact_at(piece, FIRST + place)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn message(kind: Kind, place: u64, len: usize, bytes: &[u8]) -> Vec<u8> {
        let head = Head { kind, number: u32::try_from(len).unwrap(), place };
        [&head.to_bytes(), bytes].concat()
    }

    async fn answered(child: &mut Child) -> Result<(Head, Vec<u8>), io::Error> {
        let mut message = Vec::new();
        while !child.answer(&mut message)? {
            poll_fn(|context| child.poll_ready(context)).await;
        }
        Ok((Head::parse(&message).expect("a head"), message.split_off(HEAD)))
    }

    /// A disk of that many pages, served by a thread: a test's process cannot be copied.
    fn served(pages: u64) -> (Child, std::thread::JoinHandle<io::Result<()>>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(FIRST + pages * PAGE as u64).unwrap();
        file.write_all_at(b"name", 0).unwrap();
        let (disk, found) = open(&path).unwrap();
        assert_eq!(found, pages);
        let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (own, other) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        let thread = std::thread::spawn(move || serve(&other, &disk, pages));
        (Child::at(own).unwrap(), thread, dir)
    }

    #[tokio::test]
    async fn what_is_written_is_read_back_also_around_the_end_and_the_first_page_stays() {
        let (mut child, thread, dir) = served(64);
        let bytes: Vec<u8> = (0..MAX_RECORD).map(|i| (i % 251) as u8).collect();
        for place in [0, 60 * PAGE as u64] {
            child.ask(&message(Kind::Write, place, bytes.len(), &bytes)).unwrap();
            // The next question need not wait for the answer.
            child.ask(&message(Kind::Read, place, bytes.len(), &[])).unwrap();
            let done = Head { kind: Kind::Write, number: 0, place };
            assert_eq!(answered(&mut child).await.unwrap(), (done, Vec::new()));
            let done = Head { kind: Kind::Read, number: 0, place };
            assert_eq!(answered(&mut child).await.unwrap(), (done, bytes.clone()));
        }
        drop(child);
        thread.join().unwrap().expect("it ends with the socket");
        let disk = std::fs::read(dir.path().join("disk")).unwrap();
        assert_eq!((&disk[..4], disk.len()), (&b"name"[..], 65 * PAGE));
        assert_eq!(disk[PAGE..PAGE + 12 * PAGE], bytes[4 * PAGE..], "what went around the end");
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_told_and_a_child_that_ends_is_noticed() {
        let (mut child, thread, dir) = served(64);
        File::options().write(true).open(dir.path().join("disk")).unwrap().set_len(FIRST).unwrap();
        child.ask(&message(Kind::Read, 0, PAGE, &[])).unwrap();
        let (head, bytes) = answered(&mut child).await.unwrap();
        assert!(head.number != 0 && bytes.is_empty(), "{head:?}");
        child.ask(b"nonsense").unwrap();
        let error = answered(&mut child).await.unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn a_disk_that_is_too_small_or_not_there_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        File::create(&path).unwrap().set_len(100_000).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("small") && error.contains("100000 bytes"), "{error}");
        let error = open(&dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none cannot be used"), "{error}");
    }
}
