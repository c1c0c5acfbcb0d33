//! Signals by the names and numbers that `docker kill` takes.

use nix::sys::signal::Signal;

/// The number of a signal given as `KILL`, `SIGKILL`, `9` or `RTMIN+3`, in any case.
pub fn number(text: &str) -> Option<i32> {
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, rest: &str| match rest {
        "" => Some(base),
        rest => rest.parse::<i32>().ok().map(|n| base + n),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(RTMIN, rest).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(RTMAX, rest).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_taken_as_docker_takes_them() {
        let check = |text, expected| assert_eq!(number(text), expected, "{text}");
        check("KILL", Some(9));
        check("sigterm", Some(15));
        check("9", Some(9));
        check("RTMIN+3", Some(37));
        check("SIGRTMAX-1", Some(63));
        check("0", None);
        check("65", None);
        check("NOPE", None);
        check("RTMIN+99", None);
    }
}
