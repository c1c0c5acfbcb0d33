//! The machine's network interfaces as they are: who configures them does not matter here.
//!
//! The kernel announces changes on a routing socket ([`Watch`], rtnetlink(7)); what they were is not read from
//! there but looked up ([`all`]), so that lost announcements do no harm.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use guestinfo::tclo::Nic;
use guestinfo::{EndpointReport, Ip, IpNet, NetworkSpec};
use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    recv, socket,
};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The most interfaces and addresses that are looked at.
const MAX_INTERFACES: usize = 64;
const MAX_ADDRESSES: usize = 64;

/// An interface that leads out of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// `00:50:56:01:02:03`.
    pub mac: String,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<IpNet>,
    /// Where its default route leads.
    pub gateway: Option<Ipv4Addr>,
    /// Its device's path in sysfs.
    pub device: PathBuf,
}

/// All interfaces but loopback, by name.
pub fn all() -> Vec<Interface> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        if entry.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            || (found.len() >= MAX_INTERFACES && !found.contains_key(&entry.interface_name))
        {
            continue;
        }
        let name = entry.interface_name.clone();
        take(found.entry(name).or_default(), &entry);
    }
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut interfaces: Vec<Interface> = found.into_values().collect();
    for interface in &mut interfaces {
        interface.gateway = default_gateway(&routes, &interface.name);
        let device = Path::new("/sys/class/net").join(&interface.name).join("device");
        interface.device = device.canonicalize().unwrap_or_default();
    }
    interfaces
}

fn take(interface: &mut Interface, entry: &InterfaceAddress) {
    interface.name.clone_from(&entry.interface_name);
    let Some(address) = &entry.address else { return };
    if let Some(mac) = address.as_link_addr().and_then(nix::sys::socket::LinkAddr::addr) {
        let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        interface.mac = bytes.join(":");
    }
    let mask = entry.netmask.as_ref().and_then(ip);
    if let (Some(addr), Some(mask)) = (ip(address), mask)
        && interface.addresses.len() < MAX_ADDRESSES
    {
        interface.addresses.push(IpNet { addr, prefix_len: prefix_len(mask) });
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn prefix_len(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(v4) => v4.to_bits().leading_ones(),
        IpAddr::V6(v6) => v6.to_bits().leading_ones(),
    };
    // At most 128.
    u8::try_from(ones).unwrap_or(128)
}

/// The gateway of an interface's default route in `/proc/net/route`: name, destination, gateway, flags, …,
/// mask, numbers in hexadecimal as they lie in memory (proc(5)).
fn default_gateway(routes: &str, interface: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, "00000000", gateway, _, _, _, _, "00000000", ..] = words[..] else {
            return None;
        };
        let gateway = u32::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
        (name == interface).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// What VMware's host is told of the interfaces.
pub fn nics(interfaces: &[Interface]) -> Vec<Nic> {
    let nic = |it: &Interface| Nic { mac: it.mac.clone(), addresses: it.addresses.clone() };
    interfaces.iter().map(nic).collect()
}

/// What each network of a spec has got; one that has no interface here is not among them. `dns` are the name
/// servers that the agent gave the container for a network.
pub fn endpoints(
    networks: &BTreeMap<String, NetworkSpec>,
    interfaces: &[Interface],
    dns: impl Fn(&str) -> Vec<Ip>,
) -> BTreeMap<String, EndpointReport> {
    let of = |(name, network): (&String, &NetworkSpec)| {
        let interface = interface_of(network, networks.len(), interfaces)?;
        let assigned = assigned(network, interface);
        let gateway = interface.gateway.zip(assigned);
        let gateway =
            gateway.map(|(addr, net)| IpNet { addr: addr.into(), prefix_len: net.prefix_len });
        let dns = if assigned.is_some() { dns(name) } else { Vec::new() };
        Some((name.clone(), EndpointReport { assigned, gateway, dns, ..EndpointReport::default() }))
    };
    networks.iter().filter_map(of).collect()
}

/// The interface with the network's hardware address, or in its PCI slot, else the one of its name; a machine
/// with one network and one interface has no choice.
pub fn interface_of<'a>(
    network: &NetworkSpec,
    n_networks: usize,
    interfaces: &'a [Interface],
) -> Option<&'a Interface> {
    if network.id.contains(':') {
        return interfaces.iter().find(|it| it.mac.eq_ignore_ascii_case(&network.id));
    }
    let slot = network.id.parse().ok();
    let in_slot = |it: &&Interface| slot.is_some_and(|slot| is_in_slot(&it.device, slot));
    let by_name = |it: &&Interface| !network.name.is_empty() && it.name == network.name;
    let only = match interfaces {
        [only] if n_networks == 1 => Some(only),
        _ => None,
    };
    interfaces.iter().find(in_slot).or_else(|| interfaces.iter().find(by_name)).or(only)
}

/// Whether a device is in the slot that VMware calls so: device in the low five bits, then bus, then function.
/// Bus 0 is the root, the others are behind its bridges from 0x11 on, and functions are the bridge's.
fn is_in_slot(device: &Path, slot: u32) -> bool {
    const FIRST_BRIDGE: u32 = 0x11;
    let (place, bus, function) = (slot & 31, slot >> 5 & 31, slot >> 10 & 7);
    let mut parts = device.iter().filter_map(|part| part.to_str());
    match bus.checked_sub(1) {
        None => parts.any(|part| part == format!("0000:00:{place:02x}.{function:x}")),
        Some(bridge) => {
            let bridge = format!("0000:00:{:02x}.{function:x}", FIRST_BRIDGE + bridge);
            let found = parts.any(|part| part == bridge);
            found && parts.next().is_some_and(|part| part.ends_with(&format!(":{place:02x}.0")))
        }
    }
}

/// The address that stands for the interface: the one that was asked for, else the first of v4, else of v6.
fn assigned(network: &NetworkSpec, interface: &Interface) -> Option<IpNet> {
    let all = &interface.addresses;
    let asked = network.ip.and_then(|ip| all.iter().find(|net| net.addr == ip.addr));
    let is_global = |addr: IpAddr| matches!(addr, IpAddr::V6(v6) if !v6.is_unicast_link_local());
    asked
        .or_else(|| all.iter().find(|net| net.addr.is_ipv4()))
        .or_else(|| all.iter().find(|net| is_global(net.addr)))
        .copied()
}

/// The socket on which the kernel announces changes of links, addresses and routes.
#[derive(Debug)]
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
}

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100;

/// The most announcements that are thrown away in one go.
const MAX_TAKEN: usize = 256;

impl Watch {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// When the kernel has no network.
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self { fd: sys::watch(fd)? })
    }

    /// Waits until something has changed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn changed(&self) {
        match self.fd.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_shutting_down) => std::future::pending().await,
        }
    }

    /// Takes all announcements; whether there were any.
    pub fn take(&self) -> bool {
        let mut any = false;
        let mut buffer = [0; 4096];
        for _ in 0..MAX_TAKEN {
            let taken = self.fd.try_io(tokio::io::Interest::READABLE, |fd| {
                Ok(recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?)
            });
            match taken {
                Ok(_) => any = true,
                // The kernel dropped some: something has changed.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => any = true,
                Err(_none_left) => break,
            }
        }
        any
    }
}

#[cfg(test)]
mod tests;
