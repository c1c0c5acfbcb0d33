//! The environment of the container's process: what was asked for, plus the defaults Docker adds.

use std::collections::HashSet;

/// The search path of a process whose image and user named none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Puts the defaults in front of `given`: `PATH`, `HOSTNAME`, `TERM` (with a terminal only) and `HOME`, each
/// only when `given` does not set it; an empty `HOME` is none, as with runc. Entries of `given` keep their order.
/// Of equal names the last is kept: getenv(3) finds the first, a shell takes the last.
pub fn complete(given: &[String], hostname: &str, home: &str, tty: bool) -> Vec<String> {
    let given = &distinct(given);
    let mut defaults = vec![("PATH", DEFAULT_PATH), ("HOSTNAME", hostname)];
    if tty {
        defaults.push(("TERM", "xterm"));
    }
    defaults.push(("HOME", home));
    let mut environment: Vec<String> = defaults
        .into_iter()
        .filter(|(name, _)| value(given, name).is_none())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    environment.extend_from_slice(given);
    environment
}

fn distinct(given: &[String]) -> Vec<String> {
    let (mut seen, mut kept) = (HashSet::new(), Vec::new());
    for entry in given.iter().rev() {
        let is_kept = match entry.split_once('=') {
            Some((name, value)) => seen.insert(name) && (name, value) != ("HOME", ""),
            None => true,
        };
        kept.extend(is_kept.then(|| entry.clone()));
    }
    kept.reverse();
    kept
}

/// The value of `name`, `None` when it is not set.
pub fn value<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &[&str], tty: bool, expected: &[&str]) {
        let given: Vec<String> = given.iter().map(|&entry| entry.to_owned()).collect();
        assert_eq!(complete(&given, "box", "/root", tty), expected);
    }

    #[test]
    fn defaults_fill_what_is_missing() {
        let path = format!("PATH={DEFAULT_PATH}");
        check(&["A=1"], false, &[&path, "HOSTNAME=box", "HOME=/root", "A=1"]);
        check(&[], true, &[&path, "HOSTNAME=box", "TERM=xterm", "HOME=/root"]);
    }

    #[test]
    fn what_is_given_wins_even_when_empty() {
        check(
            &["PATH=", "TERM=vt100", "HOME=/x", "HOSTNAME=h", "odd"],
            true,
            &["PATH=", "TERM=vt100", "HOME=/x", "HOSTNAME=h", "odd"],
        );
    }

    #[test]
    fn of_equal_names_the_last_counts_and_an_empty_home_is_none() {
        let path = format!("PATH={DEFAULT_PATH}");
        check(
            &["A=1", "HOME=/x", "A=", "HOME=", "A=3", "B=4"],
            false,
            &[&path, "HOSTNAME=box", "HOME=/root", "A=3", "B=4"],
        );
    }

    #[test]
    fn the_value_may_hold_an_equals_sign() {
        assert_eq!(value(&["A=b=c".to_owned()], "A"), Some("b=c"));
        assert_eq!(value(&["AB=c".to_owned()], "A"), None);
    }
}
