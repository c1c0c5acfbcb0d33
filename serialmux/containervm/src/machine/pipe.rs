//! The fast pipe that a VM may have to its multiplexer beside serial0, which it always has.

use std::path::PathBuf;

use super::{
    MachineError, SerialBacking,
    backing::{self, EndPoint},
    devices::Serial,
    keys::Keys,
};

/// Least and greatest address of a guest; below are the host's own (vsock(7)).
const MIN_CID: u32 = 3;
const MAX_CID: u32 = u32::MAX - 1;

/// Kinds of pipe, as `containervm.pipe` names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PipeKind {
    /// Only serial0.
    #[default]
    Uart,
    /// A virtio-serial port on a connection of its own.
    Virtio,
    /// A vsock device.
    Vsock,
}

impl PipeKind {
    const WORDS: [(&'static str, Self); 3] =
        [("uart", Self::Uart), ("virtio", Self::Virtio), ("vsock", Self::Vsock)];

    /// The word in the VMX file.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("uart", |(word, _)| word)
    }
}

/// What is beside serial0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FastPipe {
    /// A virtio-serial port, and what it leads to.
    Virtio(SerialBacking),
    /// vsock through the host's kernel (`/dev/vhost-vsock`), with the guest's address.
    HostVsock {
        /// Unique on the host.
        cid: u32,
    },
    /// vsock through a program such as vhost-device-vsock, which listens on this socket.
    UserVsock(PathBuf),
}

pub(super) fn read(
    keys: &Keys<'_>,
    serials: &[Serial],
    identity: &str,
) -> Result<Option<FastPipe>, MachineError> {
    match keys.choice("containervm.pipe", &PipeKind::WORDS)?.unwrap_or_default() {
        PipeKind::Uart => Ok(None),
        PipeKind::Virtio => virtio(keys, serials).map(|backing| Some(FastPipe::Virtio(backing))),
        PipeKind::Vsock => {
            if let Some(socket) = keys.text("containervm.vsock.socket") {
                return Ok(Some(FastPipe::UserVsock(keys.path(socket))));
            }
            let cid = keys.number("containervm.vsock.cid", MIN_CID..=MAX_CID)?;
            Ok(Some(FastPipe::HostVsock { cid: cid.unwrap_or_else(|| cid_of(identity)) }))
        }
    }
}

/// Where the port leads: where serial0 does, unless it is told another address.
fn virtio(keys: &Keys<'_>, serials: &[Serial]) -> Result<SerialBacking, MachineError> {
    if keys.text("containervm.pipe.fileName").is_some() {
        return backing::network(keys, "containervm.pipe");
    }
    let serial0 = serials.iter().find(|serial| serial.index == 0).map(|serial| &serial.backing);
    match serial0 {
        Some(
            backing @ (SerialBacking::Network { end_point: EndPoint::Client, .. }
            | SerialBacking::Pipe { end_point: EndPoint::Client, .. }),
        ) => Ok(backing.clone()),
        _ => Err(keys.fault(
            "containervm.pipe",
            "\"uart\", as serial0 is no client of a network or pipe that a second port could call, \
             too; or containervm.pipe.fileName = \"tcp://HOST:PORT\" beside it",
        )),
    }
}

/// An address made from what names the VM, so that it stays the same and two VMs hardly ever share one.
fn cid_of(identity: &str) -> u32 {
    // FNV-1a, 32 bits.
    let hash = identity
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 1).max(MIN_CID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{TYPICAL, machine};

    fn fast(lines: &str) -> Result<Option<FastPipe>, String> {
        let (_dir, machine) = machine(&format!("{TYPICAL}{lines}"));
        machine.map(|machine| machine.fast_pipe).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_that_says_nothing_has_serial0_only() {
        assert_eq!(fast(""), Ok(None));
        assert_eq!(fast("containervm.pipe = \"uart\"\n"), Ok(None));
    }

    #[test]
    fn a_virtio_port_leads_where_serial0_does_unless_told_otherwise() {
        let tcp = |port| {
            let (host, telnet, end_point) = ("127.0.0.1".into(), false, EndPoint::Client);
            Ok(Some(FastPipe::Virtio(SerialBacking::Network { host, port, telnet, end_point })))
        };
        assert_eq!(fast("containervm.pipe = \"virtio\"\n"), tcp(2377));
        let other = "containervm.pipe.fileName = \"tcp://127.0.0.1:99\"\n";
        assert_eq!(fast(&format!("containervm.pipe = \"Virtio\"\n{other}")), tcp(99));
        let server =
            TYPICAL.replace("\"client\"", "\"server\"") + "containervm.pipe = \"virtio\"\n";
        let text = machine(&server).1.unwrap_err().to_string();
        assert!(text.contains("containervm.pipe.fileName"), "{text}");
    }

    #[test]
    fn vsock_is_the_hosts_or_a_programs() {
        let vsock = "containervm.pipe = \"vsock\"\n";
        let Ok(Some(FastPipe::HostVsock { cid })) = fast(vsock) else { panic!("no vsock") };
        assert!(cid >= MIN_CID);
        assert_eq!(fast(vsock), Ok(Some(FastPipe::HostVsock { cid })), "and stays the same");
        let chosen = format!("{vsock}containervm.vsock.cid = \"77\"\n");
        assert_eq!(fast(&chosen), Ok(Some(FastPipe::HostVsock { cid: 77 })));
        assert!(fast(&format!("{vsock}containervm.vsock.cid = \"2\"\n")).is_err());
        let socket = format!("{vsock}containervm.vsock.socket = \"/run/v.sock\"\n");
        assert_eq!(fast(&socket), Ok(Some(FastPipe::UserVsock("/run/v.sock".into()))));
        assert!(fast("containervm.pipe = \"pigeon\"\n").unwrap_err().contains("virtio"));
    }
}
