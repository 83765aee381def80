//! Merges small files of a day into larger ones. The rows stay the same, so readers and queries
//! see no difference; the old files stay on disk for those that still read them.

use std::sync::Arc;

use quiver_hot::{ArchiveSnapshot, FileList, batch_bytes};
use quiver_model::StreamName;

use crate::{
    ArchiveError, DeltaArchive, MaintenanceOptions,
    blocking::Priority,
    choose::Effort,
    commit::Commit,
    maintain::rows_within,
    read::{location, read_file, stored_schema},
    table::{Committed, next_files, write_commit},
    tiers::Merge,
    write::{FileWriter, sort},
};

/// What is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactOptions {
    /// Files are merged up to this size, in bytes. Default 64 MiB.
    pub target_bytes: u64,
    /// Files are merged up to so many rows: memory is bounded by the rows of one merge. Default
    /// 4 million.
    pub target_rows: u64,
    /// A day with fewer small files than this is left alone. Default 2.
    pub files_min: usize,
    /// How much memory the rows of one merge may take, in bytes: streams of many fields get smaller
    /// merges, and files of long texts are merged a few at a time, or left as they are. Default
    /// 256 MiB, as for merges in the background.
    pub memory_bytes: u64,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self {
            target_bytes: 64 << 20,
            target_rows: 4_000_000,
            files_min: 2,
            memory_bytes: MaintenanceOptions::default().memory_bytes,
        }
    }
}

/// What a compaction did.
#[derive(Clone, Debug)]
pub struct CompactReport {
    /// Files that were merged.
    pub removed: usize,
    /// Files that they became.
    pub added: usize,
    /// Rows that were written again.
    pub rows: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// The version in force afterwards.
    pub snapshot: Arc<ArchiveSnapshot>,
}

/// Groups of neighbouring small files of one day.
fn bins(files: &FileList, options: &CompactOptions) -> Vec<Merge> {
    let mut bins: Vec<Merge> = Vec::new();
    let (mut day, mut bytes, mut rows) = (None, 0, 0);
    // Files are in order of day and position.
    for file in files {
        let is_small = file.bytes < options.target_bytes / 2 && file.rows < options.target_rows / 2;
        if !is_small {
            day = None;
            continue;
        }
        let fits = day == Some(file.day)
            && bytes + file.bytes <= options.target_bytes
            && rows + file.rows <= options.target_rows;
        if !fits {
            bins.push(Vec::new());
            (day, bytes, rows) = (Some(file.day), 0, 0);
        }
        bytes += file.bytes;
        rows += file.rows;
        if let Some(bin) = bins.last_mut() {
            bin.push(Arc::clone(file));
        }
    }
    bins.retain(|bin| bin.len() >= options.files_min.max(2));
    bins
}

impl DeltaArchive {
    /// Merges small files, with one commit. Flushes of the stream wait only for the commit.
    ///
    /// # Errors
    /// If the table or a file cannot be read, or nothing can be written; then nothing changed, or
    /// the next call finds out that it did.
    pub async fn compact(
        &self,
        stream: &StreamName,
        options: &CompactOptions,
    ) -> Result<CompactReport, ArchiveError> {
        let _one_at_a_time = self.maintenance.lock().await;
        let present = self.snapshot(stream).await?;
        let options = CompactOptions {
            target_rows: rows_within(options.memory_bytes, &present.fields)
                .min(options.target_rows),
            ..*options
        };
        let bins = bins(&present.files, &options);
        let merged = self.merge_files(stream, &present, bins, options.memory_bytes);
        merged.await.map(|(report, _)| report)
    }

    /// Merges the files of each list, which `present` has, with one commit. To be called with
    /// `maintenance` held. Lists whose rows take more than `memory_bytes` are merged in parts; the
    /// paths of files that did not fit with their neighbours are in the result, too.
    pub(crate) async fn merge_files(
        &self,
        stream: &StreamName,
        present: &Arc<ArchiveSnapshot>,
        merges: Vec<Merge>,
        memory_bytes: u64,
    ) -> Result<(CompactReport, Vec<String>), ArchiveError> {
        let nothing = CompactReport {
            removed: 0,
            added: 0,
            rows: 0,
            bytes: 0,
            snapshot: Arc::clone(present),
        };
        let layout =
            stored_schema(stream, &present.fields).map_err(|problem| ArchiveError::Damaged {
                stream: stream.clone(),
                problem,
            })?;
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        let mut too_large: Vec<String> = Vec::new();
        let mut parts = merges;
        while let Some(merge) = parts.pop() {
            // Rows are compressed in files: only reading them tells what they take.
            let (mut batches, mut bin, mut bytes) = (Vec::new(), Merge::new(), 0_u64);
            for (number, file) in merge.iter().enumerate() {
                let path = location(stream, &file.path);
                let read = read_file(&*self.store, &path, Arc::clone(&layout)).await;
                let read = read.map_err(|error| ArchiveError::file(stream, &file.path, &error))?;
                let taken: u64 = read.iter().map(|batch| batch_bytes(batch) as u64).sum();
                if let (Some(first), true) = (bin.first(), bytes + taken > memory_bytes) {
                    if bin.len() == 1 {
                        let larger = if taken > bytes { file } else { first };
                        too_large.push(larger.path.clone());
                    }
                    // The others are another part. This one is read again there, which costs less
                    // than to keep it meanwhile.
                    parts.push(merge[number..].to_vec());
                    break;
                }
                bytes += taken;
                batches.extend(read);
                bin.push(Arc::clone(file));
            }
            if bin.len() < 2 {
                continue;
            }
            let batches = Arc::new(batches);
            let written = async {
                let sorted = sort(&batches, Priority::Low).await?;
                let writer = FileWriter::new(self, stream, Arc::clone(&layout), Effort::Merge);
                writer.write(&batches, sorted, &mut None).await
            };
            let files = written
                .await
                .map_err(|error| ArchiveError::write(stream, &error))?;
            let rows_before: u64 = bin.iter().map(|file| file.rows).sum();
            let rows_after: u64 = files.iter().map(|encoded| encoded.file.rows).sum();
            if rows_before != rows_after {
                return Err(ArchiveError::Damaged {
                    stream: stream.clone(),
                    problem: format!(
                        "files to be merged have {rows_after} rows, the table says {rows_before}"
                    ),
                });
            }
            removed.extend(bin);
            added.extend(files);
        }
        if removed.is_empty() {
            return Ok((nothing, too_large));
        }
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        let table = self.existing(stream, &mut slot).await?;
        // Flushes have committed meanwhile; only another writer can have removed a file.
        let present = Arc::clone(&table.snapshot);
        if !removed.iter().all(|file| present.files.contains(file)) {
            return Err(ArchiveError::Write {
                stream: stream.clone(),
                problem: "another writer removed files that were to be merged; try again"
                    .to_owned(),
            });
        }
        let now = self.clock.wall();
        let version = present.version + 1;
        let mut commit = Commit::default();
        commit.information("OPTIMIZE", now, false);
        for file in &removed {
            commit.remove(file, now, false);
        }
        for encoded in &added {
            commit.add(encoded, now, false);
        }
        table.expect(version, &added);
        match write_commit(&*self.store, stream, version, commit).await {
            Committed::Yes => {}
            Committed::Taken => {
                return Err(ArchiveError::Write {
                    stream: stream.clone(),
                    problem: "another writer committed meanwhile; try again".to_owned(),
                });
            }
            Committed::Unknown(error) => {
                return Err(ArchiveError::Write {
                    stream: stream.clone(),
                    problem: error.to_string(),
                });
            }
        }
        let next = ArchiveSnapshot {
            version,
            files: next_files(&present.files, &removed, &added),
            ..ArchiveSnapshot::clone(&present)
        };
        for file in &removed {
            table.removed.insert(file.path.clone(), now);
        }
        let snapshot = table.advance(next);
        self.checkpoint_if_due(table);
        let report = CompactReport {
            removed: removed.len(),
            added: added.len(),
            rows: added.iter().map(|encoded| encoded.file.rows).sum(),
            bytes: added.iter().map(|encoded| encoded.file.bytes).sum(),
            snapshot,
        };
        Ok((report, too_large))
    }
}
