//! The daemon: doors for VMs, a socket for clients, and one task per container between them.
//!
//! ```text
//!   VM ────door────▶ peer ──session──▶ container ◀──commands── client ◀──unix socket── CLI
//!                                          │ journal (disk)       ▲
//!                                          └──────────────────────┘ each reads at its own pace
//! ```

mod client;
mod container;
mod door;
mod events;
mod gather;
mod idle;
mod outbox;
mod peer;
mod registry;
mod strangers;

use door::Door;
pub use door::DoorError;
use registry::Registry;
pub use registry::RegistryError;
use strangers::Strangers;

use crate::place::Place;
use containervm::lock::{self, Held};
use futures_util::future::join_all;
use peer::Fresh;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

/// Most clients at once.
const MAX_CLIENTS: usize = 1024;

/// Why the daemon cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// VMs cannot come in.
    #[error(transparent)]
    Door(#[from] DoorError),
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
    doors: Vec<Door>,
    unix: UnixListener,
    listen: SocketAddr,
    _lock: Held,
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
        let lock = lock::open(&place.lock()).map_err(state)?;
        let lock = match lock.try_lock() {
            Ok(()) => Held::new(lock),
            Err(fs::TryLockError::WouldBlock) => return Err(ServeError::Running(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(state(error)),
        };
        let (tcp, listen) = Door::tcp(listen)?;
        // Ours by the lock, so what is there is a dead daemon's.
        match fs::remove_file(place.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(state(error)),
            _ => {}
        }
        let unix = UnixListener::bind(place.socket()).map_err(state)?;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(place.socket(), mode).map_err(state)?;
        let registry = Arc::new(Registry::recover(place.containers())?);
        Ok(Self { registry, doors: vec![tcp], unix, listen, _lock: lock })
    }

    /// Listens for VMs on a unix socket, too.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn listen_unix(&mut self, path: &Path) -> Result<(), DoorError> {
        self.doors.push(Door::unix(path)?);
        Ok(())
    }

    /// Listens for VMs on a vsock port, too.
    ///
    /// # Errors
    /// [`DoorError::Vsock`] where the host has no vsock.
    pub fn listen_vsock(&mut self, port: u32) -> Result<(), DoorError> {
        self.doors.push(Door::vsock(port)?);
        Ok(())
    }

    /// All the places where VMs connect to, for people.
    pub fn doors(&self) -> String {
        self.doors.iter().map(Door::name).collect::<Vec<_>>().join(", ")
    }

    /// Where VMs connect to by TCP.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Serves until the task is dropped.
    pub async fn serve(self) {
        tokio::join!(self.serve_vms(), self.serve_clients());
    }

    async fn serve_vms(&self) {
        let strangers = Arc::new(Strangers::default());
        join_all(self.doors.iter().map(|door| self.serve_door(door, &strangers))).await;
    }

    async fn serve_door(&self, door: &Door, strangers: &Arc<Strangers>) {
        loop {
            match door.accept().await {
                Ok((pipe, from)) => {
                    let registry = Arc::clone(&self.registry);
                    tokio::spawn(peer::greet(Fresh { pipe, from, registry }, strangers.enter()));
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
