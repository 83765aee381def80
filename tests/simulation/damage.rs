//! Bits of the log that rot in the middle: what they held is reported for good, and counted.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use quiver_log::{Vfs, sim::SimVfs};
use quiver_model::{Position, StreamName};
use quiver_runtime::{EngineOptions, Ledger};

use crate::{
    contents::read_now,
    machine::{Kill, options},
    model::Kind,
    simulate::simulate,
    stage::Stage,
    watch::forget,
};

/// Nothing is flushed or checkpointed unless a test says so.
fn quiet() -> EngineOptions {
    EngineOptions {
        flush_bytes: usize::MAX,
        flush_age: Duration::from_secs(3_600),
        log_bytes_max: 1 << 40,
        checkpoint_interval: Duration::from_secs(3_600),
        ..options()
    }
}

/// Where a commit group is.
#[derive(Clone, Debug)]
struct Group {
    path: PathBuf,
    offset: usize,
    first: u64,
    body: usize,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(number)
}

fn groups(disk: &SimVfs) -> Vec<Group> {
    let dir = PathBuf::from("/data/log");
    let mut groups = Vec::new();
    for name in disk.list(&dir).unwrap() {
        if !name.ends_with(".seg") || name.starts_with("spare") {
            continue;
        }
        let path = dir.join(name);
        let bytes = disk.content(&path).unwrap();
        for offset in (0..bytes.len()).step_by(512) {
            if bytes[offset..].starts_with(b"QUIVRLOG") {
                groups.push(Group {
                    path: path.clone(),
                    offset,
                    first: number::<8>(&bytes, offset + 40),
                    body: number::<4>(&bytes, offset + 64) as usize,
                });
            }
        }
    }
    groups.sort_by_key(|group| group.first);
    groups
}

/// What of a group rots.
#[derive(Clone, Copy, PartialEq)]
enum Rot {
    /// A byte of the last record's payload: every record can still be named.
    Payload,
    /// The group's header and its first record's: none can be named.
    Headers,
}

fn rot(disk: &SimVfs, group: &Group, how: Rot) {
    let mut bytes = disk.content(&group.path).unwrap();
    match how {
        Rot::Payload => bytes[group.offset + 80 + group.body - 3] ^= 0x10,
        Rot::Headers => {
            bytes[group.offset + 20] ^= 1;
            bytes[group.offset + 80 + 14] ^= 1;
        }
    }
    disk.put(&group.path, &bytes);
}

async fn send_round(stage: &mut Stage, kind: Kind) {
    for device in &mut stage.devices {
        device.send("readings", kind).await;
        device.flush().await;
    }
}

/// Batches of which the engine has nothing.
async fn absent(stage: &Stage) -> BTreeSet<i64> {
    let contents = read_now(stage.machine.engine(), &stage.machine.archive).await;
    let rows = contents.rows.iter().map(|row| row.batch);
    let present: BTreeSet<i64> = rows
        .chain(contents.rejects.iter().map(|reject| reject.batch))
        .collect();
    stage.all().difference(&present).copied().collect()
}

async fn ledger(stage: &Stage) -> Ledger {
    let mut sum = Ledger::default();
    for ledger in stage.machine.engine().ledgers().await.values() {
        sum.add(ledger);
    }
    sum
}

/// Bodies of the control records that report damage.
async fn reports(stage: &Stage) -> Vec<String> {
    let engine = stage.machine.engine();
    let q = engine.progress().committed();
    engine.progress().wait_applied(q).await;
    let Some(table) = engine.tables().table(&StreamName::control()) else {
        return Vec::new();
    };
    let snapshot = table.snapshot(q).unwrap();
    let archived = stage.machine.archive.rows(&snapshot.archived);
    let mut bodies = Vec::new();
    for batch in archived.iter().chain(snapshot.hot.iter()) {
        let text = |batch: &RecordBatch, name: &str| {
            let column = batch.column_by_name(name).unwrap();
            column.as_string::<i32>().clone()
        };
        let (kinds, texts) = (text(batch, "kind"), text(batch, "body"));
        for row in (0..kinds.len()).filter(|row| kinds.value(*row) == "damage_reported") {
            bodies.push(texts.value(row).to_owned());
        }
    }
    bodies
}

/// Three devices; a checkpoint; rounds of batches after it, each its own group; then one of these
/// groups rots while the engine is down.
async fn rotten(seed: u64, how: Rot, memory_bytes: usize) -> Stage {
    let mut stage = Stage::set(seed, quiet(), 3).await;
    for kind in [Kind::Good, Kind::SomeRows, Kind::WrongType] {
        send_round(&mut stage, kind).await;
    }
    let restored = stage.machine.engine().checkpoint().await.unwrap();
    for kind in [Kind::Good, Kind::Good, Kind::SomeRows, Kind::Good] {
        send_round(&mut stage, kind).await;
    }
    stage.machine.kill(Kill::Process).await;
    let beyond: Vec<Group> = groups(&stage.machine.disk)
        .into_iter()
        .filter(|group| Position(group.first) > restored)
        .collect();
    assert!(beyond.len() > 8);
    rot(&stage.machine.disk, &beyond[3], how);
    stage.machine.options.memory_bytes = memory_bytes;
    stage.machine.start().await;
    stage
}

#[test]
fn damage_beyond_the_checkpoint_is_counted_once_and_for_good() {
    for how in [Rot::Payload, Rot::Headers] {
        simulate(async {
            let mut stage = rotten(31, how, quiet().memory_bytes).await;
            let lost = absent(&stage).await;
            assert!(!lost.is_empty());
            let known = stage.machine.engine().control().damage.ranges();
            assert_eq!(known.len(), 1, "{known:?}");
            assert_eq!(known[0].batches, lost.len() as u64);
            assert_eq!(known[0].complete, how == Rot::Payload);
            assert_eq!(stage.machine.engine().report().damaged.len(), 1);
            let counted = ledger(&stage).await;
            assert_eq!(counted.batches_damaged, lost.len() as u64);
            let rows: u64 = {
                let model = stage.world.model.borrow();
                lost.iter()
                    .map(|batch| u64::from(model.batches[batch].rows))
                    .sum()
            };
            // How many rows a batch had is known only if its record can be named.
            let named = if how == Rot::Payload { rows } else { 0 };
            assert_eq!(counted.damaged, named);

            // What was there before and after is there; senders go on where they were.
            let mut must: BTreeSet<i64> = stage.all().difference(&lost).copied().collect();
            stage.check(&must).await;
            send_round(&mut stage, Kind::Good).await;
            stage.settle().await;
            must = stage.all().difference(&lost).copied().collect();
            stage.check(&must).await;

            for round in 0..4 {
                match round {
                    // The damage is still in the log, and found again.
                    0 => {}
                    1 => {
                        stage.machine.engine().checkpoint().await.unwrap();
                    }
                    _ => {
                        stage.machine.engine().flush_all().await.unwrap();
                        stage.machine.engine().checkpoint().await.unwrap();
                        send_round(&mut stage, Kind::Good).await;
                        stage.machine.engine().checkpoint().await.unwrap();
                    }
                }
                must = stage.all().difference(&lost).copied().collect();
                stage.machine.kill(Kill::Power).await;
                stage.machine.options.shard_count = stage.machine.options.shard_count % 4 + 1;
                stage.machine.start().await;
                let engine = stage.machine.engine();
                assert_eq!(engine.control().damage.ranges(), known, "round {round}");
                assert!(engine.report().damaged.is_empty(), "round {round}");
                assert_eq!(reports(&stage).await.len(), 1, "round {round}");
                let now = ledger(&stage).await;
                assert_eq!(
                    (now.batches_damaged, now.damaged),
                    (counted.batches_damaged, counted.damaged),
                    "round {round}"
                );
                stage.check(&must).await;
                assert_eq!(absent(&stage).await, lost, "round {round}");
            }
            let report = &reports(&stage).await[0];
            assert!(report.contains("device:device-00"), "{report}");
            forget("is damaged");
        });
    }
}

#[test]
fn damage_is_reported_before_recovery_flushes_and_so_is_not_taken_for_archived() {
    for how in [Rot::Payload, Rot::Headers] {
        simulate(async {
            // So little memory that recovery flushes several times on its way.
            let mut stage = rotten(36, how, 8 << 10).await;
            let readings = StreamName::new("readings").unwrap();
            let table = stage.machine.engine().tables().table(&readings).unwrap();
            assert!(table.state().flushed() > Position(0));
            let lost = absent(&stage).await;
            for start in 0..3 {
                let engine = stage.machine.engine();
                let known = engine.control().damage.ranges();
                assert_eq!(known.len(), 1, "start {start}");
                assert_eq!(known[0].batches, lost.len() as u64, "start {start}");
                assert!(!known[0].harmless && !lost.is_empty());
                assert_eq!(ledger(&stage).await.batches_damaged, known[0].batches);
                assert_eq!(absent(&stage).await, lost);
                stage.machine.kill(Kill::Process).await;
                stage.machine.options.memory_bytes = quiet().memory_bytes;
                stage.machine.start().await;
            }
            forget("is damaged");
        });
    }
}

#[test]
fn damage_that_the_checkpoint_knows_costs_rows_that_were_counted_as_stored() {
    simulate(async {
        let mut stage = Stage::set(32, quiet(), 2).await;
        send_round(&mut stage, Kind::Good).await;
        for _ in 0..4 {
            send_round(&mut stage, Kind::Good).await;
        }
        let all = groups(&stage.machine.disk);
        stage.machine.engine().checkpoint().await.unwrap();
        send_round(&mut stage, Kind::Good).await;
        let before = ledger(&stage).await;
        stage.machine.kill(Kill::Process).await;
        rot(&stage.machine.disk, &all[all.len() - 3], Rot::Payload);
        stage.machine.start().await;
        let lost = absent(&stage).await;
        assert_eq!(lost.len(), 1);
        let after = ledger(&stage).await;
        assert_eq!((after.stored, after.damaged), (before.stored, 0));
        assert_eq!(after.batches_damaged, 1);
        let range = &stage.machine.engine().control().damage.ranges()[0];
        let rows = {
            let model = stage.world.model.borrow();
            u64::from(model.batches[lost.first().unwrap()].rows)
        };
        assert_eq!((range.rows, range.harmless), (rows, false));
        assert!(range.uncounted().is_empty());
        let contents = read_now(stage.machine.engine(), &stage.machine.archive).await;
        assert_eq!(contents.rows.len() as u64 + rows, after.stored);
        forget("is damaged");
    });
}

#[test]
fn damage_of_what_was_archived_is_harmless() {
    for is_checkpointed in [true, false] {
        simulate(async {
            let mut stage = Stage::set(33, quiet(), 2).await;
            send_round(&mut stage, Kind::Good).await;
            stage.machine.engine().checkpoint().await.unwrap();
            for _ in 0..4 {
                send_round(&mut stage, Kind::Good).await;
            }
            let all = groups(&stage.machine.disk);
            stage.machine.engine().flush_all().await.unwrap();
            if is_checkpointed {
                stage.machine.engine().checkpoint().await.unwrap();
            }
            send_round(&mut stage, Kind::Good).await;
            stage.machine.kill(Kill::Process).await;
            rot(&stage.machine.disk, &all[all.len() - 3], Rot::Payload);
            stage.machine.start().await;
            assert_eq!(absent(&stage).await, BTreeSet::new());
            let totals = stage.machine.engine().control().damage.totals();
            let found = (totals.ranges, totals.harmless_ranges, totals.batches);
            assert_eq!(found, (0, 1, 0), "checkpointed: {is_checkpointed}");
            assert_eq!(ledger(&stage).await.batches_damaged, 0);
            send_round(&mut stage, Kind::Good).await;
            stage.settle().await;
            let all = stage.all();
            stage.check(&all).await;
            forget("is damaged");
        });
    }
}

#[test]
fn batches_whose_schema_rots_are_counted_with_it_and_the_stream_goes_on() {
    simulate(async {
        let mut stage = Stage::set(34, quiet(), 2).await;
        for _ in 0..3 {
            send_round(&mut stage, Kind::Good).await;
        }
        // Registry, then schemas, then batches.
        let all = groups(&stage.machine.disk);
        stage.machine.kill(Kill::Process).await;
        let schemas = all
            .iter()
            .filter(|group| {
                let bytes = stage.machine.disk.content(&group.path).unwrap();
                // The first record's kind.
                matches!(bytes[group.offset + 80 + 13], 4 | 5)
            })
            .collect::<Vec<_>>();
        assert!(!schemas.is_empty());
        for group in schemas {
            rot(&stage.machine.disk, group, Rot::Payload);
        }
        stage.machine.start().await;
        let lost = absent(&stage).await;
        assert_eq!(lost, stage.all(), "nothing can be read without its schema");
        let counted = ledger(&stage).await;
        assert_eq!(counted.batches_damaged, lost.len() as u64);
        for round in 0..2 {
            send_round(&mut stage, Kind::Good).await;
            stage.settle().await;
            let must: BTreeSet<i64> = stage.all().difference(&lost).copied().collect();
            stage.check(&must).await;
            if round == 1 {
                stage.machine.engine().flush_all().await.unwrap();
                stage.machine.engine().checkpoint().await.unwrap();
            }
            stage.machine.kill(Kill::Process).await;
            stage.machine.start().await;
            stage.check(&must).await;
            let now = ledger(&stage).await;
            assert_eq!(now.batches_damaged, counted.batches_damaged);
            assert!(stage.machine.engine().report().damaged.is_empty());
        }
        forget("is damaged");
    });
}

#[test]
fn a_segment_that_is_missing_in_the_middle_is_damage() {
    simulate(async {
        let mut options = quiet();
        options.log.segment_bytes = 4 << 10;
        let mut stage = Stage::set(35, options, 2).await;
        for _ in 0..10 {
            send_round(&mut stage, Kind::Good).await;
        }
        let all = groups(&stage.machine.disk);
        let paths: BTreeSet<&PathBuf> = all.iter().map(|group| &group.path).collect();
        assert!(paths.len() > 4);
        let missing = (*paths.iter().nth(3).unwrap()).clone();
        stage.machine.kill(Kill::Process).await;
        stage.machine.disk.unlink(&missing).unwrap();
        stage
            .machine
            .disk
            .sync_dir(&PathBuf::from("/data/log"))
            .unwrap();
        stage.machine.start().await;
        let lost = absent(&stage).await;
        assert!(!lost.is_empty() && lost.len() < stage.all().len());
        let totals = stage.machine.engine().control().damage.totals();
        assert_eq!((totals.ranges, totals.batches), (1, lost.len() as u64));
        let must: BTreeSet<i64> = stage.all().difference(&lost).copied().collect();
        stage.check(&must).await;
        forget("is damaged");
    });
}
