//! What must hold of an engine that is at rest: contents, ledgers, last values, the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quiver_log::{Log, RecordKind, RecoveryFloor, sim::SimVfs};
use quiver_model::{Position, ProducerKind, SenderId, StreamName};
use quiver_runtime::{Engine, EngineOptions, Ledger};

use crate::{
    contents::{read_now, stored_rows},
    machine::Machine,
    model::{Contents, Model},
    seeded::SeededEntropy,
};

/// Compares everything with the model. Nothing may be under way.
pub async fn check_at_rest(machine: &Machine, model: &Model, must: &BTreeSet<i64>) {
    let engine = machine.engine();
    let contents = read_now(engine, &machine.archive).await;
    model.check(&contents, must);
    compare_ledgers(engine.ledgers().await, &contents);
    check_last_values(engine, &contents);
}

/// What was received of each device is what is there of it.
pub fn compare_ledgers(ledgers: BTreeMap<SenderId, Ledger>, contents: &Contents) {
    let ledgers: BTreeMap<String, (u64, u64, u64)> = ledgers
        .into_iter()
        .map(|(sender, ledger)| {
            let counts = (ledger.stored, ledger.rejected, ledger.quarantined);
            (sender.id.to_string(), counts)
        })
        .filter(|(_, counts)| *counts != (0, 0, 0))
        .collect();
    assert_eq!(ledgers, contents.ledgers(), "ledgers, and what is stored");
}

fn check_last_values(engine: &Engine, contents: &Contents) {
    let mut expected = contents.last_values();
    let last_values = engine.last_values();
    for stream in last_values.streams() {
        let schema = engine.tables().table(&stream).unwrap().schema();
        let batch = last_values.snapshot(&schema).unwrap();
        for row in stored_rows(&stream, &batch) {
            let key = (row.stream.clone(), row.device.clone());
            assert_eq!(Some(row), expected.remove(&key), "last value");
        }
    }
    assert!(expected.is_empty(), "last values are missing: {expected:?}");
}

/// Sequences of every producer follow each other without gaps or repetitions, as far as the log
/// still has them. Looks at a copy of the disk.
pub fn check_log(disk: &SimVfs, options: &EngineOptions) {
    let copy = Arc::new(disk.fork(1));
    let dir = options.data_dir.join("log");
    let floor = RecoveryFloor {
        at_least: Position(0),
    };
    let entropy = SeededEntropy::new(1);
    let (log, _) = Log::open(copy, &dir, options.log.clone(), &entropy, floor).unwrap();
    let mut next: BTreeMap<(String, StreamName, u64), u64> = BTreeMap::new();
    let mut end = Position(0);
    for committed in log.replay(log.oldest_position()).unwrap() {
        let committed = committed.unwrap();
        let (position, record) = (committed.position, committed.record);
        assert!(position >= end, "positions ascend: {position} after {end}");
        end = position.plus(record.positions());
        let is_settling = matches!(record.kind, RecordKind::Data | RecordKind::Reject);
        if !is_settling || record.producer_kind != ProducerKind::Dense {
            continue;
        }
        let sender = record.sender.unwrap().to_string();
        let key = (sender, record.stream.unwrap(), record.producer.get());
        let sequence = record.sequence.get();
        if let Some(expected) = next.insert(key.clone(), sequence + 1) {
            assert_eq!(
                sequence, expected,
                "sequence of {key:?} at position {position}"
            );
        }
    }
}
