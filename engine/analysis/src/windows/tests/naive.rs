//! What streams give is what a batch gives: every window is looked for, and computed, by itself.

use proptest::prelude::*;

use super::{harness::*, splits::all_aggregates};
use crate::{Function, Kind, Size, TimePolicy, WindowSpec, Windows};

/// Rows in the order of arrival, at most 10 s out of order.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let step = (
        0..3_000_i64,
        0..40_i64,
        0..3_usize,
        -1_000..1_000_i64,
        0..8_u8,
    );
    proptest::collection::vec(step, 1..120).prop_map(|steps| {
        let mut now = 1_000_000;
        let mut rows = Vec::new();
        for (step, back, device, value, null) in steps {
            now += step;
            let mut row = row(&format!("device {device}"), 0, value as f64 / 16.0);
            row.ts = (now - (back - 20).max(0) * 500) / 100 * 100_000;
            row.arrival = row.ts;
            if null == 0 {
                (row.float, row.int, row.text) = (None, None, None);
            }
            rows.push(row);
        }
        rows
    })
}

/// The windows of a device's rows: starts, ends, and the rows in order of arrival.
fn windows_of<'a>(kind: &Kind, rows: &[&'a Row]) -> Vec<(i64, i64, Vec<&'a Row>)> {
    let mut times: Vec<i64> = rows.iter().map(|row| row.ts).collect();
    times.sort_unstable();
    times.dedup();
    let mut bounds: Vec<(i64, i64)> = match *kind {
        Kind::Tumbling {
            size: Size::Micros(size),
        } => times
            .iter()
            .map(|ts| ts.div_euclid(size) * size)
            .map(|start| (start, start + size))
            .collect(),
        Kind::Hopping {
            size: Size::Micros(size),
            every,
        } => times
            .iter()
            .flat_map(|ts| {
                let last = ts.div_euclid(every) * every;
                (0..=size / every).map(move |back| last - back * every)
            })
            .map(|start| (start, start + size))
            .collect(),
        Kind::Sliding { size } => times.iter().map(|ts| (ts + 1 - size, ts + 1)).collect(),
        Kind::Session { gap, .. } => {
            let mut sessions: Vec<(i64, i64)> = Vec::new();
            for ts in times {
                match sessions.last_mut() {
                    Some((_, end)) if ts < *end => *end = ts + gap,
                    _ => sessions.push((ts, ts + gap)),
                }
            }
            sessions
        }
        _ => Vec::new(),
    };
    bounds.sort_unstable();
    bounds.dedup();
    bounds
        .into_iter()
        .map(|(start, end)| {
            let inside = |row: &&&Row| (start..end).contains(&row.ts);
            (
                start,
                end,
                rows.iter().filter(inside).copied().collect::<Vec<_>>(),
            )
        })
        .filter(|(.., rows)| !rows.is_empty())
        .collect()
}

/// What a function of the floats is, as text; `None` if a number is only close.
fn exact(function: Function, rows: &[&Row]) -> Option<String> {
    let valued = || {
        rows.iter()
            .filter_map(|row| row.float.map(|value| (row.ts, value)))
    };
    let mut sorted: Vec<_> = valued().collect();
    sorted.sort_by_key(|(ts, _)| *ts);
    let least = valued().map(|(_, value)| value).reduce(f64::min);
    let most = valued().map(|(_, value)| value).reduce(f64::max);
    let text =
        |value: Option<f64>| Some(value.map_or("null".to_owned(), |value| format!("{value:?}")));
    let time = |value: Option<f64>| {
        let found = sorted.iter().find(|(_, other)| Some(*other) == value);
        Some(found.map_or("null".to_owned(), |(ts, _)| {
            format!("@{}", *ts as f64 / SECOND as f64)
        }))
    };
    match function {
        Function::Rows => Some(rows.len().to_string()),
        Function::Count => Some(valued().count().to_string()),
        Function::Min => text(least),
        Function::Max => text(most),
        Function::MinAt => time(least),
        Function::MaxAt => time(most),
        Function::First => text(sorted.first().map(|(_, value)| *value)),
        Function::Last => text(sorted.last().map(|(_, value)| *value)),
        Function::Delta => {
            let ends = sorted.first().zip(sorted.last());
            text(ends.map(|(first, last)| last.1 - first.1))
        }
        _ => None,
    }
}

/// What a function of the floats is about.
fn about(function: Function, rows: &[&Row], end: i64) -> Option<f64> {
    let mut values: Vec<(i64, f64)> = rows
        .iter()
        .filter_map(|row| row.float.map(|value| (row.ts, value)))
        .collect();
    values.sort_by_key(|(ts, _)| *ts);
    let count = values.len() as f64;
    let sum: f64 = values.iter().map(|(_, value)| value).sum();
    let mean = sum / count;
    let squares: f64 = values.iter().map(|(_, value)| (value - mean).powi(2)).sum();
    let (first, last) = (values.first()?, values.last()?);
    let sample = |value: f64| (values.len() > 1).then_some(value);
    match function {
        Function::Sum => Some(sum),
        Function::Avg => Some(mean),
        Function::Var => sample(squares / (count - 1.0)),
        Function::VarPop => Some(squares / count),
        Function::Stddev => sample((squares / (count - 1.0)).sqrt()),
        Function::StddevPop => Some((squares / count).sqrt()),
        Function::Rate if last.0 > first.0 => {
            Some((last.1 - first.1) / ((last.0 - first.0) as f64 / SECOND as f64))
        }
        Function::TimeWeightedAvg => {
            let ends = values.iter().skip(1).map(|(ts, _)| *ts).chain([end]);
            let area: f64 = values
                .iter()
                .zip(ends)
                .map(|((ts, value), end)| value * (end - ts) as f64)
                .sum();
            Some(area / (end - first.0) as f64)
        }
        Function::Median => {
            let mut values: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
            values.sort_by(f64::total_cmp);
            let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
            Some(f64::midpoint(values[low], values[high]))
        }
        Function::ApproxCountDistinct => {
            let mut values: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            Some(values.len() as f64)
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_gives_what_a_batch_gives(
        rows in rows(),
        kind in prop_oneof![
            Just(tumbling(7)),
            Just(Kind::Hopping { size: Size::Micros(20 * SECOND), every: 4 * SECOND }),
            Just(Kind::Hopping { size: Size::Micros(9 * SECOND), every: 4 * SECOND }),
            Just(Kind::Sliding { size: 6 * SECOND }),
            Just(Kind::Session { gap: 3 * SECOND, max: None }),
        ],
        cut in 1..60_usize,
    ) {
        let spec = WindowSpec {
            time: TimePolicy { out_of_order: 10 * SECOND, ..TimePolicy::default() },
            aggregates: all_aggregates().into_iter().filter(|it| it.argument != Some(INT)).collect(),
            ..spec(kind)
        };
        let aggregates = spec.aggregates.clone();
        let mut windows = Windows::new(spec).unwrap();
        let mut out = windows.output();
        for rows in rows.chunks(cut) {
            push(&mut windows, rows, 1_000, &mut out);
        }
        windows.advance(i64::MAX / 2, &mut out);
        prop_assert_eq!(&out.late, &[]);
        let mut got = texts(&mut out);
        got.sort();

        let mut expected = Vec::new();
        for device in ["device 0", "device 1", "device 2"] {
            let own: Vec<&Row> = rows.iter().filter(|row| row.device == device).collect();
            for window in windows_of(&kind, &own) {
                expected.push((device, window));
            }
        }
        let name = |device: &str, start: i64, end: i64| {
            let time = |micros: i64| micros as f64 / SECOND as f64;
            format!("{device} {}..{}:", time(start), time(end))
        };
        expected.sort_by_key(|(device, (start, end, _))| name(device, *start, *end));
        prop_assert_eq!(got.len(), expected.len(), "{:?}", got);
        for (got, (device, (start, end, rows))) in got.iter().zip(expected) {
            let name = name(device, start, end);
            prop_assert!(got.starts_with(&name), "{} is not {}", got, name);
            let cells = got[name.len() + 1..].replace("text ", "text_");
            for (cell, aggregate) in cells.split(' ').zip(&aggregates) {
                if aggregate.argument.is_some_and(|argument| argument != FLOAT) {
                    continue;
                }
                if let Some(exact) = exact(aggregate.function, &rows) {
                    prop_assert_eq!(cell, &exact, "{} of {}", aggregate.function, &name);
                } else if let Some(about) = about(aggregate.function, &rows, end) {
                    let cell: f64 = cell.parse().unwrap();
                    let far = (cell - about).abs();
                    // Variances of few values that are nearly equal are near zero.
                    let most = 1e-9 * about.abs() + 1e-12 * 1e4;
                    prop_assert!(far <= most, "{} of {}: {} {}", aggregate.function, &name, cell, about);
                }
            }
        }
    }
}
