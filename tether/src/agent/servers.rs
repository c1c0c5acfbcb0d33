//! The container's volumes on servers: asked for when the networks are there, and given up when time is up.

use std::net::IpAddr;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use tracing::info;

use super::{Agent, AgentError};
use crate::volumes::Medium;
use crate::volumes::nfs;
use crate::volumes::reaching::Reaching;

/// Those that are being asked.
#[derive(Debug, Default)]
pub(super) struct Servers {
    asked: Vec<Reaching>,
}

impl Servers {
    /// Waits until one has said something.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub(super) async fn wait(&self) {
        let mut all: Vec<_> = self.asked.iter().map(|it| Box::pin(it.ready())).collect();
        std::future::poll_fn(|context| {
            let ready = all.iter_mut().any(|it| it.as_mut().poll(context).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// When one is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.iter().map(|it| it.until).min()
    }
}

impl Agent {
    /// Asks servers for the volumes that the agent has not got yet, if there is a network to ask by.
    pub(super) fn ask_servers(&mut self) {
        let is_wanted = self.is_placed() || self.sessions.first().is_waiting();
        if !is_wanted || !self.networks.are_settled() {
            return;
        }
        let name_servers: Vec<IpAddr> =
            self.networks.settings().iter().flat_map(|(_, it)| it.dns.iter().copied()).collect();
        for name in self.disks.volumes.afar() {
            if self.servers.asked.iter().any(|it| it.name == name) {
                continue;
            }
            let home = self.disks.volumes.new_home();
            let Some(volume) = self.disks.volumes.get(&name) else { continue };
            let Medium::Export(export) = &volume.medium else { continue };
            let hardware = &mut self.hardware;
            // In the child, with a copy of this machine's state: the kernel knows what is loaded.
            let prepare = || nfs::MODULES.iter().for_each(|module| hardware.load(module));
            let home = home.map_err(volume.step("make a directory in /run"));
            let asked =
                home.and_then(|home| Reaching::start(volume, export, home, &name_servers, prepare));
            match asked {
                Ok(reaching) => self.servers.asked.push(reaching),
                Err(error) => self.volume_failed(&name, &error),
            }
        }
    }

    /// Takes note of what servers have said, and gives those up that say nothing.
    pub(super) fn servers_turn(&mut self) -> Result<(), AgentError> {
        let mut context = Context::from_waker(Waker::noop());
        let mut said = Vec::new();
        self.servers.asked.retain(|reaching| match reaching.poll_outcome(&mut context) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                said.push((reaching.name.clone(), outcome.map(|()| reaching.home.clone())));
                false
            }
        });
        if said.is_empty() {
            return Ok(());
        }
        for (name, outcome) in said {
            match outcome {
                Ok(home) => {
                    info!("the server of the volume {name} has answered");
                    self.disks.volumes.reached(&name, home);
                    if self.is_placed() {
                        self.join(&name);
                    }
                }
                Err(error) => self.volume_failed(&name, &error),
            }
        }
        self.start()
    }
}
