//! Trimming: whole segments that nothing needs leave the log, and their files are reused.

use std::{io, sync::Arc, time::Duration};

use quiver_model::Position;

use super::Log;
use crate::{
    segment::{SegmentInfo, spare_path},
    vfs,
};

/// What a trim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Segments that are no longer part of the log.
    pub segments: u64,
    /// Their files' bytes.
    pub bytes: u64,
    /// How many of the files are kept for reuse.
    pub recycled: u64,
    /// The oldest position now.
    pub oldest: Position,
}

impl Log {
    /// Lets go of the oldest segments: those wholly below `floor` (the first position that is
    /// still needed) that retention does not keep. The newest segment always stays. A file that
    /// somebody reads, or of unusual size, is removed; others are kept for reuse.
    ///
    /// # Errors
    /// The file system's. A segment whose file cannot be removed is off the list all the same; the
    /// next trim tries again, and the next opening would find it.
    pub fn trim(&mut self, floor: Position) -> io::Result<Trimmed> {
        if let Some(poison) = &self.poison {
            return Err(io::Error::other(format!(
                "the log is unusable since it failed to {} {}",
                poison.action,
                poison.path.display()
            )));
        }
        let mut trimmed = Trimmed::default();
        let result = self.trim_segments(floor, &mut trimmed);
        trimmed.oldest = self.oldest_position();
        result?;
        if trimmed.segments > 0 {
            self.vfs
                .sync_dir(&self.dir)
                .map_err(|error| vfs::at_path("sync directory", &self.dir, error))?;
        }
        Ok(trimmed)
    }

    /// How long segments are kept that nothing needs, from the next trim on; the bytes that they may
    /// take stay as they were.
    pub fn set_retention_time(&mut self, time: Duration) {
        self.options.retention_time = time;
    }

    fn remove_doomed(&mut self) -> io::Result<()> {
        while let Some(path) = self.doomed.last() {
            match self.vfs.unlink(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(vfs::at_path("remove log segment", path, error)),
            }
            self.doomed.pop();
        }
        Ok(())
    }

    fn trim_segments(&mut self, floor: Position, trimmed: &mut Trimmed) -> io::Result<()> {
        self.remove_doomed()?;
        while let Some((segment, unread)) = self.take_oldest(floor) {
            trimmed.segments += 1;
            trimmed.bytes += segment.bytes;
            let path = &segment.path;
            let reusable = unread
                && self.spares.len() < self.options.spare_segments_max
                && segment.bytes <= self.options.segment_bytes;
            if reusable {
                let number = self.next_spare;
                self.next_spare = number.saturating_add(1);
                if let Err(error) = self.vfs.rename(path, &spare_path(&self.dir, number)) {
                    self.doomed.push(path.clone());
                    return Err(vfs::at_path("set aside log segment", path, error));
                }
                self.spares.push(number);
                trimmed.recycled += 1;
            } else {
                self.doomed.push(path.clone());
                self.remove_doomed()?;
            }
        }
        Ok(())
    }

    /// Takes the oldest segment off the list if nothing keeps it; and whether nobody reads it.
    fn take_oldest(&self, floor: Position) -> Option<(SegmentInfo, bool)> {
        let mut live = self.shared.lock();
        let oldest = live.segments.front()?;
        let second = live.segments.get(1)?;
        if second.info.first > floor {
            return None;
        }
        let bytes: u64 = live.segments.iter().map(|segment| segment.info.bytes).sum();
        let aged = self.last_time.since(oldest.info.last_time) > self.options.retention_time;
        if bytes <= self.options.retention_bytes && !aged {
            return None;
        }
        let segment = live.segments.pop_front()?;
        // Readers pin under this same lock, so nobody can begin to read it any more.
        let unread = Arc::strong_count(&segment.pin) == 1;
        Some((segment.info, unread))
    }
}
