//! The report: what the guest answers into its read-write keys, for operators and the VCH to see.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::extraconfig::{Decoded, EncodeError, Header, Pairs, escape_nil, from_lookup, to_pairs};
use crate::{DecodeErrors, Ip, IpNet, Timestamp, ip};

/// What has become of a [`Spec`](crate::Spec).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Report {
    /// The container's sessions, by id.
    #[serde(rename = "/sessions")]
    pub sessions: BTreeMap<String, SessionReport>,
    /// What ran beside them, by exec id.
    #[serde(rename = "/execs@non-persistent")]
    pub execs: BTreeMap<String, SessionReport>,
    /// The network interfaces, by network name.
    #[serde(rename = "/networks")]
    pub networks: BTreeMap<String, EndpointReport>,
    /// The volumes, by volume name.
    #[serde(rename = "/mounts")]
    pub mounts: BTreeMap<String, MountReport>,
    /// The agent's version. Ours, at `guestinfo.vice..link.version`.
    #[serde(rename = ".link/version")]
    pub agent_version: String,
    /// The source that the config came from. Ours, at `guestinfo.vice..link.source`.
    #[serde(rename = ".link/source")]
    pub source: String,
    /// What became of the config when it was read again last: how often it was, what was done, and what could
    /// not be. Ours, at `guestinfo.vice..link.reload`.
    #[serde(rename = ".link/reload", skip_serializing_if = "Option::is_none")]
    pub reload: Option<String>,
}

/// What has become of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SessionReport {
    /// Whether it was started.
    #[serde(rename = ".started")]
    pub started: Started,
    /// Its exit status once it has ended; 128 + n for signal n.
    #[serde(rename = ".status")]
    pub status: Option<i32>,
    /// The spec's create time echoed, in seconds since 1970.
    #[serde(rename = ".detail/createtime")]
    pub create_time: Option<i64>,
    /// When it was last started, in seconds since 1970.
    #[serde(rename = ".detail/starttime")]
    pub start_time: Option<i64>,
    /// When it last ended, in seconds since 1970; 0 while it runs.
    #[serde(rename = ".detail/stoptime")]
    pub stop_time: Option<i64>,
    /// How often it was started again.
    #[serde(rename = ".diagnostics/resurrections")]
    pub resurrections: i64,
    /// Its ends, the oldest first.
    #[serde(rename = ".diagnostics/exitlogs")]
    pub exit_logs: Vec<ExitLog>,
    /// `Some(false)` once a client has released a session that waited for one.
    #[serde(rename = ".runblock")]
    pub run_block: Option<bool>,
}

/// One end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ExitLog {
    /// When.
    #[serde(rename = "Time")]
    pub time: Timestamp,
    /// The exit status; 128 + n for signal n.
    #[serde(rename = "ExitStatus")]
    pub exit_status: i32,
    /// Why, if there is more to say.
    #[serde(rename = "Message")]
    pub message: String,
}

/// What an interface got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct EndpointReport {
    /// Whether it has been given what the config says. Ours, at `guestinfo.vice..networks|NAME.configured`.
    #[serde(rename = ".configured")]
    pub configured: Started,
    /// Its address.
    #[serde(rename = ".assigned", deserialize_with = "ip::if_any")]
    pub assigned: Option<IpNet>,
    /// Its gateway, with its network.
    #[serde(rename = ".network/assigned/gateway", deserialize_with = "ip::if_any")]
    pub gateway: Option<IpNet>,
    /// The name servers in use.
    #[serde(rename = ".network/assigned/dns")]
    pub dns: Vec<Ip>,
}

/// What became of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct MountReport {
    /// Whether it is in the container. Ours, at `guestinfo.vice..mounts|NAME.mounted`.
    #[serde(rename = ".mounted")]
    pub mounted: Started,
}

/// Whether a session was started, or a volume mounted: empty, `true`, or why not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Started {
    /// Not yet.
    #[default]
    No,
    /// It was.
    Yes,
    /// It could not be; the text says why.
    Failed(String),
}

impl Serialize for Started {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::No => "",
            Self::Yes => "true",
            Self::Failed(why) => why,
        })
    }
}

impl<'de> Deserialize<'de> for Started {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "" => Self::No,
            "true" => Self::Yes,
            _ => Self::Failed(text),
        })
    }
}

impl Report {
    /// Every pair to be written, in the form of the generation that `header` names. Only keys that
    /// the guest may write are among them: the host's map indexes are not. Empty values are
    /// `<nil>`.
    ///
    /// # Errors
    /// A session or network whose name cannot be part of a key.
    pub fn to_pairs(&self, header: Header) -> Result<Vec<(String, String)>, EncodeError> {
        let writable = format!("{}.", header.as_str());
        let pairs = to_pairs(self, header)?
            .into_iter()
            .filter(|(key, _)| key.starts_with(&writable))
            .filter_map(|(key, value)| Some((spelled(header, key)?, escape_nil(&value).to_owned())))
            .collect();
        Ok(pairs)
    }

    /// The pairs that differ from those of an earlier report. What that one had and this one has no
    /// more is taken back: a list gets the length 0 (its index, the last item's number, is −1),
    /// anything else `<nil>`.
    ///
    /// # Errors
    /// As [`Report::to_pairs`].
    pub fn changes(
        &self,
        since: &Self,
        header: Header,
    ) -> Result<Vec<(String, String)>, EncodeError> {
        let (now, before) = (self.to_pairs(header)?, since.to_pairs(header)?);
        let known: BTreeSet<_> = before.iter().collect();
        let kept: BTreeSet<&str> = now.iter().map(|(key, _)| key.as_str()).collect();
        let gone = before.iter().filter(|(key, _)| !kept.contains(key.as_str()));
        let gone = gone.map(|(key, _)| (key.clone(), emptied(key).to_owned()));
        Ok(gone.chain(now.iter().filter(|pair| !known.contains(pair)).cloned()).collect())
    }

    /// Reads a report, as a VCH does, from the pairs of a VM: those of the spec too, which have the
    /// map indexes.
    ///
    /// # Errors
    /// Every value that is not what it should be.
    pub fn from_pairs<K: AsRef<str>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, DecodeErrors> {
        let decoded: Decoded<Self> = from_lookup(Header::Vice, &Pairs::new(Header::Vice, pairs));
        decoded.into_result()
    }
}

/// The key in the given generation's spelling; `None` if it had none for it.
fn spelled(header: Header, key: String) -> Option<String> {
    if header == Header::Vice {
        return Some(key);
    }
    if key.ends_with("@non-persistent") {
        return None;
    }
    match key.split_once(".assigned.") {
        Some((endpoint, _)) if endpoint.ends_with(".network") => None,
        Some((endpoint, part)) => Some(format!("{endpoint}.ip.{part}")),
        None => Some(key),
    }
}

/// What takes a value back. Lists are the only ones whose emptiness is not an empty value.
fn emptied(key: &str) -> &'static str {
    let is_list_index = [".dns", ".exitlogs"].iter().any(|list| key.ends_with(list));
    if is_list_index { "-1" } else { "<nil>" }
}

#[cfg(test)]
mod tests;
