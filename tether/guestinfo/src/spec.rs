//! The spec: everything the host asks of one containerVM, as plain data.
//!
//! It is the part of VIC's executor config that a tether can see, under VIC's keys (the mark in each serde
//! name says who may write it, see [`extraconfig`](crate::extraconfig)), and our own additions below
//! `guestinfo.vice./link/`, which VIC's programs never ask for. What the guest answers is a
//! [`Report`](crate::Report).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::extraconfig::{
    DecodeErrors, Decoded, EncodeError, Header, NIL, Pairs, from_lookup, to_pairs,
};
use crate::{Blob, Ip, IpNet, IpRange, Url, Vmx};

mod older;

/// What a containerVM is to be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Spec {
    /// Which of VIC's two generations of keys it was read from, and the report goes to.
    #[serde(skip)]
    pub header: Header,
    /// The container's id, 64 hexadecimal digits.
    #[serde(rename = "/common/id")]
    pub id: String,
    /// The container's name. VIC since 0.6 keeps it hidden from the guest; then it is empty in there.
    #[serde(rename = "/common/name")]
    pub name: String,
    /// VIC's free text about where it runs; of no meaning to the guest.
    #[serde(rename = "/common/ExecutionEnvironment")]
    pub execution_environment: String,
    /// Free text, hidden from the guest.
    #[serde(rename = "-common/notes")]
    pub notes: String,
    /// When the container was created: nanoseconds since 1970, seconds if older than VIC's plugin version 9.
    #[serde(rename = ".createtime")]
    pub create_time: i64,
    /// The short host name; if empty the id gives one, see [`Spec::full_hostname`].
    #[serde(rename = "/hostname")]
    pub hostname: String,
    /// What follows the host name's dot.
    #[serde(rename = "/domainname")]
    pub domainname: String,
    /// What runs in the container, by session id; see [`Spec::primary`].
    #[serde(rename = "/sessions")]
    pub sessions: BTreeMap<String, SessionSpec>,
    /// What runs beside it, by exec id. Gone when the VM is powered off.
    #[serde(rename = "/execs@non-persistent")]
    pub execs: BTreeMap<String, SessionSpec>,
    /// The network interfaces, by network name.
    #[serde(rename = "/networks")]
    pub networks: BTreeMap<String, NetworkSpec>,
    /// The volumes, by volume name.
    #[serde(rename = "/mounts")]
    pub mounts: BTreeMap<String, MountSpec>,
    /// The containerVM's key. VIC keeps its SSH host key here, a PEM text; the link derives its own from the bytes.
    #[serde(rename = "/key")]
    pub key: Blob,
    /// How much is to be logged, and whereto.
    #[serde(rename = "/diagnostics")]
    pub diagnostics: DiagnosticsSpec,
    /// The image layer that the root file system came from.
    #[serde(rename = "/layerid")]
    pub layer_id: String,
    /// The image.
    #[serde(rename = "/imageid")]
    pub image_id: String,
    /// The image's name.
    #[serde(rename = "/repo")]
    pub repo: String,
    /// Whether answers may leave by another interface than their question came in by.
    #[serde(rename = "/asymrouting")]
    pub asymmetric_routing: bool,
    /// The VCH that wrote this.
    #[serde(rename = "/version")]
    pub version: VersionSpec,
    /// Labels and the like, hidden from the guest.
    #[serde(rename = "-annotations")]
    pub annotations: BTreeMap<String, String>,
    /// How output and commands travel. Not of VIC.
    #[serde(rename = "/link")]
    pub link: LinkSpec,
}

/// One process to run, with its children.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct SessionSpec {
    /// The session's id. Its name in the map if nothing else is said.
    #[serde(rename = "/common/id")]
    pub id: String,
    /// The session's name.
    #[serde(rename = "/common/name")]
    pub name: String,
    /// VIC's free text about where it runs; of no meaning to the guest.
    #[serde(rename = "/common/ExecutionEnvironment")]
    pub execution_environment: String,
    /// Free text, hidden from the guest.
    #[serde(rename = "-common/notes")]
    pub notes: String,
    /// When it was created, in seconds since 1970.
    #[serde(rename = ".detail/createtime")]
    pub create_time: i64,
    /// What to execute.
    #[serde(rename = "/cmd")]
    pub cmd: CmdSpec,
    /// Whether it gets a terminal.
    #[serde(rename = "/tty")]
    pub tty: bool,
    /// Whether it gets an open stdin; `/dev/null` otherwise.
    #[serde(rename = "/openstdin")]
    pub open_stdin: bool,
    /// Whether clients may attach.
    #[serde(rename = "/attach")]
    pub attach: bool,
    /// Whether it must wait for an attached client before it runs. The guest clears this.
    #[serde(rename = ".runblock")]
    pub run_block: bool,
    /// Whether it is to run. True unless the host says otherwise; VIC always says.
    #[serde(rename = "/active")]
    pub active: bool,
    /// Whether to run it again when it ends.
    #[serde(rename = "/restart")]
    pub restart: bool,
    /// The signal that asks it to end, by name or number; TERM if empty.
    #[serde(rename = "/stopSignal")]
    pub stop_signal: String,
    /// User name or number, if not root; may carry `:group`.
    #[serde(rename = "/User")]
    pub user: String,
    /// Group name or number.
    #[serde(rename = "/Group")]
    pub group: String,
    /// How much is to be logged about it, and whereto.
    #[serde(rename = "/diagnostics")]
    pub diagnostics: DiagnosticsSpec,
}

impl Default for SessionSpec {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            execution_environment: String::new(),
            notes: String::new(),
            create_time: 0,
            cmd: CmdSpec::default(),
            tty: false,
            open_stdin: false,
            attach: false,
            run_block: false,
            active: true,
            restart: false,
            stop_signal: String::new(),
            user: String::new(),
            group: String::new(),
            diagnostics: DiagnosticsSpec::default(),
        }
    }
}

/// A command line and what surrounds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct CmdSpec {
    /// The program: a path, or a name to look up in `PATH`.
    #[serde(rename = "/Path")]
    pub path: String,
    /// The arguments, the zeroth included.
    #[serde(rename = "/Args")]
    pub args: Vec<String>,
    /// The environment as `NAME=value`.
    #[serde(rename = "/Env")]
    pub env: Vec<String>,
    /// The working directory.
    #[serde(rename = "/Dir")]
    pub dir: String,
}

/// How much is to be logged, and whereto.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct DiagnosticsSpec {
    /// 0 for the usual, more for more.
    #[serde(rename = "/debug")]
    pub debug: i64,
    /// A syslog server that gets the output too.
    #[serde(rename = "/syslog")]
    pub syslog: Option<SyslogSpec>,
}

/// A syslog server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SyslogSpec {
    /// `tcp` or `udp`.
    #[serde(rename = "Network")]
    pub network: String,
    /// Host and port.
    #[serde(rename = "RAddr")]
    pub address: String,
}

/// The version of the VCH that wrote a spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct VersionSpec {
    /// The number of VIC's migration feature that it has last.
    #[serde(rename = "/PluginVersion")]
    pub plugin_version: i64,
    /// The version.
    #[serde(rename = "/Version")]
    pub version: String,
    /// The commit it was built from.
    #[serde(rename = "/GitCommit")]
    pub git_commit: String,
    /// When it was built.
    #[serde(rename = "/BuildDate")]
    pub build_date: String,
    /// Its build number.
    #[serde(rename = "/BuildNumber")]
    pub build_number: String,
    /// Whether the tree that it was built from was clean.
    #[serde(rename = "/State")]
    pub state: String,
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// VMware's number of the PCI slot that the interface sits in, base 10.
    #[serde(rename = "/Common/id")]
    pub id: String,
    /// The interface's name.
    #[serde(rename = "/Common/name")]
    pub name: String,
    /// Whether `ip` is to be used; by DHCP otherwise.
    #[serde(rename = "/static")]
    pub is_static: bool,
    /// The address asked for.
    #[serde(rename = "/ip")]
    pub ip: Option<IpNet>,
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
    #[serde(rename = "/gateway")]
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

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct MountSpec {
    /// `label:` and the disk's label, or `nfs:` and a server.
    #[serde(rename = "/source")]
    pub source: Url,
    /// Where it goes in the container.
    #[serde(rename = "/dest")]
    pub dest: String,
    /// For nfs the mount options; `rw` or `ro`.
    #[serde(rename = "/mode")]
    pub mode: String,
    /// Whether a fresh volume gets what the image has at its place.
    #[serde(rename = "/copymode")]
    pub copy_mode: CopyMode,
}

/// Whether a fresh volume gets what the image has at its place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum CopyMode {
    /// Nothing said.
    #[default]
    #[serde(rename = "0")]
    Unspecified,
    /// Never.
    #[serde(rename = "1")]
    Never,
    /// If the volume is new.
    #[serde(rename = "2")]
    New,
}

/// How output and commands travel between the guest and the multiplexer. Ours, below `guestinfo.vice./link/`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct LinkSpec {
    /// Whether packets are encrypted and authenticated.
    #[serde(rename = "/protection")]
    pub protection: Protection,
    /// How many seconds the guest waits at its end for the multiplexer to have all output safe, before it powers off.
    #[serde(rename = "/linger")]
    pub linger: u64,
    /// What happens to a process whose output nobody takes.
    #[serde(rename = "/mode")]
    pub mode: LinkMode,
}

impl LinkSpec {
    /// [`LinkSpec::linger`] when nothing is said, in seconds: a multiplexer's restart fits in, and a VM
    /// whose multiplexer is gone for good does not hold its memory for long.
    pub const DEFAULT_LINGER: u64 = 30;
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            protection: Protection::default(),
            linger: Self::DEFAULT_LINGER,
            mode: LinkMode::default(),
        }
    }
}

/// Whether packets are encrypted and authenticated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum Protection {
    /// They are, with the containerVM's key.
    #[default]
    #[serde(rename = "sealed")]
    Sealed,
    /// They only carry a checksum.
    #[serde(rename = "plain")]
    Plain,
}

/// What happens to a process whose output nobody takes; the words are Docker's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum LinkMode {
    /// It waits.
    #[default]
    #[serde(rename = "blocking")]
    Blocking,
    /// It goes on; the oldest output is lost, and how much is recorded.
    #[serde(rename = "non-blocking")]
    NonBlocking,
}

/// There is no telling which session is the container's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrimaryError {
    /// There is none at all.
    #[error("the config has no session; guestinfo.vice./sessions must name one, with its cmd/Path")]
    NoSession,
    /// There are several, and none has the container's id.
    #[error(
        "none of the sessions {} has the container's id {id:?}; give the one to run that id",
        candidates.join(", ")
    )]
    Ambiguous {
        /// The container's id.
        id: String,
        /// The sessions' ids.
        candidates: Vec<String>,
    },
}

impl Spec {
    /// Reads a spec from the entries of a VMX file.
    ///
    /// # Errors
    /// Every value that is not what it should be.
    pub fn from_vmx(vmx: &Vmx) -> Result<Self, DecodeErrors> {
        Self::from_pairs(vmx.iter())
    }

    /// Reads a spec from pairs, as a [`Source`](crate::source::Source) gives them.
    ///
    /// # Errors
    /// Every value that is not what it should be.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, DecodeErrors> {
        Self::decode(pairs).into_result()
    }

    /// Like [`Spec::from_pairs`], but also hands back what could be read. There always is a value.
    pub fn decode<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Decoded<Self> {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        let header = older::detect(pairs.iter().map(|(key, _)| key.as_ref()));
        let below = |header| {
            Pairs::new(header, pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref())))
        };
        let all = below(header);
        let Decoded { value, mut errors } = from_lookup::<Self>(header, &all);
        let mut spec = Self { header, ..value.unwrap_or_default() };
        older::complete(&mut spec, &all, &mut errors);
        if header == Header::Bare {
            older::take_link(&mut spec, &below(Header::Vice), &mut errors);
        }
        for sessions in [&mut spec.sessions, &mut spec.execs] {
            for (id, session) in sessions.iter_mut().filter(|(_, session)| session.id.is_empty()) {
                session.id.clone_from(id);
            }
        }
        Decoded { value: Some(spec), errors }
    }

    /// The pairs that a VCH writes for this spec, in today's form whatever it was read from, ready
    /// for a VMX file or vSphere's extraConfig (empty values as `<nil>`).
    ///
    /// # Errors
    /// A session, network, volume or annotation whose name cannot be part of a key.
    pub fn to_vmx_pairs(&self) -> Result<Vec<(String, String)>, EncodeError> {
        let mut pairs = to_pairs(self, Header::Vice)?;
        if !self.name.is_empty() {
            // Where VIC's own programs look for the name since it can change.
            pairs.push(("common/name".to_owned(), self.name.clone()));
        }
        for (_, value) in &mut pairs {
            if value.is_empty() {
                NIL.clone_into(value);
            }
        }
        Ok(pairs)
    }

    /// The session that is the container's own: the one with the container's id, else the only one.
    ///
    /// # Errors
    /// There is none, or several and none with the container's id.
    pub fn primary(&self) -> Result<&SessionSpec, PrimaryError> {
        let own = self.sessions.get(&self.id);
        let own = own.or_else(|| self.sessions.values().find(|session| session.id == self.id));
        if let Some(session) = own {
            return Ok(session);
        }
        let mut all = self.sessions.values();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(PrimaryError::NoSession),
            (Some(_), Some(_)) => Err(PrimaryError::Ambiguous {
                id: self.id.clone(),
                candidates: self.sessions.keys().cloned().collect(),
            }),
        }
    }

    /// The host name to set: `hostname[.domainname]`; without a hostname the container's name
    /// with VIC 0.4's keys, and the first 12 characters of the id with today's.
    pub fn full_hostname(&self) -> String {
        let short = match self.header {
            _ if !self.hostname.is_empty() => &self.hostname,
            Header::Bare if !self.name.is_empty() => &self.name,
            Header::Bare | Header::Vice => return self.id.chars().take(12).collect(),
        };
        match self.domainname.as_str() {
            "" => short.clone(),
            domain => format!("{short}.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests;
