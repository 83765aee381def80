//! What the log keeps: records. Kinds and encodings are open sets of stable numbers, so that new
//! ones need no new format and an older engine can skip what it does not know.

use bytes::Bytes;
use quiver_model::{
    Position, Producer, ProducerKind, SchemaId, SenderId, Sequence, SessionId, StreamName,
    Timestamp, Verdict,
};

/// What a record is. The numbers are in the durable format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A batch of rows (1). Derived rows are the same kind with a skipping producer.
    Data,
    /// A batch that was refused for ever; it consumed its sequence (2).
    Reject,
    /// The sender declared the batches before this sequence lost (3).
    Lost,
    /// A version of a stream's schema (4).
    StreamSchema,
    /// The schema that a sender announced for the encoded batches that refer to it (5).
    WireSchema,
    /// A change of the device registry (6).
    Registry,
    /// What analysis and operators may depend on (32 and above).
    Control(ControlKind),
    /// A kind of a later version, kept as it is.
    Unknown(u8),
}

/// Kinds of control records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlKind {
    /// Time passed without data (32).
    Tick,
    /// The wall clock stepped; record time has a new origin (33).
    ClockStepped,
    /// A consumer's cursor was moved: node, from, to (34).
    CursorMoved,
    /// A pipeline graph came into force (35).
    GraphApplied,
    /// A lookup table was loaded, named by its hash (36).
    LookupLoaded,
    /// An operator's command (37).
    OperatorCommand,
    /// What a retention run removed from the archive (38).
    RetentionApplied,
    /// Positions that recovery reported as damaged (39).
    DamageReported,
}

impl ControlKind {
    const ALL: [Self; 8] = [
        Self::Tick,
        Self::ClockStepped,
        Self::CursorMoved,
        Self::GraphApplied,
        Self::LookupLoaded,
        Self::OperatorCommand,
        Self::RetentionApplied,
        Self::DamageReported,
    ];

    /// The number in the durable format.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tick => 32,
            Self::ClockStepped => 33,
            Self::CursorMoved => 34,
            Self::GraphApplied => 35,
            Self::LookupLoaded => 36,
            Self::OperatorCommand => 37,
            Self::RetentionApplied => 38,
            Self::DamageReported => 39,
        }
    }
}

impl RecordKind {
    /// The number in the durable format.
    pub const fn number(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Reject => 2,
            Self::Lost => 3,
            Self::StreamSchema => 4,
            Self::WireSchema => 5,
            Self::Registry => 6,
            Self::Control(kind) => kind.number(),
            Self::Unknown(number) => number,
        }
    }

    /// The kind with this number; never fails, because later versions add kinds.
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Data,
            2 => Self::Reject,
            3 => Self::Lost,
            4 => Self::StreamSchema,
            5 => Self::WireSchema,
            6 => Self::Registry,
            _ => ControlKind::ALL
                .into_iter()
                .find(|kind| kind.number() == number)
                .map_or(Self::Unknown(number), Self::Control),
        }
    }
}

/// How a payload is encoded. The numbers are in the durable format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// No payload, or one that the record's kind alone explains (0).
    None,
    /// One encapsulated Arrow IPC message with its body (1).
    ArrowIpcMessage,
    /// JSON text (2).
    Json,
    /// A protobuf message that the record's kind names (3).
    Protobuf,
    /// One encapsulated Arrow IPC message with its body, compressed as a whole: two u32 lengths,
    /// compressed and raw, and a zstd frame (4).
    ArrowIpcZstd,
    /// A payload of the wire protocol's compact encoding that decodes alone: its columns begin anew,
    /// and no length is in front (5).
    Compact,
    /// An encoding of a later version, kept as it is.
    Unknown(u8),
}

impl Encoding {
    /// The number in the durable format.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::ArrowIpcMessage => 1,
            Self::Json => 2,
            Self::Protobuf => 3,
            Self::ArrowIpcZstd => 4,
            Self::Compact => 5,
            Self::Unknown(number) => number,
        }
    }

    /// The encoding with this number; never fails, because later versions add encodings.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::ArrowIpcMessage,
            2 => Self::Json,
            3 => Self::Protobuf,
            4 => Self::ArrowIpcZstd,
            5 => Self::Compact,
            number => Self::Unknown(number),
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: RecordKind,
    /// How the payload is encoded.
    pub encoding: Encoding,
    /// Schema record that the payload needs to be decoded; 0 for none.
    pub wire_schema: SchemaId,
    /// Version of the stream's schema that the batch was normalised to; 0 for none.
    pub schema: SchemaId,
    /// How the producer counts.
    pub producer_kind: ProducerKind,
    /// Who sent it; `None` for the engine itself.
    pub sender: Option<SenderId>,
    /// The scope of `sequence`.
    pub producer: Producer,
    /// The stream it belongs to, if any.
    pub stream: Option<StreamName>,
    /// The batch's number under its producer.
    pub sequence: Sequence,
    /// The connection it came over.
    pub session: SessionId,
    /// Record time. The log raises it, so that it never decreases with position.
    pub time: Timestamp,
    /// Rows in the batch as sent, refused ones included; 0 for control records.
    pub rows: u32,
    /// What ingest decided; recovery obeys it.
    pub verdict: Verdict,
    /// The bytes.
    pub payload: Bytes,
}

impl Record {
    /// A record of the engine itself, without sender, stream, rows or payload, to be filled in.
    pub fn control(kind: RecordKind, time: Timestamp) -> Self {
        Self {
            kind,
            encoding: Encoding::None,
            wire_schema: SchemaId(0),
            schema: SchemaId(0),
            producer_kind: ProducerKind::Dense,
            sender: None,
            producer: Producer(0),
            stream: None,
            sequence: Sequence(0),
            session: SessionId(0),
            time,
            rows: 0,
            verdict: Verdict::default(),
            payload: Bytes::new(),
        }
    }

    /// Positions it takes in the log: one per row, at least one.
    pub const fn positions(&self) -> u64 {
        if self.rows == 0 { 1 } else { self.rows as u64 }
    }
}

/// A record and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedRecord {
    /// Position of its first row (or of itself).
    pub position: Position,
    /// The record. Its payload shares the buffer of its whole commit group.
    pub record: Record,
}

impl CommittedRecord {
    /// The position after this record.
    pub fn end(&self) -> Position {
        Position(self.position.get().saturating_add(self.record.positions()))
    }
}
