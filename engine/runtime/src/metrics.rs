//! Counters of the live path. Every batch and row that is accepted, refused or dropped is counted
//! by reason; the names are those of `/metrics` without their prefix.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use quiver_model::RejectCode;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds, or takes away.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
    /// Replaces.
    pub fn set(&self, to: i64) {
        self.0.store(to, Ordering::Relaxed);
    }
    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of durations, in microseconds, from 1 µs to 1 hour with three digits.
#[derive(Debug)]
pub struct Latency(Mutex<Histogram<u64>>);

const LATENCY_US_MAX: u64 = 3_600_000_000;

impl Default for Latency {
    #[expect(clippy::expect_used, reason = "constant bounds; a test makes one")]
    fn default() -> Self {
        Self(Mutex::new(
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid constant bounds"),
        ))
    }
}

impl Latency {
    /// Records one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros())
            .unwrap_or(LATENCY_US_MAX)
            .clamp(1, LATENCY_US_MAX);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .saturating_record(micros);
    }

    /// A copy of what was recorded since the start.
    pub fn histogram(&self) -> Histogram<u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What an engine counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that are identified and open.
    pub connections: Gauge,
    /// Connections of devices among them.
    pub devices_connected: Gauge,
    /// Handshakes begun.
    pub handshakes: Counter,
    /// Connections refused or closed for an error, before or after identification.
    pub connections_refused: Counter,
    /// Rows of nodes of the graph that entered the log.
    pub derived_rows: Counter,
    /// Rows that nodes put out again after a start, and that were there already.
    pub derived_again: Counter,
    /// Rows of nodes that no stream could take.
    pub derived_refused: Counter,
    /// Positions that the graph has missed.
    pub analysis_missed: Counter,
    /// Batches accepted into the log.
    pub batches: Counter,
    /// Rows accepted.
    pub rows: Counter,
    /// Points (non-null field values) accepted.
    pub points: Counter,
    /// Bytes of telemetry read from the network, after QUIC's own.
    pub bytes_received: Counter,
    /// Batches that were there already.
    pub duplicate_batches: Counter,
    /// Rows of those batches, where they were decoded.
    pub duplicate_rows: Counter,
    /// Rows whose `device` value differed from the sender's identity.
    pub device_mismatch: Counter,
    /// Timestamps that lost digits below a microsecond.
    pub truncated_timestamps: Counter,
    /// Batches declared lost by their senders.
    pub declared_lost: Counter,
    /// Control messages with a member this version does not know, and ignored.
    pub unknown_messages: Counter,
    /// Telemetry QUIC streams closed by the engine.
    pub streams_closed: Counter,
    /// Times that ingest waited for memory.
    pub memory_waits: Counter,
    /// Times that ingest waited for the log's queue.
    pub queue_waits: Counter,
    /// Commit groups written and synced.
    pub commit_groups: Counter,
    /// Bytes of them.
    pub log_bytes: Counter,
    /// Commit groups that failed and were taken back.
    pub commit_failures: Counter,
    /// Flushes committed to the archive.
    pub flushes: Counter,
    /// Flushes that failed and are tried again.
    pub flush_failures: Counter,
    /// Checkpoints written.
    pub checkpoints: Counter,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: Counter,
    /// Bytes of the log's segments.
    pub log_size: Gauge,
    /// Bytes of rows that are in memory and in the log only.
    pub unflushed_bytes: Gauge,
    /// 1 while ingest is refused because the disk is nearly full.
    pub disk_low: Gauge,
    /// From the moment a batch is whole in memory until its Ack is handed to QUIC.
    pub ack_latency: Latency,
    /// Time of an fdatasync with the write before it.
    pub commit_latency: Latency,
    rejected: Mutex<BTreeMap<RejectCode, u64>>,
}

impl Metrics {
    /// Counts refused rows, or a refused batch (as the rows it had, at least one).
    pub fn add_rejected(&self, code: RejectCode, rows: u64) {
        *self
            .rejected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(code)
            .or_default() += rows;
    }

    /// Refused rows by reason.
    pub fn rejected(&self) -> BTreeMap<RejectCode, u64> {
        self.rejected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
