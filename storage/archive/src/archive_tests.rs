//! What the archive promises, against real files in temporary directories.

use std::{
    collections::BTreeSet,
    fs,
    path::Path as FsPath,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, path::Path,
};
use quiver_hot::{Archive, ArchiveSnapshot, FlushError, FlushInput};
use quiver_model::{
    Clock, FieldName, FieldType, OsEntropy, Position, SchemaId, StreamField, StreamName,
    StreamSchema, SystemClock,
};

use crate::{
    ArchiveError, CompactOptions, DeltaArchive, DeltaArchiveParts, Directory, DurableStore,
    Problem, VacuumOptions,
};

#[path = "archive_tests/commits.rs"]
mod commits;
#[path = "archive_tests/decimals.rs"]
mod decimals;
#[path = "archive_tests/flushing.rs"]
mod flushing;
#[path = "archive_tests/keeping.rs"]
mod keeping;
#[path = "archive_tests/many_days.rs"]
mod many_days;
#[path = "archive_tests/outcomes.rs"]
mod outcomes;
#[path = "archive_tests/times.rs"]
mod times;
#[path = "archive_tests/trouble.rs"]
mod trouble;

use trouble::{Trouble, troubled};

const DAY_US: i64 = 86_400_000_000;
const LOG: &str = "00112233445566778899aabbccddeeff";

/// (ts, device, position, speed): what a row is in these tests.
type Row = (i64, String, i64, Option<u64>);

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn older_than(older_than: Duration) -> VacuumOptions {
    VacuumOptions {
        older_than,
        ..VacuumOptions::default()
    }
}

fn schema(name: &str, fields: &[&str]) -> Arc<StreamSchema> {
    let fields = fields
        .iter()
        .map(|field| StreamField::new(FieldName::new(field).unwrap(), FieldType::Float64))
        .collect();
    Arc::new(StreamSchema::new(stream(name), SchemaId(1), fields).unwrap())
}

/// A stored batch of (ts, device, position) rows; every field has the position as its value, or
/// null where the position is divisible by 7.
fn batch(schema: &StreamSchema, rows: &[(i64, &str, i64)]) -> RecordBatch {
    let ts = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0))
        .with_timezone("UTC");
    let device: DictionaryArray<Int32Type> = rows.iter().map(|row| Some(row.1)).collect();
    let position = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let value: Float64Array = rows
        .iter()
        .map(|row| (row.2 % 7 != 0).then_some(row.2 as f64 / 2.0))
        .collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(ts.clone()),
        Arc::new(device),
        Arc::new(ts),
        Arc::new(position),
    ];
    columns.extend(
        schema
            .fields()
            .iter()
            .map(|_| Arc::new(value.clone()) as ArrayRef),
    );
    RecordBatch::try_new(Arc::clone(schema.stored()), columns).unwrap()
}

fn input(schema: &Arc<StreamSchema>, barrier: u64, batches: Vec<RecordBatch>) -> FlushInput {
    FlushInput {
        stream: schema.stream().clone(),
        schema: Arc::clone(schema),
        barrier: Position(barrier),
        batches,
    }
}

/// `count` rows from position `first` on, over `devices` devices and `days` days.
fn rows(first: i64, count: i64, devices: i64, days: i64) -> Vec<(i64, String, i64)> {
    (first..first + count)
        .map(|position| {
            // Neither devices nor times are in order.
            let ts = (position * 7_919 % (days * 1_000)) * (DAY_US / 1_000) + position;
            (ts, format!("truck_{}", position % devices), position)
        })
        .collect()
}

fn batch_of(schema: &StreamSchema, rows: &[(i64, String, i64)]) -> RecordBatch {
    let rows: Vec<(i64, &str, i64)> = rows
        .iter()
        .map(|row| (row.0, row.1.as_str(), row.2))
        .collect();
    batch(schema, &rows)
}

fn archive(directory: &FsPath) -> DeltaArchive {
    DeltaArchive::local(
        directory,
        LOG,
        Arc::new(SystemClock::new()),
        Arc::new(OsEntropy),
    )
    .unwrap()
}

async fn read(archive: &DeltaArchive, snapshot: &ArchiveSnapshot) -> Vec<RecordBatch> {
    let layout = crate::read::stored_schema(&snapshot.stream, &snapshot.fields).unwrap();
    let mut batches = Vec::new();
    for file in snapshot.files.iter() {
        let location = crate::read::location(&snapshot.stream, &file.path);
        batches.extend(
            crate::read::read_file(&*archive.store, &location, layout.clone())
                .await
                .unwrap(),
        );
    }
    batches
}

fn to_rows(batches: &[RecordBatch]) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let ts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let device = batch
            .column(1)
            .as_dictionary::<Int32Type>()
            .downcast_dict::<StringArray>()
            .unwrap();
        let position = batch.column(3).as_primitive::<Int64Type>();
        let speed = batch.column(4).as_primitive::<Float64Type>();
        for (row, name) in device.into_iter().enumerate() {
            let speed = speed.is_valid(row).then(|| speed.value(row).to_bits());
            rows.push((
                ts.value(row),
                name.unwrap().to_owned(),
                position.value(row),
                speed,
            ));
        }
    }
    rows
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

async fn all(archive: &DeltaArchive, snapshot: &ArchiveSnapshot) -> Vec<Row> {
    sorted(to_rows(&read(archive, snapshot).await))
}
