//! Rows as they go from node to node: batches in the layout in which streams are stored.

use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, BooleanArray, DictionaryArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, cast::AsArray as _, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use quiver_expression::FailedRow;

use crate::{graph::ERROR_REASON, secrets::Secrets};

/// Columns that every row has: `ts`, `device`, `arrival`, `position`, in this order.
pub(crate) const FIXED: usize = 4;

/// Rows of one schema. The first columns are `ts`, `device`, `arrival` and `position`.
#[derive(Clone, Debug)]
pub struct Rows(RecordBatch);

/// A batch is not laid out as stored rows are.
#[derive(Debug, thiserror::Error)]
#[error("rows are not laid out as stored rows are: {0}")]
pub struct LayoutError(String);

impl Rows {
    /// Rows in the layout of `StreamSchema::stored`.
    ///
    /// # Errors
    /// If the first four columns are not those of every row.
    pub fn new(batch: RecordBatch) -> Result<Self, LayoutError> {
        let wrong = |name: &str| LayoutError(format!("no column `{name}` in its place"));
        let columns = batch.columns();
        let times = [(0, quiver_model::TS), (2, quiver_model::ARRIVAL)];
        for (index, name) in times {
            columns
                .get(index)
                .and_then(|column| column.as_any().downcast_ref::<TimestampMicrosecondArray>())
                .ok_or_else(|| wrong(name))?;
        }
        columns
            .get(1)
            .and_then(|column| column.as_any().downcast_ref::<DictionaryArray<Int32Type>>())
            .filter(|device| device.values().data_type() == &DataType::Utf8)
            .ok_or_else(|| wrong(quiver_model::DEVICE))?;
        columns
            .get(3)
            .and_then(|column| column.as_any().downcast_ref::<Int64Array>())
            .ok_or_else(|| wrong(quiver_model::POSITION))?;
        Ok(Self(batch))
    }

    /// The batch.
    pub const fn batch(&self) -> &RecordBatch {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their schema.
    pub fn schema(&self) -> &SchemaRef {
        self.0.schema_ref()
    }

    /// Event times, in microseconds since 1970.
    pub fn ts(&self) -> &TimestampMicrosecondArray {
        self.0.column(0).as_primitive()
    }

    /// Devices.
    pub fn device(&self) -> &DictionaryArray<Int32Type> {
        self.0.column(1).as_dictionary()
    }

    /// The different devices, of which [`Self::device`] has the numbers.
    pub fn devices(&self) -> &StringArray {
        self.device().values().as_string()
    }

    /// Arrival times, in microseconds since 1970.
    pub fn arrival(&self) -> &TimestampMicrosecondArray {
        self.0.column(2).as_primitive()
    }

    /// Log positions.
    pub fn position(&self) -> &Int64Array {
        self.0.column(3).as_primitive()
    }

    /// The rows that `mask` has; the same rows, not copied, if it has all.
    pub(crate) fn filter(&self, mask: &BooleanArray) -> Self {
        if mask.true_count() == self.len() {
            return self.clone();
        }
        match filter_record_batch(&self.0, mask) {
            Ok(batch) => Self(batch),
            // The mask is as long as the rows: made of them, everywhere.
            Err(_) => Self(self.0.slice(0, 0)),
        }
    }

    /// With other fields in the place of theirs.
    pub(crate) fn with_fields(&self, schema: &SchemaRef, fields: Vec<ArrayRef>) -> Self {
        let mut columns: Vec<ArrayRef> = self.0.columns()[..FIXED].to_vec();
        columns.extend(fields);
        match RecordBatch::try_new(Arc::clone(schema), columns) {
            Ok(batch) => Self(batch),
            // Columns and schema are made together.
            Err(_) => Self(RecordBatch::new_empty(Arc::clone(schema))),
        }
    }

    /// With more fields behind theirs.
    pub(crate) fn with_more(&self, schema: &SchemaRef, more: Vec<ArrayRef>) -> Self {
        let mut fields: Vec<ArrayRef> = self.0.columns()[FIXED..].to_vec();
        fields.extend(more);
        self.with_fields(schema, fields)
    }

    /// Rows that failed, with the reason of each; `failed` is ascending.
    pub(crate) fn failed(&self, failed: &[FailedRow]) -> Self {
        let mut mask = vec![false; self.len()];
        let mut reasons = Vec::with_capacity(failed.len());
        for FailedRow { row, reason } in failed {
            if let Some(is_failed) = mask.get_mut(*row as usize)
                && !*is_failed
            {
                *is_failed = true;
                reasons.push(Some(reason.as_str()));
            }
        }
        let rows = self.filter(&BooleanArray::from(mask));
        let schema = schema_with(
            rows.schema(),
            [Field::new(ERROR_REASON, DataType::Utf8, true)],
        );
        rows.with_more(&schema, vec![Arc::new(StringArray::from(reasons))])
    }

    /// The same, with reasons that do not say what is secret.
    pub(crate) fn with_reasons_masked(self, secrets: &Secrets) -> Self {
        if secrets.is_empty() {
            return self;
        }
        let Ok(at) = self.schema().index_of(ERROR_REASON) else {
            return self;
        };
        let Some(reasons) = self.0.column(at).as_string_opt::<i32>() else {
            return self;
        };
        let masked = reasons
            .iter()
            .map(|reason| reason.map(|reason| secrets.masked(reason)));
        let mut fields: Vec<ArrayRef> = self.0.columns()[FIXED..].to_vec();
        if let Some(column) = at.checked_sub(FIXED).and_then(|at| fields.get_mut(at)) {
            *column = Arc::new(StringArray::from_iter(masked));
        }
        self.with_fields(self.schema(), fields)
    }

    /// Without the rows that failed.
    pub(crate) fn without(&self, failed: &[FailedRow]) -> Self {
        if failed.is_empty() {
            return self.clone();
        }
        self.filter(&all_but(self.len(), failed))
    }
}

/// A mask of all rows but those that failed.
pub(crate) fn all_but(rows: usize, failed: &[FailedRow]) -> BooleanArray {
    let mut mask = vec![true; rows];
    for FailedRow { row, .. } in failed {
        if let Some(is_kept) = mask.get_mut(*row as usize) {
            *is_kept = false;
        }
    }
    BooleanArray::from(mask)
}

/// A schema with more fields; one of the same name is replaced.
pub(crate) fn schema_with(schema: &SchemaRef, more: impl IntoIterator<Item = Field>) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.extend(more.into_iter().map(Arc::new));
    Arc::new(Schema::new(fields))
}

/// A schema with these fields behind the columns that every row has.
pub(crate) fn schema_of(schema: &SchemaRef, fields: impl IntoIterator<Item = Field>) -> SchemaRef {
    let fixed = schema.fields().iter().take(FIXED).cloned();
    let fields: Vec<Arc<Field>> = fixed.chain(fields.into_iter().map(Arc::new)).collect();
    Arc::new(Schema::new(fields))
}
