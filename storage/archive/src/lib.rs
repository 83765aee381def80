//! The permanent archive: one Delta table per stream, of Parquet files that any Delta reader opens
//! with Quiver switched off.
//!
//! ```text
//! FlushInput ─▶ sort (device, ts, position), by day ─▶ encodings from a sample, column chunks ─▶ Parquet files, each fsynced
//!                                                                              ─▶ one commit, fsynced ─▶ ArchiveSnapshot
//!                                                                                 │ all files, txn{quiver/<log id>: P}
//! small files ─▶ compact, or maintenance in tiers ─▶ one commit: remove + add    │ metaData if the stream grew
//! files older than is kept ─▶ counted by device, written down ─▶ one commit: remove
//! files no version lists ─▶ vacuum, after a grace, never under a lease            ▼
//!                                                         <root>/<stream>/_delta_log/000…N.json
//! ```
//!
//! Promises:
//! - When [`quiver_hot::Archive::flush`] returns, its rows survive power loss: files, commit and
//!   their directories are synced. A flush is one commit, and there is no state between; one over
//!   very many days is several, each complete up to a position, and there is none between those.
//! - Flushing the same barrier again stores nothing twice, also when it is unknown whether the
//!   first attempt was committed: the transaction in the table says.
//! - The cost of a commit does not grow with the table's age, nor with its files: its state is kept in
//!   memory as a list that versions share, commits are written from it, and Delta checkpoints, written
//!   beside and in proportion to what they list, keep opening quick.
//! - A value comes back bit for bit, whatever encoding was chosen; what a decimal field cannot hold is
//!   an error, never rounded.
//! - The number of files stays small over months while [`Maintenance`] runs, and no row is rewritten more
//!   than a few times.
//! - The Delta protocol stays at reader 1, writer 2: what every reader supports.
//! - What takes a processor for long runs at low priority, unless somebody waits for it.
//! - A file stays on disk as long as somebody holds a snapshot that lists it.
//!
//! deltalake reads tables and writes checkpoints; commits are written here, by the only regular
//! writer. Invariant: nothing here knows the log, a clock of its own, or SQL.

mod archive;
mod blocking;
mod bounds;
mod check;
mod choose;
mod chunk;
mod commit;
mod compact;
mod decimals;
mod durable_store;
mod encode;
mod error;
mod expire;
mod flush;
mod frames;
mod gather;
mod interner;
mod maintain;
mod packing;
mod portions;
mod read;
mod replay;
mod retention;
mod schema;
mod sort;
pub mod stages;
mod suggest;
mod survey;
mod table;
mod tiers;
mod time_text;
mod vacuum;
mod write;
mod writeback;

#[cfg(test)]
mod archive_tests;

pub use archive::{DeltaArchive, DeltaArchiveParts};
pub use check::{CheckReport, Problem};
pub use compact::{CompactOptions, CompactReport};
pub use durable_store::DurableStore;
pub use error::ArchiveError;
pub use expire::{Expired, ExpiryBook, ExpiryRun};
pub use maintain::{Maintenance, MaintenanceOptions, MaintenanceTotals};
pub use retention::Retention;
pub use suggest::{FieldSuggestion, SuggestOptions, Suggestion};
pub use survey::Directory;
pub use tiers::MergeLimits;
pub use vacuum::{VacuumOptions, VacuumReport, VacuumedFile};
