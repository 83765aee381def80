//! What the hot side asks of an archive, and what an archive says about a table.
//!
//! Table state refers to archived data only through [`ArchiveSnapshot`]: a version of a table,
//! the position it is complete up to, and its files. Holding the `Arc` is the lease: files of a
//! version stay readable until the last `Arc` of it is gone.

use std::{fmt, sync::Arc};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use quiver_model::{Position, StreamField, StreamName, StreamSchema, Timestamp};

use crate::{FileList, layout::batch_bytes};

/// The cause of a failure, as the archive's libraries report it.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveFile {
    /// Path relative to the table's directory, with `/`.
    pub path: String,
    /// Day of `ts` (days since 1970-01-01, UTC) that all its rows have.
    pub day: i32,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Least event time. Bounds are exact or wider, never narrower.
    pub min_ts: Timestamp,
    /// Greatest event time.
    pub max_ts: Timestamp,
    /// Least position.
    pub min_position: Position,
    /// Greatest position.
    pub max_position: Position,
    /// Least device, in byte order.
    pub min_device: String,
    /// Greatest device, in byte order.
    pub max_device: String,
}

/// One version of a stream's archived table. Immutable; holding it keeps its files from vacuum.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveSnapshot {
    /// The stream.
    pub stream: StreamName,
    /// Version of the table; -1 when it does not exist yet.
    pub version: i64,
    /// Every row of the stream up to this position is in the table, none beyond it.
    pub flushed: Position,
    /// The fields, oldest first, without the columns every stream has.
    pub fields: Arc<[StreamField]>,
    /// The live files. Shared with other versions, so that a version costs little.
    pub files: FileList,
}

impl ArchiveSnapshot {
    /// A table that has not been created.
    pub fn absent(stream: StreamName) -> Self {
        Self {
            stream,
            version: -1,
            flushed: Position(0),
            fields: Arc::from([]),
            files: FileList::default(),
        }
    }

    /// Rows in all files.
    pub fn rows(&self) -> u64 {
        self.files.rows()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.bytes()
    }
}

/// Everything of one stream that must be in the table before its transaction may say `barrier`.
#[derive(Clone, Debug)]
pub struct FlushInput {
    /// The stream.
    pub stream: StreamName,
    /// Its newest schema; batches may lack later fields.
    pub schema: Arc<StreamSchema>,
    /// The position the table will be complete up to.
    pub barrier: Position,
    /// The rows: positions ascend within a batch, batches are in no particular order.
    pub batches: Vec<RecordBatch>,
}

impl FlushInput {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Whether there is nothing to write. Such a flush needs no commit: pass the table's present
    /// snapshot to `StreamTable::complete_flush`.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Bytes of memory the rows take.
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(batch_bytes).sum()
    }
}

/// Why a flush did not report success. The rows stay in memory and in the log in every case.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Nothing was committed. The same input may be flushed again.
    #[error(
        "flush of stream {stream} up to position {barrier} failed before its commit; it will be tried again"
    )]
    NotCommitted {
        /// The stream.
        stream: StreamName,
        /// The barrier.
        barrier: Position,
        /// Why.
        #[source]
        source: Source,
    },
    /// The commit may or may not have happened. Flushing the same input again finds out.
    #[error(
        "whether the flush of stream {stream} up to position {barrier} was committed is unknown; it will be tried again"
    )]
    Unknown {
        /// The stream.
        stream: StreamName,
        /// The barrier.
        barrier: Position,
        /// Why.
        #[source]
        source: Source,
    },
    /// The table cannot be written until an operator mends it.
    #[error("the archive of stream {stream} is damaged: {problem}; run `quiver archive check`")]
    Damaged {
        /// The stream.
        stream: StreamName,
        /// What is wrong.
        problem: String,
    },
    /// The input cannot be stored: a mistake of the caller. Trying again does not help.
    #[error("rows of stream {stream} up to position {barrier} cannot be archived: {problem}")]
    Invalid {
        /// The stream.
        stream: StreamName,
        /// The barrier.
        barrier: Position,
        /// What is wrong.
        problem: String,
    },
}

impl FlushError {
    /// Whether flushing the same input again can succeed by itself.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotCommitted { .. } | Self::Unknown { .. })
    }
}

/// Why the archive as a whole cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root cannot be listed.
    #[error("the archive at {root} cannot be listed; check that it exists and is readable")]
    List {
        /// Where.
        root: String,
        /// Why.
        #[source]
        source: Source,
    },
}

/// A table that cannot be opened. The others are not affected.
#[derive(Debug)]
pub struct DamagedTable {
    /// Directory name under the archive's root; the stream's name, if it is well formed.
    pub name: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for DamagedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "archive table {} cannot be opened: {}",
            self.name, self.problem
        )
    }
}

/// What an archive holds when the engine starts.
#[derive(Debug, Default)]
pub struct OpenedArchive {
    /// The tables that can be read, by name.
    pub tables: Vec<Arc<ArchiveSnapshot>>,
    /// The others.
    pub damaged: Vec<DamagedTable>,
}

/// Where flushed rows go.
///
/// Implementations must keep these promises, which `StreamTable` builds on:
/// - `flush` returns a snapshot only when its rows are durable, and the snapshot's `flushed` is
///   the barrier or beyond it.
/// - A flush is atomic: its rows are in the table with the transaction for its barrier, or not.
/// - Flushing the same barrier again never stores a row twice.
#[async_trait]
pub trait Archive: Send + Sync + fmt::Debug {
    /// Opens every table there is. A damaged table does not keep the others from opening.
    async fn open(&self) -> Result<OpenedArchive, OpenError>;

    /// Makes the rows durable in their table with one commit, creating the table if it is the
    /// first. Calls for one stream must come one at a time, in barrier order.
    async fn flush(&self, input: FlushInput) -> Result<Arc<ArchiveSnapshot>, FlushError>;

    /// Says whether somebody waits for flushes (ingest for memory, a stop for its end), or they may
    /// wait for everything else that wants a processor. Said often, and taken as it comes; nothing
    /// happens by default.
    fn set_hurried(&self, is_hurried: bool) {
        let _ = is_hurried;
    }
}
