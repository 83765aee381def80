//! Why an archive could not do what it was asked, apart from flushing.

use quiver_model::StreamName;

use crate::{blocking::WorkLost, encode::EncodeError, read::FileError, replay::ReplayError};

/// Why a table could not be read, compacted or vacuumed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream has no table: nothing of it was ever flushed.
    #[error("stream {stream} has nothing archived")]
    Absent {
        /// The stream.
        stream: StreamName,
    },
    /// The table's log cannot be used.
    #[error("the table of stream {stream} cannot be used: {problem}")]
    Damaged {
        /// The stream.
        stream: StreamName,
        /// What is wrong.
        problem: String,
    },
    /// A file of the table cannot be read.
    #[error("file {path} of stream {stream} cannot be read: {problem}")]
    File {
        /// The stream.
        stream: StreamName,
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Rows could not be written.
    #[error("rows of stream {stream} cannot be written: {problem}")]
    Write {
        /// The stream.
        stream: StreamName,
        /// What is wrong.
        problem: String,
    },
}

impl ArchiveError {
    pub(crate) fn replay(stream: &StreamName, error: &ReplayError) -> Self {
        match error {
            ReplayError::Absent => Self::Absent {
                stream: stream.clone(),
            },
            error => Self::Damaged {
                stream: stream.clone(),
                problem: error.to_string(),
            },
        }
    }

    pub(crate) fn write(stream: &StreamName, error: &WriteError) -> Self {
        Self::Write {
            stream: stream.clone(),
            problem: error.to_string(),
        }
    }

    pub(crate) fn file(stream: &StreamName, path: &str, error: &FileError) -> Self {
        Self::File {
            stream: stream.clone(),
            path: path.to_owned(),
            problem: error.to_string(),
        }
    }
}

/// Why files or a commit were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Work(#[from] WorkLost),
}
