//! Puts rows of many batches into the archive's order, (device, ts, position), one list per day.
//!
//! Rows of one device mostly come in time order, so this is a counting sort by device, and a
//! comparison sort only for devices whose rows are out of order.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use arrow_array::{
    Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use quiver_model::Timestamp;

/// A row of one of the sorted batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowRef {
    pub(crate) batch: u32,
    pub(crate) row: u32,
}

/// Rows of one day of `ts`, in order.
#[derive(Debug)]
pub(crate) struct DayRows {
    pub(crate) day: i32,
    pub(crate) rows: Vec<RowRef>,
}

/// The fixed columns of a stored batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed<'a> {
    pub(crate) ts: &'a [i64],
    pub(crate) keys: &'a [i32],
    pub(crate) names: &'a StringArray,
    pub(crate) position: &'a [i64],
}

impl<'a> Fixed<'a> {
    /// `None` if the batch has not the stored layout.
    pub(crate) fn of(batch: &'a RecordBatch) -> Option<Self> {
        let device = batch.columns().get(1)?.as_dictionary_opt::<Int32Type>()?;
        if device.null_count() > 0 {
            return None;
        }
        Some(Self {
            ts: batch
                .columns()
                .first()?
                .as_primitive_opt::<TimestampMicrosecondType>()?
                .values(),
            keys: device.keys().values(),
            names: device.values().as_string_opt::<i32>()?,
            position: batch
                .columns()
                .get(3)?
                .as_primitive_opt::<Int64Type>()?
                .values(),
        })
    }

    /// The device that a key stands for.
    pub(crate) fn name(&self, key: i32) -> &'a str {
        self.names.value(usize::try_from(key).unwrap_or(0))
    }

    fn order(&self, row: usize) -> (i64, i64) {
        (self.ts[row], self.position[row])
    }
}

/// All rows of `batches` in order; `None` if a batch has not the stored layout.
pub(crate) fn sort_by_day(batches: &[RecordBatch]) -> Option<Vec<DayRows>> {
    let fixed: Vec<Fixed<'_>> = batches.iter().map(Fixed::of).collect::<Option<_>>()?;
    let (mut rows, per_device) = group_by_device(&fixed);
    let mut days: BTreeMap<i32, Vec<RowRef>> = BTreeMap::new();
    for range in per_device {
        let of_device = &mut rows[range];
        let order = |at: &RowRef| fixed[at.batch as usize].order(at.row as usize);
        if !of_device.is_sorted_by_key(order) {
            of_device.sort_unstable_by_key(order);
        }
        let day = |at: &RowRef| Timestamp(fixed[at.batch as usize].ts[at.row as usize]).day();
        let mut rest = &*of_device;
        while let Some(first) = rest.first() {
            let first = day(first);
            // Mostly the whole rest: then nothing is searched.
            let is_one = rest.last().is_none_or(|last| day(last) == first);
            let end = if is_one {
                rest.len()
            } else {
                rest.partition_point(|at| day(at) == first)
            };
            let (of_day, later) = rest.split_at(end);
            days.entry(first).or_default().extend_from_slice(of_day);
            rest = later;
        }
    }
    Some(
        days.into_iter()
            .map(|(day, rows)| DayRows { day, rows })
            .collect(),
    )
}

/// Rows grouped by device, devices in byte order, and where each device's rows are.
fn group_by_device(fixed: &[Fixed<'_>]) -> (Vec<RowRef>, Vec<Range<usize>>) {
    // Oldest rows first: a device's rows then come out nearly sorted.
    let mut oldest_first: Vec<usize> = (0..fixed.len()).collect();
    oldest_first.sort_by_key(|batch| fixed[*batch].position.first().copied());

    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut counts: Vec<usize> = Vec::new();
    let mut device_of_key: Vec<Vec<usize>> = vec![Vec::new(); fixed.len()];
    for (batch, columns) in fixed.iter().enumerate() {
        let mut of_key = vec![usize::MAX; columns.names.len()];
        for run in runs(columns.keys) {
            let key = usize::try_from(run[0]).unwrap_or(0);
            if of_key[key] == usize::MAX {
                let next = counts.len();
                of_key[key] = *numbers.entry(columns.names.value(key)).or_insert(next);
                if of_key[key] == next {
                    counts.push(0);
                }
            }
            counts[of_key[key]] += run.len();
        }
        device_of_key[batch] = of_key;
    }

    let mut by_name: Vec<(&str, usize)> = numbers.into_iter().collect();
    by_name.sort_unstable();
    let mut next = vec![0; counts.len()];
    let mut ranges = Vec::with_capacity(counts.len());
    let mut start = 0;
    for (_, device) in by_name {
        next[device] = start;
        ranges.push(start..start + counts[device]);
        start += counts[device];
    }

    let mut rows = vec![RowRef { batch: 0, row: 0 }; start];
    for batch in oldest_first {
        let mut row = 0;
        for run in runs(fixed[batch].keys) {
            let device = device_of_key[batch][usize::try_from(run[0]).unwrap_or(0)];
            let start = next[device];
            next[device] += run.len();
            for at in &mut rows[start..start + run.len()] {
                *at = RowRef {
                    batch: batch as u32,
                    row,
                };
                row += 1;
            }
        }
    }
    (rows, ranges)
}

/// Neighbouring rows of one device, which have the same key: none is empty.
fn runs(keys: &[i32]) -> impl Iterator<Item = &[i32]> {
    keys.chunk_by(|left, right| left == right)
}

#[cfg(test)]
#[path = "sort_tests.rs"]
mod tests;
