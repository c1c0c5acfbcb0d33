//! How a spec wants output and commands to travel.

use serde::{Deserialize, Serialize};

/// The first line of a disk for [`LinkSpec::spool`], by which it is told from all others.
pub const SPOOL_LINE: &str = "# containervm spool";

/// How output and commands travel between the guest and the multiplexer. Ours, below
/// `guestinfo.vice./link/`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct LinkSpec {
    /// Whether packets are encrypted and authenticated.
    #[serde(rename = "/protection")]
    pub protection: Protection,
    /// How many seconds the guest waits at its end for the multiplexer to have all output safe,
    /// before it powers off.
    #[serde(rename = "/linger")]
    pub linger: u64,
    /// What happens to a process whose output nobody takes.
    #[serde(rename = "/mode")]
    pub mode: LinkMode,
    /// With [`LinkMode::NonBlocking`]: how many bytes of output are kept in the VM's memory for a
    /// multiplexer that does not take them, before the oldest are lost. With [`LinkSpec::spool`], in
    /// either mode: before the oldest go to that disk.
    #[serde(rename = "/maxbuffersize")]
    pub max_buffer_size: u64,
    /// Whether there is a disk for more output than fits into memory: one that begins with the line
    /// [`SPOOL_LINE`](crate::SPOOL_LINE). It is overwritten.
    #[serde(rename = "/spool")]
    pub spool: bool,
}

impl LinkSpec {
    /// [`LinkSpec::max_buffer_size`] when nothing is said: Docker's `max-buffer-size`.
    pub const DEFAULT_MAX_BUFFER_SIZE: u64 = 1 << 20;

    /// [`LinkSpec::linger`] when nothing is said, in seconds: a multiplexer's restart fits in, and
    /// a VM whose multiplexer is gone for good does not hold its memory for long.
    pub const DEFAULT_LINGER: u64 = 30;
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            protection: Protection::default(),
            linger: Self::DEFAULT_LINGER,
            mode: LinkMode::default(),
            max_buffer_size: Self::DEFAULT_MAX_BUFFER_SIZE,
            spool: false,
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
