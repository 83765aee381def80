//! The spool's bytes. All numbers are little-endian; the format is version 1.
//!
//! ```text
//! segment = "QVRSPOOL" version:u32 segment:u64 crc:u32          (24 bytes; crc of the 20 before it)
//!           record*
//! record  = length:u32 crc:u32 kind:u8 body[length]             (crc: CRC-32C of kind and body)
//! text    = length:u8 bytes
//! lane    = stream:text kind:u8                                 (1 live, 2 backlog)
//!
//! State    1  instance:u64 next_id:u64 count:u32 { lane producer:u64 next:u64 settled_before:u64 }*
//! Schema   2  number:u32 bytes*                                 (numbers count from 0 in each segment)
//! Batch    3  id:u64 stream:text lane_kind:u8 producer:u64 sequence:u64 rows:u32 schema:u32 bytes*
//!                                                               (lane_kind 0: not assigned yet)
//! Assign   4  lane producer:u64 first_sequence:u64 from_id:u64 to_id:u64
//! Renumber 5  lane producer:u64 settled_before:u64
//! Settled  6  lane settled_before:u64
//! ```
//!
//! Each segment begins with State, so segments can be removed oldest first without losing what the
//! later ones build on.

use bytes::Bytes;
use quiver_model::{Producer, StreamName};

use crate::queue::{LaneKey, LaneKind};

pub(super) const MAGIC: &[u8; 8] = b"QVRSPOOL";
pub(super) const VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER_BYTES: usize = 24;
pub(super) const RECORD_HEADER_BYTES: usize = 9;
/// Longest record body that is believed; what an encoded batch may take, and more.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A lane as State remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneState {
    pub key: LaneKey,
    pub producer: Producer,
    /// Sequence of the next batch to be assigned.
    pub next: u64,
    /// Every batch below it is settled.
    pub settled_before: u64,
}

/// Which producer and sequence a batch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub kind: LaneKind,
    pub producer: Producer,
    pub sequence: u64,
}

/// What is in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    State {
        instance: u64,
        next_id: u64,
        lanes: Vec<LaneState>,
    },
    Schema {
        number: u32,
        bytes: Bytes,
    },
    Batch {
        id: u64,
        stream: StreamName,
        assignment: Option<Assignment>,
        rows: u32,
        schema: u32,
        body: Bytes,
    },
    /// All unassigned batches of the lane's stream with `from_id <= id < to_id`, in order of id.
    Assign {
        key: LaneKey,
        producer: Producer,
        first_sequence: u64,
        from_id: u64,
        to_id: u64,
    },
    /// The lane's batches from `settled_before` on are numbered from 0 under a new producer.
    Renumber {
        key: LaneKey,
        producer: Producer,
        settled_before: u64,
    },
    Settled {
        key: LaneKey,
        settled_before: u64,
    },
}

pub(super) fn segment_header(segment: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&segment.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Appends `record` to `output`; for a batch, returns where its body lies in `output`.
pub(super) fn encode(record: &Record, output: &mut Vec<u8>) -> std::ops::Range<usize> {
    let start = output.len();
    output.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    let mut body = 0;
    let kind = match record {
        Record::State {
            instance,
            next_id,
            lanes,
        } => {
            put_u64(output, *instance);
            put_u64(output, *next_id);
            put_u32(output, lanes.len() as u32);
            for lane in lanes {
                put_lane(output, &lane.key);
                put_u64(output, lane.producer.get());
                put_u64(output, lane.next);
                put_u64(output, lane.settled_before);
            }
            1
        }
        Record::Schema { number, bytes } => {
            put_u32(output, *number);
            output.extend_from_slice(bytes);
            2
        }
        Record::Batch {
            id,
            stream,
            assignment,
            rows,
            schema,
            body: payload,
        } => {
            put_u64(output, *id);
            put_text(output, stream.as_str());
            output.push(assignment.map_or(0, |assignment| kind_number(&assignment.kind)));
            put_u64(
                output,
                assignment.map_or(0, |assignment| assignment.producer.get()),
            );
            put_u64(
                output,
                assignment.map_or(0, |assignment| assignment.sequence),
            );
            put_u32(output, *rows);
            put_u32(output, *schema);
            body = output.len();
            output.extend_from_slice(payload);
            3
        }
        Record::Assign {
            key,
            producer,
            first_sequence,
            from_id,
            to_id,
        } => {
            put_lane(output, key);
            for number in [producer.get(), *first_sequence, *from_id, *to_id] {
                put_u64(output, number);
            }
            4
        }
        Record::Renumber {
            key,
            producer,
            settled_before,
        } => {
            put_lane(output, key);
            put_u64(output, producer.get());
            put_u64(output, *settled_before);
            5
        }
        Record::Settled {
            key,
            settled_before,
        } => {
            put_lane(output, key);
            put_u64(output, *settled_before);
            6
        }
    };
    let length = (output.len() - start - RECORD_HEADER_BYTES) as u32;
    output[start + 8] = kind;
    let crc = crc32c::crc32c(&output[start + 8..]);
    output[start..start + 4].copy_from_slice(&length.to_le_bytes());
    output[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    body..output.len()
}

/// Reads records from the whole content of a segment.
pub(super) struct Reader {
    bytes: Bytes,
    /// Everything before it was valid.
    pub offset: usize,
}

impl Reader {
    /// A reader behind the segment's header; `None` if that is not valid.
    pub fn new(bytes: Bytes, segment: u64) -> Option<Self> {
        bytes.starts_with(&segment_header(segment)).then_some(Self {
            bytes,
            offset: SEGMENT_HEADER_BYTES,
        })
    }

    pub fn at_end(&self) -> bool {
        self.offset == self.bytes.len()
    }

    /// The next record, and for a batch the offset of its body; `None` where the valid ones end.
    pub fn next(&mut self) -> Option<(Record, usize)> {
        let header = self
            .bytes
            .get(self.offset..self.offset + RECORD_HEADER_BYTES)?;
        let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
        let crc = u32::from_le_bytes(header[4..8].try_into().ok()?);
        let kind = header[8];
        let start = self.offset + RECORD_HEADER_BYTES;
        if length > RECORD_BYTES_MAX || start + length > self.bytes.len() {
            return None;
        }
        if crc32c::crc32c(&self.bytes[start - 1..start + length]) != crc {
            return None;
        }
        let mut body = Body(self.bytes.slice(start..start + length));
        let record = decode(kind, &mut body)?;
        let body_length = match &record {
            Record::Batch { body, .. } => body.len(),
            _ => 0,
        };
        self.offset = start + length;
        Some((record, self.offset - body_length))
    }
}

fn decode(kind: u8, body: &mut Body) -> Option<Record> {
    Some(match kind {
        1 => {
            let (instance, next_id, count) = (body.u64()?, body.u64()?, body.u32()?);
            let mut lanes = Vec::new();
            for _ in 0..count {
                lanes.push(LaneState {
                    key: body.lane()?,
                    producer: Producer(body.u64()?),
                    next: body.u64()?,
                    settled_before: body.u64()?,
                });
            }
            Record::State {
                instance,
                next_id,
                lanes,
            }
        }
        2 => Record::Schema {
            number: body.u32()?,
            bytes: body.rest(),
        },
        3 => {
            let (id, stream, lane_kind) = (body.u64()?, body.stream()?, body.u8()?);
            let (producer, sequence) = (Producer(body.u64()?), body.u64()?);
            let assignment = match lane_kind {
                0 => None,
                number => Some(Assignment {
                    kind: kind_of(number)?,
                    producer,
                    sequence,
                }),
            };
            let (rows, schema) = (body.u32()?, body.u32()?);
            Record::Batch {
                id,
                stream,
                assignment,
                rows,
                schema,
                body: body.rest(),
            }
        }
        4 => Record::Assign {
            key: body.lane()?,
            producer: Producer(body.u64()?),
            first_sequence: body.u64()?,
            from_id: body.u64()?,
            to_id: body.u64()?,
        },
        5 => Record::Renumber {
            key: body.lane()?,
            producer: Producer(body.u64()?),
            settled_before: body.u64()?,
        },
        6 => Record::Settled {
            key: body.lane()?,
            settled_before: body.u64()?,
        },
        _ => return None,
    })
}

/// What is left of a record's body.
struct Body(Bytes);

impl Body {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (self.0.len() >= length).then(|| self.0.split_to(length))
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.as_ref().try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.as_ref().try_into().ok()?))
    }
    fn stream(&mut self) -> Option<StreamName> {
        let length = self.u8()?;
        let text = self.take(usize::from(length))?;
        StreamName::new(std::str::from_utf8(&text).ok()?).ok()
    }
    fn lane(&mut self) -> Option<LaneKey> {
        Some(LaneKey {
            stream: self.stream()?,
            kind: kind_of(self.u8()?)?,
        })
    }
    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

fn kind_number(kind: &LaneKind) -> u8 {
    match kind {
        LaneKind::Live => 1,
        LaneKind::Backlog => 2,
        // Batches of named producers are never spooled: whoever named it can make them again.
        LaneKind::Named(_) => 0,
    }
}

fn kind_of(number: u8) -> Option<LaneKind> {
    match number {
        1 => Some(LaneKind::Live),
        2 => Some(LaneKind::Backlog),
        _ => None,
    }
}

fn put_u32(output: &mut Vec<u8>, number: u32) {
    output.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(output: &mut Vec<u8>, number: u64) {
    output.extend_from_slice(&number.to_le_bytes());
}

fn put_text(output: &mut Vec<u8>, text: &str) {
    // Stream names are at most 63 bytes.
    output.push(text.len() as u8);
    output.extend_from_slice(text.as_bytes());
}

fn put_lane(output: &mut Vec<u8>, key: &LaneKey) {
    put_text(output, key.stream.as_str());
    output.push(kind_number(&key.kind));
}
