//! The random scenario: devices that live their lives while everything around them breaks.

use std::{cell::Cell, collections::BTreeSet, rc::Rc, time::Duration};

use quiver_log::sim::{FaultKind, SimOp};
use quiver_model::SenderId;
use quiver_runtime::registry::{RegistryChange, RegistryEntry};

use crate::{
    archive::Fate,
    audit,
    contents::{read, read_now},
    device::{Device, World, address_of, sender_of},
    machine::{Kill, Machine, options, server_address},
    model::Kind,
    seeded::{Random, derive},
    watch::say,
};

const STREAMS: [&str; 3] = ["readings", "engine", "doors"];
/// How long the devices are active and things break.
const SPAN: Duration = Duration::from_secs(60);

/// What a run was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Packets sent, of those lost, and the hash of them all.
    pub trace: (u64, u64, u64),
    /// Batches sent.
    pub batches: usize,
    /// Times the engine was started.
    pub starts: u64,
    /// Simulated time.
    pub time: Duration,
}

/// A device's life: sends, and now and then crashes, until told to rest.
async fn live(mut device: Device, is_over: Rc<Cell<bool>>) -> Device {
    let own_streams = 1 + device.random.below(STREAMS.len() as u64) as usize;
    while !is_over.get() {
        let pause = device.random.millis(50, 4_000);
        tokio::time::sleep(pause).await;
        let stream = STREAMS[device.random.below(own_streams as u64) as usize];
        match device.random.below(100) {
            0..60 => {
                device.send(stream, Kind::Good).await;
            }
            60..72 => {
                for _ in 0..device.random.between(2, 8) {
                    device.send(stream, Kind::Good).await;
                }
            }
            72..76 => {
                device.send(stream, Kind::Grown).await;
            }
            76..80 => {
                device.send(stream, Kind::WrongType).await;
            }
            80..83 => {
                device.send(stream, Kind::NoTime).await;
            }
            83..87 => {
                device.send(stream, Kind::SomeRows).await;
            }
            87..91 => {
                device.crash();
                pause_and_start(&mut device).await;
            }
            91..94 => {
                device.crash_while_sending(stream).await;
                pause_and_start(&mut device).await;
            }
            94..96 => device.copy_spool(),
            96..98 => {
                if device.restore_spool() {
                    pause_and_start(&mut device).await;
                }
            }
            _ => device.twin(stream).await,
        }
    }
    device
}

async fn pause_and_start(device: &mut Device) {
    let pause = device.random.millis(0, 3_000);
    tokio::time::sleep(pause).await;
    device.start().await;
}

/// What happens to the server, one thing after the other.
struct Chaos {
    machine: Machine,
    world: Rc<World>,
    random: Random,
    starts: u64,
    devices: usize,
}

impl Chaos {
    /// Does something with the engine, as long as it lives.
    async fn as_long_as_it_lives<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let life = self.machine.running().life.clone();
        let in_time = tokio::time::timeout(Duration::from_secs(20), work);
        tokio::select! {
            biased;
            () = life.ended() => None,
            done = in_time => done.ok(),
        }
    }

    /// The engine is started again, on other shards, and what it has is compared before anybody
    /// may connect: then nothing moves.
    async fn start(&mut self) {
        let pause = self.random.millis(0, 4_000);
        tokio::time::sleep(pause).await;
        self.machine.options.shard_count = self.random.between(1, 5) as u16;
        if self.random.chance(200) {
            // The power fails again while it recovers.
            self.machine.disk.power_off_at(self.random.between(1, 20));
        }
        loop {
            self.machine.start_with(false).await;
            self.starts += 1;
            if !self.machine.running().life.is_over() {
                break;
            }
            self.machine.kill(Kill::Power).await;
        }
        self.machine.disk.clear_faults();
        let must = self.world.model.borrow().acknowledged();
        let model = self.world.model.borrow().clone();
        audit::check_at_rest(&self.machine, &model, &must).await;
        self.machine.serve();
    }

    async fn kill_and_start(&mut self, how: Kill) {
        self.machine.kill(how).await;
        self.start().await;
    }

    /// What a query sees now: everything that was acknowledged when it began.
    async fn query(&mut self) {
        let must = self.world.model.borrow().acknowledged();
        let engine = self.machine.engine();
        let q = engine.progress().committed();
        let applied = engine.progress().wait_applied(q);
        if self.as_long_as_it_lives(applied).await.is_none() {
            return;
        }
        // Between the choice of Q and the reading of the tables anything may happen.
        let pause = self.random.millis(0, 300);
        tokio::time::sleep(pause).await;
        let tables = self.machine.engine().tables();
        let contents = read(tables, &self.machine.archive, q);
        self.world.model.borrow().check(&contents, &must);
    }

    /// What an audit finds while everything goes on: ledgers and contents as of one position.
    async fn audit(&self) {
        let engine = self.machine.engine();
        let asked = self.as_long_as_it_lives(engine.ledgers_at_barrier()).await;
        if let Some(Ok((q, ledgers))) = asked
            && let applied = engine.progress().wait_applied(q)
            && self.as_long_as_it_lives(applied).await.is_some()
        {
            let contents = read(engine.tables(), &self.machine.archive, q);
            audit::compare_ledgers(ledgers, &contents);
        }
    }

    async fn flush(&self) {
        let flushed = self
            .as_long_as_it_lives(self.machine.engine().flush_all())
            .await;
        say(&format!("flushed: {flushed:?}"));
    }

    fn one_of<T>(&mut self, one: T, other: T) -> T {
        if self.random.chance(500) { one } else { other }
    }

    /// One thing that happens.
    async fn event(&mut self) {
        let pause = self.random.millis(200, 4_000);
        tokio::time::sleep(pause).await;
        match self.random.below(24) {
            0 | 1 => self.kill_and_start(Kill::Power).await,
            2 => self.kill_and_start(Kill::Process).await,
            3..6 => {
                let nth = self.random.between(1, 30);
                say(&format!("power will fail at call {nth}"));
                self.machine.disk.power_off_at(nth);
            }
            6 => {
                let packets = self.random.between(0, 100);
                self.machine.running().life.end_after_packets(packets);
            }
            7 | 8 => {
                let fate = self.one_of(Fate::Dies, Fate::CommitsAndDies);
                self.machine.running().decide_flush(fate);
                self.flush().await;
            }
            9 => {
                for _ in 0..self.random.between(1, 3) {
                    let fate = self.one_of(Fate::Fails, Fate::CommitsAndFails);
                    self.machine.running().decide_flush(fate);
                }
                self.flush().await;
            }
            10 => {
                // A flush that hangs holds up all the others, until memory is used up.
                let fate = self.one_of(Fate::Hangs, Fate::CommitsAndHangs);
                self.machine.running().decide_flush(fate);
                self.flush().await;
                self.kill_and_start(Kill::Process).await;
            }
            11 | 12 => self.flush().await,
            13 => {
                let taken = self
                    .as_long_as_it_lives(self.machine.engine().checkpoint())
                    .await;
                say(&format!("checkpoint: {taken:?}"));
            }
            14 | 15 => self.query().await,
            16 => self.audit().await,
            17 | 18 => {
                for _ in 0..self.random.between(1, self.devices as u64 / 2) {
                    let device = self.random.below(self.devices as u64) as usize;
                    self.partition(address_of(device));
                }
            }
            19 => self.partition(server_address().ip()),
            20 => {
                let used = self.machine.disk.used();
                say("the disk is full");
                self.machine.disk.set_capacity(Some(used));
                let pause = self.random.millis(500, 5_000);
                tokio::time::sleep(pause).await;
                say("the disk has space again");
                self.machine.disk.set_capacity(None);
            }
            21 => {
                let stopped = self.machine.stop().await;
                say(&format!("stopped: {stopped:?}"));
                self.start().await;
            }
            22 if self.random.chance(500) => {
                let ahead = self.random.millis(0, 7_200_000);
                say(&format!("the wall clock steps to {ahead:?} ahead"));
                self.machine.clock.step_wall(ahead);
            }
            22 => self.fail_sync().await,
            _ => self.revoke().await,
        }
        let running = self.machine.running();
        if running.life.is_over() {
            self.kill_and_start(Kill::Power).await;
        }
    }

    fn partition(&mut self, machine: std::net::IpAddr) {
        let fabric = self.world.fabric.clone();
        let pause = self.random.millis(500, 12_000);
        say(&format!("{machine} is cut off for {pause:?}"));
        fabric.cut(machine);
        actix_rt::spawn(async move {
            tokio::time::sleep(pause).await;
            fabric.heal(machine);
        });
    }

    /// An fsync fails: nothing may be acknowledged any more, and the engine says so.
    async fn fail_sync(&mut self) {
        say("the next fdatasync fails");
        let disk = self.machine.disk.clone();
        disk.fail_nth(Some(SimOp::SyncData), 1, FaultKind::Io);
        let failed = self.machine.engine().failed();
        if self.as_long_as_it_lives(failed).await.is_some() {
            self.kill_and_start(Kill::Process).await;
        }
        disk.clear_faults();
    }

    async fn revoke(&mut self) {
        let sender = sender_of(self.random.below(self.devices as u64) as usize);
        say(&format!("{sender} is revoked"));
        let revoked = RegistryChange::Revoke {
            id: sender.id.to_string(),
            kind: sender.kind.as_str().to_owned(),
        };
        let engine = self.machine.engine();
        self.as_long_as_it_lives(engine.change_registry(revoked))
            .await;
        let pause = self.random.millis(0, 3_000);
        tokio::time::sleep(pause).await;
        self.enroll(&sender).await;
    }

    /// Enrolls a sender (again). Tried until it is durable.
    async fn enroll(&mut self, sender: &SenderId) {
        loop {
            let entry = RegistryEntry::new(sender, self.machine.engine().now());
            let change = RegistryChange::Put { entry };
            let changed = self.machine.engine().change_registry(change);
            match self.as_long_as_it_lives(changed).await {
                Some(Ok(())) => return,
                Some(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                None => self.kill_and_start(Kill::Power).await,
            }
        }
    }
}

/// Runs the scenario.
pub async fn run(seed: u64, device_count: usize) -> Report {
    let start = tokio::time::Instant::now();
    let mut machine = Machine::new(seed, options());
    let mut random = Random::new(derive(seed, 50));
    machine.options.memory_bytes = 256 << (10 + random.below(6));
    machine.start().await;
    let world = World::new(&machine);
    let mut devices: Vec<Device> = (0..device_count)
        .map(|index| Device::new(&machine, &world, index, seed))
        .collect();
    // A stream learns its types from its first batch, which so must be a good one.
    devices[0].start().await;
    for stream in STREAMS {
        devices[0].send(stream, Kind::Good).await;
    }
    devices[0].flush().await;
    let is_over = Rc::new(Cell::new(false));
    let mut lives = Vec::new();
    for mut device in devices {
        if device.index > 0 {
            device.start().await;
        }
        lives.push(actix_rt::spawn(live(device, is_over.clone())));
    }
    let mut chaos = Chaos {
        machine,
        world,
        random,
        starts: 1,
        devices: device_count,
    };
    while start.elapsed() < SPAN {
        chaos.event().await;
    }
    rest(&mut chaos).await;
    is_over.set(true);
    let mut devices = Vec::new();
    for life in lives {
        let device = tokio::time::timeout(Duration::from_secs(900), life).await;
        devices.push(device.expect("a device's send returns").unwrap());
    }
    for device in &mut devices {
        device.flush().await;
    }
    finish(&mut chaos).await;
    for device in &mut devices {
        device.close().await;
    }
    Report {
        trace: chaos.world.fabric.trace(),
        batches: chaos.world.model.borrow().batches.len(),
        starts: chaos.starts,
        time: start.elapsed(),
    }
}

/// Nothing breaks any more.
async fn rest(chaos: &mut Chaos) {
    say("nothing breaks any more");
    chaos.machine.disk.clear_faults();
    chaos.machine.disk.set_capacity(None);
    chaos.machine.running().life.end_after_packets(u64::MAX);
    if chaos.machine.running().life.is_over() || chaos.machine.engine_has_failed().await {
        chaos.kill_and_start(Kill::Power).await;
    }
}

/// Everything that clients have kept is stored, and stays so.
async fn finish(chaos: &mut Chaos) {
    let must: BTreeSet<i64> = {
        let model = chaos.world.model.borrow();
        let spooled = model.batches.iter().filter(|(_, sent)| sent.is_spooled);
        spooled
            .map(|(batch, _)| *batch)
            .chain(model.acknowledged())
            .collect()
    };
    let machine = &mut chaos.machine;
    let contents = read_now(machine.engine(), &machine.archive).await;
    chaos.world.model.borrow().check(&contents, &must);
    machine.kill(Kill::Power).await;
    audit::check_log(&machine.disk, &machine.options);
    for how in 0..2 {
        machine.options.shard_count = chaos.random.between(1, 6) as u16;
        machine.start_with(false).await;
        let model = chaos.world.model.borrow().clone();
        audit::check_at_rest(machine, &model, &must).await;
        if how == 0 {
            machine.stop().await.unwrap();
        } else {
            machine.kill(Kill::Process).await;
        }
    }
}
