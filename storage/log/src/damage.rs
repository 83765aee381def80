//! What is said of a damaged part of the log: which positions, and as far as record headers
//! survived, whose batches.

use std::{fmt, ops::Range, path::PathBuf};

use quiver_model::{Position, Producer, SenderId, Sequence, StreamName};

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
    /// What it was.
    pub kind: RecordKind,
    /// Who sent it.
    pub sender: Option<SenderId>,
    /// The scope of its sequence.
    pub producer: Producer,
    /// Its stream.
    pub stream: Option<StreamName>,
    /// Its sequence.
    pub sequence: Sequence,
    /// Its rows.
    pub rows: u32,
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

/// Names the records at the start of `body` as far as their headers are intact.
pub(crate) fn name_records(mut body: &[u8], most: usize) -> Vec<DamagedRecord> {
    let mut records = Vec::new();
    while records.len() < most
        && let Ok(head) = codec::decode_head(body)
    {
        let record = head.record;
        records.push(DamagedRecord {
            kind: record.kind,
            sender: record.sender,
            producer: record.producer,
            stream: record.stream,
            sequence: record.sequence,
            rows: record.rows,
        });
        body = body.get(head.total_bytes..).unwrap_or(&[]);
    }
    records
}
