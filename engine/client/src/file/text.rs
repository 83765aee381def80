//! CSV and TSV, and what they share with JSON lines: rows of values that become columns.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use arrow_array::{
    ArrayRef, RecordBatch, TimestampMicrosecondArray,
    builder::{ArrayBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder},
};
use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord, Trim};
use quiver_model::{DeviceId, FieldType};
use sha2::{Digest, Sha256};

use super::{
    BATCH_ROWS_MAX, FileError, FileOptions, WrongValue,
    layout::{Layout, Role, SourceColumn},
    plan::ChunkSource,
    time::{self, TimeReader},
};

/// Rows that say what type a column has. A later value of another type is an error, not a change
/// of type: it is more often a mistake than a surprise.
pub(super) const ROWS_FOR_TYPES: u64 = 1_000;
/// Longest value shown in an error.
const SHOWN_MAX: usize = 60;

/// Hashes what is read through it.
pub(super) struct HashingReader<R> {
    inner: R,
    pub hash: Sha256,
}

impl<R> HashingReader<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// What the first pass over a file finds.
pub(super) struct Survey {
    pub columns: Vec<SourceColumn>,
    /// The first value of each column, as text.
    pub firsts: Vec<Option<String>>,
    pub rows: u64,
    pub hash: Sha256,
}

/// What the first rows say of a column's type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    float: bool,
    boolean: bool,
    text: bool,
}

impl Evidence {
    pub fn add_text(&mut self, value: &str) {
        if value.parse::<f64>().is_ok() {
            self.float = true;
        } else if boolean(value).is_some() {
            self.boolean = true;
        } else {
            self.text = true;
        }
    }

    pub fn add(&mut self, field_type: FieldType) {
        match field_type {
            FieldType::Float64 | FieldType::Int64 => self.float = true,
            FieldType::Bool => self.boolean = true,
            FieldType::Utf8 => self.text = true,
        }
    }

    pub fn field_type(self) -> Option<FieldType> {
        match (self.float, self.boolean, self.text) {
            (false, false, false) => None,
            (true, false, false) => Some(FieldType::Float64),
            (false, true, false) => Some(FieldType::Bool),
            _ => Some(FieldType::Utf8),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn reader<R: Read>(input: R, delimiter: u8) -> Reader<R> {
    ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(Trim::All)
        .from_reader(input)
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
}

fn csv_error(path: &Path, error: csv::Error) -> FileError {
    let line = error
        .position()
        .map_or(0, |position| line_at(path, position));
    let path = path.to_owned();
    match error.into_kind() {
        ErrorKind::Io(source) => FileError::Io { path, source },
        ErrorKind::Utf8 { err, .. } => FileError::Line {
            path,
            line,
            reason: format!("the line is not UTF-8 ({err}); convert the file"),
        },
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => FileError::Line {
            path,
            line,
            reason: format!(
                "the line has {len} values, and the header {expected_len} names; quote values that contain the delimiter"
            ),
        },
        other => FileError::Line {
            path,
            line,
            reason: format!("{other:?}"),
        },
    }
}

/// The line, from 1, of the record that is read at `position`. The reader's own count is that of
/// the end of the record before: it lags behind empty lines and the second half of CR LF. So it is
/// counted anew, once, for the one error that ends the reading.
fn line_at(path: &Path, position: &csv::Position) -> u64 {
    let Ok(file) = File::open(path) else {
        return position.line();
    };
    let mut line = 1;
    for (offset, byte) in (0_u64..).zip(BufReader::new(file).bytes()) {
        match byte {
            Ok(b'\n') => line += 1,
            Ok(b'\r') => {}
            Ok(_) if offset < position.byte() => {}
            Ok(_) | Err(_) => break,
        }
    }
    line
}

/// The first pass over a CSV file.
pub(super) fn survey(
    options: &FileOptions,
    delimiter: u8,
    zone: arrow_array::timezone::Tz,
) -> Result<Survey, FileError> {
    let path = options.path.as_path();
    let mut reader = reader(HashingReader::new(open(path)?), delimiter);
    let header = reader
        .headers()
        .map_err(|error| csv_error(path, error))?
        .clone();
    let mut evidence = vec![Evidence::default(); header.len()];
    let mut firsts: Vec<Option<String>> = vec![None; header.len()];
    let (mut record, mut rows) = (StringRecord::new(), 0);
    while reader
        .read_record(&mut record)
        .map_err(|error| csv_error(path, error))?
    {
        for ((cell, evidence), first) in record.iter().zip(&mut evidence).zip(&mut firsts) {
            if cell.is_empty() {
                continue;
            }
            if first.is_none() {
                *first = Some(cell.to_owned());
                evidence.add_text(cell);
            } else if rows < ROWS_FOR_TYPES {
                evidence.add_text(cell);
            }
        }
        rows += 1;
    }
    let columns = header
        .iter()
        .zip(evidence)
        .zip(&firsts)
        .map(|((name, evidence), first)| SourceColumn {
            name: name.to_owned(),
            suggested: evidence.field_type(),
            is_time: first
                .as_deref()
                .is_some_and(|first| time::is_time_text(first, zone)),
            unsupported: None,
        })
        .collect();
    Ok(Survey {
        columns,
        firsts,
        rows,
        hash: reader.into_inner().hash,
    })
}

/// The second pass over a CSV file.
pub(super) struct CsvChunks {
    options: Arc<FileOptions>,
    reader: Reader<BufReader<File>>,
    record: StringRecord,
    rows: RowBuilder,
}

impl CsvChunks {
    pub fn open(
        options: Arc<FileOptions>,
        delimiter: u8,
        rows: RowBuilder,
    ) -> Result<Self, FileError> {
        let input = BufReader::with_capacity(256 * 1024, open(&options.path)?);
        Ok(Self {
            reader: reader(input, delimiter),
            options,
            record: StringRecord::new(),
            rows,
        })
    }
}

impl ChunkSource for CsvChunks {
    fn next_chunk(&mut self) -> Result<Option<RecordBatch>, FileError> {
        while self.rows.len() < BATCH_ROWS_MAX {
            let path = &self.options.path;
            if !self
                .reader
                .read_record(&mut self.record)
                .map_err(|error| csv_error(path, error))?
            {
                break;
            }
            if let Err(mut error) = push_record(&mut self.rows, &self.record) {
                if let (FileError::Value(wrong), Some(position)) =
                    (&mut error, self.record.position())
                {
                    wrong.number = line_at(&self.options.path, position);
                }
                return Err(error);
            }
        }
        self.rows.take()
    }
}

/// Adds a record to the rows; the line in an error is the reader's count.
fn push_record(rows: &mut RowBuilder, record: &StringRecord) -> Result<(), FileError> {
    let line = record.position().map_or(0, csv::Position::line);
    for (index, cell) in record.iter().enumerate() {
        rows.push_text(index, cell, line)?;
    }
    rows.end_row(line)
}

enum FieldBuilder {
    Float(Float64Builder),
    Int(Int64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
}

/// Turns rows of text into a chunk of the layout.
pub(super) struct RowBuilder {
    options: Arc<FileOptions>,
    layout: Arc<Layout>,
    time_reader: TimeReader,
    times: Vec<i64>,
    devices: StringBuilder,
    fields: Vec<FieldBuilder>,
    /// Whether the row that is being built has a time, a device.
    has_time: bool,
    has_device: bool,
}

impl RowBuilder {
    pub fn new(options: Arc<FileOptions>, layout: Arc<Layout>, time_reader: TimeReader) -> Self {
        let fields = layout.roles.iter().filter_map(|role| match role {
            Role::Field(_, field_type) => Some(match field_type {
                FieldType::Float64 => FieldBuilder::Float(Float64Builder::new()),
                FieldType::Int64 => FieldBuilder::Int(Int64Builder::new()),
                FieldType::Bool => FieldBuilder::Bool(BooleanBuilder::new()),
                FieldType::Utf8 => FieldBuilder::Text(StringBuilder::new()),
            }),
            _ => None,
        });
        Self {
            fields: fields.collect(),
            options,
            layout,
            time_reader,
            times: Vec::new(),
            devices: StringBuilder::new(),
            has_time: false,
            has_device: false,
        }
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A value that is wrong.
    pub fn wrong(
        &self,
        index: usize,
        line: u64,
        value: &str,
        expected: &str,
        remedy: String,
    ) -> FileError {
        FileError::from(Box::new(WrongValue {
            path: self.options.path.clone(),
            place: "line",
            number: line,
            column: self.layout.names.get(index).cloned().unwrap_or_default(),
            value: shorten(value),
            expected: expected.to_owned(),
            remedy,
        }))
    }

    /// The row's value of a column, as text; empty for none.
    pub fn push_text(&mut self, index: usize, cell: &str, line: u64) -> Result<(), FileError> {
        match self.layout.roles.get(index) {
            None | Some(Role::Dropped) => {}
            Some(Role::Time) => match self.time_reader.read(cell) {
                Some(time) => {
                    self.times.push(time);
                    self.has_time = true;
                }
                None => {
                    let remedy = "mend the value, or name another --timestamp, --timestamp-format or --timezone";
                    return Err(self.wrong(
                        index,
                        line,
                        cell,
                        &self.time_reader.expectation(),
                        remedy.into(),
                    ));
                }
            },
            Some(Role::Device) => {
                if !DeviceId::is_well_formed(cell) {
                    let expected = "a device id (1 to 128 characters of [A-Za-z0-9._:@/-], starting with a letter or digit)";
                    return Err(self.wrong(index, line, cell, expected, "mend the value".into()));
                }
                self.devices.append_value(cell);
                self.has_device = true;
            }
            Some(Role::Field(field, field_type)) => {
                let (field, field_type) = (*field, *field_type);
                if !self
                    .fields
                    .get_mut(field)
                    .is_some_and(|builder| append_text(builder, cell))
                {
                    let name = self.layout.names.get(index).cloned().unwrap_or_default();
                    let remedy = format!(
                        "mend or empty the value, or send the column as text with --map {name:?}=:utf8"
                    );
                    let is_number = field_type == FieldType::Float64 && cell.parse::<f64>().is_ok();
                    let expected = if is_number {
                        "a number that float64 can hold"
                    } else {
                        field_type.as_str()
                    };
                    return Err(self.wrong(index, line, cell, expected, remedy));
                }
            }
        }
        Ok(())
    }

    /// The row is complete.
    pub fn end_row(&mut self, line: u64) -> Result<(), FileError> {
        if !self.has_time {
            let remedy = "give every row a time".to_owned();
            return Err(self.wrong(
                self.layout.time_column(),
                line,
                "",
                &self.time_reader.expectation(),
                remedy,
            ));
        }
        if !self.has_device {
            match &self.options.device {
                Some(device) => self.devices.append_value(device.as_str()),
                None => {
                    let index = self
                        .layout
                        .roles
                        .iter()
                        .position(|role| *role == Role::Device)
                        .unwrap_or(0);
                    return Err(self.wrong(
                        index,
                        line,
                        "",
                        "a device id",
                        "give every row a device".into(),
                    ));
                }
            }
        }
        (self.has_time, self.has_device) = (false, false);
        // Values that the row does not have (JSON objects leave them out) are null.
        let rows = self.times.len();
        for field in &mut self.fields {
            match field {
                FieldBuilder::Float(builder) => pad(builder, rows),
                FieldBuilder::Int(builder) => pad(builder, rows),
                FieldBuilder::Bool(builder) => pad(builder, rows),
                FieldBuilder::Text(builder) => pad(builder, rows),
            }
        }
        Ok(())
    }

    /// The rows so far as a chunk; `None` without any.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, FileError> {
        if self.times.is_empty() {
            return Ok(None);
        }
        let times =
            TimestampMicrosecondArray::from(std::mem::take(&mut self.times)).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(self.devices.finish())];
        for field in &mut self.fields {
            columns.push(match field {
                FieldBuilder::Float(builder) => Arc::new(builder.finish()),
                FieldBuilder::Int(builder) => Arc::new(builder.finish()),
                FieldBuilder::Bool(builder) => Arc::new(builder.finish()),
                FieldBuilder::Text(builder) => Arc::new(builder.finish()),
            });
        }
        RecordBatch::try_new(Arc::clone(&self.layout.schema), columns)
            .map(Some)
            .map_err(|error| FileError::Malformed {
                path: self.options.path.clone(),
                format: "telemetry",
                reason: error.to_string(),
            })
    }
}

/// Builders that take nulls.
trait Nulls: ArrayBuilder {
    fn push_null(&mut self);
}
impl Nulls for Float64Builder {
    fn push_null(&mut self) {
        self.append_null();
    }
}
impl Nulls for Int64Builder {
    fn push_null(&mut self) {
        self.append_null();
    }
}
impl Nulls for BooleanBuilder {
    fn push_null(&mut self) {
        self.append_null();
    }
}
impl Nulls for StringBuilder {
    fn push_null(&mut self) {
        self.append_null();
    }
}

fn pad(builder: &mut impl Nulls, rows: usize) {
    while builder.len() < rows {
        builder.push_null();
    }
}

/// Whether `cell` is a value of the builder's type, or none.
fn append_text(builder: &mut FieldBuilder, cell: &str) -> bool {
    match builder {
        FieldBuilder::Float(builder) => {
            append(cell, float(cell), |value| builder.append_option(value))
        }
        FieldBuilder::Int(builder) => {
            append(cell, integer(cell), |value| builder.append_option(value))
        }
        FieldBuilder::Bool(builder) => {
            append(cell, boolean(cell), |value| builder.append_option(value))
        }
        FieldBuilder::Text(builder) => {
            append(cell, Some(cell), |value| builder.append_option(value))
        }
    }
}

fn append<T>(cell: &str, value: Option<T>, push: impl FnOnce(Option<T>)) -> bool {
    if cell.is_empty() {
        push(None);
        return true;
    }
    let is_value = value.is_some();
    if is_value {
        push(value);
    }
    is_value
}

/// A number. `inf` and `nan` are words that mean what they say; digits that make an infinity are
/// a number that would be another one when it is stored.
fn float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let is_kept = value.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit());
    is_kept.then_some(value)
}

/// Whole numbers, also if written as decimals without a fraction.
fn integer(text: &str) -> Option<i64> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse().ok()
}

pub(super) fn shorten(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
