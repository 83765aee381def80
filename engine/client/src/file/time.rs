//! Points in time as people and programs write them, to microseconds since 1970.

use std::str::FromStr;

use arrow_array::timezone::Tz;
use arrow_cast::parse::string_to_datetime;
use chrono::{
    LocalResult, NaiveDateTime, TimeZone, Utc,
    format::{Parsed, StrftimeItems, parse},
};

use super::{
    AmbiguousTimes, FileOptions, TimeFormat,
    decimal::{integer, scaled},
};

/// Reads the values of one column.
#[derive(Clone, Debug)]
pub(super) struct TimeReader {
    format: TimeFormat,
    zone: Tz,
    zone_name: String,
    ambiguous: AmbiguousTimes,
}

/// The zone of times that name none.
pub(super) fn zone(name: Option<&str>) -> Option<Tz> {
    Tz::from_str(name.unwrap_or("+00:00")).ok()
}

/// Why a text is not a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeFault {
    /// It is not written in the format.
    NotOne,
    /// The clocks of the zone showed it twice.
    Twice,
    /// The clocks of the zone never showed it.
    Never,
}

impl TimeReader {
    /// A reader of the file's format; `Auto` becomes what `first`, the first value, is.
    pub fn new(options: &FileOptions, zone: Tz, first: &str) -> Self {
        let format = match &options.time_format {
            TimeFormat::Auto => detect(first),
            format => format.clone(),
        };
        Self {
            format,
            zone,
            zone_name: options.time_zone.clone().unwrap_or_else(|| "UTC".into()),
            ambiguous: options.ambiguous_times,
        }
    }

    /// The same for another format.
    pub fn of_format(self, format: TimeFormat) -> Self {
        Self { format, ..self }
    }

    /// Microseconds since 1970.
    pub fn read(&self, text: &str) -> Result<i64, TimeFault> {
        let time = match &self.format {
            TimeFormat::Auto | TimeFormat::Text => return self.read_text(text),
            TimeFormat::Seconds => scaled(text, 6),
            TimeFormat::Millis => scaled(text, 3),
            TimeFormat::Micros => integer(text),
            TimeFormat::Nanos => integer(text).map(|time| time.div_euclid(1_000)),
            TimeFormat::Pattern(pattern) => return self.read_pattern(text, pattern),
        };
        time.ok_or(TimeFault::NotOne)
    }

    /// The same from a number that is no text: to the microsecond, as far as the number is.
    pub fn read_float(&self, value: f64) -> Result<i64, TimeFault> {
        if !value.is_finite() {
            return Err(TimeFault::NotOne);
        }
        // Apart, the fraction is exact, and the whole part is not rounded again.
        let micros = |per_unit: i32| {
            let (whole, fraction) = (value.trunc(), value.fract());
            (whole as i128)
                .checked_mul(per_unit.into())?
                .checked_add((fraction * f64::from(per_unit)).round() as i128)
        };
        let time = match &self.format {
            TimeFormat::Seconds => micros(1_000_000),
            TimeFormat::Millis => micros(1_000),
            TimeFormat::Micros => micros(1),
            TimeFormat::Nanos => Some((value.floor() as i128).div_euclid(1_000)),
            TimeFormat::Auto | TimeFormat::Text | TimeFormat::Pattern(_) => {
                return self.read(&value.to_string());
            }
        };
        time.and_then(|time| i64::try_from(time).ok())
            .ok_or(TimeFault::NotOne)
    }

    /// A time of a pattern in the manner of strftime. Without a time of day it is midnight, without
    /// minutes the full hour.
    fn read_pattern(&self, text: &str, pattern: &str) -> Result<i64, TimeFault> {
        let mut parsed = Parsed::new();
        let not_one = |_| TimeFault::NotOne;
        parse(&mut parsed, text, StrftimeItems::new(pattern)).map_err(not_one)?;
        let has_hour = parsed.hour_div_12().is_some() || parsed.hour_mod_12().is_some();
        let has_less =
            parsed.minute().is_some() || parsed.second().is_some() || parsed.nanosecond().is_some();
        if parsed.timestamp().is_none() {
            if !has_hour && !has_less {
                parsed.set_hour(0).map_err(not_one)?;
            }
            if parsed.minute().is_none() && parsed.second().is_none() {
                parsed.set_minute(0).map_err(not_one)?;
            }
        }
        if parsed.offset().is_some() {
            let time = parsed.to_datetime().map_err(not_one)?;
            return Ok(time.timestamp_micros());
        }
        let time = parsed.to_naive_datetime_with_offset(0).map_err(not_one)?;
        if parsed.timestamp().is_some() {
            return Ok(time.and_utc().timestamp_micros());
        }
        self.local(time)
    }

    fn read_text(&self, text: &str) -> Result<i64, TimeFault> {
        if let Ok(time) = string_to_datetime(&self.zone, text) {
            return Ok(time.timestamp_micros());
        }
        // One that names its zone would have been read: what UTC can read is a local time that the
        // zone has twice or never.
        if let Ok(local) = string_to_datetime(&Utc, text) {
            return self.local(local.naive_utc());
        }
        ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|pattern| NaiveDateTime::parse_from_str(text, pattern).ok())
            .ok_or(TimeFault::NotOne)
            .and_then(|time| self.local(time))
    }

    /// A local time of the zone.
    pub fn local(&self, time: NaiveDateTime) -> Result<i64, TimeFault> {
        let time = match self.zone.from_local_datetime(&time) {
            LocalResult::Single(time) => time,
            LocalResult::None => return Err(TimeFault::Never),
            LocalResult::Ambiguous(one, other) => match self.ambiguous {
                AmbiguousTimes::Error => return Err(TimeFault::Twice),
                AmbiguousTimes::Earlier => one.min(other),
                AmbiguousTimes::Later => one.max(other),
            },
        };
        Ok(time.timestamp_micros())
    }

    /// What is wrong, to be read on from the value, and how to mend it.
    pub fn explain(&self, fault: TimeFault) -> (String, String) {
        let zone = &self.zone_name;
        match fault {
            TimeFault::NotOne => (
                format!("is not {}", self.expectation()),
                "mend the value, or name another --timestamp, --timestamp-format or --timezone"
                    .into(),
            ),
            TimeFault::Twice => (
                format!("occurs twice in {zone}, where the clocks were set back"),
                "say which one is meant with --ambiguous-times earlier or later, or write times with their offset, as in 2026-01-31T12:00:00-05:00".into(),
            ),
            TimeFault::Never => (
                format!("never occurs in {zone}, where the clocks were set forward over it"),
                "mend the value, write times with their offset, as in 2026-01-31T12:00:00-05:00, or name the zone that they are of with --timezone".into(),
            ),
        }
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
    let reader = TimeReader {
        format: TimeFormat::Text,
        zone,
        zone_name: String::new(),
        ambiguous: AmbiguousTimes::Earlier,
    };
    text.len() >= 8 && text.parse::<f64>().is_err() && reader.read(text).is_ok()
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
    // Eight digits are a date.
    let is_date = first.len() == 8 && first.bytes().all(|byte| byte.is_ascii_digit());
    match scaled(first, 0) {
        Some(number) if !is_date => unit_of(number),
        _ => TimeFormat::Text,
    }
}

#[cfg(test)]
mod tests {
    use quiver_model::StreamName;

    use super::*;

    #[track_caller]
    fn check(format: &str, zone_name: Option<&str>, text: &str, expected: Option<i64>) {
        let read = reader(format, zone_name, AmbiguousTimes::Error, text).read(text);
        assert_eq!(read.ok(), expected, "{text} as {format}");
    }

    fn reader(
        format: &str,
        zone_name: Option<&str>,
        ambiguous_times: AmbiguousTimes,
        first: &str,
    ) -> TimeReader {
        let options = FileOptions {
            time_format: format.parse().unwrap(),
            time_zone: zone_name.map(str::to_owned),
            ambiguous_times,
            ..FileOptions::new("x.csv", StreamName::new("s").unwrap())
        };
        TimeReader::new(&options, zone(zone_name).unwrap(), first)
    }

    #[test]
    fn a_time_that_occurs_twice_or_never_says_so_and_can_be_decided() {
        let berlin = |ambiguous, text| reader("auto", Some("Europe/Berlin"), ambiguous, text);
        for text in [
            "2026-10-25 02:30:00",
            "2026-10-25T02:30",
            "2026-10-25 02:30:00.000",
        ] {
            let refusing = berlin(AmbiguousTimes::Error, text);
            assert_eq!(refusing.read(text), Err(TimeFault::Twice));
            let (fault, remedy) = refusing.explain(TimeFault::Twice);
            assert!(fault.contains("occurs twice in Europe/Berlin"), "{fault}");
            assert!(remedy.contains("--ambiguous-times"), "{remedy}");
            let earlier = berlin(AmbiguousTimes::Earlier, text).read(text);
            let later = berlin(AmbiguousTimes::Later, text).read(text);
            assert_eq!(earlier, Ok(1_792_888_200_000_000));
            assert_eq!(later, Ok(1_792_888_200_000_000 + 3_600_000_000));
        }
        let never = "2026-03-29 02:30:00";
        for ambiguous in [AmbiguousTimes::Error, AmbiguousTimes::Later] {
            let reader = berlin(ambiguous, never);
            assert_eq!(reader.read(never), Err(TimeFault::Never));
        }
        let pattern = reader(
            "%d.%m.%Y %H:%M",
            Some("Europe/Berlin"),
            AmbiguousTimes::Error,
            "",
        );
        assert_eq!(pattern.read("25.10.2026 02:30"), Err(TimeFault::Twice));
        assert_eq!(pattern.read("soon"), Err(TimeFault::NotOne));
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
        check("ms", None, "1.5", Some(1_500));
        check("auto", None, "946684800000.000", new_year);
        check("auto", None, "9.466848e11", new_year);
        check("ns", None, "-1", Some(-1));
        check("%d.%m.%Y %H:%M", None, "01.01.2000 00:00", new_year);
        check(
            "%d.%m.%Y %H:%M %z",
            None,
            "01.01.2000 02:00 +0200",
            new_year,
        );
        check("%d.%m.%Y", None, "01.01.2000", new_year);
        check(
            "%d.%m.%Y",
            Some("+02:00"),
            "01.01.2000",
            new_year.map(|time| time - 7_200_000_000),
        );
        check("%Y-%m-%d%z", None, "2000-01-01+0000", new_year);
        check(
            "%Y-%m-%d %H",
            None,
            "2000-01-01 01",
            new_year.map(|time| time + 3_600_000_000),
        );
        check("%s", Some("Europe/Berlin"), "946684800", new_year);
        // Not even a day, and minutes of no hour.
        check("%m.%Y", None, "01.2000", None);
        check("%Y-%m-%d %M", None, "2000-01-01 05", None);
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
        check("us", None, "1.5", None);
        assert!(zone(Some("Mars/Olympus")).is_none());
    }
}
