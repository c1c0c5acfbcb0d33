//! The container's networks as the agent follows them: before its start, by a reload, with each lease.

use guestinfo::{Ip, NetworkSpec, Started};
use tracing::warn;

use super::{Agent, AgentError};
use crate::identity;
use crate::network::Outcome;
use crate::process::failure::StartFailure;
use crate::rootfs::{self, EtcFiles};

impl Agent {
    /// Waits for all interfaces from now on.
    pub(super) fn seek_networks(&mut self) -> Result<(), AgentError> {
        for (name, network) in &self.spec.networks {
            self.networks.want(name, network);
        }
        if self.networks.is_empty() {
            return Ok(());
        }
        self.hardware.start_networks();
        self.look_for_interfaces()
    }

    /// Gives interfaces that have come what is theirs.
    pub(super) fn look_for_interfaces(&mut self) -> Result<(), AgentError> {
        let outcomes = self.networks.look();
        self.networks_settled(outcomes)
    }

    /// Does what is due.
    pub(super) fn networks_turn(&mut self) -> Result<(), AgentError> {
        let outcomes = self.networks.turn();
        self.networks_settled(outcomes)
    }

    fn networks_settled(&mut self, outcomes: Vec<Outcome>) -> Result<(), AgentError> {
        if outcomes.is_empty() {
            return Ok(());
        }
        for Outcome { name, result } in outcomes {
            let configured = match &result {
                Ok(()) => Started::Yes,
                Err(error) => Started::Failed(error.to_string()),
            };
            self.sessions.reporter().network(&name, configured);
            match result {
                Ok(()) => {}
                // Not there, so that the next reload tries again.
                Err(_told) if self.is_placed() => drop(self.spec.networks.remove(&name)),
                Err(error) => {
                    self.sessions.fail(&StartFailure::Network(error), &mut self.uplink);
                }
            }
        }
        if self.is_placed() {
            self.rewrite_etc();
        }
        self.report_endpoints();
        self.sessions.reporter().publish(&mut self.uplink);
        self.start()
    }

    /// Has the report say what the networks have.
    pub(super) fn report_endpoints(&mut self) {
        let settings = self.networks.settings();
        let dns = |name: &str| {
            let setting = settings.iter().find(|(of, _)| *of == name);
            setting.map_or(Vec::new(), |(_, it)| it.dns.iter().copied().map(Ip).collect())
        };
        let endpoints = self.host.endpoints(&self.spec, dns);
        self.sessions.reporter().endpoints(endpoints);
    }

    /// Adds or changes a network as a reload wants it; how far that is.
    pub(super) fn change_network(
        &mut self,
        name: &str,
        spec: &NetworkSpec,
    ) -> Result<String, String> {
        self.networks.want(name, spec);
        self.hardware.start_networks();
        self.look_for_interfaces().map_err(|error| error.to_string())?;
        Ok(format!("network {name} is being configured"))
    }

    /// The files of `/etc` by what the networks have got.
    pub(super) fn etc(&self) -> EtcFiles {
        let hostname = self.sessions.first().launch().hostname.as_str();
        let settings = self.networks.settings();
        let addresses: Vec<_> =
            settings.iter().filter_map(|(_, it)| it.address).map(|net| net.addr).collect();
        let mut dns = Vec::new();
        for server in settings.iter().flat_map(|(_, it)| &it.dns) {
            if !dns.contains(server) {
                dns.push(*server);
            }
        }
        EtcFiles {
            hostname: hostname.to_owned(),
            hosts: identity::hosts(hostname, &addresses),
            resolv_conf: identity::resolv_conf(&dns),
        }
    }

    fn rewrite_etc(&mut self) {
        let etc = self.etc();
        if etc == self.written {
            return;
        }
        if let Err(error) = rootfs::update_etc(&self.written, &etc) {
            warn!("/etc/hosts and /etc/resolv.conf stay as they are: {error}");
        }
        if self.written.resolv_conf.is_none() && etc.resolv_conf.is_some() {
            warn!("the container keeps its image's /etc/resolv.conf until the next boot");
        }
        self.written = etc;
    }
}
