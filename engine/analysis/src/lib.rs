//! Streaming analysis: what a window, an aggregate or a watch for silence knows, and how it is
//! saved. Pure: no actors, no clock, no I/O; the same rows in the same order give the same results,
//! bit for bit, wherever batches and restarts fall between them.
//!
//! ```text
//! rows ─▶ state (one per key and window) ─▶ results
//!           │ ▲
//!     write ▼ │ read        bytes: checked, since a file may hold anything
//!         checkpoint
//! ```

pub mod bytes;
pub mod grid;
pub mod missing;
pub mod states;

pub use bytes::SavedError;
