//! Points in time as people and programs write them, to microseconds since 1970.

use std::str::FromStr;

use arrow_array::timezone::Tz;
use arrow_cast::parse::string_to_datetime;
use chrono::{DateTime, NaiveDateTime, TimeZone};

use super::TimeFormat;

/// Reads the values of one column.
#[derive(Clone, Debug)]
pub(super) struct TimeReader {
    format: TimeFormat,
    zone: Tz,
}

/// The zone of times that name none.
pub(super) fn zone(name: Option<&str>) -> Option<Tz> {
    Tz::from_str(name.unwrap_or("+00:00")).ok()
}

impl TimeReader {
    /// A reader of `format`; `Auto` becomes what `first`, the first value, is.
    pub fn new(format: &TimeFormat, zone: Tz, first: &str) -> Self {
        let format = match format {
            TimeFormat::Auto => detect(first),
            format => format.clone(),
        };
        Self { format, zone }
    }

    /// Microseconds since 1970; `None` if `text` is not a point in time of the format, or one that
    /// the zone has twice or never.
    pub fn read(&self, text: &str) -> Option<i64> {
        match &self.format {
            TimeFormat::Auto | TimeFormat::Text => self.read_text(text),
            TimeFormat::Seconds => seconds(text),
            TimeFormat::Millis => text.parse::<i64>().ok()?.checked_mul(1_000),
            TimeFormat::Micros => text.parse().ok(),
            TimeFormat::Nanos => Some(text.parse::<i64>().ok()?.div_euclid(1_000)),
            TimeFormat::Pattern(pattern) => {
                if let Ok(time) = DateTime::parse_from_str(text, pattern) {
                    return Some(time.timestamp_micros());
                }
                self.local(NaiveDateTime::parse_from_str(text, pattern).ok()?)
            }
        }
    }

    fn read_text(&self, text: &str) -> Option<i64> {
        if let Ok(time) = string_to_datetime(&self.zone, text) {
            return Some(time.timestamp_micros());
        }
        ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|pattern| NaiveDateTime::parse_from_str(text, pattern).ok())
            .and_then(|time| self.local(time))
    }

    fn local(&self, time: NaiveDateTime) -> Option<i64> {
        Some(
            self.zone
                .from_local_datetime(&time)
                .single()?
                .timestamp_micros(),
        )
    }

    /// What a value should have been, for people.
    pub fn expectation(&self) -> String {
        match &self.format {
            TimeFormat::Auto | TimeFormat::Text => {
                "a point in time such as 2026-01-31T12:00:00Z or 2026-01-31 12:00:00".into()
            }
            TimeFormat::Pattern(pattern) => format!("a point in time of the form {pattern}"),
            TimeFormat::Seconds => "a number of seconds since 1970".into(),
            TimeFormat::Millis => "a number of milliseconds since 1970".into(),
            TimeFormat::Micros => "a number of microseconds since 1970".into(),
            TimeFormat::Nanos => "a number of nanoseconds since 1970".into(),
        }
    }
}

/// Whether a value looks like a point in time by itself: text, not a bare number.
pub(super) fn is_time_text(text: &str, zone: Tz) -> bool {
    text.len() >= 8
        && text.parse::<f64>().is_err()
        && TimeReader {
            format: TimeFormat::Text,
            zone,
        }
        .read(text)
        .is_some()
}

/// The unit of a number of ... since 1970, by its magnitude: what is meant lies between 1973 and
/// 5138 in its unit.
pub(super) fn unit_of(number: i64) -> TimeFormat {
    match number.unsigned_abs() {
        0..100_000_000_000 => TimeFormat::Seconds,
        100_000_000_000..100_000_000_000_000 => TimeFormat::Millis,
        100_000_000_000_000..100_000_000_000_000_000 => TimeFormat::Micros,
        _ => TimeFormat::Nanos,
    }
}

fn detect(first: &str) -> TimeFormat {
    let whole = first.split_once('.').map_or(first, |(whole, _)| whole);
    // Eight digits are a date.
    let is_date = first.len() == 8 && !first.starts_with('-');
    match whole.parse::<i64>() {
        Ok(number) if !is_date && first.parse::<f64>().is_ok() => unit_of(number),
        _ => TimeFormat::Text,
    }
}

/// Decimal seconds, exactly.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros: i64 = digits.parse().ok()?;
    let micros = if whole.starts_with('-') {
        -micros
    } else {
        micros
    };
    whole
        .parse::<i64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: &str, zone_name: Option<&str>, text: &str, expected: Option<i64>) {
        let reader = TimeReader::new(&format.parse().unwrap(), zone(zone_name).unwrap(), text);
        assert_eq!(reader.read(text), expected, "{text} as {format}");
    }

    #[test]
    fn every_way_of_writing_a_time_gives_the_same_microseconds() {
        let new_year = Some(946_684_800_000_000);
        for text in [
            "2000-01-01T00:00:00Z",
            "2000-01-01 00:00:00",
            "2000-01-01 00:00",
            "2000-01-01",
            "2000-01-01T02:00:00+02:00",
            "946684800",
            "946684800.000",
            "946684800000",
            "946684800000000",
            "946684800000000000",
        ] {
            check("auto", None, text, new_year);
        }
        check(
            "auto",
            None,
            "2000-01-01 00:00:00.123456",
            Some(946_684_800_123_456),
        );
        check("auto", None, "946684800.5", Some(946_684_800_500_000));
        check("s", None, "-1.25", Some(-1_250_000));
        check("ms", None, "5", Some(5_000));
        check("ns", None, "-1", Some(-1));
        check("%d.%m.%Y %H:%M", None, "01.01.2000 00:00", new_year);
        check(
            "%d.%m.%Y %H:%M %z",
            None,
            "01.01.2000 02:00 +0200",
            new_year,
        );
    }

    #[test]
    fn a_time_without_a_zone_is_of_the_zone_given_and_one_that_is_twice_is_refused() {
        check(
            "auto",
            Some("+02:00"),
            "2000-01-01 02:00:00",
            Some(946_684_800_000_000),
        );
        check(
            "auto",
            Some("Europe/Berlin"),
            "2000-07-01 02:00:00",
            Some(962_409_600_000_000),
        );
        check(
            "auto",
            Some("Europe/Berlin"),
            "2000-07-01T02:00:00Z",
            Some(962_416_800_000_000),
        );
        check("auto", Some("Europe/Berlin"), "2026-10-25 02:30:00", None);
        check("auto", Some("Europe/Berlin"), "2026-03-29 02:30:00", None);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2000-13-01",
            "1.2.3",
            "99999999999999999999",
        ] {
            check("auto", None, text, None);
        }
        check("s", None, "99999999999999999", None);
        check("ms", None, "1.5", None);
        assert!(zone(Some("Mars/Olympus")).is_none());
    }
}
