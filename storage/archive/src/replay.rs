//! What a table's Delta log says, read with deltalake: when a table is opened, and when it is
//! unknown whether a commit happened. Also writes Delta checkpoints, so that both stay quick.

use std::{collections::HashMap, sync::Arc};

use deltalake_core::{
    DeltaTable, DeltaTableBuilder, DeltaTableError, checkpoints::create_checkpoint,
};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use quiver_hot::{ArchiveFile, ArchiveSnapshot};
use quiver_model::{DEVICE, POSITION, Position, QUIVER_DAY, StreamName, TS, Timestamp};
use serde_json::Value;
use url::Url;

use crate::{
    blocking::{Priority, on_own_runtime},
    schema::fields_of,
    time_text::{parse_day, parse_time},
};

/// Microseconds in a day.
const DAY_US: i64 = 86_400_000_000;
/// Some writers cut statistics to milliseconds.
const CUT_US: i64 = 999;

/// A table as its log says.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) snapshot: ArchiveSnapshot,
    /// The `metaData` action in force.
    pub(crate) metadata: Value,
    /// The version that the newest Delta checkpoint is of; 0 if there is none.
    pub(crate) checkpointed: i64,
    /// Removed files that may still be on disk, and when they were removed.
    pub(crate) removed: HashMap<String, Timestamp>,
    /// Where the last retention run is written down; 0 if there was none.
    pub(crate) expired: Position,
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// There is no log.
    #[error("it does not exist")]
    Absent,
    /// It cannot be read, or contradicts itself.
    #[error("{0}")]
    Unreadable(String),
    /// It was not written by Quiver, or was changed beyond what Quiver understands.
    #[error("{0}")]
    Foreign(String),
}

/// Names the transactions of retention runs, beside those of flushes.
pub(crate) fn expiry_id(app_id: &str) -> String {
    format!("{app_id}/retention")
}

/// The address Delta knows a table of `stream` by; only its path matters.
fn address(stream: &StreamName) -> Result<Url, ReplayError> {
    Url::parse(&format!("memory:///{stream}/"))
        .map_err(|error| ReplayError::Unreadable(error.to_string()))
}

fn unreadable(error: DeltaTableError) -> ReplayError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    ReplayError::Unreadable(text)
}

/// Reads the newest version of a stream's table in `store`, whose root is the archive's.
pub(crate) async fn replay(
    store: Arc<dyn ObjectStore>,
    stream: StreamName,
    app_id: String,
) -> Result<Replayed, ReplayError> {
    let log = Path::from_iter([stream.as_str(), "_delta_log"]);
    let mut entries = store.list(Some(&log));
    let is_entry = |name: &str| name.ends_with(".json") || name.ends_with(".parquet");
    loop {
        let entry = entries
            .try_next()
            .await
            .map_err(|error| ReplayError::Unreadable(error.to_string()))?;
        match entry {
            Some(entry) if entry.location.filename().is_some_and(is_entry) => break,
            Some(_) => {}
            None => return Err(ReplayError::Absent),
        }
    }
    // Whoever opens a table waits for it.
    let replayed = on_own_runtime(Priority::Usual, move || async move {
        let checkpointed = last_checkpoint(&*store, &stream).await;
        let table = load(store, &stream).await?;
        read(&table, stream, &app_id, checkpointed).await
    });
    replayed
        .await
        .map_err(|lost| ReplayError::Unreadable(lost.to_string()))?
}

/// Writes a Delta checkpoint of `version`.
pub(crate) async fn checkpoint(
    store: Arc<dyn ObjectStore>,
    stream: StreamName,
    version: i64,
) -> Result<(), ReplayError> {
    let written = on_own_runtime(Priority::Low, move || async move {
        let builder = DeltaTableBuilder::from_url(address(&stream)?).map_err(unreadable)?;
        let version = u64::try_from(version).unwrap_or(0);
        let table = builder
            .with_storage_backend(store, address(&stream)?)
            .with_version(version)
            .load()
            .await;
        create_checkpoint(&table.map_err(unreadable)?, None)
            .await
            .map_err(unreadable)
    });
    written
        .await
        .map_err(|lost| ReplayError::Unreadable(lost.to_string()))?
}

/// The version that the newest checkpoint is of, as Delta's hint says; 0 if there is none. It only
/// decides when the next one is written.
async fn last_checkpoint(store: &dyn ObjectStore, stream: &StreamName) -> i64 {
    let hint = Path::from_iter([stream.as_str(), "_delta_log", "_last_checkpoint"]);
    let content = match store.get(&hint).await {
        Ok(found) => found.bytes().await.ok(),
        Err(_) => None,
    };
    let hint: Option<Value> = content.and_then(|content| serde_json::from_slice(&content).ok());
    hint.and_then(|hint| hint["version"].as_i64())
        .unwrap_or(0)
        .max(0)
}

async fn load(store: Arc<dyn ObjectStore>, stream: &StreamName) -> Result<DeltaTable, ReplayError> {
    let builder = DeltaTableBuilder::from_url(address(stream)?).map_err(unreadable)?;
    builder
        .with_storage_backend(store, address(stream)?)
        .load()
        .await
        .map_err(unreadable)
}

async fn read(
    table: &DeltaTable,
    stream: StreamName,
    app_id: &str,
    checkpointed: i64,
) -> Result<Replayed, ReplayError> {
    let state = table.snapshot().map_err(unreadable)?;
    let json = |value: serde_json::Result<Value>| {
        value.map_err(|error| ReplayError::Unreadable(error.to_string()))
    };
    let protocol = json(serde_json::to_value(state.protocol()))?;
    let (reader, writer) = (
        protocol["minReaderVersion"].as_i64(),
        protocol["minWriterVersion"].as_i64(),
    );
    if reader > Some(1) || writer > Some(2) {
        return Err(ReplayError::Foreign(format!(
            "its Delta protocol was raised to reader {}, writer {}; Quiver writes 1 and 2",
            reader.unwrap_or(0),
            writer.unwrap_or(0)
        )));
    }
    let metadata = json(serde_json::to_value(state.metadata()))?;
    if metadata["partitionColumns"] != serde_json::json!([QUIVER_DAY]) {
        return Err(ReplayError::Foreign(format!(
            "it is not partitioned by {QUIVER_DAY}"
        )));
    }
    let fields = fields_of(metadata["schemaString"].as_str().unwrap_or_default())
        .map_err(ReplayError::Foreign)?;
    let log_store = table.log_store();
    let mut positions = [Position(0), Position(0)];
    for (position, app_id) in positions.iter_mut().zip([app_id, &expiry_id(app_id)]) {
        let found = state.transaction_version(log_store.as_ref(), app_id).await;
        let found = found.map_err(unreadable)?;
        *position = Position(found.map_or(0, |version| u64::try_from(version).unwrap_or(0)));
    }
    let [flushed, expired] = positions;

    let mut files = Vec::new();
    for view in state.log_data().iter() {
        let path = view.path().into_owned();
        let partitions = view.partition_values_map();
        let bytes = u64::try_from(view.size()).unwrap_or(0);
        let day = partitions
            .get(QUIVER_DAY)
            .and_then(Option::as_deref)
            .and_then(parse_day);
        let day = day.ok_or_else(|| ReplayError::Foreign(format!("its file {path} has no day")))?;
        files.push(Arc::new(describe(
            path,
            bytes,
            day,
            view.stats().as_deref(),
        )));
    }
    let mut removed = HashMap::new();
    let mut tombstones = state.all_tombstones(log_store.as_ref());
    while let Some(tombstone) = tombstones.try_next().await.map_err(unreadable)? {
        let millis = tombstone.deletion_timestamp().unwrap_or(0);
        removed.insert(
            tombstone.path().into_owned(),
            Timestamp(millis.saturating_mul(1_000)),
        );
    }

    let snapshot = ArchiveSnapshot {
        stream,
        version: i64::try_from(state.version()).unwrap_or(i64::MAX),
        flushed,
        fields: fields.into(),
        files: files.into_iter().collect(),
    };
    Ok(Replayed {
        snapshot,
        metadata,
        checkpointed,
        removed,
        expired,
    })
}

/// A file as its `add` action says. What the statistics lack is bounded by what is certain.
fn describe(path: String, bytes: u64, day: i32, statistics: Option<&str>) -> ArchiveFile {
    let statistics: Value = statistics
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let bound = |side: &str, column: &str| statistics[side][column].clone();
    let time = |side: &str| bound(side, TS).as_str().and_then(parse_time);
    let day_start = i64::from(day) * DAY_US;
    let cut = |time: Timestamp| {
        if time.0 % 1_000 == 0 {
            Timestamp(time.0.saturating_add(CUT_US))
        } else {
            time
        }
    };
    let text = |value: Value| value.as_str().map(str::to_owned);
    ArchiveFile {
        rows: statistics["numRecords"].as_u64().unwrap_or(0),
        min_ts: time("minValues").unwrap_or(Timestamp(day_start)),
        max_ts: time("maxValues").map_or(Timestamp(day_start + DAY_US - 1), cut),
        min_position: Position(bound("minValues", POSITION).as_u64().unwrap_or(0)),
        max_position: Position(
            bound("maxValues", POSITION)
                .as_u64()
                .unwrap_or(u64::MAX >> 1),
        ),
        min_device: text(bound("minValues", DEVICE)).unwrap_or_default(),
        max_device: text(bound("maxValues", DEVICE)).unwrap_or_else(|| char::MAX.to_string()),
        path,
        day,
        bytes,
    }
}
