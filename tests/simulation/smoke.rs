//! The thin path: one device, one batch.

use crate::{
    contents::read_now,
    device::{Device, World},
    machine::{Kill, Machine, options},
    model::Kind,
    simulate::simulate,
};

#[test]
fn a_batch_is_acknowledged_and_visible_and_survives_power_loss() {
    simulate(async {
        let mut machine = Machine::new(1, options());
        machine.start().await;
        let world = World::new(&machine);
        let mut device = Device::new(&machine, &world, 0, 1);
        device.start().await;
        for kind in [
            Kind::Good,
            Kind::WrongType,
            Kind::SomeRows,
            Kind::NoTime,
            Kind::Grown,
        ] {
            device.send("readings", kind).await;
        }
        device.flush().await;
        let must = world.model.borrow().acknowledged();
        assert_eq!(must.len(), 5);
        let contents = read_now(machine.engine(), &machine.archive).await;
        world.model.borrow().check(&contents, &must);
        machine.kill(Kill::Power).await;
        machine.start().await;
        let contents = read_now(machine.engine(), &machine.archive).await;
        world.model.borrow().check(&contents, &must);
    });
}
