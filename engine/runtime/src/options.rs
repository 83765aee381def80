//! Everything about a running engine that can be set. Each knob says its unit, its default, and
//! what it bounds.

use std::{path::PathBuf, time::Duration};

use quiver_log::LogOptions;
use quiver_protocol::limits::{BATCH_DECODED_BYTES_MAX, BATCH_ROWS_MAX, DECODE_MEMORY_MAX};

use crate::{StartError, ingest::WINDOW_MAX};

/// Most times that a decoded value grows when it takes its stored type: an 8-bit integer of the
/// wire is stored in 64 bits. All other types grow less, or not at all.
const VALUE_GROWTH_MAX: usize = 8;
/// Most bytes that a row takes beside its values: the engine's own columns (28 bytes), or, if the
/// row is refused, the note about it (160 bytes, a message, a short excerpt).
const ROW_BYTES_MAX: usize = 320;
/// Most bytes that one batch within the announced limits takes between admission and the archive.
pub const BATCH_MEMORY_BYTES_MAX: usize =
    VALUE_GROWTH_MAX * BATCH_DECODED_BYTES_MAX + ROW_BYTES_MAX * BATCH_ROWS_MAX;
/// Least [`EngineOptions::memory_bytes`]: one batch of the announced limits, and what QUIC holds
/// of the next one meanwhile. With less, such a batch would be refused for ever, however long its
/// sender waits.
pub const MEMORY_BYTES_MIN: usize = BATCH_MEMORY_BYTES_MAX + WINDOW_MAX as usize;

/// Share of `memory_bytes` that messages may take while they are received, in percent; it comes on
/// top. Never less than one message takes.
const RECEIVE_PERCENT: usize = 25;

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
    /// Least `memory_bytes` that the engine starts with. Default [`MEMORY_BYTES_MIN`]. To be
    /// lowered only where every batch is known to be far smaller than the announced limits, as in
    /// a simulation: one that takes more than `memory_bytes` is refused for ever.
    pub memory_bytes_min: usize,
    /// A stream is flushed when its unflushed rows take this many bytes. Default 64 MiB, never
    /// more than a quarter of `memory_bytes`.
    pub flush_bytes: usize,
    /// A stream is flushed when its oldest unflushed row has waited this long. Default 10 minutes.
    pub flush_age: Duration,
    /// A connection may outlive its client's certificate for so long. Default 5 minutes.
    pub certificate_grace: Duration,
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
    /// Handshakes under way beyond which more are refused at once: a fleet that comes back all
    /// together would else share the processor so finely that none of its handshakes is done
    /// before its device gives up. Who is refused comes again later. Default 1,024.
    pub handshakes_max: usize,
    /// Rows per second that one sender may send in the long run; 0 means no limit. Default 0.
    pub rows_per_second_max: u64,
    /// Whether an unknown identity with a valid certificate is enrolled when it connects, and
    /// unknown devices that an operator speaks for. For demonstrations and loopback only.
    pub enroll_unknown: bool,
    /// Whether a graph is going to follow the log: nothing of it is given up before the graph has
    /// said what it needs. Default: no.
    pub holds_log_for_graph: bool,
    /// How long a stop waits for the graph, which goes on for up to half of that with what is there
    /// already. What it has not done then is done by the next start. Default 10 seconds.
    pub analysis_patience: Duration,
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
    /// Bytes for messages that are being received, until their batches are in the log's queue.
    pub fn receive_bytes(&self) -> usize {
        (self.memory_bytes / 100 * RECEIVE_PERCENT).max(DECODE_MEMORY_MAX + BATCH_DECODED_BYTES_MAX)
    }

    /// The defaults, with this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .clamp(1, 16);
        Self {
            data_dir: data_dir.into(),
            shard_count: cores as u16,
            memory_bytes: 512 << 20,
            memory_bytes_min: MEMORY_BYTES_MIN,
            flush_bytes: 64 << 20,
            flush_age: Duration::from_secs(600),
            certificate_grace: Duration::from_secs(300),
            log_bytes_max: 1 << 30,
            checkpoint_interval: Duration::from_secs(60),
            disk_reserve_bytes: 512 << 20,
            future_limit: Duration::from_secs(86_400),
            connections_max: 20_000,
            unproven_handshakes_max: 256,
            handshakes_max: 1_024,
            rows_per_second_max: 0,
            enroll_unknown: false,
            holds_log_for_graph: false,
            analysis_patience: Duration::from_secs(10),
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

    /// Whether an engine can work with these settings. Every start asks first.
    ///
    /// # Errors
    /// If `memory_bytes` is too little for one batch.
    pub fn check(&self) -> Result<(), StartError> {
        if self.memory_bytes < self.memory_bytes_min {
            return Err(StartError::Memory {
                bytes: self.memory_bytes,
                least: self.memory_bytes_min,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use arrow_array::{ArrayRef, Int8Array, RecordBatch, StringArray, TimestampMicrosecondArray};
    use quiver_model::{
        DeviceId, NormaliseContext, RefusedRow, RejectCode, SenderId, SenderKind, StreamName,
        StreamSchema, Timestamp, Verdict, judge,
    };

    use super::*;
    use crate::admit::prepare;

    #[test]
    fn memory_for_less_than_one_batch_is_refused_with_what_is_needed() {
        let with = |memory_bytes| EngineOptions {
            memory_bytes,
            ..EngineOptions::new("data")
        };
        assert!(EngineOptions::new("data").check().is_ok());
        assert!(with(MEMORY_BYTES_MIN).check().is_ok());
        for bytes in [0, MEMORY_BYTES_MIN - 1] {
            let error = with(bytes).check().unwrap_err().to_string();
            let (bytes, least) = (bytes.to_string(), MEMORY_BYTES_MIN.to_string());
            for part in [&bytes, &least, "memory_bytes"] {
                assert!(error.contains(part), "{error:?} does not say {part:?}");
            }
        }
    }

    /// The columns of the least wire types, as many as the decoded bytes allow.
    fn widest(rows: usize, sender: &SenderId) -> (RecordBatch, Arc<StreamSchema>) {
        let times = vec![1_000_000; rows];
        // Each row names a device of its own, as long as ids may be.
        let names: Vec<String> = (0..rows).map(|row| format!("{row:0>128}")).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            (
                "ts".to_owned(),
                Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            ),
            ("device".to_owned(), Arc::new(StringArray::from(names))),
        ];
        let count = (BATCH_DECODED_BYTES_MAX - rows * (8 + 132)) / rows;
        let values: ArrayRef = Arc::new(Int8Array::from(vec![1; rows]));
        for index in 0..count.min(1_000) {
            columns.push((format!("f{index}"), values.clone()));
        }
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let stream = StreamName::new("wide").unwrap();
        let judged = judge(
            &batch,
            &NormaliseContext {
                sender,
                stream: &stream,
                schema: None,
                now: Timestamp(2_000_000),
                future_limit: Duration::from_secs(60),
                may_speak_for: &|_| true,
            },
        )
        .unwrap();
        assert!(judged.verdict.refused.is_empty());
        let schema = StreamSchema::new(stream, Default::default(), judged.new_fields).unwrap();
        (batch, Arc::new(schema))
    }

    #[test]
    fn the_largest_batches_of_the_announced_limits_fit() {
        let sender = SenderId {
            kind: SenderKind::Gateway,
            id: DeviceId::new("gateway").unwrap(),
        };
        let mut most = BTreeMap::new();
        for rows in [BATCH_ROWS_MAX, 14_000] {
            let (batch, schema) = widest(rows, &sender);
            let refused = |share: usize| Verdict {
                refused: (0..rows as u32)
                    .filter(|row| share > 0 && (*row as usize).is_multiple_of(share))
                    .map(|row| RefusedRow {
                        row,
                        code: RejectCode::NotEnrolled,
                    })
                    .collect(),
                ..Verdict::default()
            };
            for (shards, share) in [(1, 0), (16, 0), (16, 2), (16, 1)] {
                let prepared =
                    prepare(&batch, &schema, &sender, &refused(share), None, shards).unwrap();
                let bytes = prepared.bytes();
                assert!(
                    bytes <= BATCH_MEMORY_BYTES_MAX,
                    "{rows} rows, {shards} shards, 1 of {share} refused: {bytes} bytes"
                );
                most.insert(bytes, rows);
            }
        }
        // And the floor is not far above what such a batch really takes.
        let most = most.keys().last().copied().unwrap_or(0);
        assert!(most > BATCH_MEMORY_BYTES_MAX / 2, "{most}");
    }
}
