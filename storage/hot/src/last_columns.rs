//! Last rows of one stream, one slot per device: updating a slot writes its cells in place and
//! keeps no batch alive. A device takes its name, 24 bytes, and a word for each number.

use std::{ops::Range, sync::Arc};

use arrow_array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{ArrowError, Field, Schema};
use quiver_model::{FieldType, NameTable, Names, Pages};

use crate::{
    fixed_columns::FixedColumns,
    last_cells::Cells,
    layout::{FIXED_COLUMNS, LayoutError},
};

/// Event time, arrival and position of a last row.
const TS: usize = 0;
const ARRIVAL: usize = 1;
const POSITION: usize = 2;
const FIXED_WIDTH: usize = 3;

#[derive(Debug)]
pub(crate) struct LastColumns {
    /// A device's number is its slot.
    devices: NameTable,
    fixed: Pages<i64>,
    cells: Cells,
}

/// [`LastColumns`] as they were at some moment, made without copying them.
#[derive(Debug)]
pub(crate) struct FrozenColumns {
    devices: Names,
    fixed: Pages<i64>,
    cells: Cells,
}

impl Default for LastColumns {
    fn default() -> Self {
        Self {
            devices: NameTable::default(),
            fixed: Pages::of_width(FIXED_WIDTH),
            cells: Cells::default(),
        }
    }
}

impl LastColumns {
    /// Takes over the rows of `batch` that are later, by (ts, position), than what their device
    /// has. Applying a batch twice, or two batches in any order, ends in the same state.
    pub(crate) fn update(&mut self, batch: &RecordBatch) -> Result<(), LayoutError> {
        let fixed = FixedColumns::of(batch)?;
        self.learn_fields(batch)?;
        let best = fixed.latest_row_per_key();
        let mut winners = Vec::with_capacity(best.len());
        for (key, row) in best {
            let fixed_values = [fixed.ts[row], fixed.arrival[row], fixed.position[row]];
            if let Some(slot) = self.claim(fixed.names.value(key), fixed_values) {
                winners.push((slot, row));
            }
        }
        self.cells.grow(self.devices.len());
        let columns = batch.columns().get(FIXED_COLUMNS..).unwrap_or_default();
        self.cells.write(&winners, columns);
        Ok(())
    }

    /// The device's slot, if (ts, position) is not earlier than what it has; its fixed columns are
    /// set.
    fn claim(&mut self, device: &str, values: [i64; FIXED_WIDTH]) -> Option<usize> {
        let slot = self.devices.intern(device.as_bytes())?;
        let is_new = slot == self.fixed.len();
        if is_new {
            self.fixed.push(0);
        } else {
            let held = self.fixed.row(slot)?;
            if (values[TS], values[POSITION]) < (held[TS], held[POSITION]) {
                return None;
            }
        }
        self.fixed.row_mut(slot)?.copy_from_slice(&values);
        Some(slot)
    }

    fn learn_fields(&mut self, batch: &RecordBatch) -> Result<(), LayoutError> {
        let fields = batch.schema_ref().fields().iter().skip(FIXED_COLUMNS);
        let mut new = Vec::new();
        for (index, field) in fields.enumerate() {
            let known = self.cells.field(index);
            if known.is_some_and(|known| Arc::ptr_eq(known, field)) {
                continue;
            }
            let expected = match (known, FieldType::from_arrow(field.data_type())) {
                (None, Some(field_type)) => {
                    new.push((Arc::clone(field), field_type));
                    continue;
                }
                (Some(known), _)
                    if known.name() == field.name() && known.data_type() == field.data_type() =>
                {
                    continue;
                }
                (Some(known), _) => format!("{} {}", known.name(), known.data_type()),
                (None, None) => "a field of a stored type".to_owned(),
            };
            let found = format!("{} {}", field.name(), field.data_type());
            return Err(LayoutError::Column {
                index: FIXED_COLUMNS + index,
                found,
                expected,
            });
        }
        if !new.is_empty() {
            self.cells.learn(new, self.devices.len());
        }
        Ok(())
    }

    /// What is there now. Takes no longer for many devices than for few, nearly: see [`Pages`].
    pub(crate) fn freeze(&self) -> FrozenColumns {
        FrozenColumns {
            devices: self.devices.names().clone(),
            fixed: self.fixed.clone(),
            cells: self.cells.clone(),
        }
    }

    /// Bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.devices.bytes() + self.fixed.bytes() + self.cells.bytes()
    }

    pub(crate) fn devices(&self) -> usize {
        self.devices.len()
    }
}

impl FrozenColumns {
    /// How many devices there are.
    pub(crate) fn devices(&self) -> usize {
        self.devices.len()
    }

    /// The last rows of some slots in the stored layout, with the fields seen so far; `None` if
    /// there are none.
    pub(crate) fn to_batch(
        &self,
        fixed: &Schema,
        slots: Range<usize>,
    ) -> Result<Option<RecordBatch>, ArrowError> {
        let slots = slots.start..slots.end.min(self.devices.len());
        if slots.is_empty() {
            return Ok(None);
        }
        let keys = Int32Array::from_iter_values(0..i32::try_from(slots.len()).unwrap_or(i32::MAX));
        let names: StringArray = slots.clone().map(|slot| self.devices.text(slot)).collect();
        let values = |column: usize| -> Vec<i64> {
            let rows = slots.clone().map(|slot| self.fixed.row(slot));
            rows.map(|row| row.map_or(0, |row| row[column])).collect()
        };
        let time =
            |column: usize| TimestampMicrosecondArray::from(values(column)).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(time(TS)),
            Arc::new(DictionaryArray::try_new(keys, Arc::new(names))?),
            Arc::new(time(ARRIVAL)),
            Arc::new(Int64Array::from(values(POSITION))),
        ];
        columns.extend(self.cells.arrays(&slots)?);
        let mut fields: Vec<Arc<Field>> =
            fixed.fields().iter().take(FIXED_COLUMNS).cloned().collect();
        fields.extend(self.cells.fields().cloned());
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map(Some)
    }
}
