//! What lies on the spool's disk means nothing to whoever has that disk: sealed with a key of this boot.
//!
//! The key is in memory only, so what a disk holds after the VM's end cannot be read by anybody, the next boot
//! included. The seal also tells a record that has been damaged, or was never written, from a good one.

use std::fmt;

use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use nix::errno::Errno;

/// The seal behind a record's bytes.
pub(super) const TAG: usize = 16;

/// Drawn for each record; long enough that no two are ever the same.
pub(super) type Nonce = [u8; 24];

/// Where random bytes come from.
pub type Random = fn(&mut [u8]) -> Result<(), Errno>;

/// Seals records, and opens them.
pub(super) struct Sealer {
    cipher: XChaCha20Poly1305,
    random: Random,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// One with a key of its own.
    pub(super) fn new(random: Random) -> Result<Self, Errno> {
        let mut key = [0; 32];
        random(&mut key)?;
        Ok(Self { cipher: XChaCha20Poly1305::new(&key.into()), random })
    }

    /// Seals what stands in `record` from `at` on; the seal is appended.
    pub(super) fn seal(&self, record: &mut Vec<u8>, at: usize) -> Result<Nonce, Errno> {
        let mut nonce = [0; 24];
        (self.random)(&mut nonce)?;
        let plain = record.get_mut(at..).unwrap_or_default();
        let sealed = self.cipher.encrypt_in_place_detached(XNonce::from_slice(&nonce), &[], plain);
        // It refuses 256 GB and more.
        let tag = sealed.map_err(|_too_long| Errno::EOVERFLOW)?;
        record.extend_from_slice(&tag);
        Ok(nonce)
    }

    /// Opens a record in its place; `None` when it is not what was sealed.
    pub(super) fn open<'a>(&self, nonce: &Nonce, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (bytes, tag) = sealed.split_at_mut_checked(sealed.len().checked_sub(TAG)?)?;
        let tag = Tag::from_slice(tag);
        self.cipher
            .decrypt_in_place_detached(XNonce::from_slice(nonce), &[], bytes, tag)
            .ok()
            .map(|()| &*bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    #[test]
    fn only_what_was_sealed_is_opened() {
        let sealer = Sealer::new(sys::random).unwrap();
        let mut record = b"head and words".to_vec();
        let nonce = sealer.seal(&mut record, 5).unwrap();
        assert_eq!((&record[..5], record.len()), (&b"head "[..], 14 + TAG));
        assert!(!record.windows(5).any(|piece| piece == b"words"));
        assert_eq!(sealer.open(&nonce, &mut record.clone()[5..]), Some(&b"and words"[..]));
        for at in 5..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert_eq!(sealer.open(&nonce, &mut damaged[5..]), None, "{at}");
        }
        let other = sealer.seal(&mut b"other".to_vec(), 0).unwrap();
        assert_eq!(sealer.open(&other, &mut record.clone()[5..]), None);
        assert_eq!(sealer.open(&nonce, &mut []), None);
        let stranger = Sealer::new(sys::random).unwrap();
        assert_eq!(stranger.open(&nonce, &mut record[5..]), None, "another boot");
    }
}
