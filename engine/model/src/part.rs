//! The rows of one shard in a batch.
//!
//! A gateway's batch has rows of many shards' devices. It is not taken apart: the shards share it,
//! each with the numbers of its rows, until each has laid its own rows beside those of other batches
//! (see [`CheckedBatch::place_together`]). So every value is copied once, straight to where it stays.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray};
use arrow_schema::{ArrowError, DataType};

use crate::{
    CheckedBatch, Partition, Placed, Position, ShardId, StreamSchema, Timestamp, array_bytes,
};

/// Bytes of a row's fixed columns: event time, key of the device, arrival, position.
const FIXED_ROW_BYTES: usize = 8 + 4 + 8 + 8;

/// Some rows of a batch that others may hold as well, or all of them.
#[derive(Clone, Debug)]
pub struct BatchPart {
    batch: Arc<CheckedBatch>,
    /// `None` for all.
    rows: Option<Rows>,
}

#[derive(Clone, Debug)]
struct Rows {
    /// Ascending.
    numbers: Box<[u32]>,
    /// Bytes of memory that the names of their devices take.
    names_bytes: usize,
}

impl From<CheckedBatch> for BatchPart {
    fn from(batch: CheckedBatch) -> Self {
        Self {
            batch: Arc::new(batch),
            rows: None,
        }
    }
}

impl CheckedBatch {
    /// The rows of each shard that has some, shards ascending.
    pub fn split_by_shard(self, shard_count: u16) -> Vec<(ShardId, BatchPart)> {
        let names = self.device.values().as_string::<i32>();
        let shards: Vec<ShardId> = (0..names.len())
            .map(|index| Partition::of_str(names.value(index)).shard(shard_count))
            .collect();
        let Some(first) = shards.first().copied() else {
            return Vec::new();
        };
        if shards.iter().all(|shard| *shard == first) {
            return vec![(first, self.into())];
        }
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); usize::from(shard_count)];
        for (row, key) in self.device.keys().values().iter().enumerate() {
            rows[usize::from(shards[*key as usize].get())].push(row as u32);
        }
        // Offsets of texts: one more than there are texts.
        let mut names_bytes = vec![size_of::<i32>(); usize::from(shard_count)];
        for (index, shard) in shards.iter().enumerate() {
            let name = names.value(index).len() + size_of::<i32>();
            names_bytes[usize::from(shard.get())] += name;
        }
        let batch = Arc::new(self);
        rows.into_iter()
            .zip(names_bytes)
            .enumerate()
            .filter(|(_, (numbers, _))| !numbers.is_empty())
            .map(|(shard, (numbers, names_bytes))| {
                let rows = Rows {
                    numbers: numbers.into(),
                    names_bytes,
                };
                let part = BatchPart {
                    batch: batch.clone(),
                    rows: Some(rows),
                };
                (ShardId(shard as u16), part)
            })
            .collect()
    }
}

impl BatchPart {
    /// The schema the rows were normalised to.
    pub fn schema(&self) -> &Arc<StreamSchema> {
        self.batch.schema()
    }

    /// Rows that will be stored.
    pub fn row_count(&self) -> usize {
        self.rows().map_or(self.batch.row_count(), <[u32]>::len)
    }

    /// Field values that are not null: the measure of throughput.
    pub fn point_count(&self) -> u64 {
        let Some(rows) = self.rows() else {
            return self.batch.point_count();
        };
        let valid = |column: &ArrayRef| match column.nulls() {
            Some(nulls) if nulls.null_count() > 0 => {
                let is_valid = |row: &&u32| nulls.is_valid(**row as usize);
                rows.iter().filter(is_valid).count()
            }
            _ => rows.len(),
        };
        let columns = self.batch.columns.iter();
        columns.map(|(_, column)| valid(column) as u64).sum()
    }

    /// Bytes that the rows will take in memory once they have positions.
    pub fn memory_size(&self) -> usize {
        let names = match &self.rows {
            None => array_bytes(self.batch.device.values()),
            Some(rows) => rows.names_bytes,
        };
        let columns = self.batch.columns.iter();
        let fields: usize = columns
            .map(|(_, column)| match self.rows() {
                None => array_bytes(column),
                Some(rows) => bytes_of(column, rows),
            })
            .sum();
        self.row_count() * FIXED_ROW_BYTES + names + fields
    }

    /// The rows as [`CheckedBatch::place`] stores them.
    ///
    /// # Errors
    /// If positions would be beyond 2^63.
    pub fn place(
        &self,
        first: Position,
        record_time: Timestamp,
    ) -> Result<RecordBatch, ArrowError> {
        let placed = Placed {
            part: self.clone(),
            first,
            time: record_time,
        };
        CheckedBatch::place_together(self.schema(), &[placed])
    }

    pub(crate) fn batch(&self) -> &CheckedBatch {
        &self.batch
    }

    /// Numbers of the rows; `None` for all.
    pub(crate) fn rows(&self) -> Option<&[u32]> {
        self.rows.as_ref().map(|rows| &*rows.numbers)
    }
}

/// Bytes of memory that these rows of a field's column take, as [`array_bytes`] has them.
fn bytes_of(column: &ArrayRef, rows: &[u32]) -> usize {
    let validity = column.nulls().map_or(0, |_| rows.len().div_ceil(8));
    let values = match column.data_type() {
        DataType::Boolean => rows.len().div_ceil(8),
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            let length = |row: &u32| offsets[*row as usize + 1] - offsets[*row as usize];
            let text: i64 = rows.iter().map(|row| i64::from(length(row))).sum();
            usize::try_from(text).unwrap_or(0) + (rows.len() + 1) * size_of::<i32>()
        }
        other => other.primitive_width().unwrap_or(8) * rows.len(),
    };
    validity + values
}
