//! The actions of a Delta commit, as the lines of its JSON file. Quiver is the only regular writer
//! of its tables, so it writes them itself, from state it keeps: the cost of a commit does not
//! depend on how many there were.

use bytes::Bytes;
use quiver_hot::ArchiveFile;
use quiver_model::{Position, QUIVER_DAY, StreamField, Timestamp};
use serde_json::{Value, json};

use crate::{encode::EncodedFile, schema::schema_string, time_text::day_text};

/// Actions of one commit.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    actions: Vec<Value>,
}

impl Commit {
    pub(crate) fn information(&mut self, operation: &str, now: Timestamp, blind_append: bool) {
        self.actions.push(json!({"commitInfo": {
            "timestamp": millis(now),
            "operation": operation,
            "operationParameters": {"mode": "Append", "partitionBy": format!("[\"{QUIVER_DAY}\"]")},
            "isBlindAppend": blind_append,
            "engineInfo": concat!("quiver/", env!("CARGO_PKG_VERSION")),
        }}));
    }

    /// The lowest protocol there is: every reader of Delta reads it.
    pub(crate) fn protocol(&mut self) {
        self.actions
            .push(json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}));
    }

    pub(crate) fn metadata(&mut self, metadata: &Value) {
        self.actions.push(json!({"metaData": metadata}));
    }

    /// That everything up to `flushed` of this log is in the table.
    pub(crate) fn transaction(&mut self, app_id: &str, flushed: Position, now: Timestamp) {
        self.actions.push(json!({"txn": {
            "appId": app_id,
            "version": i64::try_from(flushed.get()).unwrap_or(i64::MAX),
            "lastUpdated": millis(now),
        }}));
    }

    pub(crate) fn add(&mut self, encoded: &EncodedFile, now: Timestamp, data_change: bool) {
        self.actions.push(json!({"add": {
            "path": encoded.file.path,
            "partitionValues": {QUIVER_DAY: day_text(encoded.file.day)},
            "size": encoded.file.bytes,
            "modificationTime": millis(now),
            "dataChange": data_change,
            "stats": encoded.statistics,
        }}));
    }

    pub(crate) fn remove(&mut self, file: &ArchiveFile, now: Timestamp, data_change: bool) {
        self.actions.push(json!({"remove": {
            "path": file.path,
            "deletionTimestamp": millis(now),
            "dataChange": data_change,
            "extendedFileMetadata": true,
            "partitionValues": {QUIVER_DAY: day_text(file.day)},
            "size": file.bytes,
        }}));
    }

    /// One action a line.
    pub(crate) fn into_bytes(self) -> Bytes {
        let mut text = String::new();
        for action in self.actions {
            text.push_str(&action.to_string());
            text.push('\n');
        }
        Bytes::from(text)
    }
}

/// The `metaData` of a new table.
pub(crate) fn new_metadata(id: &str, fields: &[StreamField], now: Timestamp) -> Value {
    json!({
        "id": id,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema_string(fields),
        "partitionColumns": [QUIVER_DAY],
        "configuration": {},
        "createdTime": millis(now),
    })
}

/// The `metaData` of a table that got more fields; all else stays.
pub(crate) fn grown_metadata(metadata: &Value, fields: &[StreamField]) -> Value {
    let mut grown = metadata.clone();
    grown["schemaString"] = Value::String(schema_string(fields));
    grown
}

/// File name of a version's commit in `_delta_log`.
pub(crate) fn commit_name(version: i64) -> String {
    format!("{version:020}.json")
}

fn millis(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1_000)
}
