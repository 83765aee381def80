//! Retention: files whose newest row is older than a stream's rows are kept leave the table, whole.
//!
//! ```text
//! files too old ─▶ rows by device, from the files ─▶ written down (durable, at position p)
//!               ─▶ one commit: remove…, txn{quiver/<log id>/retention: p} ─▶ the table without them
//! ```
//!
//! What is written down at `p` holds if and only if the table's transaction says so: the last one
//! that holds is the table's, and each names the one before it. A process that dies between writing down and
//! committing leaves a record that nothing names, and its rows in the table.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use async_trait::async_trait;
use quiver_hot::{ArchiveFile, ArchiveSnapshot};
use quiver_model::{Position, StreamName, Timestamp};

use crate::{
    ArchiveError, DeltaArchive,
    commit::Commit,
    read::{location, read_devices},
    replay::expiry_id,
    table::{Committed, next_files, write_commit},
};

/// Files that go at once, at most.
const FILES_MAX: usize = 1_000;
/// Rows of the files that go at once, at most, unless a single file has more.
const ROWS_MAX: u64 = 100_000_000;

/// What is about to leave a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryRun {
    /// The table's stream.
    pub stream: StreamName,
    /// Where the last run before it that holds is written down; 0 if there is none.
    pub previous: Position,
    /// The version of the table that it is to become.
    pub version: i64,
    /// Every row that leaves is older than this.
    pub before: Timestamp,
    /// How many files leave.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Their rows, by device.
    pub devices: BTreeMap<String, u64>,
}

/// Where it is written down what leaves tables, so that nothing is lost silently.
#[async_trait]
pub trait ExpiryBook: Send + Sync + fmt::Debug {
    /// Writes a run down; it is durable afterwards. Returns a position of its own, greater than those
    /// of the runs before.
    async fn write(
        &self,
        run: &ExpiryRun,
    ) -> Result<Position, Box<dyn std::error::Error + Send + Sync>>;
}

/// What has left a table.
#[derive(Clone, Debug)]
pub struct Expired {
    /// How many files.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// The version in force afterwards.
    pub snapshot: Arc<ArchiveSnapshot>,
}

impl DeltaArchive {
    /// Where the last retention run that holds is written down; 0 if nothing ever left the table.
    ///
    /// # Errors
    /// If the stream has no table, or its log cannot be read.
    pub async fn last_expiry(&self, stream: &StreamName) -> Result<Position, ArchiveError> {
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        Ok(self.existing(stream, &mut slot).await?.expired)
    }

    /// Removes the files whose rows are all older than `before` from a stream's table, oldest first
    /// and not more than are counted in a while; `None` if there are none. They stay on disk until a
    /// vacuum. A file that cannot be read stays.
    ///
    /// # Errors
    /// If the table cannot be read, or nothing can be written; then nothing changed, or the next call
    /// finds out that it did.
    pub async fn expire(
        &self,
        stream: &StreamName,
        before: Timestamp,
        book: &dyn ExpiryBook,
    ) -> Result<Option<Expired>, ArchiveError> {
        let _one_at_a_time = self.maintenance.lock().await;
        let (present, previous) = {
            let slot = self.slot(stream);
            let mut slot = slot.lock().await;
            let table = self.existing(stream, &mut slot).await?;
            (Arc::clone(&table.snapshot), table.expired)
        };
        let mut gone: Vec<Arc<ArchiveFile>> = Vec::new();
        let mut devices = BTreeMap::new();
        let mut rows = 0_u64;
        for file in present.files.iter().filter(|file| file.max_ts < before) {
            let is_enough = gone.len() >= FILES_MAX || rows.saturating_add(file.rows) > ROWS_MAX;
            if is_enough && !gone.is_empty() {
                break;
            }
            match self.rows_by_device(stream, file).await {
                Ok(counts) => {
                    for (device, count) in counts {
                        *devices.entry(device).or_default() += count;
                    }
                }
                Err(error) => {
                    tracing::warn!(%stream, %error, "a file is older than its rows are kept, and stays, as they cannot be counted");
                    continue;
                }
            }
            rows = rows.saturating_add(file.rows);
            gone.push(Arc::clone(file));
        }
        if gone.is_empty() {
            return Ok(None);
        }
        let run = ExpiryRun {
            stream: stream.clone(),
            previous,
            version: present.version + 1,
            before,
            files: gone.len(),
            rows,
            devices,
        };
        let failed = |problem: String| ArchiveError::Write {
            stream: stream.clone(),
            problem,
        };
        let written = book.write(&run).await;
        let position = written.map_err(|error| {
            failed(format!(
                "what leaves the table cannot be written down: {error}"
            ))
        })?;
        let snapshot = self.remove_files(stream, &gone, previous, position).await?;
        Ok(Some(Expired {
            files: gone.len(),
            rows,
            snapshot,
        }))
    }

    /// Commits that files are gone, as is written down at `position`.
    async fn remove_files(
        &self,
        stream: &StreamName,
        gone: &[Arc<ArchiveFile>],
        previous: Position,
        position: Position,
    ) -> Result<Arc<ArchiveSnapshot>, ArchiveError> {
        let failed = |problem: String| ArchiveError::Write {
            stream: stream.clone(),
            problem,
        };
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        let table = self.existing(stream, &mut slot).await?;
        // Flushes have committed meanwhile; only another writer can have removed a file.
        let present = Arc::clone(&table.snapshot);
        let is_there = |file: &Arc<ArchiveFile>| present.files.contains(file);
        if table.expired != previous || !gone.iter().all(is_there) {
            let problem = "another writer removed files that were to be removed; try again";
            return Err(failed(problem.to_owned()));
        }
        let now = self.clock.wall();
        let version = present.version + 1;
        let mut commit = Commit::default();
        commit.information("DELETE", now, false);
        commit.transaction(&expiry_id(&self.app_id), position, now);
        for file in gone {
            commit.remove(file, now, true);
        }
        table.expect(version, &[]);
        match write_commit(&*self.store, stream, version, commit).await {
            Committed::Yes => {}
            Committed::Taken => {
                let problem = "another writer committed meanwhile; try again";
                return Err(failed(problem.to_owned()));
            }
            Committed::Unknown(error) => return Err(failed(error.to_string())),
        }
        for file in gone {
            table.removed.insert(file.path.clone(), now);
        }
        table.expired = position;
        let snapshot = table.advance(ArchiveSnapshot {
            version,
            files: next_files(&present.files, gone, &[]),
            ..ArchiveSnapshot::clone(&present)
        });
        self.checkpoint_if_due(table);
        Ok(snapshot)
    }

    /// How many rows of each device a file has.
    async fn rows_by_device(
        &self,
        stream: &StreamName,
        file: &ArchiveFile,
    ) -> Result<HashMap<String, u64>, ArchiveError> {
        let path = location(stream, &file.path);
        let batches = read_devices(&*self.store, &path).await;
        let batches = batches.map_err(|error| ArchiveError::file(stream, &file.path, &error))?;
        let counts = count(&batches);
        let rows: u64 = counts.values().sum();
        if rows != file.rows {
            return Err(ArchiveError::File {
                stream: stream.clone(),
                path: file.path.clone(),
                problem: format!("it has {rows} rows, and the table says {}", file.rows),
            });
        }
        Ok(counts)
    }
}

/// Rows by device of batches whose only column is a dictionary of devices.
fn count(batches: &[RecordBatch]) -> HashMap<String, u64> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for batch in batches {
        let Some(devices) = batch
            .columns()
            .first()
            .and_then(|column| column.as_any_dictionary_opt())
        else {
            continue;
        };
        let Some(names) = devices.values().as_string_opt::<i32>() else {
            continue;
        };
        let mut rows = vec![0_u64; names.len()];
        for key in devices.normalized_keys() {
            if let Some(rows) = rows.get_mut(key) {
                *rows += 1;
            }
        }
        for (name, rows) in names.iter().zip(rows) {
            if let (Some(name), true) = (name, rows > 0) {
                *counts.entry(name.to_owned()).or_default() += rows;
            }
        }
    }
    counts
}
