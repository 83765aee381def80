//! Everything about a running engine that can be set. Each knob says its unit, its default, and
//! what it bounds.

use std::{path::PathBuf, time::Duration};

use quiver_log::LogOptions;

/// Settings of an engine. [`EngineOptions::new`] gives the defaults for a data directory.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where the log and the checkpoints live (`log/`, `checkpoints/` inside it).
    pub data_dir: PathBuf,
    /// Shards, each an arbiter thread with its actors. Default: the number of cores, 1 to 16.
    /// May differ from run to run: no durable format knows it.
    pub shard_count: u16,
    /// Bytes for queues and memtables of rows that senders send. Default 512 MiB. Ingest waits
    /// (QUIC flow control) while they are used up; nothing is dropped.
    pub memory_bytes: usize,
    /// A stream is flushed when its unflushed rows take this many bytes. Default 64 MiB, never
    /// more than a quarter of `memory_bytes`.
    pub flush_bytes: usize,
    /// A stream is flushed when its oldest unflushed row has waited this long. Default 10 minutes.
    pub flush_age: Duration,
    /// Bytes of the log beyond which the stream that holds its oldest part is flushed, so that
    /// idle streams do not keep the log from being trimmed. Default 1 GiB.
    pub log_bytes_max: u64,
    /// Time between checkpoints; also the most that recovery replays for state. Default 1 minute.
    pub checkpoint_interval: Duration,
    /// Free bytes on the log's disk below which ingest is refused for the time being, so that
    /// flushes, commits and checkpoints can finish. Default: 512 MiB or the bytes of the log that
    /// are not flushed, whichever is more.
    pub disk_reserve_bytes: u64,
    /// Rows whose event time is further ahead of their arrival are quarantined. Default one day.
    pub future_limit: Duration,
    /// Connections at once. Default 20,000. More are refused at the handshake.
    pub connections_max: usize,
    /// Handshakes under way beyond which an address must prove itself first (Retry). Default 256.
    pub unproven_handshakes_max: usize,
    /// Rows per second that one sender may send in the long run; 0 means no limit. Default 0.
    pub rows_per_second_max: u64,
    /// Whether an unknown identity with a valid certificate is enrolled when it connects, and
    /// unknown devices that an operator speaks for. For demonstrations and loopback only.
    pub enroll_unknown: bool,
    /// Streams that an engine may have. Default 1,000.
    pub streams_max: usize,
    /// New streams that one device or gateway may create in a day. Default 8.
    pub new_streams_per_day: u32,
    /// New fields that one device or gateway may create in a day. Default 64.
    pub new_fields_per_day: u32,
    /// Segments, groups and retention of the log.
    pub log: LogOptions,
}

impl EngineOptions {
    /// The defaults, with this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .clamp(1, 16);
        Self {
            data_dir: data_dir.into(),
            shard_count: cores as u16,
            memory_bytes: 512 << 20,
            flush_bytes: 64 << 20,
            flush_age: Duration::from_secs(600),
            log_bytes_max: 1 << 30,
            checkpoint_interval: Duration::from_secs(60),
            disk_reserve_bytes: 512 << 20,
            future_limit: Duration::from_secs(86_400),
            connections_max: 20_000,
            unproven_handshakes_max: 256,
            rows_per_second_max: 0,
            enroll_unknown: false,
            streams_max: 1_000,
            new_streams_per_day: 8,
            new_fields_per_day: 64,
            log: LogOptions::default(),
        }
    }

    /// Bytes of unflushed rows at which a stream is flushed, whatever the two settings say.
    pub fn flush_bytes_effective(&self) -> usize {
        self.flush_bytes.min(self.memory_bytes / 4).max(1)
    }
}
