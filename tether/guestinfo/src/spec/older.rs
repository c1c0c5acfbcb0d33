//! What a spec of VIC 0.4 says under other keys than today's.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ContainerSpec, LinkSpec, Spec};
use crate::extraconfig::{DecodeError, Decoded, Header, Lookup, from_lookup};
use crate::{IpNet, ip};

/// The keys that tell the generations apart: today's first, then the older ones.
pub(super) const SIGNS: [&str; 4] = [
    "guestinfo.vice./common/id",
    "guestinfo.vice./sessions",
    "guestinfo./common/id",
    "guestinfo./sessions",
];

/// Which generation wrote these keys: the older one only if none of them is the newer one's id or
/// session index. A VCH that was upgraded leaves old keys beside the new.
pub(super) fn detect<'a>(keys: impl Iterator<Item = &'a str>) -> Header {
    let mut older = false;
    for key in keys {
        match SIGNS.iter().position(|sign| sign.eq_ignore_ascii_case(key)) {
            Some(0 | 1) => return Header::Vice,
            Some(_) => older = true,
            None => {}
        }
    }
    if older { Header::Bare } else { Header::Vice }
}

/// The keys that have other names in one generation.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Older {
    #[serde(rename = "/networks")]
    networks: BTreeMap<String, OlderNetwork>,
    #[serde(rename = "/common/created")]
    created: i64,
    /// What the older VCH wrote and the older tether asked for were not the same; both are read.
    #[serde(rename = "/common/diagnostics/debug")]
    debug: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OlderNetwork {
    #[serde(rename = "/staticip", deserialize_with = "ip::if_any")]
    static_ip: Option<IpNet>,
}

/// Today's VCH hides the name from guests, but a VMX file has it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Hidden {
    #[serde(rename = "-common/name")]
    name: String,
}

/// Fills in what the other keys say.
pub(super) fn complete(spec: &mut Spec, pairs: &dyn Lookup, errors: &mut Vec<DecodeError>) {
    if spec.name.is_empty() {
        let hidden: Hidden = merged(from_lookup(spec.header, pairs), errors);
        spec.name = hidden.name;
    }
    if spec.header != Header::Bare {
        return;
    }
    let older: Older = merged(from_lookup(spec.header, pairs), errors);
    if spec.create_time == 0 {
        spec.create_time = older.created;
    }
    if spec.diagnostics.debug == 0 {
        spec.diagnostics.debug = older.debug;
    }
    for (name, network) in older.networks {
        if let (Some(ip), Some(endpoint)) = (network.static_ip, spec.networks.get_mut(&name)) {
            (endpoint.is_static, endpoint.ip) = (true, Some(ip));
        }
    }
    for session in spec.sessions.values_mut() {
        // That generation had no key for it: whoever could attach could type.
        session.open_stdin |= session.attach;
    }
}

/// Our own keys stand under today's header even beside the older ones.
pub(super) fn take_link(spec: &mut Spec, pairs: &dyn Lookup, errors: &mut Vec<DecodeError>) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Ours {
        #[serde(rename = "/link")]
        link: LinkSpec,
        #[serde(rename = "/container")]
        container: ContainerSpec,
    }
    let ours: Ours = merged(from_lookup(Header::Vice, pairs), errors);
    spec.link = ours.link;
    spec.container = ours.container;
}

/// The value, its faults added to those known, each once.
fn merged<T: Default>(decoded: Decoded<T>, errors: &mut Vec<DecodeError>) -> T {
    for error in decoded.errors {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    decoded.value.unwrap_or_default()
}
