//! What the tests of one thing begin with: a machine whose engine runs, and some devices.

use std::{collections::BTreeSet, rc::Rc};

use quiver_runtime::EngineOptions;

use crate::{
    audit,
    contents::read_now,
    device::{Device, World},
    machine::{Kill, Machine},
};

/// A machine, its engine, and devices.
pub struct Stage {
    pub machine: Machine,
    pub world: Rc<World>,
    pub devices: Vec<Device>,
}

impl Stage {
    /// With devices that are started, all with spools.
    pub async fn set(seed: u64, options: EngineOptions, devices: usize) -> Self {
        let mut machine = Machine::new(seed, options);
        machine.start().await;
        let world = World::new(&machine);
        let mut stage = Self {
            devices: Vec::new(),
            machine,
            world,
        };
        for index in 0..devices {
            let mut device = Device::new(&stage.machine, &stage.world, index, seed);
            device.give_spool();
            device.start().await;
            stage.devices.push(device);
        }
        stage
    }

    /// Waits until every device's batches are settled.
    pub async fn settle(&self) {
        for device in &self.devices {
            device.flush().await;
        }
    }

    /// Numbers of all batches.
    pub fn all(&self) -> BTreeSet<i64> {
        self.world.model.borrow().batches.keys().copied().collect()
    }

    /// Everything of `must` is visible, and nothing that was not sent.
    pub async fn check(&self, must: &BTreeSet<i64>) {
        let contents = read_now(self.machine.engine(), &self.machine.archive).await;
        self.world.model.borrow().check(&contents, must);
    }

    /// The same after the engine was killed and started again, on other shards, and of ledgers,
    /// last values and the log besides.
    pub async fn check_after(&mut self, kill: Kill, must: &BTreeSet<i64>) {
        self.machine.kill(kill).await;
        audit::check_log(&self.machine.disk, &self.machine.options);
        self.machine.options.shard_count = self.machine.options.shard_count % 4 + 1;
        self.machine.start_with(false).await;
        let model = self.world.model.borrow().clone();
        audit::check_at_rest(&self.machine, &model, must).await;
        self.machine.serve();
    }
}
