//! A spool restored from an older copy: its sequences name other bytes than the server has.

use crate::{
    machine::{Kill, options},
    model::Kind,
    simulate::simulate,
    stage::Stage,
};

#[test]
fn a_spool_restored_from_an_older_copy_overwrites_nothing_and_loses_nothing() {
    simulate(async {
        let mut stage = Stage::set(6, options(), 1).await;
        stage.devices[0].send("readings", Kind::Good).await;
        stage.settle().await;
        stage.devices[0].copy_spool();
        for _ in 0..5 {
            stage.devices[0].send("readings", Kind::Good).await;
        }
        stage.settle().await;
        let before = stage.all();
        assert!(stage.devices[0].restore_spool());
        stage.devices[0].start().await;
        // Its spool says that the next is batch 1; the server has six.
        for kind in [Kind::Good, Kind::WrongType, Kind::Good] {
            stage.devices[0].send("readings", kind).await;
        }
        stage.settle().await;
        let all = stage.all();
        assert_eq!(all.len(), before.len() + 3);
        stage.check(&all).await;
        // And once more with a server that was restarted meanwhile.
        stage.check_after(Kill::Power, &all).await;
        assert!(stage.devices[0].restore_spool());
        stage.devices[0].start().await;
        stage.devices[0].send("readings", Kind::Good).await;
        stage.settle().await;
        let all = stage.all();
        stage.check(&all).await;
    });
}
