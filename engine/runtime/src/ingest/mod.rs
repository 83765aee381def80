//! The QUIC door.
//!
//! ```text
//! Endpoint ──accept──▶ handshake ──certificate──▶ Hello ──token──▶ registry ──AdoptConnection──▶ shard of the identity
//!   I/O runtime: bounded handshakes, Retry beyond a bound                      │
//!                                              session: control reader, outbox writer, a task per telemetry QUIC stream
//!                                                                               │
//!            read ─▶ TelemetryDecoder ─▶ judge ─▶ schemas durable ─▶ memory reserved ─▶ DeviceActor ─▶ log
//! ```
//!
//! Where a batch has to wait (schema, memory, log's queue, rate), its task waits, and its QUIC
//! stream is not read meanwhile: QUIC's flow control is the back-pressure.

mod endpoint;
mod identify;
mod receive;
mod session;
mod socket;
mod telemetry;
mod transport;
mod window;

pub use endpoint::accept_connections;
pub use identify::Identified;
pub use receive::ReceiveBudget;
pub use session::run_session;
pub use socket::{RECEIVE_BUFFER, SocketDrops, bind, receive_buffer};
pub use transport::{endpoint_config, server_config};
pub(crate) use window::WINDOW_MAX;

use std::sync::{Arc, atomic::AtomicBool};

use quiver_hot::{MemoryBudget, Tables};
use quiver_model::Clock;

use crate::{
    EngineOptions, Metrics, commit::AppendQueue, control::ControlWriter, flush::Flusher,
    record_clock::RecordClock,
};

/// What every part of ingest works with.
pub struct IngestContext {
    /// Settings.
    pub options: EngineOptions,
    /// Catalog and registry, and the way to change them.
    pub control: Arc<ControlWriter>,
    /// Every stream's table.
    pub tables: Arc<Tables>,
    /// Memory.
    pub budget: MemoryBudget,
    /// Memory of messages that are being received.
    pub receive: ReceiveBudget,
    /// Memory of dictionaries, which QUIC streams hold for as long as they live.
    pub dictionaries: ReceiveBudget,
    /// The log's queue.
    pub queue: AppendQueue,
    /// What the engine counts.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Record time.
    pub record_clock: Arc<RecordClock>,
    /// To be poked when memory is short.
    pub flusher: Arc<Flusher>,
    /// The disk is nearly full: ingest is refused for the time being.
    pub disk_low: Arc<AtomicBool>,
    /// Whether tokens may stand in for certificates.
    pub tokens_allowed: bool,
}
