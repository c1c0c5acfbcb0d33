//! The records of a pax extended header: `LENGTH KEY=VALUE\n`, where a value may hold any byte.

use super::archive::ArchiveFault;
use crate::tree::Timestamp;

/// Splits a header into keys and values.
pub(super) fn parse(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
        let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(records)
}

/// A decimal number. Fractions are cut off.
pub(super) fn number(text: &[u8], name: &'static str) -> Result<u64, ArchiveFault> {
    let whole = text.split(|byte| *byte == b'.').next().unwrap_or_default();
    str::from_utf8(whole).ok().and_then(|text| text.parse().ok()).ok_or(ArchiveFault::Number(name))
}

/// Seconds with a fraction of any length.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let text = str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    // -1.25 is a quarter second before -1.
    Some(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => {
            Timestamp { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds }
        }
        _ => Timestamp { seconds, nanoseconds },
    })
}

/// Comma-separated numbers in pairs.
pub(super) fn pairs(text: &[u8]) -> Option<Vec<(u64, u64)>> {
    let numbers: Vec<u64> = text
        .split(|byte| *byte == b',')
        .map(|text| number(text, "").ok())
        .collect::<Option<_>>()?;
    numbers
        .len()
        .is_multiple_of(2)
        .then(|| numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// The part before the zero that ends a GNU long name.
pub(super) fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_line_ends_and_equal_signs() {
        let records = parse(b"9 a=b\nc=\n6 x=y\n").unwrap();
        assert_eq!(records, [(&b"a"[..], &b"b\nc="[..]), (b"x", b"y")]);
        for damaged in [&b"99 a=b\n"[..], b"6 a=bc", b"5 ab\n", b"x a=b\n", b"2 a=b\n", b"0 a=b\n"]
        {
            assert_eq!(parse(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let check = |text: &str, seconds, nanoseconds| {
            assert_eq!(time(text.as_bytes()), Some(Timestamp { seconds, nanoseconds }), "{text}");
        };
        check("12", 12, 0);
        check("12.5", 12, 500_000_000);
        check("12.1234567899", 12, 123_456_789);
        check("-1.25", -2, 750_000_000);
        assert_eq!(time(b"12.x"), None);
    }
}
