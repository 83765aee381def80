//! Times in tests: `10:00:05`, `2026-03-29T01:30:00+01:00`, `+1m30s` from the start.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

use crate::{config::parse_duration, value::Value};

/// When a test begins that does not say it: 1 January 2026, 00:00 UTC.
pub(crate) const START: i64 = 1_767_225_600_000_000;

/// Microseconds since 1970 of a time as it is written in a test that begins at `start`.
///
/// # Errors
/// What is wrong, and how times are written.
pub(crate) fn parse(value: &Value, start: i64) -> Result<i64, String> {
    let text = match value {
        Value::Time(text) => text.as_str(),
        Value::Text(text) => text.value.as_str(),
        other => return Err(wrong(&format!("{} is no time", other.word()))),
    };
    parse_text(text, start).ok_or_else(|| wrong(&format!("{text:?} is no time")))
}

fn wrong(problem: &str) -> String {
    format!(
        "{problem}; write 10:00:05 (of the day on which the test begins, in UTC), 2026-01-31T10:00:05Z, or \"+1m30s\" from its beginning"
    )
}

fn parse_text(text: &str, start: i64) -> Option<i64> {
    if let Some(span) = text.strip_prefix('+') {
        return start.checked_add(parse_duration(span).ok()?);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Some(time.and_utc().timestamp_micros());
        }
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
    }
    let time = ["%H:%M:%S%.f", "%H:%M"]
        .iter()
        .find_map(|format| NaiveTime::parse_from_str(text, format).ok())?;
    let day = DateTime::<Utc>::from_timestamp_micros(start)?.date_naive();
    Some(day.and_time(time).and_utc().timestamp_micros())
}

/// A time as people read it.
pub(crate) fn text(micros: i64) -> String {
    match DateTime::<Utc>::from_timestamp_micros(micros) {
        Some(time) if micros % 1_000_000 == 0 => time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        None => format!("{micros} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Text;

    #[test]
    fn times_are_read_in_every_way_that_they_are_written() {
        let read = |text: &str| parse(&Value::Text(Text::plain(text)), START);
        assert_eq!(text(START), "2026-01-01T00:00:00Z");
        for (written, seconds) in [
            ("00:00:05", 5.0),
            ("00:00:05.25", 5.25),
            ("01:00", 3_600.0),
            ("+1m30s", 90.0),
            ("2026-01-01", 0.0),
            ("2026-01-01T01:00:00", 3_600.0),
            ("2026-01-01T01:00:00+01:00", 0.0),
            ("2026-01-01 00:00:01Z", 1.0),
        ] {
            let micros = (seconds * 1e6) as i64;
            assert_eq!(read(written), Ok(START + micros), "{written}");
        }
        for wrong in ["", "x", "25:00:00", "+", "2026-13-01"] {
            assert!(read(wrong).unwrap_err().contains("is no time"), "{wrong}");
        }
        assert!(parse(&Value::Integer(1), START).is_err());
    }
}
