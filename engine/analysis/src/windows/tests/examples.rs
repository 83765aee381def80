//! Windows by example: each test is a stream that a person can follow.

use super::harness::*;
use crate::{LateReason, TimePolicy, Windows};

#[test]
fn the_published_example_of_stream_analytics() {
    let mut spec = spec(tumbling(5));
    spec.time = TimePolicy {
        late: Some(15 * SECOND),
        out_of_order: 8 * SECOND,
        ..TimePolicy::default()
    };
    spec.aggregates = [
        crate::Function::Rows,
        crate::Function::First,
        crate::Function::Last,
    ]
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
