//! Reading committed records: at start-up from the checkpoint on, and by consumers that follow
//! the log behind their cursors while it grows.
//!
//! ```text
//! writer ──commits──▶ shared list of segments, end ◀──looks up── Replay ──one group at a time──▶ records
//! ```
//!
//! A replay holds one group in memory. It opens files of its own, and pins the segment it is in:
//! trimming then removes that file instead of reusing it, so a reader never sees bytes change.

use std::{io, path::PathBuf, sync::Arc};

use bytes::{Buf, Bytes};
use quiver_model::Position;

use crate::{
    codec::{self, RecordError},
    damage::DamagedRange,
    identity::{LogId, LogKey},
    record::CommittedRecord,
    segment::{Segment, Shared},
    vfs::{Vfs, VfsFile},
    walk::{Next, SegmentWalk, Step, WalkError},
};

/// Why the next record cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A segment cannot be read. The replay ends here.
    #[error("cannot read log segment {path}: {source}", path = .path.display())]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A stretch of the log is damaged; the replay goes on behind it.
    #[error("{0}")]
    Damaged(Box<DamagedRange>),
    /// What was asked for has been trimmed away. The replay ends here; start again at `oldest` and
    /// count the gap.
    #[error("position {from} has been trimmed from the log; the oldest one left is {oldest}")]
    Trimmed {
        /// The position that was to be read next.
        from: Position,
        /// The oldest position that can be read.
        oldest: Position,
    },
    /// A newer engine wrote this group. The replay ends here.
    #[error(
        "log segment {path} has a commit group of format version {version}, this engine reads version 1; start a newer engine on this data",
        path = .path.display()
    )]
    NewerFormat {
        /// The segment's file.
        path: PathBuf,
        /// The group's version.
        version: u8,
    },
    /// A sound group has a record that cannot be decoded. The replay ends here.
    #[error("the record at position {position} in log segment {path}: {source}", path = .path.display())]
    Record {
        /// The segment's file.
        path: PathBuf,
        /// Where the record is.
        position: Position,
        /// What is wrong with it.
        source: RecordError,
    },
}

/// A handle for reading the log from any thread while the writer goes on.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: LogKey,
}

impl LogReader {
    /// The log's id.
    pub fn id(&self) -> LogId {
        self.key.id
    }

    /// The position after the last committed one.
    pub fn committed_end(&self) -> Position {
        self.shared.lock().next
    }

    /// The oldest position that can be read; [`LogReader::committed_end`] if there is none.
    pub fn oldest_position(&self) -> Position {
        self.shared.lock().oldest()
    }

    /// Reads committed records from `from` up to `to` (exclusive), or to what is committed by
    /// then. A record that reaches over `from` is included whole.
    ///
    /// # Errors
    /// [`ReplayError::Trimmed`] if `from` is older than the oldest position. Position 0 means "the
    /// oldest there is" and is never refused.
    pub fn read(&self, from: Position, to: Position) -> Result<Replay, ReplayError> {
        let oldest = self.oldest_position();
        if from < oldest && from != Position(0) {
            return Err(ReplayError::Trimmed { from, oldest });
        }
        Ok(self.read_from_oldest(from, to))
    }

    /// [`LogReader::read`], starting at the oldest position if `from` is older.
    pub(crate) fn read_from_oldest(&self, from: Position, to: Position) -> Replay {
        let from = from.max(self.oldest_position());
        Replay {
            reader: self.clone(),
            at: from,
            to,
            current: None,
            group: None,
            failed: false,
        }
    }
}

/// Iterator over committed records. After the last one it returns `None`; once more has been
/// committed it goes on, up to the end it was given ([`Replay::extend_to`] moves that).
#[derive(Debug)]
pub struct Replay {
    reader: LogReader,
    /// Everything before this has been returned.
    at: Position,
    to: Position,
    current: Option<Current>,
    group: Option<Group>,
    failed: bool,
}

/// The segment being read.
#[derive(Debug)]
struct Current {
    walk: SegmentWalk<Box<dyn VfsFile>>,
    path: PathBuf,
    /// Keeps the file from being overwritten.
    _pin: Arc<()>,
}

/// The group being handed out.
#[derive(Debug)]
struct Group {
    body: Bytes,
    position: Position,
    records_left: u32,
    end: Position,
}

impl Replay {
    /// Position that the next record has at least: everything before it has been returned.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Moves the end. A replay that has returned `None` goes on if there is more.
    pub fn extend_to(&mut self, to: Position) {
        self.to = to;
    }

    fn fail(&mut self, error: ReplayError) -> Option<Result<CommittedRecord, ReplayError>> {
        self.failed = true;
        self.group = None;
        self.current = None;
        Some(Err(error))
    }

    /// The next record of the group at hand.
    fn next_of_group(&mut self) -> Option<Result<CommittedRecord, ReplayError>> {
        let group = self.group.as_mut()?;
        if group.records_left == 0 {
            let whole = group.body.is_empty() && group.position == group.end;
            let position = group.position;
            self.group = None;
            return if whole {
                None
            } else {
                self.record_error(position, RecordError::Inconsistent)
            };
        }
        let position = group.position;
        match codec::decode(&group.body) {
            Ok((record, taken)) => {
                group.body.advance(taken);
                group.records_left -= 1;
                let committed = CommittedRecord { position, record };
                group.position = committed.end();
                self.at = self.at.max(committed.end());
                Some(Ok(committed))
            }
            Err(error) => self.record_error(position, error),
        }
    }

    fn record_error(
        &mut self,
        position: Position,
        source: RecordError,
    ) -> Option<Result<CommittedRecord, ReplayError>> {
        let path = self
            .current
            .as_ref()
            .map(|current| current.path.clone())
            .unwrap_or_default();
        self.fail(ReplayError::Record {
            path,
            position,
            source,
        })
    }

    /// Opens the segment that holds the next position.
    fn open(&mut self, segment: Segment) -> Result<(), ReplayError> {
        let path = segment.info.path;
        match self.reader.vfs.open(&path) {
            Ok(file) => {
                let walk = SegmentWalk::new(file, self.reader.key, segment.info.first);
                self.current = Some(Current {
                    walk,
                    path,
                    _pin: segment.pin,
                });
                Ok(())
            }
            // Trimmed between the look into the list and the opening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let oldest = self.reader.oldest_position();
                if self.at < oldest {
                    Err(ReplayError::Trimmed {
                        from: self.at,
                        oldest,
                    })
                } else {
                    Err(ReplayError::Io {
                        path,
                        source: error,
                    })
                }
            }
            Err(source) => Err(ReplayError::Io { path, source }),
        }
    }

    /// Takes one step; `Ok(false)` at the end.
    fn advance(&mut self) -> Result<bool, ReplayError> {
        let live = self.reader.shared.lock();
        let end = self.to.min(live.last_end);
        if self.at >= end {
            return Ok(false);
        }
        if self.at < live.oldest() {
            return Err(ReplayError::Trimmed {
                from: self.at,
                oldest: live.oldest(),
            });
        }
        let Some(current) = &mut self.current else {
            let segment = live.holding(self.at).cloned();
            drop(live);
            return match segment {
                Some(segment) => self.open(segment).map(|()| true),
                None => Ok(false),
            };
        };
        if current.walk.expected() >= end {
            return Ok(false);
        }
        let following = live.following(current.walk.first()).cloned();
        drop(live);
        current.walk.next = following.as_ref().map(|segment| Next {
            first: segment.info.first,
            previous_crc: segment.previous_crc,
        });
        let offset = current.walk.offset();
        let lost_from = current.walk.expected();
        match current.walk.step(self.at) {
            Ok(Step::Group { header, body, .. }) => {
                // A record that reaches over the start is wanted, those before it are not.
                self.group = Some(Group {
                    body,
                    position: header.first,
                    records_left: header.records,
                    end: header.end,
                });
                Ok(true)
            }
            Ok(Step::Skipped) => Ok(true),
            Ok(Step::Damaged(damage)) => {
                if damage.positions.end <= self.at {
                    return Ok(true);
                }
                self.at = damage.positions.end;
                Err(ReplayError::Damaged(Box::new(DamagedRange {
                    segment: current.path.clone(),
                    offset: damage.offset,
                    bytes: damage.bytes,
                    positions: damage.positions,
                    records: damage.records,
                    complete: damage.complete,
                })))
            }
            Ok(Step::End) => match following {
                Some(segment) => self.open(segment).map(|()| true),
                None => Ok(false),
            },
            // It was committed, and is gone: bytes changed under a running log.
            Ok(Step::Tail { bytes }) => {
                let lost_to = end.max(lost_from);
                self.at = lost_to;
                let segment = current.path.clone();
                // Start over behind it when more is committed.
                self.current = None;
                Err(ReplayError::Damaged(Box::new(DamagedRange {
                    segment,
                    offset,
                    bytes,
                    positions: lost_from..lost_to,
                    records: Vec::new(),
                    complete: false,
                })))
            }
            Err(WalkError::Io(source)) => Err(ReplayError::Io {
                path: current.path.clone(),
                source,
            }),
            Err(WalkError::Newer { version }) => Err(ReplayError::NewerFormat {
                path: current.path.clone(),
                version,
            }),
        }
    }
}

impl Iterator for Replay {
    type Item = Result<CommittedRecord, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        while !self.failed {
            // The rest of a group at the end waits for the end to move.
            if self
                .group
                .as_ref()
                .is_some_and(|group| group.records_left > 0 && group.position >= self.to)
            {
                return None;
            }
            match self.next_of_group() {
                // Records before the start, in a group that reaches over it.
                Some(Ok(record)) if record.end() <= start => continue,
                Some(result) => return Some(result),
                None if self.failed => return None,
                None => {}
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error @ ReplayError::Damaged(_)) => return Some(Err(error)),
                Err(error) => return self.fail(error),
            }
        }
        None
    }
}
