//! Rows divided into parts that the log takes.
//!
//! Invariant: where one part ends and the next begins depends on the rows alone, value by value: not
//! on how they lie in memory. A graph that goes through a record again divides what comes out as
//! before. The bounds are therefore part of what is stored: with others, a crash between two parts
//! and a change of the program would lose rows or store them twice.

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array, cast::AsArray};
use arrow_schema::{ArrowError, DataType};
use quiver_protocol::limits::{BATCH_BODY_BYTES_MAX, BATCH_ROWS_MAX};

/// Most rows of a part.
const ROWS_MAX: usize = BATCH_ROWS_MAX;
/// Most bytes of a part's values, about; a row that has more is a part by itself.
const BYTES_MAX: usize = BATCH_BODY_BYTES_MAX;

/// Divides rows: each part with as many as there is room for.
pub(super) fn divide(rows: &RecordBatch) -> Vec<std::ops::Range<usize>> {
    let count = rows.num_rows();
    let fixed: usize = rows.columns().iter().map(fixed_bytes).sum();
    let texts: Vec<Texts<'_>> = rows.columns().iter().filter_map(Texts::of).collect();
    let mut parts = Vec::new();
    let (mut first, mut bytes) = (0, 0_usize);
    for row in 0..count {
        let texts: usize = texts.iter().map(|text| text.bytes(row)).sum();
        let own = fixed.saturating_add(texts);
        let is_full = row - first == ROWS_MAX || bytes.saturating_add(own) > BYTES_MAX;
        if is_full && row > first {
            parts.push(first..row);
            (first, bytes) = (row, 0);
        }
        bytes = bytes.saturating_add(own);
    }
    if first < count {
        parts.push(first..count);
    }
    parts
}

/// The rows of a part, in memory of their own unless they are all.
pub(super) fn part(
    rows: &RecordBatch,
    part: std::ops::Range<usize>,
) -> Result<RecordBatch, ArrowError> {
    if part == (0..rows.num_rows()) {
        return Ok(rows.clone());
    }
    let numbers = part.map(|row| row as u32);
    arrow_select::take::take_record_batch(rows, &UInt32Array::from_iter_values(numbers))
}

/// Bytes of a value, without those of a text.
fn fixed_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Boolean => 1,
        // Its length.
        DataType::Utf8 | DataType::Dictionary(..) => 4,
        other => other.primitive_width().unwrap_or(16),
    }
}

/// A column of texts.
enum Texts<'a> {
    Plain(&'a arrow_array::StringArray),
    Named(&'a arrow_array::StringArray, &'a arrow_array::Int32Array),
}

impl<'a> Texts<'a> {
    fn of(column: &'a ArrayRef) -> Option<Self> {
        if let Some(plain) = column.as_string_opt() {
            return Some(Self::Plain(plain));
        }
        let named = column.as_dictionary_opt::<arrow_array::types::Int32Type>()?;
        let values = named.values().as_string_opt()?;
        Some(Self::Named(values, named.keys()))
    }

    fn bytes(&self, row: usize) -> usize {
        match self {
            Self::Plain(texts) if texts.is_null(row) => 0,
            Self::Plain(texts) => texts.value(row).len(),
            Self::Named(_, keys) if keys.is_null(row) => 0,
            Self::Named(values, keys) => {
                let at = usize::try_from(keys.value(row)).unwrap_or(usize::MAX);
                let is_there = at < values.len() && !values.is_null(at);
                if is_there { values.value(at).len() } else { 0 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{DictionaryArray, Float64Array, StringArray, types::Int32Type};
    use proptest::prelude::*;

    use super::*;

    fn texts(lengths: &[usize]) -> RecordBatch {
        let texts = lengths.iter().map(|length| "x".repeat(*length));
        let numbers = Float64Array::from_iter_values(lengths.iter().map(|length| *length as f64));
        RecordBatch::try_from_iter([
            (
                "text",
                Arc::new(StringArray::from_iter_values(texts)) as ArrayRef,
            ),
            ("number", Arc::new(numbers)),
        ])
        .unwrap()
    }

    #[test]
    fn parts_have_as_many_rows_as_the_log_takes() {
        let numbers = Float64Array::from(vec![1.0; 80_000]);
        let rows = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
        assert_eq!(divide(&rows), [0..65_536, 65_536..80_000]);
        assert_eq!(divide(&rows.slice(0, 65_536)), vec![0..65_536; 1]);
        assert_eq!(divide(&rows.slice(0, 0)), []);
        let last = part(&rows, 65_536..80_000).unwrap();
        assert_eq!(last.num_rows(), 14_464);
        assert!(last.get_array_memory_size() < rows.get_array_memory_size() / 4);
    }

    #[test]
    fn a_row_that_is_too_large_is_alone() {
        let large = BYTES_MAX + 1;
        assert_eq!(
            divide(&texts(&[1, large, 1, 1, large])),
            [0..1, 1..2, 2..4, 4..5]
        );
    }

    #[test]
    fn names_count_as_texts_do() {
        let name = "d".repeat(100);
        let names: DictionaryArray<Int32Type> = (0..50_000).map(|_| Some(name.as_str())).collect();
        let named = RecordBatch::try_from_iter([("device", Arc::new(names) as ArrayRef)]).unwrap();
        let plain = StringArray::from_iter_values((0..50_000).map(|_| &name));
        let plain = RecordBatch::try_from_iter([("device", Arc::new(plain) as ArrayRef)]).unwrap();
        assert_eq!(divide(&named), divide(&plain));
        assert_eq!(divide(&named).len(), 2);
    }

    proptest! {
        #[test]
        fn parts_are_all_rows_in_order_whatever_lies_around_them(
            lengths in proptest::collection::vec(0_usize..2_000_000, 1..12),
            before in 0_usize..3,
        ) {
            let parts = divide(&texts(&lengths));
            let mut at = 0;
            for part in &parts {
                prop_assert_eq!(part.start, at);
                prop_assert!(part.end > at);
                at = part.end;
                let bytes: usize = lengths[part.clone()].iter().map(|length| length + 12).sum();
                prop_assert!(bytes <= BYTES_MAX || part.len() == 1);
            }
            prop_assert_eq!(at, lengths.len());
            let padded = [&vec![7; before][..], &lengths[..], &[9]].concat();
            let slice = texts(&padded).slice(before, lengths.len());
            prop_assert_eq!(divide(&slice), parts);
        }
    }
}
