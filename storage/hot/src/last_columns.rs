//! Last rows of one stream, one slot per device, as plain growable columns: updating a slot
//! writes its cells in place and keeps no batch alive.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{ArrowError, Field, Schema};
use quiver_model::FieldType;

use crate::layout::{
    ARRIVAL_INDEX, DEVICE_INDEX, FIXED_COLUMNS, LayoutError, POSITION_INDEX, TS_INDEX,
};

/// Rough bytes of a slot beside its cells: name, index entry, and the fixed columns.
const SLOT_BYTES: usize = 96;

/// Text of a last value that is kept: what stays in memory for every device for ever is bounded.
const TEXT_BYTES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct LastColumns {
    slots: HashMap<Arc<str>, usize>,
    devices: Vec<Arc<str>>,
    ts: Vec<i64>,
    arrival: Vec<i64>,
    position: Vec<i64>,
    fields: Vec<(Arc<Field>, Cells)>,
    text_bytes: usize,
}

#[derive(Debug)]
enum Cells {
    Int64(Vec<i64>, Vec<bool>),
    Float64(Vec<f64>, Vec<bool>),
    Bool(Vec<bool>, Vec<bool>),
    Utf8(Vec<Option<Box<str>>>),
}

impl Cells {
    fn new(field_type: FieldType, slots: usize) -> Self {
        let absent = vec![false; slots];
        match field_type {
            FieldType::Int64 => Self::Int64(vec![0; slots], absent),
            FieldType::Float64 => Self::Float64(vec![0.0; slots], absent),
            FieldType::Bool => Self::Bool(vec![false; slots], absent),
            FieldType::Utf8 => Self::Utf8(vec![None; slots]),
        }
    }

    fn grow(&mut self, slots: usize) {
        match self {
            Self::Int64(values, valid) => {
                values.resize(slots, 0);
                valid.resize(slots, false);
            }
            Self::Float64(values, valid) => {
                values.resize(slots, 0.0);
                valid.resize(slots, false);
            }
            Self::Bool(values, valid) => {
                values.resize(slots, false);
                valid.resize(slots, false);
            }
            Self::Utf8(values) => values.resize(slots, None),
        }
    }

    /// Writes the cells of `winners` (slot, row) from `column`, or nulls if the batch is of an
    /// older schema and has no such column. Returns by how much the bytes of text changed.
    fn write(&mut self, winners: &[(usize, usize)], column: Option<&ArrayRef>) -> isize {
        match (self, column) {
            (Self::Int64(values, valid), Some(column)) => {
                if let Some(array) = column.as_primitive_opt::<Int64Type>() {
                    scatter(values, valid, winners, array, |row| array.value(row));
                }
            }
            (Self::Float64(values, valid), Some(column)) => {
                if let Some(array) = column.as_primitive_opt::<Float64Type>() {
                    scatter(values, valid, winners, array, |row| array.value(row));
                }
            }
            (Self::Bool(values, valid), Some(column)) => {
                if let Some(array) = column.as_boolean_opt() {
                    scatter(values, valid, winners, array, |row| array.value(row));
                }
            }
            (Self::Utf8(values), column) => {
                let array = column.and_then(|column| column.as_string_opt::<i32>());
                let mut change = 0;
                for (slot, row) in winners {
                    let text = array
                        .filter(|array| array.is_valid(*row))
                        .map(|array| shortened(array.value(*row)));
                    let text = text.as_deref();
                    let cell = &mut values[*slot];
                    change += length(text) - length(cell.as_deref());
                    *cell = text.map(Box::from);
                }
                return change;
            }
            (Self::Int64(_, valid) | Self::Float64(_, valid) | Self::Bool(_, valid), None) => {
                for (slot, _) in winners {
                    valid[*slot] = false;
                }
            }
        }
        0
    }

    fn to_array(&self) -> Result<ArrayRef, ArrowError> {
        let nulls = |valid: &[bool]| Some(NullBuffer::new(BooleanBuffer::from(valid)));
        Ok(match self {
            Self::Int64(values, valid) => {
                Arc::new(Int64Array::new(values.clone().into(), nulls(valid)))
            }
            Self::Float64(values, valid) => {
                Arc::new(Float64Array::new(values.clone().into(), nulls(valid)))
            }
            Self::Bool(values, valid) => Arc::new(BooleanArray::new(
                BooleanBuffer::from(values.as_slice()),
                nulls(valid),
            )),
            Self::Utf8(values) => Arc::new(text_array(values)?),
        })
    }

    const fn cell_bytes(&self) -> usize {
        match self {
            Self::Int64(..) | Self::Float64(..) => 9,
            Self::Bool(..) => 2,
            Self::Utf8(..) => 16,
        }
    }
}

/// Arrow's own builder panics where offsets of 32 bits do not suffice.
fn text_array(values: &[Option<Box<str>>]) -> Result<StringArray, ArrowError> {
    let bytes: usize = values.iter().flatten().map(|text| text.len()).sum();
    if i32::try_from(bytes).is_err() {
        return Err(ArrowError::ComputeError(format!(
            "last values of one field have {bytes} bytes of text, more than 2 GiB"
        )));
    }
    Ok(values.iter().map(Option::as_deref).collect())
}

/// Text up to what is kept, cut between characters and marked with `…` if it is longer.
fn shortened(text: &str) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= TEXT_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let mut end = TEXT_BYTES_MAX - MARK.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

fn length(text: Option<&str>) -> isize {
    text.map_or(0, |text| isize::try_from(text.len()).unwrap_or(isize::MAX))
}

fn scatter<T: Default>(
    values: &mut [T],
    valid: &mut [bool],
    winners: &[(usize, usize)],
    array: &dyn Array,
    value: impl Fn(usize) -> T,
) {
    for (slot, row) in winners {
        let present = array.is_valid(*row);
        values[*slot] = if present { value(*row) } else { T::default() };
        valid[*slot] = present;
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
            if let Some(slot) =
                self.claim(fixed.names.value(key), fixed.ts[row], fixed.position[row])
            {
                self.arrival[slot] = fixed.arrival[row];
                winners.push((slot, row));
            }
        }
        for (index, (_, cells)) in self.fields.iter_mut().enumerate() {
            cells.grow(self.devices.len());
            let change = cells.write(&winners, batch.columns().get(FIXED_COLUMNS + index));
            self.text_bytes = self.text_bytes.saturating_add_signed(change);
        }
        Ok(())
    }

    /// The device's slot, if (ts, position) is not earlier than what it has; its key is set.
    fn claim(&mut self, device: &str, ts: i64, position: i64) -> Option<usize> {
        if let Some(slot) = self.slots.get(device).copied() {
            if (ts, position) < (self.ts[slot], self.position[slot]) {
                return None;
            }
            (self.ts[slot], self.position[slot]) = (ts, position);
            return Some(slot);
        }
        let slot = self.devices.len();
        let device: Arc<str> = Arc::from(device);
        self.text_bytes += device.len();
        self.slots.insert(Arc::clone(&device), slot);
        self.devices.push(device);
        self.ts.push(ts);
        self.arrival.push(0);
        self.position.push(position);
        Some(slot)
    }

    fn learn_fields(&mut self, batch: &RecordBatch) -> Result<(), LayoutError> {
        let fields = batch.schema_ref().fields().iter().skip(FIXED_COLUMNS);
        for (index, field) in fields.enumerate() {
            let known = self.fields.get(index);
            if known.is_some_and(|(known, _)| Arc::ptr_eq(known, field)) {
                continue;
            }
            let expected = match (known, FieldType::from_arrow(field.data_type())) {
                (None, Some(field_type)) => {
                    let cells = Cells::new(field_type, self.devices.len());
                    self.fields.push((Arc::clone(field), cells));
                    continue;
                }
                (Some((known, _)), _)
                    if known.name() == field.name() && known.data_type() == field.data_type() =>
                {
                    continue;
                }
                (Some((known, _)), _) => format!("{} {}", known.name(), known.data_type()),
                (None, None) => "a field of a stored type".to_owned(),
            };
            let found = format!("{} {}", field.name(), field.data_type());
            return Err(LayoutError::Column {
                index: FIXED_COLUMNS + index,
                found,
                expected,
            });
        }
        Ok(())
    }

    /// All last rows in the stored layout, with the fields seen so far; `None` if there are none.
    pub(crate) fn to_batch(&self, fixed: &Schema) -> Result<Option<RecordBatch>, ArrowError> {
        if self.devices.is_empty() {
            return Ok(None);
        }
        let keys =
            Int32Array::from_iter_values(0..i32::try_from(self.devices.len()).unwrap_or(i32::MAX));
        let names: StringArray = self.devices.iter().map(|device| Some(&**device)).collect();
        let time = |values: &Vec<i64>| {
            TimestampMicrosecondArray::from(values.clone()).with_timezone("UTC")
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(time(&self.ts)),
            Arc::new(DictionaryArray::try_new(keys, Arc::new(names))?),
            Arc::new(time(&self.arrival)),
            Arc::new(Int64Array::from(self.position.clone())),
        ];
        for (_, cells) in &self.fields {
            columns.push(cells.to_array()?);
        }
        let mut fields: Vec<Arc<Field>> =
            fixed.fields().iter().take(FIXED_COLUMNS).cloned().collect();
        fields.extend(self.fields.iter().map(|(field, _)| Arc::clone(field)));
        let options = RecordBatchOptions::new().with_row_count(Some(self.devices.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map(Some)
    }

    /// Bytes of memory it takes, nearly.
    pub(crate) fn bytes(&self) -> usize {
        let cells: usize = self
            .fields
            .iter()
            .map(|(_, cells)| cells.cell_bytes())
            .sum();
        self.devices.len() * (SLOT_BYTES + cells) + self.text_bytes
    }

    pub(crate) fn devices(&self) -> usize {
        self.devices.len()
    }
}

struct FixedColumns<'a> {
    ts: &'a [i64],
    arrival: &'a [i64],
    position: &'a [i64],
    keys: &'a [i32],
    names: &'a StringArray,
}

impl<'a> FixedColumns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, LayoutError> {
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

    /// For each dictionary key that occurs, the row with the greatest (ts, position).
    fn latest_row_per_key(&self) -> Vec<(usize, usize)> {
        let later = |row: usize, than: usize| {
            (self.ts[row], self.position[row]) >= (self.ts[than], self.position[than])
        };
        let mut best: HashMap<i32, usize> = HashMap::new();
        let mut run: Option<(i32, usize)> = None;
        let mut settle = |key: i32, row: usize| {
            best.entry(key)
                .and_modify(|held| *held = if later(row, *held) { row } else { *held })
                .or_insert(row);
        };
        // Rows of one device usually follow each other: the map is asked once per run, not per row.
        for (row, key) in self.keys.iter().enumerate() {
            run = match run {
                Some((current, held)) if current == *key => {
                    Some((current, if later(row, held) { row } else { held }))
                }
                Some((current, held)) => {
                    settle(current, held);
                    Some((*key, row))
                }
                None => Some((*key, row)),
            };
        }
        if let Some((key, row)) = run {
            settle(key, row);
        }
        best.into_iter()
            .filter_map(|(key, row)| Some((usize::try_from(key).ok()?, row)))
            .collect()
    }
}
