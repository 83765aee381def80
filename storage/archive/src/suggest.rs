//! Which float64 fields of a stream are decimals, and what declaring their scale would save: found
//! by looking at a sample of its files.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Float64Array, RecordBatch, RecordBatchReader, cast::AsArray,
    types::Float64Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::concat::concat;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
};
use quiver_hot::{ArchiveFile, FileList};
use quiver_model::{DecimalScale, FieldType, StreamField, StreamName};

use crate::{
    ArchiveError, DeltaArchive,
    blocking::{Priority, blocking_at},
    choose::{Effort, least_bytes},
    decimals::to_decimal,
    encode::ROW_GROUP_ROWS,
    read::{FileError, location},
};

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuggestOptions {
    /// Files, spread over the table's age. One row group of each is read: at most 131,072 rows.
    /// Default 8.
    pub files: usize,
}

impl Default for SuggestOptions {
    fn default() -> Self {
        Self { files: 8 }
    }
}

/// What was found about a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// Rows of the stream's table.
    pub rows: u64,
    /// Rows that were looked at. A value that none of them has may need more digits.
    pub rows_seen: u64,
    /// Its float64 fields, in the table's order.
    pub fields: Vec<FieldSuggestion>,
}

/// What was found about a float64 field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSuggestion {
    /// Its name.
    pub field: String,
    /// Values that were looked at; nulls do not count.
    pub values: u64,
    /// Distinct values, as a share of them.
    pub distinct: f64,
    /// The scale the table has it with, if it is declared.
    pub declared: Option<DecimalScale>,
    /// The least scale with which every value is exact; `None` if there is none up to 9, or there
    /// are no values.
    pub scale: Option<DecimalScale>,
    /// Bytes a row as it is, by encoding the sample.
    pub bytes_now: f64,
    /// Bytes a row with that scale, by encoding the sample.
    pub bytes_declared: Option<f64>,
}

impl FieldSuggestion {
    /// What declaring the scale would save, in bytes of the whole table; 0 if there is nothing to
    /// declare.
    pub fn saves(&self, rows: u64) -> u64 {
        match (self.declared, self.bytes_declared) {
            (None, Some(declared)) => ((self.bytes_now - declared).max(0.0) * rows as f64) as u64,
            _ => 0,
        }
    }
}

/// The least scale with which every value is exact.
fn least_scale(values: &Float64Array) -> Option<DecimalScale> {
    let mut scales = DecimalScale::all();
    let mut scale = scales.next()?;
    let mut is_empty = true;
    for value in values.iter().flatten() {
        is_empty = false;
        while !scale.fits(value) {
            scale = scales.next()?;
        }
    }
    // With more digits after the point, a large value that fitted may have too many in all.
    let fits_all = values.iter().flatten().all(|value| scale.fits(value));
    (fits_all && !is_empty).then_some(scale)
}

/// At most `count` of the files, spread evenly.
fn spread(files: &FileList, count: usize) -> Vec<Arc<ArchiveFile>> {
    let count = count.min(files.len());
    (0..count)
        .filter_map(|at| files.get(at * files.len() / count).cloned())
        .collect()
}

/// The named columns of the row group in the middle of a file; columns it lacks are left out.
fn middle(content: Bytes, names: &[String]) -> Result<Vec<(String, ArrayRef)>, FileError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(content, options)?;
    let groups = builder.metadata().num_row_groups();
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().map(String::as_str));
    let reader = builder
        .with_row_groups((groups / 2..groups.min(groups / 2 + 1)).collect())
        .with_projection(mask)
        .with_batch_size(ROW_GROUP_ROWS)
        .build()?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, ArrowError>>()?;
    let mut columns = Vec::new();
    for (index, field) in schema.fields().iter().enumerate() {
        let parts: Vec<&dyn Array> = batches
            .iter()
            .map(|batch| batch.column(index).as_ref())
            .collect();
        if !parts.is_empty() {
            columns.push((field.name().clone(), concat(&parts)?));
        }
    }
    Ok(columns)
}

/// What is gathered of a field, row group by row group.
#[derive(Default)]
struct Evidence {
    parts: Vec<Float64Array>,
}

impl Evidence {
    fn judge(self, field: &StreamField) -> Result<FieldSuggestion, FileError> {
        let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part as &dyn Array).collect();
        let all = match parts.as_slice() {
            [] => Float64Array::from(Vec::<f64>::new()),
            parts => concat(parts)?.as_primitive::<Float64Type>().clone(),
        };
        let mut bits: Vec<u64> = all.iter().flatten().map(f64::to_bits).collect();
        bits.sort_unstable();
        let values = bits.len();
        bits.dedup();
        let scale = field.scale.or_else(|| least_scale(&all));
        let (mut now, mut declared) = (0, 0);
        for part in self.parts {
            let part: ArrayRef = Arc::new(part);
            now += column_bytes(&part)?;
            if let Some(scale) = scale {
                let decimals = to_decimal(&part, scale, field.name.as_str());
                // A declared field was checked when it was written; the others just now.
                declared += decimals.map_or(Ok(0), |decimals| column_bytes(&decimals))?;
            }
        }
        let a_row = |bytes: u64| bytes as f64 / all.len().max(1) as f64;
        Ok(FieldSuggestion {
            field: field.name.to_string(),
            values: values as u64,
            distinct: bits.len() as f64 / values.max(1) as f64,
            declared: field.scale,
            scale,
            bytes_now: a_row(if field.scale.is_some() { declared } else { now }),
            bytes_declared: scale.map(|_| a_row(declared)),
        })
    }
}

fn column_bytes(column: &ArrayRef) -> Result<u64, FileError> {
    let schema = Schema::new(vec![Field::new("value", column.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(column)])?;
    Ok(least_bytes(&batch, Effort::Merge)?)
}

impl DeltaArchive {
    /// Looks at some files of a stream for float64 fields that are decimals.
    ///
    /// # Errors
    /// If the stream has no table, or a file cannot be read.
    pub async fn suggest(
        &self,
        stream: &StreamName,
        options: &SuggestOptions,
    ) -> Result<Suggestion, ArchiveError> {
        let snapshot = self.snapshot(stream).await?;
        let fields: Vec<&StreamField> = snapshot
            .fields
            .iter()
            .filter(|field| field.field_type == FieldType::Float64)
            .collect();
        let names: Vec<String> = fields.iter().map(|field| field.name.to_string()).collect();
        let mut evidence: Vec<Evidence> = fields.iter().map(|_| Evidence::default()).collect();
        let mut rows_seen = 0;
        for file in spread(&snapshot.files, options.files) {
            let failed = |error: FileError| ArchiveError::file(stream, &file.path, &error);
            let content = match self.store.get(&location(stream, &file.path)).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            let content = content.map_err(|error| failed(error.into()))?;
            let wanted = names.clone();
            let columns = blocking_at(Priority::Low, move || middle(content, &wanted))
                .await
                .map_err(|error| failed(error.into()))?
                .map_err(failed)?;
            rows_seen += columns.first().map_or(0, |(_, column)| column.len() as u64);
            for (name, column) in columns {
                let Some(at) = names.iter().position(|known| *known == name) else {
                    continue;
                };
                let floats = match column.data_type() {
                    DataType::Float64 => Ok(column),
                    _ => arrow_cast::cast(&column, &DataType::Float64),
                };
                let floats = floats.map_err(|error| failed(error.into()))?;
                evidence[at]
                    .parts
                    .push(floats.as_primitive::<Float64Type>().clone());
            }
        }
        let judged: Vec<(StreamField, Evidence)> =
            fields.into_iter().cloned().zip(evidence).collect();
        let judged = blocking_at(Priority::Low, move || {
            let fields = judged.into_iter();
            fields
                .map(|(field, evidence)| evidence.judge(&field))
                .collect::<Result<Vec<_>, _>>()
        });
        let failed = |error: FileError| ArchiveError::Write {
            stream: stream.clone(),
            problem: format!("a sample of them cannot be encoded: {error}"),
        };
        let fields = judged
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(failed)?;
        Ok(Suggestion {
            rows: snapshot.rows(),
            rows_seen,
            fields,
        })
    }
}
