//! Cuts rows into batches by a rule that looks at nothing but the rows, so that the same file
//! always makes the same batches.
//!
//! A batch ends before the row with which it would have more than 32,768 rows, more than 3 MiB by
//! the count below, or event times more than 366 days apart (what a server refuses). Changing the
//! rule means changing [`BATCHING_VERSION`], which is part of a file's producer.

use arrow_array::{Array, RecordBatch, cast::AsArray, types::TimestampMicrosecondType};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::concat::concat_batches;

use super::BATCH_ROWS_MAX;

/// Version of the rule, and of how values are read.
pub(super) const BATCHING_VERSION: u32 = 4;
/// Most bytes of a batch; less than the protocol allows, before compression.
const BATCH_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Most bytes of a row by the same count: with the padding of its columns it still fits into a
/// message, whatever the compression.
pub(super) const ROW_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Most microseconds between the event times of a batch.
const BATCH_SPAN_US_MAX: i64 = 366 * 86_400_000_000;

/// Collects rows and gives out whole batches.
#[derive(Debug)]
pub(super) struct Batcher {
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    earliest: i64,
    latest: i64,
}

impl Batcher {
    pub fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            pending: Vec::new(),
            rows: 0,
            bytes: 0,
            earliest: i64::MAX,
            latest: i64::MIN,
        }
    }

    /// Takes rows (layout of the schema: `ts`, `device`, fields); appends the batches that are full.
    pub fn push(
        &mut self,
        chunk: &RecordBatch,
        full: &mut Vec<RecordBatch>,
    ) -> Result<(), ArrowError> {
        let times = chunk.column(0).as_primitive::<TimestampMicrosecondType>();
        let texts: Vec<_> = chunk
            .columns()
            .iter()
            .filter(|column| *column.data_type() == DataType::Utf8)
            .map(|column| column.as_string::<i32>())
            .collect();
        let fixed = 8 * (chunk.num_columns() - texts.len());
        let mut start = 0;
        for row in 0..chunk.num_rows() {
            let time = times.value(row);
            let bytes = fixed
                + texts
                    .iter()
                    .map(|text| 4 + text.value_length(row) as usize)
                    .sum::<usize>();
            let (earliest, latest) = (self.earliest.min(time), self.latest.max(time));
            let is_full = self.rows == BATCH_ROWS_MAX
                || self.rows > 0
                    && (self.bytes + bytes > BATCH_BYTES_MAX
                        || latest.saturating_sub(earliest) > BATCH_SPAN_US_MAX);
            if is_full {
                self.pending.push(chunk.slice(start, row - start));
                full.push(self.cut()?);
                start = row;
            }
            self.rows += 1;
            self.bytes += bytes;
            self.earliest = self.earliest.min(time);
            self.latest = self.latest.max(time);
        }
        self.pending
            .push(chunk.slice(start, chunk.num_rows() - start));
        Ok(())
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.rows == 0 {
            Ok(None)
        } else {
            self.cut().map(Some)
        }
    }

    fn cut(&mut self) -> Result<RecordBatch, ArrowError> {
        let batch = concat_batches(&self.schema, &self.pending)?;
        *self = Self::new(self.schema.clone());
        Ok(batch)
    }
}
