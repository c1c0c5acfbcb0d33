//! One volume of a spec.

use serde::{Deserialize, Serialize};

use crate::Url;

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
