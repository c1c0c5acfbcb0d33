//! The container's networks: interfaces found, switched on and given what the config says, or what a DHCP server
//! does.
//!
//! An endpoint waits for its interface, then perhaps for a lease, and is up; the container starts when all are.
//! Later a reload adds endpoints or changes them. [`Networks`] owns what was set and takes back only that: what
//! a container does to its interfaces by itself is left alone.

pub mod dhcp;
pub mod lease;
pub mod netlink;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use guestinfo::{IpNet, NetworkSpec};
use nix::errno::Errno;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::host::interfaces::{self, Interface};
use crate::process::executable::errno_text;
use lease::Leasing;
use netlink::{Message, Netlink};

/// How long an interface may take: its driver is loaded beside the disk's, which has as long, and a host that is
/// overloaded runs its VMs ten times slower.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a lease may take.
const LEASE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the machine waits for a card to take what gives leases back.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often it looks.
const GLANCE: Duration = Duration::from_millis(2);

/// Why a network is not there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// No interface for it.
    #[error(
        "network {name}: no interface {wanted} came in {seconds} s; there {}; give the VM one, or correct Common/id",
        match there.as_str() { "" => "is none", there => there }
    )]
    NoInterface {
        /// The network.
        name: String,
        /// Which was looked for.
        wanted: String,
        /// How long.
        seconds: u64,
        /// Those there are.
        there: String,
    },
    /// No DHCP server answered.
    #[error(
        "network {name}: no DHCP server gave {interface} an address in {seconds} s; \
         give it a static one (static, ip), or let a server answer"
    )]
    NoLease {
        /// The network.
        name: String,
        /// The interface.
        interface: String,
        /// How long.
        seconds: u64,
    },
    /// The kernel refused a step.
    #[error("network {name}: cannot {step}: {}", errno_text(*errno))]
    Step {
        /// The network.
        name: String,
        /// What was being done.
        step: String,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What an endpoint has been given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setting {
    /// Its address.
    pub address: Option<IpNet>,
    /// Where its routes lead.
    pub gateway: Option<IpAddr>,
    /// Its name servers.
    pub dns: Vec<IpAddr>,
    routes: Vec<(IpNet, Option<IpAddr>)>,
}

#[derive(Debug)]
enum State {
    /// Its interface is not here.
    Awaited,
    /// A server is asked.
    Leasing,
    Up,
    Failed,
}

#[derive(Debug)]
struct Endpoint {
    spec: NetworkSpec,
    state: State,
    until: Instant,
    /// Name and number of its interface.
    interface: Option<(String, u32)>,
    setting: Setting,
    leasing: Option<Leasing>,
}

/// What has become of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The network's name.
    pub name: String,
    /// Why it is not up, if it is not.
    pub result: Result<(), NetworkError>,
}

/// All endpoints.
#[derive(Debug, Default)]
pub struct Networks {
    all: BTreeMap<String, Endpoint>,
    hostname: String,
}

impl Networks {
    /// None; DHCP servers are told this host name.
    pub fn new(hostname: &str) -> Self {
        Self { all: BTreeMap::new(), hostname: hostname.to_owned() }
    }

    /// Wants an endpoint from now on, or wants it otherwise.
    pub fn want(&mut self, name: &str, spec: &NetworkSpec) {
        let until = Instant::now() + PATIENCE;
        let endpoint = self.all.entry(name.to_owned()).or_insert_with(|| Endpoint {
            spec: NetworkSpec::default(),
            state: State::Awaited,
            until,
            interface: None,
            setting: Setting::default(),
            leasing: None,
        });
        endpoint.spec = spec.clone();
        if let Some(leasing) = endpoint.leasing.as_ref().filter(|_| !endpoint.is_dynamic()) {
            leasing.give_back();
        }
        (endpoint.state, endpoint.until, endpoint.leasing) = (State::Awaited, until, None);
    }

    /// Gives all leases back, at the end of the machine. Servers do not answer that; what is waited for is that
    /// the cards have taken it, which an address of the server that is not known yet may delay.
    pub fn give_back(&self) {
        let leases = self.all.values().filter_map(|it| it.leasing.as_ref());
        let given: Vec<_> = leases.filter(|leasing| leasing.give_back()).collect();
        let until = Instant::now() + FAREWELL;
        while given.iter().any(|leasing| !leasing.is_given_back()) {
            if until <= Instant::now() {
                return warn!("an address could not be given back in {} s", FAREWELL.as_secs());
            }
            // Nothing tells of it, and nothing else is left to do.
            std::thread::sleep(GLANCE);
        }
    }

    /// Whether nothing is waited for any more.
    pub fn are_settled(&self) -> bool {
        self.all.values().all(|it| matches!(it.state, State::Up | State::Failed))
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What those that are up have got, the one with the default route first.
    pub fn settings(&self) -> Vec<(&str, &Setting)> {
        let up = self.all.iter().filter(|(_, it)| matches!(it.state, State::Up));
        let mut settings: Vec<_> =
            up.map(|(name, it)| (!it.spec.network.default, name.as_str(), &it.setting)).collect();
        settings.sort_by_key(|(last, name, _)| (*last, *name));
        settings.into_iter().map(|(_, name, setting)| (name, setting)).collect()
    }

    /// When [`Self::turn`] has something to do even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting =
            self.all.values().filter(|it| matches!(it.state, State::Awaited | State::Leasing));
        let waiting = waiting.map(|it| it.until);
        let leases = self.all.values().filter_map(|it| it.leasing.as_ref()?.deadline());
        waiting.chain(leases).min()
    }

    /// Waits until a DHCP server has said something.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn wait(&self) {
        let mut leases: Vec<_> = self
            .all
            .values()
            .filter_map(|it| it.leasing.as_ref())
            .map(|leasing| Box::pin(leasing.ready()))
            .collect();
        std::future::poll_fn(|context| {
            let ready = leases.iter_mut().any(|it| it.as_mut().poll(context).is_ready());
            if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Looks whether interfaces are here that are waited for, and gives them what is theirs.
    pub fn look(&mut self) -> Vec<Outcome> {
        if self.all.values().all(|it| !matches!(it.state, State::Awaited)) {
            return Vec::new();
        }
        let interfaces = interfaces::all();
        let n_networks = self.all.len();
        let mut names: Vec<String> = self.all.keys().cloned().collect();
        // So that of two default routes that of the network with a way out is set last, and stays.
        names.sort_by_key(|name| self.all.get(name).is_some_and(|it| !it.spec.internal));
        let mut outcomes = Vec::new();
        for name in names {
            let hostname = self.hostname.clone();
            let Some(endpoint) = self.all.get_mut(&name) else { continue };
            if !matches!(endpoint.state, State::Awaited) {
                continue;
            }
            let found = interfaces::interface_of(&endpoint.spec, n_networks, &interfaces);
            let Some(found) = found else { continue };
            if let Some(result) = endpoint.begin(&name, found, &hostname).transpose() {
                outcomes.push(endpoint.settled(&name, result));
            }
        }
        outcomes
    }

    /// Does what is due: hears DHCP servers, renews leases, gives up.
    pub fn turn(&mut self) -> Vec<Outcome> {
        let now = Instant::now();
        let mut outcomes = Vec::new();
        let mut late = false;
        for (name, endpoint) in &mut self.all {
            if let Some(result) = endpoint.hear(name) {
                outcomes.push(endpoint.settled(name, result));
            }
            let waits = matches!(endpoint.state, State::Awaited | State::Leasing);
            if waits && endpoint.until <= now {
                late = true;
            }
        }
        if late {
            let interfaces = interfaces::all();
            for (name, endpoint) in &mut self.all {
                let waits = matches!(endpoint.state, State::Awaited | State::Leasing);
                if waits && endpoint.until <= now {
                    let error = endpoint.lateness(name, &interfaces);
                    outcomes.push(endpoint.settled(name, Err(error)));
                }
            }
        }
        outcomes
    }
}

impl Endpoint {
    fn settled(&mut self, name: &str, result: Result<(), NetworkError>) -> Outcome {
        match &result {
            Ok(()) => {
                self.state = State::Up;
                let interface = self.interface.as_ref().map_or("", |it| it.0.as_str());
                let address = self.setting.address.map_or("no address".into(), |it| it.to_string());
                info!("network {name}: {interface} has {address}");
            }
            Err(error) => {
                warn!("{error}");
                self.leasing = None;
                self.state = State::Failed;
            }
        }
        Outcome { name: name.to_owned(), result }
    }

    fn lateness(&self, name: &str, interfaces: &[Interface]) -> NetworkError {
        let (name, seconds) = (name.to_owned(), PATIENCE.as_secs());
        if let (State::Leasing, Some((interface, _))) = (&self.state, &self.interface) {
            let seconds = LEASE_PATIENCE.as_secs();
            return NetworkError::NoLease { name, interface: interface.clone(), seconds };
        }
        let wanted = match (self.spec.id.as_str(), self.spec.name.as_str()) {
            ("", "") => "for it".to_owned(),
            ("", name) => format!("called {name}"),
            (id, _) if id.contains(':') => format!("with the address {id}"),
            (id, _) => format!("in PCI slot {id}"),
        };
        let there: Vec<String> = interfaces
            .iter()
            .map(|it| format!("is {} ({}, {})", it.name, it.mac, it.device.display()))
            .collect();
        NetworkError::NoInterface { name, wanted, seconds, there: there.join(" and ") }
    }

    /// Takes an interface: static addresses are set, otherwise a server is asked.
    fn begin(
        &mut self,
        name: &str,
        interface: &Interface,
        hostname: &str,
    ) -> Result<Option<()>, NetworkError> {
        let failed = |step: &str| {
            let (name, step) = (name.to_owned(), step.to_owned());
            move |errno| NetworkError::Step { name, step, errno }
        };
        let index = index_of(&interface.name).ok_or(Errno::ENODEV);
        let index = index.map_err(failed("find the interface's number"))?;
        let netlink = Netlink::open().map_err(failed("open a routing socket"))?;
        let called = self.name_interface(name, interface, index, &netlink);
        let mtu = Some(self.spec.mtu).filter(|mtu| *mtu != 0);
        netlink.ask(Message::up(index, mtu)).map_err(failed(&format!("switch {called} on")))?;
        self.interface = Some((called.clone(), index));
        if self.is_dynamic() {
            let internal = self.spec.internal;
            let leasing =
                Leasing::start(&called, &interface.mac, if internal { "" } else { hostname });
            self.leasing = Some(leasing.map_err(failed("open a DHCP socket"))?);
            (self.state, self.until) = (State::Leasing, Instant::now() + LEASE_PATIENCE);
            return Ok(None);
        }
        // Somebody else's to manage, as VIC has it.
        let address = self.spec.ip.filter(|net| !net.addr.is_unspecified());
        let network = &self.spec.network;
        let gateway = network.gateway.map(|net| net.addr).filter(|addr| !addr.is_unspecified());
        self.set(name, address, gateway, &[])?;
        Ok(Some(()))
    }

    /// Renames an interface that the config calls otherwise; a network's name is none for an interface, but
    /// is kept beside it.
    fn name_interface(
        &self,
        network: &str,
        interface: &Interface,
        index: u32,
        netlink: &Netlink,
    ) -> String {
        let wanted = self.spec.name.as_str();
        // IFNAMSIZ, less the zero at the end.
        let fits = wanted.len() < 16 && wanted.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if wanted.is_empty() || wanted == interface.name || !fits {
            return interface.name.clone();
        }
        let (message, called) = if wanted == network || wanted == self.spec.network.name {
            (Message::alias(index, wanted), interface.name.clone())
        } else {
            (Message::rename(index, wanted), wanted.to_owned())
        };
        match netlink.ask(message) {
            Ok(()) => called,
            Err(errno) => {
                warn!("network {network}: {} keeps its name: {errno}", interface.name);
                interface.name.clone()
            }
        }
    }

    fn is_dynamic(&self) -> bool {
        !self.spec.is_static && self.spec.ip.is_none_or(|net| net.addr.is_unspecified())
    }

    /// Sets address and routes, and takes back what was set before and is no more wanted.
    fn set(
        &mut self,
        name: &str,
        address: Option<IpNet>,
        gateway: Option<IpAddr>,
        offered_dns: &[IpAddr],
    ) -> Result<(), NetworkError> {
        let Some((called, index)) = self.interface.clone() else { return Ok(()) };
        let failed = |step: String| {
            let name = name.to_owned();
            move |errno| NetworkError::Step { name, step, errno }
        };
        let netlink = Netlink::open().map_err(failed("open a routing socket".to_owned()))?;
        let network = &self.spec.network;
        let configured: Vec<IpAddr> = network.dns.iter().map(|ip| ip.0).collect();
        let dns = match (configured.is_empty(), offered_dns.is_empty(), gateway) {
            (false, _, _) => configured,
            (true, false, _) => offered_dns.to_vec(),
            // VIC's last resort.
            (true, true, gateway) => gateway.into_iter().collect(),
        };
        let setting = Setting { address, gateway, dns, routes: self.routes(gateway) };
        let old = std::mem::replace(&mut self.setting, setting);
        for (to, by) in old.routes.iter().filter(|it| !self.setting.routes.contains(it)) {
            // Gone with its address, or by the container's hand.
            let _gone = netlink.ask(Message::remove_route(index, *to, *by));
        }
        if let Some(had) = old.address.filter(|had| Some(*had) != address) {
            let _gone = netlink.ask(Message::remove_address(index, had));
        }
        if let Some(net) = address {
            netlink
                .ask(Message::add_address(index, net))
                .map_err(failed(format!("give {called} the address {net}")))?;
        }
        for (to, by) in &self.setting.routes {
            let way = by.map_or(String::new(), |by| format!(" by {by}"));
            netlink
                .ask(Message::add_route(index, *to, *by, address))
                .map_err(failed(format!("lead {to}{way} through {called}")))?;
        }
        Ok(())
    }

    /// The default route, or else those to the networks behind the gateway.
    fn routes(&self, gateway: Option<IpAddr>) -> Vec<(IpNet, Option<IpAddr>)> {
        let Some(gateway) = gateway else { return Vec::new() };
        if self.spec.network.default {
            let addr = if gateway.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            return vec![(IpNet { addr, prefix_len: 0 }, Some(gateway))];
        }
        let alike = |to: &&IpNet| to.addr.is_ipv4() == gateway.is_ipv4();
        self.spec.network.destinations.iter().filter(alike).map(|to| (*to, Some(gateway))).collect()
    }

    /// Hears what a DHCP server said; what has become of the endpoint if that is new.
    fn hear(&mut self, name: &str) -> Option<Result<(), NetworkError>> {
        let news = self.leasing.as_mut()?.turn()?;
        match news {
            lease::News::Leased(lease) => {
                let gateway = self.spec.network.gateway.map(|net| net.addr);
                let gateway = gateway.or(lease.router.map(IpAddr::V4));
                let dns: Vec<IpAddr> = lease.dns.iter().copied().map(IpAddr::V4).collect();
                Some(self.set(name, Some(lease.address), gateway, &dns))
            }
            lease::News::Lost => {
                warn!("network {name}: its lease has ended and was not renewed");
                Some(self.set(name, None, None, &[]))
            }
        }
    }
}

/// The kernel's number of an interface.
fn index_of(name: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(name).join("ifindex");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
