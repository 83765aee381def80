//! Deletes files that nobody can need any more.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use object_store::{ObjectStoreExt, path::Path};
use quiver_model::StreamName;

use crate::{ArchiveError, DeltaArchive, read::location};

/// What a vacuum did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumReport {
    /// Parquet files that were deleted.
    pub deleted: usize,
    /// Files that are old enough, and still read by somebody or of a commit that may yet arrive.
    pub leased: usize,
    /// Files that were never published, left by a crash in the middle of a write.
    pub staged: u64,
}

impl DeltaArchive {
    /// Deletes files that the version in force does not list, that were removed (or, if they were
    /// never listed, written) more than `grace` ago, and that no snapshot in this process lists.
    /// The grace is for readers outside: one that opened a version before may still read its files.
    ///
    /// # Errors
    /// If the table cannot be read, or a file cannot be deleted.
    pub async fn vacuum(
        &self,
        stream: &StreamName,
        grace: Duration,
    ) -> Result<VacuumReport, ArchiveError> {
        let _one_at_a_time = self.maintenance.lock().await;
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        let table = self.existing(stream, &mut slot).await?;
        let now = self.clock.wall();
        let live: BTreeSet<&str> = table
            .snapshot
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        let mut report = VacuumReport::default();
        let mut deleted = Vec::new();
        for (path, written) in self.parquet_files(stream).await? {
            let since = table.removed.get(&path).copied().unwrap_or(written);
            if live.contains(path.as_str()) || now.since(since) <= grace {
                continue;
            }
            if table.is_leased(&path) || table.is_undecided(&path) {
                report.leased += 1;
                continue;
            }
            self.store
                .delete(&location(stream, &path))
                .await
                .map_err(|error| ArchiveError::File {
                    stream: stream.clone(),
                    path: path.clone(),
                    problem: error.to_string(),
                })?;
            report.deleted += 1;
            deleted.push(path);
        }
        for path in deleted {
            table.removed.remove(&path);
        }
        if let Some(durable) = &self.durable {
            let micros = u64::try_from(now.as_micros()).unwrap_or(0);
            let now = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let prefix = Path::from_iter([stream.as_str()]);
            report.staged = durable
                .remove_staged(&prefix, now, grace)
                .await
                .map_err(|error| ArchiveError::Damaged {
                    stream: stream.clone(),
                    problem: error.to_string(),
                })?;
        }
        Ok(report)
    }
}
