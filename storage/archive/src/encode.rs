//! Sorted rows as one Parquet file, with what Delta and `quiver_hot::ArchiveFile` say about it.
//!
//! Columns: `ts`, `device`, `arrival`, `position`, then the fields. The day is in the path only.
//! The file carries no Arrow schema, so that every reader takes the plain Parquet types. How each
//! column is encoded is decided for each file, by [`choose`](crate::choose).

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::SortingColumn, properties::WriterProperties},
    schema::types::ColumnPath,
};
use quiver_hot::ArchiveFile;
use quiver_model::{DEVICE, DecimalScale, POSITION, Position, TS, Timestamp};
use serde_json::{Map, Value, json};

use crate::{
    choose::{Choices, Effort, apply, choose, defaults, sample_ranges},
    decimals::{Decimals, NotDecimal, scale_of},
    gather::gather,
    sort::{Fixed, RowRef},
    time_text::rfc3339,
};

/// Rows of a row group: small enough that one device's rows of a day are a few of them.
pub(crate) const ROW_GROUP_ROWS: usize = 131_072;
/// Rows that are gathered at a time, and bytes of them: rows with long texts are large.
const GATHER_ROWS: usize = 32_768;
const GATHER_BYTES: usize = 16 << 20;
/// Delta readers keep statistics of this many leading columns.
const STATISTICS_COLUMNS: usize = 32;

/// Why rows cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("rows cannot be gathered")]
    Gather(#[from] ArrowError),
    #[error("rows cannot be encoded as Parquet")]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    NotDecimal(#[from] NotDecimal),
    #[error("a batch has not the layout of stored rows, or there are no rows")]
    Layout,
}

/// A file that is ready to be stored.
#[derive(Debug)]
pub(crate) struct EncodedFile {
    pub(crate) content: Bytes,
    pub(crate) file: ArchiveFile,
    /// Delta's statistics, as the JSON text an `add` action carries.
    pub(crate) statistics: String,
}

/// How columns are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encodings {
    /// As measured, with this effort.
    Measured(Effort),
    /// The same for every column of a type, for comparison.
    Fixed,
}

/// Encodes `rows` (in the archive's order, all of `day`) of `batches`, which all have `schema`:
/// the stored layout of a stream, as [`stored_schema`](crate::read::stored_schema) makes it.
pub(crate) fn encode(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows: &[RowRef],
    day: i32,
    path: String,
    encodings: Encodings,
) -> Result<EncodedFile, EncodeError> {
    let devices = count_devices(batches, rows);
    let decimals = Decimals::of(schema);
    let choices = choices(schema, &decimals, batches, rows, encodings)?;
    let options = ArrowWriterOptions::new()
        .with_properties(properties(decimals.schema(), devices, &choices)?)
        .with_skip_arrow_metadata(true);
    let written = Arc::clone(decimals.schema());
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), written, options)?;
    let mut columns: Vec<ColumnStatistics> = schema
        .fields()
        .iter()
        .map(|field| ColumnStatistics::new(field.name(), scale_of(field)))
        .collect();
    let (mut first_device, mut last_device) = (None, None);
    for rows in rows.chunks(rows_at_once(batches)) {
        let batch = gather(schema, batches, rows)?;
        let fixed = Fixed::of(&batch).ok_or(EncodeError::Layout)?;
        first_device.get_or_insert_with(|| fixed.device(0).to_owned());
        last_device = Some(fixed.device(rows.len() - 1).to_owned());
        for (statistics, column) in columns.iter_mut().zip(batch.columns()) {
            statistics.add(column);
        }
        writer.write(&decimals.apply(&batch)?)?;
    }
    writer.finish()?;
    let content = Bytes::from(std::mem::take(writer.inner_mut()));

    let (Some(min_device), Some(max_device)) = (first_device, last_device) else {
        return Err(EncodeError::Layout);
    };
    let bounds = |name: &str| match columns
        .iter()
        .find(|column| column.name == name)
        .map(|column| &column.range)
    {
        Some(Range::Int64(min, max) | Range::Time(min, max)) => Ok((*min, *max)),
        _ => Err(EncodeError::Layout),
    };
    let (min_ts, max_ts) = bounds(TS)?;
    let (min_position, max_position) = bounds(POSITION)?;
    let position = |value: i64| Position(u64::try_from(value).unwrap_or(0));
    let statistics = statistics_json(rows.len(), &columns, &min_device, &max_device);
    let file = ArchiveFile {
        path,
        day,
        bytes: content.len() as u64,
        rows: rows.len() as u64,
        min_ts: Timestamp(min_ts),
        max_ts: Timestamp(max_ts),
        min_position: position(min_position),
        max_position: position(max_position),
        min_device,
        max_device,
    };
    Ok(EncodedFile {
        content,
        file,
        statistics,
    })
}

/// How the columns of these rows are encoded.
pub(crate) fn choices(
    schema: &SchemaRef,
    decimals: &Decimals,
    batches: &[RecordBatch],
    rows: &[RowRef],
    encodings: Encodings,
) -> Result<Choices, EncodeError> {
    let Encodings::Measured(effort) = encodings else {
        return Ok(defaults(decimals.schema()));
    };
    let sampled: Vec<RowRef> = sample_ranges(rows.len(), effort)
        .into_iter()
        .flat_map(|range| rows[range].iter().copied())
        .collect();
    if sampled.is_empty() {
        return Ok(defaults(decimals.schema()));
    }
    let sample = decimals.apply(&gather(schema, batches, &sampled)?)?;
    Ok(choose(&sample, rows.len(), effort)?)
}

fn properties(
    schema: &SchemaRef,
    devices: u64,
    choices: &Choices,
) -> Result<WriterProperties, ParquetError> {
    let device = ColumnPath::from(DEVICE);
    let sorted = [1, 0, 3].map(|column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: false,
    });
    let properties = WriterProperties::builder()
        .set_created_by(concat!("quiver ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_truncate_length(None)
        .set_sorting_columns(Some(sorted.to_vec()))
        .set_column_bloom_filter_enabled(device.clone(), true)
        .set_column_bloom_filter_fpp(device.clone(), 0.01)
        .set_column_bloom_filter_max_ndv(device, devices.max(1));
    Ok(apply(properties, schema, choices)?.build())
}

/// Rows to gather at a time, by what a row of these batches takes on average.
fn rows_at_once(batches: &[RecordBatch]) -> usize {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let bytes: usize = batches.iter().map(quiver_hot::batch_bytes).sum();
    let of_row = (bytes / rows.max(1)).max(1);
    (GATHER_BYTES / of_row).clamp(1, GATHER_ROWS)
}

/// Runs of equal devices in `rows`, which is how many devices there are when they are sorted.
fn count_devices(batches: &[RecordBatch], rows: &[RowRef]) -> u64 {
    let fixed: Vec<Option<Fixed<'_>>> = batches.iter().map(Fixed::of).collect();
    let mut last: Option<(u32, i32, &str)> = None;
    let mut devices = 0;
    for at in rows {
        let Some(fixed) = &fixed[at.batch as usize] else {
            continue;
        };
        let key = fixed.keys[at.row as usize];
        if last.is_some_and(|(batch, last_key, _)| (batch, last_key) == (at.batch, key)) {
            continue;
        }
        let name = fixed.device(at.row as usize);
        devices += u64::from(last.is_none_or(|(_, _, last_name)| last_name != name));
        last = Some((at.batch, key, name));
    }
    devices
}

#[derive(Debug)]
enum Range {
    /// No value yet, or none that can be compared.
    None,
    Int64(i64, i64),
    Time(i64, i64),
    Float64(f64, f64),
    /// There was a NaN, which JSON has no word for and which no bound holds.
    Unbounded,
}

#[derive(Debug)]
struct ColumnStatistics {
    name: String,
    scale: Option<DecimalScale>,
    nulls: usize,
    range: Range,
}

impl ColumnStatistics {
    fn new(name: &str, scale: Option<DecimalScale>) -> Self {
        Self {
            name: name.to_owned(),
            scale,
            nulls: 0,
            range: Range::None,
        }
    }

    fn add(&mut self, column: &ArrayRef) {
        self.nulls += column.null_count();
        let range = std::mem::replace(&mut self.range, Range::None);
        self.range = match column.data_type() {
            DataType::Int64 => match (range, integer_bounds(column.as_primitive::<Int64Type>())) {
                (Range::Int64(min, max), Some((low, high))) => {
                    Range::Int64(min.min(low), max.max(high))
                }
                (_, Some((low, high))) => Range::Int64(low, high),
                (range, None) => range,
            },
            DataType::Timestamp(_, _) => {
                match (
                    range,
                    integer_bounds(column.as_primitive::<TimestampMicrosecondType>()),
                ) {
                    (Range::Time(min, max), Some((low, high))) => {
                        Range::Time(min.min(low), max.max(high))
                    }
                    (_, Some((low, high))) => Range::Time(low, high),
                    (range, None) => range,
                }
            }
            DataType::Float64 => {
                column
                    .as_primitive::<Float64Type>()
                    .iter()
                    .flatten()
                    .fold(range, |range, value| match range {
                        Range::Unbounded => Range::Unbounded,
                        _ if !value.is_finite() => Range::Unbounded,
                        Range::Float64(min, max) => Range::Float64(min.min(value), max.max(value)),
                        _ => Range::Float64(value, value),
                    })
            }
            _ => range,
        };
    }
}

impl ColumnStatistics {
    /// A bound as Delta's statistics have it: a decimal has no more digits than its type.
    fn bound(&self, value: f64) -> Option<Value> {
        let Some(scale) = self.scale else {
            return Some(json!(value));
        };
        let scaled = scale.scaled(value)?;
        if scale.digits() == 0 {
            return Some(json!(scaled));
        }
        // The shortest text that reads as this number is the decimal; but not every reader knows
        // exponents.
        let text = json!(value);
        (!text.to_string().contains('e')).then_some(text)
    }
}

fn integer_bounds<T>(array: &arrow_array::PrimitiveArray<T>) -> Option<(i64, i64)>
where
    T: arrow_array::types::ArrowPrimitiveType<Native = i64>,
{
    let widen = |bounds: Option<(i64, i64)>, value: i64| {
        Some(bounds.map_or((value, value), |(min, max)| {
            (min.min(value), max.max(value))
        }))
    };
    if array.null_count() == 0 {
        array.values().iter().copied().fold(None, widen)
    } else {
        array.iter().flatten().fold(None, widen)
    }
}

fn statistics_json(
    rows: usize,
    columns: &[ColumnStatistics],
    min_device: &str,
    max_device: &str,
) -> String {
    let (mut min_values, mut max_values, mut null_counts) = (Map::new(), Map::new(), Map::new());
    for column in columns.iter().take(STATISTICS_COLUMNS) {
        null_counts.insert(column.name.clone(), json!(column.nulls));
        let (min, max): (Value, Value) = match &column.range {
            Range::Int64(min, max) => (json!(min), json!(max)),
            Range::Time(min, max) => (
                json!(rfc3339(Timestamp(*min))),
                json!(rfc3339(Timestamp(*max))),
            ),
            Range::Float64(min, max) => match (column.bound(*min), column.bound(*max)) {
                (Some(min), Some(max)) => (min, max),
                _ => continue,
            },
            _ if column.name == DEVICE => (json!(min_device), json!(max_device)),
            Range::None | Range::Unbounded => continue,
        };
        min_values.insert(column.name.clone(), min);
        max_values.insert(column.name.clone(), max);
    }
    json!({
        "numRecords": rows,
        "minValues": min_values,
        "maxValues": max_values,
        "nullCount": null_counts,
    })
    .to_string()
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
