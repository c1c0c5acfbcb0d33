//! The last lines of the agent's log, kept in memory for whoever asks how it is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The most lines kept.
const MAX_LINES: usize = 100;
/// The longest line, bytes; the rest of a longer one is cut.
const MAX_LINE: usize = 240;

/// The log is one for the whole process, as its subscriber is.
static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Keeps a line.
pub fn note(line: &[u8]) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = &line[..line.len().min(MAX_LINE)];
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() >= MAX_LINES {
        lines.pop_front();
    }
    lines.push_back(String::from_utf8_lossy(line).into_owned());
}

/// The lines, oldest first.
pub fn lines() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept_and_only_their_starts() {
        for n in 0..MAX_LINES + 50 {
            note(format!("{n} {}\n", "x".repeat(1000)).as_bytes());
        }
        let kept = lines();
        assert_eq!(kept.len(), MAX_LINES);
        assert!(kept[0].starts_with("50 x"), "{}", kept[0]);
        assert!(kept.iter().all(|line| line.len() == MAX_LINE));
    }
}
