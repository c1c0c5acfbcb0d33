//! VMware's guestinfo over vsock, for machines whose hypervisor does not answer its port.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::{setsockopt_impl, sockopt_impl};

use super::{Packets, RpciSink, RpciSource};
use crate::sink::{Sink, SinkError};
use crate::source::{Source, SourceError, Values};
use crate::sys::Backdoor;

/// VMware's guestinfo over vsock. The hypervisor tells privileged guests by their port, below 1024.
#[derive(Debug, Clone, Copy, Default)]
pub struct VsockSource;

/// The same, written. Each report has a connection of its own, as a VM that was moved has lost those it had.
#[derive(Debug, Clone, Copy, Default)]
pub struct VsockSink;

const NAME: &str = "VMware guestinfo over vsock";

/// The hypervisor itself, and its port for requests of guests.
const HYPERVISOR: u32 = 0;
const RPCI_PORT: u32 = 976;
const PRIVILEGED_PORTS: std::ops::Range<u32> = 1..1024;
/// How long a silent host is waited for.
const SILENCE_SECONDS: i64 = 5;

/// `SO_VM_SOCKETS_CONNECT_TIMEOUT` of `linux/vm_sockets.h`, for a `long` of 64 bits.
const CONNECT_TIMEOUT: libc::c_int = 6;

sockopt_impl!(
    /// How long the host may take to accept, instead of the kernel's 2 s.
    ConnectTimeout,
    SetOnly,
    libc::AF_VSOCK,
    CONNECT_TIMEOUT,
    TimeVal
);

impl Source for VsockSource {
    fn name(&self) -> &str {
        NAME
    }

    fn read(&self) -> Result<Option<Values>, SourceError> {
        // Under another hypervisor the same address may be anyone's.
        if Backdoor::detect().is_none() {
            return Ok(None);
        }
        match dial() {
            Ok(stream) => RpciSource::new(Packets::new(stream)).read(),
            Err(error) if is_absent(error) => Ok(None),
            Err(error) => Err(SourceError::Hypervisor(unreached(error))),
        }
    }
}

impl Sink for VsockSink {
    fn name(&self) -> &str {
        NAME
    }

    fn write(&mut self, pairs: &[(String, String)]) -> Result<(), SinkError> {
        let refused = |reasons| SinkError { sink: NAME.to_owned(), reasons };
        let stream = dial().map_err(|error| {
            refused(pairs.iter().map(|(key, _)| format!("{key}: {}", unreached(error))).collect())
        })?;
        let written = RpciSink::new(Packets::new(stream)).write(pairs);
        written.map_err(|error| refused(error.reasons))
    }
}

fn unreached(error: Errno) -> String {
    let why = io::Error::from(error);
    format!("vsock port {RPCI_PORT} of the hypervisor: {why}")
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
    setsockopt(&socket, ConnectTimeout, &silence)?;
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

    #[test]
    fn a_hypervisor_that_is_not_reached_has_taken_nothing() {
        // Here is none: whether the kernel has vsock or not, nobody is at that port.
        let pairs = ["a", "b"].map(|key| (key.to_owned(), "1".to_owned()));
        let error = VsockSink.write(&pairs).expect_err("nobody is there");
        assert_eq!((error.sink.as_str(), error.reasons.len()), (NAME, 2));
        assert!(error.reasons[1].starts_with("b: vsock port 976 of the hypervisor: "), "{error}");
    }
}
