//! One network interface of a spec, and the network that it leads to.

use serde::{Deserialize, Serialize};

use crate::{Ip, IpNet, IpRange, ip};

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// VMware's number of the PCI slot that the interface sits in, base 10; or, ours, its hardware address.
    #[serde(rename = "/Common/id")]
    pub id: String,
    /// The interface's name.
    #[serde(rename = "/Common/name")]
    pub name: String,
    /// Whether `ip` is to be used; by DHCP otherwise.
    #[serde(rename = "/static")]
    pub is_static: bool,
    /// The address asked for.
    #[serde(rename = "/ip", deserialize_with = "ip::if_any")]
    pub ip: Option<IpNet>,
    /// The largest packet, bytes; 0 for the interface's own. Ours, at `guestinfo.vice./networks|NAME/mtu`.
    #[serde(rename = "/mtu", skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Published ports, `80/tcp` or `8080:80/tcp`.
    #[serde(rename = "/ports")]
    pub ports: Vec<String>,
    /// Whether the network has no way out.
    #[serde(rename = "/internal")]
    pub internal: bool,
    /// The network at the other end.
    #[serde(rename = "/network")]
    pub network: RouteSpec,
}

impl NetworkSpec {
    /// The PCI slot number, if [`NetworkSpec::id`] is one.
    pub fn slot(&self) -> Option<u32> {
        self.id.parse().ok()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(mtu: &u32) -> bool {
    *mtu == 0
}

/// The network that an interface leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct RouteSpec {
    /// The network's id.
    #[serde(rename = "/Common/id")]
    pub id: String,
    /// The network's name.
    #[serde(rename = "/Common/name")]
    pub name: String,
    /// `bridge` or `external`.
    #[serde(rename = ".type")]
    pub kind: String,
    /// What the firewall lets in and out.
    #[serde(rename = "/TrustLevel")]
    pub trust: TrustLevel,
    /// The gateway, with its network.
    #[serde(rename = "/gateway", deserialize_with = "ip::if_any")]
    pub gateway: Option<IpNet>,
    /// Whether the default route goes there.
    #[serde(rename = "/default")]
    pub default: bool,
    /// Name servers.
    #[serde(rename = "/dns")]
    pub dns: Vec<Ip>,
    /// Further networks behind the gateway.
    #[serde(rename = "/destinations")]
    pub destinations: Vec<IpNet>,
    /// The addresses that the network hands out.
    #[serde(rename = "/pools")]
    pub pools: Vec<IpRange>,
    /// `container:alias` names; hidden from the guest.
    #[serde(rename = "-aliases")]
    pub aliases: Vec<String>,
}

/// What a network's firewall lets in and out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum TrustLevel {
    /// Nothing said.
    #[default]
    #[serde(rename = "0")]
    Unspecified,
    /// Published ports in, everything out.
    #[serde(rename = "1")]
    Published,
    /// Everything.
    #[serde(rename = "2")]
    Open,
    /// Nothing.
    #[serde(rename = "3")]
    Closed,
    /// Nothing in, everything out.
    #[serde(rename = "4")]
    Outbound,
    /// Only what comes from and goes to the same network.
    #[serde(rename = "5")]
    Peers,
}
