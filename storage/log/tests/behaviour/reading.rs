//! Replay, readers that follow the writer, trimming and retention.

use std::time::Duration;

use quiver_log::{
    ControlKind, Encoding, LogOptions, OsVfs, Record, RecordKind, RecoveryFloor, ReplayError,
    SimVfs,
};
use quiver_model::{OsEntropy, Position, RefusedRow, RejectCode, Timestamp};

use crate::support::*;

#[test]
fn a_replay_from_any_position_begins_with_the_record_that_holds_it() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    let mut all = Vec::new();
    for sequence in 0..10 {
        all.extend(append(
            &mut log,
            &[batch(sequence, 3, 600), batch(100 + sequence, 0, 10)],
        ));
    }
    for from in 0..=log.committed_end().get() {
        let (records, _) = drain(&mut log.replay(Position(from)).unwrap());
        let expected: Vec<_> = all
            .iter()
            .filter(|record| record.end() > Position(from))
            .cloned()
            .collect();
        assert_eq!(records, expected, "from {from}");
    }
}

#[test]
fn a_reader_follows_the_writer_up_to_its_end() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    let reader = log.reader();
    let mut replay = reader.read(Position(1), Position(4)).unwrap();
    assert!(replay.next().is_none());
    let mut all = Vec::new();
    for sequence in 0..12 {
        all.extend(append(&mut log, &[batch(sequence, 1, 700)]));
    }
    assert_eq!(sequences(&drain(&mut replay).0), [0, 1, 2]);
    replay.extend_to(Position(u64::MAX));
    assert_eq!(
        sequences(&drain(&mut replay).0),
        (3..12).collect::<Vec<_>>()
    );
    all.extend(append(&mut log, &[batch(12, 2, 700), batch(13, 1, 700)]));
    assert_eq!(sequences(&drain(&mut replay).0), [12, 13]);
    assert_eq!(replay.position(), reader.committed_end());
    let other = std::thread::spawn(move || {
        drain(&mut reader.read(Position(0), Position(u64::MAX)).unwrap()).0
    });
    assert_eq!(other.join().unwrap(), all);
}

#[test]
fn an_end_within_a_group_holds_back_the_rest_of_it() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    append(
        &mut log,
        &[batch(0, 2, 10), batch(1, 2, 10), batch(2, 2, 10)],
    );
    let mut replay = log.reader().read(Position(1), Position(3)).unwrap();
    assert_eq!(sequences(&drain(&mut replay).0), [0]);
    replay.extend_to(Position(5));
    assert_eq!(sequences(&drain(&mut replay).0), [1]);
    replay.extend_to(Position(100));
    assert_eq!(sequences(&drain(&mut replay).0), [2]);
}

#[test]
fn trimming_keeps_what_is_needed_and_what_retention_wants() {
    let fill = |options| {
        let disk = SimVfs::new(1);
        let (mut log, _) = try_open(&disk, options, 0).unwrap();
        for sequence in 0..16 {
            append(&mut log, &[batch(sequence, 1, 700)]);
        }
        log
    };
    // Four groups a segment, a position each.
    let mut log = fill(small());
    assert_eq!(
        log.trim(Position(8)).unwrap().segments,
        1,
        "position 8 is in the second"
    );
    assert_eq!(log.oldest_position(), Position(5));
    assert_eq!(log.trim(Position(9)).unwrap().oldest, Position(9));
    assert_eq!(
        log.trim(Position(u64::MAX)).unwrap().oldest,
        Position(13),
        "the newest stays"
    );
    assert_eq!(sequences(&contents(&log)), [12, 13, 14, 15]);

    let mut log = fill(LogOptions {
        retention_bytes: 3 * 4096,
        ..small()
    });
    assert_eq!(log.trim(Position(u64::MAX)).unwrap().oldest, Position(5));
    assert_eq!(log.bytes(), 3 * 4096);

    let retention_time = Duration::from_micros(10);
    let mut log = fill(LogOptions {
        retention_bytes: u64::MAX,
        retention_time,
        ..small()
    });
    // Times run 1,000 to 1,015; the first segment's newest is 1,003.
    assert_eq!(log.trim(Position(u64::MAX)).unwrap().oldest, Position(5));
}

#[test]
fn what_a_reader_is_in_survives_trimming_and_then_it_is_told() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    for sequence in 0..12 {
        append(&mut log, &[batch(sequence, 1, 700)]);
    }
    let mut replay = log.reader().read(Position(1), Position(u64::MAX)).unwrap();
    assert_eq!(replay.next().unwrap().unwrap().record.sequence.get(), 0);
    let trimmed = log.trim(Position(9)).unwrap();
    assert_eq!(
        (trimmed.segments, trimmed.recycled),
        (2, 1),
        "the one that is read is not reused"
    );
    append(&mut log, &[batch(12, 1, 2000)]);
    let error = replay.find_map(Result::err).unwrap();
    assert!(
        matches!(
            error,
            ReplayError::Trimmed {
                from: Position(2),
                oldest: Position(9)
            }
        ),
        "{error}"
    );
    assert!(replay.next().is_none());
    let error = log.reader().read(Position(8), Position(9)).unwrap_err();
    assert!(matches!(error, ReplayError::Trimmed { .. }));
}

#[test]
fn the_next_position_is_above_the_floor_even_if_the_log_is_lost() {
    let disk = SimVfs::new(1);
    let (mut log, report) = try_open(&disk, small(), 500).unwrap();
    assert!(report.created);
    assert_eq!(
        (report.next, report.oldest, report.log_end),
        (Position(501), Position(501), Position(0))
    );
    assert_eq!(contents(&log), []);
    let mut all = append(&mut log, &[batch(0, 3, 10)]);
    assert_eq!(all[0].position, Position(501));
    drop(log);
    disk.crash();
    // A floor above the log's end leaves a gap that is no damage, in the segment and across.
    let (mut log, report) = try_open(&disk, small(), 600).unwrap();
    assert_eq!(report.next, Position(601));
    assert!(
        log.reader()
            .read(Position(504), Position(601))
            .unwrap()
            .next()
            .is_none()
    );
    all.extend(append(&mut log, &[batch(1, 1, 10)]));
    drop(log);
    disk.crash();
    let (mut log, _) = try_open(&disk, small(), 700).unwrap();
    all.extend(append(&mut log, &[batch(2, 1, 9000)]));
    assert_eq!(all[2].position, Position(701));
    assert_eq!(contents(&log), all);
    drop(log);
    disk.crash();
    let (log, report) = open(&disk);
    assert_eq!((report.next, report.damaged), (Position(702), vec![]));
    assert_eq!(contents(&log), all);
}

#[test]
fn opening_may_check_the_needed_part_only() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 16, 700));
    let path = dir().join(format!("{:020}.seg", 1));
    let mut image = file(&disk, &path);
    image[600] ^= 1;
    disk.put(&path, &image);
    let options = LogOptions {
        verify_from: all[5].position,
        ..small()
    };
    let (log, report) = try_open(&disk, options, 0).unwrap();
    assert_eq!((report.damaged.len(), report.groups), (0, 12));
    // Whoever reads the rest is told all the same.
    let (records, damaged) = drain(&mut log.replay(Position(0)).unwrap());
    assert_eq!(damaged[0].positions, all[0].position..all[0].end());
    assert_eq!(records, all[1..]);
    // Even if nothing valid is in the part to be checked.
    let options = LogOptions {
        verify_from: Position(u64::MAX),
        ..small()
    };
    disk.restart();
    let last = segment_paths(&log).pop().unwrap();
    drop(log);
    let mut image = file(&disk, &last);
    image[100] ^= 1;
    disk.put(&last, &image);
    let (log, _) = try_open(&disk, options, 0).unwrap();
    assert_eq!(drain(&mut log.replay(Position(0)).unwrap()).0, all[1..15]);
}

#[test]
fn every_field_and_unknown_kinds_come_back_as_they_went() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    let mut refused = batch(4, 9, 40);
    refused.verdict.refused = vec![
        RefusedRow {
            row: 2,
            code: RejectCode::NullTimestamp,
        },
        RefusedRow {
            row: 7,
            code: RejectCode::FutureTimestamp,
        },
    ];
    refused.verdict.counts.device_mismatch = 3;
    refused.producer_kind = quiver_model::ProducerKind::Skipping;
    let later = Record {
        encoding: Encoding::Unknown(200),
        payload: vec![1, 2, 3].into(),
        ..Record::control(RecordKind::Unknown(250), Timestamp(5_000))
    };
    let stepped = Record::control(
        RecordKind::Control(ControlKind::ClockStepped),
        Timestamp(5_000),
    );
    let all = append(&mut log, &[refused, later, stepped]);
    assert_eq!(all[1].position, Position(10));
    drop(log);
    disk.crash();
    assert_eq!(contents(&open(&disk).0), all);
}

#[test]
fn the_same_log_works_on_a_real_file_system() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("not/yet/there");
    let open = || {
        quiver_log::Log::open(
            std::sync::Arc::new(OsVfs),
            &dir,
            small(),
            &OsEntropy,
            RecoveryFloor::default(),
        )
        .unwrap()
    };
    let mut all = Vec::new();
    let mut id = None;
    for round in 0..3 {
        let (mut log, report) = open();
        assert_eq!(report.created, round == 0);
        assert_eq!(*id.get_or_insert(log.id()), log.id());
        assert_eq!(contents(&log), all);
        for sequence in 0..12 {
            all.extend(append(&mut log, &[batch(round * 100 + sequence, 2, 700)]));
        }
        let trimmed = log.trim(all[8].position).unwrap();
        assert!(trimmed.segments > 0);
        all.retain(|record| record.position >= trimmed.oldest);
        assert_eq!(contents(&log), all);
        assert!(log.free_space().unwrap() > 0);
        assert!(log.segments().iter().all(|segment| segment.path.exists()));
    }
}

#[test]
fn the_logs_id_can_be_asked_without_opening_it() {
    let disk = SimVfs::new(1);
    assert_eq!(quiver_log::stored_id(&disk, &dir()).unwrap(), None);
    let id = open(&disk).0.id();
    let calls = disk.mutating_calls();
    assert_eq!(quiver_log::stored_id(&disk, &dir()).unwrap(), Some(id));
    assert_eq!(disk.mutating_calls(), calls);
}
