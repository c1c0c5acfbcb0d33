//! The last lines of the agent's log, kept in memory for whoever asks how it is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, TryLockError};

/// The most lines kept.
const MAX_LINES: usize = 100;
/// The longest line, bytes; the rest of a longer one is cut.
const MAX_LINE: usize = 240;

/// The log is one for the whole process, as its subscriber is.
static LINES: Logbook = Logbook(Mutex::new(VecDeque::new()));

/// Keeps a line; but not one about a panic in the middle of keeping another, which could only wait for itself.
pub fn note(line: &[u8]) {
    LINES.note(line);
}

/// The lines, oldest first.
pub fn lines() -> Vec<String> {
    LINES.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

struct Logbook(Mutex<VecDeque<String>>);

impl Logbook {
    fn note(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = &line[..line.len().min(MAX_LINE)];
        let mut lines = match self.0.try_lock() {
            Ok(lines) => lines,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // There is one thread, and it is here already.
            Err(TryLockError::WouldBlock) => return,
        };
        if lines.len() >= MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept_and_only_their_starts() {
        let logbook = Logbook(Mutex::default());
        for n in 0..MAX_LINES + 50 {
            logbook.note(format!("{n} {}\n", "x".repeat(1000)).as_bytes());
        }
        let kept = logbook.0.into_inner().unwrap();
        assert_eq!(kept.len(), MAX_LINES);
        assert!(kept[0].starts_with("50 x"), "{}", kept[0]);
        assert!(kept.iter().all(|line| line.len() == MAX_LINE));
    }

    #[test]
    fn a_line_amid_another_is_not_waited_for() {
        let logbook = Logbook(Mutex::default());
        let amid = logbook.0.lock().unwrap();
        logbook.note(b"panic\n");
        drop(amid);
        logbook.note(b"after\n");
        assert_eq!(logbook.0.into_inner().unwrap(), ["after"]);
    }
}
