//! The user's terminal: raw while attached, its size, and the keys that detach.

use rustix::termios::{self, OptionalActions, Termios};
use std::io::{self, IsTerminal};
use thiserror::Error;

/// The terminal in raw mode; put back when dropped.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes the terminal on standard input raw; `None` if it is none.
    ///
    /// # Errors
    /// As the terminal says.
    pub fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before)
            .unwrap_or_else(|error| tracing::debug!(%error, "the terminal is gone"));
    }
}

/// Rows and columns of the terminal on standard output, or on standard input.
pub fn size() -> Option<(u32, u32)> {
    let size = termios::tcgetwinsize(io::stdout()).or_else(|_| termios::tcgetwinsize(io::stdin()));
    let size = size.ok().filter(|size| size.ws_row > 0 && size.ws_col > 0)?;
    Some((size.ws_row.into(), size.ws_col.into()))
}

/// A key sequence that detaches, as Docker writes it: `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// Not a key sequence.
#[derive(Debug, Error)]
#[error(
    "\"{0}\" is no key: give single characters or ctrl-x (x: a letter or one of @ [ \\ ] ^ _), \
     separated by commas"
)]
pub struct DetachKeysError(String);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = DetachKeysError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = |word: &str| match (word.strip_prefix("ctrl-"), word.as_bytes()) {
            (Some(rest), _) => match rest.as_bytes() {
                [c @ (b'a'..=b'z' | b'@' | b'['..=b'_')] => Ok(c & 0x1f),
                [c @ b'A'..=b'Z'] => Ok(c & 0x1f),
                _ => Err(DetachKeysError(word.to_owned())),
            },
            (None, [c]) => Ok(*c),
            (None, _) => Err(DetachKeysError(word.to_owned())),
        };
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Looks for the detach keys in what is typed.
#[derive(Debug)]
pub struct Typed {
    keys: DetachKeys,
    matched: usize,
}

/// What became of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Sifted {
    /// What is for the process.
    pub bytes: Vec<u8>,
    /// Whether the user detaches after that.
    pub detach: bool,
}

impl Typed {
    /// Nothing typed yet.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Sifts bytes: the beginning of the sequence is held back until it is clear what it becomes.
    pub fn sift(&mut self, typed: &[u8]) -> Sifted {
        let mut bytes = Vec::with_capacity(typed.len());
        for byte in typed {
            self.push(*byte, &mut bytes);
            if self.matched == self.keys.0.len() {
                return Sifted { bytes, detach: true };
            }
        }
        Sifted { bytes, detach: false }
    }

    // On a mismatch, the longest end of what is held that could begin the sequence anew stays.
    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        let keys = &self.keys.0;
        let mut held: Vec<u8> = keys.iter().take(self.matched).copied().collect();
        held.push(byte);
        let start = (0..=held.len())
            .find(|start| keys.starts_with(held.get(*start..).unwrap_or_default()))
            .unwrap_or(held.len());
        self.matched = held.len() - start;
        out.extend(held.drain(..start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(keys: &str, typed: &[&[u8]], expected: &[u8], detach: bool) {
        let mut sieve = Typed::new(keys.parse().unwrap());
        let mut bytes = Vec::new();
        let mut detached = false;
        for piece in typed {
            let sifted = sieve.sift(piece);
            bytes.extend(sifted.bytes);
            detached |= sifted.detach;
        }
        assert_eq!((bytes.as_slice(), detached), (expected, detach));
    }

    #[test]
    fn the_sequence_detaches_however_it_is_cut() {
        check("ctrl-p,ctrl-q", &[b"ls\x10\x11"], b"ls", true);
        check("ctrl-p,ctrl-q", &[b"ls\x10", b"\x11"], b"ls", true);
        check("ctrl-@", &[b"x\0"], b"x", true);
        check("a,a,b", &[b"aaab"], b"a", true);
    }

    #[test]
    fn half_a_sequence_goes_to_the_process() {
        check("ctrl-p,ctrl-q", &[b"\x10", b"x"], b"\x10x", false);
        check("ctrl-p,ctrl-q", &[b"\x10\x10", b"x"], b"\x10\x10x", false);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "ctrl-", "ctrl-1", "ab", "a,,b"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }
}
