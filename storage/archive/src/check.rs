//! Whether a table's files are what its log says. Problems are data: one bad file does not hide
//! the others.

use std::{collections::BTreeSet, fmt, sync::Arc};

use arrow_array::{RecordBatch, cast::AsArray, types::Int64Type};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::file::statistics::Statistics;
use quiver_hot::{ArchiveFile, ArchiveSnapshot};
use quiver_model::{Position, StreamName, TS, Timestamp};

use crate::{
    ArchiveError, DeltaArchive,
    read::{FileError, Footer, location, read_positions},
};

/// Words of the bits of a window of positions: 8 MiB.
const WINDOW_WORDS: usize = 1 << 20;
/// Positions that are looked at together.
const WINDOW_POSITIONS: u64 = 64 * WINDOW_WORDS as u64;
/// After so many problems duplicates are no longer listed.
const PROBLEMS_MAX: usize = 1_000;

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
    /// A file has event times beyond those it is listed with, or of another day.
    Times {
        /// The file.
        path: String,
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
            Self::Differs {
                path,
                what,
                expected,
                found,
            } => {
                write!(
                    f,
                    "file {path} has {found} {what}, the table says {expected}"
                )
            }
            Self::Times { path } => {
                write!(
                    f,
                    "file {path} has event times beyond those the table lists it with"
                )
            }
            Self::Duplicate { position, path } => {
                write!(
                    f,
                    "position {position} in file {path} is in another row too"
                )
            }
        }
    }
}

/// A Parquet file that lies in a table's directory, listed or not.
pub(crate) struct ParquetFile {
    /// Relative to the table's directory.
    pub path: String,
    pub written: Timestamp,
    pub bytes: u64,
}

impl DeltaArchive {
    /// Reads every file's footer and positions.
    ///
    /// # Errors
    /// If the stream has neither a table nor files of one, or its log cannot be read. What is wrong
    /// with files is in the report.
    pub async fn check(&self, stream: &StreamName) -> Result<CheckReport, ArchiveError> {
        let (snapshot, orphans) = self.files_and_orphans(stream).await?;
        let mut report = CheckReport {
            files: snapshot.files.len(),
            ..CheckReport::default()
        };
        let mut readable = Vec::new();
        for file in snapshot.files.iter() {
            match self.positions(stream, file).await {
                Err(FileError::Store(object_store::Error::NotFound { .. })) => {
                    report.problems.push(Problem::Missing {
                        path: file.path.clone(),
                    });
                }
                Err(error) => report.problems.push(Problem::Unreadable {
                    path: file.path.clone(),
                    reason: error.to_string(),
                }),
                Ok((footer, batches)) => {
                    report.rows += compare(file, &footer, &batches, &mut report.problems);
                    readable.push(file);
                }
            }
        }
        self.find_duplicates(stream, &readable, &mut report.problems)
            .await;
        report.orphans = orphans;
        Ok(report)
    }

    async fn positions(
        &self,
        stream: &StreamName,
        file: &ArchiveFile,
    ) -> Result<(Footer, Vec<RecordBatch>), FileError> {
        read_positions(&*self.store, &location(stream, &file.path)).await
    }

    /// Looks for positions in more than one row, a window of positions at a time: memory is
    /// bounded whatever the size of the table.
    async fn find_duplicates(
        &self,
        stream: &StreamName,
        files: &[&Arc<ArchiveFile>],
        problems: &mut Vec<Problem>,
    ) {
        let window = |position: Position| position.get() / WINDOW_POSITIONS;
        // From gap to gap: positions may be sparse, windows without a file are not looked at.
        let mut next = files.iter().map(|file| window(file.min_position)).min();
        while let Some(number) = next {
            let overlaps = |file: &&Arc<ArchiveFile>| {
                (window(file.min_position)..=window(file.max_position)).contains(&number)
            };
            let start = number * WINDOW_POSITIONS;
            let mut seen = vec![0_u64; WINDOW_WORDS];
            for file in files.iter().copied().filter(overlaps) {
                let Ok((_, batches)) = self.positions(stream, file).await else {
                    continue;
                };
                for position in batches.iter().flat_map(position_values) {
                    let offset =
                        usize::try_from(position.wrapping_sub(start)).unwrap_or(usize::MAX);
                    let Some(word) = seen.get_mut(offset / 64) else {
                        continue;
                    };
                    let bit = 1 << (offset % 64);
                    if *word & bit != 0 && problems.len() < PROBLEMS_MAX {
                        problems.push(Problem::Duplicate {
                            position,
                            path: file.path.clone(),
                        });
                    }
                    *word |= bit;
                }
            }
            let later = files
                .iter()
                .filter(|file| window(file.max_position) > number);
            next = later
                .map(|file| window(file.min_position).max(number + 1))
                .min();
        }
    }

    /// The version in force, and Parquet files of the table's directory that neither it nor a
    /// tombstone names.
    async fn files_and_orphans(
        &self,
        stream: &StreamName,
    ) -> Result<(Arc<ArchiveSnapshot>, Vec<String>), ArchiveError> {
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        let table = self
            .load(stream, &mut slot)
            .await
            .map_err(|error| ArchiveError::replay(stream, &error))?;
        let known: BTreeSet<&str> = table
            .snapshot
            .files
            .iter()
            .map(|file| file.path.as_str())
            .chain(table.removed.keys().map(String::as_str))
            .collect();
        let all = self.parquet_files(stream).await?;
        if table.snapshot.version < 0 && all.is_empty() {
            return Err(ArchiveError::Absent {
                stream: stream.clone(),
            });
        }
        let orphans = all
            .into_iter()
            .map(|file| file.path)
            .filter(|path| !known.contains(path.as_str()))
            .collect();
        Ok((Arc::clone(&table.snapshot), orphans))
    }

    /// Parquet files of the table's directory.
    pub(crate) async fn parquet_files(
        &self,
        stream: &StreamName,
    ) -> Result<Vec<ParquetFile>, ArchiveError> {
        let prefix = Path::from_iter([stream.as_str()]);
        let entries: Vec<_> =
            self.store
                .list(Some(&prefix))
                .try_collect()
                .await
                .map_err(|error| ArchiveError::Damaged {
                    stream: stream.clone(),
                    problem: error.to_string(),
                })?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| {
                let relative: Vec<String> = entry
                    .location
                    .prefix_match(&prefix)?
                    .map(|part| part.as_ref().to_owned())
                    .collect();
                let is_data = relative.first().is_some_and(|first| first != "_delta_log")
                    && relative
                        .last()
                        .is_some_and(|last| last.ends_with(".parquet"));
                is_data.then(|| ParquetFile {
                    path: relative.join("/"),
                    written: Timestamp(entry.last_modified.timestamp_micros()),
                    bytes: entry.size,
                })
            })
            .collect())
    }
}

fn position_values(batch: &RecordBatch) -> impl Iterator<Item = u64> + '_ {
    let column = batch
        .columns()
        .first()
        .and_then(|column| column.as_primitive_opt::<Int64Type>());
    let values = column.into_iter().flat_map(|column| column.values().iter());
    values.map(|position| u64::try_from(*position).unwrap_or(0))
}

/// Compares a file with how it is listed; returns its rows.
fn compare(
    file: &ArchiveFile,
    footer: &Footer,
    batches: &[RecordBatch],
    problems: &mut Vec<Problem>,
) -> u64 {
    let (mut count, mut least, mut greatest) = (0, u64::MAX, 0);
    for position in batches.iter().flat_map(position_values) {
        (count, least, greatest) = (count + 1, least.min(position), greatest.max(position));
    }
    let rows = u64::try_from(footer.metadata.file_metadata().num_rows()).unwrap_or(0);
    let mut differs = |what: &'static str, expected: u64, found: u64| {
        if expected != found {
            problems.push(Problem::Differs {
                path: file.path.clone(),
                what,
                expected,
                found,
            });
        }
    };
    differs("bytes", file.bytes, footer.bytes);
    differs("rows", file.rows, rows);
    differs("positions", rows, count);
    differs("as its least position", file.min_position.get(), least);
    differs(
        "as its greatest position",
        file.max_position.get(),
        greatest,
    );
    if let Some((min, max)) = footer_bounds(footer, TS) {
        let listed = file.min_ts.as_micros()..=file.max_ts.as_micros();
        let has_day = |ts: i64| Timestamp(ts).day() == file.day;
        if !(listed.contains(&min) && listed.contains(&max) && has_day(min) && has_day(max)) {
            problems.push(Problem::Times {
                path: file.path.clone(),
            });
        }
    }
    rows
}

/// Least and greatest value of a 64-bit column over all row groups, as the footer says.
fn footer_bounds(footer: &Footer, column: &str) -> Option<(i64, i64)> {
    let mut bounds: Option<(i64, i64)> = None;
    for group in footer.metadata.row_groups() {
        let chunk = group
            .columns()
            .iter()
            .find(|chunk| chunk.column_path().string() == column)?;
        let Some(Statistics::Int64(statistics)) = chunk.statistics() else {
            return None;
        };
        let (min, max) = (*statistics.min_opt()?, *statistics.max_opt()?);
        bounds = Some(bounds.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
    }
    bounds
}
