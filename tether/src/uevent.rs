//! The kernel's device announcements, as they arrive on the uevent netlink socket.
//!
//! A datagram is `ACTION@DEVPATH` followed by zero-terminated `KEY=VALUE` strings
//! (`Documentation/driver-api/driver-model/`, `lib/kobject_uevent.c`). The socket is opened before the first
//! look at sysfs, so that nothing falls between look and listen; when the kernel reports that it dropped
//! datagrams (`ENOBUFS`), the reader must look at sysfs again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// One announcement, with the fields that the agent acts on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `bind`, ...
    pub action: String,
    /// The device's path below `/sys`.
    pub devpath: String,
    /// `block`, `pci`, `scsi`, ...; empty when the kernel gave none.
    pub subsystem: String,
    /// The node's name below `/dev`, for devices that have one.
    pub devname: Option<String>,
    /// The device's identity for finding its driver.
    pub modalias: Option<String>,
}

impl Uevent {
    /// Reads one datagram; `None` when it is not a kernel announcement.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        let mut strings = text.split_terminator('\0');
        strings.next()?.split_once('@')?;
        let mut event = Self::default();
        for (key, value) in strings.filter_map(|string| string.split_once('=')) {
            let value = value.to_owned();
            match key {
                "ACTION" => event.action = value,
                "DEVPATH" => event.devpath = value,
                "SUBSYSTEM" => event.subsystem = value,
                "DEVNAME" => event.devname = Some(value),
                "MODALIAS" => event.modalias = Some(value),
                _ => {}
            }
        }
        (!event.action.is_empty()).then_some(event)
    }
}

/// What the socket had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// One device event.
    Event(Uevent),
    /// The kernel dropped events: look at sysfs again.
    Overrun,
}

/// The listening socket.
#[derive(Debug)]
pub struct UeventSocket {
    fd: AsyncFd<OwnedFd>,
}

impl UeventSocket {
    /// Starts listening to the kernel's own announcements.
    ///
    /// # Errors
    ///
    /// When the kernel has no uevent netlink or the process lacks the privilege.
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // A cold boot announces some hundred devices at once, ~300 bytes each; 1 MiB holds them all.
        setsockopt(&fd, sockopt::RcvBufForce, &(1 << 20))?;
        // Group 1 is the kernel; 2 would be udev's re-broadcasts.
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self { fd: sys::watch(fd)? })
    }

    /// Waits for the next announcement.
    ///
    /// # Errors
    ///
    /// When the socket fails for good.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken from the socket unless it is returned.
    pub async fn next(&self) -> io::Result<Announcement> {
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| receive(fd.get_ref())) {
                Ok(Ok(Some(announcement))) => return Ok(announcement),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// Takes one datagram; `None` for one that the kernel did not send or that cannot be read.
fn receive(fd: &OwnedFd) -> io::Result<Option<Announcement>> {
    // The kernel's limit is UEVENT_BUFFER_SIZE (2048) plus the header string.
    let mut buffer = [0; 8192];
    match recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut buffer) {
        Ok((len, sender)) if sender.is_some_and(|sender| sender.pid() == 0) => {
            Ok(Uevent::parse(&buffer[..len]).map(Announcement::Event))
        }
        Ok(_) | Err(Errno::EINTR) => Ok(None),
        Err(Errno::ENOBUFS) => Ok(Some(Announcement::Overrun)),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_device_event_yields_its_fields() {
        let datagram = b"add@/devices/pci0/block/sda\0ACTION=add\0DEVPATH=/devices/pci0/block/sda\0SUBSYSTEM=block\0\
                         MAJOR=8\0DEVNAME=sda\0DEVTYPE=disk\0SEQNUM=812\0";
        let event = Uevent::parse(datagram).expect("an event");
        assert_eq!(event.action, "add");
        assert_eq!(event.subsystem, "block");
        assert_eq!(event.devname.as_deref(), Some("sda"));
        assert_eq!(event.modalias, None);
    }

    #[test]
    fn what_the_kernel_would_not_send_is_refused() {
        for datagram in [
            &b""[..],
            b"libudev\0\xfe\xed\xca\xfe",
            b"add@/x\0",
            b"no header\0ACTION=add\0",
            b"add@/x\0ACTION\0",
        ] {
            assert_eq!(Uevent::parse(datagram), None, "{datagram:?}");
        }
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        let event = Uevent::parse(b"add@/x\0ACTION=add\0MODALIAS=of:N=x\0").expect("an event");
        assert_eq!(event.modalias.as_deref(), Some("of:N=x"));
    }
}
