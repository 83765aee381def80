//! A log written by the first version of the format, kept for ever: later engines must read it.
//!
//! `UPDATE_LOG_FIXTURE=1` writes it anew; only ever right while the format has no users.

use std::path::{Path, PathBuf};

use quiver_log::{CommittedRecord, ControlKind, Encoding, LogId, Record, RecordKind, SimVfs};
use quiver_model::{Position, RefusedRow, RejectCode, Timestamp};

use crate::support::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

const SEGMENT: &str = "00000000000000000001.seg";

/// What the fixture holds.
fn groups() -> Vec<Vec<Record>> {
    let mut judged = batch(1, 4, 40);
    judged.verdict.refused = vec![RefusedRow {
        row: 3,
        code: RejectCode::FutureTimestamp,
    }];
    judged.verdict.counts.truncated_timestamps = 2;
    let schema = Record {
        encoding: Encoding::Json,
        payload: bytes::Bytes::from_static(b"{\"fields\":[]}"),
        ..Record::control(RecordKind::StreamSchema, Timestamp(1_000))
    };
    let tick = Record::control(RecordKind::Control(ControlKind::Tick), Timestamp(2_000));
    vec![vec![schema, batch(0, 2, 30)], vec![judged], vec![tick]]
}

fn expected() -> Vec<CommittedRecord> {
    let mut position = Position(1);
    groups()
        .into_iter()
        .flat_map(|group| {
            let placed = placed(position, &group);
            position = placed.last().unwrap().end();
            placed
        })
        .collect()
}

#[test]
fn a_log_of_format_version_1_opens_for_ever() {
    if std::env::var_os("UPDATE_LOG_FIXTURE").is_some() {
        let disk = SimVfs::new(1);
        let (mut log, _) = open(&disk);
        for mut group in groups() {
            log.append_group(&mut group).unwrap();
        }
        std::fs::create_dir_all(fixtures()).unwrap();
        for name in ["log-id", SEGMENT] {
            std::fs::write(fixtures().join(name), file(&disk, &dir().join(name))).unwrap();
        }
    }
    let disk = disk_with(|disk| drop(open(disk)));
    for name in ["log-id", SEGMENT] {
        disk.put(
            &dir().join(name),
            &std::fs::read(fixtures().join(name)).unwrap(),
        );
    }
    let (log, report) = open(&disk);
    assert_eq!(log.id(), LogId(0x0000_0000_0000_0051_9e37_79b9_7f4a_7c44));
    assert_eq!(
        (report.groups, report.next, &*report.damaged),
        (3, Position(9), &[][..])
    );
    assert_eq!(contents(&log), expected());
}

#[test]
fn today_writes_the_bytes_of_format_version_1() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    for mut group in groups() {
        log.append_group(&mut group).unwrap();
    }
    for name in ["log-id", SEGMENT] {
        let kept = std::fs::read(fixtures().join(name)).unwrap();
        assert_eq!(
            file(&disk, &dir().join(name)),
            kept,
            "{name} changed: give the format a new version"
        );
    }
}
