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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extraconfig::{Header, from_pairs, to_pairs};

    const PREFIX: &str = "guestinfo.vice./source/";

    #[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
    #[serde(default)]
    struct Mount {
        #[serde(rename = "/source")]
        source: Url,
    }

    fn read(parts: &[(&str, &str)]) -> Url {
        let pairs = parts.iter().map(|(name, value)| (PREFIX.to_owned() + name, *value));
        from_pairs::<Mount, _, _>(Header::Vice, pairs).unwrap().source
    }

    #[test]
    fn each_form_is_read_from_its_parts_written_to_them_and_shown() {
        let forms: [(&[(&str, &str)], &str); 6] = [
            (&[("Scheme", "label"), ("Path", "data")], "label:data"),
            (
                &[("Scheme", "nfs"), ("Host", "192.0.2.7:2049"), ("Path", "/srv")],
                "nfs://192.0.2.7:2049/srv",
            ),
            (
                &[("Scheme", "nfs"), ("Host", "[2001:db8::7]"), ("Path", "/")],
                "nfs://[2001:db8::7]/",
            ),
            (&[("Scheme", "file"), ("Path", "/a b"), ("RawPath", "/a%20b")], "file:///a b"),
            (&[("Scheme", "mailto"), ("Opaque", "somebody")], "mailto:somebody"),
            (
                &[("Scheme", "ds"), ("Path", "/v"), ("RawQuery", "a=1"), ("Fragment", "f")],
                "ds:///v?a=1#f",
            ),
        ];
        for (parts, shown) in forms {
            let url = read(parts);
            assert_eq!(url.to_string(), shown);
            let mount = Mount { source: url };
            let written = to_pairs(&mount, Header::Vice).unwrap();
            assert_eq!(from_pairs::<Mount, _, _>(Header::Vice, written).unwrap(), mount);
        }
    }

    #[test]
    fn a_question_without_a_query_is_kept() {
        let url = read(&[("Scheme", "ds"), ("Path", "/v"), ("ForceQuery", "true")]);
        assert_eq!((url.force_query, url.to_string()), (true, "ds:///v?".to_owned()));
    }

    #[test]
    fn what_newer_versions_of_go_have_besides_is_passed_over() {
        let parts = [("Scheme", "nfs"), ("Path", "/v"), ("RawFragment", "x"), ("OmitHost", "true")];
        assert_eq!(read(&parts), read(&parts[..2]));
    }
}
