//! Rows that are durable in the log and not yet in the archive, and the one consistent view of
//! both: memtables, table state and snapshots, last values, the memory budget, and the trait that
//! an archive implements.
//!
//! ```text
//! shard ──append──▶ active memtable ──freeze(barrier)──▶ frozen ──FlushInput──▶ Archive::flush
//!                        │                                 │                        │
//!                        └───────────── TableState (one atomic swap) ◀──complete_flush──┘
//!                                            │
//! query ──snapshot(Q)── archived files with position ≤ min(P, Q)  +  hot rows in (P, Q]
//! ```
//!
//! Promises:
//! - A snapshot at `Q`, taken once every shard has applied `Q`, holds each row with position ≤ Q
//!   exactly once, whatever freezes and flushes happen meanwhile.
//! - Flushes of one stream complete strictly in barrier order.
//! - [`MemoryBudget::try_reserve`] never lets reserved memory exceed its share's capacity.
//! - Nothing here does I/O, reads a clock, spawns, or blocks except on short locks held per batch.

mod archive;
mod budget;
mod file_list;
mod fixed_columns;
mod last_cells;
mod last_codec;
mod last_columns;
mod last_values;
mod layout;
mod memory_archive;
mod memtable;
mod sync;
mod table;
mod tables;

pub use archive::{
    Archive, ArchiveFile, ArchiveSnapshot, DamagedTable, FlushError, FlushInput, OpenError,
    OpenedArchive, Source,
};
pub use budget::{MemoryBudget, MemoryLimits, Reservation, ReserveFuture, Share, TooLarge};
pub use file_list::{FileList, Files};
pub use last_codec::ImportError;
pub use last_values::{FrozenLastValues, LastValues};
pub use layout::{LayoutError, batch_bytes, conform, positions, slice_positions};
pub use memory_archive::{Fault, MemoryArchive};
pub use table::{
    AppendError, Appended, CompleteError, FreezeError, FreezeOutcome, StreamTable, TableSnapshot,
    TableState, TableStats,
};
pub use tables::Tables;

#[cfg(test)]
mod test_rows;
