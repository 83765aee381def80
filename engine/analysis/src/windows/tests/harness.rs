//! Rows and results that are easy to write.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray, types::Int32Type,
};

use crate::{
    Aggregate, ArgumentType, Emit, Function, Key, Kind, Late, LateReason, Limits, Output, Rows,
    Size, TimePolicy, WindowSpec, Windows,
};

pub(crate) const SECOND: i64 = 1_000_000;

/// A row: two numbers, a text, a condition to open and one to close.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) ts: i64,
    pub(crate) arrival: i64,
    pub(crate) device: String,
    pub(crate) fleet: Option<String>,
    pub(crate) float: Option<f64>,
    pub(crate) int: Option<i64>,
    pub(crate) text: Option<String>,
    pub(crate) open: bool,
    pub(crate) close: bool,
}

/// A row of a device, in seconds, that arrives when it happens.
pub(crate) fn row(device: &str, second: i64, value: f64) -> Row {
    arriving(device, second, second, value)
}

/// A row of a device, with the time it happened at and the time it arrived at, in seconds.
pub(crate) fn arriving(device: &str, second: i64, arrival: i64, value: f64) -> Row {
    Row {
        ts: second * SECOND,
        arrival: arrival * SECOND,
        device: device.to_owned(),
        fleet: Some(format!("fleet {}", device.len() % 2)),
        float: Some(value),
        int: Some(value as i64),
        text: Some(format!("text {value}")),
        open: false,
        close: false,
    }
}

pub(crate) const FLOAT: usize = 0;
pub(crate) const INT: usize = 1;
pub(crate) const TEXT: usize = 2;

pub(crate) fn aggregate(function: Function, argument: usize) -> Aggregate {
    Aggregate {
        function,
        argument: (function != Function::Rows).then_some(argument),
        parameter: (function == Function::Quantile).then_some(0.9),
    }
}

/// Windows of one kind by device with the number of rows and the sum of the floats.
pub(crate) fn spec(kind: Kind) -> WindowSpec {
    WindowSpec {
        kinds: vec![kind],
        key: Key::Device,
        arguments: vec![
            ArgumentType::Float64,
            ArgumentType::Int64,
            ArgumentType::Text,
        ],
        aggregates: vec![
            aggregate(Function::Rows, FLOAT),
            aggregate(Function::Sum, FLOAT),
        ],
        time: TimePolicy::default(),
        emit: Emit::Close,
        zone: None,
        limits: Limits::default(),
    }
}

pub(crate) fn tumbling(seconds: i64) -> Kind {
    Kind::Tumbling {
        size: Size::Micros(seconds * SECOND),
    }
}

/// Pushes rows as one batch; record time is in seconds.
pub(crate) fn push(windows: &mut Windows, rows: &[Row], second: i64, out: &mut Output) {
    let ts: Vec<i64> = rows.iter().map(|row| row.ts).collect();
    let arrival: Vec<i64> = rows.iter().map(|row| row.arrival).collect();
    let device: DictionaryArray<Int32Type> = rows.iter().map(|row| row.device.as_str()).collect();
    let fleet: StringArray = rows.iter().map(|row| row.fleet.as_deref()).collect();
    let arguments: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.float).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.int).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| row.text.as_deref())
                .collect::<StringArray>(),
        ),
    ];
    let open: BooleanArray = rows.iter().map(|row| Some(row.open)).collect();
    let close: BooleanArray = rows.iter().map(|row| Some(row.close)).collect();
    let keys = [&fleet];
    let rows = Rows {
        ts: &ts,
        arrival: &arrival,
        device: &device,
        keys: &keys[..windows.spec().key.columns()],
        arguments: &arguments[..windows.spec().arguments.len()],
        open: Some(&open),
        close: Some(&close),
    };
    windows.push(&rows, second * SECOND, out).unwrap();
}

/// Results as texts: `key start..end kind revision: results`, times in seconds.
pub(crate) fn texts(out: &mut Output) -> Vec<String> {
    let closed = out.take();
    (0..closed.len())
        .map(|row| {
            let mut text = String::new();
            for key in closed.device.iter().chain(&closed.keys) {
                text += if key.is_null(row) {
                    "null"
                } else {
                    key.value(row)
                };
                text += " ";
            }
            let time = |micros: i64| micros as f64 / SECOND as f64;
            text += &format!(
                "{}..{}",
                time(closed.start.value(row)),
                time(closed.end.value(row))
            );
            if closed.kind.value(row) > 0 {
                text += &format!(" kind {}", closed.kind.value(row));
            }
            if closed.revision.value(row) > 0 {
                text += &format!(" revision {}", closed.revision.value(row));
            }
            text += ":";
            for column in &closed.results {
                text += " ";
                text += &cell(column, row);
            }
            text
        })
        .collect()
}

fn cell(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    let any = column.as_any();
    if let Some(column) = any.downcast_ref::<Float64Array>() {
        // With all bits, zeros with their signs.
        return format!("{:?}", column.value(row));
    }
    if let Some(column) = any.downcast_ref::<Int64Array>() {
        return column.value(row).to_string();
    }
    if let Some(column) = any.downcast_ref::<TimestampMicrosecondArray>() {
        return format!("@{}", column.value(row) as f64 / SECOND as f64);
    }
    if let Some(column) = any.downcast_ref::<BooleanArray>() {
        return column.value(row).to_string();
    }
    any.downcast_ref::<StringArray>()
        .unwrap()
        .value(row)
        .to_owned()
}

/// Late rows as (row, reason, start, end), times in seconds.
pub(crate) fn late(out: &mut Output) -> Vec<(u32, LateReason, i64, i64)> {
    let told = |late: Late| {
        (
            late.row,
            late.reason,
            late.start / SECOND,
            late.end / SECOND,
        )
    };
    out.take_late().into_iter().map(told).collect()
}
