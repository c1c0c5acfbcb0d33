//! Moments as `docker logs` takes and shows them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment given as RFC 3339, as seconds since 1970 (with a fraction if need be), or as how long
/// ago (`10m`, `1h30m`); in microseconds since 1970.
pub fn parse(text: &str, now_us: u64) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        // Saturates; fractions of a microsecond do not matter.
        return (seconds >= 0.0).then_some((seconds * 1e6) as u64);
    }
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return u64::try_from(moment.unix_timestamp_nanos() / 1000).ok();
    }
    ago(text).map(|ago| now_us.saturating_sub(ago))
}

// Go's durations, as far as anybody types them.
fn ago(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = match unit {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            "m" => 60e6,
            "h" => 3600e6,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then_some(total as u64)
}

/// A moment as `docker logs -t` shows it: RFC 3339 in UTC with nine digits.
pub fn show(us: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (moment.date(), moment.time());
    format!(
        "{date}T{:02}:{:02}:{:02}.{:09}Z",
        time.hour(),
        time.minute(),
        time.second(),
        time.nanosecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_moment_are_read() {
        const NOW: u64 = 1_700_000_000_000_000;
        let check = |text, expected| assert_eq!(parse(text, NOW), expected, "{text}");
        check("1700000000", Some(NOW));
        check("1700000000.5", Some(NOW + 500_000));
        check("2023-11-14T22:13:20Z", Some(NOW));
        check("2023-11-14T23:13:20.25+01:00", Some(NOW + 250_000));
        check("10m", Some(NOW - 600_000_000));
        check("1h30m", Some(NOW - 5_400_000_000));
        check("yesterday", None);
        check("10", Some(10_000_000));
        check("", None);
        check("5x", None);
    }

    #[test]
    fn moments_show_as_docker_shows_them() {
        assert_eq!(show(1_700_000_000_123_456), "2023-11-14T22:13:20.123456000Z");
    }
}
