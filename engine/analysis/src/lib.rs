//! Streaming analysis: windows and their aggregates, lateness, and silence. Pure: no actors, no
//! clock, no I/O; the same rows and ticks in the same order give the same results, bit for bit,
//! wherever batches and restarts fall between them.
//!
//! ```text
//! spec ─▶ Windows ◀── rows of a record, ticks
//!           │ └─▶ Output: results of closed windows, late rows
//!           ▼
//!         Changed: what a checkpoint adds ─▶ restore
//!
//! what came of a device, ticks ─▶ missing::Missing ─▶ silences, their beginnings and ends
//! ```
//!
//! [`missing`] is the watch for silence, used in the same way.

pub mod bytes;
mod cells;
mod grid;
pub mod missing;
mod spec;
pub mod states;
mod time;
mod windows;

pub use bytes::SavedError;
pub use grid::{GridError, Size};
pub use spec::{Aggregate, ArgumentType, Emit, Function, Key, Kind, Limits, SpecError, WindowSpec};
pub use time::{LateReason, TimePolicy};
pub use windows::{Changed, Closed, Counters, Late, Output, Rows, RowsError, Usage, Windows};
