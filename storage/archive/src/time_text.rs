//! Days and times as Delta writes them.

use chrono::{DateTime, NaiveDate};
use quiver_model::Timestamp;

/// `2024-01-31`, of days since 1970-01-01.
pub(crate) fn day_text(day: i32) -> String {
    NaiveDate::from_epoch_days(day).map_or_else(|| day.to_string(), |date| date.to_string())
}

/// Days since 1970-01-01, of `2024-01-31`.
pub(crate) fn parse_day(text: &str) -> Option<i32> {
    Some(text.parse::<NaiveDate>().ok()?.to_epoch_days())
}

/// RFC 3339 with microseconds, UTC.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

/// A time of a file's statistics. Some writers write no offset; Delta's times are UTC.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(Timestamp(time.timestamp_micros()));
    }
    let time = text.parse::<chrono::NaiveDateTime>().ok()?;
    Some(Timestamp(time.and_utc().timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_survive_their_text() {
        for day in [0, 1, 19_753, 100_000] {
            assert_eq!(parse_day(&day_text(day)), Some(day));
        }
        assert_eq!(day_text(19_753), "2024-01-31");
        for micros in [0, 1, 1_706_659_200_123_456] {
            assert_eq!(
                parse_time(&rfc3339(Timestamp(micros))),
                Some(Timestamp(micros))
            );
        }
        assert_eq!(
            parse_time("2024-01-31T00:00:00.5"),
            Some(Timestamp(1_706_659_200_500_000))
        );
        assert_eq!(
            parse_time("2024-01-31T01:00:00+01:00"),
            Some(Timestamp(1_706_659_200_000_000))
        );
    }
}
