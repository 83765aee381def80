//! Binary form of a record, format version 1. Little-endian; varints are unsigned LEB128.
//!
//! ```text
//!  0  u32  whole length, payload included
//!  4  u32  header length: offset of the payload
//!  8  u32  CRC32C of bytes 0..8 and 12..header length
//! 12  u8   record format version (1)
//! 13  u8   kind
//! 14  u8   encoding
//! 15  u8   flags: bit 0 = the producer skips sequences; the others are 0
//! 16  u8   sender kind: 0 none, 1 device, 2 gateway, 3 operator
//!     u8 + bytes   sender id (only if there is a sender)
//!     u8 + bytes   stream name (length 0: none)
//!     varint wire schema, varint schema
//!     u64  producer
//!     varint sequence, varint session
//!     i64  record time, µs since 1970
//!     varint rows
//!     varint device mismatches, varint truncated timestamps
//!     varint n, then n × (varint row − row before, varint reject code)
//!     header bytes that a reader does not know are skipped
//!     payload
//! ```
//!
//! The header's own CRC lets recovery name the senders and sequences of a damaged group whose
//! record headers survived.

use bytes::Bytes;
use quiver_model::{
    DeviceId, Producer, ProducerKind, RefusedRow, RejectCode, SchemaId, SenderId, SenderKind,
    Sequence, SessionId, StreamName, Timestamp, Verdict, VerdictCounts,
};

use crate::record::{Encoding, Record, RecordKind};

/// Version of the record format that this code writes.
const RECORD_VERSION: u8 = 1;
/// Length, header length, CRC.
const PREFIX_BYTES: usize = 12;
/// A record cannot be shorter than this.
pub(crate) const RECORD_BYTES_MIN: usize = PREFIX_BYTES + 30;
/// Upper bound of a header without its refused rows: prefix, fixed fields, names, nine varints.
const HEADER_BYTES_BOUND: usize = PREFIX_BYTES + 5 + 129 + 64 + 16 + 9 * 10;
/// Upper bound of a refused row: varints of a u32 and a u16.
const REFUSED_ROW_BYTES_BOUND: usize = 5 + 3;
const FLAG_SKIPPING: u8 = 1;

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The lengths do not fit the bytes that are there.
    #[error("the record's lengths run past the end of its commit group")]
    Truncated,
    /// The header's checksum does not match.
    #[error("the record header's CRC32C does not match")]
    HeaderCrc,
    /// A newer engine wrote it.
    #[error(
        "the record has format version {0}, this engine reads version 1; start a newer engine on this data"
    )]
    Version(u8),
    /// A field has a value that no engine of this version writes.
    #[error("the record's {0} is not valid; a newer engine may have written it")]
    Field(&'static str),
    /// The commit group's header and its records disagree.
    #[error("the records do not add up to what their commit group's header says")]
    Inconsistent,
}

/// Most bytes that `record` may take encoded.
pub(crate) fn encoded_bytes_bound(record: &Record) -> usize {
    HEADER_BYTES_BOUND
        .saturating_add(
            record
                .verdict
                .refused
                .len()
                .saturating_mul(REFUSED_ROW_BYTES_BOUND),
        )
        .saturating_add(record.payload.len())
}

/// Appends `record` to `out`. The caller has checked [`encoded_bytes_bound`] against a limit below
/// 4 GiB, so that lengths fit.
pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    let flags = match record.producer_kind {
        ProducerKind::Dense => 0,
        ProducerKind::Skipping => FLAG_SKIPPING,
    };
    out.extend_from_slice(&[
        RECORD_VERSION,
        record.kind.number(),
        record.encoding.number(),
        flags,
    ]);
    match &record.sender {
        None => out.push(0),
        Some(sender) => {
            out.push(match sender.kind {
                SenderKind::Device => 1,
                SenderKind::Gateway => 2,
                SenderKind::Operator => 3,
                SenderKind::Node => 4,
            });
            put_name(out, sender.id.as_str());
        }
    }
    put_name(out, record.stream.as_ref().map_or("", StreamName::as_str));
    put_varint(out, u64::from(record.wire_schema.get()));
    put_varint(out, u64::from(record.schema.get()));
    out.extend_from_slice(&record.producer.get().to_le_bytes());
    put_varint(out, record.sequence.get());
    put_varint(out, record.session.get());
    out.extend_from_slice(&record.time.as_micros().to_le_bytes());
    put_varint(out, u64::from(record.rows));
    put_varint(out, u64::from(record.verdict.counts.device_mismatch));
    put_varint(out, u64::from(record.verdict.counts.truncated_timestamps));
    put_varint(out, record.verdict.refused.len() as u64);
    let mut before = 0_u32;
    for refused in &record.verdict.refused {
        // Wrapping keeps even an unsorted list exact; an ascending one is short.
        put_varint(out, u64::from(refused.row.wrapping_sub(before)));
        put_varint(out, u64::from(refused.code.number()));
        before = refused.row;
    }
    let header_bytes = out.len() - start;
    out.extend_from_slice(&record.payload);
    let total_bytes = out.len() - start;
    out[start..start + 4].copy_from_slice(&(total_bytes as u32).to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&(header_bytes as u32).to_le_bytes());
    let crc = header_crc(&out[start..start + header_bytes]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

fn header_crc(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &header[PREFIX_BYTES..])
}

/// A record whose payload has not been looked at.
pub(crate) struct RecordHead {
    /// The record, with an empty payload.
    pub record: Record,
    /// Offset of the payload.
    pub header_bytes: usize,
    /// Offset of the next record.
    pub total_bytes: usize,
}

/// Decodes the record at the start of `body`, sharing its buffer; and how many bytes it took.
pub(crate) fn decode(body: &Bytes) -> Result<(Record, usize), RecordError> {
    let head = decode_head(body)?;
    if head.total_bytes > body.len() {
        return Err(RecordError::Truncated);
    }
    let mut record = head.record;
    record.payload = body.slice(head.header_bytes..head.total_bytes);
    Ok((record, head.total_bytes))
}

/// Decodes a record's header, which must be there whole; its payload need not be.
pub(crate) fn decode_head(bytes: &[u8]) -> Result<RecordHead, RecordError> {
    let mut prefix = Fields(bytes);
    let total_bytes = prefix.u32()? as usize;
    let header_bytes = prefix.u32()? as usize;
    let crc = prefix.u32()?;
    if header_bytes < RECORD_BYTES_MIN || total_bytes < header_bytes {
        return Err(RecordError::Truncated);
    }
    let header = bytes.get(..header_bytes).ok_or(RecordError::Truncated)?;
    if header_crc(header) != crc {
        return Err(RecordError::HeaderCrc);
    }
    let mut fields = Fields(&header[PREFIX_BYTES..]);
    let version = fields.u8()?;
    if version != RECORD_VERSION {
        return Err(RecordError::Version(version));
    }
    let kind = RecordKind::from_number(fields.u8()?);
    let encoding = Encoding::from_number(fields.u8()?);
    let flags = fields.u8()?;
    let sender = match fields.u8()? {
        0 => None,
        number => {
            let kind = match number {
                1 => SenderKind::Device,
                2 => SenderKind::Gateway,
                3 => SenderKind::Operator,
                4 => SenderKind::Node,
                _ => return Err(RecordError::Field("sender kind")),
            };
            let id = DeviceId::new(fields.name()?).map_err(|_| RecordError::Field("sender id"))?;
            Some(SenderId { kind, id })
        }
    };
    let stream = match fields.name()? {
        "" => None,
        name => Some(StreamName::new(name).map_err(|_| RecordError::Field("stream name"))?),
    };
    let wire_schema = SchemaId(fields.varint_u32("wire schema")?);
    let schema = SchemaId(fields.varint_u32("schema")?);
    let producer = Producer(fields.u64()?);
    let sequence = Sequence(fields.varint()?);
    let session = SessionId(fields.varint()?);
    let time = Timestamp(fields.u64()?.cast_signed());
    let rows = fields.varint_u32("row count")?;
    let counts = VerdictCounts {
        device_mismatch: fields.varint_u32("count of device mismatches")?,
        truncated_timestamps: fields.varint_u32("count of truncated timestamps")?,
    };
    let refused_count = fields.varint()?;
    // Each takes two bytes at least: never allocate for more than can be there.
    if refused_count > (fields.0.len() / 2) as u64 {
        return Err(RecordError::Truncated);
    }
    let mut refused = Vec::with_capacity(refused_count as usize);
    let mut row = 0_u32;
    for _ in 0..refused_count {
        row = row.wrapping_add(fields.varint_u32("refused row")?);
        let number = fields.varint_u32("reject code")?;
        let code = u16::try_from(number)
            .ok()
            .and_then(RejectCode::from_number)
            .ok_or(RecordError::Field("reject code"))?;
        refused.push(RefusedRow { row, code });
    }
    let producer_kind = if flags & FLAG_SKIPPING == 0 {
        ProducerKind::Dense
    } else {
        ProducerKind::Skipping
    };
    Ok(RecordHead {
        record: Record {
            kind,
            encoding,
            wire_schema,
            schema,
            producer_kind,
            sender,
            producer,
            stream,
            sequence,
            session,
            time,
            rows,
            verdict: Verdict { refused, counts },
            payload: Bytes::new(),
        },
        header_bytes,
        total_bytes,
    })
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Names are at most 128 bytes by their types.
fn put_name(out: &mut Vec<u8>, name: &str) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

/// What is left to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Field("varint"))
    }

    fn varint_u32(&mut self, field: &'static str) -> Result<u32, RecordError> {
        u32::try_from(self.varint()?).map_err(|_| RecordError::Field(field))
    }

    fn name(&mut self) -> Result<&'a str, RecordError> {
        let length = self.u8()?;
        let bytes = self.take(usize::from(length))?;
        std::str::from_utf8(bytes).map_err(|_| RecordError::Field("name"))
    }
}

#[cfg(test)]
mod tests;
