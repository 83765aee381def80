//! Whether a table's files are what its log says. Problems are data: one bad file does not hide
//! the others.

use std::{collections::BTreeSet, fmt};

use arrow_array::{cast::AsArray, types::Int64Type};
use futures::TryStreamExt;
use object_store::path::Path;
use quiver_hot::ArchiveFile;
use quiver_model::StreamName;

use crate::{ArchiveError, DeltaArchive, read::{FileError, location, read_positions}};

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Files that the table lists.
    pub files: usize,
    /// Rows in those that could be read.
    pub rows: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Parquet files that no version since the oldest tombstone lists: left by flushes that were
    /// not committed. Vacuum removes them.
    pub orphans: Vec<String>,
}

/// Something that is not as the table's log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A listed file is not there.
    Missing {
        /// The file.
        path: String,
    },
    /// A listed file cannot be read.
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A number differs.
    Differs {
        /// The file.
        path: String,
        /// Which.
        what: &'static str,
        /// As the log says.
        expected: u64,
        /// As the file says.
        found: u64,
    },
    /// A position is in more than one row.
    Duplicate {
        /// The position.
        position: u64,
        /// A file that has it.
        path: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "file {path} is missing; restore it from a backup"),
            Self::Unreadable { path, reason } => write!(f, "file {path} cannot be read: {reason}"),
            Self::Differs { path, what, expected, found } => {
                write!(f, "file {path} has {found} {what}, the table says {expected}")
            }
            Self::Duplicate { position, path } => {
                write!(f, "position {position} in file {path} is in another row too")
            }
        }
    }
}

impl DeltaArchive {
    /// Reads every file's footer and positions.
    ///
    /// # Errors
    /// If the stream has no table, or its log cannot be read. What is wrong with files is in the
    /// report.
    pub async fn check(&self, stream: &StreamName) -> Result<CheckReport, ArchiveError> {
        let snapshot = self.snapshot(stream).await?;
        let mut report = CheckReport { files: snapshot.files.len(), ..CheckReport::default() };
        let mut positions: Vec<(i64, u32)> = Vec::new();
        for (index, file) in snapshot.files.iter().enumerate() {
            match read_positions(&*self.store, &location(stream, &file.path)).await {
                Err(FileError::Store(object_store::Error::NotFound { .. })) => {
                    report.problems.push(Problem::Missing { path: file.path.clone() });
                }
                Err(error) => report
                    .problems
                    .push(Problem::Unreadable { path: file.path.clone(), reason: error.to_string() }),
                Ok((footer, batches)) => {
                    let before = positions.len();
                    for batch in &batches {
                        let Some(column) = batch.columns().first() else { continue };
                        if let Some(column) = column.as_primitive_opt::<Int64Type>() {
                            positions.extend(column.values().iter().map(|position| (*position, index as u32)));
                        }
                    }
                    let of_file = &positions[before..];
                    let footer_rows = u64::try_from(footer.metadata.file_metadata().num_rows()).unwrap_or(0);
                    report.rows += footer_rows;
                    compare(file, footer.bytes, footer_rows, of_file, &mut report.problems);
                }
            }
        }
        positions.sort_unstable();
        for pair in positions.windows(2) {
            if let [(left, _), (right, file)] = pair
                && left == right
            {
                let path = snapshot.files.get(*file as usize).map(|file| file.path.clone());
                let position = u64::try_from(*right).unwrap_or(0);
                report.problems.push(Problem::Duplicate { position, path: path.unwrap_or_default() });
            }
        }
        report.orphans = self.orphans(stream).await?;
        Ok(report)
    }

    /// Parquet files of the table's directory that neither the version in force nor a tombstone
    /// names.
    async fn orphans(&self, stream: &StreamName) -> Result<Vec<String>, ArchiveError> {
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        let table = self.existing(stream, &mut slot).await?;
        let known: BTreeSet<&str> = table
            .snapshot
            .files
            .iter()
            .map(|file| file.path.as_str())
            .chain(table.removed.keys().map(String::as_str))
            .collect();
        let all = self.parquet_files(stream).await?;
        Ok(all.into_iter().map(|(path, _)| path).filter(|path| !known.contains(path.as_str())).collect())
    }

    /// Parquet files of the table's directory, relative to it, and when they were written.
    pub(crate) async fn parquet_files(
        &self,
        stream: &StreamName,
    ) -> Result<Vec<(String, quiver_model::Timestamp)>, ArchiveError> {
        let prefix = Path::from_iter([stream.as_str()]);
        let entries: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.map_err(|error| {
            ArchiveError::Damaged { stream: stream.clone(), problem: error.to_string() }
        })?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| {
                let relative: Vec<String> =
                    entry.location.prefix_match(&prefix)?.map(|part| part.as_ref().to_owned()).collect();
                let is_data = relative.first().is_some_and(|first| first != "_delta_log")
                    && relative.last().is_some_and(|last| last.ends_with(".parquet"));
                let written = quiver_model::Timestamp(entry.last_modified.timestamp_micros());
                is_data.then(|| (relative.join("/"), written))
            })
            .collect())
    }
}

fn compare(file: &ArchiveFile, bytes: u64, rows: u64, positions: &[(i64, u32)], problems: &mut Vec<Problem>) {
    let mut differs = |what: &'static str, expected: u64, found: u64| {
        if expected != found {
            problems.push(Problem::Differs { path: file.path.clone(), what, expected, found });
        }
    };
    differs("bytes", file.bytes, bytes);
    differs("rows", file.rows, rows);
    differs("positions", rows, positions.len() as u64);
    let unsigned = |position: Option<&(i64, u32)>| position.map_or(0, |(at, _)| u64::try_from(*at).unwrap_or(0));
    differs("as its least position", file.min_position.get(), unsigned(positions.iter().min()));
    differs("as its greatest position", file.max_position.get(), unsigned(positions.iter().max()));
}
