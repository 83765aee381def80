//! Keeps an archive in shape while the engine runs: removes what is older than it is kept, merges
//! files in tiers, so that their number stays small over months, and deletes what retention and
//! merging left once nobody can need it.
//!
//! ```text
//! every minute:  for each stream ─▶ what is too old ─▶ written down, one commit ─▶ the table that queries see
//!                for each stream ─▶ what is due (tiers) ─▶ one merge, one commit ─▶ the table that queries see
//! every hour:    for each stream ─▶ vacuum: files removed more than 7 days ago, without a lease
//! ```
//!
//! It goes slowly on purpose: one merge at a time in the whole archive, and after each a pause of
//! three times what the merge took: at most a quarter of one core. Flushes wait for it only while it commits. When it is stopped in the
//! middle of a merge, what it wrote was never listed, and a later vacuum deletes it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::select;
use quiver_hot::{ArchiveFile, ArchiveSnapshot, FileList, StreamTable, Tables};
use quiver_model::{FieldType, StreamField, StreamName, Timestamp};
use tokio::sync::Notify;

use crate::{
    ArchiveError, DeltaArchive, Expired, ExpiryBook, MergeLimits, Retention, VacuumOptions,
    retention::part, tiers::due,
};

/// First and longest pause of a stream whose merge failed.
const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// Pause after a merge, in multiples of the time it took, and the longest.
const REST: u32 = 3;
const REST_MAX: Duration = Duration::from_secs(60);
/// Least time for which readers outside may go on with files that left a table.
const GRACE_MIN: Duration = Duration::from_secs(3_600);
/// Bytes of memory of a row without its fields, and of a value: text is a guess.
const ROW_BYTES: u64 = 40;
const NUMBER_BYTES: u64 = 8;
const TEXT_BYTES: u64 = 40;

/// How an archive is kept in shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaintenanceOptions {
    /// Time between two looks for something to merge, or to remove. Default 1 minute.
    pub merge_every: Duration,
    /// Whether files are merged. Default yes.
    pub is_merging: bool,
    /// Time between two looks for something to delete. Default 1 hour.
    pub vacuum_every: Duration,
    /// How large merged files may become. Default 64 MiB and 4 million rows.
    pub limits: MergeLimits,
    /// How much memory the rows of a merge may take: streams of many fields get smaller merges than
    /// `limits` allow, and files of long texts are left as they are. Default 256 MiB.
    pub memory_bytes: u64,
    /// What is deleted. Default: what was replaced 7 days ago.
    pub vacuum: VacuumOptions,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            merge_every: Duration::from_secs(60),
            is_merging: true,
            vacuum_every: Duration::from_secs(3_600),
            limits: MergeLimits {
                bytes: 64 << 20,
                rows: 4_000_000,
                span: i64::MAX,
            },
            memory_bytes: 256 << 20,
            vacuum: VacuumOptions::default(),
        }
    }
}

impl MaintenanceOptions {
    fn limits_for(&self, fields: &[StreamField]) -> MergeLimits {
        MergeLimits {
            rows: self.limits.rows.min(rows_within(self.memory_bytes, fields)),
            ..self.limits
        }
    }
}

/// How many rows with these fields take so much memory, about; at least 2.
pub(crate) fn rows_within(memory_bytes: u64, fields: &[StreamField]) -> u64 {
    let width = |field: &StreamField| match field.field_type {
        FieldType::Utf8 => TEXT_BYTES,
        _ => NUMBER_BYTES,
    };
    let row: u64 = ROW_BYTES + fields.iter().map(width).sum::<u64>();
    (memory_bytes / row).max(2)
}

/// What was done since the start.
#[derive(Debug, Default)]
struct Counters {
    merges: AtomicU64,
    merged_files: AtomicU64,
    merged_rows: AtomicU64,
    merged_bytes: AtomicU64,
    deleted_files: AtomicU64,
    deleted_bytes: AtomicU64,
    expired_files: AtomicU64,
    expired_rows: AtomicU64,
    failures: AtomicU64,
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceTotals {
    /// Merges that were committed.
    pub merges: u64,
    /// Files that they replaced.
    pub merged_files: u64,
    /// Rows that they wrote again.
    pub merged_rows: u64,
    /// Bytes that they wrote.
    pub merged_bytes: u64,
    /// Replaced or left files that were deleted.
    pub deleted_files: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Files that were removed because their rows were older than they are kept.
    pub expired_files: u64,
    /// Their rows.
    pub expired_rows: u64,
    /// Merges, removals and deletions that failed, and are tried again.
    pub failures: u64,
}

/// A stream that is left alone for a while.
#[derive(Clone, Copy, Debug)]
struct Penalty {
    until: Duration,
    pause: Duration,
}

/// Keeps one archive in shape.
#[derive(Debug)]
pub struct Maintenance {
    archive: Arc<DeltaArchive>,
    tables: Arc<Tables>,
    options: MaintenanceOptions,
    counters: Counters,
    penalties: Mutex<HashMap<StreamName, Penalty>>,
    retention: Arc<Retention>,
    book: Arc<dyn ExpiryBook>,
    /// When each stream was last looked through for what is too old.
    looked: Mutex<HashMap<StreamName, Duration>>,
    /// Files whose rows take too much memory to be merged with any other, as was found out.
    too_large: Mutex<HashSet<String>>,
    /// Files of merges that failed: the others go first.
    failing: Mutex<HashSet<String>>,
    is_stopped: AtomicBool,
    stop: Notify,
}

impl Maintenance {
    /// For `archive`, whose files queries read through `tables`. What leaves it by `retention` is
    /// written into `book`. Does nothing until [`Self::run`].
    pub fn new(
        archive: Arc<DeltaArchive>,
        tables: Arc<Tables>,
        options: MaintenanceOptions,
        retention: Arc<Retention>,
        book: Arc<dyn ExpiryBook>,
    ) -> Arc<Self> {
        Arc::new(Self {
            archive,
            tables,
            options,
            counters: Counters::default(),
            penalties: Mutex::default(),
            retention,
            book,
            looked: Mutex::default(),
            too_large: Mutex::default(),
            failing: Mutex::default(),
            is_stopped: AtomicBool::new(false),
            stop: Notify::new(),
        })
    }

    /// How much memory the rows of a merge may take, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.options.memory_bytes
    }

    /// What was done since the start.
    pub fn totals(&self) -> MaintenanceTotals {
        let Counters {
            merges,
            merged_files,
            merged_rows,
            merged_bytes,
            deleted_files,
            deleted_bytes,
            expired_files,
            expired_rows,
            failures,
        } = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MaintenanceTotals {
            merges: get(merges),
            merged_files: get(merged_files),
            merged_rows: get(merged_rows),
            merged_bytes: get(merged_bytes),
            deleted_files: get(deleted_files),
            deleted_bytes: get(deleted_bytes),
            expired_files: get(expired_files),
            expired_rows: get(expired_rows),
            failures: get(failures),
        }
    }

    /// Ends [`Self::run`], also in the middle of a merge: nothing of it is listed then.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.stop.notify_one();
    }

    /// Merges and deletes until stopped. Needs a runtime with time.
    pub async fn run(self: Arc<Self>) {
        let work = std::pin::pin!(self.work());
        let stopped = std::pin::pin!(self.stop.notified());
        if !self.is_stopped.load(Ordering::SeqCst) {
            select(stopped, work).await;
        }
    }

    async fn work(&self) {
        let clock = &self.archive.clock;
        // Soon after the start, in case the engine is never up for so long.
        let mut vacuumed: Option<Duration> = None;
        loop {
            tokio::time::sleep(self.options.merge_every).await;
            self.expiry_round().await;
            loop {
                let merges = if self.options.is_merging {
                    self.merge_round().await
                } else {
                    0
                };
                // However much there is to be merged: that makes files to be deleted.
                let is_due = vacuumed.is_none_or(|vacuumed| {
                    clock.monotonic().saturating_sub(vacuumed) >= self.options.vacuum_every
                });
                if is_due {
                    self.vacuum_round().await;
                    vacuumed = Some(clock.monotonic());
                }
                if merges == 0 {
                    break;
                }
            }
        }
    }

    /// The streams that have a table.
    fn streams(&self) -> Vec<Arc<StreamTable>> {
        let mut tables = self.tables.all();
        tables.retain(|table| table.state().archived().version >= 0);
        tables
    }

    /// Those of them whose merge has not failed just now.
    fn streams_to_merge(&self) -> Vec<Arc<StreamTable>> {
        let now = self.archive.clock.monotonic();
        let penalties = self
            .penalties
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut tables = self.streams();
        tables.retain(|table| {
            penalties
                .get(table.name())
                .is_none_or(|penalty| penalty.until <= now)
        });
        tables
    }

    fn succeeded(&self, stream: &StreamName) {
        self.penalties
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(stream);
    }

    fn failed(&self, stream: &StreamName, what: &str, error: &dyn std::fmt::Display) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let now = self.archive.clock.monotonic();
        let mut penalties = self
            .penalties
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let pause = match penalties.get(stream) {
            Some(penalty) => (penalty.pause * 2).min(RETRY_MAX),
            None => RETRY_MIN,
        };
        let until = now + pause;
        penalties.insert(stream.clone(), Penalty { until, pause });
        tracing::warn!(%stream, %error, again_in_s = pause.as_secs(), "{what}; nothing is lost, and it is tried again");
    }

    /// One merge at most of each stream; how many there were.
    pub(crate) async fn merge_round(&self) -> usize {
        let clock = &self.archive.clock;
        let mut merges = 0;
        for table in self.streams_to_merge() {
            let begun = clock.monotonic();
            match self.merge(&table).await {
                Ok(false) => {}
                Ok(true) => {
                    merges += 1;
                    self.succeeded(table.name());
                    // Flushes and queries have the machine meanwhile.
                    let took = clock.monotonic().saturating_sub(begun);
                    tokio::time::sleep((took * REST).min(REST_MAX)).await;
                }
                Err(error) => {
                    self.failed(table.name(), "files could not be merged", &error);
                }
            }
        }
        merges
    }

    fn without_too_large(&self, files: &FileList) -> Vec<Arc<ArchiveFile>> {
        let too_large = self
            .too_large
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let files = files.iter();
        files
            .filter(|file| !too_large.contains(&file.path))
            .cloned()
            .collect()
    }

    fn without_failing(&self, files: &[Arc<ArchiveFile>]) -> Vec<Arc<ArchiveFile>> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.iter();
        files
            .filter(|file| !failing.contains(&file.path))
            .cloned()
            .collect()
    }

    async fn merge(&self, table: &StreamTable) -> Result<bool, ArchiveError> {
        let stream = table.name();
        let _one_at_a_time = self.archive.maintenance.lock().await;
        let present = self.archive.snapshot(stream).await?;
        let mut limits = self.options.limits_for(&present.fields);
        if let Some(span) = self.retention.span(stream) {
            limits.span = i64::try_from(part(span).as_micros()).unwrap_or(i64::MAX);
        }
        let now = self.archive.clock.wall();
        let files = self.without_too_large(&present.files);
        let mut merges = due(&self.without_failing(&files), now, limits);
        if merges.is_empty() {
            // What has failed before gets its turn again.
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            failing.retain(|path| files.iter().all(|file| file.path != *path));
            drop(failing);
            merges = due(&files, now, limits);
        }
        // The newest day is what queries ask for most.
        let Some(merge) = merges.pop() else {
            return Ok(false);
        };
        let paths: Vec<String> = merge.iter().map(|file| file.path.clone()).collect();
        let merged = self
            .archive
            .merge_files(stream, &present, vec![merge], self.options.memory_bytes)
            .await;
        let (report, too_large) = match merged {
            Ok(merged) => merged,
            Err(error) => {
                // The other days go first from now on.
                let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
                failing.extend(paths);
                return Err(error);
            }
        };
        self.too_large
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(too_large);
        if report.removed == 0 {
            return Ok(false);
        }
        tracing::debug!(%stream, removed = report.removed, added = report.added, version = report.snapshot.version, "files merged");
        let count = |counter: &AtomicU64, by: u64| counter.fetch_add(by, Ordering::Relaxed);
        count(&self.counters.merges, 1);
        count(&self.counters.merged_files, report.removed as u64);
        count(&self.counters.merged_rows, report.rows);
        count(&self.counters.merged_bytes, report.bytes);
        install(table, report.snapshot)?;
        Ok(true)
    }

    /// Removes what is older than it is kept, of each stream that was not looked through just now.
    pub(crate) async fn expiry_round(&self) {
        for (stream, span) in &*self.retention.spans() {
            let now = self.archive.clock.monotonic();
            let is_due = {
                let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
                let looked = looked.get(stream);
                looked.is_none_or(|looked| now.saturating_sub(*looked) >= part(*span))
            };
            let Some(table) = self.tables.table(stream).filter(|_| is_due) else {
                continue;
            };
            if table.state().archived().version < 0 {
                continue;
            }
            let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
            let wall = self.archive.clock.wall().as_micros();
            let before = Timestamp(wall.saturating_sub(span));
            match self.expire(&table, before).await {
                Ok(()) => {
                    let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
                    looked.insert(stream.clone(), now);
                }
                Err(error) => {
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%stream, %error, "rows that are older than they are kept could not be removed; it is tried again in a minute");
                }
            }
        }
    }

    async fn expire(&self, table: &StreamTable, before: Timestamp) -> Result<(), ArchiveError> {
        let stream = table.name();
        while let Some(expired) = self.archive.expire(stream, before, &*self.book).await? {
            let Expired {
                files,
                rows,
                snapshot,
            } = expired;
            tracing::info!(%stream, files, rows, %before, version = snapshot.version, "rows older than they are kept were removed");
            let count = |counter: &AtomicU64, by: u64| counter.fetch_add(by, Ordering::Relaxed);
            count(&self.counters.expired_files, files as u64);
            count(&self.counters.expired_rows, rows);
            install(table, snapshot)?;
        }
        Ok(())
    }

    /// What is deleted of a stream: where rows are kept for a short time only, what left its table
    /// does not stay much longer.
    fn vacuum_options(&self, stream: &StreamName) -> VacuumOptions {
        let mut options = self.options.vacuum;
        if let Some(span) = self.retention.span(stream) {
            options.older_than = options.older_than.min(span.max(GRACE_MIN));
        }
        options
    }

    /// Deletes what is old enough, of each stream.
    pub(crate) async fn vacuum_round(&self) {
        for table in self.streams() {
            let stream = table.name();
            match self
                .archive
                .vacuum(stream, &self.vacuum_options(stream))
                .await
            {
                Ok(report) if report.deleted.is_empty() => {}
                Ok(report) => {
                    let bytes: u64 = report.deleted.iter().map(|file| file.bytes).sum();
                    let files = report.deleted.len() as u64;
                    tracing::debug!(%stream, files, bytes, "replaced files deleted");
                    self.counters
                        .deleted_files
                        .fetch_add(files, Ordering::Relaxed);
                    self.counters
                        .deleted_bytes
                        .fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) => {
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%stream, %error, "replaced files could not be deleted; it is tried again in an hour");
                }
            }
        }
    }
}

/// Makes a version the one that queries see.
fn install(table: &StreamTable, snapshot: Arc<ArchiveSnapshot>) -> Result<(), ArchiveError> {
    let installed = table.install_archived(snapshot);
    installed.map_err(|error| ArchiveError::Write {
        stream: table.name().clone(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
#[path = "maintain_tests.rs"]
mod tests;
