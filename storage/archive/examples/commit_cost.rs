//! What a flush of one row costs at 10, 1,000 and 10,000 versions of a table, in memory and with
//! nothing merged:
//!
//! ```text
//! cargo run --release -p quiver-archive --example commit_cost
//! ```

use std::{error::Error, sync::Arc, time::Instant};

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    types::Int32Type,
};
use object_store::memory::InMemory;
use quiver_archive::{DeltaArchive, DeltaArchiveParts};
use quiver_hot::{Archive, FlushInput};
use quiver_model::{
    FieldName, FieldType, OsEntropy, Position, SchemaId, StreamField, StreamName, StreamSchema,
    SystemClock,
};

const VERSIONS: i64 = 10_050;

fn row(schema: &StreamSchema, position: i64) -> Result<RecordBatch, Box<dyn Error>> {
    let ts = TimestampMicrosecondArray::from(vec![position]).with_timezone("UTC");
    let device: DictionaryArray<Int32Type> = [Some("truck_1")].into_iter().collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ts.clone()),
        Arc::new(device),
        Arc::new(ts),
        Arc::new(Int64Array::from(vec![position])),
        Arc::new(Float64Array::from(vec![position as f64])),
    ];
    Ok(RecordBatch::try_new(schema.stored().clone(), columns)?)
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let archive = DeltaArchive::new(DeltaArchiveParts {
        store: Arc::new(InMemory::new()),
        log_id: "00112233445566778899aabbccddeeff".to_owned(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(OsEntropy),
    });
    let speed = StreamField::new(FieldName::new("speed")?, FieldType::Float64);
    let stream = StreamName::new("readings")?;
    let schema = Arc::new(StreamSchema::new(stream.clone(), SchemaId(1), vec![speed])?);
    let mut times = Vec::new();
    for position in 1..=VERSIONS {
        let input = FlushInput {
            stream: stream.clone(),
            schema: Arc::clone(&schema),
            barrier: Position(position.cast_unsigned()),
            batches: vec![row(&schema, position)?],
        };
        // Checkpoints beside it would be measured with it.
        if position % 100 == 2 {
            archive.settle().await;
        }
        let begun = now();
        archive.flush(input).await?;
        times.push(begun.elapsed());
    }
    for around in [10_usize, 1_000, 10_000] {
        let mut near = times[around.saturating_sub(40).max(5)..around + 40].to_vec();
        near.sort_unstable();
        println!("{around:>6} versions: {:?}", near[near.len() / 2]);
    }
    Ok(())
}
