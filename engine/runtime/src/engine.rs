//! A running engine: its parts, wired; and how it stops.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicBool},
};

use actix::{Actor, Addr};
use quinn::Endpoint;
use quiver_hot::{Archive, LastValues, MemoryBudget, Tables};
use quiver_log::{DirLock, LogReader, Vfs};
use quiver_model::{Clock, Entropy, SenderId, StreamField, StreamName, StreamSchema};
use quiver_protocol::{ConnectionClose, ConnectionCloseCode};
use tokio::sync::{Notify, oneshot};

use crate::{
    EngineOptions, Metrics, Progress, Spawner,
    analyze::{
        Analysis, Analyzer, AnalyzerHandle, AnalyzerParts, Appender, RefusedRows, StateLogError,
        Written,
    },
    checkpoint::{CheckpointCollector, Checkpointer},
    commit::{AppendFailure, AppendQueue, CommitCommand, CommitLoop, FatalError},
    control::{ControlState, ControlWriter, EnsureError, GrowthLimits, StreamRules},
    disk::{check, watch_disk},
    flush::{FlushRules, Flusher, FlusherParts},
    ingest::{IngestContext, ReceiveBudget, accept_connections},
    record_clock::RecordClock,
    recovery::{Environment, Recovered, RecoveryReport, StartError, recover},
    registry::{AdmissionError, Decision, Outcome, RegistryChange, RegistryEntry, Wish},
    shard::{
        AuditShard, CloseSender, Ledger, Shard, ShardActor, ShardImage, ShardInbox, StopShard,
    },
};

/// How long flushing everything may take at a stop. What is not archived by then is in the log.
const FLUSH_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
/// When clients of a stopping engine may come back, in milliseconds.
const RESTART_PAUSE_MS: u32 = 2_000;

/// A running engine.
pub struct Engine {
    options: EngineOptions,
    queue: AppendQueue,
    shards: Vec<Addr<ShardActor>>,
    tables: Arc<Tables>,
    last_values: Arc<LastValues>,
    progress: Arc<Progress>,
    metrics: Arc<Metrics>,
    budget: MemoryBudget,
    receive: ReceiveBudget,
    control: Arc<ControlWriter>,
    archive: Arc<dyn Archive>,
    flusher: Arc<Flusher>,
    checkpointer: Arc<Checkpointer>,
    spawner: Arc<dyn Spawner>,
    fatal: Arc<OnceLock<FatalError>>,
    on_fatal: Arc<Notify>,
    disk_low: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    record_clock: Arc<RecordClock>,
    report: RecoveryReport,
    stopped: Arc<Notify>,
    lock: Mutex<Option<DirLock>>,
    reader: LogReader,
    vfs: Arc<dyn Vfs>,
    analyzer: OnceLock<AnalyzerHandle>,
    /// What the log had of nodes when the engine started.
    written: Written,
}

impl Engine {
    /// Recovers a data directory and starts everything but the doors. Call it on a thread that
    /// runs an actix system.
    pub async fn start(
        options: EngineOptions,
        environment: Environment,
        spawner: Arc<dyn Spawner>,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::default());
        let vfs = environment.vfs.clone();
        let recovered = recover(&options, environment, metrics.clone()).await?;
        Self::run(options, recovered, vfs, metrics, spawner).await
    }

    async fn run(
        options: EngineOptions,
        recovered: Recovered,
        vfs: Arc<dyn Vfs>,
        metrics: Arc<Metrics>,
        spawner: Arc<dyn Spawner>,
    ) -> Result<Self, StartError> {
        let Recovered {
            shards,
            log,
            checkpoints,
            lock,
            queue,
            commands,
            parts,
            last_time,
            control,
            archive,
            report,
        } = recovered;
        let clock = parts.clock.clone();
        let (record_clock, step) = RecordClock::new(clock.clone(), last_time);
        let record_clock = Arc::new(record_clock);
        metrics
            .log_size
            .set(i64::try_from(log.bytes()).unwrap_or(i64::MAX));

        let mut written = Written::default();
        for ((stream, producer), next) in shards.iter().flat_map(Shard::node_sequences) {
            written.note(&stream, producer, next);
        }
        let (inboxes, outlets): (Vec<_>, Vec<_>) = shards.iter().map(|_| ShardInbox::new()).unzip();
        let mut addresses = Vec::with_capacity(shards.len());
        for (shard, outlet) in shards.into_iter().zip(outlets) {
            let (started, address) = oneshot::channel();
            let arbiter = spawner.shard_arbiter(shard.id());
            arbiter.spawn_fn(move || {
                // The engine may have given up starting.
                let _ = started.send(ShardActor::new(shard, outlet).start());
            });
            let address = address.await.map_err(|_| {
                StartError::Thread(std::io::Error::other("a shard's arbiter has ended"))
            })?;
            addresses.push(address);
        }

        let fatal = Arc::new(OnceLock::new());
        let on_fatal = Arc::new(Notify::new());
        let reader = log.reader();
        let commit = CommitLoop {
            log,
            commands,
            queue: queue.clone(),
            inboxes,
            control: control.clone(),
            tables: parts.tables.clone(),
            progress: parts.progress.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            record_clock: record_clock.clone(),
            group_bytes_max: options.log.group_bytes_max / 4,
            fatal: fatal.clone(),
            on_fatal: on_fatal.clone(),
            outgoing: Vec::new(),
        };
        spawner.spawn_commit(commit).map_err(StartError::Thread)?;

        let limits = GrowthLimits {
            streams_max: options.streams_max,
            new_streams_per_day: options.new_streams_per_day,
            new_fields_per_day: options.new_fields_per_day,
        };
        let writer = Arc::new(ControlWriter::new(
            control.clone(),
            queue.clone(),
            record_clock.clone(),
            limits,
        ));
        for stream in written.streams() {
            writer.note_written(stream);
        }
        if let Some(step) = step
            && let Err(error) = writer.clock_stepped(step).await
        {
            tracing::warn!(%error, "the step of the clock could not be written");
        }
        let flusher = Flusher::new(FlusherParts {
            tables: parts.tables.clone(),
            archive: archive.clone(),
            queue: queue.clone(),
            budget: parts.budget.clone(),
            progress: parts.progress.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            control: writer.clone(),
            rules: FlushRules {
                bytes: options.flush_bytes_effective(),
                age: options.flush_age,
                log_bytes: options.log_bytes_max,
            },
        });
        if options.holds_log_for_graph {
            // Until the graph has said what it needs, it may need everything.
            flusher.set_analysed(quiver_model::Position(0));
        }
        let checkpointer = Checkpointer::new(
            checkpoints,
            queue.clone(),
            flusher.clone(),
            control,
            record_clock.clone(),
            metrics.clone(),
            options.shard_count,
        );
        let disk_low = Arc::new(AtomicBool::new(false));
        check(
            &*vfs,
            &options.data_dir,
            options.disk_reserve_bytes,
            &disk_low,
            &metrics,
        );

        let engine = Self {
            queue,
            shards: addresses,
            tables: parts.tables,
            last_values: parts.last_values,
            progress: parts.progress,
            metrics,
            budget: parts.budget,
            receive: ReceiveBudget::new(options.receive_bytes()),
            control: writer,
            archive,
            flusher,
            checkpointer,
            spawner,
            fatal,
            on_fatal,
            disk_low,
            clock,
            record_clock,
            report,
            stopped: Arc::new(Notify::new()),
            lock: Mutex::new(Some(lock)),
            reader,
            vfs: vfs.clone(),
            analyzer: OnceLock::new(),
            written,
            options,
        };
        engine.spawn_background(vfs);
        Ok(engine)
    }

    fn spawn_background(&self, vfs: Arc<dyn Vfs>) {
        self.spawner
            .spawn_background(Box::pin(self.flusher.clone().run()));
        self.spawner.spawn_background(Box::pin(
            self.checkpointer
                .clone()
                .run(self.options.checkpoint_interval, self.progress.clone()),
        ));
        let disk = watch_disk(
            vfs,
            self.options.data_dir.clone(),
            self.options.disk_reserve_bytes,
            self.disk_low.clone(),
            self.metrics.clone(),
        );
        let clock = watch_clock(self.record_clock.clone(), self.control.clone());
        let stopped = self.stopped.clone();
        self.spawner.spawn_background(Box::pin(async move {
            tokio::select! { biased; () = stopped.notified() => {} () = disk => {} () = clock => {} }
        }));
    }

    /// Opens the QUIC door on an endpoint that was made with [`crate::ingest::server_config`].
    pub fn serve(&self, endpoint: Endpoint, tokens_allowed: bool) {
        let context = Arc::new(IngestContext {
            options: self.options.clone(),
            control: self.control.clone(),
            tables: self.tables.clone(),
            budget: self.budget.clone(),
            receive: self.receive.clone(),
            dictionaries: ReceiveBudget::new(self.receive.capacity() / 2),
            queue: self.queue.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            record_clock: self.record_clock.clone(),
            flusher: self.flusher.clone(),
            disk_low: self.disk_low.clone(),
            tokens_allowed,
        });
        let accept =
            accept_connections(endpoint, context, self.shards.clone(), self.spawner.clone());
        self.spawner.spawn_io(Box::pin(accept));
    }

    /// Lets a graph follow the log from where it was, in the directory `analysis`. Call it before
    /// [`Self::serve`], so that it sees everything, and once.
    ///
    /// # Errors
    /// If what its nodes remember cannot be read.
    pub fn analyze(
        &self,
        analysis: Box<dyn Analysis>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<AnalyzerHandle, StateLogError> {
        let appender = Appender {
            control: self.control.clone(),
            queue: self.queue.clone(),
            tables: self.tables.clone(),
            budget: self.budget.clone(),
            metrics: self.metrics.clone(),
            record_clock: self.record_clock.clone(),
            shard_count: self.options.shard_count,
            record_bytes_max: self.options.log.group_bytes_max / 2,
            written: self.written.clone(),
            refused: RefusedRows::default(),
        };
        let parts = AnalyzerParts {
            reader: self.reader.clone(),
            appender,
            progress: self.progress.clone(),
            flusher: self.flusher.clone(),
            metrics: self.metrics.clone(),
            record_clock: self.record_clock.clone(),
            vfs: self.vfs.clone(),
            entropy,
            directory: self.options.data_dir.join("analysis"),
            checkpoint_interval: self.options.checkpoint_interval,
        };
        let (analyzer, handle) = Analyzer::open(parts, analysis)?;
        self.spawner.spawn_analysis(Box::pin(analyzer.run()))?;
        // A second graph would be refused by the lock of its directory.
        let _ = self.analyzer.set(handle.clone());
        Ok(handle)
    }

    /// Puts what a graph's configuration says of streams in force; what it said before.
    pub fn set_stream_rules(&self, rules: StreamRules) -> StreamRules {
        self.control.set_rules(rules)
    }

    /// The graph that follows the log, if there is one.
    pub fn analyzer(&self) -> Option<&AnalyzerHandle> {
        self.analyzer.get()
    }

    /// Ends everything: connections are told, what was accepted becomes durable, every stream is
    /// flushed, and a checkpoint is taken. The error says what could not be done; nothing that was
    /// acknowledged is lost by it. Call it once.
    pub async fn stop(&self, endpoint: Option<Endpoint>) -> Result<(), StopError> {
        let close =
            ConnectionClose::new(ConnectionCloseCode::ShuttingDown, "the server is stopping");
        for shard in &self.shards {
            let all = CloseSender {
                sender: None,
                close: close.clone(),
                reconnect_after_ms: RESTART_PAUSE_MS,
            };
            // A shard that has ended has no connections.
            let _ = shard.send(all).await;
        }
        if let Some(endpoint) = endpoint {
            endpoint.set_server_config(None);
            // Sessions say goodbye by themselves; what is left after that is cut.
            let _ =
                tokio::time::timeout(std::time::Duration::from_secs(2), endpoint.wait_idle()).await;
            endpoint.close(
                quinn::VarInt::from_u32(close.code.number()),
                close.reason.as_bytes(),
            );
        }
        let fatal = self.fatal.get().cloned();
        let mut result = Ok(());
        if let (Some(analyzer), None) = (self.analyzer.get(), &fatal) {
            // It may be busy with one record for long, or wait for a log that refuses what it has:
            // then the next start goes through that again.
            if let Err(error) = analyzer.stop(self.options.analysis_patience).await {
                tracing::error!(
                    error,
                    "what nodes of the graph remember is not kept as of now; the next start goes through more of the log"
                );
            }
        }
        if fatal.is_none() {
            match tokio::time::timeout(FLUSH_PATIENCE, self.flusher.flush_all()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(StopError::Flush(crate::flush::chain(&error))),
                Err(_) => {
                    let waited = FLUSH_PATIENCE.as_secs();
                    let left = self.flusher.unflushed_streams().join(", ");
                    result = Err(StopError::Flush(format!(
                        "not everything was archived within {waited} s; what is left of {left} is in the log, and is archived after the next start"
                    )));
                }
            }
            if let Err(error) = self.checkpointer.take().await {
                result = result.and(Err(StopError::Checkpoint(error)));
            }
        }
        self.flusher.stop();
        self.checkpointer.stop();
        self.stopped.notify_waiters();
        self.stopped.notify_one();
        let (done, ended) = oneshot::channel();
        if self.queue.command(CommitCommand::Stop(done)).await.is_ok() {
            // A commit loop that has ended already has closed the log.
            let _ = ended.await;
        }
        for shard in &self.shards {
            let _ = shard.send(StopShard).await;
        }
        // Another process may have the directory now.
        drop(
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        match fatal {
            Some(fatal) => Err(StopError::Fatal(fatal)),
            None => result,
        }
    }

    /// Waits until the log has failed for good.
    pub async fn failed(&self) -> FatalError {
        loop {
            let notified = self.on_fatal.notified();
            if let Some(fatal) = self.fatal.get() {
                return fatal.clone();
            }
            notified.await;
        }
    }

    /// Changes the registry, durably; connections of an identity that is revoked, or gets another
    /// credential, are closed.
    ///
    /// # Errors
    /// If the log does not take the record.
    pub async fn change_registry(&self, change: RegistryChange) -> Result<(), AppendFailure> {
        self.change_registry_all(vec![change])
            .await
            .map_err(|failure| failure.source)
    }

    /// [`Engine::change_registry`] of many changes, in this order: they are written together, and
    /// wait for the disk together.
    ///
    /// # Errors
    /// If the log does not take all of the records. Those that it did take are in force.
    pub async fn change_registry_all(
        &self,
        changes: Vec<RegistryChange>,
    ) -> Result<(), RegistryFailure> {
        let registry = &self.control.state().registry;
        let before: Vec<Option<RegistryEntry>> = changes
            .iter()
            .map(|change| match change {
                RegistryChange::Put { entry } => registry.get(&entry.sender()?),
                RegistryChange::Revoke { .. } => None,
            })
            .collect();
        let results = self.control.change_registry_all(&changes).await;
        let (mut done, mut failed) = (0, None);
        for ((change, before), result) in changes.into_iter().zip(before).zip(results) {
            match result {
                Ok(_) => {
                    done += 1;
                    self.close_changed(change, before).await;
                }
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        match failed {
            Some(source) => Err(RegistryFailure { done, source }),
            None => Ok(()),
        }
    }

    /// Enrolls identities, or changes what is said of them, durably and together; what became of
    /// each wish. Entries that stay the same are not written. Such changes are decided one after
    /// the other.
    ///
    /// # Errors
    /// If the log does not take all of the records. Those that it did take are in force.
    pub async fn change_identities(&self, wishes: Vec<Wish>) -> Result<Outcome, RegistryFailure> {
        let _turn = self.control.registry_turn().await;
        let registry = &self.control.state().registry;
        let Decision { entries, outcome } = registry.decide(wishes, self.now());
        let changes = entries
            .into_iter()
            .map(|entry| RegistryChange::Put { entry });
        self.change_registry_all(changes.collect()).await?;
        Ok(outcome)
    }

    /// Revokes an identity, durably, and closes its connections; whether it is known.
    ///
    /// # Errors
    /// If the log does not take the record.
    pub async fn revoke(&self, sender: &SenderId) -> Result<bool, AppendFailure> {
        let _turn = self.control.registry_turn().await;
        if self.control.state().registry.get(sender).is_none() {
            return Ok(false);
        }
        let revoke = RegistryChange::Revoke {
            id: sender.id.to_string(),
            kind: sender.kind.as_str().to_owned(),
        };
        self.change_registry(revoke).await.map(|()| true)
    }

    /// Closes the connections that a change does not leave as they were; `before` is the entry
    /// that it replaced.
    async fn close_changed(&self, change: RegistryChange, before: Option<RegistryEntry>) {
        let (sender, close) = match change {
            RegistryChange::Revoke { id, kind } => {
                let Some(sender) = SenderId::from_urn(&format!("urn:quiver:{kind}:{id}")) else {
                    return;
                };
                let revoked = AdmissionError::Revoked {
                    sender: sender.clone(),
                };
                let close = ConnectionClose::new(ConnectionCloseCode::Revoked, revoked.to_string());
                (sender, close)
            }
            RegistryChange::Put { entry } => {
                let (Some(sender), Some(before)) = (entry.sender(), before) else {
                    return;
                };
                if (&before.fingerprint, &before.token_sha256)
                    == (&entry.fingerprint, &entry.token_sha256)
                {
                    return;
                }
                // Whoever is connected with the one before has to show the new one.
                let text =
                    format!("the credential of {sender} was changed; connect with the new one");
                let close = ConnectionClose::new(ConnectionCloseCode::Unauthenticated, text);
                (sender, close)
            }
        };
        let shard = sender.shard(self.options.shard_count);
        let message = CloseSender {
            sender: Some(sender),
            close,
            reconnect_after_ms: 0,
        };
        // A shard that has ended has no connections.
        let _ = self.shards[usize::from(shard.get())].send(message).await;
    }

    /// Gives a stream these fields, durably, before rows bring them: only so can a field be a
    /// decimal. Fields that it has already stay as they are.
    ///
    /// # Errors
    /// If a field exists with another type or scale, the engine has all the streams it may have, or
    /// the log does not take the record.
    pub async fn declare_fields(
        &self,
        operator: &SenderId,
        stream: &StreamName,
        fields: &[StreamField],
    ) -> Result<Arc<StreamSchema>, EnsureError> {
        self.control.ensure_fields(operator, stream, fields).await
    }

    /// The ledgers of all identities.
    pub async fn ledgers(&self) -> BTreeMap<SenderId, Ledger> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.send(AuditShard).await);
        }
        merge_ledgers(all)
    }

    /// The ledgers of all identities as of one position of the log: what an audit compares with
    /// queries as of the same position.
    pub async fn ledgers_at_barrier(
        &self,
    ) -> Result<(quiver_model::Position, BTreeMap<SenderId, Ledger>), AppendFailure> {
        let (collector, wait) = CheckpointCollector::new(self.options.shard_count);
        self.queue
            .command(CommitCommand::Checkpoint(collector))
            .await?;
        let state = wait.await.map_err(|_| AppendFailure::Closed)?;
        Ok((
            state.position,
            merge_ledgers(state.images.iter().map(ShardImage::ledgers)),
        ))
    }

    /// Writes down what leaves the archive because it is older than it is kept; durable when this
    /// returns.
    ///
    /// # Errors
    /// If the log does not take it.
    pub async fn note_expiry(&self, body: String) -> Result<quiver_model::Position, AppendFailure> {
        let kind = quiver_log::ControlKind::RetentionApplied;
        self.control.write_control(kind, self.now(), body).await
    }

    /// How long the log keeps records that nothing needs any more, to be read again, as far as its
    /// bytes reach; `None` for what the options say.
    ///
    /// # Errors
    /// If the engine is stopping.
    pub async fn set_log_retention(
        &self,
        time: Option<std::time::Duration>,
    ) -> Result<(), AppendFailure> {
        let time = time.unwrap_or(self.options.log.retention_time);
        self.queue.command(CommitCommand::Retain(time)).await
    }

    /// Flushes every stream now.
    pub async fn flush_all(&self) -> Result<(), quiver_hot::FlushError> {
        self.flusher.flush_all().await
    }

    /// Takes a checkpoint now.
    pub async fn checkpoint(&self) -> Result<quiver_model::Position, String> {
        self.checkpointer.take().await
    }

    /// Settings.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }
    /// Every stream's table.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }
    /// Last row of each device.
    pub fn last_values(&self) -> &Arc<LastValues> {
        &self.last_values
    }
    /// How far the engine is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
    /// Memory.
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// Memory of messages that are being received.
    pub fn receive_budget(&self) -> &ReceiveBudget {
        &self.receive
    }
    /// Catalog and registry.
    pub fn control(&self) -> &Arc<ControlState> {
        self.control.state()
    }
    /// The archive.
    pub fn archive(&self) -> &Arc<dyn Archive> {
        &self.archive
    }
    /// Record time now.
    pub fn now(&self) -> quiver_model::Timestamp {
        self.record_clock.now()
    }
    /// What recovery found.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }
    /// Whether ingest is refused because the disk is nearly full.
    pub fn is_disk_low(&self) -> bool {
        self.disk_low.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Changes of the registry that were not all made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{done} of the changes were made, the others not: {source}; asking again does no harm")]
pub struct RegistryFailure {
    /// How many were made.
    pub done: usize,
    /// Why the first of the others was not.
    #[source]
    pub source: AppendFailure,
}

/// Why an engine did not stop as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// The log had failed.
    #[error(transparent)]
    Fatal(FatalError),
    /// Rows could not be archived; they are in the log, and the next start has them.
    #[error(
        "not everything could be archived; it is in the log and will be on the next start: {0}"
    )]
    Flush(String),
    /// No checkpoint; the next start replays more of the log.
    #[error("no checkpoint could be written; the next start takes longer: {0}")]
    Checkpoint(String),
}

/// Writes it down when the wall clock steps.
async fn watch_clock(record_clock: Arc<RecordClock>, control: Arc<ControlWriter>) {
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        if let (_, Some(step)) = record_clock.check()
            && let Err(error) = control.clock_stepped(step).await
        {
            tracing::warn!(%error, "the step of the clock could not be written");
        }
    }
}

pub(crate) fn merge_ledgers(
    all: impl IntoIterator<Item = BTreeMap<SenderId, Ledger>>,
) -> BTreeMap<SenderId, Ledger> {
    let mut merged = BTreeMap::<SenderId, Ledger>::new();
    for ledgers in all {
        for (sender, ledger) in ledgers {
            merged.entry(sender).or_default().add(&ledger);
        }
    }
    merged
}
