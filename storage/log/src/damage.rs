//! What is said of a damaged part of the log: which positions, and as far as record headers
//! survived, whose batches.

use std::{fmt, ops::Range, path::PathBuf};

use quiver_model::{Position, Producer, ProducerKind, SenderId, Sequence, StreamName, Timestamp};

use crate::{codec, record::RecordKind};

/// A stretch of the log that fails its checks and is followed by valid groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The segment's file.
    pub segment: PathBuf,
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// How many bytes it covers.
    pub bytes: u64,
    /// The positions that are lost: from the first one after the last valid group to the first
    /// one of the next.
    pub positions: Range<Position>,
    /// Records whose headers are readable, with intact checksums. Their payloads are lost.
    pub records: Vec<DamagedRecord>,
    /// Whether `records` are all there were; else the sequences of the others are unknown.
    pub complete: bool,
}

/// A record in a damaged group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Where it was: certain if the range is complete, else at the earliest.
    pub position: Position,
    /// What it was.
    pub kind: RecordKind,
    /// How the producer counts.
    pub producer_kind: ProducerKind,
    /// Who sent it.
    pub sender: Option<SenderId>,
    /// The scope of its sequence.
    pub producer: Producer,
    /// Its stream.
    pub stream: Option<StreamName>,
    /// Its sequence.
    pub sequence: Sequence,
    /// Its record time.
    pub time: Timestamp,
    /// Its rows as sent, refused ones included.
    pub rows: u32,
    /// How many of them were refused.
    pub refused: u32,
}

impl DamagedRecord {
    /// The position after its last row.
    pub fn end(&self) -> Position {
        Position(
            self.position
                .get()
                .saturating_add(u64::from(self.rows.max(1))),
        )
    }
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "positions {} to {} are damaged ({} bytes at offset {} of {}); {} of the records can be named{}",
            self.positions.start,
            self.positions.end.get().saturating_sub(1),
            self.bytes,
            self.offset,
            self.segment.display(),
            self.records.len(),
            if self.complete {
                ""
            } else {
                ", there may be more"
            },
        )
    }
}

/// Names the records at the start of `body` as far as their headers are intact and `positions`
/// has room for them.
pub(crate) fn name_records(
    mut body: &[u8],
    most: usize,
    positions: &Range<Position>,
) -> Vec<DamagedRecord> {
    let mut records = Vec::new();
    let mut position = positions.start;
    while records.len() < most
        && let Ok(head) = codec::decode_head(body)
    {
        let record = head.record;
        let named = DamagedRecord {
            position,
            kind: record.kind,
            producer_kind: record.producer_kind,
            sender: record.sender,
            producer: record.producer,
            stream: record.stream,
            sequence: record.sequence,
            time: record.time,
            rows: record.rows,
            refused: u32::try_from(record.verdict.refused.len()).unwrap_or(u32::MAX),
        };
        position = named.end();
        if position > positions.end {
            break;
        }
        records.push(named);
        body = body.get(head.total_bytes..).unwrap_or(&[]);
    }
    records
}
