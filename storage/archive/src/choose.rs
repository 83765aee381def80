//! How each column of a file is encoded, decided by measuring: a sample of the file's rows is
//! encoded in every way that may be the best one for the column's type, and the smallest wins.
//!
//! Only encodings are considered that every reader of Parquet has known for years:
//!
//! | type | candidates |
//! |---|---|
//! | float64 | dictionary, BYTE_STREAM_SPLIT, plain |
//! | int64, decimals, times | DELTA_BINARY_PACKED, dictionary, plain |
//!
//! all with ZSTD, at level 1 while rows are flushed, where plain floats may also have level 3 when files are
//! merged: it takes twice the time and is worth it only for values with long mantissas. Text and
//! booleans are what the writer makes of them: a dictionary, and runs.

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use quiver_model::POSITION;

use crate::{
    chunk::{ChunkWriter, Trial},
    encode::{EncodeError, ROW_GROUP_ROWS},
    gather::{Number, Values},
};

/// Files whose sample would be smaller than this are too small to gain anything.
const SAMPLE_ROWS_MIN: usize = 64;
/// A candidate must be smaller than an earlier, cheaper one by this share to be chosen: 1 of so many.
const GAIN: u64 = 33;
/// Dictionary pages are given up beyond this size, and the column falls back to plain.
const DICTIONARY_BYTES_MAX: u64 = 1 << 20;

/// For so many flushes of a stream what was measured once is used again.
const KNOWN_FLUSHES: u32 = 15;

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

/// Encodings of Parquet that a column may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Values as they are: PLAIN.
    Plain,
    /// Distinct values, and the place of each value among them: RLE_DICTIONARY.
    Dictionary,
    /// The first byte of each value, then the second of each: BYTE_STREAM_SPLIT.
    ByteStreamSplit,
    /// Differences: DELTA_BINARY_PACKED.
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

/// Ways to encode a column, the cheapest first.
fn candidates(number: Number, effort: Effort) -> &'static [Choice] {
    match (number, effort) {
        (Number::Float, Effort::Flush) => &[DICTIONARY, SPLIT, PLAIN],
        (Number::Float, Effort::Merge) => &[DICTIONARY, SPLIT, PLAIN, PLAIN_3],
        (Number::Integer, _) => &[DELTA, DICTIONARY, PLAIN],
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

/// What was measured for a file of a stream, for the files of the next flushes: a stream's values keep
/// their kind for longer than a flush, and measuring takes as much as a fifth of encoding.
#[derive(Debug)]
pub(crate) struct Known {
    choices: Choices,
    /// Rows of the file: dictionaries live from them.
    rows: usize,
    flushes_left: u32,
}

impl Known {
    pub(crate) fn new(choices: Choices, rows: usize) -> Self {
        Self {
            choices,
            rows: rows.min(ROW_GROUP_ROWS),
            flushes_left: KNOWN_FLUSHES,
        }
    }

    /// The choices for a file of about as many rows with as many columns.
    pub(crate) fn suits(&self, rows: usize, columns: usize) -> Option<Choices> {
        let rows = rows.min(ROW_GROUP_ROWS);
        let is_alike = self.choices.len() == columns
            && self.rows <= rows.saturating_mul(2)
            && rows <= self.rows.saturating_mul(2);
        is_alike.then(|| self.choices.clone())
    }

    /// To be called after a flush that used it; `None` when it is time to measure again.
    pub(crate) fn used(self) -> Option<Self> {
        let flushes_left = self.flushes_left.checked_sub(1)?;
        Some(Self {
            flushes_left,
            ..self
        })
    }
}

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
/// If the sample cannot be encoded.
pub(crate) fn choose(
    sample: &RecordBatch,
    rows: usize,
    effort: Effort,
) -> Result<Choices, EncodeError> {
    let mut choices = defaults(&sample.schema());
    if sample.num_rows() == 0 {
        return Ok(choices);
    }
    let mut writer = ChunkWriter::default();
    let mut values = Values::default();
    for (column, choice) in sample.columns().iter().zip(&mut choices) {
        let Some(number) = Number::of(column.data_type()) else {
            continue;
        };
        values.set(column)?;
        let mut best: Option<(u64, Choice)> = None;
        for candidate in candidates(number, effort) {
            let trial = writer.trial(number, values.bits(), *candidate)?;
            let bytes = trial.and_then(|trial| match candidate.kind {
                Kind::Dictionary => dictionary_bytes(values.bits(), trial, rows),
                _ => Some(trial.pages),
            });
            let Some(bytes) = bytes else { continue };
            let beats = best.is_none_or(|(least, _)| bytes + bytes / GAIN < least);
            if beats {
                best = Some((bytes, *candidate));
            }
        }
        *choice = best.map(|(_, choice)| choice).or(*choice);
    }
    Ok(choices)
}

/// What a dictionary would take in the sample's proportion: its page is shared by more rows in the
/// file, and has more values there. `None` if it would be too large.
fn dictionary_bytes(sample: &[u64], trial: Trial, rows: usize) -> Option<u64> {
    let in_sample = trial.distinct.max(1);
    let group_rows = (rows.min(ROW_GROUP_ROWS) as u64).max(1);
    let in_group = Spectrum::of(sample).estimate(group_rows).max(in_sample);
    if in_group * 8 > DICTIONARY_BYTES_MAX {
        return None;
    }
    let width = |distinct: u64| u64::from(u64::BITS - (distinct - 1).leading_zeros()).max(1);
    let places = trial.pages * width(in_group) / width(in_sample);
    let page_in_group = trial.dictionary * in_group / in_sample;
    Some(places + page_in_group * sample.len() as u64 / group_rows)
}

/// How often values occur in a sample.
struct Spectrum {
    distinct: u64,
    once: u64,
    twice: u64,
    rows: u64,
}

impl Spectrum {
    fn of(values: &[u64]) -> Self {
        // Equal bits are equal values.
        let mut bits = values.to_vec();
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

/// Bytes of the numbers of a sample of one file, encoded in the best way.
///
/// # Errors
/// If they cannot be encoded.
pub(crate) fn least_bytes(sample: &RecordBatch, effort: Effort) -> Result<u64, EncodeError> {
    let choices = choose(sample, sample.num_rows(), effort)?;
    let mut writer = ChunkWriter::default();
    let mut values = Values::default();
    let mut bytes = 0;
    for (column, choice) in sample.columns().iter().zip(choices) {
        if let (Some(number), Some(choice)) = (Number::of(column.data_type()), choice) {
            values.set(column)?;
            let trial = writer.trial(number, values.bits(), choice)?;
            bytes += trial.map_or(0, |trial| trial.pages + trial.dictionary);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
