//! Everything that can happen to a shard after the log.

use std::sync::Arc;

use quiver_hot::{Reservation, StreamTable};
use quiver_log::{Record, RecordKind};
use quiver_model::{
    BatchPart, Position, Producer, ProducerKind, RejectCode, SenderId, Sequence, StreamName,
    Timestamp,
};

use super::RejectNote;
use crate::{checkpoint::CheckpointCollector, damage::SenderDamage, flush::FlushTicket};

/// What became of a sender's batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettledOutcome {
    /// Its rows are stored, save those that were refused one by one.
    Stored,
    /// It is refused as a whole.
    Rejected {
        /// Why.
        code: RejectCode,
        /// What is wrong, where, and how to mend it.
        message: String,
    },
    /// The batches before it were declared lost; the sequence goes on with this number.
    Lost,
}

/// What the commit loop (or recovery) tells a shard, in position order.
pub enum ShardEvent {
    /// Rows of this shard's devices.
    Rows {
        /// The table they belong to.
        table: Arc<StreamTable>,
        /// The rows.
        rows: BatchPart,
        /// The memory they were admitted with.
        reservation: Reservation,
        /// Position of the record.
        first: Position,
        /// Record time.
        time: Timestamp,
    },
    /// A batch of one of this shard's senders is settled.
    Settled(Box<Settled>),
    /// A batch did not become durable, nor any after it under its epoch.
    AppendFailed {
        /// Who sent it.
        sender: SenderId,
        /// Its producer.
        producer: Producer,
        /// Its stream.
        stream: StreamName,
        /// The epoch that ended.
        epoch: u64,
        /// What the log said.
        reason: String,
    },
    /// Control records are durable (told to shard 0 only).
    Control(Vec<ControlRow>),
    /// Batches of one of this shard's senders lie in a damaged part of the log.
    Damaged {
        /// Position of the report.
        position: Position,
        /// Its record time.
        time: Timestamp,
        /// The batches.
        damage: Box<SenderDamage>,
    },
    /// Freeze a stream's memtable for a flush.
    Barrier {
        /// The flush.
        ticket: FlushTicket,
        /// Everything up to here belongs to it.
        position: Position,
    },
    /// Hand over a copy of the state for a checkpoint.
    Checkpoint(Arc<CheckpointCollector>),
    /// Everything up to this position has been told.
    Watermark(Position),
}

/// A settled batch, for the shard of its sender.
pub struct Settled {
    /// Who sent it.
    pub sender: SenderId,
    /// Its producer.
    pub producer: Producer,
    /// How that producer counts.
    pub producer_kind: ProducerKind,
    /// Its stream.
    pub stream: StreamName,
    /// Its number.
    pub sequence: Sequence,
    /// Position of its record.
    pub position: Position,
    /// Record time.
    pub time: Timestamp,
    /// What became of it.
    pub outcome: SettledOutcome,
    /// What goes to the stream of rejects.
    pub rejects: Vec<RejectNote>,
    /// Table and memory for those.
    pub rejects_table: Option<(Arc<StreamTable>, Reservation)>,
    /// Monotonic time at which the batch was whole in memory; `None` at replay.
    pub received: Option<std::time::Duration>,
}

/// A control record as a row of `quiver_control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRow {
    /// Its position.
    pub position: Position,
    /// Record time.
    pub time: Timestamp,
    /// What it is.
    pub kind: &'static str,
    /// The stream it is about, if any.
    pub stream: Option<String>,
    /// Its payload as text; for binary ones only their size.
    pub body: String,
}

impl ControlRow {
    /// The row of a control record; `None` for other kinds and for those that are not kept.
    pub fn of(position: Position, record: &Record) -> Option<Self> {
        let kind = match record.kind {
            RecordKind::StreamSchema => "stream_schema",
            RecordKind::Registry => "registry",
            // Ticks follow from record times.
            RecordKind::Control(quiver_log::ControlKind::Tick) => return None,
            RecordKind::Control(kind) => control_name(kind),
            // How bytes were encoded is of no use without the bytes.
            RecordKind::Data | RecordKind::Reject | RecordKind::Lost | RecordKind::WireSchema => {
                return None;
            }
            RecordKind::Unknown(_) => "unknown",
        };
        let body = match std::str::from_utf8(&record.payload) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("{} bytes", record.payload.len()),
        };
        let stream = record.stream.as_ref().map(ToString::to_string);
        Some(Self {
            position,
            time: record.time,
            kind,
            stream,
            body,
        })
    }
}

fn control_name(kind: quiver_log::ControlKind) -> &'static str {
    use quiver_log::ControlKind as K;
    match kind {
        K::Tick => "tick",
        K::ClockStepped => "clock_stepped",
        K::CursorMoved => "cursor_moved",
        K::GraphApplied => "graph_applied",
        K::LookupLoaded => "lookup_loaded",
        K::OperatorCommand => "operator_command",
        K::RetentionApplied => "retention_applied",
        K::DamageReported => "damage_reported",
    }
}
