//! The last row of every device in every stream: what `last_cache('stream')` answers from.
//!
//! Last is the row with the greatest (ts, position), not the one that came last. Each shard
//! updates its own part, batch by batch, right after it has applied the batch; a reader merges the
//! parts. A batch is in it wholly or not at all. Readers and checkpoints take a part as it is at
//! one moment, which costs next to nothing, and work on that while the shard goes on.

use std::{collections::BTreeMap, sync::Mutex};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use quiver_model::{ShardId, StreamName, StreamSchema};

use crate::{
    LayoutError, last_codec,
    last_codec::ImportError,
    last_columns::{FrozenColumns, LastColumns},
    layout::conform,
    sync::lock,
};

type Part = BTreeMap<StreamName, LastColumns>;

/// Rows of a portion: what encoding, and decoding, a checkpoint has in memory at once.
const PORTION_ROWS: usize = 16_384;

/// Last rows of all devices; shared by shards and queries.
#[derive(Debug)]
pub struct LastValues {
    parts: Vec<Mutex<Part>>,
}

impl LastValues {
    /// Nothing yet, for an engine with `shard_count` shards (at least one).
    pub fn new(shard_count: u16) -> Self {
        Self {
            parts: (0..shard_count.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes over the rows of a stored batch that are later than what their devices have. By the
    /// shard that owns the devices. A shard that does not exist is a part of its own that nobody
    /// has: nothing is kept.
    ///
    /// # Errors
    /// If the batch has not the stored layout, or contradicts an earlier one.
    pub fn update(
        &self,
        shard: ShardId,
        stream: &StreamName,
        batch: &RecordBatch,
    ) -> Result<(), LayoutError> {
        let Some(part) = self.parts.get(usize::from(shard.get())) else {
            return Ok(());
        };
        let mut part = lock(part);
        if let Some(columns) = part.get_mut(stream) {
            return columns.update(batch);
        }
        let mut columns = LastColumns::default();
        columns.update(batch)?;
        part.insert(stream.clone(), columns);
        Ok(())
    }

    /// The last rows of a stream, one per device, in the schema's stored layout and no particular
    /// order. Holds at least everything that the shards had applied when it was called. The shards
    /// do not wait while they are put together.
    ///
    /// # Errors
    /// If `schema` is older than the batches that were applied.
    pub fn snapshot(&self, schema: &StreamSchema) -> Result<RecordBatch, ArrowError> {
        let stored = schema.stored();
        let mut batches = Vec::new();
        for part in &self.parts {
            let frozen = lock(part).get(schema.stream()).map(LastColumns::freeze);
            let batch = match frozen {
                Some(columns) => columns.to_batch(stored, 0..columns.devices())?,
                None => None,
            };
            if let Some(batch) = batch {
                batches.push(conform(&batch, stored)?);
            }
        }
        concat_batches(stored, &batches)
    }

    /// A shard's part as it is now, for a checkpoint: cheap to make, and encoded when and where
    /// that is in nobody's way. While it is there, what is written afterwards is copied first, at
    /// most all of it once.
    pub fn freeze(&self, shard: ShardId) -> FrozenLastValues {
        let Some(part) = self.parts.get(usize::from(shard.get())) else {
            return FrozenLastValues::default();
        };
        let part = lock(part);
        let streams = part.iter();
        FrozenLastValues {
            streams: streams
                .map(|(stream, columns)| (stream.clone(), columns.freeze()))
                .collect(),
        }
    }

    /// Takes over one of the [`FrozenLastValues::portions`] of any shard, of an engine with any
    /// number of shards. What is later already stays.
    pub fn import(&self, bytes: &[u8]) -> Result<(), ImportError> {
        let shard_count = u16::try_from(self.parts.len()).unwrap_or(u16::MAX);
        for (stream, batch) in last_codec::decode(bytes)? {
            for (shard, batch) in last_codec::by_shard(&batch, shard_count)? {
                self.update(shard, &stream, &batch)
                    .map_err(|source| ImportError::Layout {
                        stream: stream.clone(),
                        source,
                    })?;
            }
        }
        Ok(())
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.parts
            .iter()
            .map(|part| lock(part).values().map(LastColumns::bytes).sum::<usize>())
            .sum()
    }

    /// How many devices have a last row in `stream`.
    pub fn devices(&self, stream: &StreamName) -> usize {
        self.parts
            .iter()
            .map(|part| lock(part).get(stream).map_or(0, LastColumns::devices))
            .sum()
    }

    /// Streams with at least one row, by name.
    pub fn streams(&self) -> Vec<StreamName> {
        let mut names: Vec<_> = self
            .parts
            .iter()
            .flat_map(|part| lock(part).keys().cloned().collect::<Vec<_>>())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A shard's last rows as of some moment.
#[derive(Debug, Default)]
pub struct FrozenLastValues {
    streams: Vec<(StreamName, FrozenColumns)>,
}

impl FrozenLastValues {
    /// All of it as bytes, one part of it after the other, each for [`LastValues::import`]. Their
    /// form is versioned and guarded by a checksum; it does not say which shard they came from.
    ///
    /// # Errors
    /// Only if Arrow cannot encode the rows.
    pub fn portions(&self) -> impl Iterator<Item = Result<Vec<u8>, ArrowError>> + '_ {
        let fixed = last_codec::fixed_schema();
        self.streams.iter().flat_map(move |(stream, columns)| {
            let fixed = fixed.clone();
            let starts = (0..columns.devices()).step_by(PORTION_ROWS);
            starts.filter_map(move |start| {
                match columns.to_batch(&fixed, start..start + PORTION_ROWS) {
                    Ok(Some(batch)) => Some(last_codec::encode(&[(stream.clone(), batch)])),
                    Ok(None) => None,
                    Err(error) => Some(Err(error)),
                }
            })
        })
    }
}

#[cfg(test)]
#[path = "last_values_tests.rs"]
mod tests;
