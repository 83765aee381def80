//! From a data directory to the engine as it was: checkpoint, archive, log; then the log's records
//! through the very code that live records go through.
//!
//! A record counts for state (sequences, ledgers, last values) if it is beyond the checkpoint's
//! position C, and for a memtable if it is beyond what its table has archived; each shard and
//! table knows, so every record is simply told. Memory is bounded: when it runs short, the largest
//! table is flushed on the way.
//!
//! Damaged parts of the log are passed over, and reported in the log itself before anything runs:
//! see [`findings`].

mod findings;
mod report;

use std::sync::Arc;

use quiver_hot::{
    Archive, DamagedTable, FreezeOutcome, LastValues, MemoryBudget, MemoryLimits, Share,
    StreamTable, Tables,
};
use quiver_log::{
    CheckpointStore, ControlKind, DamagedRange, DirLock, Log, LogId, RecordKind, RecoveryFloor, Vfs,
};
use quiver_model::{
    Clock, Entropy, Position, SchemaId, SenderId, ShardId, StreamName, StreamSchema, Timestamp,
};
use quiver_protocol::{DecodeLimits, decode_schema};

use crate::{
    EngineOptions, Metrics,
    admit::{ReplayRefusal, settlement_of},
    catalog::CatalogImageError,
    checkpoint::StoredCheckpoint,
    commit::{AppendQueue, Settlement},
    control::ControlState,
    damage::DamageReport,
    flush::chain,
    progress::Progress,
    recovery::findings::{Findings, missing_ends},
    shard::{
        ControlRow, SettledOutcome, Shard, ShardEvent, ShardImage, ShardParts, dispatch_control,
        dispatch_settlement,
    },
};

/// Share of memory that may be in use before recovery flushes, in percent.
const FLUSH_PERCENT: usize = 60;
/// How often, and with what pause, a flush is tried before the start is given up.
const FLUSH_ATTEMPTS: u32 = 5;
const FLUSH_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
/// Memory of the engine's own rows, in bytes: rejects and control records.
const DERIVED_BYTES: usize = 32 << 20;

/// Control records whose rows are put into their table together.
const CONTROL_ROWS_AT_ONCE: usize = 1_024;

/// Makes the archive for a log's id.
pub type ArchiveFactory = Box<dyn FnOnce(LogId) -> std::io::Result<Arc<dyn Archive>> + Send>;

/// Where an engine's durable state is, and what it takes its time and randomness from.
pub struct Environment {
    /// The disk of log and checkpoints.
    pub vfs: Arc<dyn Vfs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The archive.
    pub archive: ArchiveFactory,
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The memory is too little for one batch of the limits that are announced to senders.
    #[error(
        "memory_bytes is {bytes}, and one batch of the limits announced to senders takes up to {least}: give it at least that"
    )]
    Memory {
        /// As it is set.
        bytes: usize,
        /// What it must be at least.
        least: usize,
    },
    /// The data directory cannot be made or read.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] quiver_log::LockError),
    /// Neither checkpoint can be read.
    #[error(transparent)]
    Checkpoint(#[from] quiver_log::CheckpointError),
    /// The checkpoint's content is not what it should be.
    #[error(transparent)]
    CheckpointContent(#[from] crate::checkpoint::CheckpointError),
    /// The checkpoint's catalog is not what it should be.
    #[error(transparent)]
    Catalog(#[from] CatalogImageError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] quiver_log::OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Replay(#[from] quiver_log::ReplayError),
    /// The archive cannot be listed.
    #[error("{}", chain(.0))]
    Archive(#[from] quiver_hot::OpenError),
    /// An archived table does not fit its stream.
    #[error("archived table of stream {stream}: {problem}")]
    Table {
        /// The stream.
        stream: String,
        /// What is wrong.
        problem: String,
    },
    /// A record of the log cannot be applied again.
    #[error("log record at position {position}: {problem}")]
    Record {
        /// Where.
        position: Position,
        /// What is wrong.
        problem: String,
    },
    /// A flush on the way failed.
    #[error("a flush during recovery failed: {0}")]
    Flush(String),
    /// Damage was found, and the log does not take the report of it.
    #[error("damage of the log could not be reported: {0}")]
    Report(#[source] quiver_log::AppendError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Position of the checkpoint that was loaded.
    pub checkpoint: Option<Position>,
    /// Checkpoints that were damaged and passed over.
    pub damaged_checkpoints: usize,
    /// Records that were replayed.
    pub records: u64,
    /// Of these, rows that went into memory.
    pub rows: u64,
    /// Damage of the log that this start found and reported; what earlier ones found is in
    /// [`ControlState::damage`].
    pub damaged: Vec<DamageReport>,
    /// Tables of the archive that cannot be opened.
    pub damaged_tables: Vec<String>,
    /// Bytes cut off the log's end: a group that was never acknowledged.
    pub cut_bytes: u64,
}

/// An engine's state, before anything runs.
pub struct Recovered {
    pub(crate) shards: Vec<Shard>,
    pub(crate) log: Log,
    pub(crate) checkpoints: CheckpointStore,
    pub(crate) lock: DirLock,
    pub(crate) queue: AppendQueue,
    pub(crate) commands: crossbeam::channel::Receiver<crate::commit::CommitCommand>,
    pub(crate) parts: ShardParts,
    pub(crate) last_time: Timestamp,
    /// Catalog and registry.
    pub control: Arc<ControlState>,
    /// The archive.
    pub archive: Arc<dyn Archive>,
    /// What was found.
    pub report: RecoveryReport,
}

impl Recovered {
    /// Every stream's table.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.parts.tables
    }

    /// Last row of each device.
    pub fn last_values(&self) -> &Arc<LastValues> {
        &self.parts.last_values
    }

    /// How far the engine is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.parts.progress
    }

    /// The ledgers of all identities.
    pub fn ledgers(&self) -> std::collections::BTreeMap<quiver_model::SenderId, crate::Ledger> {
        crate::engine::merge_ledgers(self.shards.iter().map(Shard::ledgers))
    }
}

/// Opens a data directory: takes its lock, and brings back what was durable.
pub async fn recover(
    options: &EngineOptions,
    environment: Environment,
    metrics: Arc<Metrics>,
) -> Result<Recovered, StartError> {
    let Environment {
        vfs,
        clock,
        entropy,
        archive,
    } = environment;
    let data_dir = |source| StartError::DataDir {
        path: options.data_dir.clone(),
        source,
    };
    options.check()?;
    make_dirs(&*vfs, &options.data_dir).map_err(data_dir)?;
    let lock = DirLock::acquire(&*vfs, &options.data_dir)?;
    let log_dir = options.data_dir.join("log");
    let mut checkpoints =
        CheckpointStore::open(vfs.clone(), &options.data_dir.join("checkpoints"))?;
    let mut report = RecoveryReport::default();
    let mut checkpoint = match checkpoints.load_newest()? {
        None => None,
        Some(found) => {
            report.damaged_checkpoints = found.passed_over.len();
            Some(StoredCheckpoint::decode(found.position, found.payload)?)
        }
    };
    let restored = checkpoint
        .as_ref()
        .map_or(Position(0), |checkpoint| checkpoint.position);
    let replay_from = checkpoint
        .as_ref()
        .map_or(Position(1), |checkpoint| checkpoint.replay_from);
    report.checkpoint = checkpoint.as_ref().map(|checkpoint| checkpoint.position);

    let mut damaged = Vec::new();
    // The archive's transactions name the log, so the log's id comes first; what the archive holds
    // then says which positions the log must not give again.
    let log_options = quiver_log::LogOptions {
        verify_from: replay_from,
        ..options.log.clone()
    };
    let id = match quiver_log::stored_id(&*vfs, &log_dir).map_err(data_dir)? {
        Some(id) => id,
        None => {
            let floor = RecoveryFloor { at_least: restored };
            let (log, found) =
                Log::open(vfs.clone(), &log_dir, log_options.clone(), &*entropy, floor)?;
            // Opening cuts what is damaged at the end: the next time it is not found.
            damaged = found.damaged;
            log.id()
        }
    };
    let archive = archive(id).map_err(data_dir)?;
    let opened = archive.open().await?;
    report.damaged_tables = opened.damaged.iter().map(DamagedTable::to_string).collect();
    let archived = opened
        .tables
        .iter()
        .flat_map(|table| {
            table
                .files
                .iter()
                .map(|file| file.max_position)
                .chain([table.flushed])
        })
        .max()
        .unwrap_or_default();
    let floor = RecoveryFloor {
        at_least: restored.max(archived),
    };
    let (log, found) = Log::open(vfs.clone(), &log_dir, log_options, &*entropy, floor)?;
    damaged.extend(found.damaged);
    damaged.extend(missing_ends(
        &log_dir,
        found.oldest,
        found.log_end,
        restored,
        floor.at_least,
        replay_from,
    ));
    report.cut_bytes = found.cut_bytes;

    let control = Arc::new(ControlState::default());
    let checkpoint_time = checkpoint
        .as_ref()
        .map_or(Timestamp(0), |checkpoint| checkpoint.record_time);
    let last_values = Arc::new(LastValues::new(options.shard_count));
    if let Some(checkpoint) = &mut checkpoint {
        restore_control(&control, &last_values, checkpoint)?;
    }
    let last_time = log.last_time().unwrap_or_default().max(checkpoint_time);
    let budget = MemoryBudget::new(MemoryLimits {
        device: options.memory_bytes,
        derived: DERIVED_BYTES,
    });
    let tables = Arc::new(Tables::new(options.shard_count));
    let committed = Position(log.committed_end().get().saturating_sub(1));
    let (queue, commands) = AppendQueue::new();
    let parts = ShardParts {
        tables: tables.clone(),
        last_values,
        budget,
        metrics,
        progress: Arc::new(Progress::new(options.shard_count, committed)),
        clock,
        queue: queue.clone(),
    };
    for snapshot in &opened.tables {
        let schema = schema_of(&control, snapshot)?;
        let problem = |problem: String| StartError::Table {
            stream: snapshot.stream.to_string(),
            problem,
        };
        tables
            .get_or_create(&schema)
            .install_archived(snapshot.clone())
            .map_err(|error| problem(error.to_string()))?;
    }
    let new_shard = |id| Shard::new(ShardId(id), parts.clone(), restored, ShardImage::default());
    let mut shards: Vec<Shard> = (0..options.shard_count).map(new_shard).collect();
    if let Some(mut checkpoint) = checkpoint {
        checkpoint.restore_identities(&mut shards)?;
    }
    let mut recovered = Recovered {
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
    };
    recovered
        .replay(replay_from, restored, damaged, &options.log)
        .await?;
    Ok(recovered)
}

fn make_dirs(vfs: &dyn Vfs, dir: &std::path::Path) -> std::io::Result<()> {
    if let Some(parent) = dir.parent()
        && !parent.as_os_str().is_empty()
        && parent != dir
        && vfs.list(parent).is_err()
    {
        make_dirs(vfs, parent)?;
    }
    vfs.create_dir(dir)
}

fn restore_control(
    control: &ControlState,
    last_values: &LastValues,
    checkpoint: &mut StoredCheckpoint,
) -> Result<(), StartError> {
    if let Some(catalog) = checkpoint.catalog.take() {
        control
            .catalog
            .import(catalog, |bytes| decode_schema(bytes, &DecodeLimits::STORED))?;
    }
    control
        .damage
        .import(std::mem::take(&mut checkpoint.damage));
    checkpoint.restore_registry(&control.registry)?;
    checkpoint.restore_last_values(last_values)?;
    Ok(())
}

/// The schema of an archived table: the catalog's, or, where the log that had it was lost, what
/// the table itself says.
fn schema_of(
    control: &ControlState,
    snapshot: &quiver_hot::ArchiveSnapshot,
) -> Result<Arc<StreamSchema>, StartError> {
    if let Some(schema) = control.catalog.stream(&snapshot.stream)
        && schema.fields().len() >= snapshot.fields.len()
    {
        return Ok(schema);
    }
    let problem = |error: quiver_model::SchemaConflict| StartError::Table {
        stream: snapshot.stream.to_string(),
        problem: error.to_string(),
    };
    if snapshot.stream.is_reserved() {
        let schema = StreamSchema::new(
            snapshot.stream.clone(),
            SchemaId(0),
            snapshot.fields.to_vec(),
        );
        return Ok(Arc::new(schema.map_err(problem)?));
    }
    let id = control.catalog.next_id();
    control
        .catalog
        .apply_stream_schema(&snapshot.stream, id, snapshot.fields.to_vec())
        .map_err(problem)
}

impl Recovered {
    async fn replay(
        &mut self,
        replay_from: Position,
        restored: Position,
        damaged: Vec<DamagedRange>,
        options: &quiver_log::LogOptions,
    ) -> Result<(), StartError> {
        let from = replay_from.max(self.log.oldest_position());
        let mut findings = Findings::new(damaged, &self.parts.tables, restored, replay_from);
        if !findings.is_empty() {
            self.shards.iter_mut().for_each(Shard::watch_gaps);
        }
        let shard_count = self.parts.tables.shard_count();
        let replay = self.log.replay(from)?;
        let mut control_rows = Vec::new();
        for committed in replay {
            let committed = match committed {
                Ok(committed) => committed,
                Err(quiver_log::ReplayError::Damaged(range)) => {
                    findings.add(*range);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let (position, record) = (committed.position, committed.record);
            findings.pass_until(position, &mut self.shards);
            self.report.records += 1;
            self.control.apply(position, &record);
            self.control
                .catalog
                .touch_wire(record.wire_schema, position);
            let mut told: Vec<(ShardId, ShardEvent)> = Vec::new();
            match record.kind {
                RecordKind::Data | RecordKind::Reject | RecordKind::Lost => {
                    // A batch's refused rows go to a table that is flushed at other times.
                    let rejects = (!record.verdict.refused.is_empty()).then(StreamName::rejects);
                    let wanted_beyond = record.stream.iter().chain(&rejects).map(|stream| {
                        let table = self.parts.tables.table(stream);
                        table.map_or(Position(0), |table| table.state().flushed())
                    });
                    let end = committed_end(position, &record);
                    let rows = wanted_beyond.min().is_none_or(|flushed| end > flushed)
                        || position > restored;
                    let settlement = settlement_of(
                        &record,
                        &self.control,
                        &self.parts.tables,
                        &self.parts.budget,
                        rows,
                    )
                    .or_else(|error| {
                        let is_explained = matches!(error, ReplayRefusal::Schema(_))
                            && findings.undecodable(position, &record, &self.control.damage);
                        let Some(sender) = record.sender.clone().filter(|_| is_explained) else {
                            return Err(StartError::Record {
                                position,
                                problem: error.to_string(),
                            });
                        };
                        tracing::error!(%position, %error, "a record is lost with its schema, which is in a damaged part of the log");
                        self.control.catalog.reserve(record.schema.max(record.wire_schema));
                        Ok(unreadable(sender))
                    })?;
                    if rows && settlement.rows.is_some() {
                        self.report.rows += u64::from(record.rows);
                    }
                    dispatch_settlement(
                        &self.parts.tables,
                        shard_count,
                        position,
                        &record,
                        settlement,
                        &mut |shard, event| told.push((shard, event)),
                    );
                }
                _ => {
                    if record.kind == RecordKind::Control(ControlKind::DamageReported)
                        && let Ok(report) = DamageReport::read(&record)
                    {
                        findings.reported(report);
                    }
                    let mut tell = |shard, event| told.push((shard, event));
                    dispatch_control(shard_count, position, &record, &mut control_rows, &mut tell);
                }
            }
            for (shard, event) in told {
                self.shards[usize::from(shard.get())].apply(event);
            }
            if control_rows.len() >= CONTROL_ROWS_AT_ONCE {
                self.tell_control(&mut control_rows);
            }
            if self.parts.budget.used(Share::Device)
                > self.parts.budget.capacity(Share::Device) / 100 * FLUSH_PERCENT
            {
                self.tell_control(&mut control_rows);
                self.report_before_flush(&mut findings)?;
                self.flush_largest(Position(committed_end(position, &record).get()))
                    .await?;
            }
        }
        self.tell_control(&mut control_rows);
        findings.pass_until(self.log.committed_end(), &mut self.shards);
        self.shards.iter_mut().for_each(Shard::store_pending);
        self.report_damage(findings, options.group_bytes_max)
    }

    /// Tells shard 0 of control records as rows, many at a time.
    fn tell_control(&mut self, rows: &mut Vec<ControlRow>) {
        if let (false, Some(shard)) = (rows.is_empty(), self.shards.first_mut()) {
            shard.apply(ShardEvent::Control(std::mem::take(rows)));
        }
    }

    /// Makes room: everything up to `position` was applied to every shard.
    async fn flush_largest(&mut self, position: Position) -> Result<(), StartError> {
        self.shards.iter_mut().for_each(Shard::store_pending);
        let tables = self.parts.tables.all();
        let Some(table) = tables.iter().max_by_key(|table| table.stats().active_bytes) else {
            return Ok(());
        };
        if table.stats().active_rows > 0 {
            self.flush(table, position).await?;
        }
        Ok(())
    }

    async fn flush(&self, table: &Arc<StreamTable>, position: Position) -> Result<(), StartError> {
        let failed = |error: String| StartError::Flush(error);
        let mut input = None;
        for shard in 0..self.parts.tables.shard_count() {
            match table
                .freeze(ShardId(shard), position)
                .map_err(|error| failed(error.to_string()))?
            {
                FreezeOutcome::Waiting { .. } => {}
                FreezeOutcome::Complete(complete) => input = Some(complete),
            }
        }
        let Some(input) = input else { return Ok(()) };
        let mut attempt = 1;
        let snapshot = loop {
            match self.archive.flush(input.clone()).await {
                Ok(snapshot) => break snapshot,
                Err(error) if error.is_retryable() && attempt < FLUSH_ATTEMPTS => {
                    tracing::warn!(error = %chain(&error), attempt, "a flush during recovery failed");
                    attempt += 1;
                    tokio::time::sleep(FLUSH_PAUSE).await;
                }
                Err(error) => return Err(failed(chain(&error))),
            }
        };
        table
            .complete_flush(position, snapshot)
            .map_err(|error| failed(error.to_string()))
    }
}

/// What is told of a sender's record that cannot be decoded: its sequence is settled, its rows are
/// lost.
fn unreadable(sender: SenderId) -> Settlement {
    Settlement {
        sender,
        rows: None,
        outcome: SettledOutcome::Stored,
        received: std::time::Duration::ZERO,
    }
}

/// Position of the last row of a record.
fn committed_end(position: Position, record: &quiver_log::Record) -> Position {
    Position(position.get() + record.positions() - 1)
}
