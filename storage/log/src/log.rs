//! The writer: positions, commit groups, one fdatasync each; trimming and reuse of segment files.

mod trim;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quiver_model::{Entropy, Position, Timestamp};

use crate::{
    codec,
    group::{ALIGNMENT, GroupHeader, HEADER_BYTES, aligned},
    identity::{LogId, LogKey},
    options::LogOptions,
    record::Record,
    recover::{self, Active, OpenError, RecoveryFloor, RecoveryReport},
    replay::{LogReader, Replay},
    segment::{Segment, SegmentInfo, Shared, segment_path, spare_path},
    vfs::{self, Vfs},
};

pub use trim::Trimmed;

/// A log, open for appending. One owner; readers are had from [`Log::reader`].
#[derive(Debug)]
pub struct Log {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: LogOptions,
    key: LogKey,
    shared: Arc<Shared>,
    active: Option<Active>,
    /// Numbers of the files that wait to be reused.
    spares: Vec<u64>,
    next_spare: u64,
    /// Trimmed segments whose files could not be removed. They go before any other does: were an
    /// older file found again without the newer ones, the log would seem to have a hole.
    doomed: Vec<PathBuf>,
    /// CRC of the last group.
    chain: u32,
    next: Position,
    last_time: Timestamp,
    epoch: u64,
    /// A file may lie at the next position's name although the old segment has room: it must be
    /// the one that is written, or recovery would take the old one as ended there.
    must_roll: bool,
    /// A group's first sector could not be written, nor zeros over it, because the disk is full:
    /// nothing else is written until they are.
    must_repair: bool,
    poison: Option<Poison>,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Poison {
    action: &'static str,
    path: PathBuf,
    message: String,
}

/// A group that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupCommitted {
    /// Position of its first record.
    pub first: Position,
    /// The position after its last one.
    pub end: Position,
    /// Bytes written for it, header and padding included.
    pub bytes: u64,
}

/// Why a group was not committed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Space ran out or a write failed before any sync. Nothing of the group will ever be
    /// valid, unless there was no room to undo it either ([`Log::is_repair_due`]) and the process ends
    /// before the next append. The log can be appended to again, for instance when space is free.
    /// Whoever has queued successors of the group must fail them too: see [`Log::epoch`].
    #[error("the log refused a group: cannot {action} {path}: {source}", path = .path.display())]
    Refused {
        /// What was being done.
        action: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A sync failed, now or earlier: nobody knows what is on disk. Nothing may be acknowledged
    /// any more; end the process, and let recovery find out.
    #[error(
        "the log is unusable since it failed to {action} {path}: {message}; stop the engine and start it again after looking at the disk",
        path = .path.display()
    )]
    Poisoned {
        /// What was being done.
        action: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// The group is larger than the log takes; nothing was written.
    #[error("a group of up to {bytes} bytes is above the log's limit of {limit}; split it")]
    TooLarge {
        /// Upper bound of its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Positions would run over 64 bits; nothing was written.
    #[error("the log has no positions left")]
    Exhausted,
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl AppendError {
    /// Whether space ran out: a condition that passes.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if is_full(source))
    }

    /// Whether the log can never be appended to again in this process.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }
}

impl Log {
    /// Opens the log in `dir`, creating it if there is none, and recovers: see
    /// [`RecoveryReport`]. `floor` is what the log must not fall behind. The caller holds the
    /// data directory's [`DirLock`](crate::DirLock).
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        entropy: &dyn Entropy,
        floor: RecoveryFloor,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let options = options.clamped();
        let recovered = recover::recover(&*vfs, dir, &options, entropy, floor)?;
        let log = Self {
            dir: dir.to_path_buf(),
            key: recovered.key,
            next: recovered.live.next,
            shared: Arc::new(Shared::new(recovered.live)),
            active: recovered.active,
            next_spare: recovered
                .spares
                .iter()
                .max()
                .map_or(0, |number| number.saturating_add(1)),
            spares: recovered.spares,
            doomed: Vec::new(),
            chain: recovered.chain,
            last_time: recovered.last_time,
            epoch: 0,
            must_roll: false,
            must_repair: false,
            poison: None,
            buffer: Vec::new(),
            options,
            vfs,
        };
        Ok((log, recovered.report))
    }

    /// The log's random id, made with it; names the archive's transactions.
    pub fn id(&self) -> LogId {
        self.key.id
    }

    /// The position after the last committed one: what the next group will get.
    pub fn committed_end(&self) -> Position {
        self.next
    }

    /// The newest record time; record times never decrease. `None` in an empty log.
    pub fn last_time(&self) -> Option<Timestamp> {
        (self.last_time != Timestamp(i64::MIN)).then_some(self.last_time)
    }

    /// Rises with every group that failed. What was queued under an older epoch must be
    /// failed by its owner, not appended: a batch must not become durable before its predecessor.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The oldest position that can be replayed; [`Log::committed_end`] if there is none.
    pub fn oldest_position(&self) -> Position {
        self.shared.lock().oldest()
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared
            .lock()
            .segments
            .iter()
            .map(|segment| segment.info.clone())
            .collect()
    }

    /// Bytes of all segment files, preallocated space included; spares not.
    pub fn bytes(&self) -> u64 {
        self.shared
            .lock()
            .segments
            .iter()
            .map(|segment| segment.info.bytes)
            .sum()
    }

    /// Bytes that may still be written to the log's file system.
    pub fn free_space(&self) -> io::Result<u64> {
        self.vfs
            .free_space(&self.dir)
            .map_err(|error| vfs::at_path("ask for the free space of", &self.dir, error))
    }

    /// A handle that reads committed records from any thread.
    pub fn reader(&self) -> LogReader {
        LogReader {
            vfs: Arc::clone(&self.vfs),
            shared: Arc::clone(&self.shared),
            key: self.key,
        }
    }

    /// Reads from `from` on, or from the oldest position if that is newer, up to what is
    /// committed. A record that reaches over `from` is included whole.
    ///
    /// # Errors
    /// None yet; reading reports its errors record by record.
    pub fn replay(&self, from: Position) -> Result<Replay, crate::ReplayError> {
        Ok(self.reader().read_from_oldest(from, Position(u64::MAX)))
    }

    /// Commits `records` as one group: gives them positions in order, raises their times so that
    /// none is before an earlier record's, writes them and syncs. When it returns `Ok`, they are
    /// durable. An empty slice commits nothing and touches no file.
    pub fn append_group(&mut self, records: &mut [Record]) -> Result<GroupCommitted, AppendError> {
        self.check_poison()?;
        if records.is_empty() {
            return Ok(GroupCommitted {
                first: self.next,
                end: self.next,
                bytes: 0,
            });
        }
        let result = self.append_records(records);
        if result.is_err() {
            self.epoch = self.epoch.saturating_add(1);
        }
        result
    }

    fn append_records(&mut self, records: &mut [Record]) -> Result<GroupCommitted, AppendError> {
        let first = self.next;
        let bound = records.iter().fold(0_usize, |sum, record| {
            sum.saturating_add(codec::encoded_bytes_bound(record))
        });
        let limit = self.options.group_bytes_max;
        let (Ok(count), true) = (u32::try_from(records.len()), bound <= limit) else {
            return Err(AppendError::TooLarge {
                bytes: bound,
                limit,
            });
        };
        let end = records
            .iter()
            .try_fold(first.get(), |end, record| {
                end.checked_add(record.positions())
            })
            .map(Position)
            .ok_or(AppendError::Exhausted)?;

        let mut time = self.last_time;
        for record in records.iter_mut() {
            record.time = record.time.max(time);
            time = record.time;
        }
        self.buffer.clear();
        // Exactly, so that the option bounds the memory too.
        self.buffer.reserve_exact(bound + HEADER_BYTES + ALIGNMENT);
        let header = self.fill_buffer(records, count, first, end, time);
        self.write_group()?;
        let bytes = self.buffer.len() as u64;
        self.published(&header, bytes);
        Ok(GroupCommitted { first, end, bytes })
    }

    /// Encodes the group into the buffer, padded to the boundary.
    fn fill_buffer(
        &mut self,
        records: &[Record],
        count: u32,
        first: Position,
        end: Position,
        last_time: Timestamp,
    ) -> GroupHeader {
        let mut head = [0; HEADER_BYTES];
        self.buffer.extend_from_slice(&head);
        for record in records {
            codec::encode(record, &mut self.buffer);
        }
        let body = &self.buffer[HEADER_BYTES..];
        let mut header = GroupHeader {
            records: count,
            first,
            end,
            last_time,
            // At most BODY_BYTES_LIMIT, checked by the caller.
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(body),
            previous_crc: self.chain,
            crc: 0,
        };
        header.write(&self.key, &mut head);
        self.buffer[..HEADER_BYTES].copy_from_slice(&head);
        self.buffer.resize(header.stride() as usize, 0);
        header
    }

    /// Writes the buffer behind the last group and syncs it.
    ///
    /// The first sector, with the header, goes last: unless it is written, nothing of the group
    /// can be valid, so a failure before that needs no repair. A failure while writing it is
    /// repaired by zeros that are synced before anything else is appended; where the disk has no
    /// room for these either, which passes, they are tried again by the next append.
    fn write_group(&mut self) -> Result<(), AppendError> {
        if self.must_repair {
            self.repair()?;
        }
        self.make_room(self.buffer.len() as u64)?;
        let Some(active) = &self.active else {
            return Err(AppendError::Refused {
                action: "find the segment in",
                path: self.dir.clone(),
                source: io::Error::from(io::ErrorKind::NotFound),
            });
        };
        let path = active.path.clone();
        let (first_sector, rest) = self.buffer.split_at(ALIGNMENT);
        let refused = |path, source| AppendError::Refused {
            action: "write to",
            path,
            source,
        };
        if !rest.is_empty()
            && let Err(error) = active.file.write_at(rest, active.offset + ALIGNMENT as u64)
        {
            return Err(refused(path, error));
        }
        if let Err(error) = active.file.write_at(first_sector, active.offset) {
            self.must_repair = true;
            return Err(match self.repair() {
                Err(poisoned @ AppendError::Poisoned { .. }) => poisoned,
                Ok(()) | Err(_) => refused(path, error),
            });
        }
        if let Err(error) = active.file.sync_data() {
            return Err(self.poisoned("sync", path, &error));
        }
        Ok(())
    }

    /// Whether a group that was refused could not be undone yet, for want of space: until the next
    /// append has done so, it may be there when the log is opened again. Its sequences tell, then.
    pub const fn is_repair_due(&self) -> bool {
        self.must_repair
    }

    /// Writes zeros where a group's first sector may be in part.
    fn repair(&mut self) -> Result<(), AppendError> {
        if let Some(active) = &self.active {
            let path = active.path.clone();
            if let Err(source) = active.file.write_at(&[0; ALIGNMENT], active.offset) {
                if !is_full(&source) {
                    return Err(self.poisoned("undo a failed write to", path, &source));
                }
                return Err(AppendError::Refused {
                    action: "undo a failed write to",
                    path,
                    source,
                });
            }
            if let Err(error) = active.file.sync_data() {
                return Err(self.poisoned("undo a failed write to", path, &error));
            }
        }
        self.must_repair = false;
        Ok(())
    }

    /// Takes note of the group that is durable now, and lets readers see it.
    fn published(&mut self, header: &GroupHeader, bytes: u64) {
        let previous_crc = self.chain;
        self.chain = header.crc;
        self.next = header.end;
        self.last_time = header.last_time;
        let Some(active) = &mut self.active else {
            return;
        };
        let opened = active.offset == 0;
        active.offset += bytes;
        let mut live = self.shared.lock();
        if opened {
            live.segments.push_back(Segment {
                info: SegmentInfo {
                    first: active.first,
                    path: active.path.clone(),
                    bytes: active.capacity,
                    last_time: header.last_time,
                },
                previous_crc: Some(previous_crc),
                pin: Arc::new(()),
            });
        } else if let Some(segment) = live.segments.back_mut() {
            segment.info.last_time = header.last_time;
        }
        live.last_end = header.end;
        live.next = header.end;
    }

    /// Makes the active segment one that has room for `bytes` more.
    fn make_room(&mut self, bytes: u64) -> Result<(), AppendError> {
        let bytes = aligned(bytes);
        if !self.must_roll
            && let Some(active) = &mut self.active
        {
            if active
                .offset
                .checked_add(bytes)
                .is_some_and(|end| end <= active.capacity)
            {
                return Ok(());
            }
            // Still without a group, so its name is right: it only has to grow.
            if active.offset == 0 {
                active
                    .file
                    .preallocate(bytes)
                    .map_err(|source| AppendError::Refused {
                        action: "reserve space for",
                        path: active.path.clone(),
                        source,
                    })?;
                active.capacity = bytes;
                return Ok(());
            }
        }
        self.roll(bytes)
    }

    /// Starts a new segment at the next position, in a reused file if there is one.
    ///
    /// The file gets its name only when its space is reserved: a name without room behind it
    /// would be in the way of the groups that still fit into the old segment.
    fn roll(&mut self, bytes: u64) -> Result<(), AppendError> {
        let first = self.next;
        let path = segment_path(&self.dir, first);
        let capacity = self.options.segment_bytes.max(bytes);
        let spare = self.spares.pop();
        let prepared = spare.map_or_else(
            || {
                self.dir
                    .join(format!("new-segment{}", vfs::TEMPORARY_SUFFIX))
            },
            |number| spare_path(&self.dir, number),
        );
        let refused = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| AppendError::Refused {
                action,
                path,
                source,
            }
        };
        let opened = if spare.is_some() {
            self.vfs.open(&prepared).map_err(refused("open", &prepared))
        } else {
            self.vfs
                .create(&prepared)
                .map_err(refused("create", &prepared))
        };
        let file = opened.and_then(|file| {
            file.preallocate(capacity)
                .map_err(refused("reserve space for", &prepared))?;
            Ok(file)
        });
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                // A spare that cannot be used only takes space; recovery forgets a leftover.
                let _ = self.vfs.unlink(&prepared);
                return Err(error);
            }
        };
        if let Err(error) = self.vfs.rename(&prepared, &path) {
            // Nobody knows whether the name is there now.
            self.must_roll = true;
            return Err(refused("rename to", &path)(error));
        }
        if let Err(error) = self.vfs.sync_dir(&self.dir) {
            return Err(self.poisoned("sync directory", self.dir.clone(), &error));
        }
        self.must_roll = false;
        self.active = Some(Active {
            first,
            path,
            file,
            offset: 0,
            capacity,
        });
        Ok(())
    }

    fn check_poison(&self) -> Result<(), AppendError> {
        match &self.poison {
            None => Ok(()),
            Some(Poison {
                action,
                path,
                message,
            }) => Err(AppendError::Poisoned {
                action,
                path: path.clone(),
                message: message.clone(),
            }),
        }
    }

    fn poisoned(&mut self, action: &'static str, path: PathBuf, error: &io::Error) -> AppendError {
        let message = error.to_string();
        self.poison = Some(Poison {
            action,
            path: path.clone(),
            message: message.clone(),
        });
        AppendError::Poisoned {
            action,
            path,
            message,
        }
    }
}
