//! The readings of a clock at which windows may begin: pure arithmetic, no zone.

/// Microseconds in a day of 24 hours.
pub(super) const DAY: i64 = 86_400_000_000;

/// Readings of a clock, in microseconds since its 1970-01-01 00:00.
#[derive(Clone, Debug)]
pub(super) enum Steps {
    /// `phase`, and every `step` microseconds from there in both directions.
    Even {
        /// Above zero.
        step: i64,
        phase: i64,
    },
    /// The first midnight of each month.
    Months,
}

impl Steps {
    /// Steps of one length, above zero.
    pub const fn of(step: i64, phase: i64) -> Self {
        Self::Even { step, phase }
    }

    /// Whether steps have a place in a local day: they divide it, or are whole days.
    pub const fn follow_days(&self) -> bool {
        match self {
            Self::Even { step, .. } => DAY % *step == 0 || *step % DAY == 0,
            Self::Months => true,
        }
    }

    /// Whether the clock can be put by `shift` microseconds without a step being longer or shorter.
    pub const fn absorb(&self, shift: i64) -> bool {
        match self {
            Self::Even { step, .. } => shift % *step == 0,
            Self::Months => false,
        }
    }

    /// The last step that is not after a reading.
    pub fn floor(&self, reading: i64) -> i64 {
        match self {
            Self::Even { step, phase } => {
                let on = reading.saturating_sub(*phase);
                reading.saturating_sub(on.rem_euclid(*step))
            }
            Self::Months => month_start(month_of(reading.div_euclid(DAY))),
        }
    }

    /// The step after a step.
    pub fn after(&self, at: i64) -> i64 {
        match self {
            Self::Even { step, .. } => at.saturating_add(*step),
            Self::Months => month_start(month_of(at.div_euclid(DAY)) + 1),
        }
    }
}

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01: years are counted from March, so that the day that some
/// lack is their last.
const MARCH_ZERO: i64 = 719_468;

/// The number of the month, from January 1970 as 0, of a day since the epoch. After Howard Hinnant,
/// chrono-Compatible Low-Level Date Algorithms, `civil_from_days`.
fn month_of(day: i64) -> i64 {
    let day = day + MARCH_ZERO;
    let era = day.div_euclid(ERA_DAYS);
    let of_era = day.rem_euclid(ERA_DAYS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (era * 400 + year) * 12 + month + 2 - 1_970 * 12
}

/// The first midnight of a month by its number, in microseconds (`days_from_civil`).
fn month_start(month: i64) -> i64 {
    let from_march = month + 1_970 * 12 - 2;
    let (year, month) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let of_era = year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5;
    (era * ERA_DAYS + of_era - MARCH_ZERO).saturating_mul(DAY)
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn months_are_those_of_the_calendar(year in -9_000..9_000_i32, day in 1..366_u32) {
            let date = NaiveDate::from_yo_opt(year, day).unwrap();
            let micros = |date: NaiveDate| date.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros();
            let first = date.with_day(1).unwrap();
            let begin = Steps::Months.floor(micros(date) + DAY - 1);
            prop_assert_eq!(begin, micros(first));
            let next = first.checked_add_months(chrono::Months::new(1)).unwrap();
            prop_assert_eq!(Steps::Months.after(begin), micros(next));
        }

        #[test]
        fn no_reading_is_too_far_out(reading: i64, step in 1..i64::MAX) {
            for steps in [Steps::of(step, 0), Steps::of(step, 4 * DAY), Steps::Months] {
                let begin = steps.floor(reading);
                prop_assert!(begin <= reading);
                prop_assert!(steps.after(begin) > reading || steps.after(begin) == i64::MAX);
            }
        }
    }
}
