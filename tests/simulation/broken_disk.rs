//! A disk that is full, fails, or loses power at every call there is.

use std::time::Duration;

use quiver_log::sim::{FaultKind, SimOp};

use crate::{
    machine::{Kill, options},
    model::Kind,
    simulate::simulate,
    stage::Stage,
};

#[test]
fn a_failed_commit_group_and_its_successors_are_stored_once_after_space_returns_without_a_restart()
{
    for kind in [FaultKind::NoSpace, FaultKind::ShortWrite] {
        simulate(async {
            let mut stage = Stage::set(7, options(), 8).await;
            for device in &mut stage.devices {
                device.send("readings", Kind::Good).await;
            }
            stage.settle().await;
            let metrics = stage.machine.engine().metrics().clone();
            stage.machine.disk.fail_from(Some(SimOp::Write), 1, kind);
            for round in 0..10 {
                for device in &mut stage.devices {
                    let is_bad = round == 5;
                    let kind = if is_bad { Kind::WrongType } else { Kind::Good };
                    device.send("readings", kind).await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            let stored = stage.world.model.borrow().acknowledged();
            assert_eq!(stored.len(), 8, "nothing was acknowledged meanwhile");
            assert!(metrics.commit_failures.get() > 1);
            assert!(!stage.machine.engine_has_failed().await);
            stage.machine.disk.clear_faults();
            stage.settle().await;
            let all = stage.all();
            stage.check(&all).await;
            stage.check_after(Kill::Power, &all).await;
        });
    }
}

#[test]
fn a_group_that_fails_once_takes_those_queued_behind_it_with_it() {
    simulate(async {
        let mut options = options();
        // A group takes a batch or two, so that more groups than one are queued.
        options.log.group_bytes_max = 8 << 10;
        let mut stage = Stage::set(14, options, 4).await;
        for device in &mut stage.devices {
            device.send("readings", Kind::Good).await;
        }
        stage.settle().await;
        let metrics = stage.machine.engine().metrics().clone();
        for round in 1..=10 {
            stage
                .machine
                .disk
                .fail_nth(Some(SimOp::Write), round, FaultKind::NoSpace);
            for device in &mut stage.devices {
                for _ in 0..8 {
                    device.send("readings", Kind::Good).await;
                }
            }
            stage.settle().await;
        }
        assert!(metrics.commit_failures.get() >= 5);
        let all = stage.all();
        stage.check(&all).await;
        stage.check_after(Kill::Power, &all).await;
    });
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_and_the_engine_says_so() {
    for how in [Kill::Process, Kill::Power] {
        simulate(async {
            let mut stage = Stage::set(8, options(), 4).await;
            for device in &mut stage.devices {
                device.send("readings", Kind::Good).await;
            }
            stage.settle().await;
            let before = stage.world.model.borrow().acknowledged();
            let disk = stage.machine.disk.clone();
            disk.fail_nth(Some(SimOp::SyncData), 1, FaultKind::Io);
            for _ in 0..5 {
                for device in &mut stage.devices {
                    device.send("readings", Kind::Good).await;
                }
            }
            let failed = stage.machine.engine().failed();
            let failed = tokio::time::timeout(Duration::from_secs(30), failed).await;
            assert!(failed.is_ok(), "a failed fsync is fatal");
            tokio::time::sleep(Duration::from_secs(10)).await;
            let acknowledged = stage.world.model.borrow().acknowledged();
            assert_eq!(
                acknowledged, before,
                "an fsync that succeeds later proves nothing"
            );
            stage.machine.kill(how).await;
            stage.machine.start().await;
            stage.settle().await;
            let all = stage.all();
            stage.check(&all).await;
            stage.check_after(Kill::Power, &all).await;
        });
    }
}

/// A short life of an engine: batches, a flush, a checkpoint, batches; then everything is there.
/// The power fails at call `nth` of the disk. Whether it came to that.
async fn live_with_power_failure_at(nth: u64) -> bool {
    let mut stage = Stage::set(9, options(), 2).await;
    for device in &mut stage.devices {
        device.send("readings", Kind::Good).await;
    }
    stage.settle().await;
    let disk = stage.machine.disk.clone();
    disk.power_off_at(nth);
    let life = stage.machine.running().life.clone();
    let work = async {
        for kind in [Kind::Grown, Kind::SomeRows, Kind::WrongType] {
            for device in &mut stage.devices {
                device.send("readings", kind).await;
            }
        }
        for device in &stage.devices {
            device.flush().await;
        }
        let engine = stage.machine.engine();
        let _ = engine.flush_all().await;
        let _ = engine.checkpoint().await;
        stage.devices[0].send("engine", Kind::Good).await;
        stage.devices[0].flush().await;
        let _ = engine.checkpoint().await;
    };
    tokio::select! {
        biased;
        () = life.ended() => {}
        () = work => {}
    }
    let has_struck = disk.is_off();
    disk.clear_faults();
    let must = stage.world.model.borrow().acknowledged();
    stage.check_after(Kill::Power, &must).await;
    stage.settle().await;
    let all = stage.all();
    let spooled: std::collections::BTreeSet<i64> = {
        let model = stage.world.model.borrow();
        all.into_iter()
            .filter(|batch| model.batches[batch].is_spooled)
            .collect()
    };
    stage.check(&spooled).await;
    stage.check_after(Kill::Process, &spooled).await;
    has_struck
}

#[test]
fn power_may_fail_at_every_call_of_the_disk() {
    let mut nth = 1;
    while simulate(live_with_power_failure_at(nth)) {
        nth += 1;
    }
    assert!(nth > 20, "only {nth} calls were made");
}
