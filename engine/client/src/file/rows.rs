//! Rows of text that become columns: what CSV and JSON lines share.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch, TimestampMicrosecondArray,
    builder::{
        ArrayBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder,
        TimestampMicrosecondBuilder,
    },
};
use quiver_model::{DeviceId, FieldType};

use super::{
    FileError, FileOptions, WrongValue,
    batching::ROW_BYTES_MAX,
    decimal::{float, integer},
    evidence::{boolean, expectation, has_leading_zeros},
    layout::{Layout, Role},
    records::Cell,
    time::TimeReader,
};

/// Longest value shown in an error.
const SHOWN_MAX: usize = 60;

enum FieldBuilder {
    Float(Float64Builder),
    Int(Int64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
}

/// Turns rows of text into a chunk of the layout.
pub(super) struct RowBuilder {
    options: Arc<FileOptions>,
    layout: Arc<Layout>,
    /// For each column of the file that is a time.
    time_readers: Vec<Option<TimeReader>>,
    times: Vec<i64>,
    devices: StringBuilder,
    fields: Vec<FieldBuilder>,
    /// Whether the row that is being built has a time, a device.
    has_time: bool,
    has_device: bool,
    /// Bytes of its fields so far.
    row_bytes: usize,
}

impl RowBuilder {
    /// `time_readers` has one for each column of the file that is a time.
    pub fn new(
        options: Arc<FileOptions>,
        layout: Arc<Layout>,
        time_readers: &[Option<TimeReader>],
    ) -> Self {
        let fields = layout.roles.iter().filter_map(|role| match role {
            Role::Field(_, field_type) => Some(match field_type {
                FieldType::Float64 => FieldBuilder::Float(Float64Builder::new()),
                FieldType::Int64 => FieldBuilder::Int(Int64Builder::new()),
                FieldType::Bool => FieldBuilder::Bool(BooleanBuilder::new()),
                FieldType::Utf8 => FieldBuilder::Text(StringBuilder::new()),
                FieldType::Timestamp => {
                    FieldBuilder::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
                }
            }),
            _ => None,
        });
        Self {
            fields: fields.collect(),
            options,
            layout,
            time_readers: time_readers.to_vec(),
            times: Vec::new(),
            devices: StringBuilder::new(),
            has_time: false,
            has_device: false,
            row_bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A value that is wrong: the fault reads on from it, as in "is not float64".
    pub fn wrong(
        &self,
        index: usize,
        line: u64,
        value: &str,
        fault: &str,
        remedy: String,
    ) -> FileError {
        FileError::from(Box::new(WrongValue {
            path: self.options.path.clone(),
            place: "line",
            number: line,
            column: self.layout.names.get(index).cloned().unwrap_or_default(),
            value: shorten(value),
            fault: fault.to_owned(),
            remedy,
        }))
    }

    /// The row's value of a column. A text is kept as it is; what becomes something else may have
    /// blanks around it.
    pub fn push(&mut self, index: usize, cell: Cell<'_>, line: u64) -> Result<(), FileError> {
        let text = cell.text.trim();
        match self.layout.roles.get(index) {
            None | Some(Role::Dropped) => {}
            Some(Role::Time) => {
                let time = self.read_time(index, text, line)?;
                self.times.push(time);
                self.has_time = true;
            }
            Some(Role::Device) => {
                if !DeviceId::is_well_formed(text) {
                    let fault = "is not a device id (1 to 128 characters of [A-Za-z0-9._:@/-], starting with a letter or digit)";
                    return Err(self.wrong(index, line, text, fault, "mend the value".into()));
                }
                self.devices.append_value(text);
                self.has_device = true;
            }
            Some(Role::Field(field, field_type)) => {
                let (field, field_type) = (*field, *field_type);
                if field_type == FieldType::Timestamp {
                    let is_value = !text.is_empty();
                    let time = is_value.then(|| self.read_time(index, text, line));
                    let time = time.transpose()?;
                    if let Some(FieldBuilder::Time(builder)) = self.fields.get_mut(field) {
                        builder.append_option(time);
                    }
                    self.row_bytes += cell.text.len();
                    return Ok(());
                }
                let name = || self.layout.names.get(index).cloned().unwrap_or_default();
                let is_number = matches!(field_type, FieldType::Int64 | FieldType::Float64);
                if is_number && !self.is_typed(index) && has_leading_zeros(text) {
                    let remedy = format!(
                        "send the column as text with --map {name:?}=:utf8, or as numbers with --map {name:?}={as_is}",
                        name = name(),
                        as_is = format_args!(":{}", field_type.as_str())
                    );
                    return Err(self.wrong(
                        index,
                        line,
                        text,
                        "has leading zeros, which a number would lose",
                        remedy,
                    ));
                }
                if !self
                    .fields
                    .get_mut(field)
                    .is_some_and(|builder| append_cell(builder, cell))
                {
                    let name = self.layout.names.get(index).cloned().unwrap_or_default();
                    let mut remedy = format!(
                        "mend or empty the value, or send the column as text with --map {name:?}=:utf8"
                    );
                    if field_type == FieldType::Float64 && integer(text).is_some() {
                        remedy += &format!(
                            ", or as whole numbers with --map {name:?}=:int64 if all of them are"
                        );
                    }
                    let fault = format!("is not {}", expectation(field_type, text));
                    return Err(self.wrong(index, line, text, &fault, remedy));
                }
                self.row_bytes += cell.text.len();
            }
        }
        Ok(())
    }

    /// A point in time, in microseconds since 1970, as the column has them.
    fn read_time(&self, index: usize, text: &str, line: u64) -> Result<i64, FileError> {
        let reader = self.time_readers.get(index).and_then(Option::as_ref);
        let Some(reader) = reader else {
            let remedy = "mend the value".to_owned();
            return Err(self.wrong(index, line, text, "is not a point in time", remedy));
        };
        reader.read(text).map_err(|fault| {
            let (fault, mut remedy) = reader.explain(fault);
            if self.layout.time_column() != index {
                let name = self.layout.names.get(index).cloned().unwrap_or_default();
                remedy += &format!(", or send the column as text with --map {name:?}=:utf8");
            }
            self.wrong(index, line, text, &fault, remedy)
        })
    }

    /// Whether somebody said what type the column has.
    fn is_typed(&self, index: usize) -> bool {
        let name = self.layout.names.get(index);
        self.options
            .map
            .iter()
            .any(|map| map.field_type.is_some() && Some(&map.source) == name)
    }

    /// The row is complete.
    pub fn end_row(&mut self, line: u64) -> Result<(), FileError> {
        if self.row_bytes > ROW_BYTES_MAX {
            return Err(FileError::Line {
                path: self.options.path.clone(),
                line,
                reason: row_too_long(self.row_bytes),
            });
        }
        self.row_bytes = 0;
        if !self.has_time {
            let remedy = "give every row a time".to_owned();
            let column = self.layout.time_column();
            let reader = self.time_readers.get(column).and_then(Option::as_ref);
            let expected = reader.map_or("a point in time".into(), TimeReader::expectation);
            return Err(self.wrong(column, line, "", &format!("is not {expected}"), remedy));
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
                        "is not a device id",
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
                FieldBuilder::Time(builder) => pad(builder, rows),
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
                FieldBuilder::Time(builder) => Arc::new(builder.finish()),
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
impl Nulls for TimestampMicrosecondBuilder {
    fn push_null(&mut self) {
        self.append_null();
    }
}

fn pad(builder: &mut impl Nulls, rows: usize) {
    while builder.len() < rows {
        builder.push_null();
    }
}

/// Appends `cell`, or null for none; `false` if it is no value of the builder's type.
fn append_cell(builder: &mut FieldBuilder, cell: Cell<'_>) -> bool {
    let text = cell.text.trim();
    match builder {
        FieldBuilder::Text(builder) => {
            let is_value = cell.is_quoted || !cell.text.is_empty();
            builder.append_option(is_value.then_some(cell.text));
            true
        }
        FieldBuilder::Float(builder) => {
            append(text, float(text), |value| builder.append_option(value))
        }
        FieldBuilder::Int(builder) => {
            append(text, integer(text), |value| builder.append_option(value))
        }
        FieldBuilder::Bool(builder) => {
            append(text, boolean(text), |value| builder.append_option(value))
        }
        // Read with the column's format, which is not known here.
        FieldBuilder::Time(_) => false,
    }
}

fn append<T>(text: &str, value: Option<T>, push: impl FnOnce(Option<T>)) -> bool {
    let is_fit = text.is_empty() || value.is_some();
    if is_fit {
        push(value);
    }
    is_fit
}

/// What is wrong with a row that no batch can hold.
pub(super) fn row_too_long(bytes: usize) -> String {
    format!(
        "the row has {bytes} bytes, and one may have {ROW_BYTES_MAX} at most; shorten its texts, or leave the column out with --drop COLUMN"
    )
}

/// As much of a value as an error shows.
pub(super) fn shorten(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
