//! Flushes at awkward moments.

use std::time::Duration;

use quiver_hot::Share;
use quiver_model::StreamName;
use quiver_runtime::EngineOptions;

use crate::{
    archive::Fate,
    contents::read,
    machine::{Kill, options},
    model::{Contents, Kind},
    simulate::simulate,
    stage::Stage,
};

fn sorted(mut contents: Contents) -> Contents {
    contents.rows.sort();
    contents.rejects.sort_by_key(|reject| reject.position);
    contents
}

#[test]
fn a_flush_between_the_choice_of_q_and_the_read_of_a_table_changes_nothing() {
    simulate(async {
        let mut stage = Stage::set(4, options(), 3).await;
        for kind in [Kind::Good, Kind::SomeRows, Kind::WrongType, Kind::Grown] {
            for device in &mut stage.devices {
                device.send("readings", kind).await;
            }
        }
        stage.settle().await;
        let progress = stage.machine.engine().progress().clone();
        let q = progress.committed();
        progress.wait_applied(q).await;
        let tables = stage.machine.engine().tables().clone();
        let read_at_q = || sorted(read(&tables, &stage.machine.archive, q));
        let first = read_at_q();
        assert!(!first.rows.is_empty() && !first.rejects.is_empty());

        // A flush at Q; then rows beyond Q in memory; then those in the archive as well.
        stage.machine.engine().flush_all().await.unwrap();
        let after_flush = read_at_q();
        for device in &mut stage.devices {
            device.send("readings", Kind::Grown).await;
            device.send("readings", Kind::SomeRows).await;
            device.flush().await;
        }
        let with_newer = read_at_q();
        stage.machine.engine().flush_all().await.unwrap();
        let beyond = sorted(read(&tables, &stage.machine.archive, q));
        for later in [after_flush, with_newer, beyond] {
            assert_eq!(later.rows, first.rows);
            assert_eq!(later.rejects, first.rejects);
        }
        let all = stage.all();
        stage.check(&all).await;
    });
}

#[test]
fn a_shard_at_its_memory_cap_reaches_a_barrier_and_nothing_is_lost() {
    simulate(async {
        let options = EngineOptions {
            shard_count: 3,
            memory_bytes: 96 << 10,
            // Only the cap makes it flush.
            flush_bytes: usize::MAX,
            flush_age: Duration::from_secs(3_600),
            log_bytes_max: u64::MAX,
            ..options()
        };
        let mut stage = Stage::set(5, options, 6).await;
        let budget = stage.machine.engine().budget().clone();
        let metrics = stage.machine.engine().metrics().clone();
        let most = std::rc::Rc::new(std::cell::Cell::new(0));
        actix_rt::spawn({
            let (budget, most) = (budget.clone(), most.clone());
            async move {
                loop {
                    most.set(most.get().max(budget.used(Share::Device)));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        // While memory is used up the archive fails, then does not know, then works.
        for fate in [Fate::Fails, Fate::Fails, Fate::CommitsAndFails] {
            stage.machine.running().decide_flush(fate);
        }
        for _ in 0..40 {
            for device in &mut stage.devices {
                device.send("readings", Kind::Good).await;
            }
        }
        // Barriers by hand, while those that wait for memory still wait.
        while metrics.memory_waits.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let flushed =
            tokio::time::timeout(Duration::from_secs(60), stage.machine.engine().flush_all());
        // It may meet one of the faults; the engine tries again by itself.
        let _ = flushed.await.expect("a barrier passes shards at their cap");
        stage.settle().await;
        assert!(metrics.flushes.get() > 1 && metrics.memory_waits.get() > 0);
        let capacity = budget.capacity(Share::Device);
        assert!(most.get() <= capacity, "{} bytes of {capacity}", most.get());
        let all = stage.all();
        stage.check(&all).await;
        stage.check_after(Kill::Power, &all).await;
    });
}

#[test]
fn refused_rows_are_replayed_when_their_batch_is_archived_and_they_are_not() {
    simulate(async {
        let options = EngineOptions {
            flush_bytes: 8 << 10,
            flush_age: Duration::from_secs(3_600),
            checkpoint_interval: Duration::from_secs(3_600),
            ..options()
        };
        let mut stage = Stage::set(13, options, 1).await;
        for kind in [Kind::SomeRows, Kind::WrongType] {
            stage.devices[0].send("readings", kind).await;
        }
        for _ in 0..20 {
            stage.devices[0].send("readings", Kind::Good).await;
        }
        stage.settle().await;
        // The stream is flushed by its size; its rejects are too few for that.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let unflushed = |stage: &Stage, name: StreamName| {
            let table = stage.machine.engine().tables().table(&name).unwrap();
            table.stats().oldest_position
        };
        let readings = unflushed(&stage, StreamName::new("readings").unwrap());
        let rejects = unflushed(&stage, StreamName::rejects()).unwrap();
        assert!(readings.is_none_or(|position| position > rejects));
        stage.machine.engine().checkpoint().await.unwrap();
        let all = stage.all();
        stage.check_after(Kill::Power, &all).await;
    });
}
