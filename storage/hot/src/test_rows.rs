//! Stored batches for this crate's tests.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use quiver_model::{FieldName, FieldType, SchemaId, StreamField, StreamName, StreamSchema};

pub(crate) fn schema(fields: &[&str]) -> Arc<StreamSchema> {
    let fields = fields
        .iter()
        .map(|name| {
            let field_type = if name.starts_with("note") {
                FieldType::Utf8
            } else {
                FieldType::Float64
            };
            StreamField::new(FieldName::new(name).unwrap(), field_type)
        })
        .collect();
    Arc::new(StreamSchema::new(StreamName::new("readings").unwrap(), SchemaId(1), fields).unwrap())
}

/// A stored batch of (ts, device, position) rows. Every field of number has the position as its
/// value, every text says it.
pub(crate) fn batch(schema: &StreamSchema, rows: &[(i64, &str, i64)]) -> RecordBatch {
    let ts = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0))
        .with_timezone("UTC");
    let device: DictionaryArray<Int32Type> = rows.iter().map(|row| Some(row.1)).collect();
    let position = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(ts.clone()),
        Arc::new(device),
        Arc::new(ts),
        Arc::new(position),
    ];
    columns.extend(schema.fields().iter().map(|field| match field.field_type {
        FieldType::Utf8 => Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| format!("at {}", row.2)),
        )) as ArrayRef,
        _ => Arc::new(Float64Array::from_iter_values(
            rows.iter().map(|row| row.2 as f64),
        )),
    }));
    RecordBatch::try_new(Arc::clone(schema.stored()), columns).unwrap()
}

/// Rows with these positions, of two devices.
pub(crate) fn at(schema: &StreamSchema, positions: impl IntoIterator<Item = i64>) -> RecordBatch {
    let rows: Vec<_> = positions
        .into_iter()
        .map(|at| (at * 10, if at % 2 == 0 { "even" } else { "odd" }, at))
        .collect();
    batch(schema, &rows)
}

pub(crate) fn positions_of(batches: &[RecordBatch]) -> Vec<i64> {
    batches
        .iter()
        .flat_map(|batch| {
            batch
                .column(3)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec()
        })
        .collect()
}
