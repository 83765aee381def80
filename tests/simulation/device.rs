//! A device: the real SDK on a simulated socket, with a spool that survives its crashes.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use quiver_client::{
    BackoffOptions, Client, ClientOptions, Compression, MemoryDirectory, SpoolOptions, Transport,
    WhenFull, Window,
};
use quiver_model::{Clock, DeviceId, SenderId};

use crate::{
    batches::batch,
    fabric::{Fabric, endpoint_config},
    life::Life,
    machine::{Machine, SERVER_NAME, server_address},
    model::{Kind, Model, Sent, device_name},
    seeded::{Random, SeededEntropy, derive},
    watch::say,
};

/// What devices and the checker share.
pub struct World {
    pub model: RefCell<Model>,
    pub fabric: Fabric,
    clock: Arc<dyn Clock>,
    next_batch: Cell<i64>,
    grown: Cell<u32>,
}

/// Fields that a stream grows by, at most.
const GROWN_MAX: u32 = 10;

impl World {
    pub fn new(machine: &Machine) -> Rc<Self> {
        Rc::new(Self {
            model: RefCell::default(),
            fabric: machine.fabric.clone(),
            clock: machine.clock.clone(),
            next_batch: Cell::new(0),
            grown: Cell::new(0),
        })
    }
}

/// A device.
pub struct Device {
    pub index: usize,
    pub random: Random,
    world: Rc<World>,
    tls: rustls::ClientConfig,
    seed: u64,
    /// Its spool's disk; `None` for a device without one.
    disk: Option<MemoryDirectory>,
    copy: Option<MemoryDirectory>,
    client: Option<Client>,
    life: Arc<Life>,
    incarnation: u64,
}

/// The identity of a device.
pub fn sender_of(device: usize) -> SenderId {
    SenderId::device(DeviceId::new(&device_name(device)).unwrap())
}

/// The address of a device's machine.
pub fn address_of(device: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, device as u8 + 1))
}

impl Device {
    /// A device that is not started yet.
    pub fn new(machine: &Machine, world: &Rc<World>, index: usize, seed: u64) -> Self {
        Self::with_identity(machine, world, index, seed, &sender_of(index))
    }

    /// One with another identity than its own.
    pub fn with_identity(
        machine: &Machine,
        world: &Rc<World>,
        index: usize,
        seed: u64,
        sender: &SenderId,
    ) -> Self {
        let seed = derive(seed, 1_000 + index as u64);
        let credential = machine.issue(sender);
        let tls = quiver_pki::ClientTls::new(credential);
        let tls = quiver_pki::rustls_client_config(tls, machine.clock.clone()).unwrap();
        Self {
            index,
            random: Random::new(seed),
            world: world.clone(),
            tls,
            seed,
            disk: (index % 5 != 4).then(MemoryDirectory::new),
            copy: None,
            client: None,
            life: Arc::new(Life::new(None)),
            incarnation: 0,
        }
    }

    /// Gives it an empty spool, before it is started.
    pub fn give_spool(&mut self) {
        self.disk = Some(MemoryDirectory::new());
    }

    fn options(&self, life: &Arc<Life>) -> ClientOptions {
        let port = 1_000 + self.incarnation as u16;
        let address = SocketAddr::from((address_of(self.index), port));
        let seed = derive(self.seed, self.incarnation);
        ClientOptions {
            instance: Some(77),
            spool: self.disk.as_ref().map(|disk| SpoolOptions {
                when_full: WhenFull::Wait,
                ..SpoolOptions::with(Arc::new(disk.clone()))
            }),
            window: Window {
                bytes: 256 << 10,
                batches: 16,
            },
            backlog_after: Duration::from_secs(6),
            connect_timeout: Duration::from_secs(5),
            backoff: BackoffOptions {
                first: Duration::from_millis(500),
                max: Duration::from_secs(4),
                reset_after: Duration::from_secs(5),
            },
            transport: Transport::Socket {
                socket: self.world.fabric.bind(address, life.clone()),
                config: endpoint_config(seed),
            },
            entropy: Arc::new(SeededEntropy::new(derive(seed, 5))),
            observer: Some(Arc::new({
                let name = device_name(self.index);
                move |event: &quiver_client::ClientEvent| say(&format!("{name} {event:?}"))
            })),
            // All that clients may use, each with a spool and without.
            compression: [
                Compression::Lz4,
                Compression::ZstdMessage,
                Compression::None,
                Compression::Zstd,
                Compression::Compact,
            ][(self.index + self.index / 5) % 5],
            ..ClientOptions::new(server_address(), SERVER_NAME, self.tls.clone())
        }
    }

    /// Starts its client.
    pub async fn start(&mut self) {
        self.incarnation += 1;
        self.life = Arc::new(Life::new(None));
        let options = self.options(&self.life);
        self.client = Some(Client::connect(options).await.unwrap());
    }

    /// The client.
    ///
    /// # Panics
    /// If it is not started.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("the device is started")
    }

    /// The power fails: the client is gone, and of its spool what was not synced.
    pub fn crash(&mut self) {
        say(&format!("{} crashes", device_name(self.index)));
        self.life.end();
        self.client = None;
        let random = &mut self.random;
        self.disk = self
            .disk
            .take()
            .map(|disk| disk.crash(|unsynced| random.below(unsynced as u64 + 1) as usize));
        if self.disk.is_none() {
            self.forget_unsettled();
        }
    }

    /// What was not settled may be lost from now on.
    fn forget_unsettled(&self) {
        let mut model = self.world.model.borrow_mut();
        for sent in model.batches.values_mut() {
            if sent.device == self.index && sent.settled.is_none() {
                sent.is_spooled = false;
            }
        }
    }

    /// Copies the spool, if nothing in it waits: what is in a copy and unsettled could not be told
    /// from new rows later.
    pub fn copy_spool(&mut self) {
        if self.client().status().unsettled == 0 {
            self.copy = self.disk.as_ref().map(MemoryDirectory::copy);
        }
    }

    /// The device is replaced by one with the copy of its spool. Whether there was one.
    pub fn restore_spool(&mut self) -> bool {
        let Some(copy) = self.copy.as_ref().map(MemoryDirectory::copy) else {
            return false;
        };
        say(&format!("{} restores its spool", device_name(self.index)));
        self.life.end();
        self.client = None;
        self.disk = Some(copy);
        self.forget_unsettled();
        true
    }

    /// Another client of the same identity and instance, without a spool, takes over for a while.
    pub async fn twin(&mut self, stream: &str) {
        say(&format!("{} has a twin", device_name(self.index)));
        self.incarnation += 1;
        let life = Arc::new(Life::new(None));
        let options = ClientOptions {
            spool: None,
            ..self.options(&life)
        };
        let twin = Client::connect(options).await.unwrap();
        for _ in 0..3 {
            let id = self.send_by(&twin, stream, Kind::Good).await;
            // Its batches are lost with it, unless they are settled.
            self.world
                .model
                .borrow_mut()
                .batches
                .get_mut(&id)
                .unwrap()
                .is_spooled = false;
        }
        let pause = self.random.millis(500, 4_000);
        // Elapsed is no error: it may well be thrown out itself.
        let _ = tokio::time::timeout(pause, twin.flush()).await;
        life.end();
    }

    /// Sends a batch; its number. It is durable on this side afterwards.
    pub async fn send(&mut self, stream: &str, kind: Kind) -> i64 {
        let client = self.client.take().expect("the device is started");
        let id = self.send_by(&client, stream, kind).await;
        self.client = Some(client);
        id
    }

    async fn send_by(&mut self, client: &Client, stream: &str, kind: Kind) -> i64 {
        let (id, batch) = self.new_batch(stream, kind);
        let handle = client.stream(stream).unwrap().send(&batch).await.unwrap();
        let world = self.world.clone();
        if let Some(sent) = world.model.borrow_mut().batches.get_mut(&id) {
            sent.is_spooled = true;
        }
        actix_rt::spawn(async move {
            // An error means that the client is gone: its successor sends the batch.
            if let Ok(settled) = handle.await {
                say(&format!("batch {id}: {settled:?}"));
                let mut model = world.model.borrow_mut();
                model.batches.get_mut(&id).unwrap().settled = Some(settled);
            }
        });
        id
    }

    /// Begins to send a batch, and crashes after a few turns of the scheduler.
    pub async fn crash_while_sending(&mut self, stream: &str) {
        let (_, batch) = self.new_batch(stream, Kind::Good);
        let stream = self.client().stream(stream).unwrap();
        let turns = self.random.below(6);
        let few_turns = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = stream.send(&batch) => {}
            () = few_turns => {}
        }
        self.crash();
    }

    fn new_batch(&mut self, stream: &str, kind: Kind) -> (i64, arrow_array::RecordBatch) {
        let world = &self.world;
        let id = world.next_batch.get();
        world.next_batch.set(id + 1);
        let rows = self.random.between(3, 40) as u32;
        if kind == Kind::Grown {
            world.grown.set((world.grown.get() + 1).min(GROWN_MAX));
        }
        let (grown, now) = (world.grown.get(), world.clock.wall());
        let batch = batch(id, rows, kind, grown, now, &mut self.random);
        let sent = Sent {
            device: self.index,
            stream: stream.to_owned(),
            rows,
            kind,
            is_spooled: false,
            settled: None,
        };
        say(&format!(
            "{} sends batch {id}: {sent:?}",
            device_name(self.index)
        ));
        world.model.borrow_mut().batches.insert(id, sent);
        (id, batch)
    }

    /// Waits until the server has everything, and the model knows.
    pub async fn flush(&self) {
        let flushed = tokio::time::timeout(Duration::from_secs(900), self.client().flush()).await;
        let Ok(flushed) = flushed else {
            panic!(
                "{} is stuck: {:?}",
                device_name(self.index),
                self.client().status()
            );
        };
        flushed.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// Closes the client in order.
    pub async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
    }
}
