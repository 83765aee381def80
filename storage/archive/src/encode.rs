//! Sorted rows as one Parquet file, with what Delta and `quiver_hot::ArchiveFile` say about it.
//!
//! Columns: `ts`, `device`, `arrival`, `position`, then the fields. The day is in the path only.
//! The file carries no Arrow schema, so that every reader takes the plain Parquet types. How each
//! column is encoded is decided for each file, by [`choose`](crate::choose).

use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{
            ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
        },
    },
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::SortingColumn, properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::ColumnPath,
};
use quiver_hot::ArchiveFile;
use quiver_model::{DEVICE, DecimalScale, POSITION, Position, TS, Timestamp};
use serde_json::{Map, Value, json};

use crate::{
    bounds::Bounds,
    choose::{Choices, Effort, choose, defaults, sample_ranges},
    chunk::{BLOOM_FPP, Chunk, ChunkWriter, Facts},
    decimals::{Decimals, NotDecimal, scale_of},
    gather::{Number, Picked, Values, gather, gather_devices},
    sort::RowRef,
    time_text::rfc3339,
};

/// Rows of a row group: small enough that one device's rows of a day are a few of them.
pub(crate) const ROW_GROUP_ROWS: usize = 131_072;
/// Rows of text that are gathered at a time, and bytes of them: rows with long texts are large.
const GATHER_ROWS: usize = 32_768;
const GATHER_BYTES: usize = 16 << 20;
/// Level of ZSTD where nothing else was chosen.
const LEVEL: i32 = 1;
/// Where the device is in the stored layout.
const DEVICE_INDEX: usize = 1;
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
    let choices = choices(schema, batches, rows, encodings)?;
    encode_as(schema, batches, rows, (day, path), choices)
}

/// Like [`encode`], with what was chosen.
pub(crate) fn encode_as(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows: &[RowRef],
    (day, path): (i32, String),
    choices: Choices,
) -> Result<EncodedFile, EncodeError> {
    let mut encoder = FileEncoder::new(schema, batches, rows.len(), choices)?;
    for group in rows.chunks(ROW_GROUP_ROWS) {
        encoder.group(batches, group)?;
    }
    encoder.finish(day, path)
}

/// A file that is being encoded, row group by row group: what takes long can be done in parts.
pub(crate) struct FileEncoder {
    decimals: Decimals,
    choices: Choices,
    file: SerializedFileWriter<Vec<u8>>,
    /// Makes writers of the columns that are neither numbers nor the device.
    others: ArrowRowGroupWriterFactory,
    chunks: ChunkWriter,
    values: Values,
    columns: Vec<ColumnStatistics>,
    first_device: Option<String>,
    last_device: String,
    rows: usize,
    /// Rows of text to gather at a time.
    rows_at_once: usize,
}

impl FileEncoder {
    /// A file for so many rows of these batches.
    pub(crate) fn new(
        schema: &SchemaRef,
        batches: &[RecordBatch],
        rows: usize,
        choices: Choices,
    ) -> Result<Self, EncodeError> {
        let decimals = Decimals::of(schema);
        let options = ArrowWriterOptions::new()
            .with_properties(properties(rows)?)
            .with_skip_arrow_metadata(true);
        let written = Arc::clone(decimals.schema());
        let writer = ArrowWriter::try_new_with_options(Vec::new(), written, options)?;
        let (file, others) = writer.into_serialized_writer()?;
        let columns = schema.fields().iter();
        let columns = columns.map(|field| ColumnStatistics::of(field));
        Ok(Self {
            choices,
            file,
            others,
            chunks: ChunkWriter::default(),
            values: Values::default(),
            columns: columns.collect(),
            first_device: None,
            last_device: String::new(),
            rows: 0,
            rows_at_once: rows_at_once(batches),
            decimals,
        })
    }

    /// Encodes the next row group: at most [`ROW_GROUP_ROWS`] rows.
    pub(crate) fn group(
        &mut self,
        batches: &[RecordBatch],
        rows: &[RowRef],
    ) -> Result<(), EncodeError> {
        if rows.is_empty() {
            return Ok(());
        }
        let picked = Picked::new(batches, rows);
        let devices = picked.devices()?;
        if let (Some((first, _)), Some((last, _))) = (devices.first(), devices.last()) {
            self.first_device.get_or_insert_with(|| (*first).to_owned());
            (*last).clone_into(&mut self.last_device);
        }
        let schema = Arc::clone(self.decimals.schema());
        let descriptors = self.file.schema_descr().columns().to_vec();
        let number = self.file.flushed_row_groups().len();
        let mut others = Others {
            factory: &self.others,
            writers: Vec::new(),
            group: number,
        };
        let mut group = self.file.next_row_group()?;
        for (index, (field, descriptor)) in schema.fields().iter().zip(&descriptors).enumerate() {
            let chunk = match (Number::of(field.data_type()), self.choices[index]) {
                (Some(number), Some(choice)) => {
                    self.values.gather(index, &picked)?;
                    self.decimals.replace(index, &mut self.values)?;
                    let values = &self.values;
                    Some(self.chunks.numbers(descriptor, number, values, choice)?)
                }
                _ if index == DEVICE_INDEX => self.chunks.devices(descriptor, &devices, LEVEL)?,
                _ => None,
            };
            match chunk {
                Some(Chunk {
                    content,
                    close,
                    facts,
                }) => {
                    group.append_column(&content, close)?;
                    self.columns[index].facts.add(facts);
                }
                None => {
                    let mut writer = others.writer(index)?;
                    for rows in rows.chunks(self.rows_at_once) {
                        let picked = Picked::new(batches, rows);
                        let part = if index == DEVICE_INDEX {
                            gather_devices(&picked)?
                        } else {
                            picked.column(index)?
                        };
                        self.columns[index].facts.nulls += part.null_count();
                        for leaf in compute_leaves(field, &part)? {
                            writer.write(&leaf)?;
                        }
                    }
                    writer.close()?.append_to_row_group(&mut group)?;
                }
            }
        }
        group.close()?;
        self.rows += rows.len();
        Ok(())
    }

    /// The file, of rows of one day.
    pub(crate) fn finish(mut self, day: i32, path: String) -> Result<EncodedFile, EncodeError> {
        self.file.finish()?;
        let content = Bytes::from(std::mem::take(self.file.inner_mut()));
        let Some(min_device) = self.first_device else {
            return Err(EncodeError::Layout);
        };
        let max_device = self.last_device;
        let bounds = |name: &str| {
            let column = self.columns.iter().find(|column| column.name == name);
            match column.map(|column| &column.facts.bounds) {
                Some(Bounds::Integers(min, max)) => Ok((*min, *max)),
                _ => Err(EncodeError::Layout),
            }
        };
        let (min_ts, max_ts) = bounds(TS)?;
        let (min_position, max_position) = bounds(POSITION)?;
        let position = |value: i64| Position(u64::try_from(value).unwrap_or(0));
        let statistics = statistics_json(self.rows, &self.columns, &min_device, &max_device);
        let file = ArchiveFile {
            path,
            day,
            bytes: content.len() as u64,
            rows: self.rows as u64,
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
}

/// Writers of a row group's columns that are of other types: made when the first is needed.
struct Others<'a> {
    factory: &'a ArrowRowGroupWriterFactory,
    writers: Vec<Option<ArrowColumnWriter>>,
    group: usize,
}

impl Others<'_> {
    fn writer(&mut self, column: usize) -> Result<ArrowColumnWriter, EncodeError> {
        if self.writers.is_empty() {
            let writers = self.factory.create_column_writers(self.group)?;
            self.writers = writers.into_iter().map(Some).collect();
        }
        let writer = self.writers.get_mut(column).and_then(Option::take);
        writer.ok_or(EncodeError::Layout)
    }
}

/// How the columns of these rows are encoded.
pub(crate) fn choices(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows: &[RowRef],
    encodings: Encodings,
) -> Result<Choices, EncodeError> {
    let decimals = Decimals::of(schema);
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
    choose(&sample, rows.len(), effort)
}

fn properties(rows: usize) -> Result<WriterProperties, ParquetError> {
    let device = ColumnPath::from(DEVICE);
    let sorted = [1, 0, 3].map(|column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: false,
    });
    Ok(WriterProperties::builder()
        .set_created_by(concat!("quiver ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_truncate_length(None)
        .set_sorting_columns(Some(sorted.to_vec()))
        // Of a device column with very many of them; the others have a filter of their own making.
        .set_column_bloom_filter_enabled(device.clone(), true)
        .set_column_bloom_filter_fpp(device.clone(), BLOOM_FPP)
        .set_column_bloom_filter_max_ndv(device, rows.min(ROW_GROUP_ROWS) as u64)
        .build())
}

/// Rows to gather at a time, by what a row of these batches takes on average.
fn rows_at_once(batches: &[RecordBatch]) -> usize {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let bytes: usize = batches.iter().map(quiver_hot::batch_bytes).sum();
    let of_row = (bytes / rows.max(1)).max(1);
    (GATHER_BYTES / of_row).clamp(1, GATHER_ROWS)
}

#[derive(Debug)]
struct ColumnStatistics {
    name: String,
    scale: Option<DecimalScale>,
    is_time: bool,
    facts: Facts,
}

impl ColumnStatistics {
    fn new(name: &str, scale: Option<DecimalScale>) -> Self {
        Self {
            name: name.to_owned(),
            scale,
            is_time: false,
            facts: Facts::NONE,
        }
    }

    fn of(column: &Field) -> Self {
        Self {
            is_time: matches!(column.data_type(), DataType::Timestamp(..)),
            ..Self::new(column.name(), scale_of(column))
        }
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

fn statistics_json(
    rows: usize,
    columns: &[ColumnStatistics],
    min_device: &str,
    max_device: &str,
) -> String {
    let (mut min_values, mut max_values, mut null_counts) = (Map::new(), Map::new(), Map::new());
    for column in columns.iter().take(STATISTICS_COLUMNS) {
        let Facts {
            nulls,
            bounds,
            are_bounded,
        } = &column.facts;
        null_counts.insert(column.name.clone(), json!(nulls));
        let time = |time: &i64| json!(rfc3339(Timestamp(*time)));
        let (min, max): (Value, Value) = match (bounds, column.scale) {
            (Bounds::Integers(min, max), _) if column.is_time => (time(min), time(max)),
            (Bounds::Integers(min, max), None) => (json!(min), json!(max)),
            (Bounds::Integers(min, max), Some(scale)) => {
                match (
                    column.bound(scale.value(*min)),
                    column.bound(scale.value(*max)),
                ) {
                    (Some(min), Some(max)) => (min, max),
                    _ => continue,
                }
            }
            // JSON has no word for what is not a number or infinite.
            (Bounds::Floats(min, max), _) if *are_bounded => (json!(min), json!(max)),
            _ if column.name == DEVICE => (json!(min_device), json!(max_device)),
            _ => continue,
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
