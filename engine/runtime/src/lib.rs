//! The live path: sockets and actors, from a device's batch to rows that are durable and visible.
//!
//! ```text
//!  QUIC ─▶ ingest ──────▶ commit ──────────▶ shard ──▶ tables, last values ──▶ queries
//!          one task per   one loop, one      one per core;                     (Progress: Q)
//!          QUIC stream;   fdatasync a group  never waits
//!          device actor
//!            ▲                                  │
//!            └───────────── Ack ◀───────────────┘
//!  background: flush (memtables ─▶ archive, log trimmed), checkpoint, disk, clock
//! ```
//!
//! - [`ingest`]: connections, identities, telemetry QUIC streams.
//! - [`device`]: the actor of a connected identity.
//! - [`commit`]: the queue and the loop that give positions and make groups durable.
//! - [`shard`]: what is known and held in memory of a part of the identities.
//! - [`flush`], [`checkpoint`], [`recover`]: from memory to disk and back.
//! - [`analyze`]: the graph beside the log.
//! - [`catalog`], [`registry`], [`damage`], [`control`]: schemas, identities and reported damage,
//!   as the log's control records add up to them.
//!
//! Where data may be refused: only before the append. Where it is durable: after the commit
//! group's fdatasync, and no Ack leaves earlier. Invariant: nothing here knows SQL, Parquet or
//! Delta, and nothing on the path to the log waits for a query, a flush or a subscriber.

pub mod admit;
pub mod analyze;
pub mod catalog;
pub mod checkpoint;
pub mod commit;
mod compact_bytes;
pub mod control;
pub mod damage;
pub mod device;
mod disk;
mod engine;
pub mod flush;
mod identity_name;
pub mod ingest;
mod metrics;
mod options;
mod progress;
pub mod record_clock;
mod recovery;
pub mod registry;
pub mod shard;
mod spawner;

pub use commit::FatalError;
pub use engine::{Engine, RegistryFailure, StopError};
pub use metrics::{Counter, Gauge, Latency, Metrics};
pub use options::{BATCH_MEMORY_BYTES_MAX, EngineOptions, MEMORY_BYTES_MIN};
pub use progress::Progress;
pub use recovery::{ArchiveFactory, Environment, Recovered, RecoveryReport, StartError, recover};
pub use shard::Ledger;
pub use spawner::{BoxFuture, LocalSpawner, Spawner, ThreadSpawner};
