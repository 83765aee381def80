//! How each column of a file is encoded, decided by measuring: a sample of the file's rows is
//! encoded in every way that may be the best one for the column's type, and the smallest wins.
//!
//! Only encodings are considered that every reader of Parquet has known for years:
//!
//! | type | candidates |
//! |---|---|
//! | float64 | plain, BYTE_STREAM_SPLIT, dictionary |
//! | int64, decimals, times | DELTA_BINARY_PACKED, plain, dictionary |
//!
//! all with ZSTD, at level 1 while rows are flushed, where plain floats may also have level 3 when files are
//! merged: it takes twice the time and is worth it only for values with long mantissas. Text and
//! booleans are what the writer makes of them: a dictionary, and runs.

use arrow_array::{Array, RecordBatch, cast::AsArray, types::Float64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::ColumnChunkMetaData,
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    },
    schema::types::ColumnPath,
};
use quiver_model::POSITION;

/// Files whose sample would be smaller than this are too small to gain anything.
const SAMPLE_ROWS_MIN: usize = 64;
/// A candidate must be smaller than an earlier, cheaper one by this share to be chosen: 1 of so many.
const GAIN: u64 = 33;
/// Dictionary pages are given up beyond this size, and the column falls back to plain.
const DICTIONARY_BYTES_MAX: u64 = 1 << 20;

/// How much work may go into small files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Rows come in, and wait to be archived.
    Flush,
    /// Files are merged, for good.
    Merge,
}

impl Effort {
    /// At most one of so many rows is in the sample: bounds what choosing takes.
    const fn share(self) -> usize {
        match self {
            Self::Flush => 32,
            Self::Merge => 12,
        }
    }

    /// Most runs of rows in a sample, and most rows of each: encodings live from neighbours. Runs
    /// of 16,384 rows are most of a page: what the higher level finds lies far apart.
    const fn runs(self) -> (usize, usize) {
        match self {
            Self::Flush => (16, 512),
            Self::Merge => (4, 16_384),
        }
    }
}

/// How a column is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) kind: Kind,
    /// Of ZSTD.
    pub(crate) level: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Dictionary,
    ByteStreamSplit,
    Delta,
}

const fn fast(kind: Kind) -> Choice {
    Choice { kind, level: 1 }
}

const PLAIN: Choice = fast(Kind::Plain);
const DICTIONARY: Choice = fast(Kind::Dictionary);
const SPLIT: Choice = fast(Kind::ByteStreamSplit);
const DELTA: Choice = fast(Kind::Delta);
const PLAIN_3: Choice = Choice {
    kind: Kind::Plain,
    level: 3,
};

/// Ways to encode a column, the cheapest first; none where there is nothing to choose.
fn candidates(data_type: &DataType, effort: Effort) -> &'static [Choice] {
    match (data_type, effort) {
        (DataType::Float64, Effort::Flush) => &[SPLIT, PLAIN, DICTIONARY],
        (DataType::Float64, Effort::Merge) => &[SPLIT, PLAIN, DICTIONARY, PLAIN_3],
        (DataType::Int64 | DataType::Timestamp(..) | DataType::Decimal64(..), _) => {
            &[DELTA, PLAIN, DICTIONARY]
        }
        _ => &[],
    }
}

/// What a column gets if nothing was measured.
fn default_choice(field: &Field) -> Option<Choice> {
    match field.data_type() {
        DataType::Float64 => Some(PLAIN),
        DataType::Timestamp(..) | DataType::Decimal64(..) => Some(DELTA),
        DataType::Int64 if field.name() == POSITION => Some(DELTA),
        DataType::Int64 => Some(DICTIONARY),
        _ => None,
    }
}

/// One choice for each column that has candidates, in the order of the schema.
pub(crate) type Choices = Vec<Option<Choice>>;

/// The choices for a file of which nothing is known.
pub(crate) fn defaults(schema: &Schema) -> Choices {
    let fields = schema.fields().iter();
    fields.map(|field| default_choice(field)).collect()
}

/// Which rows of `rows` make a sample, as ranges in order; none if the file is too small for one.
pub(crate) fn sample_ranges(rows: usize, effort: Effort) -> Vec<std::ops::Range<usize>> {
    let (runs, run_max) = effort.runs();
    let wanted = (rows / effort.share()).min(runs * run_max);
    if wanted < SAMPLE_ROWS_MIN {
        return Vec::new();
    }
    let run = wanted / runs;
    // The middle of equal parts: neither end is special.
    let part = rows / runs;
    (0..runs)
        .map(|at| {
            let start = at * part + (part - run) / 2;
            start..start + run
        })
        .collect()
}

/// The best choices for a file of `rows` rows of which `sample` is a part, as it is written (with
/// decimals).
///
/// # Errors
/// If Parquet refuses the sample.
pub(crate) fn choose(
    sample: &RecordBatch,
    rows: usize,
    effort: Effort,
) -> Result<Choices, ParquetError> {
    let schema = sample.schema();
    let mut choices = defaults(&schema);
    let columns: Vec<usize> = (0..sample.num_columns())
        .filter(|column| !candidates(schema.field(*column).data_type(), effort).is_empty())
        .collect();
    if columns.is_empty() || sample.num_rows() == 0 {
        return Ok(choices);
    }
    let sample = sample.project(&columns)?;
    let tables: Vec<&[Choice]> = columns
        .iter()
        .map(|column| candidates(schema.field(*column).data_type(), effort))
        .collect();
    let mut best: Vec<Option<(u64, Choice)>> = vec![None; columns.len()];
    // One file for each round: what the columns have as their next candidate.
    let rounds = tables.iter().map(|table| table.len()).max().unwrap_or(0);
    for round in 0..rounds {
        let candidates: Choices = tables
            .iter()
            .map(|table| table.get(round).copied())
            .collect();
        let of_round: Vec<usize> = (0..columns.len())
            .filter(|at| candidates[*at].is_some())
            .collect();
        let part = sample.project(&of_round)?;
        let of_part: Choices = of_round.iter().map(|at| candidates[*at]).collect();
        let metadata = write_sample(&part, &of_part)?;
        for (at, chunk) in of_round.iter().zip(metadata.row_group(0).columns()) {
            let Some(candidate) = candidates[*at] else {
                continue;
            };
            let bytes = match candidate.kind {
                Kind::Dictionary => dictionary_bytes(sample.column(*at), chunk, rows),
                _ => u64::try_from(chunk.compressed_size()).ok(),
            };
            let Some(bytes) = bytes else { continue };
            let beats = best[*at].is_none_or(|(least, _)| bytes + bytes / GAIN < least);
            if beats {
                best[*at] = Some((bytes, candidate));
            }
        }
    }
    for (column, best) in columns.into_iter().zip(best) {
        choices[column] = best.map(|(_, choice)| choice).or(choices[column]);
    }
    Ok(choices)
}

fn write_sample(
    sample: &RecordBatch,
    choices: &Choices,
) -> Result<parquet::file::metadata::ParquetMetaData, ParquetError> {
    let schema = sample.schema();
    let properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    let options = ArrowWriterOptions::new()
        .with_properties(apply(properties, &schema, choices)?.build())
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options)?;
    writer.write(sample)?;
    writer.finish()
}

/// Sets the choices for the columns of `schema`.
pub(crate) fn apply(
    mut properties: WriterPropertiesBuilder,
    schema: &SchemaRef,
    choices: &Choices,
) -> Result<WriterPropertiesBuilder, ParquetError> {
    for (field, choice) in schema.fields().iter().zip(choices) {
        let Some(Choice { kind, level }) = *choice else {
            continue;
        };
        let path = || ColumnPath::from(field.name().as_str());
        properties = properties
            .set_column_dictionary_enabled(path(), kind == Kind::Dictionary)
            .set_column_compression(path(), Compression::ZSTD(ZstdLevel::try_new(level)?));
        let encoding = match kind {
            // What comes after a dictionary that grew too large.
            Kind::Plain | Kind::Dictionary => Encoding::PLAIN,
            Kind::ByteStreamSplit => Encoding::BYTE_STREAM_SPLIT,
            Kind::Delta => Encoding::DELTA_BINARY_PACKED,
        };
        properties = properties.set_column_encoding(path(), encoding);
    }
    Ok(properties)
}

/// What a dictionary would take in the sample's proportion: its page is shared by more rows in the
/// file, and has more values there. `None` if it would be too large.
fn dictionary_bytes(column: &dyn Array, chunk: &ColumnChunkMetaData, rows: usize) -> Option<u64> {
    let total = u64::try_from(chunk.compressed_size()).ok()?;
    let start = chunk.dictionary_page_offset()?;
    let page = u64::try_from(chunk.data_page_offset() - start).ok()?;
    let spectrum = Spectrum::of(column);
    let in_sample = spectrum.distinct.max(1);
    let in_group = spectrum
        .estimate(rows.min(super::encode::ROW_GROUP_ROWS) as u64)
        .max(in_sample);
    if in_group * 8 > DICTIONARY_BYTES_MAX {
        return None;
    }
    let width = |distinct: u64| u64::from(u64::BITS - (distinct - 1).leading_zeros()).max(1);
    let indices = (total - page.min(total)) * width(in_group) / width(in_sample);
    let sample_rows = column.len() as u64;
    let group_rows = (rows.min(super::encode::ROW_GROUP_ROWS) as u64).max(1);
    let page_in_group = page * in_group / in_sample;
    Some(indices + page_in_group * sample_rows / group_rows)
}

/// How often values occur in a sample.
struct Spectrum {
    distinct: u64,
    once: u64,
    twice: u64,
    rows: u64,
}

impl Spectrum {
    fn of(column: &dyn Array) -> Self {
        // All candidates of a dictionary are 64 bits wide; equal bits are equal values.
        let mut bits: Vec<u64> = match column.as_primitive_opt::<Float64Type>() {
            Some(floats) => floats.iter().flatten().map(f64::to_bits).collect(),
            None => column
                .to_data()
                .buffers()
                .first()
                .map(|buffer| {
                    let values: &[i64] = buffer.typed_data();
                    let values = &values[column.offset()..column.offset() + column.len()];
                    values.iter().map(|value| value.cast_unsigned()).collect()
                })
                .unwrap_or_default(),
        };
        bits.sort_unstable();
        let (mut distinct, mut once, mut twice) = (0, 0, 0);
        for equal in bits.chunk_by(|left, right| left == right) {
            distinct += 1;
            once += u64::from(equal.len() == 1);
            twice += u64::from(equal.len() == 2);
        }
        Self {
            distinct,
            once,
            twice,
            rows: bits.len() as u64,
        }
    }

    /// How many distinct values so many rows have: the estimator of A. Chao (1984), from how many
    /// values were seen once and twice; never more than in the sample's proportion.
    fn estimate(&self, rows: u64) -> u64 {
        let unseen = self.once * self.once.saturating_sub(1) / (2 * (self.twice + 1));
        let most = self.distinct * rows / self.rows.max(1);
        (self.distinct + unseen).min(most.max(self.distinct))
    }
}

/// Bytes of a sample of one file, encoded in the best way.
///
/// # Errors
/// If Parquet refuses it.
pub(crate) fn least_bytes(sample: &RecordBatch, effort: Effort) -> Result<u64, ParquetError> {
    if sample.num_rows() == 0 {
        return Ok(0);
    }
    let choices = choose(sample, sample.num_rows(), effort)?;
    let metadata = write_sample(sample, &choices)?;
    let groups = metadata.row_groups().iter();
    let bytes: i64 = groups.map(|group| group.compressed_size()).sum();
    Ok(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
