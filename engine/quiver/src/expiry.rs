//! What leaves the archive because it is older than it is kept: how it is written down in the log,
//! and read again by an audit.
//!
//! ```text
//! archive ─▶ ExpiryRun ─▶ control records "retention_applied": parts, then the run's own
//!                                                                 │ table quiver_control
//! audit ◀─ rows by device of the runs that the tables name ◀──────┘
//! ```
//!
//! A run with many devices takes several records, tied together by a random number. The last is the
//! run's own: its position is what the table's Delta log names if the run was carried out, and it names the
//! run before it. Runs that no table names were not carried out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow_array::{RecordBatch, cast::AsArray, types::Int64Type};
use async_trait::async_trait;
use futures::StreamExt;
use quiver_archive::{DeltaArchive, ExpiryBook, ExpiryRun};
use quiver_model::{Entropy, OsEntropy, Position, StreamName};
use quiver_query::{QueryEngine, QueryError};
use quiver_runtime::Engine;
use serde::{Deserialize, Serialize};

use crate::tally::text;

/// Devices that a record tells of, at most.
const DEVICES_MAX: usize = 20_000;

/// The body of a record.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
    /// Ties the records of a run together.
    run: String,
    /// Of the last record of a run only.
    #[serde(flatten)]
    seal: Option<Seal>,
    /// Rows by device.
    devices: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    stream: String,
    /// Version of the table that this was to become.
    version: i64,
    /// Rows were older than this.
    before: String,
    files: usize,
    rows: u64,
    /// Position of the run before it; 0 if there was none.
    previous: u64,
}

/// Writes down in an engine's log.
#[derive(Clone)]
pub struct ExpiryLog(Arc<Engine>);

impl ExpiryLog {
    /// In this engine's.
    pub const fn new(engine: Arc<Engine>) -> Self {
        Self(engine)
    }
}

impl std::fmt::Debug for ExpiryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExpiryLog")
    }
}

#[async_trait]
impl ExpiryBook for ExpiryLog {
    async fn write(
        &self,
        run: &ExpiryRun,
    ) -> Result<Position, Box<dyn std::error::Error + Send + Sync>> {
        let mut last = Position(0);
        for body in bodies(run, OsEntropy.next_u64()) {
            last = self.0.note_expiry(serde_json::to_string(&body)?).await?;
        }
        Ok(last)
    }
}

/// The records of a run, the last of which is its own.
fn bodies(run: &ExpiryRun, number: u64) -> Vec<Body> {
    let mut bodies: Vec<Body> = Vec::new();
    for (device, rows) in &run.devices {
        match bodies.last_mut() {
            Some(body) if body.devices.len() < DEVICES_MAX => {
                body.devices.insert(device.clone(), *rows);
            }
            _ => bodies.push(Body {
                run: format!("{number:016x}"),
                seal: None,
                devices: BTreeMap::from([(device.clone(), *rows)]),
            }),
        }
    }
    if let Some(last) = bodies.last_mut() {
        last.seal = Some(Seal {
            stream: run.stream.to_string(),
            version: run.version,
            before: run.before.to_string(),
            files: run.files,
            rows: run.rows,
            previous: run.previous.get(),
        });
    }
    bodies
}

/// Rows that have left the archive, by device. The archive must not change meanwhile.
///
/// # Errors
/// If the control records cannot be read.
pub async fn expired(
    queries: &QueryEngine,
    archive: &DeltaArchive,
    streams: &[String],
) -> Result<BTreeMap<String, u64>, QueryError> {
    let mut book = Book::default();
    if !streams.iter().any(|stream| stream == "quiver_control") {
        return Ok(BTreeMap::new());
    }
    let sql = "SELECT position, body FROM quiver_control WHERE kind = 'retention_applied'";
    let mut result = queries.query(sql).await?;
    while let Some(batch) = result.next().await {
        book.read(&batch?);
    }
    let mut expired = BTreeMap::new();
    for stream in streams {
        let Ok(stream) = StreamName::new(stream) else {
            continue;
        };
        // A table that cannot be read is told by the audit itself.
        let Ok(last) = archive.last_expiry(&stream).await else {
            continue;
        };
        book.add(last.get(), &mut expired);
    }
    Ok(expired)
}

/// What control records tell of runs.
#[derive(Default)]
struct Book {
    /// Runs by position: their number, and the position of the run before.
    seals: HashMap<u64, (String, u64)>,
    /// Rows by device, by the run's number.
    devices: HashMap<String, BTreeMap<String, u64>>,
}

impl Book {
    fn read(&mut self, batch: &RecordBatch) {
        let positions = batch.column(0).as_primitive_opt::<Int64Type>();
        let (Some(positions), Some(bodies)) = (positions, text(batch.column(1))) else {
            return;
        };
        for (position, body) in positions.iter().zip(bodies.iter()) {
            let (Some(position), Some(body)) = (position, body) else {
                continue;
            };
            match serde_json::from_str::<Body>(body) {
                Ok(body) => self.note(position.cast_unsigned(), body),
                Err(error) => {
                    tracing::warn!(position, %error, "a record of what left the archive cannot be read");
                }
            }
        }
    }

    fn note(&mut self, position: u64, body: Body) {
        let sum = self.devices.entry(body.run.clone()).or_default();
        for (device, rows) in body.devices {
            *sum.entry(device).or_default() += rows;
        }
        if let Some(seal) = body.seal {
            self.seals.insert(position, (body.run, seal.previous));
        }
    }

    /// Adds the rows of the run at `last`, and of those before it.
    fn add(&self, last: u64, to: &mut BTreeMap<String, u64>) {
        let mut at = last;
        while let Some((run, previous)) = self.seals.get(&at) {
            for (device, rows) in self.devices.get(run).into_iter().flatten() {
                *to.entry(device.clone()).or_default() += rows;
            }
            // Runs name earlier ones: whatever is stored, this ends.
            if *previous >= at {
                return;
            }
            at = *previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use quiver_model::Timestamp;

    use super::*;

    fn run(devices: usize, previous: u64) -> ExpiryRun {
        ExpiryRun {
            stream: StreamName::new("readings").unwrap(),
            previous: Position(previous),
            version: 7,
            before: Timestamp(0),
            files: 1,
            rows: devices as u64,
            devices: (0..devices)
                .map(|number| (format!("truck_{number}"), 1))
                .collect(),
        }
    }

    /// Writes records down as the log would, from a position on; the last one's position.
    fn write(book: &mut Book, from: u64, run: &ExpiryRun, number: u64) -> u64 {
        let mut position = from;
        for body in bodies(run, number) {
            let text = serde_json::to_string(&body).unwrap();
            position += 1;
            book.note(position, serde_json::from_str(&text).unwrap());
        }
        position
    }

    #[test]
    fn only_runs_that_the_table_names_count_however_many_records_they_take() {
        let mut book = Book::default();
        let first = write(&mut book, 10, &run(DEVICES_MAX + 5, 0), 1);
        assert_eq!(first, 12);
        // Written down, and never carried out.
        write(&mut book, 20, &run(3, first), 2);
        let second = write(&mut book, 30, &run(4, first), 3);
        let mut expired = BTreeMap::new();
        book.add(second, &mut expired);
        assert_eq!(expired.len(), DEVICES_MAX + 5);
        assert_eq!(expired.values().sum::<u64>(), DEVICES_MAX as u64 + 5 + 4);
        assert_eq!(expired["truck_0"], 2);
        let mut nothing = BTreeMap::new();
        book.add(0, &mut nothing);
        assert!(nothing.is_empty());
    }
}
