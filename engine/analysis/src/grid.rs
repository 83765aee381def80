//! Where windows begin and end: whole numbers of microseconds since the epoch, `[start, end)`.
//!
//! ```text
//! ts ─ Clock ─▶ what the local clock has reached ─ Steps ─▶ the last step of it ─ Clock ─▶ start
//! ```
//!
//! Starts lie on the steps of a clock: every `every` microseconds (`size`, if windows do not
//! overlap), every local day, Monday, or first of a month. Without a zone the clock is UTC. With a
//! zone it is the local one if a step divides a day or is whole days, counted from the midnight
//! that began 1970-01-01 there; steps of another length (7 h, 36 h) are counted in UTC, zone or not,
//! since no local time could be said where they begin.
//!
//! What happens when the local clock is put forward or back:
//! - By a multiple of the step: nothing. Windows of an hour stay an hour of elapsed time, and the
//!   hour that the clock shows twice is two windows.
//! - By anything else: windows follow the clock, and one is longer or shorter than the others. A day
//!   in Europe/Berlin has 23 or 25 hours twice a year; six-hour windows still begin at 0, 6, 12
//!   and 18 o'clock, and one of them has 5 or 7 hours.
//! - A start that is skipped (midnight in America/Sao_Paulo, some years) is at the moment of the
//!   skip; one that comes twice is where it came first.
//!
//! The end of a window is where its clock reaches the start's reading plus the size; so overlapping
//! windows of 24 hours that start every hour have 24 hours always, and those that start every six
//! hours follow the local day.
//!
//! Zones are those of the IANA database this program was built with: from 1970 until 2100; before
//! and after them the first and the last offset hold.

use chrono_tz::Tz;

mod clock;
mod steps;

use clock::Clock;
use steps::{DAY, Steps};

/// Microseconds from the Monday 1970-01-05 back to the epoch.
const MONDAY: i64 = 4 * DAY;

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many microseconds.
    Micros(i64),
    /// A day of the calendar.
    Day,
    /// A week of the calendar, from Monday on.
    Week,
    /// A month of the calendar.
    Month,
}

/// Why there is no such grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// A window of no time, or of less.
    #[error("a window is longer than zero, not {0} µs")]
    Size(i64),
    /// Windows that start again and again at the same time.
    #[error("windows start more than zero apart, not {0} µs")]
    Every(i64),
    /// Rows between two windows would be in none.
    #[error("windows of {size} µs cannot start every {every} µs: rows between them would be lost")]
    Gaps {
        /// How long a window is, in microseconds.
        size: i64,
        /// How far apart the starts are, in microseconds.
        every: i64,
    },
    /// Windows of the calendar follow one another.
    #[error(
        "windows of a day, week or month of the calendar do not overlap; give the size as a time"
    )]
    CalendarEvery,
}

/// The starts and ends of the windows of one size. Every time that is at least a size away from
/// the ends of `i64` is in a window; nearer to them results are held at the ends.
#[derive(Clone, Debug)]
pub struct Grid {
    clock: Clock,
    steps: Steps,
    /// How long a window is by its clock; `None`: one step.
    size: Option<i64>,
}

impl Grid {
    /// Windows of a size, one of which starts `every` so many microseconds (in which the size need
    /// not be divisible), or each where the last ends.
    pub fn new(size: Size, every: Option<i64>, zone: Option<Tz>) -> Result<Self, GridError> {
        let (steps, length) = match (size, every) {
            (Size::Micros(size), _) if size <= 0 => return Err(GridError::Size(size)),
            (_, Some(every)) if every <= 0 => return Err(GridError::Every(every)),
            (Size::Micros(size), Some(every)) if every > size => {
                return Err(GridError::Gaps { size, every });
            }
            (Size::Micros(size), every) => {
                let step = every.unwrap_or(size);
                (Steps::of(step, 0), (step != size).then_some(size))
            }
            (_, Some(_)) => return Err(GridError::CalendarEvery),
            (Size::Day, None) => (Steps::of(DAY, 0), None),
            (Size::Week, None) => (Steps::of(7 * DAY, MONDAY), None),
            (Size::Month, None) => (Steps::Months, None),
        };
        let clock = match zone {
            Some(zone) if steps.follow_days() => Clock::of(zone, &steps),
            _ => Clock::utc(),
        };
        Ok(Self {
            clock,
            steps,
            size: length,
        })
    }

    /// The greatest start that is not after `ts`: that of the last window with `ts` in it.
    #[inline]
    pub fn last_start(&self, ts: i64) -> i64 {
        match (&self.steps, self.clock.fixed()) {
            (Steps::Even { step, phase }, Some(offset)) => {
                let on = ts.saturating_add(offset).saturating_sub(*phase);
                ts.saturating_sub(on.rem_euclid(*step))
            }
            // At the least of times the clock's reading is held, and may lie after it.
            _ => {
                let begin = self.steps.floor(self.clock.reached(ts));
                self.clock.reaches(begin).min(ts)
            }
        }
    }

    /// The end of the window that begins at `start`.
    #[inline]
    pub fn end(&self, start: i64) -> i64 {
        match (self.size, &self.steps, self.clock.fixed()) {
            (Some(size), _, Some(_)) => start.saturating_add(size),
            (None, Steps::Even { step, .. }, Some(_)) => start.saturating_add(*step),
            (None, ..) => self.next(start),
            (Some(size), ..) => {
                let begin = self.steps.floor(self.clock.reached(start));
                self.clock.reaches(begin.saturating_add(size))
            }
        }
    }

    /// The start after `start`.
    #[inline]
    pub fn next(&self, start: i64) -> i64 {
        match (&self.steps, self.clock.fixed()) {
            (Steps::Even { step, .. }, Some(_)) => start.saturating_add(*step),
            _ => {
                let begin = self.steps.floor(self.clock.reached(start));
                self.clock.reaches(self.steps.after(begin))
            }
        }
    }

    /// The start before `start`.
    #[inline]
    pub fn previous(&self, start: i64) -> i64 {
        self.last_start(start.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests;
