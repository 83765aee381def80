//! What can be wrong with a file, and with sending it.

use std::{io, path::PathBuf};

use crate::{ConnectError, FlushError, SendError, StartError};

use super::UnknownFormat;

/// Why a file cannot be read as telemetry. Every value is looked at before the first row is sent,
/// so nothing of it was stored, unless it changed meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Its extension says nothing.
    #[error("{path}: {source}; name it with --format")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: UnknownFormat,
    },
    /// It is not what its format promises.
    #[error("{path} is not valid {format}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// What its reader says.
        reason: String,
    },
    /// It has no rows, or no columns.
    #[error("{path} has no rows")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line cannot be taken apart.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A row of a typed file cannot be sent.
    #[error("{path}, row {row}: {reason}")]
    Row {
        /// The file.
        path: PathBuf,
        /// From 1.
        row: u64,
        /// What is wrong.
        reason: String,
    },
    /// A value is not what its column holds.
    #[error(transparent)]
    Value(#[from] Box<WrongValue>),
    /// A column that was named does not exist.
    #[error("{path} has no column {column:?}; it has {}", listed(.columns))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The name.
        column: String,
        /// What it has.
        columns: Vec<String>,
    },
    /// No column holds event times.
    #[error("{path} has no column of event times that can be recognised among {}; name it with --timestamp COLUMN, and its format with --timestamp-format if need be", listed(.columns))]
    NoTime {
        /// The file.
        path: PathBuf,
        /// What it has.
        columns: Vec<String>,
    },
    /// Nobody knows who measured.
    #[error(
        "{path} has no column \"device\", and no device was named; name it with --device ID, or map a column to it with --map COLUMN=device"
    )]
    NoDevice {
        /// The file.
        path: PathBuf,
    },
    /// Two answers to who measured.
    #[error(
        "{path} has a column \"device\", and --device names one as well; leave --device off, or the column out with --drop device"
    )]
    DeviceTwice {
        /// The file.
        path: PathBuf,
    },
    /// Two columns have one name in the file.
    #[error(
        "{path}: columns {} and {} are both called {column:?}; rename one of them in the file, or leave both out with --drop {column:?}",
        .numbers.0, .numbers.1
    )]
    SameName {
        /// The file.
        path: PathBuf,
        /// The name.
        column: String,
        /// Where they are, from 1.
        numbers: (usize, usize),
    },
    /// Two columns would have one name in the stream.
    #[error(
        "{path}: columns {:?} and {:?} would both be {target:?} (names are equal ignoring case); give one of them another name with --map COLUMN=NAME, or leave it out with --drop COLUMN",
        .columns.0, .columns.1
    )]
    SameTarget {
        /// The file.
        path: PathBuf,
        /// Their names in the file.
        columns: (String, String),
        /// The name in the stream.
        target: String,
    },
    /// A column is mapped in two ways.
    #[error(
        "{path}: column {column:?} is mapped twice; say all of it with one --map SOURCE=NAME:TYPE"
    )]
    MappedTwice {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A column is left out and used.
    #[error(
        "{path}: column {column:?} is left out with --drop, and named with --map or --timestamp as well; take one of them away"
    )]
    DroppedAndUsed {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// It has more fields than a stream may have.
    #[error(
        "{path} has {fields} fields besides time and device, and a stream has 1,000 at most; leave columns out with --drop, or send them as several streams"
    )]
    TooManyFields {
        /// The file.
        path: PathBuf,
        /// How many.
        fields: usize,
    },
    /// A column's name cannot be a field's.
    #[error(
        "{path}: column {column:?} cannot be a field: {reason}; rename it with --map {column:?}=NAME, or leave it out with --drop {column:?}"
    )]
    FieldName {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// A column's type is not stored.
    #[error(
        "{path}: column {column:?} has type {data_type}, which is not stored; leave it out with --drop {column:?}"
    )]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        data_type: String,
    },
    /// The time zone is unknown.
    #[error(
        "time zone {zone:?} is unknown; use an offset such as +02:00 or an IANA name such as Europe/Berlin"
    )]
    TimeZone {
        /// What was given.
        zone: String,
    },
    /// Reading it was cut short by a defect of this program.
    #[error(
        "reading {path} was cut short ({reason}), which is a defect of this program; what was sent so far is stored, please report it"
    )]
    Aborted {
        /// The file.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
    /// It was written to while it was read.
    #[error("{path} changed while it was read; send it again when nobody writes to it")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// Names of columns, between quotes where they could be mistaken.
fn listed(columns: &[String]) -> String {
    let names = columns.iter().map(|column| {
        if column.is_empty() || column.contains(',') {
            format!("{column:?}")
        } else {
            column.clone()
        }
    });
    names.collect::<Vec<_>>().join(", ")
}

/// A value that is not what its column holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}, {place} {number}, column {column:?}: {value:?} {fault}; {remedy}")]
pub struct WrongValue {
    /// The file.
    pub path: PathBuf,
    /// `line` or `row`.
    pub place: &'static str,
    /// From 1.
    pub number: u64,
    /// The column.
    pub column: String,
    /// The value, cut if it is long.
    pub value: String,
    /// What is wrong with it, to be read on from the value: `is not float64`.
    pub fault: String,
    /// How to mend it.
    pub remedy: String,
}

/// Why a file was not sent to its end. Run again, it goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum SendFileError {
    /// The file is at fault.
    #[error(transparent)]
    File(#[from] FileError),
    /// The client could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server does not want this client.
    #[error(transparent)]
    Refused(#[from] ConnectError),
    /// There was no connection for too long.
    #[error(
        "the server is not reachable: {reason}; run the same command again to go on where it stopped"
    )]
    Unavailable {
        /// Why the last attempt failed.
        reason: String,
    },
    /// A batch could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The server does not take the stream.
    #[error(transparent)]
    Flush(#[from] FlushError),
}
