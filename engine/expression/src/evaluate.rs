//! Evaluating a batch, and finding the rows that fail.

use arrow_array::{
    Array as _, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, cast::AsArray as _,
    new_null_array,
};
use arrow_schema::DataType;
use arrow_select::concat::concat;

use crate::{compiled::Compiled, plan::message};

/// Most bytes of the texts that are made of a batch.
const TEXTS_BYTES_MAX: usize = 256 << 20;

/// A row for which an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// Its index in the batch.
    pub row: u32,
    /// Why.
    pub reason: String,
}

/// What came of a batch.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// A value for each row, null for those that failed.
    pub values: ArrayRef,
    /// The rows that failed, ascending.
    pub failed: Vec<FailedRow>,
}

impl Compiled {
    /// The values for `rows` rows, of which `inputs` has what [`Self::inputs`] lists. Nearly always
    /// all rows are evaluated at once; if that fails, in halves, until the rows that fail are found.
    /// All fail if what was made of them is too much: expressions of expressions could make gigabytes
    /// of a few rows.
    pub fn evaluate(&self, inputs: &[ArrayRef], rows: usize) -> Evaluated {
        let mut failed = Vec::new();
        let mut values = self.part(inputs, 0, rows, &mut failed);
        let made = values
            .as_string_opt::<i32>()
            .map_or(0, |texts| texts.values().len());
        if made > TEXTS_BYTES_MAX {
            let reason = format!(
                "the texts made of {rows} rows take {made} bytes; at most {TEXTS_BYTES_MAX}"
            );
            let failed_row = |row| FailedRow {
                row: u32::try_from(row).unwrap_or(u32::MAX),
                reason: reason.clone(),
            };
            failed = (0..rows).map(failed_row).collect();
            values = new_null_array(&self.data_type, rows);
        }
        Evaluated { values, failed }
    }

    /// Which of `rows` rows meet a condition: one without nulls.
    pub fn evaluate_condition(
        &self,
        inputs: &[ArrayRef],
        rows: usize,
    ) -> (BooleanArray, Vec<FailedRow>) {
        let Evaluated { values, failed } = self.evaluate(inputs, rows);
        let mask = match values.as_boolean_opt() {
            Some(mask) if mask.nulls().is_none() => mask.clone(),
            Some(mask) => mask.iter().map(|met| Some(met == Some(true))).collect(),
            // A condition that is NULL for every row.
            None => std::iter::repeat_n(Some(false), rows).collect(),
        };
        (mask, failed)
    }

    fn part(
        &self,
        inputs: &[ArrayRef],
        start: usize,
        rows: usize,
        failed: &mut Vec<FailedRow>,
    ) -> ArrayRef {
        let reason = match self.values(inputs, rows) {
            Ok(values) => return values,
            Err(reason) => reason,
        };
        if rows > 1 {
            let half = rows / 2;
            let slice = |start, rows| -> Vec<ArrayRef> {
                inputs
                    .iter()
                    .map(|input| input.slice(start, rows))
                    .collect()
            };
            let first = self.part(&slice(0, half), start, half, failed);
            let second = self.part(&slice(half, rows - half), start + half, rows - half, failed);
            if let Ok(values) = concat(&[&first, &second]) {
                return values;
            }
        }
        failed.extend((start..start + rows).map(|row| FailedRow {
            row: u32::try_from(row).unwrap_or(u32::MAX),
            reason: reason.clone(),
        }));
        new_null_array(&self.data_type, rows)
    }

    fn values(&self, inputs: &[ArrayRef], rows: usize) -> Result<ArrayRef, String> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(
            std::sync::Arc::clone(&self.schema),
            inputs.to_vec(),
            &options,
        )
        .map_err(|error| error.to_string())?;
        let values = self
            .physical
            .evaluate(&batch)
            .and_then(|values| values.into_array(rows))
            .map_err(|error| message(&error))?;
        Ok(values)
    }
}

/// What a column is stored as: the types that a stream's fields have.
pub(crate) fn stored_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        data_type if data_type.is_integer() => DataType::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => DataType::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, value) => stored_type(value)?,
        DataType::Boolean => DataType::Boolean,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Null => DataType::Float64,
        _ => return None,
    })
}
