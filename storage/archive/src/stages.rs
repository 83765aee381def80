//! The stages of a flush, each by itself: for benches, which measure what each of them costs.
//!
//! [`DeltaArchive`](crate::DeltaArchive) does not go through here; it uses what this uses.

use arrow_array::{Array, RecordBatch};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use quiver_hot::Source;
use quiver_model::{StreamField, StreamName};

pub use crate::{choose::Effort, choose::Kind, encode::Encodings};

use crate::{
    choose::Choice,
    chunk::ChunkWriter,
    encode::{choices, encode},
    gather::{Number, Values},
    read::stored_schema,
    sort::{DayRows, sort_by_day},
};

/// Rows in the archive's order.
#[derive(Debug)]
pub struct Sorted {
    days: Vec<DayRows>,
}

/// Sorts the rows of all batches; `None` if one has not the layout of stored rows.
pub fn sort(batches: &[RecordBatch]) -> Option<Sorted> {
    sort_by_day(batches).map(|days| Sorted { days })
}

impl Sorted {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.days.iter().map(|day| day.rows.len()).sum()
    }

    /// Gathers and encodes the rows as a flush does: the content of one Parquet file for each day.
    /// `batches` are those that were sorted, and all have `schema`.
    ///
    /// # Errors
    /// If the batches are others, or Parquet refuses them.
    pub fn encode(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
    ) -> Result<Vec<Bytes>, Source> {
        self.encode_as(schema, batches, Encodings::Measured(Effort::Flush))
    }

    /// Like [`Self::encode`], with other encodings.
    ///
    /// # Errors
    /// If the batches are others, or Parquet refuses them.
    pub fn encode_as(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        encodings: Encodings,
    ) -> Result<Vec<Bytes>, Source> {
        let file = |day: &DayRows| {
            let path = String::new();
            let encoded = encode(schema, batches, &day.rows, day.day, path, encodings)?;
            Ok(encoded.content)
        };
        self.days.iter().map(file).collect()
    }
}

impl Sorted {
    /// Only chooses the encodings that [`Self::encode_as`] would use: what that part of it takes.
    ///
    /// # Errors
    /// If the batches are others, or Parquet refuses them.
    pub fn choose(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        encodings: Encodings,
    ) -> Result<(), Source> {
        for day in &self.days {
            choices(schema, batches, &day.rows, encodings)?;
        }
        Ok(())
    }
}

/// Bytes that a column of 64-bit numbers takes in this encoding, with ZSTD at this level, pages and
/// dictionary together: what a flush does with a column's values once they are gathered. `None` if it
/// is of another type, or has too many values for a dictionary.
///
/// # Errors
/// If ZSTD refuses it.
pub fn encode_column(column: &dyn Array, kind: Kind, level: i32) -> Result<Option<u64>, Source> {
    let Some(number) = Number::of(column.data_type()) else {
        return Ok(None);
    };
    let mut values = Values::default();
    values.set(column)?;
    let trial = ChunkWriter::default().trial(number, values.bits(), Choice { kind, level })?;
    Ok(trial.map(|trial| trial.pages + trial.dictionary))
}

/// The layout of a stream's rows, with decimal fields marked: what [`Sorted::encode`] takes.
///
/// # Errors
/// If these fields make no schema.
pub fn layout(stream: &StreamName, fields: &[StreamField]) -> Result<SchemaRef, Source> {
    Ok(stored_schema(stream, fields)?)
}
