//! IP addresses and networks as Go's `net` package stores them: raw bytes in base64.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::extraconfig::format;

/// An IP address. Read from 4 or 16 bytes; a v4 address is written in 16, the form Go most often
/// holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ip(pub IpAddr);

/// An address in its network: `K/IP` and `K/Mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct IpNet {
    /// The address.
    pub addr: IpAddr,
    /// How many leading bits of it name the network; at most 32 or 128.
    pub prefix_len: u8,
}

/// A range of addresses: `K/first` and `K/last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct IpRange {
    /// The first address in it.
    #[serde(rename = "/first")]
    pub first: Ip,
    /// The last address in it.
    #[serde(rename = "/last")]
    pub last: Ip,
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

impl Serialize for Ip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = match self.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        serializer.serialize_newtype_struct(format::IP, &STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Ip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_newtype_struct(format::IP, Formatted)?;
        address(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("not an IP address in base64"))
    }
}

/// The address in the base64 `text`; a v4 address in v6 clothes is a v4 address.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let bytes = STANDARD.decode(text).ok()?;
    let v6 = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => return Some(Ipv4Addr::from(v4).into()),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

/// How many leading ones the mask in the base64 `text` has, and of how many bits; `None` if a one
/// follows a zero.
pub(crate) fn mask_len(text: &str) -> Option<(u8, u8)> {
    let bytes = STANDARD.decode(text).ok()?;
    let size = match bytes.len() {
        4 => 32,
        16 => 128,
        _ => return None,
    };
    let bits = bytes.iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte)) << (128 - size);
    let ones = bits.leading_ones();
    if ones < 128 && bits << ones != 0 {
        return None;
    }
    Some((u8::try_from(ones).ok()?, u8::try_from(size).ok()?))
}

/// A network mask: leading ones, and of how many bits.
#[derive(Debug, Clone, Copy)]
struct Mask(u8, u8);

impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bits = u128::MAX.checked_shl(128 - u32::from(self.0)).unwrap_or(0).to_be_bytes();
        let bytes = bits.get(..usize::from(self.1 / 8)).unwrap_or(&bits);
        serializer.serialize_newtype_struct(format::MASK, &STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_newtype_struct(format::MASK, Formatted)?;
        let (ones, size) = mask_len(&text)
            .ok_or_else(|| serde::de::Error::custom("not a network mask in base64"))?;
        Ok(Self(ones, size))
    }
}

/// Takes the text that the codec has checked.
pub(crate) struct Formatted;

impl<'de> Visitor<'de> for Formatted {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<String, D::Error> {
        String::deserialize(inner)
    }
}

/// The two keys of a network. Go leaves either out when it is nil.
#[derive(Deserialize, Serialize)]
struct Stored {
    #[serde(rename = "IP", default)]
    addr: Option<Ip>,
    #[serde(rename = "Mask", default)]
    mask: Option<Mask>,
}

/// Reads a network that may be left out: it is there if one of its own keys is. Others can lie below its key, those of
/// an entry that is called like a path into another one.
pub(crate) fn if_any<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpNet>, D::Error> {
    let stored = Option::<Stored>::deserialize(deserializer)?;
    Ok(stored.filter(|it| it.addr.is_some() || it.mask.is_some()).map(IpNet::from))
}

impl From<Stored> for IpNet {
    fn from(stored: Stored) -> Self {
        let addr = stored.addr.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ip| ip.0);
        let width = if addr.is_ipv4() { 32 } else { 128 };
        let prefix_len = match stored.mask {
            // A v4 network may come with the mask of its v6 clothes, 96 ones longer.
            Some(Mask(ones, size)) => ones.saturating_sub(size.saturating_sub(width)).min(width),
            None => width,
        };
        Self { addr, prefix_len }
    }
}

impl From<IpNet> for Stored {
    fn from(net: IpNet) -> Self {
        let width = if net.addr.is_ipv4() { 32 } else { 128 };
        Self { addr: Some(Ip(net.addr)), mask: Some(Mask(net.prefix_len.min(width), width)) }
    }
}
