//! Copies chosen rows of many batches into one, run by run where they lie together.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, make_array,
};
use arrow_data::{ArrayData, transform::MutableArrayData};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::interleave::interleave;

use crate::sort::{Fixed, RowRef};

/// From this many rows a run on average, copying runs beats picking rows.
const RUN_ROWS_MIN: usize = 4;

#[derive(Clone, Copy)]
struct Run {
    batch: usize,
    start: usize,
    end: usize,
}

/// The rows `rows` of `batches`, which all have `schema`, as one batch. The device column gets a
/// dictionary of its own with only the devices that occur.
pub(crate) fn gather(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows: &[RowRef],
) -> Result<RecordBatch, ArrowError> {
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
    let columns = (0..schema.fields().len()).map(|column| {
        if column == 1 {
            gather_devices(&used, &runs, rows.len())
        } else {
            gather_column(column, &used, &runs, rows.len())
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

fn gather_column(
    column: usize,
    batches: &[&RecordBatch],
    runs: &[Run],
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    if rows / runs.len().max(1) >= RUN_ROWS_MIN {
        let data: Vec<ArrayData> = batches
            .iter()
            .map(|batch| batch.column(column).to_data())
            .collect();
        let mut copy = MutableArrayData::new(data.iter().collect(), false, rows);
        for run in runs {
            copy.try_extend(run.batch, run.start, run.end)?;
        }
        return Ok(make_array(copy.freeze()));
    }
    let arrays: Vec<&dyn Array> = batches
        .iter()
        .map(|batch| batch.column(column).as_ref())
        .collect();
    let indices: Vec<(usize, usize)> = runs
        .iter()
        .flat_map(|run| (run.start..run.end).map(|row| (run.batch, row)))
        .collect();
    interleave(&arrays, &indices)
}

fn gather_devices(
    batches: &[&RecordBatch],
    runs: &[Run],
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    let wrong = || ArrowError::SchemaError("a batch has not the stored layout".to_owned());
    let fixed: Vec<Fixed<'_>> = batches
        .iter()
        .map(|batch| Fixed::of(batch).ok_or_else(wrong))
        .collect::<Result<_, _>>()?;
    let mut names: Vec<&str> = Vec::new();
    let mut keys: Vec<i32> = Vec::with_capacity(rows);
    for run in runs {
        let columns = &fixed[run.batch];
        let mut last_key = None;
        for row in run.start..run.end {
            // Rows are ordered by device: a device that is not the last one has not been seen.
            if last_key != Some(columns.keys[row]) {
                last_key = Some(columns.keys[row]);
                let name = columns.device(row);
                if names.last() != Some(&name) {
                    names.push(name);
                }
            }
            keys.push(i32::try_from(names.len()).unwrap_or(i32::MAX) - 1);
        }
    }
    let names = StringArray::from_iter_values(names);
    Ok(Arc::new(DictionaryArray::try_new(
        Int32Array::from(keys),
        Arc::new(names),
    )?))
}
