//! Opening a log: finding its end, and making sure that the end is on disk.
//!
//! 1. Read `log-id`, or restore it from the segments; make a new one where there is no log.
//! 2. Drop what means nothing: temporary files, surplus spares, segments at the end without any
//!    group (created just before a crash).
//! 3. Walk all groups ([`walk`](crate::walk)): report damage, cut the tail.
//! 4. The last valid group is the only one that may never have been synced, and its pages may be
//!    marked clean although they are not on disk. So copy it into a fresh file, sync that, and
//!    rename it to the segment that starts at this group; the older copy behind it counts no more.
//!
//! Every step may be interrupted and done again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quiver_model::{Entropy, Position, Timestamp};

use crate::{
    damage::DamagedRange,
    group::{GroupHeader, HEADER_BYTES, NotAHeader},
    identity::{LogId, LogKey},
    options::LogOptions,
    segment::{
        Live, Segment, SegmentInfo, parse_segment_name, parse_spare_name, segment_path, spare_path,
    },
    vfs::{self, TEMPORARY_SUFFIX, Vfs, VfsFile, read_up_to},
    walk::{Next, SegmentWalk, Step, WalkError},
};

/// What the log must not fall behind, whatever it finds of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryFloor {
    /// The highest position that anything else has durably seen: the checkpoint's, and every
    /// table's last transaction. The first position given after opening is above it.
    pub at_least: Position,
}

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The log's id.
    pub id: LogId,
    /// There was no log; a new one was made.
    pub created: bool,
    /// `log-id` was missing or damaged and was restored from the segments.
    pub id_restored: bool,
    /// Oldest position that can be replayed; equals `next` in an empty log.
    pub oldest: Position,
    /// End (exclusive) of the last valid group; 0 in an empty log.
    pub log_end: Position,
    /// First position that will be given now.
    pub next: Position,
    /// Groups that were read and checked.
    pub groups: u64,
    /// Stretches that are damaged, oldest first. They are left in place; replay reports them too.
    pub damaged: Vec<DamagedRange>,
    /// Bytes of the unfinished group that was cut off the end, as far as its header tells.
    pub cut_bytes: u64,
    /// Files that were removed because they held nothing valid.
    pub removed_files: u64,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A call to the file system failed.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A newer engine wrote to this log.
    #[error(
        "log segment {path} has format version {version}, this engine reads version 1; start a newer engine on this data",
        path = .path.display()
    )]
    NewerFormat {
        /// The segment's file.
        path: PathBuf,
        /// The version found.
        version: u8,
    },
    /// A segment of another log lies in this directory.
    #[error(
        "log segment {path} belongs to another log; move it away, it was probably copied here by mistake",
        path = .path.display()
    )]
    ForeignSegment {
        /// The segment's file.
        path: PathBuf,
    },
    /// `log-id` is missing or damaged, and no segment is readable to restore it from.
    #[error(
        "file log-id in {dir} is missing or damaged and none of the {segments} segments tells the log's id; restore the directory from a backup, or move it away to begin an empty log",
        dir = .dir.display()
    )]
    IdLost {
        /// The log's directory.
        dir: PathBuf,
        /// Number of segment files in it.
        segments: usize,
    },
}

/// What the log goes on from.
pub(crate) struct Recovered {
    pub key: LogKey,
    pub live: Live,
    pub active: Option<Active>,
    pub spares: Vec<u64>,
    pub chain: u32,
    pub last_time: Timestamp,
    pub report: RecoveryReport,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub first: Position,
    pub path: PathBuf,
    pub file: Box<dyn VfsFile>,
    /// Where the next group goes.
    pub offset: u64,
    /// Preallocated bytes.
    pub capacity: u64,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

fn walk_failed(path: &Path) -> impl FnOnce(WalkError) -> OpenError {
    let path = path.to_path_buf();
    move |error| match error {
        WalkError::Io(source) => OpenError::Io {
            action: "read log segment",
            path,
            source,
        },
        WalkError::Newer { version } => OpenError::NewerFormat { path, version },
    }
}

/// The last valid group, wherever it is.
struct LastGroup {
    segment: usize,
    offset: u64,
    header: GroupHeader,
}

/// Opens the log in `dir`.
pub(crate) fn recover(
    vfs: &dyn Vfs,
    dir: &Path,
    options: &LogOptions,
    entropy: &dyn Entropy,
    floor: RecoveryFloor,
) -> Result<Recovered, OpenError> {
    vfs::make_dir_durable(vfs, dir).map_err(failed("prepare log directory", dir))?;
    let names = vfs.list(dir).map_err(failed("list log directory", dir))?;
    let mut segments: Vec<Position> = names
        .iter()
        .filter_map(|name| parse_segment_name(name))
        .collect();
    segments.sort_unstable();

    let mut removed_files = 0;
    let mut remove = |path: PathBuf| {
        removed_files += 1;
        vfs.unlink(&path).map_err(failed("remove", &path))
    };
    let mut spares = Vec::new();
    for name in &names {
        if name.ends_with(TEMPORARY_SUFFIX) {
            remove(dir.join(name))?;
        } else if let Some(number) = parse_spare_name(name) {
            if spares.len() < options.spare_segments_max {
                spares.push(number);
            } else {
                remove(dir.join(name))?;
            }
        }
    }

    let loaded = LogKey::load(vfs, dir).map_err(failed("read id of the log in", dir))?;
    let (key, created, id_restored) = match loaded {
        Some(key) => (key, false, false),
        None if segments.is_empty() => {
            let key = LogKey::random(entropy);
            key.save(vfs, dir)
                .map_err(failed("write id of the log in", dir))?;
            (key, true, false)
        }
        None => {
            let key = restore_key(vfs, dir, &segments)?;
            key.save(vfs, dir)
                .map_err(failed("write id of the log in", dir))?;
            (key, false, true)
        }
    };

    for first in trailing_without_groups(vfs, dir, &key, &mut segments)? {
        remove(segment_path(dir, first))?;
    }
    let Walked {
        mut live,
        last,
        groups,
        damaged,
        cut_bytes,
    } = match walk_all(vfs, dir, &key, &segments, options.verify_from)? {
        // The last valid group is before the part that was to be checked.
        walked if walked.last.is_none() && options.verify_from > Position(0) => {
            walk_all(vfs, dir, &key, &segments, Position(0))?
        }
        walked => walked,
    };

    // Behind the last valid group there is nothing: at most one group that was being written.
    let keep = last.as_ref().map_or(0, |last| last.segment + 1);
    while live.segments.len() > keep {
        if let Some(segment) = live.segments.pop_back() {
            remove(segment.info.path)?;
        }
    }
    let log_end = last.as_ref().map_or(Position(0), |last| last.header.end);
    let chain = last.as_ref().map_or(0, |last| last.header.crc);
    let last_time = last
        .as_ref()
        .map_or(Timestamp(i64::MIN), |last| last.header.last_time);
    let active = match last {
        Some(last) => Some(move_last_group(
            vfs,
            dir,
            &key,
            options,
            &mut live,
            &mut spares,
            &last,
        )?),
        None => {
            vfs.sync_dir(dir).map_err(failed("sync directory", dir))?;
            None
        }
    };
    live.last_end = log_end;
    // Damaged positions were given once, even if nothing valid follows them any more.
    let damaged_end = damaged
        .iter()
        .map(|range| range.positions.end.get())
        .max()
        .unwrap_or(0);
    let above_floor = floor.at_least.get().saturating_add(1);
    live.next = Position(log_end.get().max(damaged_end).max(above_floor).max(1));
    let report = RecoveryReport {
        id: key.id,
        created,
        id_restored,
        oldest: live.oldest(),
        log_end,
        next: live.next,
        groups,
        damaged,
        cut_bytes,
        removed_files,
    };
    Ok(Recovered {
        key,
        live,
        active,
        spares,
        chain,
        last_time,
        report,
    })
}

fn open_segment(vfs: &dyn Vfs, path: &Path) -> Result<Box<dyn VfsFile>, OpenError> {
    vfs.open(path).map_err(failed("open log segment", path))
}

/// The id and seal that the segments' first groups agree on.
fn restore_key(vfs: &dyn Vfs, dir: &Path, segments: &[Position]) -> Result<LogKey, OpenError> {
    let mut key = None;
    for first in segments {
        let path = segment_path(dir, *first);
        let file = open_segment(vfs, &path)?;
        let mut bytes = [0; HEADER_BYTES];
        let read = read_up_to(|buffer, offset| file.read_at(buffer, offset), &mut bytes, 0)
            .map_err(failed("read log segment", &path))?;
        if let Ok((Ok(header), found)) = GroupHeader::read_any(&bytes[..read])
            && header.first == *first
        {
            if key.is_some_and(|key| key != found) {
                return Err(OpenError::ForeignSegment { path });
            }
            key = Some(found);
        }
    }
    key.ok_or_else(|| OpenError::IdLost {
        dir: dir.to_path_buf(),
        segments: segments.len(),
    })
}

/// Takes the segments at the end that hold no header of their own off the list.
fn trailing_without_groups(
    vfs: &dyn Vfs,
    dir: &Path,
    key: &LogKey,
    segments: &mut Vec<Position>,
) -> Result<Vec<Position>, OpenError> {
    let mut empty = Vec::new();
    while let Some(first) = segments.last().copied() {
        let path = segment_path(dir, first);
        let walk = SegmentWalk::new(open_segment(vfs, &path)?, *key, first);
        if walk.has_any_header().map_err(walk_failed(&path))? {
            break;
        }
        if walk.first_header().map_err(walk_failed(&path))? == Err(NotAHeader::Foreign) {
            return Err(OpenError::ForeignSegment { path });
        }
        segments.pop();
        empty.push(first);
    }
    Ok(empty)
}

struct Walked {
    live: Live,
    last: Option<LastGroup>,
    groups: u64,
    damaged: Vec<DamagedRange>,
    cut_bytes: u64,
}

fn walk_all(
    vfs: &dyn Vfs,
    dir: &Path,
    key: &LogKey,
    segments: &[Position],
    verify_from: Position,
) -> Result<Walked, OpenError> {
    let mut walked = Walked {
        live: Live::default(),
        last: None,
        groups: 0,
        damaged: Vec::new(),
        cut_bytes: 0,
    };
    let mut next: Option<(Next, Option<Timestamp>)> = None;
    // From the end, so that what the next segment says of its predecessor is known.
    let mut walks = Vec::with_capacity(segments.len());
    for first in segments.iter().rev() {
        let path = segment_path(dir, *first);
        let file = open_segment(vfs, &path)?;
        let bytes = file
            .size()
            .map_err(failed("read size of log segment", &path))?;
        let mut walk = SegmentWalk::new(file, *key, *first);
        let header = match walk.first_header().map_err(walk_failed(&path))? {
            Ok(header) => Some(header),
            Err(NotAHeader::Foreign) => return Err(OpenError::ForeignSegment { path }),
            Err(_) => None,
        };
        walk.next = next.map(|(next, _)| next);
        let previous_crc = header.map(|header| header.previous_crc);
        // Segments that are not walked: no record in them is newer than the next one's first group.
        let newest = next.and_then(|(_, time)| time);
        let known_time = newest
            .or(header.map(|header| header.last_time))
            .unwrap_or_default();
        next = Some((
            Next {
                first: *first,
                previous_crc,
            },
            header.map(|header| header.last_time).or(newest),
        ));
        let info = SegmentInfo {
            first: *first,
            path,
            bytes,
            last_time: known_time,
        };
        walks.push((
            walk,
            Segment {
                info,
                previous_crc,
                pin: Arc::new(()),
            },
        ));
    }
    for (index, (mut walk, mut segment)) in walks.into_iter().rev().enumerate() {
        let verify = walk.next.is_none_or(|next| next.first > verify_from);
        if verify {
            let last_time = walk_one(&mut walk, &segment.info, index, &mut walked)?;
            segment.info.last_time = last_time.unwrap_or(segment.info.last_time);
        }
        walked.live.segments.push_back(segment);
    }
    Ok(walked)
}

/// Walks one segment to its end; the time of its last valid group.
fn walk_one(
    walk: &mut SegmentWalk<Box<dyn VfsFile>>,
    info: &SegmentInfo,
    index: usize,
    walked: &mut Walked,
) -> Result<Option<Timestamp>, OpenError> {
    let mut last_time = None;
    loop {
        match walk.step(Position(0)).map_err(walk_failed(&info.path))? {
            Step::Group {
                header,
                offset,
                body: _,
            } => {
                walked.groups += 1;
                last_time = Some(header.last_time);
                walked.last = Some(LastGroup {
                    segment: index,
                    offset,
                    header,
                });
            }
            Step::Skipped => {}
            Step::Damaged(damage) => walked.damaged.push(DamagedRange {
                segment: info.path.clone(),
                offset: damage.offset,
                bytes: damage.bytes,
                positions: damage.positions,
                records: damage.records,
                complete: damage.complete,
            }),
            Step::Tail { bytes } => {
                walked.cut_bytes += bytes;
                return Ok(last_time);
            }
            Step::End => return Ok(last_time),
        }
    }
}

/// Copies the last valid group into a fresh file, durably, and makes that the segment to append to.
fn move_last_group(
    vfs: &dyn Vfs,
    dir: &Path,
    key: &LogKey,
    options: &LogOptions,
    live: &mut Live,
    spares: &mut Vec<u64>,
    last: &LastGroup,
) -> Result<Active, OpenError> {
    let first = last.header.first;
    let path = segment_path(dir, first);
    let Some(old) = live.segments.back().map(|segment| segment.info.clone()) else {
        return Err(OpenError::Io {
            action: "find log segment",
            path,
            source: io::Error::from(io::ErrorKind::NotFound),
        });
    };
    let old_file = open_segment(vfs, &old.path)?;
    let stride = last.header.stride();
    // Padding is zeros again: only what the checksums cover is copied.
    let mut group = vec![
        0;
        usize::try_from(stride)
            .map_err(io::Error::other)
            .map_err(failed("read", &old.path))?
    ];
    let covered = HEADER_BYTES + last.header.body_bytes as usize;
    let read = read_up_to(
        |buffer, offset| old_file.read_at(buffer, offset),
        &mut group[..covered],
        last.offset,
    )
    .map_err(failed("read log segment", &old.path))?;
    let sound = read == covered
        && GroupHeader::read(&group, key) == Ok(last.header)
        && crc32c::crc32c(&group[HEADER_BYTES..covered]) == last.header.body_crc;
    if !sound {
        return Err(OpenError::Io {
            action: "read the last group again from",
            path: old.path,
            source: io::Error::new(io::ErrorKind::InvalidData, "its bytes changed meanwhile"),
        });
    }

    let mut temporary = path.clone().into_os_string();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    let mut capacity = options.segment_bytes.max(stride);
    let file = vfs
        .create(&temporary)
        .map_err(failed("create", &temporary))?;
    if let Err(error) = file.preallocate(capacity) {
        if error.kind() != io::ErrorKind::StorageFull {
            return Err(failed("reserve space for", &temporary)(error));
        }
        // A full disk must not keep an engine from starting, which is what frees space: give back
        // what holds nothing, and take no more than the group needs.
        while let Some(number) = spares.pop() {
            let spare = spare_path(dir, number);
            vfs.unlink(&spare).map_err(failed("remove", &spare))?;
        }
        old_file
            .set_len(last.offset + stride)
            .map_err(failed("cut", &old.path))?;
        capacity = stride;
        file.preallocate(capacity)
            .map_err(failed("reserve space for", &temporary))?;
    }
    file.write_at(&group, 0)
        .map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("sync", &temporary))?;
    vfs.rename(&temporary, &path)
        .map_err(failed("rename to", &path))?;
    vfs.sync_dir(dir).map_err(failed("sync directory", dir))?;

    if old.first == first {
        live.segments.pop_back();
    } else if let Some(old) = live.segments.back_mut() {
        // The old copy, whatever was cut behind it, and the unused rest of the file.
        old_file
            .set_len(last.offset)
            .map_err(failed("cut", &old.info.path))?;
        old.info.bytes = last.offset;
    }
    live.segments.push_back(Segment {
        info: SegmentInfo {
            first,
            path: path.clone(),
            bytes: capacity,
            last_time: last.header.last_time,
        },
        previous_crc: Some(last.header.previous_crc),
        pin: Arc::new(()),
    });
    Ok(Active {
        first,
        path,
        file,
        offset: stride,
        capacity,
    })
}
