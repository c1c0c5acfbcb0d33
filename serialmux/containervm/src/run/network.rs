//! `--network`, `--dns`, `--publish`: the VM's network card, what leads to it, and what its guest is to set.
//!
//! QEMU's user network is 10.0.2.0/24: .2 is the gateway, .3 answers for the host's name servers, and the guest
//! is .15. The address is written as a static one, so that a start does not wait for a DHCP server.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use guestinfo::{Ip, IpNet, NetworkSpec, RouteSpec};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const PREFIX: u8 = 24;

/// What the VM's network card leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The host's network, by translation of addresses.
    #[default]
    Nat,
    /// QEMU's own network and nothing beyond.
    Isolated,
    /// There is no card.
    None,
}

/// Not a word for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no network; expected nat (the way out, as Docker's bridge), isolated (no way out) or none"
)]
pub struct NetworkModeError(String);

impl FromStr for NetworkMode {
    type Err = NetworkModeError;

    fn from_str(word: &str) -> Result<Self, NetworkModeError> {
        match word {
            "nat" | "bridge" | "default" => Ok(Self::Nat),
            "isolated" => Ok(Self::Isolated),
            "none" => Ok(Self::None),
            _ => Err(NetworkModeError(word.to_owned())),
        }
    }
}

/// `-p [IP:]HOST_PORT:PORT[/PROTOCOL]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The host's address; all of them if unspecified.
    pub host: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub port: u16,
    /// Whether it is UDP rather than TCP.
    pub udp: bool,
}

/// Not a port to publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} publishes nothing; expected HOST_PORT:PORT, such as 8080:80, 127.0.0.1:8080:80 or 5353:53/udp"
)]
pub struct PublishError(String);

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let parse = || {
            let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let udp = match protocol {
                "tcp" => false,
                "udp" => true,
                _ => return None,
            };
            let (rest, port) = ports.rsplit_once(':')?;
            let (host, host_port) = rest.rsplit_once(':').unwrap_or(("0.0.0.0", rest));
            let number = |text: &str| text.parse().ok().filter(|port| *port != 0);
            let host = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
            Some(Self { host, host_port: number(host_port)?, port: number(port)?, udp })
        };
        parse().ok_or_else(|| PublishError(text.to_owned()))
    }
}

impl Publish {
    /// As VIC's key `ports` has it.
    fn vic(&self) -> String {
        format!("{}:{}/{}", self.host_port, self.port, if self.udp { "udp" } else { "tcp" })
    }

    /// As the VMX key `containervm.ethernet0.forward` has it.
    fn forward(&self) -> String {
        let protocol = if self.udp { "udp" } else { "tcp" };
        format!("{protocol}:{}:{}-{ADDRESS}:{}", self.host, self.host_port, self.port)
    }
}

/// What is asked of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// `--network`.
    pub mode: NetworkMode,
    /// `--dns`; the host's, by QEMU, if there are none.
    pub dns: Vec<IpAddr>,
    /// `-p`.
    pub publish: Vec<Publish>,
}

impl NetworkOptions {
    /// What the guest is to set, with the network's name; nothing without a card.
    pub(super) fn spec(&self) -> Option<(String, NetworkSpec)> {
        let name = match self.mode {
            NetworkMode::Nat => "nat",
            NetworkMode::Isolated => "isolated",
            NetworkMode::None => return None,
        };
        let net = |addr: Ipv4Addr| IpNet { addr: addr.into(), prefix_len: PREFIX };
        let dns = if self.dns.is_empty() { vec![RESOLVER.into()] } else { self.dns.clone() };
        let network = RouteSpec {
            name: name.to_owned(),
            kind: "external".to_owned(),
            gateway: Some(net(GATEWAY)),
            default: true,
            dns: dns.into_iter().map(Ip).collect(),
            ..RouteSpec::default()
        };
        let spec = NetworkSpec {
            name: "eth0".to_owned(),
            is_static: true,
            ip: Some(net(ADDRESS)),
            ports: self.publish.iter().map(Publish::vic).collect(),
            network,
            ..NetworkSpec::default()
        };
        Some((name.to_owned(), spec))
    }

    /// The card in the VMX file.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let connection = match self.mode {
            NetworkMode::Nat => "nat",
            NetworkMode::Isolated => "hostonly",
            NetworkMode::None => return Vec::new(),
        };
        let mut lines = vec![
            ("ethernet0.present", "TRUE".to_owned()),
            ("ethernet0.virtualDev", "vmxnet3".to_owned()),
            ("ethernet0.connectionType", connection.to_owned()),
            ("ethernet0.addressType", "generated".to_owned()),
        ];
        if !self.publish.is_empty() {
            let forwards: Vec<String> = self.publish.iter().map(Publish::forward).collect();
            lines.push(("containervm.ethernet0.forward", forwards.join(" ")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_leads_out_or_not_or_is_not_there() {
        let options = |word: &str| NetworkOptions {
            mode: word.parse().unwrap(),
            ..NetworkOptions::default()
        };
        let connection = |word: &str| options(word).lines().get(2).map(|line| line.1.clone());
        assert_eq!(connection("nat").as_deref(), Some("nat"));
        assert_eq!(connection("isolated").as_deref(), Some("hostonly"));
        assert_eq!((connection("none"), options("none").spec()), (None, None));
        let (name, spec) = options("nat").spec().unwrap();
        assert_eq!((name.as_str(), spec.ip.unwrap().to_string()), ("nat", "10.0.2.15/24".into()));
        assert_eq!(spec.network.dns, [Ip(RESOLVER.into())]);
        assert!("host".parse::<NetworkMode>().is_err());
    }

    #[test]
    fn ports_are_published_in_dockers_words() {
        let publish: Publish = "127.0.0.1:8080:80".parse().unwrap();
        assert_eq!(publish.forward(), "tcp:127.0.0.1:8080-10.0.2.15:80");
        assert_eq!("53:53/udp".parse::<Publish>().unwrap().vic(), "53:53/udp");
        for bad in ["", "80", ":80", "0:80", "80:0", "80:80/sctp", "x:80:80", "80:70000", "a b"] {
            let error = bad.parse::<Publish>().unwrap_err().to_string();
            assert!(error.contains("8080:80"), "{error}");
        }
    }
}
