//! What decides how a file becomes batches.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use quiver_model::{DeviceId, FieldType, StreamName};

/// Most rows of a batch. Engines do much once for each device of a batch: of a file with the rows of
/// a whole fleet, one moment after the other, large batches are quicker.
pub const BATCH_ROWS_MAX: usize = 32_768;
/// Rows that are read and converted at once.
pub(super) const READ_ROWS: usize = 8_192;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// Comma-separated values with a header line.
    Csv,
    /// Tab-separated values with a header line.
    Tsv,
    /// One JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
}

/// No format is known by this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("file format {0:?} is unknown; use csv, tsv, jsonl, parquet or arrow")]
pub struct UnknownFormat(pub String);

impl FileFormat {
    /// The format that a path's extension says.
    ///
    /// # Errors
    /// If it says none that is known.
    pub fn of_path(path: &Path) -> Result<Self, UnknownFormat> {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        extension.parse()
    }
}

impl FromStr for FileFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "jsonl" | "ndjson" | "json" => Self::JsonLines,
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "arrows" | "ipc" | "feather" => Self::Arrow,
            _ => return Err(UnknownFormat(text.to_owned())),
        })
    }
}

/// How points in time are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// As the first value says: text as [`Text`](Self::Text), or a number whose magnitude says
    /// whether it counts seconds, milliseconds, microseconds or nanoseconds since 1970. Numbers of
    /// typed files are read in the same units, floats to the nearest microsecond.
    #[default]
    Auto,
    /// RFC 3339, or `YYYY-MM-DD[ HH:MM[:SS[.fff]]]` with `T` or a space between.
    Text,
    /// Seconds since 1970, with decimals if need be; digits below a microsecond are cut.
    Seconds,
    /// Milliseconds since 1970, in the same way.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970; digits below a microsecond are cut.
    Nanos,
    /// A pattern in the manner of strftime, such as `%d.%m.%Y %H:%M:%S`. Without a time of day it
    /// is midnight, without minutes the full hour.
    Pattern(String),
}

impl FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "text" | "rfc3339" => Self::Text,
            "s" => Self::Seconds,
            "ms" => Self::Millis,
            "us" => Self::Micros,
            "ns" => Self::Nanos,
            pattern if pattern.contains('%') => Self::Pattern(pattern.to_owned()),
            _ => {
                return Err(format!(
                    "time format {text:?} is unknown; use auto, rfc3339, s, ms, us, ns or a pattern such as %d.%m.%Y %H:%M"
                ));
            }
        })
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "rfc3339",
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Nanos => "ns",
            Self::Pattern(pattern) => pattern,
        })
    }
}

/// What becomes of a local time that occurs twice because the clocks were set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AmbiguousTimes {
    /// The file is refused.
    #[default]
    Error,
    /// It is the first of the two.
    Earlier,
    /// It is the second of the two.
    Later,
}

impl FromStr for AmbiguousTimes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "error" => Ok(Self::Error),
            "earlier" => Ok(Self::Earlier),
            "later" => Ok(Self::Later),
            _ => Err(format!("{text:?} is unknown; use error, earlier or later")),
        }
    }
}

impl fmt::Display for AmbiguousTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Earlier => "earlier",
            Self::Later => "later",
        })
    }
}

/// What becomes of one column: `source=name`, `source=name:type` or `source=:type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnMap {
    /// Its name in the file.
    pub source: String,
    /// Its name in the stream, if it is another.
    pub target: Option<String>,
    /// Its type, if not the one the values suggest.
    pub field_type: Option<FieldType>,
}

/// Not a column mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "column mapping {0:?} must be SOURCE=NAME, SOURCE=NAME:TYPE or SOURCE=:TYPE, with a type of float64, int64, utf8, bool or timestamp"
)]
pub struct ColumnMapError(pub String);

impl FromStr for ColumnMap {
    type Err = ColumnMapError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ColumnMapError(text.to_owned());
        // A source name may itself contain '='; a target cannot.
        let (source, target) = text.rsplit_once('=').ok_or_else(error)?;
        let (target, field_type) = match target.split_once(':') {
            None => (target, None),
            Some((target, name)) => (target, Some(field_type(name).ok_or_else(error)?)),
        };
        if source.is_empty() || target.is_empty() && field_type.is_none() {
            return Err(error());
        }
        let target = (!target.is_empty()).then(|| target.to_owned());
        Ok(Self {
            source: source.to_owned(),
            target,
            field_type,
        })
    }
}

fn field_type(name: &str) -> Option<FieldType> {
    [
        FieldType::Int64,
        FieldType::Float64,
        FieldType::Utf8,
        FieldType::Bool,
        FieldType::Timestamp,
    ]
    .into_iter()
    .find(|field_type| field_type.as_str() == name)
}

/// What decides how a file becomes batches. The same options and the same content always make the
/// same batches of the same producer.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The file.
    pub path: PathBuf,
    /// Its format; by default what its extension says.
    pub format: Option<FileFormat>,
    /// The stream the rows go to.
    pub stream: StreamName,
    /// The device that measured all rows. Without it the file has a column `device`.
    pub device: Option<DeviceId>,
    /// Columns with other names or types than they have in the file.
    pub map: Vec<ColumnMap>,
    /// Columns of the file that are left out.
    pub drop: Vec<String>,
    /// The column with the event times. By default the first named `ts`, `timestamp`, `time`,
    /// `datetime`, `date_time`, `event_time` or `date`, ignoring case; else the first whose values
    /// are points in time.
    pub time_column: Option<String>,
    /// How it is written.
    pub time_format: TimeFormat,
    /// The zone of times that name none: `+02:00` or an IANA name. By default UTC.
    pub time_zone: Option<String>,
    /// What becomes of local times that the zone has twice.
    pub ambiguous_times: AmbiguousTimes,
}

impl FileOptions {
    /// Options with defaults for everything but the file and where its rows go.
    pub fn new(path: impl Into<PathBuf>, stream: StreamName) -> Self {
        Self {
            path: path.into(),
            format: None,
            stream,
            device: None,
            map: Vec::new(),
            drop: Vec::new(),
            time_column: None,
            time_format: TimeFormat::Auto,
            time_zone: None,
            ambiguous_times: AmbiguousTimes::Error,
        }
    }
}
