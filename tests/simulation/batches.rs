//! Batches as devices send them: each row says which batch and row it is.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampSecondArray,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use quiver_model::Timestamp;

use crate::{
    model::{Kind, seen_of, value_of},
    seeded::Random,
};

const DAY_US: i64 = 86_400_000_000;

/// A batch of `rows` rows. It has some of the `grown` fields that came to the stream since the
/// simulation began; a [`Kind::Grown`] one has the last of them.
pub fn batch(
    id: i64,
    rows: u32,
    kind: Kind,
    grown: u32,
    now: Timestamp,
    random: &mut Random,
) -> RecordBatch {
    let time_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    if kind != Kind::NoTime {
        let times: Vec<Option<i64>> = (0..rows)
            .map(|row| match (kind, row) {
                (Kind::SomeRows, 0) => None,
                (Kind::SomeRows, 1) => Some(now.as_micros() + 30 * DAY_US),
                // Out of order, and across midnight: the archive has a partition for each day.
                _ => Some(now.as_micros() - random.below(3_600_000_000) as i64),
            })
            .collect();
        fields.push(Field::new("ts", time_type, true));
        columns.push(Arc::new(
            TimestampMicrosecondArray::from(times).with_timezone("UTC"),
        ));
    }
    fields.push(Field::new("batch", DataType::Int64, false));
    columns.push(Arc::new(Int64Array::from(vec![id; rows as usize])));
    fields.push(Field::new("row", DataType::Int64, false));
    columns.push(Arc::new(Int64Array::from_iter_values(0..i64::from(rows))));
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    fields.push(Field::new("seen", seconds, true));
    let seen = (0..rows).map(|row| seen_of(id, i64::from(row)));
    columns.push(Arc::new(seen.collect::<TimestampSecondArray>()));
    if kind == Kind::WrongType {
        fields.push(Field::new("value", DataType::Utf8, true));
        columns.push(Arc::new(StringArray::from(vec!["high"; rows as usize])));
    } else {
        let values = (0..rows).map(|row| value_of(id, i64::from(row)));
        fields.push(Field::new("value", DataType::Float64, true));
        columns.push(Arc::new(Float64Array::from_iter_values(values)));
    }
    let has_all = kind == Kind::Grown || random.chance(300);
    for extra in 0..if has_all { grown } else { 0 } {
        fields.push(Field::new(
            format!("extra_{extra}"),
            DataType::Float64,
            true,
        ));
        columns.push(Arc::new(Float64Array::from(vec![
            f64::from(extra);
            rows as usize
        ])));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}
