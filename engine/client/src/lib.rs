//! The device SDK: sends batches of telemetry to a Quiver server over QUIC, and says how each one
//! ended.
//!
//! ```text
//! ClientStream::send ─▶ admission ─▶ storage task ─▶ spool (fdatasync) ─▶ queue ─▶ lanes ─▶ QUIC
//!        ▲                 │ full: waits, or is refused                     ▲
//!        └── BatchHandle ◀─┴───────────── settled ◀── Ack, Reject, Welcome ─┘
//! ```
//!
//! - [`Client::connect`] starts a client; it connects by itself, and again whenever the connection
//!   is lost, with pauses from 1 s to 60 s.
//! - [`ClientStream::send`] queues a batch. With a spool the batch is durable on this side before
//!   it is sent for the first time, so a sequence number always names the same bytes.
//! - [`ClientStream::send_rows`] gathers rows for up to 20 ms and queues them as one batch; each
//!   [`RowsHandle`] tells how it ended.
//! - [`BatchHandle`] and [`Client::flush`] wait until batches are **settled**: on the server's
//!   stable storage, or refused for ever. Nothing is dropped without a word: see [`Settled`],
//!   [`ClientEvent`] and [`Totals`].
//! - What piled up while there was no connection goes to a producer of its own with lower priority,
//!   so that live data never waits behind it.
//!
//! Memory is bounded by [`Window`], disk by [`SpoolOptions`]. Time is tokio's, randomness, disk and
//! socket are traits, so that a whole client runs in a simulation.
//!
//! Rows that come one at a time go to [`ClientStream::send_rows`], which gathers them into batches
//! ([`Linger`]); [`Compression::Compact`] makes what is sent of them small.
//!
//! What this is not: it does not retry what was rejected.
//!
//! With the feature `file`, `file` reads CSV, JSON lines, Parquet and Arrow files and
//! sends them so that sending twice stores once.

mod backoff;
mod client;
mod error;
mod event;
#[cfg(feature = "file")]
pub mod file;
mod gather;
mod options;
mod queue;
mod sender;
mod session;
mod shared;
mod spool;
mod store;
#[cfg(test)]
mod tests;

pub use backoff::BackoffOptions;
pub use client::{Abandoned, BatchHandle, Client, ClientStream, Status};
pub use error::{ConnectError, FlushError, SendError, StartError, StreamError};
pub use event::{ClientEvent, Disconnect, Observer, RenumberReason, Settled, Totals};
pub use gather::{Linger, RowsError, RowsHandle};
pub use options::{ClientOptions, ServerAddress, Token, Transport};
pub use queue::Window;
pub use quiver_protocol::{Compression, RefusedRowCount};
pub use shared::Connection;
pub use spool::{
    MemoryDirectory, OsDirectory, SegmentFile, SpoolDirectory, SpoolError, SpoolOptions, WhenFull,
};
