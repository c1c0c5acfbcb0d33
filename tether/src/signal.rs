//! Signal names and numbers as Docker and VIC write them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The highest signal number of Linux on x86-64 (`_NSIG`).
pub const MAX: i32 = 64;

/// The first real-time signal that programs may use: the C libraries keep 32 and 33.
const RTMIN: i32 = 34;

/// The number of a signal, `None` for what is none.
pub fn number(text: &str) -> Option<i32> {
    let name = text.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse() {
        return is_valid(number).then_some(number);
    }
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text[1..].parse::<i32>().ok() };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(plus), _) if plus.is_empty() || plus.starts_with('+') => {
            RTMIN.checked_add(offset(plus)?)?
        }
        (_, Some(minus)) if minus.is_empty() || minus.starts_with('-') => {
            MAX.checked_sub(offset(minus)?)?
        }
        _ => Signal::from_str(&format!("SIG{name}")).ok()? as i32,
    };
    is_valid(number).then_some(number)
}

/// Whether a process can be sent this signal.
pub fn is_valid(number: i32) -> bool {
    (1..=MAX).contains(&number)
}

/// Signals that arrived before there was anyone to send them to, each at most once, as the kernel keeps them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pending(u64);

impl Pending {
    /// Adds a valid signal.
    pub fn add(&mut self, number: i32) {
        if is_valid(number) {
            self.0 |= 1 << (number - 1);
        }
    }

    /// Takes all of them, lowest first.
    pub fn take(&mut self) -> impl Iterator<Item = i32> + use<> {
        let Self(bits) = std::mem::take(self);
        (1..=MAX).filter(move |number| bits & (1 << (number - 1)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, expected) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("64", Some(64)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("WINCH", Some(28)),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("", None),
            ("SIG", None),
            ("NOPE", None),
            ("RTMIN+99", None),
            ("RTMIN+x", None),
            ("RTMAX-2147483648", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn pending_signals_come_back_once_each() {
        let mut pending = Pending::default();
        for number in [15, 1, 64, 15, 0, 65, -1] {
            pending.add(number);
        }
        assert_eq!(pending.take().collect::<Vec<_>>(), [1, 15, 64]);
        assert_eq!(pending.take().count(), 0);
    }
}
