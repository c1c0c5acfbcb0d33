//! The daemon: a port for VMs, a socket for clients, and one task per container between them.
//!
//! ```text
//!   VM ──tcp/2377──▶ peer ──session──▶ container ◀──commands── client ◀──unix socket── CLI
//!                                          │ journal (disk)       ▲
//!                                          └──────────────────────┘ each reads at its own pace
//! ```

mod client;
mod container;
mod outbox;
mod peer;
mod registry;

use registry::Registry;
pub use registry::RegistryError;

use crate::place::Place;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Semaphore;

/// Most VM connections that have not proved who they are, at once.
const MAX_STRANGERS: usize = 256;
/// Most clients at once.
const MAX_CLIENTS: usize = 1024;
/// What the kernel may hold for a VM: bytes in there are beyond the reach of priorities.
const SEND_BUFFER: u32 = 16 * 1024;

/// Why the daemon cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Something else listens there.
    #[error(
        "cannot listen on {0}: the address is in use. Stop what listens there (`ss -ltnp` shows \
         it), or give another with --listen ADDRESS:PORT"
    )]
    InUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// Another daemon has the state directory.
    #[error("another serialmux runs with the state directory {0}; `serialmux ps` talks to it")]
    Running(PathBuf),
    /// The state directory cannot be used.
    #[error("state directory {0}: {1}")]
    State(PathBuf, io::Error),
    /// What is in the state directory cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A daemon that has bound its port and socket and serves when told to.
#[derive(Debug)]
pub struct Daemon {
    registry: Arc<Registry>,
    tcp: TcpListener,
    unix: UnixListener,
    listen: SocketAddr,
    _lock: File,
}

impl Daemon {
    /// Takes the state directory, binds, and recovers every container.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(place: &Place, listen: SocketAddr) -> Result<Self, ServeError> {
        let dir = place.dir();
        let state = |error| ServeError::State(dir.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(state)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(place.lock())
            .map_err(state)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(ServeError::Running(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(state(error)),
        }
        let tcp = listen_tcp(listen)?;
        let listen = tcp.local_addr().map_err(|error| ServeError::Listen(listen, error))?;
        // Ours by the lock, so what is there is a dead daemon's.
        match fs::remove_file(place.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(state(error)),
            _ => {}
        }
        let unix = UnixListener::bind(place.socket()).map_err(state)?;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(place.socket(), mode).map_err(state)?;
        let registry = Arc::new(Registry::recover(place.containers())?);
        Ok(Self { registry, tcp, unix, listen, _lock: lock })
    }

    /// Where VMs connect to.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Serves until the task is dropped.
    pub async fn serve(self) {
        tokio::join!(self.serve_vms(), self.serve_clients());
    }

    async fn serve_vms(&self) {
        let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
        while let Ok(permit) = Arc::clone(&strangers).acquire_owned().await {
            match self.tcp.accept().await {
                Ok((stream, from)) => {
                    let registry = Arc::clone(&self.registry);
                    tokio::spawn(peer::greet(stream.into(), from.to_string(), registry, permit));
                }
                Err(error) => accept_failed(&error).await,
            }
        }
    }

    async fn serve_clients(&self) {
        let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
        while let Ok(permit) = Arc::clone(&clients).acquire_owned().await {
            match self.unix.accept().await {
                Ok((stream, _)) => {
                    let registry = Arc::clone(&self.registry);
                    tokio::spawn(client::serve(stream, registry, self.listen, permit));
                }
                Err(error) => accept_failed(&error).await,
            }
        }
    }
}

// Out of descriptors, most likely: wait for some to come free rather than spin.
async fn accept_failed(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

fn listen_tcp(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ServeError::InUse(address),
        _ => ServeError::Listen(address, error),
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    // Inherited by accepted sockets.
    socket.set_send_buffer_size(SEND_BUFFER).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    socket.listen(1024).map_err(failed)
}
