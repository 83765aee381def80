//! Reads back everything that an engine has, the way a query does: at one position, over archive
//! and memory.

use std::time::Duration;

use arrow_array::{
    Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    cast::AsArray, types::Int32Type,
};
use quiver_hot::{MemoryArchive, Tables};
use quiver_model::{Position, StreamName};
use quiver_runtime::Engine;

use crate::model::{Contents, RejectRow, StoredRow, seen_of};

fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> &'a T {
    let column = batch.column_by_name(name);
    let column = column.unwrap_or_else(|| panic!("column {name} of {:?}", batch.schema()));
    column.as_any().downcast_ref().unwrap()
}

fn devices(batch: &RecordBatch) -> Vec<String> {
    let column = batch.column_by_name("device").unwrap();
    let names = column.as_dictionary::<Int32Type>();
    let names = names.downcast_dict::<StringArray>().unwrap();
    names
        .into_iter()
        .map(|name| name.unwrap().to_owned())
        .collect()
}

/// The rows of a batch of a device's stream.
pub fn stored_rows(stream: &StreamName, batch: &RecordBatch) -> Vec<StoredRow> {
    let ts: &TimestampMicrosecondArray = column(batch, "ts");
    let position: &Int64Array = column(batch, "position");
    let id: &Int64Array = column(batch, "batch");
    let row: &Int64Array = column(batch, "row");
    let value: &Float64Array = column(batch, "value");
    let seen: &TimestampMicrosecondArray = column(batch, "seen");
    for (index, seen) in seen.iter().enumerate() {
        let sent = seen_of(id.value(index), row.value(index));
        assert_eq!(seen, sent.map(|seconds| seconds * 1_000_000));
    }
    let devices = devices(batch).into_iter().enumerate();
    devices
        .map(|(index, device)| StoredRow {
            ts: ts.value(index),
            position: position.value(index),
            stream: stream.to_string(),
            device,
            batch: id.value(index),
            row: row.value(index),
            value: value.value(index).to_string(),
        })
        .collect()
}

/// The number behind `"batch":` in what was kept of a refused row.
fn batch_in(payload: &str) -> i64 {
    let digits = payload.split("\"batch\":").nth(1).unwrap_or_default();
    let digits: String = digits
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let parsed = digits.parse();
    parsed.unwrap_or_else(|_| panic!("a reject says whose it is: {payload}"))
}

fn reject_rows(batch: &RecordBatch) -> Vec<RejectRow> {
    let position: &Int64Array = column(batch, "position");
    let rows: &Int64Array = column(batch, "rows");
    let payload: &StringArray = column(batch, "payload");
    let quarantined: &arrow_array::BooleanArray = column(batch, "quarantined");
    let devices = devices(batch).into_iter().enumerate();
    devices
        .map(|(index, device)| RejectRow {
            position: position.value(index),
            device,
            batch: batch_in(payload.value(index)),
            rows: rows.value(index) as u64,
            quarantined: quarantined.value(index),
        })
        .collect()
}

fn up_to(batch: &RecordBatch, limit: Position) -> RecordBatch {
    let position: &Int64Array = column(batch, "position");
    let end = position
        .values()
        .partition_point(|at| *at as u64 <= limit.get());
    assert!(position.values().is_sorted(), "positions ascend in a file");
    batch.slice(0, end)
}

/// Everything in the tables as of `q`, which every shard must have applied.
pub fn read(tables: &Tables, archive: &MemoryArchive, q: Position) -> Contents {
    let mut contents = Contents::default();
    for table in tables.all() {
        let name = table.name().clone();
        let snapshot = table.snapshot(q).unwrap();
        let archived = archive.rows(&snapshot.archived).into_iter().map(|batch| {
            match snapshot.archived_limit {
                Some(limit) => up_to(&batch, limit),
                None => batch,
            }
        });
        for batch in archived.chain(snapshot.hot.iter().cloned()) {
            if name == StreamName::rejects() {
                contents.rejects.extend(reject_rows(&batch));
            } else if !name.is_reserved() {
                contents.rows.extend(stored_rows(&name, &batch));
            }
        }
    }
    let beyond = |position: i64| position as u64 > q.get();
    assert!(!contents.rows.iter().any(|row| beyond(row.position)));
    assert!(!contents.rejects.iter().any(|row| beyond(row.position)));
    contents
}

/// What a query that starts now sees.
pub async fn read_now(engine: &Engine, archive: &MemoryArchive) -> Contents {
    let q = engine.progress().committed();
    let applied = engine.progress().wait_applied(q);
    let in_time = tokio::time::timeout(Duration::from_secs(5), applied).await;
    in_time.expect("shards apply what is committed without waiting");
    read(engine.tables(), archive, q)
}
