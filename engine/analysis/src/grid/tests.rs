use std::sync::LazyLock;

use chrono::{DateTime, Datelike, NaiveDate, TimeZone};
use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;

fn utc(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(&format!("{text}:00Z"))
        .unwrap()
        .timestamp_micros()
}

fn grid(size: Size, every: Option<i64>, zone: &str) -> Grid {
    Grid::new(size, every, Some(zone.parse().unwrap())).unwrap()
}

/// The starts from that before `from` on, in UTC; all that a grid says of them must agree.
fn starts(grid: &Grid, from: &str, count: usize) -> Vec<String> {
    let mut start = grid.last_start(utc(from));
    let mut found = Vec::new();
    for _ in 0..count {
        let time = DateTime::from_timestamp_micros(start).unwrap();
        found.push(time.format("%Y-%m-%dT%H:%M").to_string());
        let next = grid.next(start);
        assert!(next > start);
        assert_eq!(grid.previous(next), start);
        assert_eq!(grid.last_start(start), start);
        assert_eq!(grid.last_start(next - 1), start);
        assert!(grid.end(start) >= next);
        start = next;
    }
    found
}

#[test]
fn a_day_in_berlin_has_23_or_25_hours_twice_a_year() {
    let day = grid(Size::Day, None, "Europe/Berlin");
    let spring = [
        "2024-03-29T23:00",
        "2024-03-30T23:00",
        "2024-03-31T22:00",
        "2024-04-01T22:00",
    ];
    assert_eq!(starts(&day, "2024-03-30T12:00", 4), spring);
    let autumn = [
        "2024-10-25T22:00",
        "2024-10-26T22:00",
        "2024-10-27T23:00",
        "2024-10-28T23:00",
    ];
    assert_eq!(starts(&day, "2024-10-26T12:00", 4), autumn);
    // A week begins on Monday, a month on its first.
    let week = grid(Size::Week, None, "Europe/Berlin");
    assert_eq!(
        starts(&week, "2024-03-31T12:00", 3),
        ["2024-03-24T23:00", "2024-03-31T22:00", "2024-04-07T22:00"]
    );
    let month = grid(Size::Month, None, "Europe/Berlin");
    assert_eq!(
        starts(&month, "2024-02-10T00:00", 4),
        [
            "2024-01-31T23:00",
            "2024-02-29T23:00",
            "2024-03-31T22:00",
            "2024-04-30T22:00"
        ]
    );
    assert_eq!(
        grid_utc_starts(Size::Week),
        ["2024-02-05T00:00", "2024-02-12T00:00"]
    );
    assert_eq!(
        grid_utc_starts(Size::Month),
        ["2024-02-01T00:00", "2024-03-01T00:00"]
    );
    assert_eq!(
        grid_utc_starts(Size::Day),
        ["2024-02-10T00:00", "2024-02-11T00:00"]
    );
}

fn grid_utc_starts(size: Size) -> Vec<String> {
    starts(&Grid::new(size, None, None).unwrap(), "2024-02-10T00:00", 2)
}

#[test]
fn an_hour_is_an_hour_and_six_hours_follow_the_clock() {
    let hour = grid(Size::Micros(HOUR), None, "Europe/Berlin");
    let mut start = hour.last_start(utc("2024-10-26T00:30"));
    for _ in 0..72 {
        assert_eq!((hour.end(start) - start, start % HOUR), (HOUR, 0));
        start = hour.next(start);
    }
    let six = grid(Size::Micros(6 * HOUR), None, "Europe/Berlin");
    assert_eq!(
        starts(&six, "2024-03-30T23:00", 4),
        [
            "2024-03-30T23:00",
            "2024-03-31T04:00",
            "2024-03-31T10:00",
            "2024-03-31T16:00"
        ]
    );
    assert_eq!(
        starts(&six, "2024-10-26T22:00", 3),
        ["2024-10-26T22:00", "2024-10-27T05:00", "2024-10-27T11:00"]
    );
    // India and Nepal: hours of their clocks.
    let india = grid(Size::Micros(HOUR), None, "Asia/Kolkata");
    assert_eq!(
        starts(&india, "2024-01-01T00:00", 2),
        ["2023-12-31T23:30", "2024-01-01T00:30"]
    );
    let nepal = grid(Size::Micros(HOUR), None, "Asia/Kathmandu");
    assert_eq!(
        starts(&nepal, "1985-12-31T17:40", 4),
        [
            "1985-12-31T17:30",
            "1985-12-31T18:30",
            "1985-12-31T19:15",
            "1985-12-31T20:15"
        ]
    );
    // Not a part of a day: UTC.
    let seven = grid(Size::Micros(7 * HOUR), None, "Europe/Berlin");
    let ts = utc("2024-03-30T12:00");
    assert_eq!(seven.last_start(ts), ts - ts % (7 * HOUR));
}

#[test]
fn midnights_that_are_skipped_or_come_twice() {
    let days = |zone: &str, from: &str| starts(&grid(Size::Day, None, zone), from, 3);
    // Put forward at midnight: the day begins at one o'clock.
    assert_eq!(
        days("America/Sao_Paulo", "2018-11-03T12:00"),
        ["2018-11-03T03:00", "2018-11-04T03:00", "2018-11-05T02:00"]
    );
    assert_eq!(
        days("Asia/Beirut", "2022-03-26T12:00"),
        ["2022-03-25T22:00", "2022-03-26T22:00", "2022-03-27T21:00"]
    );
    // Put back at midnight to 23:00: midnight comes once, an hour later.
    assert_eq!(
        days("America/Sao_Paulo", "2018-02-17T12:00"),
        ["2018-02-17T02:00", "2018-02-18T03:00", "2018-02-19T03:00"]
    );
    // Put back from one o'clock to midnight, and from a minute past it: the first one counts.
    assert_eq!(
        days("America/Havana", "2022-11-05T12:00"),
        ["2022-11-05T04:00", "2022-11-06T04:00", "2022-11-07T05:00"]
    );
    assert_eq!(
        days("America/St_Johns", "2010-11-06T12:00"),
        ["2010-11-06T02:30", "2010-11-07T02:30", "2010-11-08T03:30"]
    );
    // A date that Samoa did not have; two days, of which it was one, are one day long.
    assert_eq!(
        days("Pacific/Apia", "2011-12-29T12:00"),
        ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]
    );
    let two = grid(Size::Micros(2 * DAY), None, "Pacific/Apia");
    assert_eq!(
        starts(&two, "2011-12-29T12:00", 3),
        ["2011-12-28T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]
    );
    // Half an hour.
    let lord_howe = grid(Size::Micros(HOUR), None, "Australia/Lord_Howe");
    assert_eq!(
        starts(&lord_howe, "2024-04-06T13:30", 4),
        [
            "2024-04-06T13:00",
            "2024-04-06T14:00",
            "2024-04-06T15:30",
            "2024-04-06T16:30"
        ]
    );
    assert_eq!(
        starts(&lord_howe, "2024-10-05T14:40", 4),
        [
            "2024-10-05T14:30",
            "2024-10-05T15:30",
            "2024-10-05T16:00",
            "2024-10-05T17:00"
        ]
    );
    let half = grid(Size::Micros(30 * MINUTE), None, "Australia/Lord_Howe");
    assert!(half.clock.fixed().is_some());
}

#[test]
fn overlapping_windows_end_by_the_clock_of_their_starts() {
    let spring = utc("2024-03-30T23:00");
    let hourly = grid(Size::Micros(DAY), Some(HOUR), "Europe/Berlin");
    assert_eq!(hourly.end(spring) - spring, DAY);
    let six = grid(Size::Micros(DAY), Some(6 * HOUR), "Europe/Berlin");
    assert_eq!(six.end(spring) - spring, DAY - HOUR);
    assert_eq!(six.previous(spring), spring - 6 * HOUR);
    assert_eq!(six.end(six.previous(spring)) - spring, 17 * HOUR);
    // Sizes that are not so many starts long.
    let odd = Grid::new(Size::Micros(10), Some(4), None).unwrap();
    assert_eq!(
        (odd.last_start(11), odd.end(8), odd.previous(8), odd.next(8)),
        (8, 18, 4, 12)
    );
}

#[test]
fn what_is_no_grid_is_told() {
    let no = |size: Size, every: Option<i64>| Grid::new(size, every, None).err();
    assert_eq!(no(Size::Micros(0), None), Some(GridError::Size(0)));
    assert_eq!(no(Size::Micros(-5), Some(1)), Some(GridError::Size(-5)));
    assert_eq!(no(Size::Micros(5), Some(0)), Some(GridError::Every(0)));
    assert_eq!(no(Size::Week, Some(-1)), Some(GridError::Every(-1)));
    assert_eq!(
        no(Size::Micros(5), Some(6)),
        Some(GridError::Gaps { size: 5, every: 6 })
    );
    assert_eq!(no(Size::Month, Some(DAY)), Some(GridError::CalendarEvery));
}

const ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "America/Havana",
    "America/St_Johns",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Gaza",
    "Africa/Cairo",
    "America/New_York",
    "Antarctica/Troll",
];

/// A zone, when it changes, and the grids of [`SIZES`] in it.
struct Zone {
    zone: Tz,
    changes: Vec<i64>,
    grids: Vec<Grid>,
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.zone)
    }
}

/// Made once, since reading a zone takes milliseconds without optimisation.
static ALL: LazyLock<Vec<Zone>> = LazyLock::new(|| {
    let zones = ZONES.iter().map(|name| {
        let zone: Tz = name.parse().unwrap();
        let grid = |size: &Size| Grid::new(*size, None, Some(zone)).unwrap();
        Zone {
            zone,
            changes: clock::changes_of(zone).iter().map(|(at, _)| *at).collect(),
            grids: SIZES.iter().map(grid).collect(),
        }
    });
    zones.collect()
});

fn zones() -> impl Strategy<Value = &'static Zone> {
    (0..ZONES.len()).prop_map(|index| &ALL[index])
}

/// Times of 1970 to 2110, half of them within a day of a change of the zone.
fn times() -> impl Strategy<Value = (&'static Zone, i64)> {
    let near = (-DAY..DAY, any::<prop::sample::Index>(), any::<bool>());
    (zones(), 0..140 * 365 * DAY, near).prop_map(|(zone, ts, (near, index, at_change))| {
        if at_change && !zone.changes.is_empty() {
            (zone, (index.get(&zone.changes) + near).max(0))
        } else {
            (zone, ts)
        }
    })
}

const SIZES: [Size; 12] = [
    Size::Micros(MINUTE),
    Size::Micros(20 * MINUTE),
    Size::Micros(40 * MINUTE),
    Size::Micros(HOUR),
    Size::Micros(6 * HOUR),
    Size::Micros(DAY),
    Size::Micros(3 * DAY),
    Size::Micros(36 * HOUR),
    Size::Micros(1_234_567),
    Size::Day,
    Size::Week,
    Size::Month,
];

proptest! {
    #[test]
    fn every_time_is_in_one_window((zone, ts) in times()) {
        for (size, grid) in SIZES.iter().zip(&zone.grids) {
            let start = grid.last_start(ts);
            let end = grid.end(start);
            prop_assert!(start <= ts && ts < end, "{:?}", size);
            prop_assert_eq!(grid.last_start(start), start);
            prop_assert_eq!(grid.last_start(end - 1), start);
            prop_assert_eq!(grid.last_start(end), end);
            prop_assert_eq!(grid.next(start), end);
            prop_assert_eq!(grid.previous(end), start);
            prop_assert!(grid.previous(start) < start);
        }
    }

    #[test]
    fn a_window_of_a_day_begins_with_a_date((zone, ts) in times()) {
        let [.., grid, week, month] = &zone.grids[..] else {
            unreachable!("days, weeks and months are the last sizes")
        };
        let date = |ts: i64| zone.zone.timestamp_micros(ts).unwrap().date_naive();
        let start = grid.last_start(ts);
        let begun = date(start);
        prop_assert!(date(start - 1) < begun);
        // Before the next, no later date is shown, and an earlier one only after a step back.
        prop_assert!(date(ts) <= begun);
        prop_assert!(date(grid.end(start)) > begun);
        let hours = (grid.end(start) - start) / HOUR;
        prop_assert!((22..=27).contains(&hours), "{} hours", hours);
        let first: NaiveDate = date(month.last_start(ts));
        prop_assert_eq!((first.day(), first.month(), first.year()), (1, begun.month(), begun.year()));
        prop_assert!(grid.last_start(week.last_start(ts)) == week.last_start(ts));
        prop_assert_eq!(begun.iso_week(), date(week.last_start(ts)).iso_week());
    }

    #[test]
    fn without_a_zone_it_is_arithmetic(ts: i64, size in 1..i64::MAX, every in 1..i64::MAX) {
        let (size, every) = (size.max(every), size.min(every));
        let grid = Grid::new(Size::Micros(size), Some(every), None).unwrap();
        let start = grid.last_start(ts);
        prop_assert_eq!(i128::from(start), (i128::from(ts) - i128::from(ts).rem_euclid(i128::from(every))).max(i128::from(i64::MIN)));
        prop_assert_eq!(grid.end(start), start.saturating_add(size));
        prop_assert!(grid.next(start) > ts || grid.next(start) == i64::MAX);
    }

    #[test]
    fn no_time_is_too_far_out(ts: i64, zone in zones()) {
        for grid in &zone.grids {
            for ts in [ts, i64::MIN, i64::MAX] {
                let start = grid.last_start(ts);
                prop_assert!(start <= ts);
                prop_assert!(grid.end(start) >= start && grid.previous(start) <= start);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn overlapping_windows_that_hold_a_time_are_those_going_back((zone, ts) in times(), parts in 1..9_i64, odd in 0..2_i64) {
        for every in [MINUTE, HOUR, 6 * HOUR, DAY] {
            let size = every * parts + odd * every / 3;
            let grid = Grid::new(Size::Micros(size), Some(every), Some(zone.zone)).unwrap();
            let (mut start, mut count) = (grid.last_start(ts), 0);
            let mut end = grid.end(start);
            while end > ts {
                prop_assert!(start <= ts);
                count += 1;
                start = grid.previous(start);
                prop_assert!(grid.end(start) <= end);
                end = grid.end(start);
            }
            prop_assert!((parts..=parts + 2).contains(&count) || count + 1 == parts, "{} of {}", count, parts);
        }
    }
}
