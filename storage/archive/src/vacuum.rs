//! Deletes files that nobody can need any more.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

use object_store::{ObjectStoreExt, path::Path};
use quiver_model::StreamName;

use crate::{ArchiveError, DeltaArchive, read::location};

/// What a vacuum deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VacuumOptions {
    /// Files that were removed (or, if they were never listed, written) longer ago than this. It is
    /// for readers outside: one that opened a version before may still read its files. Default 7
    /// days.
    pub older_than: Duration,
    /// Only say what would be deleted. Default no.
    pub is_dry_run: bool,
}

impl Default for VacuumOptions {
    fn default() -> Self {
        Self {
            older_than: Duration::from_secs(7 * 86_400),
            is_dry_run: false,
        }
    }
}

/// A file that no version in force lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VacuumedFile {
    /// Relative to the table's directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// What a vacuum did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VacuumReport {
    /// Parquet files that were deleted.
    pub deleted: Vec<VacuumedFile>,
    /// Files that are old enough, and still read by somebody or of a commit that may yet arrive.
    pub leased: usize,
    /// Files that were never published, left by a crash in the middle of a write. A dry run does
    /// not look for them.
    pub staged: u64,
}

impl DeltaArchive {
    /// Deletes files that the version in force does not list, that are old enough, and that no
    /// snapshot in this process lists. In the directory of a stream that has no table these are all
    /// old files: what a first flush left that was never committed.
    ///
    /// # Errors
    /// If the stream has neither a table nor files of one, the table cannot be read, or a file
    /// cannot be deleted.
    pub async fn vacuum(
        &self,
        stream: &StreamName,
        options: &VacuumOptions,
    ) -> Result<VacuumReport, ArchiveError> {
        let _one_at_a_time = self.maintenance.lock().await;
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        let table = self
            .load(stream, &mut slot)
            .await
            .map_err(|error| ArchiveError::replay(stream, &error))?;
        let files = self.parquet_files(stream).await?;
        if table.snapshot.version < 0 && files.is_empty() {
            return Err(ArchiveError::Absent {
                stream: stream.clone(),
            });
        }
        let now = self.clock.wall();
        let live: BTreeSet<&str> = table
            .snapshot
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        let held = table.held();
        let leased: HashSet<&str> = held
            .iter()
            .flat_map(|snapshot| snapshot.files.iter())
            .map(|file| file.path.as_str())
            .collect();
        let mut report = VacuumReport::default();
        for file in files {
            let since = table
                .removed
                .get(&file.path)
                .copied()
                .unwrap_or(file.written);
            if live.contains(file.path.as_str()) || now.since(since) <= options.older_than {
                continue;
            }
            if leased.contains(file.path.as_str()) || table.is_undecided(&file.path) {
                report.leased += 1;
                continue;
            }
            if !options.is_dry_run {
                self.store
                    .delete(&location(stream, &file.path))
                    .await
                    .map_err(|error| ArchiveError::File {
                        stream: stream.clone(),
                        path: file.path.clone(),
                        problem: error.to_string(),
                    })?;
            }
            report.deleted.push(VacuumedFile {
                path: file.path,
                bytes: file.bytes,
            });
        }
        if options.is_dry_run {
            return Ok(report);
        }
        for file in &report.deleted {
            table.removed.remove(&file.path);
        }
        if let Some(durable) = &self.durable {
            let micros = u64::try_from(now.as_micros()).unwrap_or(0);
            let now = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let prefix = Path::from_iter([stream.as_str()]);
            report.staged = durable
                .remove_staged(&prefix, now, options.older_than)
                .await
                .map_err(|error| ArchiveError::Damaged {
                    stream: stream.clone(),
                    problem: error.to_string(),
                })?;
        }
        Ok(report)
    }
}
