//! Segment files: their names, what is known of each, and the list that the writer and its
//! readers share.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quiver_model::{Position, Timestamp};

use crate::vfs::VfsFile;

const SEGMENT_SUFFIX: &str = ".seg";
const SPARE_PREFIX: &str = "spare-";

/// `00000000000000000001.seg`: named by first position, so that names sort as positions do.
pub(crate) fn segment_path(dir: &Path, first: Position) -> PathBuf {
    dir.join(format!("{:020}{SEGMENT_SUFFIX}", first.get()))
}

/// First position of the segment with this file name.
pub(crate) fn parse_segment_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    digits.parse().ok().map(Position)
}

/// `spare-7.seg`: a trimmed segment waiting to be reused.
pub(crate) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{SPARE_PREFIX}{number}{SEGMENT_SUFFIX}"))
}

/// Number of the spare with this file name.
pub(crate) fn parse_spare_name(name: &str) -> Option<u64> {
    name.strip_prefix(SPARE_PREFIX)?
        .strip_suffix(SEGMENT_SUFFIX)?
        .parse()
        .ok()
}

/// What holds a segment's bytes: a file, or an image in memory.
pub(crate) trait Source {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn size(&self) -> io::Result<u64>;
}

impl Source for Box<dyn VfsFile> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

impl Source for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A segment as metrics and tools see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// First position in it.
    pub first: Position,
    /// Its file.
    pub path: PathBuf,
    /// Size of the file in bytes, preallocated space included.
    pub bytes: u64,
    /// Record time of its newest record, as far as it was read.
    pub last_time: Timestamp,
}

/// A live segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub info: SegmentInfo,
    /// What its first group says of the group before it; `None` if that is not readable.
    pub previous_crc: Option<u32>,
    /// Held by readers: a file that somebody reads is removed when trimmed, never overwritten.
    pub pin: Arc<()>,
}

/// What the writer publishes to readers.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Ascending by first position; each has at least one group or is the damaged rest of one.
    pub segments: std::collections::VecDeque<Segment>,
    /// End of the last durable group: readers go no further.
    pub last_end: Position,
    /// Position that the next group gets. Above `last_end` where recovery had to skip.
    pub next: Position,
}

impl Live {
    /// First position that can still be read; the next one to be given if there is none.
    pub(crate) fn oldest(&self) -> Position {
        self.segments
            .front()
            .map_or(self.next, |segment| segment.info.first)
    }

    /// The segment that `position` is in, or else the first after it.
    pub(crate) fn holding(&self, position: Position) -> Option<&Segment> {
        let after = self
            .segments
            .partition_point(|segment| segment.info.first <= position);
        self.segments.get(after.saturating_sub(1))
    }

    /// The segment after the one that starts at `first`.
    pub(crate) fn following(&self, first: Position) -> Option<&Segment> {
        self.segments.get(
            self.segments
                .partition_point(|segment| segment.info.first <= first),
        )
    }
}

/// [`Live`] behind its lock. Held for a few instructions only, never over I/O.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Live>);

impl Shared {
    pub(crate) fn new(live: Live) -> Self {
        Self(Mutex::new(live))
    }

    /// A panic elsewhere cannot leave the list half changed: every change is one push or pop.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
