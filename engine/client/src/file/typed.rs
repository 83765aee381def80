//! Parquet and Arrow IPC: columns that have types already.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray,
    cast::AsArray,
    timezone::Tz,
    types::{Float64Type, Int64Type, TimestampMicrosecondType, TimestampNanosecondType},
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, SchemaRef, TimeUnit};
use chrono::DateTime;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use quiver_model::{DeviceId, FieldType};
use sha2::Sha256;

use super::{
    FileError, FileFormat, FileOptions, READ_ROWS, TimeFormat, WrongValue,
    batching::ROW_BYTES_MAX,
    decimal::integer,
    exact::{Loss, convert, shown},
    guard::{ArrowFault, check_arrow, has_footer, shielded},
    layout::{Layout, Role, SourceColumn},
    plan::ChunkSource,
    rows::{row_too_long, shorten},
    text::HashingReader,
    time::{TimeFault, TimeReader, unit_of},
};

/// About how many bytes a text column may have at most when some rows are converted.
const CONVERTED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A file's record batches as they are in it.
enum Batches {
    Parquet(ParquetRecordBatchReader),
    ArrowFile(FileReader<BufReader<File>>),
    ArrowStream(StreamReader<BufReader<File>>),
}

impl Batches {
    fn open(path: &Path, format: FileFormat) -> Result<(Self, SchemaRef, Option<u64>), FileError> {
        let io = |source| FileError::Io {
            path: path.to_owned(),
            source,
        };
        let name = format_name(format);
        let malformed = |reason: String| FileError::Malformed {
            path: path.to_owned(),
            format: name,
            reason,
        };
        let mut file = File::open(path).map_err(io)?;
        if format == FileFormat::Parquet {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)
                .map_err(|error| malformed(error.to_string()))?;
            let schema = Arc::clone(builder.schema());
            let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
            let reader = builder
                .with_batch_size(READ_ROWS)
                .build()
                .map_err(|error| malformed(error.to_string()))?;
            return Ok((Self::Parquet(reader), schema, Some(rows)));
        }
        check_arrow(&mut file).map_err(|fault| match fault {
            ArrowFault::Io(source) => io(source),
            ArrowFault::Malformed(reason) => malformed(reason),
        })?;
        let is_file = has_footer(&mut file).map_err(io)?;
        let input = BufReader::new(file);
        if is_file {
            let reader =
                FileReader::try_new(input, None).map_err(|error| malformed(error.to_string()))?;
            let schema = reader.schema();
            Ok((Self::ArrowFile(reader), schema, None))
        } else {
            let reader =
                StreamReader::try_new(input, None).map_err(|error| malformed(error.to_string()))?;
            let schema = reader.schema();
            Ok((Self::ArrowStream(reader), schema, None))
        }
    }

    fn next(&mut self) -> Option<Result<RecordBatch, ArrowError>> {
        match self {
            Self::Parquet(reader) => reader.next(),
            Self::ArrowFile(reader) => reader.next(),
            Self::ArrowStream(reader) => reader.next(),
        }
    }
}

fn format_name(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => "Parquet",
        _ => "Arrow IPC",
    }
}

/// Runs `work`, which reads the file at `path`; a panic of the format's reader is an error.
fn guarded<T>(
    path: &Path,
    format: FileFormat,
    work: impl FnOnce() -> Result<T, FileError>,
) -> Result<T, FileError> {
    shielded(work).unwrap_or_else(|reason| {
        Err(FileError::Malformed {
            path: path.to_owned(),
            format: format_name(format),
            reason,
        })
    })
}

/// What the first pass over a typed file finds.
pub(super) struct TypedSurvey {
    pub columns: Vec<SourceColumn>,
    pub rows: u64,
    pub hash: Sha256,
}

/// The first pass: the schema, the rows, and the hash.
pub(super) fn survey(options: &FileOptions, format: FileFormat) -> Result<TypedSurvey, FileError> {
    let path = options.path.as_path();
    let (schema, rows) = guarded(path, format, || {
        let (mut batches, schema, rows) = Batches::open(path, format)?;
        if let Some(rows) = rows {
            return Ok((schema, rows));
        }
        let mut rows = 0;
        while let Some(batch) = batches.next() {
            let batch = batch.map_err(|error| FileError::Malformed {
                path: path.to_owned(),
                format: format_name(format),
                reason: error.to_string(),
            })?;
            rows += batch.num_rows() as u64;
        }
        Ok((schema, rows))
    })?;
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let mut input = HashingReader::new(File::open(path).map_err(io)?);
    let mut buffer = vec![0; 256 * 1024];
    while input.read(&mut buffer).map_err(io)? > 0 {}
    let columns = schema
        .fields()
        .iter()
        .map(|field| source_column(field.name(), field.data_type()))
        .collect();
    Ok(TypedSurvey {
        columns,
        rows,
        hash: input.hash,
    })
}

fn source_column(name: &str, data_type: &DataType) -> SourceColumn {
    let is_time = matches!(
        data_type,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
    );
    let suggested = match data_type {
        DataType::Null => None,
        DataType::Timestamp(..) => Some(FieldType::Timestamp),
        other if other.is_integer() => Some(FieldType::Int64),
        other if other.is_floating() || other.is_decimal() => Some(FieldType::Float64),
        DataType::Boolean => Some(FieldType::Bool),
        other if is_time || is_text(other) => Some(FieldType::Utf8),
        other => {
            return SourceColumn {
                name: name.to_owned(),
                suggested: None,
                is_time,
                unsupported: Some(other.to_string()),
            };
        }
    };
    SourceColumn {
        name: name.to_owned(),
        suggested,
        is_time,
        unsupported: None,
    }
}

/// For a column without a value.
fn no_times(column: &ArrayRef) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::new_null(column.len()).with_timezone("UTC")
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// A later pass.
pub(super) struct TypedChunks {
    options: Arc<FileOptions>,
    layout: Arc<Layout>,
    format: FileFormat,
    /// Until its end, or its first error.
    batches: Option<Batches>,
    /// What is left of the batch that was read last.
    rest: Option<RecordBatch>,
    zone: Tz,
    /// By column, for times that are numbers or text; made at the first value.
    time_readers: Vec<Option<TimeReader>>,
    /// Rows given out so far.
    rows: u64,
}

impl TypedChunks {
    pub fn open(
        options: Arc<FileOptions>,
        layout: Arc<Layout>,
        format: FileFormat,
        zone: Tz,
    ) -> Result<Self, FileError> {
        let (batches, ..) = guarded(&options.path, format, || {
            Batches::open(&options.path, format)
        })?;
        let readers = layout.roles.len();
        Ok(Self {
            options,
            layout,
            format,
            batches: Some(batches),
            rest: None,
            zone,
            time_readers: vec![None; readers],
            rows: 0,
        })
    }

    fn malformed(&self, reason: impl ToString) -> FileError {
        FileError::Malformed {
            path: self.options.path.clone(),
            format: format_name(self.format),
            reason: reason.to_string(),
        }
    }

    fn wrong(&self, index: usize, row: usize, value: &str, fault: &str, remedy: &str) -> FileError {
        FileError::from(Box::new(WrongValue {
            path: self.options.path.clone(),
            place: "row",
            number: self.rows + row as u64 + 1,
            column: self.layout.names.get(index).cloned().unwrap_or_default(),
            value: shorten(value),
            fault: fault.to_owned(),
            remedy: remedy.to_owned(),
        }))
    }

    fn normalise(&mut self, batch: &RecordBatch) -> Result<RecordBatch, FileError> {
        let layout = Arc::clone(&self.layout);
        if batch.num_columns() != layout.roles.len() {
            return Err(FileError::Changed {
                path: self.options.path.clone(),
            });
        }
        let mut times = None;
        let mut devices = None;
        let mut fields: Vec<ArrayRef> = Vec::new();
        for (index, (role, column)) in layout.roles.iter().zip(batch.columns()).enumerate() {
            match role {
                Role::Dropped => {}
                Role::Time => times = Some(self.event_times(index, column)?),
                Role::Device => devices = Some(self.devices(index, column)?),
                Role::Field(_, FieldType::Timestamp) => {
                    fields.push(Arc::new(self.times(index, column)?));
                }
                Role::Field(_, field_type) => {
                    fields.push(self.convert(index, column, *field_type)?);
                }
            }
        }
        self.check_row_bytes(&fields)?;
        let devices = match (devices, &self.options.device) {
            (Some(devices), _) => devices,
            (None, Some(device)) => StringArray::from_iter_values(std::iter::repeat_n(
                device.as_str(),
                batch.num_rows(),
            )),
            (None, None) => {
                return Err(FileError::NoDevice {
                    path: self.options.path.clone(),
                });
            }
        };
        let Some(times) = times else {
            return Err(FileError::NoTime {
                path: self.options.path.clone(),
                columns: layout.names.clone(),
            });
        };
        let mut columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(devices)];
        columns.extend(fields);
        RecordBatch::try_new(Arc::clone(&layout.schema), columns)
            .map_err(|error| self.malformed(error))
    }

    /// A column as `to`, if nothing is lost by it.
    fn convert(
        &self,
        index: usize,
        column: &ArrayRef,
        to: FieldType,
    ) -> Result<ArrayRef, FileError> {
        let name = &self.layout.names[index];
        convert(column, to).map_err(|loss| match loss {
            Loss::Type(error) => self.malformed(format!("column {name:?}: {error}")),
            Loss::Row(row) => {
                let value = shown(column, row);
                let mut remedy =
                    format!("mend the value, or send the column as text with --map {name:?}=:utf8");
                if to == FieldType::Float64 && integer(&value).is_some() {
                    remedy += &format!(
                        ", or as whole numbers with --map {name:?}=:int64 if all of them are"
                    );
                }
                let fault = match to {
                    FieldType::Float64 => "is not a number that float64 can hold exactly".into(),
                    FieldType::Int64 => "is not a whole number that int64 can hold".into(),
                    other => format!("is not {}", other.as_str()),
                };
                self.wrong(index, row, &value, &fault, &remedy)
            }
        })
    }

    /// A row that no batch can hold is an error here, where its number is known.
    fn check_row_bytes(&self, fields: &[ArrayRef]) -> Result<(), FileError> {
        let texts: Vec<&StringArray> = fields
            .iter()
            .filter_map(|field| field.as_string_opt::<i32>())
            .collect();
        let all: usize = texts.iter().map(|texts| texts.value_data().len()).sum();
        if all <= ROW_BYTES_MAX {
            return Ok(());
        }
        let rows = fields.first().map_or(0, |field| field.len());
        for row in 0..rows {
            let bytes: usize = texts
                .iter()
                .map(|texts| texts.value_length(row) as usize)
                .sum();
            if bytes > ROW_BYTES_MAX {
                return Err(FileError::Row {
                    path: self.options.path.clone(),
                    row: self.rows + row as u64 + 1,
                    reason: row_too_long(bytes),
                });
            }
        }
        Ok(())
    }

    fn cast(&self, column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
        cast_with_options(
            column,
            to,
            &CastOptions {
                safe: false,
                ..CastOptions::default()
            },
        )
    }

    /// The event times: every row has one.
    fn event_times(
        &mut self,
        index: usize,
        column: &ArrayRef,
    ) -> Result<TimestampMicrosecondArray, FileError> {
        let nulls = column.logical_nulls();
        let null = nulls.and_then(|nulls| (0..nulls.len()).find(|row| nulls.is_null(*row)));
        if let Some(row) = null {
            let fault = "is not a point in time";
            return Err(self.wrong(index, row, "null", fault, "give every row a time"));
        }
        self.times(index, column)
    }

    /// A column as points in time; what is null stays null.
    fn times(
        &mut self,
        index: usize,
        column: &ArrayRef,
    ) -> Result<TimestampMicrosecondArray, FileError> {
        let times = match column.data_type() {
            DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => {
                // What names no zone is a local time of the zone given.
                let naive = self.micros(column)?;
                if self.options.time_zone.is_none() {
                    naive
                } else {
                    self.local_times(index, column, &naive)?
                }
            }
            DataType::Timestamp(..) => self.micros(column)?,
            data_type if data_type.is_integer() => {
                let cast = self.convert(index, column, FieldType::Int64)?;
                let numbers = cast.as_primitive::<Int64Type>();
                let Some(first) = numbers.iter().flatten().next() else {
                    return Ok(no_times(column));
                };
                let reader = self.number_reader(index, first);
                let read = |number: &i64| reader.read(&number.to_string());
                self.read_each(index, numbers.iter(), read, &reader)?
            }
            data_type if data_type.is_floating() => {
                let cast = self
                    .cast(column, &DataType::Float64)
                    .map_err(|error| self.malformed(error))?;
                let numbers = cast.as_primitive::<Float64Type>();
                let Some(first) = numbers.iter().flatten().next() else {
                    return Ok(no_times(column));
                };
                let reader = self.number_reader(index, first as i64);
                let read = |number: &f64| reader.read_float(*number);
                self.read_each(index, numbers.iter(), read, &reader)?
            }
            data_type if is_text(data_type) => {
                let cast = self
                    .cast(column, &DataType::Utf8)
                    .map_err(|error| self.malformed(error))?;
                let texts = cast.as_string::<i32>();
                let Some(first) = texts.iter().flatten().next() else {
                    return Ok(no_times(column));
                };
                let reader =
                    self.reader(index, |options, zone| TimeReader::new(options, zone, first));
                let read = |text: &&str| reader.read(text);
                self.read_each(index, texts.iter(), read, &reader)?
            }
            other => {
                return Err(self.malformed(format!(
                    "column {:?} has type {other}, which is no point in time",
                    self.layout.names[index]
                )));
            }
        };
        Ok(times.with_timezone("UTC"))
    }

    /// Timestamps and dates in microseconds; digits below are cut.
    fn micros(&self, column: &ArrayRef) -> Result<TimestampMicrosecondArray, FileError> {
        if let Some(nanos) = column.as_primitive_opt::<TimestampNanosecondType>() {
            // A cast would round towards 1970.
            return Ok(nanos.unary(|nanos| nanos.div_euclid(1_000)));
        }
        let zone = match column.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let cast = self
            .cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))
            .map_err(|error| self.malformed(error))?;
        Ok(cast.as_primitive::<TimestampMicrosecondType>().clone())
    }

    /// The column's reader of times, made by `make` if it has none yet.
    fn reader(
        &mut self,
        index: usize,
        make: impl FnOnce(&FileOptions, Tz) -> TimeReader,
    ) -> TimeReader {
        let (options, zone) = (&self.options, self.zone);
        match self.time_readers.get_mut(index) {
            Some(known) => known.get_or_insert_with(|| make(options, zone)).clone(),
            None => make(options, zone),
        }
    }

    /// For times that are numbers, of which the first of the column is `first`.
    fn number_reader(&mut self, index: usize, first: i64) -> TimeReader {
        self.reader(index, |options, zone| {
            let format = match &options.time_format {
                TimeFormat::Auto => unit_of(first),
                format => format.clone(),
            };
            TimeReader::new(options, zone, "").of_format(format)
        })
    }

    /// Each of a column's values as `read` reads it.
    fn read_each<T: ToString>(
        &self,
        index: usize,
        values: impl Iterator<Item = Option<T>>,
        read: impl Fn(&T) -> Result<i64, TimeFault>,
        reader: &TimeReader,
    ) -> Result<TimestampMicrosecondArray, FileError> {
        let mut times = Vec::new();
        for (row, value) in values.enumerate() {
            let Some(value) = value else {
                times.push(None);
                continue;
            };
            times.push(Some(read(&value).map_err(|fault| {
                self.wrong_time(index, row, &value.to_string(), fault, reader)
            })?));
        }
        Ok(times.into())
    }

    fn wrong_time(
        &self,
        index: usize,
        row: usize,
        value: &str,
        fault: TimeFault,
        reader: &TimeReader,
    ) -> FileError {
        let (fault, mut remedy) = reader.explain(fault);
        if self.layout.time_column() != index {
            let name = &self.layout.names[index];
            remedy += &format!(", or send the column as text with --map {name:?}=:utf8");
        }
        self.wrong(index, row, value, &fault, &remedy)
    }

    /// Local times, each looked up in the zone given.
    fn local_times(
        &self,
        index: usize,
        column: &ArrayRef,
        naive: &TimestampMicrosecondArray,
    ) -> Result<TimestampMicrosecondArray, FileError> {
        let reader = TimeReader::new(&self.options, self.zone, "");
        let mut times = Vec::with_capacity(naive.len());
        for (row, time) in naive.iter().enumerate() {
            let Some(time) = time else {
                times.push(None);
                continue;
            };
            let local = DateTime::from_timestamp_micros(time).ok_or(TimeFault::NotOne);
            let read = local.and_then(|local| reader.local(local.naive_utc()));
            times.push(Some(read.map_err(|fault| {
                self.wrong_time(index, row, &shown(column, row), fault, &reader)
            })?));
        }
        Ok(times.into())
    }

    fn devices(&self, index: usize, column: &ArrayRef) -> Result<StringArray, FileError> {
        let cast = self
            .cast(column, &DataType::Utf8)
            .map_err(|error| self.malformed(error))?;
        let devices = cast.as_string::<i32>();
        let is_wrong =
            |row: &usize| devices.is_null(*row) || !DeviceId::is_well_formed(devices.value(*row));
        if let Some(row) = (0..devices.len()).find(is_wrong) {
            let value = if devices.is_null(row) {
                "null"
            } else {
                devices.value(row)
            };
            return Err(self.wrong(index, row, value, "is not a device id (1 to 128 characters of [A-Za-z0-9._:@/-], starting with a letter or digit)", "mend the value"));
        }
        Ok(devices.clone())
    }
}

impl TypedChunks {
    /// The next rows of the file, not too many to convert at once.
    fn next_rows(&mut self) -> Result<Option<RecordBatch>, FileError> {
        loop {
            if let Some(batch) = self.rest.take()
                && batch.num_rows() > 0
            {
                let rows = rows_at_once(&batch).min(batch.num_rows());
                self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
                return Ok(Some(batch.slice(0, rows)));
            }
            match self.batches.as_mut().and_then(Batches::next) {
                None => return Ok(None),
                Some(Ok(batch)) => self.rest = Some(batch),
                Some(Err(error)) => return Err(self.malformed(error)),
            }
        }
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, FileError> {
        let Some(batch) = self.next_rows()? else {
            return Ok(None);
        };
        let chunk = self.normalise(&batch)?;
        self.rows += chunk.num_rows() as u64;
        Ok(Some(chunk))
    }
}

impl ChunkSource for TypedChunks {
    fn next_chunk(&mut self) -> Result<Option<RecordBatch>, FileError> {
        let (options, format) = (Arc::clone(&self.options), self.format);
        let chunk = guarded(&options.path, format, || self.read());
        if !matches!(chunk, Ok(Some(_))) {
            // What a reader is in after a panic is not known.
            self.batches = None;
            self.rest = None;
        }
        chunk
    }
}

/// Rows of a batch that are converted at once: what is stored once in the file may be a value of
/// very many of them.
pub(super) fn rows_at_once(batch: &RecordBatch) -> usize {
    let longest = batch.columns().iter().map(longest_shared).max();
    (CONVERTED_BYTES_MAX / longest.unwrap_or(0).max(1)).clamp(1, READ_ROWS)
}

/// Bytes of the longest text that rows of a column may share; 0 if they share none.
fn longest_shared(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => longest(column.as_string_view().iter()),
        DataType::Dictionary(..) => {
            let values = column.as_any_dictionary().values();
            match values.data_type() {
                DataType::Utf8 => longest(values.as_string::<i32>().iter()),
                DataType::LargeUtf8 => longest(values.as_string::<i64>().iter()),
                _ => longest_shared(values),
            }
        }
        _ => 0,
    }
}

fn longest<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> usize {
    texts.flatten().map(str::len).max().unwrap_or(0)
}
