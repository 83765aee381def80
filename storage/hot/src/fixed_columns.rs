//! The columns that every stored batch has, and the last row of each of its devices.

use std::collections::BTreeMap;

use arrow_array::{
    Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};

use crate::layout::{ARRIVAL_INDEX, DEVICE_INDEX, LayoutError, POSITION_INDEX, TS_INDEX};

/// A dictionary may have so many values a row before its keys are looked up in a map instead of an
/// array: most are of a batch that was dealt out to shards, with names of other shards' devices.
const VALUES_PER_ROW_MAX: usize = 64;
/// No row yet.
const NONE: usize = usize::MAX;

pub(crate) struct FixedColumns<'a> {
    pub(crate) ts: &'a [i64],
    pub(crate) arrival: &'a [i64],
    pub(crate) position: &'a [i64],
    keys: &'a [i32],
    pub(crate) names: &'a StringArray,
}

impl<'a> FixedColumns<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, LayoutError> {
        let found = batch.num_columns();
        let column = |index: usize| {
            batch
                .columns()
                .get(index)
                .ok_or(LayoutError::MissingColumns { found })
        };
        let wrong = |index: usize, expected: &str| LayoutError::Column {
            index,
            found: column(index)
                .map(|array| array.data_type().to_string())
                .unwrap_or_default(),
            expected: expected.to_owned(),
        };
        let time = |index: usize| {
            let array = column(index)?.as_primitive_opt::<TimestampMicrosecondType>();
            array
                .map(|array| &**array.values())
                .ok_or_else(|| wrong(index, "timestamp (µs)"))
        };
        let position = column(POSITION_INDEX)?.as_primitive_opt::<Int64Type>();
        let device = column(DEVICE_INDEX)?.as_dictionary_opt::<Int32Type>();
        let device = device.ok_or_else(|| wrong(DEVICE_INDEX, "dictionary of text"))?;
        let nulls = device.null_count();
        if nulls > 0 {
            return Err(LayoutError::Nulls {
                name: "device",
                nulls,
            });
        }
        let names = device.values().as_string_opt::<i32>();
        Ok(Self {
            ts: time(TS_INDEX)?,
            arrival: time(ARRIVAL_INDEX)?,
            position: position
                .map(|array| &**array.values())
                .ok_or_else(|| wrong(POSITION_INDEX, "int64"))?,
            keys: device.keys().values(),
            names: names.ok_or_else(|| wrong(DEVICE_INDEX, "dictionary of utf8"))?,
        })
    }

    /// For each dictionary key that occurs, ascending, the row with the greatest (ts, position).
    pub(crate) fn latest_row_per_key(&self) -> Vec<(usize, usize)> {
        let rows = self.keys.len();
        if self.names.len() == 1 {
            let last = (0..rows).reduce(|held, row| if self.later(row, held) { row } else { held });
            return last.map(|row| (0, row)).into_iter().collect();
        }
        let key_at = |row: usize| usize::try_from(self.keys[row]).unwrap_or(NONE);
        if self.names.len() > rows.saturating_mul(VALUES_PER_ROW_MAX) {
            let mut best = BTreeMap::new();
            for row in 0..rows {
                let held = best.entry(key_at(row)).or_insert(row);
                if self.later(row, *held) {
                    *held = row;
                }
            }
            return best.into_iter().filter(|(key, _)| *key != NONE).collect();
        }
        let mut best = vec![NONE; self.names.len()];
        for row in 0..rows {
            if let Some(held) = best.get_mut(key_at(row))
                && (*held == NONE || self.later(row, *held))
            {
                *held = row;
            }
        }
        let found = best.into_iter().enumerate();
        found.filter(|(_, row)| *row != NONE).collect()
    }

    fn later(&self, row: usize, than: usize) -> bool {
        (self.ts[row], self.position[row]) >= (self.ts[than], self.position[than])
    }
}
