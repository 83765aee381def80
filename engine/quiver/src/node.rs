//! An engine with its archive, its queries and its doors, and the order in which they stop.
//!
//! ```text
//! start: HTTP door (/live) ─▶ threads ─▶ recover ─▶ registry ─▶ QUIC door ─▶ all of HTTP ─▶ server.json
//! stop:  HTTP door ─▶ maintenance of the archive ─▶ connections ─▶ flush everything ─▶ checkpoint ─▶ log ─▶ threads
//! ```

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use quinn::Endpoint;
use quiver_archive::{DeltaArchive, Maintenance};
use quiver_hot::Archive;
use quiver_log::{LockError, OsVfs};
use quiver_model::{Clock, Entropy, OsEntropy, SystemClock};
use quiver_pki::{ClientAuthentication, Credential, ServerTls};
use quiver_query::QueryEngine;
use quiver_runtime::{
    Engine, EngineOptions, Environment, FatalError, StartError, ThreadSpawner,
    ingest::{self, SocketDrops},
    registry::{RegistryChange, RegistryEntry},
};
use tokio::time::{Instant, sleep};

use crate::{
    access::{self, ServerAddresses},
    exit::{CONFIG, Failure, IO, UNAVAILABLE},
    expiry::ExpiryLog,
    holder::Holder,
    http::{HttpDoor, HttpState},
    memory,
    pipeline::RunningPipeline,
    settings::{Doors, EngineArgs},
    sources::{Sources, open_archive},
};

/// How long a verb may be at work on the idle directory before a start fails.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Time between two attempts.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// A running node.
pub struct Node {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The archive.
    pub archive: Arc<DeltaArchive>,
    /// The graph, if there is one.
    pub pipeline: Option<Arc<RunningPipeline>>,
    /// Where it listens.
    pub addresses: ServerAddresses,
    data_dir: PathBuf,
    doors: Doors,
    clock: Arc<dyn Clock>,
    endpoint: Endpoint,
    http: HttpDoor,
    spawner: Arc<ThreadSpawner>,
    maintenance: Option<RunningMaintenance>,
    runtimes: Runtimes,
}

/// What keeps the archive in shape, and its task.
struct RunningMaintenance {
    maintenance: Arc<Maintenance>,
    task: tokio::task::JoinHandle<()>,
}

impl RunningMaintenance {
    fn start(maintenance: Arc<Maintenance>, on: &tokio::runtime::Handle) -> Self {
        let task = on.spawn(maintenance.clone().run());
        Self { maintenance, task }
    }

    /// Ends it, also in the middle of a merge.
    async fn stop(self) {
        self.maintenance.stop();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the maintenance of the archive had ended");
        }
    }
}

/// A runtime that is dropped without waiting for strays, on any thread.
struct OwnedRuntime(Option<tokio::runtime::Runtime>);

impl OwnedRuntime {
    fn start(name: &str, threads: usize) -> Result<Self, Failure> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
            .map_err(Failure::with(IO))
    }

    fn handle(&self) -> Result<tokio::runtime::Handle, Failure> {
        let runtime = self.0.as_ref();
        let handle = runtime.map(|runtime| runtime.handle().clone());
        handle.ok_or_else(|| Failure::new(IO, "the runtime has been shut down"))
    }
}

impl Drop for OwnedRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runtimes beside the actix system.
struct Runtimes {
    io: OwnedRuntime,
    background: OwnedRuntime,
    query: OwnedRuntime,
}

impl Runtimes {
    fn start(cores: usize) -> Result<Self, Failure> {
        Ok(Self {
            io: OwnedRuntime::start("quiver-quic", cores)?,
            background: OwnedRuntime::start("quiver-flush", 2)?,
            query: OwnedRuntime(Some(
                quiver_query::query_runtime(cores).map_err(Failure::with(IO))?,
            )),
        })
    }
}

impl Node {
    /// Starts an engine on a data directory. Call it on a thread that runs an actix system.
    pub async fn start(data_dir: &Path, args: &EngineArgs, doors: Doors) -> Result<Self, Failure> {
        check_doors(&doors)?;
        let shares = args.memory_shares();
        shares.check()?;
        let mut options = args.options(data_dir, doors.enroll_unknown);
        options.holds_log_for_graph = doors.config.is_some();
        options.check().map_err(start_failure)?;
        // Before anything is opened: a configuration that is wrong changes nothing.
        let loaded = match &doors.config {
            Some(path) => Some(RunningPipeline::load(path)?),
            None => None,
        };
        let http = HttpDoor::open(doors.http, doors.http_hosts.clone())?;
        // Whole from the start: a runtime may not be dropped on this thread, also when starting fails.
        let runtimes = Runtimes::start(usize::from(options.shard_count))?;
        let spawner = Arc::new(ThreadSpawner::new(
            options.shard_count,
            runtimes.io.handle()?,
            runtimes.background.handle()?,
        ));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (engine, archive) = start_engine(data_dir, &options, &clock, &spawner).await?;
        report(&engine);
        let engine = Arc::new(engine);
        let archive = archive
            .get()
            .cloned()
            .ok_or_else(|| Failure::new(IO, "the archive was not opened"))?;

        let (endpoint, socket_drops) = open_quic(data_dir, &doors, &clock, &runtimes.io.handle()?)?;
        if doors.certificates.is_none() {
            enroll_local_operator(&engine).await?;
            access::operator_credential(data_dir)?;
        }
        let pipeline = match loaded {
            Some(loaded) => Some(Arc::new(loaded.start(&engine).await?)),
            None => None,
        };
        let quic = endpoint.local_addr().map_err(Failure::with(IO))?;
        let sources = Sources {
            tables: engine.tables().clone(),
            last_values: engine.last_values().clone(),
            progress: engine.progress().clone(),
            archive: archive.clone(),
        };
        let options = args.maintenance();
        let is_kept_in_shape = options.is_merging || pipeline.is_some();
        let maintenance = is_kept_in_shape.then(|| {
            let retention = pipeline
                .as_ref()
                .map(|pipeline| pipeline.retention().clone());
            Maintenance::new(
                archive.clone(),
                engine.tables().clone(),
                options,
                retention.unwrap_or_default(),
                Arc::new(ExpiryLog::new(engine.clone())),
            )
        });
        let limits = args.query_limits(data_dir);
        let queries: QueryEngine = sources.query_engine(limits.clone(), None)?;
        let state = HttpState {
            engine: engine.clone(),
            archive: archive.clone(),
            maintenance: maintenance.clone(),
            sources,
            limits,
            memory_cap: shares.cap,
            socket_drops,
            queries,
            query_runtime: runtimes.query.handle()?,
            token: access::http_token(data_dir)?,
            started: clock.wall(),
            turns: Arc::default(),
            pipeline: pipeline.clone(),
        };
        let addresses = ServerAddresses {
            quic,
            http: http.address(),
            pid: std::process::id(),
        };
        let background = runtimes.background.handle()?;
        // It ends with the runtime.
        background.spawn(memory::watch(shares, engine.metrics().clone()));
        if let (Some(pipeline), Some(analyzer)) = (&pipeline, engine.analyzer()) {
            background.spawn(pipeline.clone().watch_tables(analyzer.clone()));
        }
        engine.serve(endpoint.clone(), doors.tokens);
        http.admit(state);
        addresses.save(data_dir)?;
        let maintenance =
            maintenance.map(|maintenance| RunningMaintenance::start(maintenance, &background));
        Ok(Self {
            engine,
            archive,
            pipeline,
            addresses,
            data_dir: data_dir.to_owned(),
            doors,
            clock,
            endpoint,
            http,
            spawner,
            maintenance,
            runtimes,
        })
    }

    /// Loads the certificates anew; what cannot be loaded leaves the old ones in force.
    pub fn reload_certificates(&self) -> Result<(), Failure> {
        self.endpoint.set_server_config(Some(quic_config(
            &self.data_dir,
            &self.doors,
            &self.clock,
        )?));
        Ok(())
    }

    /// Waits until the log has failed for good.
    pub async fn failed(&self) -> FatalError {
        self.engine.failed().await
    }

    /// Stops everything in order; everything accepted is durable and archived afterwards.
    pub async fn stop(self) -> Result<(), Failure> {
        let Self {
            engine,
            archive,
            endpoint,
            http,
            spawner,
            maintenance,
            runtimes,
            ..
        } = self;
        http.close().await;
        if let Some(maintenance) = maintenance {
            maintenance.stop().await;
        }
        let result = engine
            .stop(Some(endpoint))
            .await
            .map_err(|error| Failure::new(IO, error.to_string()));
        // Delta checkpoints that are still being written.
        archive.settle().await;
        drop(engine);
        drop(runtimes);
        if let Ok(spawner) = Arc::try_unwrap(spawner) {
            spawner.join();
        }
        result
    }
}

/// Starts the engine, once verbs that are at work on the idle directory are done with it.
async fn start_engine(
    data_dir: &Path,
    options: &EngineOptions,
    clock: &Arc<dyn Clock>,
    spawner: &Arc<ThreadSpawner>,
) -> Result<(Engine, ArchiveSlot), Failure> {
    let begun = Instant::now();
    let mut is_said = false;
    loop {
        let (environment, archive) = environment(data_dir, clock.clone());
        let error = match Engine::start(options.clone(), environment, spawner.clone()).await {
            Ok(engine) => return Ok((engine, archive)),
            Err(error) => error,
        };
        let holder = match &error {
            StartError::Lock(LockError::Held { pid, .. }) => Holder::of(*pid),
            _ => return Err(start_failure(error)),
        };
        if !holder.ends_soon() || begun.elapsed() > LOCK_WAIT {
            return Err(start_failure(error));
        }
        if let (Holder::Verb(verb), false) = (&holder, is_said) {
            is_said = true;
            let wait = LOCK_WAIT.as_secs();
            tracing::warn!(
                "quiver {verb} is at work on the data directory; waiting up to {wait} s for it to end"
            );
        }
        sleep(LOCK_RETRY).await;
    }
}

/// Where the archive is put once it is made.
type ArchiveSlot = Arc<OnceLock<Arc<DeltaArchive>>>;

/// The real disk, clock and archive of a data directory.
pub fn environment(data_dir: &Path, clock: Arc<dyn Clock>) -> (Environment, ArchiveSlot) {
    let slot: ArchiveSlot = Arc::default();
    let made = slot.clone();
    let dir = data_dir.to_owned();
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let (archive_clock, archive_entropy) = (clock.clone(), entropy.clone());
    let environment = Environment {
        vfs: Arc::new(OsVfs),
        clock,
        entropy,
        archive: Box::new(move |log| -> Result<Arc<dyn Archive>, std::io::Error> {
            let archive = Arc::new(open_archive(&dir, log, archive_clock, archive_entropy)?);
            // Set once: the factory is called once.
            let _ = made.set(archive.clone());
            Ok(archive)
        }),
    };
    (environment, slot)
}

/// A start that failed, with the exit code that says why.
pub fn start_failure(error: quiver_runtime::StartError) -> Failure {
    use quiver_runtime::StartError as E;
    let code = match &error {
        E::Lock(quiver_log::LockError::Held { .. }) => UNAVAILABLE,
        _ => IO,
    };
    Failure::with(code)(error)
}

fn report(engine: &Engine) {
    let report = engine.report();
    if report.records > 0 || report.cut_bytes > 0 {
        tracing::info!(
            records = report.records,
            rows = report.rows,
            cut_bytes = report.cut_bytes,
            "recovered from the log"
        );
    }
    for range in &report.damaged {
        tracing::error!(%range, "damaged");
    }
    for table in &report.damaged_tables {
        tracing::error!(table, "damaged; the other streams are not affected");
    }
}

fn check_doors(doors: &Doors) -> Result<(), Failure> {
    if !doors.quic.ip().is_loopback() && doors.certificates.is_none() {
        return Err(Failure::new(
            CONFIG,
            format!(
                "--quic {} is not a loopback address, and a development CA is for loopback only: give --ca, --cert and --key",
                doors.quic
            ),
        ));
    }
    if !doors.http.ip().is_loopback() && doors.http_hosts.is_empty() {
        return Err(Failure::new(
            CONFIG,
            format!(
                "--http {} is not a loopback address: name the hosts it may be asked as with --http-host NAME, and put TLS in front of it",
                doors.http
            ),
        ));
    }
    Ok(())
}

fn quic_config(
    data_dir: &Path,
    doors: &Doors,
    clock: &Arc<dyn Clock>,
) -> Result<quinn::ServerConfig, Failure> {
    let credential = match &doors.certificates {
        Some((ca, cert, key)) => {
            Credential::load_files(ca, cert, key).map_err(Failure::of_pem(CONFIG))?
        }
        None => access::server_credential(data_dir)?,
    };
    let mut tls = ServerTls::new(credential);
    if doors.tokens {
        tls.client_authentication = ClientAuthentication::CertificateOrToken;
    }
    let tls =
        quiver_pki::rustls_server_config(tls, clock.clone()).map_err(Failure::with(CONFIG))?;
    ingest::server_config(Arc::new(tls)).map_err(Failure::with(CONFIG))
}

fn open_quic(
    data_dir: &Path,
    doors: &Doors,
    clock: &Arc<dyn Clock>,
    io: &tokio::runtime::Handle,
) -> Result<(Endpoint, Option<SocketDrops>), Failure> {
    let config = quic_config(data_dir, doors, clock)?;
    let failed = |error: std::io::Error| {
        Failure::new(
            UNAVAILABLE,
            format!("cannot listen on --quic {} (UDP): {error}", doors.quic),
        )
    };
    let socket = ingest::bind(doors.quic).map_err(failed)?;
    if let Ok(granted) = ingest::receive_buffer(&socket)
        && granted < ingest::RECEIVE_BUFFER
    {
        tracing::warn!(
            granted,
            wanted = ingest::RECEIVE_BUFFER,
            "the system grants little room for packets that wait to be read: bursts are dropped and sent again; on Linux, raise net.core.rmem_max"
        );
    }
    let drops = SocketDrops::of(&socket);
    let _io = io.enter();
    let endpoint = Endpoint::new(
        ingest::endpoint_config(),
        Some(config),
        socket,
        Arc::new(quinn::TokioRuntime),
    )
    .map_err(failed)?;
    Ok((endpoint, drops))
}

async fn enroll_local_operator(engine: &Engine) -> Result<(), Failure> {
    let operator = access::local_operator()?;
    if engine.control().registry.get(&operator).is_some() {
        return Ok(());
    }
    let entry = RegistryEntry::new(&operator, engine.now());
    engine
        .change_registry(RegistryChange::Put { entry })
        .await
        .map_err(Failure::with(IO))
}
