//! Going through a segment group by group: the one place that decides what is valid, what is
//! damaged, and what is a torn tail. Recovery, replay and [`replay_bytes`](crate::replay_bytes)
//! all use it.
//!
//! At a place where no valid group continues the chain there are four cases:
//! - the next segment's first group names the last valid group as its predecessor: the segment
//!   simply ended (zeros, stale bytes of a recycled file, a group that never became valid);
//! - a header of this log with a later position follows in the segment: group k+1 is only written
//!   after k's fdatasync, so what is here was durable once and is **damaged**;
//! - none follows, but there is a next segment: damaged up to that;
//! - nothing follows: the **tail**, cut.

use std::{io, ops::Range};

use bytes::Bytes;
use quiver_model::Position;

use crate::{
    damage::{self, DamagedRecord},
    group::{ALIGNMENT, GroupHeader, HEADER_BYTES, MAGIC, NotAHeader},
    identity::LogKey,
    segment::Source,
    vfs::read_up_to,
};

/// Read at once while searching for a header.
const SCAN_BYTES: usize = 256 << 10;
/// How much of a group with an unreadable header is read to name its records.
const NAMED_BYTES_MAX: u64 = 16 << 20;

/// The segment after the one that is walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub first: Position,
    pub previous_crc: Option<u32>,
}

/// One thing found.
#[derive(Debug)]
pub(crate) enum Step {
    /// A valid group that was asked for; its records' bytes.
    Group {
        header: GroupHeader,
        offset: u64,
        body: Bytes,
    },
    /// A group wholly before the positions asked for; its records were not read.
    Skipped,
    /// Lost positions.
    Damaged(Damage),
    /// Nothing valid follows here or in a later segment. `bytes` of a group had been begun, as
    /// far as its header tells.
    Tail { bytes: u64 },
    /// The segment is finished.
    End,
}

/// A damaged stretch; the caller knows the file.
#[derive(Debug)]
pub(crate) struct Damage {
    pub offset: u64,
    pub bytes: u64,
    pub positions: Range<Position>,
    pub records: Vec<DamagedRecord>,
    pub complete: bool,
}

/// Why a walk cannot go on.
#[derive(Debug)]
pub(crate) enum WalkError {
    Io(io::Error),
    /// A sound header of this log in a format of a later version.
    Newer {
        version: u8,
    },
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A walk through one segment.
#[derive(Debug)]
pub(crate) struct SegmentWalk<S> {
    source: S,
    key: LogKey,
    /// First position of the segment.
    first: Position,
    /// The next segment, if there is one by now.
    pub next: Option<Next>,
    offset: u64,
    /// Position that the next group must have at least.
    expected: Position,
    /// CRC of the group before; `None` after damage and at the start of the segment, whose first
    /// group is known by the file's name.
    chain: Option<u32>,
}

impl<S: Source> SegmentWalk<S> {
    pub(crate) fn new(source: S, key: LogKey, first: Position) -> Self {
        Self {
            source,
            key,
            first,
            next: None,
            offset: 0,
            expected: first,
            chain: None,
        }
    }

    /// Position that the walk has come to.
    pub(crate) fn expected(&self) -> Position {
        self.expected
    }

    /// First position of the segment.
    pub(crate) fn first(&self) -> Position {
        self.first
    }

    /// Offset that the walk has come to.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The header at `offset`, whatever its position.
    fn header_at(&self, offset: u64) -> Result<Result<GroupHeader, NotAHeader>, WalkError> {
        let mut bytes = [0; HEADER_BYTES];
        let read = read_up_to(
            |buffer, at| self.source.read_at(buffer, at),
            &mut bytes,
            offset,
        )?;
        match GroupHeader::read(&bytes[..read], &self.key) {
            Err(NotAHeader::Newer(version)) => Err(WalkError::Newer { version }),
            header => Ok(header),
        }
    }

    /// The header of the segment's first group, if it is sound and in its place.
    pub(crate) fn first_header(&self) -> Result<Result<GroupHeader, NotAHeader>, WalkError> {
        Ok(self.header_at(0)?.and_then(|header| {
            if header.first == self.first {
                Ok(header)
            } else {
                Err(NotAHeader::Invalid)
            }
        }))
    }

    /// Whether any header of this log with a position of this segment is in it.
    pub(crate) fn has_any_header(&self) -> Result<bool, WalkError> {
        Ok(self.search(0, self.first)?.is_some())
    }

    /// The group at `offset` if it continues the log here.
    fn continuing(&self, header: GroupHeader) -> bool {
        let in_place = if self.offset == 0 {
            header.first == self.first
        } else {
            header.first >= self.expected
        };
        in_place
            && self.chain.is_none_or(|crc| crc == header.previous_crc)
            && self.next.is_none_or(|next| header.first < next.first)
    }

    /// The records of `header`'s group at the walk's offset, if they are all there and sound.
    fn body(&self, header: &GroupHeader) -> io::Result<Option<Bytes>> {
        let start = self.offset + HEADER_BYTES as u64;
        if self.source.size()?.saturating_sub(start) < u64::from(header.body_bytes) {
            return Ok(None);
        }
        let mut body = vec![0; header.body_bytes as usize];
        let read = read_up_to(
            |buffer, at| self.source.read_at(buffer, at),
            &mut body,
            start,
        )?;
        Ok(
            (read == body.len() && crc32c::crc32c(&body) == header.body_crc)
                .then(|| Bytes::from(body)),
        )
    }

    /// Goes one group on. Groups that end at or before `from` are skipped unread.
    pub(crate) fn step(&mut self, from: Position) -> Result<Step, WalkError> {
        if self.next.is_some_and(|next| self.expected >= next.first) {
            return Ok(Step::End);
        }
        let header = self
            .header_at(self.offset)?
            .ok()
            .filter(|header| self.continuing(*header));
        if let Some(header) = header {
            let skip = header.end <= from;
            let body = if skip {
                Some(Bytes::new())
            } else {
                self.body(&header)?
            };
            if let Some(body) = body {
                let offset = self.offset;
                self.offset += header.stride();
                self.expected = header.end;
                self.chain = Some(header.crc);
                return Ok(if skip {
                    Step::Skipped
                } else {
                    Step::Group {
                        header,
                        offset,
                        body,
                    }
                });
            }
        }
        self.interrupted(header)
    }

    /// Nothing valid continues here; `header` is sound if there is one, but its records are not.
    fn interrupted(&mut self, header: Option<GroupHeader>) -> Result<Step, WalkError> {
        if let (Some(chain), Some(next)) = (self.chain, self.next)
            && next.previous_crc == Some(chain)
        {
            return Ok(Step::End);
        }
        // A damaged group took at least one position; a sound header says how many.
        let lost_from = header.map_or(self.expected, |header| header.first);
        let later = header.map_or(Position(self.expected.get().saturating_add(1)), |header| {
            header.end
        });
        let search_from = self.offset + header.map_or(ALIGNMENT as u64, |header| header.stride());
        let found = self.search(search_from, later)?;
        let (end_offset, lost_to, chain) = match (found, self.next) {
            (Some((offset, found)), _) => (offset, found.first, None),
            (None, Some(next)) => (self.source.size()?.max(self.offset), next.first, None),
            (None, None) => {
                let bytes = header.map_or(0, |header| header.stride());
                return Ok(Step::Tail { bytes });
            }
        };
        let bytes = end_offset - self.offset;
        let positions = lost_from..lost_to;
        let (records, complete) = self.name_records(header.as_ref(), bytes, &positions)?;
        let complete = complete && header.is_some_and(|header| header.end == lost_to);
        let damage = Damage {
            offset: self.offset,
            bytes,
            positions,
            records,
            complete,
        };
        self.offset = end_offset;
        self.expected = lost_to;
        self.chain = chain;
        Ok(Step::Damaged(damage))
    }

    /// The records of the damaged group at the walk's offset that can be named, and whether they
    /// are as many as the header says.
    fn name_records(
        &self,
        header: Option<&GroupHeader>,
        damaged_bytes: u64,
        positions: &Range<Position>,
    ) -> io::Result<(Vec<DamagedRecord>, bool)> {
        let length = header
            .map_or(NAMED_BYTES_MAX, |header| u64::from(header.body_bytes))
            .min(damaged_bytes.saturating_sub(HEADER_BYTES as u64));
        let mut body = vec![0; length as usize];
        let start = self.offset + HEADER_BYTES as u64;
        let read = read_up_to(
            |buffer, at| self.source.read_at(buffer, at),
            &mut body,
            start,
        )?;
        body.truncate(read);
        let most = header.map_or(usize::MAX, |header| header.records as usize);
        let records = damage::name_records(&body, most, positions);
        let complete = records.len() == most;
        Ok((records, complete))
    }

    /// The first header of this log from `offset` on whose group starts at `later` or after it,
    /// and before the next segment. Only headers count: whether that group is sound is seen when
    /// the walk gets there, but that it was begun proves that its predecessor was durable.
    fn search(
        &self,
        offset: u64,
        later: Position,
    ) -> Result<Option<(u64, GroupHeader)>, WalkError> {
        let size = self.source.size()?;
        let mut offset = offset.next_multiple_of(ALIGNMENT as u64);
        let mut chunk = vec![0; SCAN_BYTES.min(usize::try_from(size).unwrap_or(SCAN_BYTES))];
        while offset < size && !chunk.is_empty() {
            let read = read_up_to(
                |buffer, at| self.source.read_at(buffer, at),
                &mut chunk,
                offset,
            )?;
            for (index, sector) in chunk[..read].chunks(ALIGNMENT).enumerate() {
                if !sector.starts_with(&MAGIC) {
                    continue;
                }
                if let Ok(header) = GroupHeader::read(sector, &self.key)
                    && header.first >= later
                    && self.next.is_none_or(|next| header.first < next.first)
                {
                    return Ok(Some((offset + (index * ALIGNMENT) as u64, header)));
                }
            }
            // Whole sectors only, so that the next chunk starts on a boundary again.
            let step = read - read % ALIGNMENT;
            if step == 0 {
                break;
            }
            offset += step as u64;
        }
        Ok(None)
    }
}
