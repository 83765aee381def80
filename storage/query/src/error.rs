//! Why a query has no answer, and why a result could not be written.

use std::{sync::Arc, time::Duration};

/// Why a query has no answer, or its result ends early.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not SQL. Mend the text.
    #[error("syntax error: {message}")]
    Syntax {
        /// What is wrong, with line and column where the parser knows them.
        message: String,
    },
    /// The query names a table that does not exist.
    #[error("there is no stream {name:?}; {}", suggestion(.near, *.streams))]
    UnknownTable {
        /// The name.
        name: String,
        /// Streams with a similar name, best first; all streams if there are few.
        near: Vec<String>,
        /// How many streams there are.
        streams: usize,
    },
    /// The query is SQL, but has no meaning here: unknown column, wrong types, unknown function,
    /// something not supported. Mend the query.
    #[error("the query cannot be planned: {message}")]
    Plan {
        /// What is wrong.
        message: String,
    },
    /// The query is of a kind that is never run, or beyond a limit on its text.
    #[error("refused: {reason}")]
    Refused {
        /// What is refused, and what may be done instead.
        reason: String,
    },
    /// Too many queries run and wait, or one did not get its turn in time. Try again later.
    #[error(
        "{running} queries are running, as many as may, and {waiting} others are waiting; try again later"
    )]
    Busy {
        /// How many run.
        running: usize,
        /// How many wait.
        waiting: usize,
    },
    /// The query, with the wait for its turn and the reading of its result, took too long.
    #[error("the query took longer than {} s; narrow its time range or raise the limit", .after.as_secs_f64())]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The query needs more memory, or more space to spill to, than it may have.
    #[error(
        "the query needs more than its {limit} bytes of memory; narrow it or raise the limit ({detail})"
    )]
    Memory {
        /// The limit on memory, in bytes.
        limit: usize,
        /// Which operator asked for how much.
        detail: String,
    },
    /// The result has more rows than it may have.
    #[error("the result has more than {limit} rows; add LIMIT or raise the limit")]
    TooManyRows {
        /// The limit.
        limit: u64,
    },
    /// The query was run and met a value that it cannot handle: a division by zero, text that is not a
    /// number, an overflow.
    #[error("the query failed: {message}")]
    Execution {
        /// What is wrong.
        message: String,
    },
    /// A file that the archive's table lists is not there. Queries that do not need it work.
    #[error(
        "archive file {path} of stream {stream} is missing; run `quiver archive check`, restore the file or repair the table"
    )]
    MissingFile {
        /// The stream.
        stream: String,
        /// The file, relative to the archive's root.
        path: String,
    },
    /// An archive file cannot be read. Queries that do not need it work.
    #[error(
        "archive file {path} of stream {stream} cannot be read: {detail}; run `quiver archive check`"
    )]
    DamagedFile {
        /// The stream.
        stream: String,
        /// The file, relative to the archive's root.
        path: String,
        /// What the reader says.
        detail: String,
    },
    /// A mistake of the engine: a broken invariant or a panic in a plan. The engine goes on.
    #[error(
        "internal error: {message}; this is a mistake in the engine, please report it with the query"
    )]
    Internal {
        /// What happened.
        message: String,
    },
}

impl QueryError {
    /// Whether mending the query (rather than the data, the load or the engine) is the cure.
    pub fn is_callers_mistake(&self) -> bool {
        matches!(
            self,
            Self::Syntax { .. }
                | Self::UnknownTable { .. }
                | Self::Plan { .. }
                | Self::Refused { .. }
                | Self::TooManyRows { .. }
                | Self::Execution { .. }
        )
    }
}

fn suggestion(near: &[String], streams: usize) -> String {
    match near {
        [] if streams == 0 => "nothing has been stored yet".into(),
        [] => format!("none of the {streams} has a name like it; SHOW TABLES lists them"),
        [one] => format!("did you mean {one:?}?"),
        many => format!("did you mean one of {}?", many.join(", ")),
    }
}

/// An archive file could not be read. Recorded by the reader, because the layers between it and
/// the query reduce errors to text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("archive file {path} of stream {stream}: {detail}")]
pub(crate) struct ArchiveReadError {
    pub(crate) stream: Arc<str>,
    pub(crate) path: String,
    pub(crate) missing: bool,
    pub(crate) detail: String,
}

impl From<ArchiveReadError> for QueryError {
    fn from(error: ArchiveReadError) -> Self {
        let ArchiveReadError {
            stream,
            path,
            missing,
            detail,
        } = error;
        let stream = stream.to_string();
        if missing {
            Self::MissingFile { stream, path }
        } else {
            Self::DamagedFile {
                stream,
                path,
                detail,
            }
        }
    }
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The query failed while its result was read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The result cannot be expressed in the format.
    #[error(transparent)]
    Format(#[from] crate::format::FormatError),
    /// The sink does not take the bytes.
    #[error("the result cannot be written")]
    Sink(#[from] std::io::Error),
}
