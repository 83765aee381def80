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
    layout::{Role, SourceColumn},
    plan::ChunkSource,
    text::{Evidence, HashingReader, ROWS_FOR_TYPES, RowBuilder, Survey},
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
                Ok(Value::Object(object)) => Ok(Some(object)),
                Ok(_) => Err(fail(
                    "the line is not a JSON object; write one object a line".into(),
                )),
                Err(error) => Err(fail(format!("the line is not JSON: {error}"))),
            };
        }
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
            let (kind, text) = match &value {
                Value::Null => continue,
                Value::Bool(value) => (FieldType::Bool, value.to_string()),
                Value::Number(_) => (FieldType::Float64, number_text(&value)),
                Value::String(value) => (FieldType::Utf8, value.clone()),
                Value::Array(_) | Value::Object(_) => {
                    return Err(FileError::Line {
                        path: path.to_owned(),
                        line: objects.line,
                        reason: format!("field {name:?} is nested; flatten it, one value a field"),
                    });
                }
            };
            match found.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, evidence, _)) if rows < ROWS_FOR_TYPES => evidence.add(kind),
                Some(_) => {}
                None => {
                    let mut evidence = Evidence::default();
                    evidence.add(kind);
                    found.push((name, evidence, Some(text)));
                }
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

/// The second pass.
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
            Err(rows.wrong(index, line, text, "a number", remedy))
        }
        (_, Value::String(text)) => rows.push_text(index, text, line),
        (_, Value::Number(_)) => rows.push_text(index, &number_text(value), line),
        (_, other) => rows.push_text(index, &other.to_string(), line),
    }
}
