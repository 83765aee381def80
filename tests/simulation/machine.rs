//! The server's machine: a disk and an archive that outlive the engine, and one incarnation of the
//! engine after the other.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use quinn::{Endpoint, TokioRuntime};
use quiver_hot::MemoryArchive;
use quiver_log::{LogOptions, sim::SimVfs};
use quiver_pki::{CA_LIFETIME, Credential, DevelopmentCa, KeyKind, Request, Validity};
use quiver_runtime::{BoxFuture, Engine, EngineOptions, Environment, Spawner, StartError};
use tokio::task::AbortHandle;

use crate::{
    archive::{Fate, SimArchive},
    fabric::{Fabric, endpoint_config},
    life::Life,
    seeded::{Random, SeededEntropy, SimClock, derive},
    slow::Slow,
    watch::say,
};

/// Where the engine listens.
pub const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 4433);
/// The name in its certificate.
pub const SERVER_NAME: &str = "localhost";

pub fn server_address() -> SocketAddr {
    SocketAddr::from(SERVER)
}

/// Everything of the engine that runs by itself, on this thread, and can be made to stop.
struct SimSpawner {
    tasks: Mutex<Vec<AbortHandle>>,
    seed: u64,
}

impl SimSpawner {
    fn keep(&self, task: &tokio::task::JoinHandle<()>) {
        let mut tasks = self.tasks.lock().unwrap();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    fn abort_all(&self) {
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

impl Spawner for SimSpawner {
    fn shard_arbiter(&self, _: quiver_model::ShardId) -> actix_rt::ArbiterHandle {
        actix_rt::Arbiter::current()
    }

    fn spawn_commit(&self, commit: quiver_runtime::commit::CommitLoop) -> std::io::Result<()> {
        let slow = Slow::new(commit.run(), Random::new(self.seed));
        self.keep(&actix_rt::spawn(slow));
        Ok(())
    }

    fn spawn_io(&self, future: BoxFuture) {
        self.keep(&actix_rt::spawn(future));
    }

    fn spawn_background(&self, future: BoxFuture) {
        self.keep(&actix_rt::spawn(future));
    }

    fn spawn_analysis(&self, future: BoxFuture) -> std::io::Result<()> {
        self.keep(&actix_rt::spawn(future));
        Ok(())
    }
}

/// How an engine is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// The process alone: the machine's cache survives.
    Process,
    /// The power: what was not synced is lost, or torn.
    Power,
}

/// One incarnation of the engine.
pub struct Running {
    pub engine: Engine,
    pub life: Arc<Life>,
    endpoint: Endpoint,
    spawner: Arc<SimSpawner>,
    fates: Arc<Mutex<VecDeque<Fate>>>,
}

impl Running {
    /// Decides what becomes of the next flush that nothing was decided for.
    pub fn decide_flush(&self, fate: Fate) {
        self.fates.lock().unwrap().push_back(fate);
    }
}

/// The machine.
pub struct Machine {
    pub disk: SimVfs,
    pub archive: MemoryArchive,
    pub clock: Arc<SimClock>,
    pub fabric: Fabric,
    pub options: EngineOptions,
    ca: DevelopmentCa,
    validity: Validity,
    entropy: Arc<SeededEntropy>,
    server_tls: Arc<rustls::ServerConfig>,
    random: Random,
    running: Option<Running>,
    incarnation: u64,
}

/// Settings under which everything happens within a minute of simulated time.
pub fn options() -> EngineOptions {
    EngineOptions {
        shard_count: 2,
        memory_bytes: 8 << 20,
        // Batches are small here, so that memory can be scarce.
        memory_bytes_min: 0,
        flush_bytes: 64 << 10,
        flush_age: Duration::from_secs(8),
        log_bytes_max: 1 << 20,
        checkpoint_interval: Duration::from_secs(5),
        disk_reserve_bytes: 0,
        enroll_unknown: true,
        log: LogOptions {
            segment_bytes: 128 << 10,
            group_bytes_max: 64 << 10,
            retention_bytes: 0,
            ..LogOptions::default()
        },
        ..EngineOptions::new(PathBuf::from("/data"))
    }
}

impl Machine {
    /// A machine with an empty disk and no engine yet.
    pub fn new(seed: u64, options: EngineOptions) -> Self {
        let clock = Arc::new(SimClock::new());
        let entropy = Arc::new(SeededEntropy::new(derive(seed, 10)));
        let validity = Validity::starting_now(&*clock, CA_LIFETIME);
        let ca = DevelopmentCa::generate(KeyKind::Ed25519, validity, &*entropy).unwrap();
        let names = quiver_pki::server_names([SERVER_NAME]).unwrap();
        let request = Request::server(names, validity).with_key(KeyKind::Ed25519);
        let credential = ca.issue(&request, &*entropy).unwrap();
        let server_tls =
            quiver_pki::rustls_server_config(quiver_pki::ServerTls::new(credential), clock.clone())
                .unwrap();
        Self {
            disk: SimVfs::new(derive(seed, 11)),
            archive: MemoryArchive::new(),
            clock,
            fabric: Fabric::new(derive(seed, 12)),
            options,
            ca,
            validity,
            entropy,
            server_tls: Arc::new(server_tls),
            random: Random::new(derive(seed, 13)),
            running: None,
            incarnation: 0,
        }
    }

    /// A certificate for a sender.
    pub fn issue(&self, sender: &quiver_model::SenderId) -> Credential {
        let request = Request::client(sender.clone(), self.validity).with_key(KeyKind::Ed25519);
        self.ca.issue(&request, &*self.entropy).unwrap()
    }

    /// The engine.
    ///
    /// # Panics
    /// If none runs.
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("an engine runs")
    }

    pub fn engine(&self) -> &Engine {
        &self.running().engine
    }

    fn environment(&self, life: &Arc<Life>) -> (Environment, Arc<Mutex<VecDeque<Fate>>>) {
        let seed = derive(self.incarnation, 20);
        let archive = SimArchive::new(self.archive.clone(), life.clone(), seed);
        let fates = archive.fates();
        let environment = Environment {
            vfs: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            archive: Box::new(move |_| Ok(Arc::new(archive))),
        };
        (environment, fates)
    }

    /// Starts the engine, and opens its door if `serve`. If the power fails meanwhile, the
    /// machine is started again.
    pub async fn start_with(&mut self, serve: bool) {
        for _ in 0..100 {
            match self.try_start(serve).await {
                Ok(()) => return,
                Err(error) => {
                    assert!(self.disk.is_off(), "recovery failed: {error}");
                    say(&format!("power failed during recovery: {error}"));
                    self.disk.crash();
                }
            }
        }
        panic!("the engine does not start");
    }

    pub async fn start(&mut self) {
        self.start_with(true).await;
    }

    async fn try_start(&mut self, serve: bool) -> Result<(), StartError> {
        assert!(self.running.is_none(), "one engine at a time");
        self.incarnation += 1;
        let life = Arc::new(Life::new(Some(self.disk.clone())));
        let (environment, fates) = self.environment(&life);
        let spawner = Arc::new(SimSpawner {
            tasks: Mutex::default(),
            seed: self.random.draw(),
        });
        let started = Engine::start(self.options.clone(), environment, spawner.clone()).await;
        if self.disk.is_off() || started.is_err() {
            spawner.abort_all();
            life.end();
        }
        let engine = started?;
        let socket = self.fabric.bind(server_address(), life.clone());
        let tls = self.server_tls.clone();
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(self.random.draw()),
            Some(quiver_runtime::ingest::server_config(tls).unwrap()),
            socket,
            Arc::new(TokioRuntime),
        )
        .unwrap();
        if serve {
            engine.serve(endpoint.clone(), false);
        }
        say(&format!(
            "engine {} runs with {} shards: {:?}",
            self.incarnation,
            self.options.shard_count,
            engine.report()
        ));
        self.running = Some(Running {
            engine,
            life,
            endpoint,
            spawner,
            fates,
        });
        Ok(())
    }

    /// Whether the engine has said that it accepts nothing more.
    pub async fn engine_has_failed(&self) -> bool {
        let at_once = tokio::time::timeout(Duration::ZERO, self.engine().failed());
        at_once.await.is_ok()
    }

    /// Opens the door of an engine that was started without.
    pub fn serve(&self) {
        let running = self.running();
        running.engine.serve(running.endpoint.clone(), false);
    }

    /// Kills the engine where it stands. If the power has failed already, that is how.
    pub async fn kill(&mut self, how: Kill) {
        let Some(running) = self.running.take() else {
            return;
        };
        say(&format!("engine {} dies: {how:?}", self.incarnation));
        let is_off = self.disk.is_off();
        running.life.end();
        running.spawner.abort_all();
        match how {
            Kill::Process if !is_off => self.disk.restart(),
            _ => self.disk.crash(),
        }
        // What is left of it must not linger: its sessions end with their connections.
        running.endpoint.close(0_u32.into(), b"");
        drop(running);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// Stops the engine in order, and returns how it ended.
    pub async fn stop(&mut self) -> Result<(), quiver_runtime::StopError> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        say(&format!("engine {} is stopped", self.incarnation));
        let Running {
            engine,
            life,
            endpoint,
            spawner,
            ..
        } = running;
        let stopped = tokio::time::timeout(Duration::from_secs(120), engine.stop(Some(endpoint)));
        let stopped = tokio::select! {
            biased;
            stopped = stopped => stopped.expect("stopping takes less than two minutes"),
            () = life.ended() => Ok(()),
        };
        let is_off = self.disk.is_off();
        life.end();
        spawner.abort_all();
        if is_off {
            self.disk.crash();
        } else {
            self.disk.restart();
        }
        stopped
    }
}
