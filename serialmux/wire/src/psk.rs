//! The key of one containerVM, shared with its multiplexer out of band.

use crate::digest;
use blake2::{Blake2s256, Digest};
use core::fmt;

/// Tells a key's owner without telling the key: the first 8 bytes of a keyed hash of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A pre-shared key of 32 bytes, as Noise wants it.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk([u8; 32]);

impl Psk {
    /// The key for any secret material: random bytes, a PEM private key, a passphrase.
    ///
    /// Equal material gives equal keys; nothing else about it matters.
    pub fn derive(material: &[u8]) -> Self {
        Self(hash(b"containerVM link: key", material))
    }

    /// The id that beacons carry.
    pub fn id(&self) -> KeyId {
        let [a, b, c, d, e, f, g, h, ..] = hash(b"containerVM link: key id", &self.0);
        KeyId([a, b, c, d, e, f, g, h])
    }

    /// The digest of an empty stream under this key.
    pub(crate) fn digest(&self) -> digest::Digest {
        let [a, b, c, d, e, f, g, h, ..] = hash(b"containerVM link: digests", &self.0);
        digest::Digest::new(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The bytes for the handshake.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Psk(id {:?})", self.id())
    }
}

// Length-prefixed, so that no label and material run into each other.
fn hash(label: &[u8], material: &[u8]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    hasher.update((label.len() as u64).to_le_bytes());
    hasher.update(label);
    hasher.update(material);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_material_makes_a_key_and_neither_prints_it() {
        let pem = Psk::derive(b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n");
        let other = Psk::derive(&[7; 32]);
        assert_ne!(pem, other);
        assert_ne!(pem.id(), other.id());
        assert_eq!(format!("{pem:?}"), format!("Psk(id {:?})", pem.id()));
    }
}
