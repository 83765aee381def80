//! Commit groups: what becomes durable as one. A group starts on a 512-byte boundary, so that
//! writing it never touches a sector of the group before it, and is padded to one.
//!
//! ```text
//!  0  8 B  magic "QUIVRLOG"
//!  8  u8   format version (1), then 3 zero bytes
//! 12  u32  record count
//! 16  u128 log id
//! 32  u64  seal: a second random number of the log, known to its files alone
//! 40  u64  first position
//! 48  u64  end position (exclusive)
//! 56  i64  time of the last record, µs since 1970
//! 64  u32  length of the records in bytes
//! 68  u32  CRC32C of the records
//! 72  u32  previous group's CRC (0 for the first group of a log)
//! 76  u32  this group's CRC: CRC32C of bytes 0..76
//! 80  records, then zeros up to the boundary
//! ```
//!
//! The group's CRC covers the records' CRC, and the next group repeats it: the groups form a
//! chain. Stale bytes of a recycled file fail by first position; bytes of another log by log id;
//! a payload that imitates a group by the seal.

use quiver_model::{Position, Timestamp};

use crate::{codec::RECORD_BYTES_MIN, identity::LogKey};

/// Groups start at multiples of this many bytes.
pub(crate) const ALIGNMENT: usize = 512;
/// Bytes before the first record.
pub(crate) const HEADER_BYTES: usize = 80;
/// Most bytes that the records of a group may take, whatever the options say.
pub(crate) const BODY_BYTES_LIMIT: usize = 256 << 20;

pub(crate) const MAGIC: [u8; 8] = *b"QUIVRLOG";
/// Version of the group format that this code writes. Later versions keep the first 80 bytes'
/// layout, so that an older engine can tell "newer" from "damaged".
const GROUP_VERSION: u8 = 1;
const CRC_OFFSET: usize = 76;

/// A group's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub records: u32,
    pub first: Position,
    pub end: Position,
    pub last_time: Timestamp,
    pub body_bytes: u32,
    pub body_crc: u32,
    pub previous_crc: u32,
    /// Set by [`GroupHeader::write`] and [`GroupHeader::read`].
    pub crc: u32,
}

/// Why bytes are not a header of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAHeader {
    /// Zeros, payload, stale or damaged bytes.
    Invalid,
    /// A whole header of another log.
    Foreign,
    /// A whole header of this log in a newer format.
    Newer(u8),
}

/// Rounds up to the boundary.
pub(crate) const fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT as u64)
}

impl GroupHeader {
    /// Bytes from the start of this group to the start of the next.
    pub(crate) const fn stride(&self) -> u64 {
        aligned(HEADER_BYTES as u64 + self.body_bytes as u64)
    }

    /// Writes the header into the first bytes of `out` and fills in its CRC.
    pub(crate) fn write(&mut self, key: &LogKey, out: &mut [u8; HEADER_BYTES]) {
        out.fill(0);
        out[..8].copy_from_slice(&MAGIC);
        out[8] = GROUP_VERSION;
        out[12..16].copy_from_slice(&self.records.to_le_bytes());
        out[16..32].copy_from_slice(&key.id.0.to_le_bytes());
        out[32..40].copy_from_slice(&key.seal.to_le_bytes());
        out[40..48].copy_from_slice(&self.first.get().to_le_bytes());
        out[48..56].copy_from_slice(&self.end.get().to_le_bytes());
        out[56..64].copy_from_slice(&self.last_time.as_micros().to_le_bytes());
        out[64..68].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[68..72].copy_from_slice(&self.body_crc.to_le_bytes());
        out[72..76].copy_from_slice(&self.previous_crc.to_le_bytes());
        self.crc = crc32c::crc32c(&out[..CRC_OFFSET]);
        out[CRC_OFFSET..].copy_from_slice(&self.crc.to_le_bytes());
    }

    /// Reads a header of the log `key`.
    pub(crate) fn read(bytes: &[u8], key: &LogKey) -> Result<Self, NotAHeader> {
        let (header, found) = Self::read_any(bytes)?;
        if found == *key {
            header
        } else {
            Err(NotAHeader::Foreign)
        }
    }

    /// Reads a header of whatever log; the outer error means "no header at all".
    pub(crate) fn read_any(bytes: &[u8]) -> Result<(Result<Self, NotAHeader>, LogKey), NotAHeader> {
        let Some((bytes, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(NotAHeader::Invalid);
        };
        let crc = u32_at(bytes, CRC_OFFSET);
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..CRC_OFFSET]) != crc {
            return Err(NotAHeader::Invalid);
        }
        let key = LogKey {
            id: crate::identity::LogId(
                u128::from(u64_at(bytes, 24)) << 64 | u128::from(u64_at(bytes, 16)),
            ),
            seal: u64_at(bytes, 32),
        };
        if bytes[8] != GROUP_VERSION {
            return Ok((Err(NotAHeader::Newer(bytes[8])), key));
        }
        let header = Self {
            records: u32_at(bytes, 12),
            first: Position(u64_at(bytes, 40)),
            end: Position(u64_at(bytes, 48)),
            last_time: Timestamp(u64_at(bytes, 56).cast_signed()),
            body_bytes: u32_at(bytes, 64),
            body_crc: u32_at(bytes, 68),
            previous_crc: u32_at(bytes, 72),
            crc,
        };
        let sound = header.records > 0
            && header.first.get() > 0
            && header
                .end
                .get()
                .checked_sub(header.first.get())
                .is_some_and(|positions| {
                    positions >= u64::from(header.records)
                        && positions <= u64::from(header.records) * u64::from(u32::MAX)
                })
            && header.body_bytes as usize <= BODY_BYTES_LIMIT
            && u64::from(header.records) * RECORD_BYTES_MIN as u64 <= u64::from(header.body_bytes);
        Ok((
            if sound {
                Ok(header)
            } else {
                Err(NotAHeader::Invalid)
            },
            key,
        ))
    }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
