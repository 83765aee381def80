//! Results as bytes: for people, for other programs, for files.
//!
//! [`ResultEncoder`] is the core, without I/O: batches in, bytes out. [`encode`] makes a stream of
//! chunks of it (an HTTP body), [`write_result`] writes to a file or terminal. All formats stream;
//! memory does not grow with the result.

mod arrow;
mod csv;
mod json;
mod parquet;
mod table;

use std::{fmt, io, str::FromStr};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::{error::WriteError, result::QueryResult};

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Columns aligned for people; control characters are escaped. Nulls are shown as `NULL`.
    Table,
    /// RFC 4180 with a header and `\n`. Null is an empty field, empty text is `""`; times are
    /// RFC 3339; floats have all their digits, and `NaN`, `inf`, `-inf`.
    Csv,
    /// One array of objects. JSON has no `NaN` and no infinities: they become null.
    Json,
    /// One object a line, values as in [`Format::Json`].
    JsonLines,
    /// An Arrow IPC stream, uncompressed.
    Arrow,
    /// A Parquet file, ZSTD.
    Parquet,
}

/// A name that no format has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no format {0:?}; there are table, csv, json, jsonl, arrow and parquet")]
pub struct UnknownFormat(pub String);

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [
        Self::Table,
        Self::Csv,
        Self::Json,
        Self::JsonLines,
        Self::Arrow,
        Self::Parquet,
    ];

    /// The name used on the command line, and as a file's extension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::JsonLines => "jsonl",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// The media type for HTTP.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// Whether the bytes should not be shown on a terminal.
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Arrow | Self::Parquet)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let format = Self::ALL.into_iter().find(|format| format.as_str() == name);
        format.ok_or_else(|| UnknownFormat(name.chars().take(40).collect()))
    }
}

/// A result that a format cannot express.
#[derive(Debug, thiserror::Error)]
#[error("the result cannot be written as {format}: {problem}")]
pub struct FormatError {
    /// The format.
    pub format: Format,
    /// What it cannot express.
    pub problem: String,
}

/// One format's encoder.
trait Encode: Send {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError>;
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError>;
}

/// Batches in, bytes out. After [`ResultEncoder::finish`] it is used up.
pub struct ResultEncoder {
    format: Format,
    inner: Box<dyn Encode>,
}

impl fmt::Debug for ResultEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultEncoder")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl ResultEncoder {
    /// An encoder for batches of `schema`.
    ///
    /// # Errors
    /// If the format has no type for a column.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self, FormatError> {
        let fail = |error: ArrowError| FormatError {
            format,
            problem: error.to_string(),
        };
        let inner: Box<dyn Encode> = match format {
            Format::Table => Box::new(table::TableEncoder::new(schema)),
            Format::Csv => Box::new(csv::CsvEncoder::new(schema)),
            Format::Json => Box::new(json::JsonEncoder::array()),
            Format::JsonLines => Box::new(json::JsonEncoder::lines()),
            Format::Arrow => Box::new(arrow::ArrowEncoder::new(schema).map_err(fail)?),
            Format::Parquet => Box::new(parquet::ParquetEncoder::new(schema).map_err(fail)?),
        };
        Ok(Self { format, inner })
    }

    /// Takes a batch; appends what can be written by now to `out`.
    ///
    /// # Errors
    /// If a value cannot be expressed.
    pub fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let format = self.format;
        self.inner.batch(batch, out).map_err(|error| FormatError {
            format,
            problem: error.to_string(),
        })
    }

    /// Appends the rest to `out`.
    ///
    /// # Errors
    /// If a value cannot be expressed.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let format = self.format;
        self.inner.finish(out).map_err(|error| FormatError {
            format,
            problem: error.to_string(),
        })
    }
}

/// A result as chunks of bytes; ends after the first error, without what the format puts at the
/// end, so that a cut result is not taken for a whole one.
pub fn encode(
    result: QueryResult,
    format: Format,
) -> impl Stream<Item = Result<Bytes, WriteError>> + Send + Unpin {
    enum State {
        Start(QueryResult, Format),
        Rows(QueryResult, ResultEncoder),
        End,
    }
    let chunks = stream::unfold(State::Start(result, format), |mut state| async move {
        loop {
            let mut out = Vec::new();
            let (chunk, next) = match state {
                State::End => return None,
                State::Start(result, format) => match ResultEncoder::new(format, result.schema()) {
                    Ok(encoder) => {
                        state = State::Rows(result, encoder);
                        continue;
                    }
                    Err(error) => (Err(error.into()), State::End),
                },
                State::Rows(mut result, mut encoder) => match result.next().await {
                    Some(Ok(batch)) => match encoder.encode(&batch, &mut out) {
                        Ok(()) => (Ok(()), State::Rows(result, encoder)),
                        Err(error) => (Err(error.into()), State::End),
                    },
                    Some(Err(error)) => (Err(WriteError::Query(error)), State::End),
                    None => (
                        encoder.finish(&mut out).map_err(WriteError::Format),
                        State::End,
                    ),
                },
            };
            match chunk {
                Ok(()) if out.is_empty() => state = next,
                Ok(()) => return Some((Ok(Bytes::from(out)), next)),
                Err(error) => return Some((Err(error), next)),
            }
        }
    });
    Box::pin(chunks)
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Writes a result to `sink` (a file, a terminal) as it comes. The sink blocks the calling task:
/// for command lines, not for servers, which take [`encode`].
///
/// # Errors
/// If the query fails, the format cannot express the result, or the sink fails. What was written
/// until then stays.
pub async fn write_result(
    mut result: QueryResult,
    format: Format,
    sink: &mut (dyn io::Write + Send),
) -> Result<Written, WriteError> {
    let mut encoder = ResultEncoder::new(format, result.schema())?;
    let mut written = Written::default();
    let mut out = Vec::new();
    while let Some(batch) = result.next().await {
        let batch = batch?;
        written.rows += batch.num_rows() as u64;
        encoder.encode(&batch, &mut out)?;
        written.bytes += out.len() as u64;
        sink.write_all(&out)?;
        out.clear();
    }
    encoder.finish(&mut out)?;
    written.bytes += out.len() as u64;
    sink.write_all(&out)?;
    sink.flush()?;
    Ok(written)
}
