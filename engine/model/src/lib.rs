//! The words every room of Quiver shares, as types: who speaks ([`SenderId`]), about what
//! ([`StreamName`], [`StreamSchema`]), in which order ([`Producer`], [`Sequence`], [`Position`]),
//! when ([`Timestamp`], [`Clock`]), and what a batch of telemetry is once it has been checked
//! ([`CheckedBatch`]).
//!
//! ```text
//! wire RecordBatch ──judge──▶ Verdict ──apply──▶ CheckedBatch ──split──▶ BatchParts ──place(position)──▶ stored RecordBatch
//!  (any allowed types)        (durable, in the log)  (normalised types)   (by shard)                  (what hot and archive hold)
//! ```
//!
//! `judge` runs once, at ingest. Its [`Verdict`] is written to the log with the batch, and
//! recovery runs only `apply`: nothing is judged twice, so nothing can be judged differently.
//!
//! Invariant: this crate does no I/O, reads no clock, spawns nothing and knows no async.

mod batch;
mod clock;
mod decimal;
mod devices;
mod gather;
mod ids;
mod memory;
mod name_table;
mod names;
mod nearest;
mod normalise;
mod pages;
mod part;
mod recurring;
mod refusal;
mod refused_rows;
mod schema;
mod sender;
mod together;

pub use batch::{CheckedBatch, row_as_json};
pub use clock::{Clock, Entropy, ManualClock, OsEntropy, SystemClock, Timestamp};
pub use decimal::DecimalScale;
pub use ids::{
    PARTITION_COUNT, Partition, Position, Producer, ProducerKind, SchemaId, Sequence, SessionId,
    ShardId,
};
pub use memory::array_bytes;
pub use name_table::{NameTable, Names};
pub use names::{FieldName, NameError, StreamName};
pub use nearest::{meant, nearest};
pub use normalise::{Judged, NormaliseContext, apply, judge};
pub use pages::Pages;
pub use part::BatchPart;
pub use refusal::{BatchRefusal, RefusedRow, RejectCode, Verdict, VerdictCounts};
pub use refused_rows::RefusedRows;
pub use schema::{
    ARRIVAL, DEVICE, FIELD_TIME_MAX, FIELD_TIME_MIN, FIELDS_PER_STREAM_MAX, FieldType, POSITION,
    QUIVER_DAY, RESERVED_COLUMNS, SchemaConflict, StreamField, StreamSchema, TS,
};
pub use sender::{DeviceId, SenderId, SenderKind};
pub use together::Placed;
