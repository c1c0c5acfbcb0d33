//! The first serial port: raw, exclusive, in small pieces.
//!
//! The kernel's tty queue holds 4 KiB, which is 68 ms of a line of 60 KB/s; what sits there can no longer be
//! overtaken by something more urgent. So the line is handed at most [`PIECE`] bytes each time the queue has run
//! down to its wake-up mark (256 bytes, `WAKEUP_CHARS` in `drivers/tty/n_tty.c` and the serial core).
//!
//! An emulated port takes bytes while they are written: its queue is empty when the write returns, nothing
//! ever sits in it, and each piece costs two interrupts. So pieces double for as long as the queue
//! is found run down, up to [`QUEUE`], and are small again as soon as it is not.

use std::io;
use std::os::fd::IntoRawFd;

use nix::sys::termios::{ControlFlags, SetArg, tcgetattr, tcsetattr};
use thiserror::Error;
use tracing::debug;
use wire::{Transport, UART_TRIGGER};

use super::Line;
use crate::sys;

/// The port that belongs to the multiplexer.
pub const PORT: &str = "/dev/ttyS0";

/// Where the kernel takes the number of bytes at which the receiving FIFO interrupts
/// (`Documentation/ABI/testing/sysfs-tty`).
const TRIGGER: &str = "/sys/class/tty/ttyS0/rx_trig_bytes";

/// The most that is committed to the tty queue at once.
pub const PIECE: usize = 512;

/// What the queue holds (`UART_XMIT_SIZE` in `include/linux/serial_core.h`).
pub const QUEUE: usize = 4096;

/// Bits per second. QEMU ignores it for sending, but it sets the receive timeout of the FIFO (four character
/// times), and VMware paces pipes by it.
const BAUD: u32 = 115_200;

/// Why there is no serial port.
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

/// Opens and configures the port.
///
/// # Errors
///
/// [`LineError`].
pub fn open() -> Result<Line, LineError> {
    let port = tokio_serial::new(PORT, BAUD).exclusive(true).open_native()?;
    let fd = sys::own(port.into_raw_fd());
    let mut settings = tcgetattr(&fd).map_err(io::Error::from)?;
    // Closing the port must not drop the modem lines: the other end would see a hang-up.
    settings.control_flags.remove(ControlFlags::HUPCL | ControlFlags::CRTSCTS);
    tcsetattr(&fd, SetArg::TCSANOW, &settings).map_err(io::Error::from)?;
    // Each interrupt brings 14 bytes instead of 8, the driver's default. A port without levels has none
    // of its own to set, and works all the same.
    if let Err(error) = std::fs::write(TRIGGER, UART_TRIGGER.to_string()) {
        debug!("{TRIGGER}: {error}");
    }
    Ok(Line::over(fd, Transport::Uart)?)
}
