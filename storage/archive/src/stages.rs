//! The stages of a flush, each by itself: for benches, which measure what each of them costs.
//!
//! [`DeltaArchive`](crate::DeltaArchive) does not go through here; it uses what this uses.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use quiver_hot::Source;
use quiver_model::{StreamField, StreamName};

pub use crate::{choose::Effort, encode::Encodings};

use crate::{
    decimals::Decimals,
    encode::{choices, encode},
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
        let decimals = Decimals::of(schema);
        for day in &self.days {
            choices(schema, &decimals, batches, &day.rows, encodings)?;
        }
        Ok(())
    }
}

/// The layout of a stream's rows, with decimal fields marked: what [`Sorted::encode`] takes.
///
/// # Errors
/// If these fields make no schema.
pub fn layout(stream: &StreamName, fields: &[StreamField]) -> Result<SchemaRef, Source> {
    Ok(stored_schema(stream, fields)?)
}
