//! The byte pipe to the multiplexer: the first serial port, raw, exclusive, in small pieces.
//!
//! The kernel's tty queue holds 4 KiB, which is 68 ms of line; what sits there can no longer be overtaken by
//! something more urgent. So the line is handed at most [`PIECE`] bytes each time the queue has run down to
//! its wake-up mark (256 bytes, `WAKEUP_CHARS` in `drivers/tty/n_tty.c` and the serial core).

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{ControlFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{read, write};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The port that belongs to the multiplexer.
pub const PORT: &str = "/dev/ttyS0";

/// The most that is committed to the tty queue at once.
pub const PIECE: usize = 512;

/// Bits per second. QEMU ignores it for sending, but it sets the receive timeout of the FIFO (four character
/// times), and VMware paces pipes by it.
const BAUD: u32 = 115_200;

/// Why there is no line.
#[derive(Debug, Error)]
pub enum LineError {
    /// The port cannot be opened or configured.
    #[error(
        "serial port {PORT} cannot be used: {0}; the VM needs serial0 connected to the multiplexer"
    )]
    Port(#[from] tokio_serial::Error),
    /// The port cannot be watched.
    #[error(
        "serial port {PORT} cannot be used: {0}; the VM needs serial0 connected to the multiplexer"
    )]
    Io(#[from] io::Error),
}

/// The open port.
#[derive(Debug)]
pub struct Line {
    fd: AsyncFd<OwnedFd>,
}

impl Line {
    /// Opens and configures the port.
    ///
    /// # Errors
    ///
    /// [`LineError`].
    pub fn open() -> Result<Self, LineError> {
        let port = tokio_serial::new(PORT, BAUD).exclusive(true).open_native()?;
        let fd = sys::own(port.into_raw_fd());
        let mut settings = tcgetattr(&fd).map_err(io::Error::from)?;
        // Closing the port must not drop the modem lines: the other end would see a hang-up.
        settings.control_flags.remove(ControlFlags::HUPCL | ControlFlags::CRTSCTS);
        tcsetattr(&fd, SetArg::TCSANOW, &settings).map_err(io::Error::from)?;
        Ok(Self::over(fd)?)
    }

    /// Uses a descriptor that is already set up.
    pub(crate) fn over(fd: OwnedFd) -> io::Result<Self> {
        crate::stdio::set_nonblocking(&fd)?;
        Ok(Self { fd: sys::watch(fd)? })
    }

    /// Waits until there may be something to read.
    ///
    /// # Errors
    ///
    /// The runtime's.
    ///
    /// # Cancel safety
    ///
    /// Takes nothing.
    pub async fn readable(&self) -> io::Result<()> {
        self.fd.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Waits until the queue may take another piece.
    ///
    /// # Errors
    ///
    /// The runtime's.
    ///
    /// # Cancel safety
    ///
    /// Gives nothing.
    pub async fn writable(&self) -> io::Result<()> {
        self.fd.writable().await.map(|mut ready| ready.retain_ready())
    }

    /// Reads what is there; `None` when there is nothing now.
    ///
    /// # Errors
    ///
    /// The port's.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.fd.try_io(Interest::READABLE, |fd| Ok(read(fd, buffer)?)) {
            // A raw tty without a sender has no end; zero bytes only say that nothing is there.
            Ok(len) => Ok((len > 0).then_some(len)),
            Err(error) => later(error),
        }
    }

    /// Whether the queue has run down far enough for another piece.
    ///
    /// # Errors
    ///
    /// The port's.
    pub fn has_room(&self) -> io::Result<bool> {
        let result = self.fd.try_io(Interest::WRITABLE, |fd| match has_room(fd)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        });
        match result {
            Ok(()) => Ok(true),
            Err(error) => later::<()>(error).map(|_none| false),
        }
    }

    /// Writes the first piece of `bytes`; `None` when the queue is too full to take one now.
    ///
    /// # Errors
    ///
    /// The port's.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let result = self.fd.try_io(Interest::WRITABLE, |fd| {
            // The runtime remembers "writable" until a write would block, which is when the queue is full.
            // The kernel's poll says it only below the wake-up mark, so ask that.
            if !has_room(fd)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(write(fd, piece)?)
        });
        match result {
            Ok(len) => Ok(Some(len)),
            Err(error) => later(error),
        }
    }
}

fn has_room(fd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

fn later<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_is_one_piece_at_most_and_bytes_arrive_as_they_left() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let (near, far) = (Line::over(near.into()).unwrap(), Line::over(far.into()).unwrap());
        near.writable().await.unwrap();
        let sent: Vec<u8> = (0..=255).cycle().take(PIECE + 100).collect();
        assert_eq!(near.write(&sent).unwrap(), Some(PIECE));
        far.readable().await.unwrap();
        let mut buffer = [0; 2048];
        assert_eq!(far.read(&mut buffer).unwrap(), Some(PIECE));
        assert_eq!(buffer[..PIECE], sent[..PIECE]);
        assert_eq!(far.read(&mut buffer).unwrap(), None);
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing_and_says_so() {
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let line = Line::over(near.into()).unwrap();
        line.writable().await.unwrap();
        let piece = [0; PIECE];
        let mut taken = 0;
        while let Some(len) = line.write(&piece).unwrap() {
            taken += len;
            assert!(taken < 64 << 20, "the queue has no end");
        }
        assert!(taken > 0);
    }
}
