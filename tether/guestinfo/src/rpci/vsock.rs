//! VMware's guestinfo over vsock, for machines whose hypervisor does not answer its port.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::{Packets, RpciSource};
use crate::source::{Source, SourceError, Values};
use crate::sys::Backdoor;

/// VMware's guestinfo over vsock. The hypervisor tells privileged guests by their port, below 1024.
#[derive(Debug, Clone, Copy, Default)]
pub struct VsockSource;

/// The hypervisor itself, and its port for requests of guests.
const HYPERVISOR: u32 = 0;
const RPCI_PORT: u32 = 976;
const PRIVILEGED_PORTS: std::ops::Range<u32> = 1..1024;
/// How long a silent host is waited for. Connecting has the kernel's own limit of 2 s.
const SILENCE_SECONDS: i64 = 5;

impl Source for VsockSource {
    fn name(&self) -> &str {
        "VMware guestinfo over vsock"
    }

    fn read(&self) -> Result<Option<Values>, SourceError> {
        // Under another hypervisor the same address may be anyone's.
        if Backdoor::detect().is_none() {
            return Ok(None);
        }
        match dial() {
            Ok(stream) => RpciSource::new(Packets::new(stream)).read(),
            Err(error) if is_absent(error) => Ok(None),
            Err(error) => {
                let why = io::Error::from(error);
                Err(SourceError::Hypervisor(format!(
                    "vsock port {RPCI_PORT} of the hypervisor: {why}"
                )))
            }
        }
    }
}

fn is_absent(error: Errno) -> bool {
    use Errno::{
        EAFNOSUPPORT, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ENODEV, ETIMEDOUT,
    };
    [EAFNOSUPPORT, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ENODEV, ETIMEDOUT]
        .contains(&error)
}

/// A connection to the hypervisor from the highest privileged port that is free.
fn dial() -> Result<File, Errno> {
    let socket: OwnedFd =
        socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let silence = TimeVal::seconds(SILENCE_SECONDS);
    setsockopt(&socket, sockopt::ReceiveTimeout, &silence)?;
    setsockopt(&socket, sockopt::SendTimeout, &silence)?;
    let mut ports = PRIVILEGED_PORTS.rev();
    let bound = loop {
        let Some(port) = ports.next() else { break Err(Errno::EADDRINUSE) };
        match bind(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, port)) {
            Err(Errno::EADDRINUSE) => {}
            outcome => break outcome,
        }
    };
    bound?;
    connect(socket.as_raw_fd(), &VsockAddr::new(HYPERVISOR, RPCI_PORT))?;
    Ok(File::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_others_are_not_even_asked() {
        assert_eq!(VsockSource.read().unwrap(), None);
    }
}
