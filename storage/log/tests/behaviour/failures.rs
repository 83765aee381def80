//! Calls that fail while the log is open.

use quiver_log::{AppendError, FaultKind, Log, LogOptions, SimOp, SimVfs};
use quiver_model::{Position, Timestamp};

use crate::support::*;

/// Asserts what a process death, and power losses of many outcomes, leave of the log.
fn assert_left_after_any_end(disk: &SimVfs, expected: &[u64]) {
    for seed in 0..16 {
        let copy = disk.fork(seed);
        if seed == 0 {
            copy.restart()
        } else {
            copy.crash()
        }
        assert_eq!(
            sequences(&contents(&open(&copy).0)),
            expected,
            "seed {seed}"
        );
    }
}

#[test]
fn a_refused_group_is_never_seen_and_its_positions_go_to_the_next() {
    for (op, nth) in [(SimOp::Write, 1), (SimOp::Write, 2)] {
        for kind in [FaultKind::Io, FaultKind::NoSpace, FaultKind::ShortWrite] {
            for seed in 0..20 {
                let disk = SimVfs::new(seed);
                let (mut log, _) = open(&disk);
                append(&mut log, &[batch(0, 3, 100)]);
                let end = log.committed_end();
                disk.fail_nth(Some(op), nth, kind);
                let error = log.append_group(&mut [batch(1, 5, 900)]).unwrap_err();
                assert!(matches!(error, AppendError::Refused { .. }), "{error}");
                assert_eq!(log.committed_end(), end);
                assert_eq!(log.epoch(), 1);
                assert_eq!(sequences(&contents(&log)), [0]);
                assert_left_after_any_end(&disk, &[0]);
                // Its successor, queued meanwhile, is failed by its owner; the group comes again.
                let again = append(&mut log, &[batch(2, 1, 10)]);
                assert_eq!(again[0].position, end);
                assert_left_after_any_end(&disk, &[0, 2]);
            }
        }
    }
}

#[test]
fn a_failed_sync_poisons_the_log_for_good() {
    for seed in 0..30 {
        let disk = SimVfs::new(seed);
        let (mut log, _) = open(&disk);
        append(&mut log, &[batch(0, 3, 100)]);
        disk.fail_nth(Some(SimOp::SyncData), 1, FaultKind::Io);
        let error = log.append_group(&mut [batch(1, 1, 2000)]).unwrap_err();
        assert!(error.is_poisoned(), "{error}");
        let syncs = disk.calls(SimOp::SyncData);
        for sequence in 2..5 {
            assert!(
                log.append_group(&mut [batch(sequence, 1, 10)])
                    .unwrap_err()
                    .is_poisoned()
            );
        }
        assert!(log.trim(Position(u64::MAX)).is_err());
        assert_eq!(
            disk.calls(SimOp::SyncData),
            syncs,
            "a file was synced again after a failure"
        );
        drop(log);
        // The kernel says the pages are clean. What recovery shows must survive a power loss.
        disk.restart();
        let shown = sequences(&contents(&open(&disk).0));
        assert!(shown == [0] || shown == [0, 1], "{shown:?}");
        disk.crash();
        assert_eq!(sequences(&contents(&open(&disk).0)), shown);
    }
}

#[test]
fn a_failed_repair_poisons_the_log() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    disk.fail_nth(Some(SimOp::Write), 1, FaultKind::Io);
    disk.fail_nth(Some(SimOp::Write), 2, FaultKind::Io);
    assert!(
        log.append_group(&mut [batch(0, 1, 10)])
            .unwrap_err()
            .is_poisoned()
    );
}

#[test]
fn a_small_group_on_a_full_disk_is_refused_until_there_is_space_and_its_trace_is_undone_first() {
    for kind in [FaultKind::NoSpace, FaultKind::ShortWrite] {
        for seed in 0..20 {
            let disk = SimVfs::new(seed);
            let (mut log, _) = open(&disk);
            append(&mut log, &[batch(0, 3, 100)]);
            disk.fail_from(Some(SimOp::Write), 1, kind);
            for _ in 0..3 {
                // One sector: the write that fails is the one that would make the group valid.
                let error = log.append_group(&mut [batch(1, 1, 10)]).unwrap_err();
                assert!(error.is_storage_full(), "{error}");
            }
            disk.clear_faults();
            if kind == FaultKind::NoSpace {
                assert_left_after_any_end(&disk, &[0]);
            }
            // (Of a short write all but zeros may be there: an end here leaves what an end before
            // the acknowledgement does.)
            append(&mut log, &[batch(2, 1, 10)]);
            assert_eq!(sequences(&contents(&log)), [0, 2]);
            assert_left_after_any_end(&disk, &[0, 2]);
        }
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_space_is_free() {
    let disk = SimVfs::new(5);
    let (mut log, _) = open(&disk);
    let mut sequence = 0;
    // Room for three segments, and for opening again: the last group and the log's id.
    disk.set_capacity(Some(disk.used() + 3 * 4096 + 1024));
    let error = loop {
        match log.append_group(&mut [batch(sequence, 1, 700)]) {
            Ok(_) => sequence += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_storage_full(), "{error}");
    assert_eq!(sequence, 12, "three segments of four groups fit");
    assert!(
        log.append_group(&mut [batch(sequence, 1, 700)])
            .unwrap_err()
            .is_storage_full()
    );
    assert_eq!(contents(&log).len(), 12);
    assert!(log.free_space().unwrap() < 4096);
    let mut all: Vec<u64> = (0..12).collect();
    assert_left_after_any_end(&disk, &all);
    disk.set_capacity(None);
    append(&mut log, &[batch(sequence, 1, 700)]);
    assert_eq!(contents(&log).len(), 13);
    all.push(12);
    assert_left_after_any_end(&disk, &all);
}

#[test]
fn trimming_makes_room_on_a_full_disk() {
    let disk = SimVfs::new(6);
    let (mut log, _) = open(&disk);
    disk.set_capacity(Some(disk.used() + 3 * 4096));
    for sequence in 0..100 {
        if log.append_group(&mut [batch(sequence, 1, 700)]).is_err() {
            log.trim(log.committed_end()).unwrap();
            append(&mut log, &[batch(sequence, 1, 700)]);
        }
    }
    assert_eq!(log.committed_end(), Position(101));
}

#[test]
fn a_group_above_the_limit_is_refused_untouched() {
    let disk = SimVfs::new(1);
    let options = LogOptions {
        group_bytes_max: 1000,
        ..small()
    };
    let (mut log, _) = try_open(&disk, options, 0).unwrap();
    let calls = disk.mutating_calls();
    let error = log.append_group(&mut [batch(0, 1, 2000)]).unwrap_err();
    assert!(
        matches!(error, AppendError::TooLarge { limit: 1000, .. }),
        "{error}"
    );
    assert_eq!(disk.mutating_calls(), calls);
    assert_eq!(
        log.epoch(),
        1,
        "its successors must not be appended before it either"
    );
}

#[test]
fn an_empty_group_commits_nothing() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    let calls = disk.mutating_calls();
    let committed = log.append_group(&mut []).unwrap();
    assert_eq!(
        (committed.first, committed.end, committed.bytes),
        (Position(1), Position(1), 0)
    );
    assert_eq!(disk.mutating_calls(), calls);
}

#[test]
fn positions_never_wrap() {
    let disk = SimVfs::new(1);
    let (mut log, report) = try_open(&disk, small(), u64::MAX - 10).unwrap();
    assert_eq!(report.next, Position(u64::MAX - 9));
    let error = log.append_group(&mut [batch(0, 20, 10)]).unwrap_err();
    assert!(matches!(error, AppendError::Exhausted), "{error}");
    append(&mut log, &[batch(1, 5, 10)]);
}

#[test]
fn record_times_never_decrease_even_across_a_restart() {
    let disk = SimVfs::new(1);
    let (mut log, _) = open(&disk);
    let at = |time| {
        let mut record = batch(0, 1, 10);
        record.time = Timestamp(time);
        record
    };
    let mut records = [at(50), at(20), at(70)];
    log.append_group(&mut records).unwrap();
    assert_eq!(records.map(|record| record.time.0), [50, 50, 70]);
    drop(log);
    disk.restart();
    let (mut log, _) = open(&disk);
    assert_eq!(log.last_time(), Some(Timestamp(70)));
    let mut records = [at(1), at(71)];
    log.append_group(&mut records).unwrap();
    assert_eq!(records.map(|record| record.time.0), [70, 71]);
}

#[test]
fn a_read_error_while_opening_is_told_and_harms_nothing() {
    let mut all = Vec::new();
    let disk = disk_with(|disk| all = written(disk, 6, 700));
    let reads = {
        let copy = disk.fork(0);
        open(&copy);
        copy.calls(SimOp::Read)
    };
    for nth in 1..=reads {
        let copy = disk.fork(nth);
        copy.fail_nth(Some(SimOp::Read), nth, FaultKind::Io);
        try_open(&copy, small(), 0).unwrap_err();
        copy.restart();
        assert_eq!(contents(&open(&copy).0), all, "read {nth}");
    }
}

#[test]
fn a_segment_is_created_at_a_name_that_a_failed_rename_left_behind() {
    for seed in 0..10 {
        let disk = SimVfs::new(seed);
        let (mut log, _) = open(&disk);
        let mut all: Vec<u64> = Vec::new();
        for sequence in 0..3 {
            append(&mut log, &[batch(sequence, 1, 700)]);
            all.push(sequence);
        }
        disk.fail_nth(Some(SimOp::Rename), 1, FaultKind::Io);
        log.append_group(&mut [batch(50, 1, 2000)]).unwrap_err();
        // Would fit into the old segment; that must not end in front of it.
        for sequence in 3..12 {
            append(&mut log, &[batch(sequence, 1, 100)]);
            all.push(sequence);
        }
        assert_eq!(sequences(&contents(&log)), all);
        assert_left_after_any_end(&disk, &all);
    }
}

fn _is_send(log: Log) -> impl Send {
    log
}

#[test]
fn a_segment_that_could_not_be_removed_goes_before_any_other() {
    for op in [SimOp::Rename, SimOp::Unlink] {
        let disk = SimVfs::new(1);
        let spare_segments_max = if op == SimOp::Rename { 2 } else { 0 };
        let (mut log, _) = try_open(
            &disk,
            LogOptions {
                spare_segments_max,
                ..small()
            },
            0,
        )
        .unwrap();
        for sequence in 0..16 {
            append(&mut log, &[batch(sequence, 1, 700)]);
        }
        disk.fail_nth(Some(op), 1, FaultKind::NoSpace);
        log.trim(Position(5)).unwrap_err();
        assert_eq!(log.oldest_position(), Position(5));
        // Were it left while the next one goes, the log would seem to have a hole.
        assert_eq!(log.trim(Position(9)).unwrap().oldest, Position(9));
        assert_left_after_any_end(&disk, &(8..16).collect::<Vec<_>>());
    }
}

/// A group whose write fails, and whose undoing finds no room, is there or not when the log is opened
/// again; once the next append has undone it, it is gone.
#[test]
fn a_group_that_could_not_be_undone_yet_is_gone_with_the_next_append() {
    for is_undone in [false, true] {
        let disk = SimVfs::new(16_530_347_424_867_197_947);
        let (mut log, _) = open(&disk);
        log.append_group(&mut [batch(1, 0, 375)]).unwrap();
        disk.fail_nth(Some(SimOp::Write), 1, FaultKind::Io);
        disk.fail_nth(Some(SimOp::Write), 2, FaultKind::NoSpace);
        let refused = log.append_group(&mut [batch(2, 0, 0)]).unwrap_err();
        assert!(matches!(refused, AppendError::Refused { .. }), "{refused}");
        assert!(log.is_repair_due());
        if is_undone {
            log.append_group(&mut [batch(3, 0, 0)]).unwrap();
            assert!(!log.is_repair_due());
        }
        drop(log);
        disk.restart();
        let (log, report) = open(&disk);
        assert_eq!(report.damaged, []);
        let sequences: Vec<u64> = contents(&log)
            .iter()
            .map(|record| record.record.sequence.get())
            .collect();
        if is_undone {
            assert_eq!(sequences, [1, 3]);
        } else {
            assert!(sequences == [1] || sequences == [1, 2], "{sequences:?}");
        }
    }
}
