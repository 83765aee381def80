//! Sending whole files: CSV, JSON lines, Parquet and Arrow IPC. What `quiver send` does, without
//! its command line.
//!
//! ```text
//! pass 1: SHA-256, column types, rows ──▶ FilePlan{producer, schema}
//! pass 2: the same as pass 3, but thrown away: a wrong value is found before a row was sent
//! pass 3: rows ──▶ normalised chunks ──▶ batches cut by rule ──▶ a named producer ──▶ settled
//!         (ts, device, fields)           (never by timing)       (skips what the server has)
//! ```
//!
//! A file is one producer: the first 8 bytes of a hash over its content and everything that decides
//! what its batches are. So the same command run again stores nothing again, and an interrupted one
//! goes on where it stopped, without any state on this side.
//!
//! Memory is bounded: a file is read three times, as a stream, whatever its size.

mod batching;
mod decimal;
mod error;
mod evidence;
mod exact;
mod guard;
mod json;
mod layout;
mod options;
mod plan;
mod records;
mod rows;
mod send;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod typed;

pub use error::{FileError, SendFileError, WrongValue};
use options::READ_ROWS;
pub use options::{
    AmbiguousTimes, BATCH_ROWS_MAX, ColumnMap, ColumnMapError, FileFormat, FileOptions, TimeFormat,
    UnknownFormat,
};
pub use plan::{FileBatches, FilePlan};
pub use send::{FileReport, Progress, RejectedBatch, SendOptions, send_file};
