use std::path::Path;

use quiver_model::{DeviceId, Producer, SenderId, Sequence};

use super::*;
use crate::damage::SequenceKey;

fn key(device: &str) -> SequenceKey {
    let sender = SenderId::device(DeviceId::new(device).unwrap());
    (sender, StreamName::new("readings").unwrap(), Producer(7))
}

fn lost(device: &str, from: u64, to: u64) -> SenderDamage {
    SenderDamage {
        batches: to - from,
        ..SenderDamage::new(
            &key(device),
            ProducerKind::Dense,
            Sequence(from)..Sequence(to),
        )
    }
}

fn record(device: &str, position: u64, sequence: u64, rows: u32) -> DamagedRecord {
    let (sender, stream, producer) = key(device);
    DamagedRecord {
        position: Position(position),
        kind: RecordKind::Data,
        producer_kind: ProducerKind::Dense,
        sender: Some(sender),
        producer,
        stream: Some(stream),
        sequence: Sequence(sequence),
        time: Timestamp(1),
        rows,
        refused: 0,
    }
}

fn range(from: u64, to: u64, records: Vec<DamagedRecord>) -> DamagedRange {
    DamagedRange {
        segment: "log/00000000000000000001.seg".into(),
        offset: 512,
        bytes: 512,
        positions: Position(from)..Position(to),
        complete: !records.is_empty(),
        records,
    }
}

/// State restored as of position 20; stream `readings` archived up to `archived`.
fn findings(ranges: Vec<DamagedRange>, archived: u64) -> Findings {
    let mut findings = Findings::new(ranges, &Tables::new(1), Position(20), Position(5));
    let readings = StreamName::new("readings").unwrap();
    findings.archived.insert(readings, Position(archived));
    findings
}

fn finish(mut findings: Findings, book: &DamageBook, gaps: Vec<SequenceGap>) -> Vec<DamageReport> {
    // No shard here: what is beyond the checkpoint is settled by none, and so not named.
    findings.pass_until(Position(1_000), &mut []);
    findings.finish(gaps, book, Timestamp(9), 1 << 20)
}

fn gap(device: &str, from: u64, to: u64, position: u64) -> SequenceGap {
    let (sender, stream, producer) = key(device);
    SequenceGap {
        sender,
        stream,
        producer,
        from: Sequence(from),
        to: Sequence(to),
        position: Position(position),
    }
}

#[test]
fn what_an_earlier_start_has_reported_is_not_reported_again() {
    let book = DamageBook::default();
    let ranges = || vec![range(30, 40, Vec::new())];
    let gaps = || vec![gap("truck_1", 3, 5, 50), gap("truck_2", 0, 1, 60)];
    let first = finish(findings(ranges(), 10), &book, gaps());
    assert_eq!(first.len(), 1);
    assert_eq!(
        first[0].senders,
        [lost("truck_1", 3, 5), lost("truck_2", 0, 1)]
    );
    assert_eq!(first[0].range.batches, 3);
    assert_eq!(first[0].range.segment, "00000000000000000001.seg");

    book.apply(Position(100), &first[0]);
    let mut again = findings(ranges(), 10);
    again.reported(first[0].clone());
    assert_eq!(finish(again, &book, gaps()), []);
    // More of it has rotted since, and more is missing.
    let mut again = findings(vec![range(30, 45, Vec::new())], 10);
    again.reported(first[0].clone());
    let second = finish(again, &book, vec![gap("truck_1", 3, 8, 50)]);
    assert_eq!(second.len(), 1);
    let positions = second[0].range.positions();
    assert_eq!(
        (positions, &second[0].senders),
        (40..45, &vec![lost("truck_1", 5, 8)])
    );
}

#[test]
fn a_jump_is_only_in_damage_that_is_before_it_and_not_wholly_known() {
    let book = DamageBook::default();
    let complete = range(30, 31, vec![record("truck_9", 30, 0, 1)]);
    let before = range(10, 15, Vec::new());
    for ranges in [
        vec![complete],
        vec![before],
        vec![range(60, 70, Vec::new())],
    ] {
        let reports = finish(findings(ranges, 0), &book, vec![gap("truck_1", 3, 5, 50)]);
        assert!(reports.iter().all(|report| report.senders.is_empty()));
    }
    // The stream was archived past the damage: its rows are there.
    let ranges = vec![range(30, 40, Vec::new())];
    let reports = finish(findings(ranges, 39), &book, vec![gap("truck_1", 3, 5, 50)]);
    assert!(reports.iter().all(|report| report.senders.is_empty()));
}

#[test]
fn damage_is_harmless_if_everything_in_it_was_archived() {
    let named = |at: u64| range(at, at + 4, vec![record("truck_1", at, 1, 4)]);
    for (range, archived, is_harmless) in [
        (named(10), 13, true),
        (named(10), 12, false),
        (named(30), 33, true),
        // What cannot be named may have been of any stream, and its sequences are not known.
        (range(10, 14, Vec::new()), 13, true),
        (range(10, 14, Vec::new()), 12, false),
        (range(30, 34, Vec::new()), 33, false),
        // Before what the checkpoint still needed.
        (range(3, 5, Vec::new()), 0, true),
    ] {
        let found = findings(Vec::new(), archived);
        assert_eq!(found.is_harmless(&range), is_harmless, "{range} {archived}");
    }
}

#[test]
fn batches_that_the_checkpoint_had_counted_are_told_with_the_range() {
    let book = DamageBook::default();
    let ranges = vec![range(
        10,
        16,
        vec![record("truck_1", 10, 4, 3), record("truck_1", 13, 5, 3)],
    )];
    let reports = finish(findings(ranges.clone(), 0), &book, Vec::new());
    let expected = SenderDamage {
        rows: 6,
        counted: true,
        ..lost("truck_1", 4, 6)
    };
    assert_eq!(reports[0].senders, [expected]);
    // The checkpoint has the report: the range is known, and what was in it.
    book.apply(Position(19), &reports[0]);
    assert_eq!(finish(findings(ranges, 0), &book, Vec::new()), []);
}

#[test]
fn a_report_that_does_not_fit_into_a_record_takes_several() {
    let senders: Vec<SenderDamage> = (0..100)
        .map(|index| lost(&format!("truck_{index}"), 0, 2))
        .collect();
    let range = DamageRange::default();
    let parts = in_parts(&range, senders.clone(), 4 << 10);
    assert!(parts.len() > 1);
    assert!(
        parts
            .iter()
            .all(|part| serde_json::to_vec(part).unwrap().len() < 8 << 10)
    );
    let all: Vec<_> = parts.iter().flat_map(|part| part.senders.clone()).collect();
    assert_eq!(all, senders);
    assert_eq!(
        parts.iter().map(|part| part.range.batches).sum::<u64>(),
        200
    );
    assert_eq!(in_parts(&range, Vec::new(), 4 << 10).len(), 1);
}

#[test]
fn positions_that_something_has_seen_and_the_log_lacks_are_missing() {
    let missing = |oldest, end, restored, seen| -> Vec<_> {
        let positions = [oldest, end, restored, seen].map(Position);
        let [oldest, end, restored, seen] = positions;
        missing_ends(Path::new("log"), oldest, end, restored, seen, Position(5))
            .into_iter()
            .map(|range| (range.positions.start.get(), range.positions.end.get()))
            .collect()
    };
    assert_eq!(missing(1, 50, 20, 30), []);
    assert_eq!(missing(21, 50, 20, 30), []);
    assert_eq!(missing(25, 50, 20, 30), [(21, 25)]);
    assert_eq!(missing(1, 25, 20, 30), [(25, 31)]);
    assert_eq!(missing(31, 0, 20, 30), [(5, 31)]);
    // A new data directory.
    let new = missing_ends(
        Path::new("log"),
        Position(1),
        Position(0),
        Position(0),
        Position(0),
        Position(1),
    );
    assert_eq!(new, []);
}
