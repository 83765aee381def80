//! Copies chosen rows of many batches, run by run where they lie together: numbers as bare bits,
//! other columns as Arrow arrays.

use std::{ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray,
    cast::AsArray,
    make_array,
    types::{Decimal64Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_buffer::{NullBuffer, ToByteSlice};
use arrow_data::{ArrayData, transform::MutableArrayData};
use arrow_schema::{ArrowError, DataType, SchemaRef, TimeUnit};
use arrow_select::interleave::interleave;

use crate::sort::{Fixed, RowRef};

/// From this many rows a run on average, copying runs beats picking rows.
const RUN_ROWS_MIN: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Run {
    batch: usize,
    start: usize,
    end: usize,
}

/// Rows of some batches, as runs that lie together.
#[derive(Debug)]
pub(crate) struct Picked<'a> {
    batches: Vec<&'a RecordBatch>,
    runs: Vec<Run>,
    rows: usize,
}

impl<'a> Picked<'a> {
    /// The rows `rows` of `batches`.
    pub(crate) fn new(batches: &'a [RecordBatch], rows: &[RowRef]) -> Self {
        let mut local_of_batch = vec![usize::MAX; batches.len()];
        let mut used: Vec<&RecordBatch> = Vec::new();
        let mut runs: Vec<Run> = Vec::new();
        for at in rows {
            let local = &mut local_of_batch[at.batch as usize];
            if *local == usize::MAX {
                *local = used.len();
                used.push(&batches[at.batch as usize]);
            }
            let row = at.row as usize;
            match runs.last_mut() {
                Some(run) if run.batch == *local && run.end == row => run.end += 1,
                _ => runs.push(Run {
                    batch: *local,
                    start: row,
                    end: row + 1,
                }),
            }
        }
        Self {
            batches: used,
            runs,
            rows: rows.len(),
        }
    }

    /// One column of the rows.
    pub(crate) fn column(&self, column: usize) -> Result<ArrayRef, ArrowError> {
        if self.rows / self.runs.len().max(1) >= RUN_ROWS_MIN {
            let data: Vec<ArrayData> = self
                .batches
                .iter()
                .map(|batch| batch.column(column).to_data())
                .collect();
            let mut copy = MutableArrayData::new(data.iter().collect(), false, self.rows);
            for run in &self.runs {
                copy.try_extend(run.batch, run.start, run.end)?;
            }
            return Ok(make_array(copy.freeze()));
        }
        let arrays: Vec<&dyn Array> = self
            .batches
            .iter()
            .map(|batch| batch.column(column).as_ref())
            .collect();
        let indices: Vec<(usize, usize)> = self
            .runs
            .iter()
            .flat_map(|run| (run.start..run.end).map(|row| (run.batch, row)))
            .collect();
        interleave(&arrays, &indices)
    }

    /// The devices of the rows in their order, which is sorted by device, and how many rows each has.
    pub(crate) fn devices(&self) -> Result<Vec<(&'a str, usize)>, ArrowError> {
        let wrong = || ArrowError::SchemaError("a batch has not the stored layout".to_owned());
        let fixed: Vec<Fixed<'a>> = self
            .batches
            .iter()
            .map(|batch| Fixed::of(batch).ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
        let mut devices: Vec<(&str, usize)> = Vec::new();
        for run in &self.runs {
            let columns = &fixed[run.batch];
            for keys in columns.keys[run.start..run.end].chunk_by(|left, right| left == right) {
                let Some(key) = keys.first() else { continue };
                let name = columns.name(*key);
                // A device that is not the last one has not been seen.
                match devices.last_mut() {
                    Some((last, rows)) if *last == name => *rows += keys.len(),
                    _ => devices.push((name, keys.len())),
                }
            }
        }
        Ok(devices)
    }
}

/// The rows `rows` of `batches`, which all have `schema`, as one batch. The device column gets a
/// dictionary of its own with only the devices that occur.
pub(crate) fn gather(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows: &[RowRef],
) -> Result<RecordBatch, ArrowError> {
    let picked = Picked::new(batches, rows);
    let columns = (0..schema.fields().len()).map(|column| {
        if column == 1 {
            gather_devices(&picked)
        } else {
            picked.column(column)
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// The device column of the rows, with a dictionary of its own.
pub(crate) fn gather_devices(picked: &Picked<'_>) -> Result<ArrayRef, ArrowError> {
    let devices = picked.devices()?;
    let keys = (0..).zip(&devices);
    let keys = keys.flat_map(|(key, (_, rows))| std::iter::repeat_n(key, *rows));
    let names = StringArray::from_iter_values(devices.iter().map(|(name, _)| *name));
    Ok(Arc::new(DictionaryArray::try_new(
        Int32Array::from_iter_values(keys),
        Arc::new(names),
    )?))
}

/// What numbers mean that are 64 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Integer,
    Float,
}

impl Number {
    /// What values of this type are; `None` if they are not 64-bit numbers.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Float64 => Some(Self::Float),
            DataType::Int64
            | DataType::Decimal64(..)
            | DataType::Timestamp(TimeUnit::Microsecond, _) => Some(Self::Integer),
            _ => None,
        }
    }
}

/// The bits of a column of 64-bit numbers; `None` if it is of another type. What a null has in its
/// slot means nothing.
fn bits_of(array: &dyn Array) -> Option<&[u64]> {
    let buffer = match array.data_type() {
        DataType::Float64 => array.as_primitive_opt::<Float64Type>()?.values().inner(),
        DataType::Int64 => array.as_primitive_opt::<Int64Type>()?.values().inner(),
        DataType::Decimal64(..) => array.as_primitive_opt::<Decimal64Type>()?.values().inner(),
        _ => array
            .as_primitive_opt::<TimestampMicrosecondType>()?
            .values()
            .inner(),
    };
    Some(buffer.typed_data())
}

/// Numbers of one column of some rows. Its memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Values {
    /// Those that are there.
    bits: Vec<u64>,
    /// Whether each row has one; empty if every row has.
    present: Vec<bool>,
    rows: usize,
}

impl Values {
    fn clear(&mut self) {
        self.bits.clear();
        self.present.clear();
        self.rows = 0;
    }

    /// Replaces the values by those of a column of 64-bit numbers.
    ///
    /// # Errors
    /// If a batch has something else there.
    pub(crate) fn gather(&mut self, column: usize, picked: &Picked<'_>) -> Result<(), ArrowError> {
        self.clear();
        let mut parts: Vec<(&[u64], Option<&NullBuffer>)> = Vec::new();
        for batch in &picked.batches {
            let array = batch.column(column);
            parts.push((bits_of(array).ok_or_else(no_number)?, array.nulls()));
        }
        self.bits.reserve(picked.rows);
        let has_nulls = parts.iter().any(|(_, nulls)| nulls.is_some_and(any_null));
        for run in &picked.runs {
            let (bits, nulls) = parts[run.batch];
            let rows = run.start..run.end;
            if has_nulls {
                self.push_present(bits, nulls, rows);
            } else if let [one] = bits[rows.clone()] {
                self.bits.push(one);
            } else {
                self.bits.extend_from_slice(&bits[rows]);
            }
        }
        self.rows = picked.rows;
        Ok(())
    }

    /// Replaces the values by those of an array of 64-bit numbers.
    ///
    /// # Errors
    /// If it has something else.
    pub(crate) fn set(&mut self, array: &dyn Array) -> Result<(), ArrowError> {
        self.clear();
        let bits = bits_of(array).ok_or_else(no_number)?;
        match array.nulls().filter(|nulls| any_null(nulls)) {
            Some(nulls) => self.push_present(bits, Some(nulls), 0..bits.len()),
            None => self.bits.extend_from_slice(bits),
        }
        self.rows = bits.len();
        Ok(())
    }

    fn push_present(&mut self, bits: &[u64], nulls: Option<&NullBuffer>, rows: Range<usize>) {
        let Some(nulls) = nulls else {
            self.present.resize(self.present.len() + rows.len(), true);
            self.bits.extend_from_slice(&bits[rows]);
            return;
        };
        let present = nulls.inner().slice(rows.start, rows.len());
        self.present.extend(present.iter());
        // Without a branch: which ones are there is not foreseen.
        let mut end = self.bits.len();
        self.bits.resize(end + rows.len(), 0);
        for (bits, is_present) in bits[rows].iter().zip(&present) {
            self.bits[end] = *bits;
            end += usize::from(is_present);
        }
        self.bits.truncate(end);
    }

    /// Puts something else in the place of each value.
    ///
    /// # Errors
    /// The first of `change`.
    pub(crate) fn try_replace<E>(
        &mut self,
        change: impl Fn(u64) -> Result<u64, E>,
    ) -> Result<(), E> {
        for bits in &mut self.bits {
            *bits = change(*bits)?;
        }
        Ok(())
    }

    /// The values that are there.
    pub(crate) fn bits(&self) -> &[u64] {
        &self.bits
    }

    /// Parts of so many rows: which of them have a value (none of them, if every row has), how
    /// many rows there are, and where the values are.
    pub(crate) fn pages(
        &self,
        rows: usize,
    ) -> impl Iterator<Item = (&[bool], usize, Range<usize>)> + '_ {
        let mut next = 0;
        (0..self.rows).step_by(rows.max(1)).map(move |start| {
            let end = self.rows.min(start + rows);
            let present = self.present.get(start..end).unwrap_or(&[]);
            let count = if present.is_empty() {
                end - start
            } else {
                present.iter().filter(|is_present| **is_present).count()
            };
            let values = next..next + count;
            next += count;
            (present, end - start, values)
        })
    }
}

fn any_null(nulls: &NullBuffer) -> bool {
    nulls.null_count() > 0
}

fn no_number() -> ArrowError {
    ArrowError::SchemaError("a column has not the 64-bit numbers that its schema says".to_owned())
}

/// The bytes of values, as Parquet's PLAIN encoding has them.
pub(crate) fn plain_bytes(values: &[u64]) -> &[u8] {
    // Little-endian, as every machine is that the parquet crate runs on.
    values.to_byte_slice()
}
