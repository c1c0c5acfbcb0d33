//! Where VMs come in: TCP, a unix socket, or vsock. Which one a pipe came through makes no difference later.

use super::gather::Gathered;
use super::peer::Pipe;
use rustix::net::sockopt::set_tcp_quickack;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

/// What the kernel may hold for a VM: bytes in there are beyond the reach of priorities.
const SEND_BUFFER: u32 = 16 * 1024;

/// Why VMs cannot come in there.
#[derive(Debug, Error)]
pub enum DoorError {
    /// Something else listens there.
    #[error(
        "cannot listen on {0}: the address is in use. Stop what listens there (`ss -ltnp` shows \
         it), or give another with --listen ADDRESS:PORT"
    )]
    InUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Tcp(SocketAddr, io::Error),
    /// Something else listens on the socket.
    #[error(
        "cannot listen on {0}: somebody does already. Stop that, or give another path with \
         --listen-unix PATH"
    )]
    UnixInUse(PathBuf),
    /// There is something that is no socket.
    #[error(
        "cannot listen on {0}: there is a file of another kind; remove it or give another path"
    )]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {0}: {1}")]
    Unix(PathBuf, io::Error),
    /// No vsock on this host.
    #[error(
        "cannot listen on vsock port {0}: {1}. This host must have vsock (`modprobe vhost_vsock`; \
         /dev/vhost-vsock is there then). Without it run vhost-device-vsock for each VM, and listen \
         on its socket with --listen-unix UDS_{0}"
    )]
    Vsock(u32, io::Error),
}

/// One listener.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
    Vsock(VsockListener, u32),
}

impl Door {
    pub(super) fn tcp(address: SocketAddr) -> Result<(Self, SocketAddr), DoorError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => DoorError::InUse(address),
            _ => DoorError::Tcp(address, error),
        };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(failed)?;
        socket.set_reuseaddr(true).map_err(failed)?;
        // Both inherited by accepted sockets. A pipe at rest carries nothing, so that a host that has
        // vanished is noticed by asking only.
        socket.set_send_buffer_size(SEND_BUFFER).map_err(failed)?;
        socket.set_keepalive(true).map_err(failed)?;
        socket.bind(address).map_err(failed)?;
        let listener = socket.listen(1024).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok((Self::Tcp(listener), address))
    }

    pub(super) fn unix(path: &Path) -> Result<Self, DoorError> {
        let failed = |error| DoorError::Unix(path.to_owned(), error);
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(DoorError::NoSocket(path.to_owned()));
            }
            // One that nobody listens on is left over from a daemon that was killed.
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(DoorError::UnixInUse(path.to_owned())),
                Err(_) => fs::remove_file(path).map_err(failed)?,
            },
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self::Unix(listener, path.to_owned()))
    }

    pub(super) fn vsock(port: u32) -> Result<Self, DoorError> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port));
        Ok(Self::Vsock(listener.map_err(|error| DoorError::Vsock(port, error))?, port))
    }

    /// Waits for a pipe; says also where it comes from, for people.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Pipe>, String)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                (Box::new(Gathered::new(stream, acknowledge)?), from.to_string())
            }
            Self::Unix(listener, path) => {
                let (stream, _) = listener.accept().await?;
                (Box::new(Gathered::new(stream, |_| {})?), format!("unix:{}", path.display()))
            }
            Self::Vsock(listener, _) => {
                let (stream, from) = listener.accept().await?;
                (Box::new(stream), format!("vsock:{}:{}", from.cid(), from.port()))
            }
        })
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|it| it.to_string()).unwrap_or_default()
            }
            Self::Unix(_, path) => format!("unix:{}", path.display()),
            Self::Vsock(_, port) => format!("vsock:{port}"),
        }
    }
}

/// Sends the acknowledgement of what was read now: a sender that holds small pieces back until it has come
/// (RFC 896) would else wait for 40 ms each time (RFC 1122, 4.2.3.2).
fn acknowledge(stream: &TcpStream) {
    if let Err(error) = set_tcp_quickack(stream, true) {
        tracing::debug!(%error, "cannot set TCP_QUICKACK");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_over_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vms");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let door = Door::unix(&path).unwrap();
        let second = Door::unix(&path).unwrap_err();
        assert!(matches!(&second, DoorError::UnixInUse(_)), "{second}");
        drop(door);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a letter").unwrap();
        let error = Door::unix(&path).unwrap_err();
        assert!(matches!(&error, DoorError::NoSocket(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
    }
}
