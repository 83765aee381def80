//! What is expected beside what came.

use std::fmt::Write as _;

use arrow_array::{Array as _, RecordBatch, cast::AsArray as _, types};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;

use crate::{config::InputRow, testing::time, value::Value};

/// Numbers that differ by less than this, relative to the greater one, are the same.
const TOLERANCE: f64 = 1e-9;
/// Most lines of a difference that are shown.
const LINES_MAX: usize = 40;

/// A row that came: the batch, and which of its rows.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) batch: RecordBatch,
    pub(crate) row: usize,
}

/// Whether a row has what is expected of it: the columns that are named; an empty table is NULL.
pub(crate) fn matches(expected: &InputRow, got: &Got, start: i64) -> bool {
    expected.columns.iter().all(|(name, value)| {
        let column = got.batch.column_by_name(&name.value);
        column.is_some_and(|column| is_value(&value.value, column.as_ref(), got.row, start))
    })
}

fn is_value(expected: &Value, column: &dyn arrow_array::Array, row: usize, start: i64) -> bool {
    if let Value::Table(_) = expected {
        return column.is_null(row);
    }
    if column.is_null(row) {
        return false;
    }
    match column.data_type() {
        DataType::Int64 => {
            let got = column.as_primitive::<types::Int64Type>().value(row);
            match expected {
                Value::Integer(number) => *number == got,
                Value::Float(number) => is_close(*number, got as f64),
                _ => false,
            }
        }
        DataType::Float64 => {
            let got = column.as_primitive::<types::Float64Type>().value(row);
            match expected {
                Value::Integer(number) => is_close(*number as f64, got),
                Value::Float(number) => is_close(*number, got),
                _ => false,
            }
        }
        DataType::Boolean => *expected == Value::Boolean(column.as_boolean().value(row)),
        DataType::Timestamp(..) => {
            let got = column
                .as_primitive_opt::<types::TimestampMicrosecondType>()
                .map(|times| times.value(row));
            time::parse(expected, start).ok() == got
        }
        _ => match expected {
            Value::Text(text) => text.value == shown(column, row),
            _ => false,
        },
    }
}

fn is_close(expected: f64, got: f64) -> bool {
    if expected.is_nan() || got.is_nan() {
        return expected.is_nan() && got.is_nan();
    }
    expected == got || (expected - got).abs() <= TOLERANCE * expected.abs().max(got.abs())
}

fn shown(column: &dyn arrow_array::Array, row: usize) -> String {
    if let Some(times) = column.as_primitive_opt::<types::TimestampMicrosecondType>() {
        return time::text(times.value(row));
    }
    let options = FormatOptions::default();
    match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => formatter.value(row).try_to_string().unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// The difference of what is expected and what came: lines with `-` did not come, lines with `+`
/// were not expected. `None` if there is none.
pub(crate) fn difference(
    expected: &[InputRow],
    got: &[Got],
    is_any_order: bool,
    start: i64,
) -> Option<String> {
    let pairs = if is_any_order {
        pairs_in_any_order(expected, got, start)
    } else {
        pairs_in_order(expected, got, start)
    };
    if pairs.len() == expected.len() && pairs.len() == got.len() {
        return None;
    }
    let mut named: Vec<&str> = Vec::new();
    for (name, _) in expected.iter().flat_map(|row| &row.columns) {
        if !named.contains(&name.value.as_str()) {
            named.push(&name.value);
        }
    }
    let mut lines = Vec::new();
    let (mut left, mut right) = (0, 0);
    let end = (expected.len(), got.len());
    let ordered: Vec<(usize, usize)> = if is_any_order {
        Vec::new()
    } else {
        pairs.clone()
    };
    for (next_left, next_right) in ordered.into_iter().chain([end]) {
        for (index, row) in expected.iter().enumerate().take(next_left).skip(left) {
            if !pairs.iter().any(|(paired, _)| *paired == index) {
                lines.push(format!("- {}", expected_text(row, start)));
            }
        }
        for (index, row) in got.iter().enumerate().take(next_right).skip(right) {
            if !pairs.iter().any(|(_, paired)| *paired == index) {
                lines.push(format!("+ {}", got_text(row, &named)));
            }
        }
        if let (Some(row), true) = (got.get(next_right), next_right < end.1) {
            lines.push(format!("  {}", got_text(row, &named)));
        }
        (left, right) = (next_left + 1, next_right + 1);
    }
    let hidden = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if hidden > 0 {
        lines.push(format!("… {hidden} more lines"));
    }
    Some(lines.join("\n"))
}

/// The longest pairs of expected rows and rows that came, both in order.
fn pairs_in_order(expected: &[InputRow], got: &[Got], start: i64) -> Vec<(usize, usize)> {
    let width = got.len() + 1;
    let mut longest = vec![0_u32; (expected.len() + 1) * width];
    let fits: Vec<bool> = expected
        .iter()
        .flat_map(|row| got.iter().map(move |got| matches(row, got, start)))
        .collect();
    for left in (0..expected.len()).rev() {
        for right in (0..got.len()).rev() {
            longest[left * width + right] = if fits[left * got.len() + right] {
                longest[(left + 1) * width + right + 1] + 1
            } else {
                longest[(left + 1) * width + right].max(longest[left * width + right + 1])
            };
        }
    }
    let (mut left, mut right) = (0, 0);
    let mut pairs = Vec::new();
    while left < expected.len() && right < got.len() {
        if fits[left * got.len() + right] {
            pairs.push((left, right));
            left += 1;
            right += 1;
        } else if longest[(left + 1) * width + right] >= longest[left * width + right + 1] {
            left += 1;
        } else {
            right += 1;
        }
    }
    pairs
}

fn pairs_in_any_order(expected: &[InputRow], got: &[Got], start: i64) -> Vec<(usize, usize)> {
    let mut is_taken = vec![false; got.len()];
    let mut pairs = Vec::new();
    for (left, row) in expected.iter().enumerate() {
        let fits = |right: &usize| !is_taken[*right] && matches(row, &got[*right], start);
        if let Some(right) = (0..got.len()).find(fits) {
            is_taken[right] = true;
            pairs.push((left, right));
        }
    }
    pairs
}

fn expected_text(row: &InputRow, start: i64) -> String {
    let columns: Vec<String> = row
        .columns
        .iter()
        .map(|(name, value)| {
            format!(
                "{} = {}",
                name.value,
                value_text(&name.value, &value.value, start)
            )
        })
        .collect();
    format!("{{ {} }}", columns.join(", "))
}

fn value_text(name: &str, value: &Value, start: i64) -> String {
    match value {
        // Columns of times are shown as those that came.
        Value::Time(text) => time::parse(value, start).map_or(text.clone(), time::text),
        Value::Text(text) if name == quiver_model::TS || name.starts_with("window_") => {
            time::parse(value, start).map_or_else(|_| format!("{:?}", text.value), time::text)
        }
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(is_true) => is_true.to_string(),
        Value::List(_) => "[…]".to_owned(),
        Value::Table(_) => "NULL".to_owned(),
    }
}

/// A row that came: the columns that are named, or all but those that every row has.
pub(crate) fn got_text(got: &Got, named: &[&str]) -> String {
    let mut text = String::from("{");
    let schema = got.batch.schema();
    let is_shown = |name: &str| {
        if named.is_empty() {
            ![quiver_model::ARRIVAL, quiver_model::POSITION].contains(&name)
        } else {
            named.contains(&name)
        }
    };
    let mut is_first = true;
    let ordered = named
        .iter()
        .filter_map(|name| schema.index_of(name).ok())
        .chain((0..schema.fields().len()).filter(|_| named.is_empty()));
    for index in ordered {
        let name = schema.field(index).name();
        if !is_shown(name) {
            continue;
        }
        let column = got.batch.column(index);
        let separator = if is_first { " " } else { ", " };
        is_first = false;
        let value = if column.is_null(got.row) {
            "NULL".to_owned()
        } else {
            let value = shown(column.as_ref(), got.row);
            match column.data_type() {
                DataType::Utf8 | DataType::Dictionary(..) => format!("{value:?}"),
                _ => value,
            }
        };
        let _ = write!(text, "{separator}{name} = {value}");
    }
    text.push_str(" }");
    text
}
