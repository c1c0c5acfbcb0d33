//! The spec: everything the host asks of one containerVM, as plain data.
//!
//! It is the part of VIC's executor config that a tether can see, under VIC's keys (the mark in
//! each serde name says who may write it, see [`extraconfig`](crate::extraconfig)), and our own
//! additions below `guestinfo.vice./link/`, which VIC's programs never ask for. What the guest
//! answers is a [`Report`](crate::Report).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::extraconfig::{
    DecodeErrors, Decoded, EncodeError, Header, Lookup, NIL, Pairs, from_lookup, to_pairs,
};
use crate::{Blob, Vmx};

mod changes;
mod container;
mod link;
mod mount;
mod network;
mod older;
mod process;
mod restart;
mod session;

pub use changes::Changes;
pub use container::{ContainerSpec, Tmpfs, TmpfsError};
pub use link::{LinkMode, LinkSpec, Protection, SPOOL_LINE};
pub use mount::{CopyMode, MountSpec};
pub use network::{NetworkSpec, RouteSpec, TrustLevel};
pub use process::{Capability, OomScore, ProcessSpec, ProcessSpecError, Resource, Ulimit};
pub use restart::{PolicyError, RestartPolicy};
pub use session::{CmdSpec, DiagnosticsSpec, SessionSpec, SyslogSpec};

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
    /// The container's name. VIC since 0.6 keeps it hidden from the guest; then it is empty in
    /// there.
    #[serde(rename = "/common/name")]
    pub name: String,
    /// VIC's free text about where it runs; of no meaning to the guest.
    #[serde(rename = "/common/ExecutionEnvironment")]
    pub execution_environment: String,
    /// Free text, hidden from the guest.
    #[serde(rename = "-common/notes")]
    pub notes: String,
    /// When the container was created: nanoseconds since 1970, seconds if older than VIC's plugin
    /// version 9.
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
    /// The containerVM's key. VIC keeps its SSH host key here, a PEM text; the link derives its own
    /// from the bytes.
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
    /// What surrounds the container's processes. Not of VIC.
    #[serde(rename = "/container")]
    pub container: ContainerSpec,
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
        let ours = if header == Header::Vice { Pairs::default() } else { below(Header::Vice) };
        Self::assemble(header, &below(header), &ours)
    }

    /// Asks `lookup` for every key that a spec could have.
    pub(crate) fn ask(lookup: &dyn Lookup) {
        let header =
            older::detect(older::SIGNS.into_iter().filter(|key| lookup.value(key).is_some()));
        // What matters is what was asked; the answers are put together elsewhere.
        drop(Self::assemble(header, lookup, lookup));
    }

    /// Puts a spec together from the pairs below its header and, if that is the older one, ours.
    fn assemble(header: Header, all: &dyn Lookup, ours: &dyn Lookup) -> Decoded<Self> {
        let Decoded { value, mut errors } = from_lookup::<Self>(header, all);
        let mut spec = Self { header, ..value.unwrap_or_default() };
        older::complete(&mut spec, all, &mut errors);
        if header == Header::Bare {
            older::take_link(&mut spec, ours, &mut errors);
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
