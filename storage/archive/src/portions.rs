//! Where a flush over very many days is cut into several commits.
//!
//! A file is of one day, so rows of thousands of days are thousands of files, and writing them can
//! take longer than an engine has for stopping. Such a flush is committed in portions, each
//! complete up to a position: what one of them has stored is never written again.

use arrow_array::RecordBatch;
use quiver_model::Position;

use crate::sort::{DayRows, Fixed};

/// Most days of a portion, and of a flush that is not cut.
pub(crate) const DAYS_MAX: usize = 512;
/// A flush is cut only if that makes at most so many times as many files as there are days: rows
/// that jump between the days would else become a file each.
const FILES_PER_DAY_MAX: usize = 2;

/// Positions to cut behind, ascending, so that no portion has rows of more than `days_max` days;
/// none if that would make too many files. `days` are the rows of `batches`, sorted.
pub(crate) fn cuts(batches: &[RecordBatch], days: &[DayRows], days_max: usize) -> Vec<Position> {
    if days.len() <= days_max {
        return Vec::new();
    }
    let fixed: Vec<Option<Fixed<'_>>> = batches.iter().map(Fixed::of).collect();
    let mut rows: Vec<(i64, u32)> = Vec::with_capacity(days.iter().map(|day| day.rows.len()).sum());
    for (number, day) in (0..).zip(days) {
        rows.extend(day.rows.iter().filter_map(|at| {
            let columns = fixed[at.batch as usize].as_ref()?;
            Some((columns.position[at.row as usize], number))
        }));
    }
    rows.sort_unstable();

    let mut cuts = Vec::new();
    let mut portion_of_day = vec![usize::MAX; days.len()];
    let (mut days_in_portion, mut files, mut last) = (0, 0, 0);
    for (position, day) in rows {
        if portion_of_day[day as usize] != cuts.len() {
            if days_in_portion == days_max {
                cuts.push(Position(u64::try_from(last).unwrap_or(0)));
                days_in_portion = 0;
            }
            portion_of_day[day as usize] = cuts.len();
            days_in_portion += 1;
            files += 1;
            if files > days.len() * FILES_PER_DAY_MAX {
                return Vec::new();
            }
        }
        last = position;
    }
    cuts
}
