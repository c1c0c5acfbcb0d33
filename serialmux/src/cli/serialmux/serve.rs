//! `serialmux serve`.

use crate::daemon::Daemon;
use crate::launch;
use crate::place::Place;
use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where VMs connect to unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2377));

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where VMs connect to
    ///
    /// Whoever reaches this port can only claim to be a VM, not be one: links are sealed with each
    /// VM's key. Give an address of the VMs' network to serve VMs on other hosts.
    #[arg(long, env = "SERIALMUX_LISTEN", default_value_t = DEFAULT_LISTEN, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// A unix socket where VMs connect to, besides the address
    ///
    /// For the socket of a chardev, and for vhost-device-vsock, which brings a VM's connections to
    /// vsock port 2377 of its host to a socket that is called like its own with "_2377" added.
    #[arg(long, env = "SERIALMUX_LISTEN_UNIX", value_name = "PATH")]
    listen_unix: Vec<PathBuf>,
    /// A vsock port where VMs connect to, besides the address; their agents try 2377
    #[arg(long, env = "SERIALMUX_LISTEN_VSOCK", value_name = "PORT", num_args = 0..=1, default_missing_value = "2377")]
    listen_vsock: Option<u32>,
    /// Log more: once for each session, twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Serve {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let level = match self.verbose {
            0 => tracing::Level::WARN,
            1 => tracing::Level::INFO,
            _ => tracing::Level::TRACE,
        };
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).init();
        allow_open_files();
        let mut daemon = Daemon::bind(place, self.listen).await?;
        for path in &self.listen_unix {
            daemon.listen_unix(path)?;
        }
        if let Some(port) = self.listen_vsock {
            daemon.listen_vsock(port)?;
        }
        // Whoever started us in the background waits for this line.
        let (vms, clients) = (daemon.doors(), place.socket());
        launch::ready(&format!(
            "serialmux: VMs connect to {vms}; clients to {}",
            clients.display()
        ));
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            () = daemon.serve() => {}
            _ = terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Raises the soft limit on open files to the hard one: the usual 1024 are fewer than the clients and VMs that
/// a daemon serves at once. A daemon with fewer serves fewer.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}
