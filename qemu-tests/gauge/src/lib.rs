//! What both ends of a measurement know: the bytes that are sent, and the sum they are checked by.
//!
//! The program of this package runs inside a containerVM; the other end, on the host, makes the same
//! bytes again from their [`Kind`] and length, and so knows what must arrive.

mod log_text;

use log_text::LogText;

/// What bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What no compression makes smaller.
    Random,
    /// Log lines as services write them: times, levels, ids, words that come again.
    Text,
}

impl Kind {
    /// Its name in commands.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Text => "text",
        }
    }

    /// The kind called so.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Random, Self::Text].into_iter().find(|kind| kind.word() == word)
    }

    /// `n` bytes of it, always the same.
    #[must_use]
    pub fn bytes(self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n + 256);
        match self {
            Self::Random => {
                let mut noise = Noise::new(1);
                while bytes.len() < n {
                    bytes.extend(noise.next().to_le_bytes());
                }
            }
            Self::Text => {
                let mut text = LogText::default();
                while bytes.len() < n {
                    text.line(&mut bytes);
                }
            }
        }
        bytes.truncate(n);
        bytes
    }
}

/// Numbers without a pattern, the same from the same seed (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Zero would give zeros only; neighboring seeds must not begin alike.
        Self((seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d).max(1))
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The upper bits are the better ones.
        (self.next() >> 16) % n
    }
}

/// A sum over bytes that differs when any of them does (FNV-1a with 64 bits).
#[derive(Debug, Clone, Copy)]
pub struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    /// Takes more bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// As a word.
    #[must_use]
    pub fn word(self) -> String {
        format!("{:016x}", self.0)
    }

    /// That of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(bytes);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_come_again_and_lengths_are_exact() {
        for kind in [Kind::Random, Kind::Text] {
            assert_eq!(Kind::of_word(kind.word()), Some(kind));
            let long = kind.bytes(100_001);
            assert_eq!(long.len(), 100_001);
            assert!(long.starts_with(&kind.bytes(777)), "a shorter one is its beginning");
        }
        assert_ne!(Kind::Random.bytes(64), Kind::Text.bytes(64));
    }

    #[test]
    fn a_sum_sees_any_change() {
        let bytes = Kind::Random.bytes(1000);
        let mut other = bytes.clone();
        other.swap(10, 11);
        assert_ne!(Sum::of(&bytes).word(), Sum::of(&other).word());
        assert_eq!(Sum::of(&bytes).word(), Sum::of(&bytes).word());
    }
}
