//! Rows that were recorded: a Parquet file, or all of a directory such as a table of an archive.
//!
//! With `arrivals = replay` the devices of the recording are dealt out to the sources, and a batch
//! is due when its last row was measured. Otherwise every source repeats all rows, each from
//! another place.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, UInt32Array,
    cast::AsArray,
    types::{
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType,
    },
};
use arrow_schema::{DataType, Field, SchemaRef, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Order;
use crate::{error::BenchError, schedule::Schedule};

/// Columns that are no fields.
const NOT_FIELDS: [&str; 5] = ["ts", "device", "arrival", "position", "quiver_day"];
/// Most rows that are read: they stay in memory.
const ROWS_MAX: usize = 10_000_000;

/// A recording in memory.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Its fields, ordered by time.
    fields: RecordBatch,
    /// Event times, in microseconds, ascending.
    times: Arc<[i64]>,
    /// Number of each row's device.
    devices: Vec<u32>,
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> BenchError {
    BenchError::Data(format!("{}: {what}", path.display()))
}

impl Recorded {
    pub(crate) fn load(path: &Path, rows_a_batch: usize) -> Result<Self, BenchError> {
        let mut files = Vec::new();
        collect(path, &mut files)?;
        files.sort();
        if files.is_empty() {
            return Err(wrong(path, "there is no .parquet file in it"));
        }
        let mut parts: Vec<RecordBatch> = Vec::new();
        for file in &files {
            let open = File::open(file).map_err(|error| BenchError::io("open", file, &error))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(open)
                .and_then(ParquetRecordBatchReaderBuilder::build)
                .map_err(|error| wrong(file, error))?;
            for batch in reader {
                parts.push(batch.map_err(|error| wrong(file, error))?);
            }
            if parts.iter().map(RecordBatch::num_rows).sum::<usize>() > ROWS_MAX {
                return Err(wrong(
                    path,
                    format!("more than {ROWS_MAX} rows; name fewer files"),
                ));
            }
        }
        let schema = parts
            .first()
            .map(RecordBatch::schema)
            .ok_or_else(|| wrong(path, "it has no rows"))?;
        let whole = arrow_select::concat::concat_batches(&schema, &parts)
            .map_err(|error| wrong(path, format!("its files differ in columns: {error}")))?;
        drop(parts);
        Self::of(path, &whole, &schema, rows_a_batch)
    }

    fn of(
        path: &Path,
        whole: &RecordBatch,
        schema: &SchemaRef,
        rows_a_batch: usize,
    ) -> Result<Self, BenchError> {
        if whole.num_rows() < rows_a_batch {
            let rows = whole.num_rows();
            return Err(wrong(
                path,
                format!("{rows} rows are fewer than a batch has; set --rows lower"),
            ));
        }
        let times = whole
            .column_by_name("ts")
            .and_then(micros)
            .ok_or_else(|| wrong(path, "it has no timestamp column ts"))?;
        let names = whole.column_by_name("device").and_then(text);
        let mut numbers = BTreeMap::new();
        let devices: Vec<u32> = (0..whole.num_rows())
            .map(|row| match &names {
                Some(names) => {
                    let next = numbers.len() as u32;
                    *numbers.entry(names.value(row).to_owned()).or_insert(next)
                }
                None => 0,
            })
            .collect();
        let kept: Vec<usize> = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| is_field(field))
            .map(|(index, _)| index)
            .collect();
        if kept.is_empty() {
            return Err(wrong(path, "it has no column of numbers, text or booleans"));
        }
        let mut order: Vec<u32> = (0..whole.num_rows() as u32).collect();
        order.sort_by_key(|row| times.get(*row as usize).copied());
        let fields = whole.project(&kept).map_err(|error| wrong(path, error))?;
        let fields = take(&fields, &order).map_err(|error| wrong(path, error))?;
        let sorted = |row: &u32| *row as usize;
        Ok(Self {
            fields,
            times: order
                .iter()
                .filter_map(|row| times.get(sorted(row)).copied())
                .collect(),
            devices: order
                .iter()
                .filter_map(|row| devices.get(sorted(row)).copied())
                .collect(),
        })
    }

    /// All rows for one source of `count`, which begin at different places.
    pub(crate) fn repeated(self: &Arc<Self>, index: usize, count: usize) -> RecordedSource {
        RecordedSource {
            cursor: self.times.len() * index / count.max(1),
            fields: self.fields.clone(),
            times: self.times.clone(),
            speed: 1.0,
            replays: false,
        }
    }

    /// The rows that fall to one source of `count`, and when its batches are due.
    pub(crate) fn replayed(
        &self,
        index: usize,
        count: usize,
        rows: usize,
        speed: f64,
    ) -> Result<(RecordedSource, Schedule), BenchError> {
        let mine: Vec<u32> = (0..self.times.len() as u32)
            .filter(|row| {
                let device = self.devices.get(*row as usize).copied().unwrap_or(0);
                device as usize % count.max(1) == index
            })
            .collect();
        let times: Vec<i64> = mine
            .iter()
            .filter_map(|row| self.times.get(*row as usize).copied())
            .collect();
        let first = self.times.first().copied().unwrap_or(0);
        let due = times.chunks_exact(rows.max(1)).filter_map(|chunk| {
            let micros = chunk.last()?.saturating_sub(first) as f64 / speed;
            Some(Duration::from_micros(micros as u64))
        });
        let schedule = Schedule::recorded(due);
        let fields =
            take(&self.fields, &mine).map_err(|error| BenchError::Data(error.to_string()))?;
        let source = RecordedSource {
            fields,
            times: times.into(),
            cursor: 0,
            speed,
            replays: true,
        };
        Ok((source, schedule))
    }
}

/// The recorded rows of one source, and where it is.
pub(crate) struct RecordedSource {
    fields: RecordBatch,
    times: Arc<[i64]>,
    cursor: usize,
    speed: f64,
    replays: bool,
}

impl RecordedSource {
    pub(super) fn fields(&self) -> Vec<Field> {
        let fields = self.fields.schema();
        fields
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect()
    }

    /// The next rows, with times that end when they should. A source that never had a whole batch
    /// is never asked for one.
    pub(super) fn columns(&mut self, order: Order) -> (Vec<ArrayRef>, Vec<i64>) {
        let rows = order.rows.min(self.times.len());
        if self.cursor + rows > self.times.len() {
            self.cursor = 0;
        }
        let begin = self.cursor;
        self.cursor += rows;
        let columns = self.fields.slice(begin, rows).columns().to_vec();
        let times = if self.replays {
            let recorded = self.times.get(begin..begin + rows).unwrap_or_default();
            let last = recorded.last().copied().unwrap_or(0);
            let back = |time: &i64| ((last - time) as f64 / self.speed) as i64;
            recorded
                .iter()
                .map(|time| order.end_us - back(time))
                .collect()
        } else {
            let back = |row: usize| (rows - 1 - row) as i64 * order.step_us;
            (0..rows).map(|row| order.end_us - back(row)).collect()
        };
        (columns, times)
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), BenchError> {
    let failed = |error: std::io::Error| BenchError::io("read", path, &error);
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        // Delta's log has Parquet files of its own.
        if entry.is_dir() && entry.file_name().is_some_and(|name| name != "_delta_log") {
            collect(&entry, files)?;
        } else if entry
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            files.push(entry);
        }
    }
    Ok(())
}

fn is_field(field: &Field) -> bool {
    let type_is_sent = match field.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Boolean => true,
        other => other.is_integer(),
    };
    type_is_sent && !NOT_FIELDS.contains(&field.name().as_str())
}

fn take(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let rows = UInt32Array::from(rows.to_vec());
    arrow_select::take::take_record_batch(batch, &rows)
}

fn micros(column: &ArrayRef) -> Option<Vec<i64>> {
    let scaled = |values: &[i64], factor: i64| {
        values
            .iter()
            .map(|value| value.saturating_mul(factor))
            .collect()
    };
    let DataType::Timestamp(unit, _) = column.data_type() else {
        return None;
    };
    Some(match unit {
        TimeUnit::Second => scaled(
            column.as_primitive::<TimestampSecondType>().values(),
            1_000_000,
        ),
        TimeUnit::Millisecond => scaled(
            column.as_primitive::<TimestampMillisecondType>().values(),
            1_000,
        ),
        TimeUnit::Microsecond => scaled(
            column.as_primitive::<TimestampMicrosecondType>().values(),
            1,
        ),
        TimeUnit::Nanosecond => {
            let nanos = column.as_primitive::<TimestampNanosecondType>().values();
            nanos.iter().map(|value| value / 1_000).collect()
        }
    })
}

fn text(column: &ArrayRef) -> Option<StringArray> {
    if let Some(text) = column.as_string_opt::<i32>() {
        return Some(text.clone());
    }
    if let Some(text) = column.as_string_opt::<i64>() {
        return Some(text.iter().collect());
    }
    if let Some(text) = column.as_string_view_opt() {
        return Some(text.iter().collect());
    }
    let dictionary = column.as_any_dictionary_opt()?;
    let plain = arrow_select::take::take(dictionary.values(), dictionary.keys(), None).ok()?;
    plain.as_string_opt::<i32>().cloned()
}
