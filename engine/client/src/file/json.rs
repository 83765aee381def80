//! JSON lines: one object a line.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use arrow_array::{RecordBatch, timezone::Tz};
use quiver_model::FieldType;
use serde_json::{Map, Value};

use super::{
    BATCH_ROWS_MAX, FileError, FileOptions,
    evidence::{Evidence, Kind, float},
    layout::{Role, SourceColumn},
    plan::ChunkSource,
    records::Cell,
    rows::{RowBuilder, shorten},
    text::{HashingReader, Survey},
    time,
};

/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Objects of a file, one after the other, with their line.
struct Objects<R> {
    input: BufReader<R>,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Objects<R> {
    fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(256 * 1024, input),
            line: 0,
            buffer: Vec::new(),
        }
    }

    fn next(&mut self, path: &Path) -> Result<Option<Map<String, Value>>, FileError> {
        loop {
            self.buffer.clear();
            let read = self
                .input
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut self.buffer);
            let count = read.map_err(|source| FileError::Io {
                path: path.to_owned(),
                source,
            })?;
            if count == 0 {
                return Ok(None);
            }
            self.line += 1;
            let fail = |reason: String| FileError::Line {
                path: path.to_owned(),
                line: self.line,
                reason,
            };
            if count as u64 == LINE_BYTES_MAX && self.buffer.last() != Some(&b'\n') {
                return Err(fail(format!(
                    "the line is longer than {LINE_BYTES_MAX} bytes; write one object a line"
                )));
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            return match serde_json::from_slice(&self.buffer) {
                Ok(Value::Object(object)) => match self.cut_number(&object) {
                    None => Ok(Some(object)),
                    Some(number) => Err(fail(format!(
                        "the number {number} has more digits than it can be stored with; write it as text, between quotes"
                    ))),
                },
                Ok(_) => Err(fail(
                    "the line is not a JSON object; write one object a line".into(),
                )),
                Err(error) => Err(fail(format!("the line is not JSON: {error}"))),
            };
        }
    }
}

impl<R> Objects<R> {
    /// A whole number of the line that JSON's reader made a float of, and that lost digits so.
    fn cut_number(&self, object: &Map<String, Value>) -> Option<String> {
        let is_large = |value: &Value| value.as_f64().is_some_and(|value| value.abs() >= 1e18);
        if !object
            .values()
            .any(|value| value.is_f64() && is_large(value))
        {
            return None;
        }
        let (mut is_text, mut is_escaped, mut start) = (false, false, None);
        for (at, byte) in self.buffer.iter().enumerate() {
            let is_number =
                !is_text && matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
            match (is_number, start) {
                (true, None) => start = Some(at),
                (false, Some(from)) => {
                    let number = self.buffer.get(from..at);
                    let number = number.and_then(|number| std::str::from_utf8(number).ok());
                    // Words such as `true` have an `e` too; they are no numbers.
                    let is_cut =
                        |number: &&str| number.parse::<f64>().is_ok() && float(number).is_none();
                    if let Some(number) = number.filter(is_cut)
                        && number.parse::<u64>().is_err()
                        && number.parse::<i64>().is_err()
                    {
                        return Some(shorten(number));
                    }
                    start = None;
                }
                _ => {}
            }
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = is_text,
                b'"' => is_text = !is_text,
                _ => {}
            }
        }
        None
    }
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The first pass.
pub(super) fn survey(options: &FileOptions, zone: Tz) -> Result<Survey, FileError> {
    let path = options.path.as_path();
    let mut objects = Objects::new(HashingReader::new(open(path)?));
    let mut found: Vec<(String, Evidence, Option<String>)> = Vec::new();
    let mut rows = 0;
    while let Some(object) = objects.next(path)? {
        for (name, value) in object {
            let value = match &value {
                // Null everywhere it is a column without values, which can still be named.
                Value::Null => None,
                Value::Bool(value) => Some((Kind::Bool, value.to_string())),
                Value::Number(number) if number.is_i64() => {
                    Some((Kind::Whole, number_text(&value)))
                }
                Value::Number(_) => Some((Kind::Float, number_text(&value))),
                Value::String(value) => Some((Kind::Text, value.clone())),
                Value::Array(_) | Value::Object(_) => {
                    return Err(FileError::Line {
                        path: path.to_owned(),
                        line: objects.line,
                        reason: format!("field {name:?} is nested; flatten it, one value a field"),
                    });
                }
            };
            let place = match found.iter().position(|(known, ..)| *known == name) {
                Some(place) => place,
                None => {
                    found.push((name, Evidence::default(), None));
                    found.len() - 1
                }
            };
            if let (Some((_, evidence, first)), Some((kind, text))) = (found.get_mut(place), value)
            {
                evidence.add(kind, rows);
                first.get_or_insert(text);
            }
        }
        rows += 1;
    }
    let (mut columns, mut firsts) = (Vec::new(), Vec::new());
    for (name, evidence, first) in found {
        columns.push(SourceColumn {
            name,
            suggested: evidence.field_type(),
            is_time: first
                .as_deref()
                .is_some_and(|first| time::is_time_text(first, zone)),
            unsupported: None,
        });
        firsts.push(first);
    }
    Ok(Survey {
        columns,
        firsts,
        rows,
        hash: objects.input.into_inner().hash,
    })
}

/// A number as its digits; whole ones without a fraction, which times are read from.
fn number_text(value: &Value) -> String {
    let text = value.to_string();
    match text.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// A later pass.
pub(super) struct JsonChunks {
    options: Arc<FileOptions>,
    objects: Objects<File>,
    rows: RowBuilder,
}

impl JsonChunks {
    pub fn open(options: Arc<FileOptions>, rows: RowBuilder) -> Result<Self, FileError> {
        let objects = Objects::new(open(&options.path)?);
        Ok(Self {
            options,
            objects,
            rows,
        })
    }
}

impl ChunkSource for JsonChunks {
    fn next_chunk(&mut self) -> Result<Option<RecordBatch>, FileError> {
        while self.rows.len() < BATCH_ROWS_MAX {
            let Some(object) = self.objects.next(&self.options.path)? else {
                break;
            };
            let line = self.objects.line;
            for (name, value) in object {
                let Some(index) = self
                    .rows
                    .layout()
                    .names
                    .iter()
                    .position(|known| *known == name)
                else {
                    return Err(FileError::Changed {
                        path: self.options.path.clone(),
                    });
                };
                push(&mut self.rows, index, &value, line)?;
            }
            self.rows.end_row(line)?;
        }
        self.rows.take()
    }
}

fn push(rows: &mut RowBuilder, index: usize, value: &Value, line: u64) -> Result<(), FileError> {
    let role = rows.layout().roles.get(index).cloned();
    match (role, value) {
        // A field that is null is one that is not there.
        (_, Value::Null) => Ok(()),
        (Some(Role::Field(_, FieldType::Float64 | FieldType::Int64)), Value::String(text)) => {
            let remedy =
                "write numbers without quotes, or send the field as text with --map NAME=:utf8"
                    .to_owned();
            Err(rows.wrong(index, line, text, "is not a number", remedy))
        }
        (_, Value::String(text)) => rows.push(index, Cell::quoted(text), line),
        (_, Value::Number(_)) => rows.push(index, Cell::plain(&number_text(value)), line),
        (_, other) => rows.push(index, Cell::plain(&other.to_string()), line),
    }
}
