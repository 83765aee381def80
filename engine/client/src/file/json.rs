//! JSON lines: one object a line.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{RecordBatch, timezone::Tz};
use quiver_model::{FIELDS_PER_STREAM_MAX, FieldType};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    FileError, FileOptions, READ_ROWS,
    evidence::{Evidence, Kind},
    layout::{Role, SourceColumn},
    plan::ChunkSource,
    records::{BYTE_ORDER_MARK, Cell},
    rows::{RowBuilder, shorten},
    text::{HashingReader, Survey, first_of},
    time,
};

/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest name of a field, in bytes. One of a stream has 63 at most; longer ones can be mapped.
const NAME_BYTES_MAX: usize = 1_024;
/// Most names of a file besides those that are dropped: the fields of a stream, time and device.
const NAMES_MAX: usize = FIELDS_PER_STREAM_MAX + 2;
/// Most fields of a line, and most names of a file, those that are dropped included.
const FIELDS_OF_LINE_MAX: usize = 10_000;

/// A line's fields in their order, each value as it is written.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A field's name, which is borrowed from the line if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    if fields.len() == FIELDS_OF_LINE_MAX {
                        return Err(A::Error::custom(format_args!(
                            "it has more than {FIELDS_OF_LINE_MAX} fields"
                        )));
                    }
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A value that is not nested.
#[derive(Clone, Debug, PartialEq)]
enum Scalar<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    Text(Cow<'a, str>),
}

/// Lines of a file that have an object, one after the other.
struct Lines<R> {
    path: PathBuf,
    input: BufReader<R>,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Lines<R> {
    fn new(path: &Path, input: R) -> Self {
        Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(256 * 1024, input),
            line: 0,
            buffer: Vec::new(),
        }
    }

    /// Goes to the next line that is not blank; `false` at the end of the file.
    fn advance(&mut self) -> Result<bool, FileError> {
        loop {
            self.buffer.clear();
            let read = self
                .input
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut self.buffer);
            let count = read.map_err(|source| FileError::Io {
                path: self.path.clone(),
                source,
            })?;
            if count == 0 {
                return Ok(false);
            }
            self.line += 1;
            if count as u64 == LINE_BYTES_MAX && self.buffer.last() != Some(&b'\n') {
                return Err(self.fault(format!(
                    "the line is longer than {LINE_BYTES_MAX} bytes; write one object a line"
                )));
            }
            if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

impl<R> Lines<R> {
    fn fault(&self, reason: String) -> FileError {
        FileError::Line {
            path: self.path.clone(),
            line: self.line,
            reason,
        }
    }

    /// The object of the line.
    fn object(&self) -> Result<Object<'_>, FileError> {
        if self.buffer.trim_ascii_start().first() != Some(&b'{') {
            // What is no JSON at all is told so.
            return Err(match serde_json::from_slice::<IgnoredAny>(&self.buffer) {
                Ok(_) => {
                    self.fault("the line is not a JSON object; write one object a line".into())
                }
                Err(error) => self.not_json(&error),
            });
        }
        serde_json::from_slice(&self.buffer).map_err(|error| self.not_json(&error))
    }

    fn not_json(&self, error: &serde_json::Error) -> FileError {
        self.fault(format!("the line is not JSON: {error}"))
    }

    /// A field's value.
    fn scalar<'a>(&self, name: &str, value: &'a RawValue) -> Result<Scalar<'a>, FileError> {
        let text = value.get();
        Ok(match text.as_bytes().first() {
            Some(b'{' | b'[') => {
                return Err(self.fault(format!(
                    "field {:?} is nested; flatten it, one value a field",
                    shorten(name)
                )));
            }
            Some(b'"') => {
                let Name(text) =
                    serde_json::from_str(text).map_err(|error| self.not_json(&error))?;
                Scalar::Text(text)
            }
            Some(b'n') => Scalar::Null,
            Some(b't') => Scalar::Bool(true),
            Some(b'f') => Scalar::Bool(false),
            _ => Scalar::Number(text),
        })
    }

    fn twice(&self, name: &str) -> FileError {
        self.fault(format!(
            "the object has two fields {:?}; write each once",
            shorten(name)
        ))
    }
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
}

/// What is known of a field so far.
struct Found {
    name: String,
    evidence: Evidence,
    first: Option<String>,
    /// The row that had it last, from 0.
    row: u64,
}

/// The first pass.
pub(super) fn survey(options: &FileOptions, zone: Tz) -> Result<Survey, FileError> {
    let path = options.path.as_path();
    let mut lines = Lines::new(path, HashingReader::new(open(path)?));
    let mut found: Vec<Found> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut names_kept = 0;
    let mut rows = 0;
    while lines.advance()? {
        for (name, value) in lines.object()?.0 {
            let value = lines.scalar(&name, value)?;
            let place = match places.get(name.as_ref()) {
                Some(place) => *place,
                None => {
                    names_kept += usize::from(!options.drop.iter().any(|drop| *drop == name));
                    check_name(&lines, &name, names_kept, found.len())?;
                    let name = name.clone().into_owned();
                    places.insert(name.clone(), found.len());
                    found.push(Found {
                        name,
                        evidence: Evidence::default(),
                        first: None,
                        row: u64::MAX,
                    });
                    found.len() - 1
                }
            };
            let Some(field) = found.get_mut(place) else {
                continue;
            };
            if field.row == rows {
                return Err(lines.twice(&name));
            }
            field.row = rows;
            let (kind, text) = match &value {
                // Null everywhere it is a column without values, which can still be named.
                Scalar::Null => continue,
                Scalar::Bool(value) => (Kind::Bool, if *value { "true" } else { "false" }),
                Scalar::Number(text) => (Kind::Number, *text),
                Scalar::Text(text) => (Kind::Text, text.as_ref()),
            };
            field.evidence.add(kind, rows);
            if field.first.is_none() {
                field.first = Some(first_of(text));
            }
        }
        rows += 1;
    }
    let (mut columns, mut firsts) = (Vec::new(), Vec::new());
    for field in found {
        columns.push(SourceColumn {
            name: field.name,
            suggested: field.evidence.field_type(),
            is_time: field
                .first
                .as_deref()
                .is_some_and(|first| time::is_time_text(first, zone)),
            unsupported: None,
        });
        firsts.push(field.first);
    }
    Ok(Survey {
        columns,
        firsts,
        rows,
        hash: lines.input.into_inner().hash,
    })
}

/// Whether a new field may be one of the file's: `kept` names besides those that are dropped, this
/// one included, and `known` names in all before it.
fn check_name<R>(lines: &Lines<R>, name: &str, kept: usize, known: usize) -> Result<(), FileError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(lines.fault(format!(
            "the name of field {:?} has {} bytes, and one may have {NAME_BYTES_MAX} at most; shorten it",
            shorten(name),
            name.len()
        )));
    }
    if kept > NAMES_MAX || known >= FIELDS_OF_LINE_MAX {
        return Err(lines.fault(format!(
            "with field {:?} the file has more than the {FIELDS_PER_STREAM_MAX} fields of a stream besides time and device; write what varies as a value, not as a name, or leave fields out with --drop NAME",
            shorten(name)
        )));
    }
    Ok(())
}

/// A later pass.
pub(super) struct JsonChunks {
    options: Arc<FileOptions>,
    lines: Lines<File>,
    rows: RowBuilder,
    /// Where each field is in the layout, and the row that had it last, from 0.
    places: HashMap<String, (usize, u64)>,
    row: u64,
}

impl JsonChunks {
    pub fn open(options: Arc<FileOptions>, rows: RowBuilder) -> Result<Self, FileError> {
        let lines = Lines::new(&options.path, open(&options.path)?);
        let names = rows.layout().names.iter().enumerate();
        Ok(Self {
            places: names
                .map(|(index, name)| (name.clone(), (index, u64::MAX)))
                .collect(),
            options,
            lines,
            rows,
            row: 0,
        })
    }
}

impl ChunkSource for JsonChunks {
    fn next_chunk(&mut self) -> Result<Option<RecordBatch>, FileError> {
        while self.rows.len() < READ_ROWS && self.lines.advance()? {
            let line = self.lines.line;
            for (name, value) in self.lines.object()?.0 {
                let Some((index, row)) = self.places.get_mut(name.as_ref()) else {
                    return Err(FileError::Changed {
                        path: self.options.path.clone(),
                    });
                };
                if *row == self.row {
                    return Err(self.lines.twice(&name));
                }
                *row = self.row;
                let value = self.lines.scalar(&name, value)?;
                push(&mut self.rows, *index, &value, line)?;
            }
            self.rows.end_row(line)?;
            self.row += 1;
        }
        self.rows.take()
    }
}

fn push(
    rows: &mut RowBuilder,
    index: usize,
    value: &Scalar<'_>,
    line: u64,
) -> Result<(), FileError> {
    let role = rows.layout().roles.get(index).cloned();
    match (role, value) {
        // A field that is null is one that is not there.
        (_, Scalar::Null) => Ok(()),
        (Some(Role::Field(_, FieldType::Float64 | FieldType::Int64)), Scalar::Text(text)) => {
            let remedy =
                "write numbers without quotes, or send the field as text with --map NAME=:utf8"
                    .to_owned();
            Err(rows.wrong(index, line, text, "is not a number", remedy))
        }
        (_, Scalar::Text(text)) => rows.push(index, Cell::quoted(text), line),
        (_, Scalar::Number(text)) => rows.push(index, Cell::plain(text), line),
        (_, Scalar::Bool(true)) => rows.push(index, Cell::plain("true"), line),
        (_, Scalar::Bool(false)) => rows.push(index, Cell::plain("false"), line),
    }
}
