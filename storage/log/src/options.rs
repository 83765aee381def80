//! What can be chosen about a log.

use std::time::Duration;

use quiver_model::Position;

use crate::group::{ALIGNMENT, BODY_BYTES_LIMIT};

/// Choices for a log. Memory that a log holds: one buffer of the largest group so far (at most
/// [`group_bytes_max`](Self::group_bytes_max)), and about 150 bytes per segment; each replay holds
/// the one group that it is reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a segment file in bytes, preallocated; rounded up to 512, at least 4 KiB.
    ///
    /// Default 64 MiB: large enough that creating one is rare, small enough that trimming follows
    /// the flushes closely. A group that does not fit gets a segment of its own size.
    pub segment_bytes: u64,
    /// Most bytes that the records of one commit group may take encoded; at most 256 MiB.
    ///
    /// Default 16 MiB: beyond 1 MiB a larger group no longer makes the disk faster, and this is
    /// the memory that appending and each replay need at worst.
    pub group_bytes_max: usize,
    /// Size in bytes down to which trimming leaves segments that nothing needs any more, as a
    /// replayable queue; spares not counted.
    ///
    /// Default 1 GiB. 0 keeps nothing beyond the floor.
    pub retention_bytes: u64,
    /// Age (of the newest record in a segment against the newest in the log, by record time)
    /// after which trimming takes a segment even if `retention_bytes` would keep it.
    ///
    /// Default one day.
    pub retention_time: Duration,
    /// How many trimmed segment files are kept for reuse. Writing into allocated blocks makes a
    /// commit 1.6 to 2 times faster than writing into new ones.
    ///
    /// Default 2: the next segment is ready even if two trims come late.
    pub spare_segments_max: usize,
    /// Opening reads and checks every group from the segment of this position on; of older
    /// segments it reads the first header only (replay checks them when they are read).
    ///
    /// Default 0: check all. An engine passes the position it replays from.
    pub verify_from: Position,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            group_bytes_max: 16 << 20,
            retention_bytes: 1 << 30,
            retention_time: Duration::from_secs(24 * 60 * 60),
            spare_segments_max: 2,
            verify_from: Position(0),
        }
    }
}

/// Smallest segment.
const SEGMENT_BYTES_MIN: u64 = 4096;

impl LogOptions {
    /// The options with every value inside its bounds.
    pub(crate) fn clamped(mut self) -> Self {
        let largest = (i64::MAX as u64) / 2;
        self.segment_bytes = self
            .segment_bytes
            .clamp(SEGMENT_BYTES_MIN, largest)
            .next_multiple_of(ALIGNMENT as u64);
        self.group_bytes_max = self.group_bytes_max.clamp(1, BODY_BYTES_LIMIT);
        self
    }
}
