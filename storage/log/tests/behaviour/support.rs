//! Small logs on simulated disks.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quiver_log::{
    CommittedRecord, DamagedRange, Encoding, Log, LogOptions, OpenError, Record, RecordKind,
    RecoveryFloor, RecoveryReport, Replay, ReplayError, SimVfs,
};
use quiver_model::{
    DeviceId, Entropy, Position, Producer, SenderId, Sequence, StreamName, Timestamp,
};

/// Counts instead of drawing.
#[derive(Debug, Default)]
pub struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0
            .fetch_add(1, Ordering::SeqCst)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ 0x51
    }
}

pub fn dir() -> PathBuf {
    PathBuf::from("/data/log")
}

/// Small segments, nothing retained beyond the floor.
pub fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        retention_bytes: 0,
        ..LogOptions::default()
    }
}

pub fn try_open(
    disk: &SimVfs,
    options: LogOptions,
    floor: u64,
) -> Result<(Log, RecoveryReport), OpenError> {
    let floor = RecoveryFloor {
        at_least: Position(floor),
    };
    Log::open(
        Arc::new(disk.clone()),
        &dir(),
        options,
        &Counting::default(),
        floor,
    )
}

pub fn open(disk: &SimVfs) -> (Log, RecoveryReport) {
    try_open(disk, small(), 0).unwrap()
}

/// A batch with its own sequence, content and size.
pub fn batch(sequence: u64, rows: u32, payload_bytes: usize) -> Record {
    let payload: Vec<u8> = (0..payload_bytes)
        .map(|index| (sequence as usize * 31 + index * 7) as u8)
        .collect();
    Record {
        encoding: Encoding::ArrowIpcMessage,
        sender: Some(SenderId::device(DeviceId::new("truck_1").unwrap())),
        producer: Producer(77),
        stream: Some(StreamName::new("readings").unwrap()),
        sequence: Sequence(sequence),
        rows,
        payload: Bytes::from(payload),
        ..Record::control(RecordKind::Data, Timestamp(1_000 + sequence as i64))
    }
}

/// Appends one group of the given batches.
pub fn append(log: &mut Log, records: &[Record]) -> Vec<CommittedRecord> {
    let mut records = records.to_vec();
    let committed = log.append_group(&mut records).unwrap();
    placed(committed.first, &records)
}

pub fn placed(first: Position, records: &[Record]) -> Vec<CommittedRecord> {
    let mut position = first;
    records
        .iter()
        .map(|record| {
            let committed = CommittedRecord {
                position,
                record: record.clone(),
            };
            position = committed.end();
            committed
        })
        .collect()
}

/// Everything a replay gives: records, and damage on the way.
pub fn drain(replay: &mut Replay) -> (Vec<CommittedRecord>, Vec<DamagedRange>) {
    let mut records = Vec::new();
    let mut damaged = Vec::new();
    for item in replay {
        match item {
            Ok(record) => records.push(record),
            Err(ReplayError::Damaged(range)) => damaged.push(*range),
            Err(error) => panic!("{error}"),
        }
    }
    (records, damaged)
}

/// All records of a log without damage.
pub fn contents(log: &Log) -> Vec<CommittedRecord> {
    let (records, damaged) = drain(&mut log.replay(Position(0)).unwrap());
    assert_eq!(damaged, []);
    records
}

pub fn sequences(records: &[CommittedRecord]) -> Vec<u64> {
    records
        .iter()
        .map(|record| record.record.sequence.get())
        .collect()
}

/// A log of `groups` groups of one batch with this payload, closed.
pub fn written(disk: &SimVfs, groups: u64, payload_bytes: usize) -> Vec<CommittedRecord> {
    let (mut log, _) = open(disk);
    (0..groups)
        .flat_map(|sequence| append(&mut log, &[batch(sequence, 3, payload_bytes)]))
        .collect()
}

/// The segment files, oldest first.
pub fn segment_paths(log: &Log) -> Vec<PathBuf> {
    log.segments()
        .into_iter()
        .map(|segment| segment.path)
        .collect()
}

/// Record bytes of the group at `offset` of a segment image.
pub fn body_bytes(image: &[u8], offset: usize) -> usize {
    u32::from_le_bytes(image[offset + 64..offset + 68].try_into().unwrap()) as usize
}

/// Closes the log that `make` writes and gives the disk as it is then.
pub fn disk_with(make: impl FnOnce(&SimVfs)) -> SimVfs {
    let disk = SimVfs::new(1);
    make(&disk);
    disk.restart();
    disk
}

pub fn file(disk: &SimVfs, path: &Path) -> Vec<u8> {
    disk.content(path).unwrap()
}
