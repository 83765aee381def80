//! Which files the background merges, and when: a pure function of the files and the time.
//!
//! ```text
//! a day that still gets rows:  8 files of a tier ─▶ 1 of the next      (tier: power of 8 of the rows)
//! a day that is over:          4 files, later 2, none larger than the others together ─▶ 1
//! ```
//!
//! Why it does not rewrite everything again and again. In a day that still gets rows, a merge puts
//! every row one tier up at least, and there are seven or eight tiers below the target. In a day
//! that is over, a merge at least doubles the size of the file that each row is in. Files that have
//! half of the target are never touched. So a row that came with a flush of `r` rows is rewritten at most
//! `log8(target / r) + 1` times, and once or twice more when its day is over.

use std::{collections::BTreeMap, sync::Arc};

use quiver_hot::ArchiveFile;
use quiver_model::Timestamp;

/// Files of this many rows and of eight times as many are a tier apart.
const TIER_BASE: u64 = 8;
/// Files of a tier that are merged while their day still gets rows.
const OPEN_FILES_MIN: usize = 8;
/// Files that are merged when their day has just ended: late rows still trickle in.
const CLOSED_FILES_MIN: usize = 4;
/// Files that are merged when their day ended long ago.
const SETTLED_FILES_MIN: usize = 2;
/// So long after its end a day still counts as one that gets rows, in microseconds.
const OPEN_US: i64 = 2 * 3_600 * 1_000_000;
/// So long after its end a day counts as settled, in microseconds.
const SETTLED_US: i64 = 30 * 3_600 * 1_000_000;
const DAY_US: i64 = 86_400 * 1_000_000;

/// How large merged files may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeLimits {
    /// Bytes of a merged file, as the sum of what is merged. Files of half as much are left alone.
    pub bytes: u64,
    /// Rows of a merged file; they are all in memory while it is written. Files of half as many
    /// are left alone.
    pub rows: u64,
    /// Event time that a merged file may span, in microseconds: where rows are kept for a time only,
    /// a file goes with its newest row. Default without bound, as a file is of one day.
    pub span: i64,
}

impl MergeLimits {
    fn is_small(self, file: &ArchiveFile) -> bool {
        file.bytes < self.bytes / 2 && file.rows < self.rows / 2
    }

    /// Whether the rows of both are near enough to each other.
    fn is_near(self, (from, to): (i64, i64), file: &ArchiveFile) -> bool {
        let (from, to) = widened((from, to), file);
        to.saturating_sub(from) <= self.span
    }
}

/// A span of event time and that of a file.
fn widened((from, to): (i64, i64), file: &ArchiveFile) -> (i64, i64) {
    (
        from.min(file.min_ts.as_micros()),
        to.max(file.max_ts.as_micros()),
    )
}

/// Nothing yet, to be [`widened`].
const NO_SPAN: (i64, i64) = (i64::MAX, i64::MIN);

/// Files that become one.
pub(crate) type Merge = Vec<Arc<ArchiveFile>>;

/// The merges that are due at `now`, newest day last. No file is in two of them.
pub(crate) fn due(files: &[Arc<ArchiveFile>], now: Timestamp, limits: MergeLimits) -> Vec<Merge> {
    let mut days: BTreeMap<i32, Vec<&Arc<ArchiveFile>>> = BTreeMap::new();
    for file in files.iter().filter(|file| limits.is_small(file)) {
        days.entry(file.day).or_default().push(file);
    }
    let mut merges = Vec::new();
    for (day, mut small) in days {
        // Oldest rows first, and the same merges whatever the order of the list.
        small.sort_by(|left, right| {
            (left.min_position, &left.path).cmp(&(right.min_position, &right.path))
        });
        let ended = (i64::from(day) + 1).saturating_mul(DAY_US);
        let since = now.as_micros().saturating_sub(ended);
        if since < OPEN_US {
            open_day(&small, limits, &mut merges);
        } else {
            let files_min = if since < SETTLED_US {
                CLOSED_FILES_MIN
            } else {
                SETTLED_FILES_MIN
            };
            ended_day(small, files_min, limits, &mut merges);
        }
    }
    merges
}

fn open_day(small: &[&Arc<ArchiveFile>], limits: MergeLimits, merges: &mut Vec<Merge>) {
    let mut tiers: BTreeMap<u32, Vec<&Arc<ArchiveFile>>> = BTreeMap::new();
    for file in small {
        let tier = file.rows.max(1).ilog(TIER_BASE);
        tiers.entry(tier).or_default().push(file);
    }
    for tier in tiers.into_values() {
        for filled in fill(&tier, limits) {
            // The last one may not be full: it waits for more, unless there are many.
            let many = filled.files.len();
            if (filled.is_full && many >= 2) || many >= OPEN_FILES_MIN {
                merges.push(filled.files);
            }
        }
    }
}

fn ended_day(
    mut small: Vec<&Arc<ArchiveFile>>,
    files_min: usize,
    limits: MergeLimits,
    merges: &mut Vec<Merge>,
) {
    // By size: the longest run from the smallest on whose last file is not larger than the others
    // together. What is beyond it is left alone until there is enough to go with it.
    small.sort_by_key(|file| file.rows);
    let (mut sum, mut end) = (0_u64, 0);
    for (index, file) in small.iter().enumerate() {
        if file.rows <= sum {
            end = index + 1;
        }
        sum = sum.saturating_add(file.rows);
    }
    small.truncate(end);
    if small.len() < files_min {
        return;
    }
    small.sort_by_key(|file| file.min_position);
    for filled in fill(&small, limits) {
        if filled.files.len() >= 2 {
            merges.push(filled.files);
        }
    }
}

struct Filled {
    files: Merge,
    /// Whether one more would have been too much.
    is_full: bool,
}

/// Divides files, in order, into merges within the limits. Any two of them that are near each other
/// fit together, as they are small.
fn fill(files: &[&Arc<ArchiveFile>], limits: MergeLimits) -> Vec<Filled> {
    let mut all: Vec<Filled> = Vec::new();
    let (mut bytes, mut rows, mut span) = (0_u64, 0_u64, NO_SPAN);
    for file in files {
        let fits = bytes.saturating_add(file.bytes) <= limits.bytes
            && rows.saturating_add(file.rows) <= limits.rows
            && limits.is_near(span, file);
        match all.last_mut() {
            Some(last) if fits => last.files.push(Arc::clone(file)),
            last => {
                if let Some(last) = last {
                    last.is_full = true;
                }
                (bytes, rows, span) = (0, 0, NO_SPAN);
                all.push(Filled {
                    files: vec![Arc::clone(file)],
                    is_full: false,
                });
            }
        }
        bytes = bytes.saturating_add(file.bytes);
        rows = rows.saturating_add(file.rows);
        span = widened(span, file);
    }
    all
}

#[cfg(test)]
#[path = "tiers_tests.rs"]
mod tests;
