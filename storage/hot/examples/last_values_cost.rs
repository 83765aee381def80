//! What updating last values costs, for batches of 1, 100 and 1,000 rows of one device, and of as
//! many devices; with few devices known and with many. `cargo run --release -p quiver-hot
//! --example last_values_cost -- 500000`. Compare two builds only by runs that take turns.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "an example that measures, on the real clock"
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, types::Int32Type,
};
use quiver_hot::LastValues;
use quiver_model::{
    FieldName, FieldType, SchemaId, ShardId, StreamField, StreamName, StreamSchema,
};

const FIELDS: usize = 10;

fn schema() -> StreamSchema {
    let field = |index| {
        StreamField::new(
            FieldName::new(&format!("f{index}")).unwrap(),
            FieldType::Float64,
        )
    };
    let stream = StreamName::new("readings").unwrap();
    StreamSchema::new(stream, SchemaId(1), (0..FIELDS).map(field).collect()).unwrap()
}

fn batch(schema: &StreamSchema, ts: i64, devices: &[String], rows: usize) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|row| ts + row as i64))
        .with_timezone("UTC");
    let keys = Int32Array::from_iter_values((0..rows).map(|row| (row % devices.len()) as i32));
    let names = StringArray::from_iter_values(devices);
    let device = DictionaryArray::<Int32Type>::try_new(keys, Arc::new(names)).unwrap();
    let positions = Int64Array::from_iter_values((0..rows).map(|row| ts + row as i64));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(times.clone()),
        Arc::new(device),
        Arc::new(times),
        Arc::new(positions),
    ];
    for field in 0..FIELDS {
        let values = (0..rows).map(|row| (field * row) as f64);
        columns.push(Arc::new(Float64Array::from_iter_values(values)));
    }
    RecordBatch::try_new(Arc::clone(schema.stored()), columns).unwrap()
}

fn main() {
    let known: usize = std::env::args()
        .nth(1)
        .map_or(100_000, |count| count.parse().unwrap());
    let schema = schema();
    for known in [100, known] {
        let values = LastValues::new(1);
        let names: Vec<String> = (0..known)
            .map(|index| format!("device-{index:06}"))
            .collect();
        let mut ts = 1;
        let mut slowest = Duration::ZERO;
        let begun = Instant::now();
        for names in names.chunks(100) {
            let batch = batch(&schema, ts, names, names.len());
            let begun = Instant::now();
            values.update(ShardId(0), schema.stream(), &batch).unwrap();
            slowest = slowest.max(begun.elapsed());
        }
        println!(
            "{known} devices made known in {:?}, slowest batch of 100 {slowest:?}, {} bytes each",
            begun.elapsed(),
            values.bytes() / known
        );
        for (rows, devices) in [(1, 1), (100, 1), (1_000, 1), (100, 100), (1_000, 1_000)] {
            let mut batches = Vec::new();
            let mut at = 7;
            while batches.len() < 400 {
                at = (at + 7_919 * devices) % known;
                let names: Vec<String> = (0..devices)
                    .map(|index| names[(at + index * 31) % known].clone())
                    .collect();
                ts += 10_000;
                batches.push(batch(&schema, ts, &names, rows));
            }
            let begun = Instant::now();
            for batch in &batches {
                values
                    .update(ShardId(0), schema.stream(), black_box(batch))
                    .unwrap();
            }
            let each = begun.elapsed() / batches.len() as u32;
            println!("  {rows:>5} rows of {devices:>5} devices: {each:?} a batch");
        }
    }
}
