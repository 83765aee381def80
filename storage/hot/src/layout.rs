//! The layout of stored rows (`quiver_model::StreamSchema::stored`): checks, cheap slices by
//! position, and growing a batch of an older schema version to a newer one.
//!
//! A batch keeps the columns of the version it was stored with; later fields are added as nulls
//! when it is read, coalesced with a newer one, or flushed, never when it is appended.

use std::{ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, cast::AsArray, new_null_array,
    types::Int64Type,
};
use arrow_schema::{ArrowError, SchemaRef};
use quiver_model::{Position, array_bytes};

/// Index of `ts`.
pub(crate) const TS_INDEX: usize = 0;
/// Index of `device`.
pub(crate) const DEVICE_INDEX: usize = 1;
/// Index of `arrival`.
pub(crate) const ARRIVAL_INDEX: usize = 2;
/// Index of `position`.
pub(crate) const POSITION_INDEX: usize = 3;
/// Number of columns before the fields.
pub(crate) const FIXED_COLUMNS: usize = 4;

/// Why a batch does not have the layout of its stream's stored rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It has fewer columns than every stored row has.
    #[error(
        "a stored batch has {found} columns, fewer than the {FIXED_COLUMNS} every stored row has"
    )]
    MissingColumns {
        /// Columns it has.
        found: usize,
    },
    /// A column has another name or type than the schema says.
    #[error("column {index} of a stored batch is {found}, where the schema has {expected}")]
    Column {
        /// Index of the column.
        index: usize,
        /// Name and type it has.
        found: String,
        /// Name and type it should have.
        expected: String,
    },
    /// It has columns that the schema does not know yet.
    #[error(
        "a stored batch has {found} columns, the schema {known}; set the newer schema before appending"
    )]
    UnknownColumns {
        /// Columns it has.
        found: usize,
        /// Columns the schema has.
        known: usize,
    },
    /// A column that must have a value in each row has nulls.
    #[error("column {name} of a stored batch has {nulls} nulls")]
    Nulls {
        /// Name of the column.
        name: &'static str,
        /// How many.
        nulls: usize,
    },
}

/// Checks that `batch` has a prefix of `schema`'s columns, at least the fixed ones.
pub(crate) fn check(batch: &RecordBatch, schema: &SchemaRef) -> Result<(), LayoutError> {
    let found = batch.schema_ref();
    let count = found.fields().len();
    if !Arc::ptr_eq(found, schema) {
        if count < FIXED_COLUMNS {
            return Err(LayoutError::MissingColumns { found: count });
        }
        if count > schema.fields().len() {
            return Err(LayoutError::UnknownColumns {
                found: count,
                known: schema.fields().len(),
            });
        }
        let pairs = found.fields().iter().zip(schema.fields());
        for (index, (have, want)) in pairs.enumerate() {
            let same = Arc::ptr_eq(have, want)
                || (have.name() == want.name() && have.data_type() == want.data_type());
            if !same {
                return Err(LayoutError::Column {
                    index,
                    found: format!("{} {}", have.name(), have.data_type()),
                    expected: format!("{} {}", want.name(), want.data_type()),
                });
            }
        }
    }
    for (index, name) in [
        (TS_INDEX, "ts"),
        (DEVICE_INDEX, "device"),
        (ARRIVAL_INDEX, "arrival"),
        (POSITION_INDEX, "position"),
    ] {
        let nulls = batch.column(index).null_count();
        if nulls > 0 {
            return Err(LayoutError::Nulls { name, nulls });
        }
    }
    Ok(())
}

/// The `position` column of a stored batch; `None` if the batch is not of the stored layout.
pub fn positions(batch: &RecordBatch) -> Option<&Int64Array> {
    batch
        .columns()
        .get(POSITION_INDEX)?
        .as_primitive_opt::<Int64Type>()
}

/// Position of row `row` as the engine counts it.
pub(crate) fn position_at(positions: &Int64Array, row: usize) -> Position {
    Position(u64::try_from(positions.value(row)).unwrap_or(0))
}

/// First and last position of a batch whose positions ascend; `None` if it has no rows.
pub(crate) fn position_bounds(batch: &RecordBatch) -> Option<(Position, Position)> {
    let positions = positions(batch)?;
    let last = positions.len().checked_sub(1)?;
    Some((position_at(positions, 0), position_at(positions, last)))
}

/// The rows of a stored batch with position in (`after`, `up_to`], sharing buffers; `None` if there
/// are none. Positions ascend within the batch.
pub fn slice_positions(
    batch: &RecordBatch,
    after: Position,
    up_to: Position,
) -> Option<RecordBatch> {
    let values = positions(batch)?.values();
    let Range { start, end } = position_range(values, after, up_to);
    if start >= end {
        return None;
    }
    Some(if end - start == batch.num_rows() {
        batch.clone()
    } else {
        batch.slice(start, end - start)
    })
}

fn position_range(ascending: &[i64], after: Position, up_to: Position) -> Range<usize> {
    let bound = |position: Position| i64::try_from(position.get()).unwrap_or(i64::MAX);
    let start = ascending.partition_point(|position| *position <= bound(after));
    let end = ascending.partition_point(|position| *position <= bound(up_to));
    start..end
}

/// `batch` with the columns of `schema`, of which it has a prefix; missing ones are null.
///
/// # Errors
/// If the batch has more columns than `schema`, or other types.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if Arc::ptr_eq(batch.schema_ref(), schema) {
        return Ok(batch.clone());
    }
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    for field in schema.fields().iter().skip(columns.len()) {
        columns.push(new_null_array(field.data_type(), rows));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Bytes of memory that the rows of `batch` take, without what their buffers hold of other rows:
/// what to reserve before a batch is admitted.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| array_bytes(column.as_ref()))
        .sum()
}
