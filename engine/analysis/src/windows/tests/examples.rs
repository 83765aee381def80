//! Windows by example: each test is a stream that a person can follow.

use super::harness::*;
use crate::{Emit, Function, Key, Kind, LateReason, RowsError, Size, TimePolicy, Windows};

#[test]
fn the_published_example_of_stream_analytics() {
    let mut spec = spec(tumbling(5));
    spec.time = TimePolicy {
        late: Some(15 * SECOND),
        out_of_order: 8 * SECOND,
        ..TimePolicy::default()
    };
    spec.aggregates = [Function::Rows, Function::First, Function::Last]
        .map(|function| aggregate(function, FLOAT))
        .to_vec();
    let mut windows = Windows::new(spec).unwrap();
    let mut out = windows.output();
    let rows = [(600, 640), (630, 641), (642, 642), (638, 643), (635, 645)];
    for (number, (ts, arrival)) in rows.into_iter().enumerate() {
        let row = arriving("d", ts, arrival, number as f64 + 1.0);
        push(&mut windows, &[row], arrival, &mut out);
    }
    assert_eq!(late(&mut out), [(0, LateReason::LateArrival, 600, 605)]);
    // The watermark is 634: nothing has closed.
    assert_eq!(windows.watermark("d"), Some(634 * SECOND));
    assert_eq!(texts(&mut out), Vec::<String>::new());
    windows.advance(700 * SECOND, &mut out);
    assert_eq!(
        texts(&mut out),
        [
            "d 630..635: 1 2.0 2.0",
            "d 635..640: 2 5.0 4.0",
            "d 640..645: 1 3.0 3.0",
        ],
    );
}

#[test]
fn a_window_closes_when_its_devices_watermark_reaches_its_end() {
    let mut windows = Windows::new(spec(tumbling(60))).unwrap();
    let mut out = windows.output();
    let rows = [
        row("a", 0, 1.0),
        row("b", 30, 2.0),
        row("a", 59, 4.0),
        row("a", 60, 8.0),
        row("a", 59, 16.0),
        row("b", 59, 32.0),
    ];
    push(&mut windows, &rows, 60, &mut out);
    assert_eq!(texts(&mut out), ["a 0..60: 2 5.0"]);
    assert_eq!(late(&mut out), [(4, LateReason::OutOfOrder, 0, 60)]);
    // Without tolerances a silent device is waited for a minute.
    assert_eq!(windows.next_deadline(), Some(120 * SECOND));
    windows.advance(119 * SECOND, &mut out);
    assert!(out.is_empty());
    windows.advance(120 * SECOND, &mut out);
    assert_eq!(texts(&mut out), ["b 0..60: 2 34.0"]);
    windows.advance(180 * SECOND, &mut out);
    assert_eq!(texts(&mut out), ["a 60..120: 1 8.0"]);
    assert_eq!(windows.next_deadline(), None);
    push(
        &mut windows,
        &[row("b", 59, 1.0), row("b", 60, 1.0)],
        181,
        &mut out,
    );
    assert_eq!(late(&mut out), [(0, LateReason::WindowClosed, 0, 60)]);
}

/// Rows of one device at these seconds, of value 1.
fn at(seconds: &[i64]) -> Vec<Row> {
    seconds
        .iter()
        .map(|second| row("d", *second, 1.0))
        .collect()
}

/// Windows that wait a second for rows out of order, and what they put out of these rows, the
/// device being silent after.
fn all_of(kind: Kind, rows: &[Row]) -> Vec<String> {
    let mut spec = spec(kind);
    spec.time.out_of_order = 10 * SECOND;
    let mut windows = Windows::new(spec).unwrap();
    let mut out = windows.output();
    push(&mut windows, rows, 0, &mut out);
    windows.advance(1_000_000_000 * SECOND, &mut out);
    assert_eq!(late(&mut out), []);
    assert_eq!(windows.usage().panes, 0);
    texts(&mut out)
}

#[test]
fn days_of_berlin_are_as_long_as_they_are() {
    let hour = 3_600;
    // 2024-03-31 and 2024-10-27, midnight in Berlin.
    let (spring, autumn) = (1_711_839_600, 1_729_980_000);
    for (start, hours) in [(spring, 23), (autumn, 25)] {
        let mut spec = spec(Kind::Tumbling { size: Size::Day });
        spec.zone = Some(chrono_tz::Europe::Berlin);
        let mut windows = Windows::new(spec).unwrap();
        let mut out = windows.output();
        let rows: Vec<Row> = (-2..27)
            .map(|number| row("d", start + number * hour, 1.0))
            .collect();
        push(&mut windows, &rows, start, &mut out);
        let day = |start: i64, hours: i64, rows: i64| {
            format!("d {}..{}: {rows} {rows}.0", start, start + hours * hour)
        };
        let end = start + hours * hour;
        assert_eq!(
            texts(&mut out),
            [day(start - 24 * hour, 24, 2), day(start, hours, hours)],
        );
        windows.advance((end + 100 * hour) * SECOND, &mut out);
        assert_eq!(texts(&mut out), [day(end, 24, 27 - hours)]);
    }
}

#[test]
fn a_clock_two_days_ahead_changes_nobody_elses_results() {
    for key in [Key::Device, Key::All] {
        let mut spec = spec(tumbling(60));
        spec.key = key;
        let mut windows = Windows::new(spec.clone()).unwrap();
        let mut out = windows.output();
        let two_days = 2 * 86_400;
        let mut results = Vec::new();
        for second in (0..300).step_by(10) {
            let rows = [
                row("good", second, 1.0),
                arriving("fast", second + two_days, second, 100.0),
            ];
            windows.advance(second * SECOND, &mut out);
            push(&mut windows, &rows, second, &mut out);
            results.append(&mut texts(&mut out));
        }
        assert_eq!(late(&mut out), []);
        let name = if key == Key::Device { "good " } else { "" };
        let good: Vec<_> = results
            .iter()
            .filter(|result| {
                result.starts_with(&format!("{name}0..")) || result.contains("60..120")
            })
            .filter(|result| !result.starts_with("fast"))
            .cloned()
            .collect();
        assert_eq!(
            good,
            [
                format!("{name}0..60: 6 6.0"),
                format!("{name}60..120: 6 6.0")
            ],
            "{results:?}",
        );
        // Those who are told to mind it put such rows out.
        spec.time.early = Some(3_600 * SECOND);
        let mut windows = Windows::new(spec).unwrap();
        push(
            &mut windows,
            &[arriving("fast", two_days + 5, 5, 1.0)],
            5,
            &mut out,
        );
        let told = late(&mut out);
        assert_eq!(told, [(0, LateReason::Early, two_days, two_days + 60)]);
        assert_eq!(windows.watermark("fast"), None);
    }
}

#[test]
fn windows_of_several_devices_wait_for_none() {
    let mut spec = spec(tumbling(60));
    spec.key = Key::Columns {
        count: 1,
        with_device: false,
    };
    spec.time.late = Some(5 * SECOND);
    let mut windows = Windows::new(spec).unwrap();
    let mut out = windows.output();
    // "a" is of fleet 1, "bb" of fleet 0; "idle" is of fleet 0 and silent.
    let mut rows = vec![row("idle", 1, 1.0), row("a", 2, 2.0), row("bb", 50, 4.0)];
    rows.push(Row {
        fleet: None,
        ..row("a", 55, 8.0)
    });
    push(&mut windows, &rows, 55, &mut out);
    push(&mut windows, &[row("a", 63, 16.0)], 63, &mut out);
    windows.advance(64 * SECOND, &mut out);
    assert!(out.is_empty());
    // The last that may be in time.
    push(&mut windows, &[arriving("bb", 59, 64, 32.0)], 64, &mut out);
    windows.advance(65 * SECOND, &mut out);
    assert_eq!(
        texts(&mut out),
        [
            "null 0..60: 1 8.0",
            "fleet 0 0..60: 3 37.0",
            "fleet 1 0..60: 1 2.0"
        ],
    );
    assert_eq!(windows.usage().keys, 1);
    push(&mut windows, &[arriving("bb", 59, 60, 1.0)], 65, &mut out);
    assert_eq!(late(&mut out), [(0, LateReason::WindowClosed, 0, 60)]);
}

#[test]
fn hopping_windows_hold_a_row_as_often_as_they_overlap() {
    let kind = Kind::Hopping {
        size: Size::Micros(30 * SECOND),
        every: 10 * SECOND,
    };
    assert_eq!(
        all_of(kind, &at(&[5, 12, 100])),
        [
            "d -20..10: 1 1.0",
            "d -10..20: 2 2.0",
            "d 0..30: 2 2.0",
            "d 10..40: 1 1.0",
            "d 80..110: 1 1.0",
            "d 90..120: 1 1.0",
            "d 100..130: 1 1.0",
        ],
    );
}

#[test]
fn a_sliding_window_ends_with_each_time() {
    let kind = Kind::Sliding { size: 10 * SECOND };
    assert_eq!(
        all_of(kind, &at(&[1, 5, 5, 11, 9, 30])),
        [
            "d -8.999999..1.000001: 1 1.0",
            "d -4.999999..5.000001: 3 3.0",
            "d -0.999999..9.000001: 4 4.0",
            // The row at 1 is ten seconds old.
            "d 1.000001..11.000001: 4 4.0",
            "d 20.000001..30.000001: 1 1.0",
        ],
    );
}

#[test]
fn a_row_out_of_order_makes_two_sessions_one() {
    let kind = Kind::Session {
        gap: 4 * SECOND,
        max: None,
    };
    assert_eq!(
        all_of(kind, &at(&[10, 15, 20, 12])),
        ["d 10..19: 3 3.0", "d 20..24: 1 1.0"],
    );
    let kind = Kind::Session {
        gap: 5 * SECOND,
        max: Some(7 * SECOND),
    };
    // They would be longer than allowed as one; they do not overlap either.
    assert_eq!(
        all_of(kind, &at(&[10, 16, 18, 13, 30])),
        ["d 10..16: 2 2.0", "d 16..23: 2 2.0", "d 30..35: 1 1.0"],
    );
}

#[test]
fn a_state_is_from_the_row_that_opens_it_to_the_one_that_closes_it() {
    let mut rows = at(&[0, 10, 11, 13, 12, 20, 21, 22, 30]);
    for row in &mut rows {
        let second = row.ts / SECOND;
        row.open = [10, 13, 20].contains(&second);
        row.close = [12, 22].contains(&second);
    }
    // 12 comes after 13, and closes before it.
    assert_eq!(
        all_of(Kind::State { max: None }, &rows),
        ["d 10..12: 2 2.0", "d 13..22: 3 3.0"],
    );
    let max = Some(8 * SECOND);
    assert_eq!(
        all_of(Kind::State { max }, &rows),
        ["d 10..12: 2 2.0", "d 13..21: 2 2.0"],
    );
}

#[test]
fn one_node_has_windows_of_several_sizes() {
    let mut spec = spec(tumbling(10));
    spec.kinds.push(tumbling(30));
    let mut windows = Windows::new(spec).unwrap();
    let mut out = windows.output();
    push(&mut windows, &at(&[1, 11, 31]), 31, &mut out);
    assert_eq!(
        texts(&mut out),
        ["d 0..10: 1 1.0", "d 10..20: 1 1.0", "d 0..30 kind 1: 2 2.0"],
    );
}

#[test]
fn late_rows_make_revisions_of_what_is_retained() {
    let mut spec = spec(tumbling(10));
    spec.emit = Emit::Update {
        retain: 30 * SECOND,
    };
    let mut windows = Windows::new(spec).unwrap();
    let mut out = windows.output();
    push(&mut windows, &at(&[1, 25, 2, 15, 3]), 25, &mut out);
    assert_eq!(texts(&mut out), ["d 0..10: 1 1.0"]);
    assert_eq!(windows.next_deadline(), Some(25 * SECOND));
    windows.advance(26 * SECOND, &mut out);
    // All rows that came since are in one revision; a window without rows before has its first.
    assert_eq!(
        texts(&mut out),
        ["d 0..10 revision 1: 3 3.0", "d 10..20: 1 1.0"],
    );
    push(&mut windows, &at(&[39, 4]), 39, &mut out);
    assert_eq!(texts(&mut out), ["d 20..30: 1 1.0"]);
    windows.advance(40 * SECOND, &mut out);
    assert_eq!(texts(&mut out), ["d 0..10 revision 2: 4 4.0"]);
    // Retained no longer.
    push(&mut windows, &at(&[40, 5]), 40, &mut out);
    windows.advance(41 * SECOND, &mut out);
    assert_eq!(texts(&mut out), ["d 30..40: 1 1.0"]);
    assert_eq!(late(&mut out), [(1, LateReason::OutOfOrder, 0, 10)]);
    assert_eq!(windows.counters().revisions, 2);
}

#[test]
fn what_there_is_no_room_for_is_told() {
    let mut spec = spec(tumbling(10));
    spec.time.out_of_order = 100 * SECOND;
    spec.limits.keys = 2;
    spec.limits.windows = 2;
    let mut windows = Windows::new(spec.clone()).unwrap();
    let mut out = windows.output();
    let rows = [
        row("a", 1, 1.0),
        row("b", 1, 1.0),
        row("c", 1, 1.0),
        row("a", 11, 1.0),
        row("a", 21, 1.0),
        row("a", 2, 1.0),
    ];
    push(&mut windows, &rows, 21, &mut out);
    assert_eq!(
        late(&mut out),
        [
            (2, LateReason::Limit, 0, 10),
            (4, LateReason::Limit, 20, 30)
        ],
    );
    assert_eq!(windows.counters().limit, 2);
    spec.limits.keys = 100;
    spec.limits.bytes = 400;
    let mut windows = Windows::new(spec).unwrap();
    push(&mut windows, &rows, 21, &mut out);
    let usage = windows.usage();
    assert!(usage.bytes <= 400 && usage.devices == 2, "{usage:?}");
    assert_eq!(windows.counters().limit, late(&mut out).len() as u64);
    windows.advance(1_000 * SECOND, &mut out);
    assert_eq!(windows.usage().panes, 0);
}

#[test]
fn sums_of_integers_are_exact_or_null() {
    let mut spec = spec(tumbling(10));
    spec.aggregates = vec![aggregate(Function::Sum, INT), aggregate(Function::Avg, INT)];
    let mut windows = Windows::new(spec).unwrap();
    let mut out = windows.output();
    let rows = [
        (1, i64::MAX),
        (2, 5),
        (3, -5),
        (11, i64::MAX),
        (12, 1),
        (21, 0),
    ];
    let rows = rows.map(|(second, int)| Row {
        int: Some(int),
        ..row("d", second, 0.0)
    });
    push(&mut windows, &rows, 21, &mut out);
    let third = i64::MAX as f64 / 3.0;
    let half = i64::MAX as f64 / 2.0;
    assert_eq!(
        texts(&mut out),
        [
            format!("d 0..10: {} {third:?}", i64::MAX),
            format!("d 10..20: null {half:?}"),
        ],
    );
    assert_eq!(windows.counters().overflows, 1);
}

#[test]
fn rows_that_do_not_fit_are_a_mistake_of_the_caller() {
    let mut windows = Windows::new(spec(Kind::State { max: None })).unwrap();
    let mut out = windows.output();
    let rows = crate::Rows {
        ts: &[1],
        arrival: &[1],
        device: &["d"].into_iter().collect(),
        keys: &[],
        arguments: &[],
        open: None,
        close: None,
    };
    let count = windows.push(&rows, 1, &mut out);
    assert!(matches!(count, Err(RowsError::Count { expected: 3, .. })));
    let arrival = crate::Rows {
        arrival: &[],
        ..rows
    };
    let length = windows.push(&arrival, 1, &mut out);
    assert!(matches!(length, Err(RowsError::Length { .. })));
    assert_eq!(windows.counters().rows, 0);
}
