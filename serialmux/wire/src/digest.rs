//! A running digest of a stream's bytes: tells two streams of the same length apart.
//!
//! A guest that was put back to a snapshot and has written other bytes since may be as far in its
//! streams as it was before; only what was written tells the difference. Both ends keep a digest of
//! each stream, and the receiver's goes to the sender wherever the two meet (see
//! [`Record::Digest`](crate::record::Record::Digest)).
//!
//! The digest is a polynomial over the field of 2⁶¹ − 1 whose coefficients are the stream's bytes,
//! seven at a time, at a point derived from the key: one multiplication for seven bytes, a state of
//! 16 bytes at any offset, and without the key nobody finds two streams of one digest. Two given
//! streams of a gigabyte have the same with a chance below 2⁻³³.

use core::fmt;

const FIELD: u64 = (1 << 61) - 1;
const WORD: usize = 7;

/// Bytes of a digest's state.
pub const STATE_LEN: usize = 16;

/// What the first bytes of a stream were.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    point: u64,
    offset: u64,
    sum: u64,
    /// The last `offset % 7` bytes, not yet in the sum.
    word: u64,
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Digest {
    /// Of an empty stream, for whoever has the same secret.
    pub(crate) fn new(secret: u64) -> Self {
        Self { point: (secret % FIELD).max(2), offset: 0, sum: 0, word: 0 }
    }

    /// Of an empty stream under the same key.
    #[must_use]
    pub fn blank(&self) -> Self {
        Self { offset: 0, sum: 0, word: 0, ..*self }
    }

    /// Of a stream under the same key, from what [`state`](Self::state) gave at `offset`.
    #[must_use]
    pub fn resumed(&self, offset: u64, state: [u8; STATE_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, word @ ..] = state;
        let sum = u64::from_le_bytes([a, b, c, d, e, f, g, h]) % FIELD;
        Self { point: self.point, offset, sum, word: u64::from_le_bytes(word) }
    }

    /// How many bytes it is of.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What, with the offset, is all there is to keep of it.
    pub fn state(&self) -> [u8; STATE_LEN] {
        let mut state = [0; STATE_LEN];
        let (sum, word) = state.split_at_mut(8);
        sum.copy_from_slice(&self.sum.to_le_bytes());
        word.copy_from_slice(&self.word.to_le_bytes());
        state
    }

    /// The stream goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let filled = self.filled();
        self.offset += bytes.len() as u64;
        let mut rest = bytes;
        if filled > 0 {
            let (head, tail) = rest.split_at(rest.len().min(WORD - filled));
            rest = tail;
            for (i, byte) in head.iter().enumerate() {
                self.word |= u64::from(*byte) << (8 * (filled + i));
            }
            if filled + head.len() < WORD {
                return;
            }
            self.fold(self.word);
        }
        let mut words = rest.chunks_exact(WORD);
        for word in &mut words {
            self.fold(load(word));
        }
        self.word = load(words.remainder());
    }

    fn filled(&self) -> usize {
        (self.offset % WORD as u64) as usize
    }

    fn fold(&mut self, word: u64) {
        let product = u128::from(self.sum) * u128::from(self.point);
        let low = (product as u64) & FIELD;
        let high = (product >> 61) as u64;
        // Each of the three is below 2^61, so their sum does not overflow.
        let sum = low + high + (word & FIELD);
        let sum = (sum & FIELD) + (sum >> 61);
        self.sum = if sum >= FIELD { sum - FIELD } else { sum };
    }
}

fn load(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(bytes: &[u8]) -> Digest {
        let mut digest = Digest::new(0x1234_5678_9abc_def0);
        digest.update(bytes);
        digest
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_and_resumed_its_digest_is_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(0usize..40, 0..20),
        ) {
            let (mut digest, mut rest) = (of(&[]), &bytes[..]);
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                digest.update(head);
                rest = tail;
                digest = digest.blank().resumed(digest.offset(), digest.state());
            }
            digest.update(rest);
            prop_assert_eq!(digest, of(&bytes));
        }

        #[test]
        fn a_byte_changed_moved_or_left_out_changes_it(
            bytes in prop::collection::vec(any::<u8>(), 2..200), at in 0usize..200, to: u8,
        ) {
            let at = at % bytes.len();
            let mut changed = bytes.clone();
            changed[at] = to;
            prop_assert_eq!(of(&changed) == of(&bytes), changed == bytes);
            let mut moved = bytes.clone();
            moved.rotate_left(1 + at % (bytes.len() - 1));
            prop_assert_eq!(of(&moved) == of(&bytes), moved == bytes);
            prop_assert_ne!(of(&bytes[1..]), of(&bytes));
        }
    }

    #[test]
    fn zeros_and_their_number_count() {
        assert_ne!(of(&[0; 7]), of(&[0; 14]));
        assert_ne!(of(&[0xff; 70]).state(), of(&[0xff; 77]).state());
    }

    #[test]
    fn another_key_gives_another_digest() {
        let mut other = Digest::new(77);
        other.update(b"the same bytes");
        assert_ne!(of(b"the same bytes").state(), other.state());
    }

    #[test]
    fn a_damaged_state_is_no_panic() {
        let mut digest = of(b"").resumed(u64::from(u32::MAX), [0xff; STATE_LEN]);
        digest.update(&[0xff; 100]);
    }
}
