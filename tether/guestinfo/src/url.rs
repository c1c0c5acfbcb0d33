//! A URL in the parts that Go's `net/url` stores it in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a volume comes from. Credentials are not among the parts: Go never stores them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(default)]
pub struct Url {
    /// `label`, `nfs`, …
    #[serde(rename = "Scheme")]
    pub scheme: String,
    /// What follows the scheme's colon when no slash does.
    #[serde(rename = "Opaque")]
    pub opaque: String,
    /// Host, with its port if it has one.
    #[serde(rename = "Host")]
    pub host: String,
    /// The path, decoded. For `label` it is the label.
    #[serde(rename = "Path")]
    pub path: String,
    /// The path as it was encoded, when that is not the usual way.
    #[serde(rename = "RawPath")]
    pub raw_path: String,
    /// Whether a `?` stands there with nothing after it.
    #[serde(rename = "ForceQuery")]
    pub force_query: bool,
    /// What follows the `?`, encoded.
    #[serde(rename = "RawQuery")]
    pub raw_query: String,
    /// What follows the `#`, decoded.
    #[serde(rename = "Fragment")]
    pub fragment: String,
}

impl fmt::Display for Url {
    /// For people: parts are not encoded again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, opaque, host, path, raw_query, fragment, .. } = self;
        write!(f, "{scheme}:{opaque}")?;
        if !host.is_empty() || path.starts_with('/') {
            write!(f, "//{host}")?;
        }
        f.write_str(path)?;
        if !raw_query.is_empty() || self.force_query {
            write!(f, "?{raw_query}")?;
        }
        if !fragment.is_empty() {
            write!(f, "#{fragment}")?;
        }
        Ok(())
    }
}
