//! What a session's process may do and use, beyond what VIC has keys for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a process may do and use. Ours, below `guestinfo.vice./sessions|ID/process/`. The words are
/// those of `docker run`'s options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// Resource limits other than the usual.
    #[serde(rename = "/ulimits")]
    pub ulimits: Vec<Ulimit>,
    /// How readily the kernel kills it when memory runs out: -1000 (never) to 1000.
    #[serde(rename = "/oomScoreAdj")]
    pub oom_score_adj: OomScore,
    /// Capabilities it has although `cap_drop` says ALL.
    #[serde(rename = "/capAdd")]
    pub cap_add: Vec<Capability>,
    /// Capabilities it does not have; without any it has them all.
    #[serde(rename = "/capDrop")]
    pub cap_drop: Vec<Capability>,
    /// Whether no program it starts may gain privileges (`PR_SET_NO_NEW_PRIVS`).
    #[serde(rename = "/noNewPrivileges")]
    pub no_new_privileges: bool,
    /// Further groups, by name or number.
    #[serde(rename = "/groupAdd")]
    pub group_add: Vec<String>,
}

impl ProcessSpec {
    /// The capabilities it is to have, bit n for number n, by Docker's rule over a default of all: `ALL`
    /// added means all but the dropped; `ALL` dropped means the added alone; else all but the dropped, and
    /// the added.
    pub fn capabilities(&self) -> u64 {
        let bits = |list: &[Capability]| list.iter().fold(0, |bits, one| bits | one.bits());
        let (added, dropped) = (bits(&self.cap_add), bits(&self.cap_drop));
        if self.cap_add.contains(&Capability::All) {
            let named = self.cap_drop.iter().filter(|one| **one != Capability::All);
            ALL & !named.fold(0, |bits, one| bits | one.bits())
        } else {
            ALL & !dropped | added
        }
    }
}

/// A score that the kernel takes, see proc(5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct OomScore(i16);

impl OomScore {
    /// The number.
    pub fn get(self) -> i16 {
        self.0
    }
}

impl TryFrom<i64> for OomScore {
    type Error = ProcessSpecError;

    fn try_from(score: i64) -> Result<Self, ProcessSpecError> {
        let number = i16::try_from(score).ok().filter(|score| (-1000..=1000).contains(score));
        number.map(Self).ok_or(ProcessSpecError::OomScore(score))
    }
}

impl From<OomScore> for i64 {
    fn from(OomScore(score): OomScore) -> Self {
        score.into()
    }
}

/// A capability, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Capability {
    /// Every one there is.
    All,
    /// The one of this number (capabilities(7), `linux/capability.h`).
    Number(u8),
}

/// By their numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const ALL: u64 = (1 << CAPABILITIES.len()) - 1;

impl Capability {
    fn bits(self) -> u64 {
        match self {
            Self::All => ALL,
            Self::Number(number) => 1 << number,
        }
    }
}

impl FromStr for Capability {
    type Err = ProcessSpecError;

    fn from_str(text: &str) -> Result<Self, ProcessSpecError> {
        let name = text.trim().to_ascii_uppercase();
        if name == "ALL" {
            return Ok(Self::All);
        }
        let short = name.strip_prefix("CAP_").unwrap_or(&name);
        let at = CAPABILITIES.iter().position(|known| *known == short);
        let number = at.and_then(|at| u8::try_from(at).ok());
        number.map(Self::Number).ok_or_else(|| ProcessSpecError::Capability(text.to_owned()))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::Number(number) => match CAPABILITIES.get(usize::from(*number)) {
                Some(name) => write!(f, "CAP_{name}"),
                None => write!(f, "{number}"),
            },
        }
    }
}

impl TryFrom<String> for Capability {
    type Error = ProcessSpecError;

    fn try_from(text: String) -> Result<Self, ProcessSpecError> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.to_string()
    }
}

/// What a limit is on; the words are Docker's, the meanings those of getrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are getrlimit's")]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

const RESOURCES: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// A limit: `name=soft[:hard]`, where -1 and `unlimited` mean none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ulimit {
    /// What it is on.
    pub resource: Resource,
    /// What is enforced; [`Ulimit::UNLIMITED`] for no limit.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

impl Ulimit {
    /// No limit (`RLIM_INFINITY`).
    pub const UNLIMITED: u64 = u64::MAX;
}

impl FromStr for Ulimit {
    type Err = ProcessSpecError;

    fn from_str(text: &str) -> Result<Self, ProcessSpecError> {
        let fault = || ProcessSpecError::Ulimit(text.to_owned());
        let (name, limits) = text.split_once('=').ok_or_else(fault)?;
        let known = RESOURCES.iter().find(|(known, _)| *known == name.trim());
        let (_, resource) = *known.ok_or_else(fault)?;
        let number = |text: &str| match text.trim() {
            "-1" | "unlimited" => Ok(Self::UNLIMITED),
            digits => digits.parse().map_err(|_| fault()),
        };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(ProcessSpecError::SoftAboveHard(text.to_owned()));
        }
        Ok(Self { resource, soft, hard })
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = RESOURCES.iter().find(|(_, resource)| *resource == self.resource);
        let number = |number| match number {
            Self::UNLIMITED => "-1".to_owned(),
            number => number.to_string(),
        };
        let name = known.map_or("", |(name, _)| name);
        write!(f, "{name}={}:{}", number(self.soft), number(self.hard))
    }
}

impl TryFrom<String> for Ulimit {
    type Error = ProcessSpecError;

    fn try_from(text: String) -> Result<Self, ProcessSpecError> {
        text.parse()
    }
}

impl From<Ulimit> for String {
    fn from(ulimit: Ulimit) -> Self {
        ulimit.to_string()
    }
}

/// A value that no process can be given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProcessSpecError {
    /// Not a limit.
    #[error(
        "{0:?} is not a limit; expected NAME=SOFT[:HARD] with a name such as nofile or core and numbers, or -1 for no limit"
    )]
    Ulimit(String),
    /// Limits the wrong way round.
    #[error("the limit {0:?} has a soft value above its hard value; swap them")]
    SoftAboveHard(String),
    /// Not a capability.
    #[error(
        "{0:?} is not a capability; expected ALL, or a name of capabilities(7) such as NET_ADMIN"
    )]
    Capability(String),
    /// Not a score.
    #[error("{0} is not a score for the OOM killer; expected a number between -1000 and 1000")]
    OomScore(i64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(texts: &[&str]) -> Vec<Capability> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], expected: u64) {
        let spec =
            ProcessSpec { cap_add: caps(add), cap_drop: caps(drop), ..ProcessSpec::default() };
        assert_eq!(spec.capabilities(), expected, "+{add:?} -{drop:?}");
    }

    #[test]
    fn capabilities_combine_as_docker_has_it() {
        check(&[], &[], (1 << 41) - 1);
        check(&[], &["all"], 0);
        check(&["NET_RAW", "cap_chown"], &["ALL"], 1 << 13 | 1);
        check(&[], &["CAP_KILL"], ALL & !(1 << 5));
        check(&["KILL"], &["KILL"], ALL);
        check(&["ALL"], &["KILL"], ALL & !(1 << 5));
        check(&["ALL"], &["ALL"], ALL);
    }

    #[test]
    fn names_have_the_kernels_numbers() {
        // linux/capability.h: three from the ends and the middle.
        for (name, number) in [("CHOWN", 0), ("SYS_ADMIN", 21), ("CHECKPOINT_RESTORE", 40)] {
            let capability: Capability = name.parse().unwrap();
            assert_eq!(capability, Capability::Number(number));
            assert_eq!(capability.to_string(), format!("CAP_{name}"));
        }
        for bad in ["", "CAP_", "NET", "CAP_ALL", "21"] {
            assert!(bad.parse::<Capability>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_read_and_written() {
        for (text, soft, hard, again) in [
            ("nofile=1024:2048", 1024, 2048, "nofile=1024:2048"),
            ("nofile=5", 5, 5, "nofile=5:5"),
            ("core=0:-1", 0, u64::MAX, "core=0:-1"),
            ("memlock=unlimited", u64::MAX, u64::MAX, "memlock=-1:-1"),
        ] {
            let limit: Ulimit = text.parse().unwrap();
            assert_eq!((limit.soft, limit.hard, limit.to_string().as_str()), (soft, hard, again));
        }
        for bad in ["", "nofile", "nofile=", "files=1", "nofile=1:2:3", "nofile=-2", "nofile=x"] {
            assert!(matches!(bad.parse::<Ulimit>(), Err(ProcessSpecError::Ulimit(_))), "{bad}");
        }
        let text = "nofile=2:1".parse::<Ulimit>().unwrap_err().to_string();
        assert!(text.contains("above"), "{text}");
    }

    #[test]
    fn scores_end_where_the_kernels_do() {
        for (score, fits) in [(-1000, true), (1000, true), (-1001, false), (1001, false)] {
            assert_eq!(OomScore::try_from(score).is_ok(), fits, "{score}");
        }
    }
}
