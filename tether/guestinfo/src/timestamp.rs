//! A point in time in the text form that Go prints and VIC stores.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

use crate::extraconfig::format;
use crate::ip::Formatted;

/// A point in time, to the nanosecond: `2009-11-10 23:00:00 +0000 UTC`.
///
/// Go's layout is `2006-01-02 15:04:05.999999999 -0700 MST`. Any offset is read and the zone's name
/// ignored; written in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// The time that many seconds and nanoseconds after 1970; `None` beyond the years ±9999.
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Option<Self> {
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        time.replace_nanosecond(nanoseconds).ok().map(Self)
    }

    /// Whole seconds since 1970.
    pub const fn unix_seconds(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// The nanoseconds beyond the whole seconds.
    pub const fn subsec_nanoseconds(self) -> u32 {
        self.0.nanosecond()
    }

    /// Reads Go's text form; `None` if it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        // Go appends its monotonic clock reading, " m=+1.5", to times that carry one.
        let text = text.split_once(" m=").map_or(text, |(text, _)| text);
        let mut words = text.split(' ');
        let date = date(words.next()?)?;
        let time = time_of_day(words.next()?)?;
        let offset = offset(words.next()?)?;
        let zone = words.next();
        if zone.is_some_and(str::is_empty) || words.next().is_some() {
            return None;
        }
        let local = OffsetDateTime::new_in_offset(date, time, offset);
        local.checked_to_offset(UtcOffset::UTC).map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.0.date(), self.0.time());
        write!(f, "{:04}-{:02}-{:02} ", date.year(), u8::from(date.month()), date.day())?;
        write!(f, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())?;
        if time.nanosecond() != 0 {
            let fraction = format!("{:09}", time.nanosecond());
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str(" +0000 UTC")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(format::TIME, &self.to_string())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_newtype_struct(format::TIME, Formatted)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time"))
    }
}

fn date(text: &str) -> Option<Date> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let month = Month::try_from(number::<u8>(month, 2)?).ok()?;
    Date::from_calendar_date(number(year, 4)?, month, number(day, 2)?).ok()
}

fn time_of_day(text: &str) -> Option<Time> {
    let (hour, rest) = text.split_once(':')?;
    let (minute, rest) = rest.split_once(':')?;
    let (second, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    if fraction.len() > 9 {
        return None;
    }
    let nanosecond = number::<u32>(&format!("{fraction:0<9}"), 9)?;
    Time::from_hms_nano(number(hour, 2)?, number(minute, 2)?, number(second, 2)?, nanosecond).ok()
}

fn offset(text: &str) -> Option<UtcOffset> {
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let digits: i16 = number(text.get(1..)?, 4)?;
    let (hours, minutes) = (i8::try_from(digits / 100).ok()?, i8::try_from(digits % 100).ok()?);
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

/// A number of exactly so many digits and nothing else.
fn number<T: std::str::FromStr>(text: &str, digits: usize) -> Option<T> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: i64, nanoseconds: u32, printed: &str) {
        let time = Timestamp::parse(text).expect(text);
        assert_eq!((time.unix_seconds(), time.subsec_nanoseconds()), (seconds, nanoseconds));
        assert_eq!(time.to_string(), printed);
        assert_eq!(Timestamp::from_unix(seconds, nanoseconds), Some(time));
    }

    #[test]
    fn every_form_that_go_prints_is_read() {
        let utc = "2009-11-10 23:00:00 +0000 UTC";
        check(utc, 1_257_894_000, 0, utc);
        check("2009-11-11 00:30:00 +0130 CET", 1_257_894_000, 0, utc);
        check("2009-11-10 15:00:00 -0800 PST m=+0.000012", 1_257_894_000, 0, utc);
        check("1970-01-01 00:00:00.5 +0000 UTC", 0, 500_000_000, "1970-01-01 00:00:00.5 +0000 UTC");
        check(
            "1970-01-01 00:00:00.000000001 +0000",
            0,
            1,
            "1970-01-01 00:00:00.000000001 +0000 UTC",
        );
        check("0001-01-01 00:00:00 +0000 UTC", -62_135_596_800, 0, "0001-01-01 00:00:00 +0000 UTC");
    }

    #[test]
    fn anything_else_is_not_a_time() {
        for text in [
            "",
            "2009-11-10",
            "2009-11-10T23:00:00Z",
            "2009-13-10 23:00:00 +0000 UTC",
            "2009-11-10 24:00:00 +0000 UTC",
            "2009-11-10 23:00:00 0000 UTC",
            "2009-11-10 23:00:00.1234567890 +0000 UTC",
            "2009-11-10 23:00:00 +0000 UTC more",
            "+009-11-10 23:00:00 +0000 UTC",
            "9999-12-31 23:59:59 -1200 X",
            "2009-11-10 23:00:00 é000 UTC",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
