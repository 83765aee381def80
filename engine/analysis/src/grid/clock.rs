//! A clock that is put forward and back: what it has reached at a time, and when it reaches a
//! reading. Both only ever rise, so that every window begins once.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::steps::{DAY, Steps};

/// Where the changes of zones are looked for: from 1970 until 2101, when the database has no more.
const FROM: i64 = 0;
const UNTIL: i64 = 47_847 * DAY;
/// No zone changes and changes back within so short a time (the shortest was some weeks, for a
/// Ramadan), so changes are between times so far apart whose offsets differ. A test looks at every
/// zone more closely.
const PROBE: i64 = 7 * DAY;

/// What is to be added to UTC for the reading of a clock, over time.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// The offset until the first change, in microseconds.
    first: i64,
    /// In order of time.
    changes: Vec<Change>,
}

/// The clock is put.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// When, in microseconds since the epoch.
    at: i64,
    /// The offset from then on.
    offset: i64,
    /// The greatest reading before.
    reached: i64,
}

impl Clock {
    /// One that is never put.
    pub const fn utc() -> Self {
        Self {
            first: 0,
            changes: Vec::new(),
        }
    }

    /// The clock of a zone, but for the changes that steps do not notice: they would move every
    /// later reading by whole steps.
    pub fn of(zone: Tz, steps: &Steps) -> Self {
        let mut before = offset_at(zone, FROM);
        let mut clock = Self {
            first: before,
            changes: Vec::new(),
        };
        let mut offset = before;
        let mut reached = i64::MIN;
        for (at, local) in changes_of(zone) {
            let shift = local - before;
            before = local;
            if !steps.absorb(shift) {
                reached = reached.max(at - 1 + offset);
                offset += shift;
                clock.changes.push(Change {
                    at,
                    offset,
                    reached,
                });
            }
        }
        clock
    }

    /// The offset, if it is always the same.
    #[inline]
    pub fn fixed(&self) -> Option<i64> {
        self.changes.is_empty().then_some(self.first)
    }

    /// The greatest reading at `ts` or before.
    pub fn reached(&self, ts: i64) -> i64 {
        let count = self.changes.partition_point(|change| change.at <= ts);
        match count.checked_sub(1).and_then(|last| self.changes.get(last)) {
            Some(change) => ts.saturating_add(change.offset).max(change.reached),
            None => ts.saturating_add(self.first),
        }
    }

    /// The first time at which the clock shows `reading` or more.
    pub fn reaches(&self, reading: i64) -> i64 {
        let count = self
            .changes
            .partition_point(|change| change.reached < reading);
        match count.checked_sub(1).and_then(|last| self.changes.get(last)) {
            Some(change) => reading.saturating_sub(change.offset).max(change.at),
            None => reading.saturating_sub(self.first),
        }
    }
}

/// The offset of a zone at a time, in microseconds.
fn offset_at(zone: Tz, ts: i64) -> i64 {
    let offset = DateTime::from_timestamp_micros(ts).map_or(0, |time| {
        zone.offset_from_utc_datetime(&time.naive_utc())
            .fix()
            .local_minus_utc()
    });
    i64::from(offset) * 1_000_000
}

/// When a zone's offset changes, and what it is from then on.
pub(super) fn changes_of(zone: Tz) -> Vec<(i64, i64)> {
    let mut changes = Vec::new();
    let mut from = (FROM, offset_at(zone, FROM));
    let mut ts = FROM;
    while ts < UNTIL {
        ts += PROBE;
        let to = (ts, offset_at(zone, ts));
        find(zone, from, to, &mut changes);
        from = to;
    }
    changes
}

/// Finds the changes between two times, later than the first and not later than the second. Halves
/// what lies between, so not deeper than there are bits in [`PROBE`].
fn find(zone: Tz, from: (i64, i64), to: (i64, i64), changes: &mut Vec<(i64, i64)>) {
    if from.1 == to.1 {
        return;
    }
    if to.0 - from.0 <= 1 {
        changes.push(to);
        return;
    }
    let ts = from.0 + (to.0 - from.0) / 2;
    let middle = (ts, offset_at(zone, ts));
    find(zone, from, middle, changes);
    find(zone, middle, to, changes);
}

#[cfg(test)]
mod tests {
    use chrono_tz::TZ_VARIANTS;

    use super::*;

    /// Each change, one by one: months absorb none.
    fn clock(zone: Tz) -> Clock {
        Clock::of(zone, &Steps::Months)
    }

    #[test]
    fn every_change_is_found() {
        // Zones with changes that are close together, or of odd size.
        let names = [
            "Africa/Casablanca",
            "Africa/Cairo",
            "Asia/Gaza",
            "Antarctica/Casey",
            "Antarctica/Troll",
            "Australia/Lord_Howe",
            "America/Argentina/San_Luis",
            "Pacific/Apia",
            "Africa/Monrovia",
        ];
        for name in names {
            let zone: Tz = name.parse().unwrap();
            let clock = clock(zone);
            let mut ts = FROM;
            while ts < UNTIL {
                let count = clock.changes.partition_point(|change| change.at <= ts);
                let offset = match count {
                    0 => clock.first,
                    _ => clock.changes[count - 1].offset,
                };
                assert_eq!(offset, offset_at(zone, ts), "{name} {ts}");
                ts += DAY / 2 + 7;
            }
        }
    }

    /// Takes a while, so it is run by hand when chrono-tz is updated.
    #[test]
    #[ignore = "every three hours of 131 years in every zone"]
    fn every_change_of_every_zone_is_found() {
        for zone in TZ_VARIANTS {
            let clock = clock(zone);
            let (mut ts, mut count, mut offset) = (FROM, 0, clock.first);
            while ts < UNTIL {
                while let Some(change) = clock.changes.get(count)
                    && change.at <= ts
                {
                    (count, offset) = (count + 1, change.offset);
                }
                assert_eq!(offset, offset_at(zone, ts), "{zone} {ts}");
                ts += DAY / 8;
            }
        }
    }
}
