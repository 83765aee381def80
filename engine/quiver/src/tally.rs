//! Counts rows by device, and among them those whose position was seen before: a row that is lost
//! and one that is there twice would otherwise balance.

use std::collections::{BTreeMap, btree_map::Entry};

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, cast::AsArray, types::Int64Type};

/// Positions of a block.
const BLOCK: u64 = 1 << 16;

/// A set of positions, a bit for each: they are dense, one for each row of the engine.
#[derive(Default)]
struct Positions(BTreeMap<u64, Vec<u64>>);

impl Positions {
    /// Whether it is new.
    fn insert(&mut self, position: u64) -> bool {
        let block = match self.0.entry(position / BLOCK) {
            Entry::Occupied(block) => block.into_mut(),
            Entry::Vacant(place) => place.insert(vec![0; (BLOCK / 64) as usize]),
        };
        let Some(word) = block.get_mut((position % BLOCK / 64) as usize) else {
            return true;
        };
        let bit = 1 << (position % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// Rows of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// All of them.
    pub found: u64,
    /// Of these, rows with a position that another row has.
    pub doubled: u64,
}

/// What has been counted so far.
#[derive(Default)]
pub struct Tally {
    positions: Positions,
}

impl Tally {
    /// Counts a batch of the columns device and position into `devices`.
    pub fn count(&mut self, batch: &RecordBatch, devices: &mut BTreeMap<String, Rows>) {
        let columns = (
            batch.columns().first().and_then(named),
            batch
                .columns()
                .get(1)
                .and_then(|column| column.as_primitive_opt::<Int64Type>()),
        );
        let (Some((keys, names)), Some(positions)) = columns else {
            return;
        };
        let mut counts = vec![Rows::default(); names.len()];
        for (key, position) in keys.into_iter().zip(positions.values()) {
            let is_new = self.positions.insert(position.cast_unsigned());
            if let Some(rows) = counts.get_mut(key) {
                rows.found += 1;
                rows.doubled += u64::from(!is_new);
            }
        }
        for (index, rows) in counts.into_iter().enumerate() {
            if rows.found > 0 {
                let sum = devices.entry(names.value(index).to_owned()).or_default();
                sum.found += rows.found;
                sum.doubled += rows.doubled;
            }
        }
    }
}

/// A column of text as names, and each row's index among them.
fn named(column: &ArrayRef) -> Option<(Vec<usize>, StringArray)> {
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        let names = text(dictionary.values())?;
        return Some((dictionary.normalized_keys(), names));
    }
    let names = text(column)?;
    // Rows of a device come in runs.
    let mut first = 0;
    let keys = (0..names.len()).map(|row| {
        if names.value(row) != names.value(first) {
            first = row;
        }
        first
    });
    let keys = keys.collect();
    Some((keys, names))
}

/// Text as strings, whatever form it comes in.
pub fn text(column: &ArrayRef) -> Option<StringArray> {
    if let Some(view) = column.as_string_view_opt() {
        return Some(view.iter().collect());
    }
    column.as_string_opt::<i32>().cloned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{DictionaryArray, Int64Array, types::Int32Type};

    use super::*;

    fn batch(devices: ArrayRef, positions: &[i64]) -> RecordBatch {
        let positions = Arc::new(Int64Array::from(positions.to_vec())) as ArrayRef;
        RecordBatch::try_from_iter([("device", devices), ("position", positions)]).unwrap()
    }

    fn rows(found: u64, doubled: u64) -> Rows {
        Rows { found, doubled }
    }

    #[test]
    fn a_row_that_is_there_twice_is_told_apart_in_any_form_of_text() {
        let names = ["a", "a", "b", "a", "b"];
        let forms: [ArrayRef; 3] = [
            Arc::new(StringArray::from(names.to_vec())),
            Arc::new(arrow_array::StringViewArray::from(names.to_vec())),
            Arc::new(names.into_iter().collect::<DictionaryArray<Int32Type>>()),
        ];
        for devices in forms {
            let mut tally = Tally::default();
            let mut counted = BTreeMap::new();
            // Position 2 of device a is lost, and 1 is there twice: still three rows.
            tally.count(&batch(devices.clone(), &[1, 1, 3, 70_000, 4]), &mut counted);
            assert_eq!(counted["a"], rows(3, 1));
            assert_eq!(counted["b"], rows(2, 0));
            // Another stream has none of these positions either.
            tally.count(&batch(devices, &[5, 6, 7, 8, 70_000]), &mut counted);
            assert_eq!(counted["a"], rows(6, 1));
            assert_eq!(counted["b"], rows(4, 1));
        }
    }
}
