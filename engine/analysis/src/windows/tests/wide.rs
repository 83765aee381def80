//! Rows of many fields: how they are folded, and what they take.

use std::sync::Arc;

use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, types::Int32Type};

use super::harness::*;
use crate::{
    Aggregate, ArgumentType, Function, Kind, Output, Rows, Size, TimePolicy, WindowSpec, Windows,
};

const PLAIN: [Function; 7] = [
    Function::Count,
    Function::Sum,
    Function::Min,
    Function::Max,
    Function::Avg,
    Function::First,
    Function::Last,
];

/// `floats` fields of floats, then two of integers.
fn wide(kind: Kind, floats: usize) -> WindowSpec {
    let mut arguments = vec![ArgumentType::Float64; floats];
    arguments.extend([ArgumentType::Int64; 2]);
    let aggregates = (0..arguments.len()).flat_map(|argument| {
        PLAIN.map(|function| Aggregate {
            function,
            argument: Some(argument),
            parameter: None,
        })
    });
    WindowSpec {
        kinds: vec![kind],
        aggregates: aggregates.collect(),
        arguments,
        time: TimePolicy {
            out_of_order: 2 * SECOND,
            ..TimePolicy::default()
        },
        ..spec(tumbling(1))
    }
}

/// Numbers of very different sizes, so that the order of additions shows.
fn number(row: usize, field: usize) -> f64 {
    let mixed = (row as u64 * 31 + field as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let digits = (mixed % 2_000_003) as f64 - 1e6;
    digits * 10_f64.powi((mixed % 17) as i32 - 8) / 7.0
}

/// Rows of three devices: stretches of one of them, and some rows of each in turn.
fn rows(many: usize) -> (Vec<String>, Vec<i64>) {
    let device = |row: usize| {
        let number = if row % 97 < 60 { row / 97 } else { row };
        format!("device {}", number % 3)
    };
    // A row in ten is a second before the one in front of it; a pause after every 700.
    let second = |row: usize| (row / 3 + row / 700 * 40) as i64 - i64::from(row % 10 == 9);
    (
        (0..many).map(device).collect(),
        (0..many).map(|row| second(row) * SECOND).collect(),
    )
}

/// Pushes rows of one range as a batch.
fn push_wide(
    windows: &mut Windows,
    (devices, times): &(Vec<String>, Vec<i64>),
    range: std::ops::Range<usize>,
    out: &mut Output,
) {
    let fields = windows.spec().arguments.len();
    let floats = fields - 2;
    let mut arguments: Vec<ArrayRef> = Vec::new();
    for field in 0..floats {
        // The second field lacks some values.
        let values = range.clone().map(|row| {
            let is_there = field != 1 || row % 5 != 0;
            is_there.then(|| number(row, field))
        });
        arguments.push(Arc::new(values.collect::<Float64Array>()));
    }
    for field in floats..fields {
        let values = range.clone().map(|row| number(row, field) as i64);
        arguments.push(Arc::new(Int64Array::from_iter_values(values)));
    }
    let names = devices[range.clone()].iter().map(String::as_str);
    let device: DictionaryArray<Int32Type> = names.collect();
    let rows = Rows {
        ts: &times[range.clone()],
        arrival: &times[range],
        device: &device,
        keys: &[],
        arguments: &arguments,
        open: None,
        close: None,
    };
    windows.push(&rows, 0, out).unwrap();
}

#[test]
fn values_of_many_columns_are_added_in_the_order_of_rows() {
    let kinds = vec![
        tumbling(60),
        Kind::Hopping {
            size: Size::Micros(60 * SECOND),
            every: 20 * SECOND,
        },
        Kind::Session {
            gap: 30 * SECOND,
            max: None,
        },
    ];
    for kind in kinds {
        // Columns go abreast by four, two and one.
        let spec = wide(kind, 8);
        let many = 2_500;
        let rows = rows(many);
        let run = |batch: usize| {
            let mut windows = Windows::new(spec.clone()).unwrap();
            let mut out = windows.output();
            for from in (0..many).step_by(batch) {
                push_wide(&mut windows, &rows, from..many.min(from + batch), &mut out);
            }
            windows.advance(i64::MAX / 2, &mut out);
            (out.take_late().len(), texts(&mut out))
        };
        let (late, one_by_one) = run(1);
        assert_eq!(late, 0);
        assert!(one_by_one.len() > 9);
        for batch in [7, 100, many] {
            assert_eq!(run(batch).1, one_by_one, "{kind:?} in batches of {batch}");
        }
    }
}

#[test]
fn plain_aggregates_take_at_most_200_bytes_a_device_and_field() {
    const FIELDS: usize = 10;
    const DEVICES: usize = 1_000;
    let mut windows = Windows::new(wide(tumbling(60), FIELDS - 2)).unwrap();
    let mut out = windows.output();
    let names = (0..DEVICES).map(|device| format!("truck-{device:05}"));
    let rows = (names.collect(), vec![0; DEVICES]);
    push_wide(&mut windows, &rows, 0..DEVICES, &mut out);
    let usage = windows.usage();
    assert_eq!((usage.devices, usage.panes), (DEVICES, DEVICES));
    let each = usage.bytes as f64 / (DEVICES * FIELDS) as f64;
    assert!(each <= 200.0, "{each}");
}
