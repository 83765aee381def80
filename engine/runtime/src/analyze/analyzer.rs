//! Follows the log with the graph.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use quiver_log::{
    CommittedRecord, ControlKind, LogReader, Record, RecordKind, Replay, ReplayError, Vfs,
};
use quiver_model::{Entropy, Position, StreamName, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::{
    Analysis, DerivedRows, OperatorState,
    append::{Appender, Caused, RefusedRows},
    input::rows_of,
    state_log::{KeptGraph, KeptNode, KeptState, StateLog, StateLogError},
};
use crate::{
    Metrics, Progress, commit::AppendFailure, flush::Flusher, record_clock::RecordClock,
    registry::RegistryChange,
};

/// Most records that are taken before what came out of them is written.
const RECORDS_AT_ONCE: usize = 1_024;
/// Most bytes of their payloads, about.
const BYTES_AT_ONCE: usize = 8 << 20;
/// Most time between two states that are kept; a shorter one between checkpoints is theirs, too.
const KEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How often time is looked at while nothing comes, in microseconds: as often as the graph does.
const TICK: i64 = 1_000_000;
/// Rows that come out before they are written, about.
const DERIVED_AT_ONCE: usize = 1 << 18;
/// Commands that may wait.
const COMMANDS: usize = 64;

/// What an analyzer works with.
pub(crate) struct AnalyzerParts {
    pub(crate) reader: LogReader,
    pub(crate) appender: Appender,
    pub(crate) progress: Arc<Progress>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) record_clock: Arc<RecordClock>,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) directory: PathBuf,
    /// Time between two checkpoints of the engine.
    pub(crate) checkpoint_interval: Duration,
}

/// How far the graph is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnalyzerStatus {
    /// Everything up to here has gone through the graph, and what came out of it is durable.
    pub position: Position,
    /// Record time there.
    pub record_time: Timestamp,
    /// What nodes remember is kept as of here.
    pub kept: Position,
    /// Positions that were trimmed from the log before the graph got to them.
    pub missed: u64,
}

enum Command {
    /// Another graph goes on from where this one is.
    Replace(Box<dyn Analysis>, oneshot::Sender<Result<Position, String>>),
    /// A reference table takes the place of the one before.
    Load(LoadTable, oneshot::Sender<Result<Position, String>>),
    /// Write what happened to the graph.
    Tell(
        ControlKind,
        serde_json::Value,
        oneshot::Sender<Result<(), String>>,
    ),
    /// Go on for so long with what is there, keep the state and end.
    Stop(Duration, oneshot::Sender<Result<(), String>>),
}

/// A reference table for a node.
#[derive(Clone, Debug)]
pub struct LoadTable {
    /// The node.
    pub node: String,
    /// Its new rows.
    pub table: RecordBatch,
    /// Hash of what they were read from.
    pub hash: String,
}

/// It works.
const AT_WORK: u8 = 0;
/// It is to end: no more than the record that it is at is done before it looks at the command.
const ENDING: u8 = 1;
/// Nobody waits for it any more: it neither writes nor keeps anything.
const ABANDONED: u8 = 2;

/// What an analyzer and those who speak with it share.
#[derive(Default)]
struct Shared {
    status: Mutex<AnalyzerStatus>,
    refused: RefusedRows,
    phase: AtomicU8,
}

impl Shared {
    fn is(&self, phase: u8) -> bool {
        self.phase.load(Ordering::SeqCst) >= phase
    }
}

/// Speaks with the analyzer.
#[derive(Clone)]
pub struct AnalyzerHandle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl AnalyzerHandle {
    /// How far it is.
    pub fn status(&self) -> AnalyzerStatus {
        *self
            .shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows of each stream of a node that no stream could take, since the start.
    pub fn refused(&self) -> BTreeMap<StreamName, u64> {
        self.shared.refused.get()
    }

    /// Puts another graph in the place of the one that runs; where in the log it begins. What
    /// nodes remember goes over to nodes of the same name and definition.
    ///
    /// # Errors
    /// What kept it from being done; the graph that runs stays.
    pub async fn replace(&self, analysis: Box<dyn Analysis>) -> Result<Position, String> {
        let (reply, answer) = oneshot::channel();
        let ended = || "the graph does not run any more".to_owned();
        self.commands
            .send(Command::Replace(analysis, reply))
            .await
            .map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Gives a node another reference table, between two records; where in the log it begins.
    ///
    /// # Errors
    /// If the table is not what the node needs: the one before stays.
    pub async fn load(&self, table: LoadTable) -> Result<Position, String> {
        let (reply, answer) = oneshot::channel();
        let ended = || "the graph does not run any more".to_owned();
        self.commands
            .send(Command::Load(table, reply))
            .await
            .map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Writes into the log that a table is in force with which the graph was made.
    ///
    /// # Errors
    /// If the log does not take the record.
    pub async fn tell_loaded(&self, node: &str, hash: &str, rows: usize) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let ended = || "the graph does not run any more".to_owned();
        let body = serde_json::json!({ "node": node, "hash": hash, "rows": rows });
        self.commands
            .send(Command::Tell(ControlKind::LookupLoaded, body, reply))
            .await
            .map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Lets it keep its state and end. It goes on for half of `patience` with what is there already;
    /// if it has not ended after all of it, it is left alone, and what it does then counts for
    /// nothing: what it has put out is in the log, and the rest comes out at the next start.
    ///
    /// # Errors
    /// If the state could not be kept: the next start goes through more of the log.
    pub async fn stop(&self, patience: Duration) -> Result<(), String> {
        self.shared.phase.fetch_max(ENDING, Ordering::SeqCst);
        let stop = async {
            let (reply, answer) = oneshot::channel();
            if self
                .commands
                .send(Command::Stop(patience / 2, reply))
                .await
                .is_err()
            {
                return Ok(());
            }
            answer.await.unwrap_or(Ok(()))
        };
        let stopped = tokio::time::timeout(patience, stop).await;
        stopped.unwrap_or_else(|_| {
            self.shared.phase.fetch_max(ABANDONED, Ordering::SeqCst);
            Err(format!(
                "the graph is busy with a record at or behind position {}, or waits for the log, for more than {} s",
                self.status().position.plus(1),
                patience.as_secs()
            ))
        })
    }
}

/// Follows the log with the graph.
pub struct Analyzer {
    parts: AnalyzerParts,
    analysis: Box<dyn Analysis>,
    state: StateLog,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    now: AnalyzerStatus,
    /// The log from where it is on, if nothing was wrong.
    replay: Option<Replay>,
    kept_at: tokio::time::Instant,
    /// What the log of states has may lack something of what has changed: all is to be kept.
    keeps_all: bool,
    /// Nodes that see nothing up to these positions.
    held: BTreeMap<Position, Vec<StreamName>>,
    /// The graph that the log was told of last.
    told: Option<String>,
    /// Of each node, the table that is in force and that the log was not told of.
    untold: BTreeMap<String, serde_json::Value>,
    /// No more records are taken from then on.
    until: Option<tokio::time::Instant>,
}

impl Analyzer {
    /// Puts back what was kept.
    pub(crate) fn open(
        parts: AnalyzerParts,
        mut analysis: Box<dyn Analysis>,
    ) -> Result<(Self, AnalyzerHandle), StateLogError> {
        let (state, kept) = StateLog::open(parts.vfs.clone(), &parts.directory, &*parts.entropy)?;
        // What others than the nodes of this graph remember is of no use any more: they have not seen
        // what comes from now on.
        let mut is_all = kept.is_none();
        let mut held = BTreeMap::new();
        let mut told = None;
        let now = match kept {
            // A graph begins with what comes, not with what is there: that is what a backtest is for.
            None => {
                analysis.begin(&parts.appender.control.state().registry);
                AnalyzerStatus {
                    position: parts.progress.committed(),
                    record_time: parts.record_clock.now(),
                    ..AnalyzerStatus::default()
                }
            }
            Some(kept) => {
                held = hold(&mut *analysis, &parts.appender, kept.position, &kept.graph);
                is_all = !restore(&mut *analysis, &kept.nodes, &held);
                told = kept.graph.told;
                AnalyzerStatus {
                    position: kept.position,
                    record_time: kept.time,
                    kept: kept.position,
                    missed: 0,
                }
            }
        };
        parts.flusher.set_analysed(now.position.plus(1));
        let (sender, commands) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared {
            status: Mutex::new(now),
            refused: parts.appender.refused.clone(),
            phase: AtomicU8::new(AT_WORK),
        });
        let handle = AnalyzerHandle {
            commands: sender,
            shared: shared.clone(),
        };
        let mut analyzer = Self {
            parts,
            analysis,
            state,
            commands,
            shared,
            now,
            replay: None,
            kept_at: tokio::time::Instant::now(),
            keeps_all: false,
            held,
            told,
            untold: BTreeMap::new(),
            until: None,
        };
        // Before anything comes: where the graph begins is not another place after a kill.
        if is_all {
            analyzer.keep(true)?;
        }
        Ok((analyzer, handle))
    }

    /// Runs until it is told to stop, or the log is closed.
    pub async fn run(mut self) {
        let keep_interval = KEEP_INTERVAL.min(self.parts.checkpoint_interval);
        self.tell_graph().await;
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Stop(patience, reply)) => {
                        self.finish(patience).await;
                        let kept = self.keep(false).map_err(|error| error.to_string());
                        // Whoever asked may be gone.
                        let _ = reply.send(kept);
                        return;
                    }
                    Some(Command::Replace(analysis, reply)) => {
                        let replaced = self.replace(analysis).await;
                        let _ = reply.send(replaced);
                    }
                    Some(Command::Tell(kind, body, reply)) => {
                        let told = self.tell(kind, &body).await;
                        let _ = reply.send(told);
                    }
                    Some(Command::Load(table, reply)) => {
                        let loaded = self.load(table).await;
                        let _ = reply.send(loaded);
                    }
                },
                () = self.parts.progress.wait_committed_beyond(self.now.position) => {
                    match self.catch_up().await {
                        Ok(()) => {}
                        Err(AppendFailure::Closed) => return,
                        Err(AppendFailure::Refused { reason }) => {
                            tracing::warn!(reason, "the graph waits");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(250)) => {
                    self.pass_time().await;
                    self.tell_graph().await;
                    self.tell_tables().await;
                }
            }
            if self.kept_at.elapsed() >= keep_interval
                && self.now.position > self.now.kept
                && let Err(error) = self.keep(false)
            {
                tracing::error!(%error, "what nodes of the graph remember could not be kept; a start goes through more of the log");
            }
        }
    }

    /// Takes what is there, if that does not take long.
    async fn finish(&mut self, patience: Duration) {
        let until = tokio::time::Instant::now() + patience;
        self.until = Some(until);
        let end = self.parts.progress.committed();
        while self.now.position < end && tokio::time::Instant::now() < until {
            if self.catch_up().await.is_err() {
                return;
            }
        }
    }

    /// Whether no more records are to be taken for the time being.
    fn is_called(&self) -> bool {
        match self.until {
            Some(until) => tokio::time::Instant::now() >= until,
            None => self.shared.is(ENDING),
        }
    }

    /// While nothing comes, time passes in the log by ticks.
    async fn pass_time(&mut self) {
        let now = self.parts.record_clock.now();
        let second = |time: Timestamp| time.as_micros().div_euclid(TICK);
        if second(now) <= second(self.now.record_time) || !self.analysis.waits_for_time() {
            return;
        }
        let record = Record::control(RecordKind::Control(ControlKind::Tick), now);
        // Without it time stands still: the next look tries again.
        let _ = self.parts.appender.queue.append_control(record).await;
    }

    /// Takes a portion of what has been committed.
    async fn catch_up(&mut self) -> Result<(), AppendFailure> {
        let from = self.now.position.plus(1);
        let to = self.parts.progress.committed().plus(1);
        // Where it was: finding a position again means to walk through its segment.
        let kept = self.replay.take();
        let mut replay = match kept.filter(|replay| replay.position() == from) {
            Some(mut replay) => {
                replay.extend_to(to);
                replay
            }
            None => match self.parts.reader.read(from, to) {
                Ok(replay) => replay,
                Err(error) => return self.cannot_read(error),
            },
        };
        let mut caused = Vec::new();
        let (mut records, mut bytes, mut rows) = (0, 0, 0);
        let mut at = self.now;
        while records < RECORDS_AT_ONCE && bytes < BYTES_AT_ONCE && rows < DERIVED_AT_ONCE {
            if records > 0 && self.is_called() {
                break;
            }
            let committed = match replay.next() {
                None => break,
                Some(Ok(committed)) => committed,
                Some(Err(error)) => {
                    if records > 0 {
                        // First what came before it.
                        break;
                    }
                    return self.cannot_read(error);
                }
            };
            records += 1;
            bytes += committed.record.payload.len();
            at.position = Position(committed.end().get() - 1);
            at.record_time = at.record_time.max(committed.record.time);
            let by = committed.position;
            self.release_before(by);
            for derived in self.take(committed) {
                rows += derived.rows.num_rows();
                caused.push(Caused { by, derived });
            }
            if records % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        if self.shared.is(ABANDONED) {
            return Err(AppendFailure::Closed);
        }
        self.parts.appender.append(caused).await?;
        self.now = at;
        self.replay = Some(replay);
        self.publish();
        Ok(())
    }

    /// Nodes that were held until before this position see what comes.
    fn release_before(&mut self, position: Position) {
        while let Some(entry) = self.held.first_entry()
            && *entry.key() < position
        {
            for node in entry.remove() {
                self.analysis.hold(&node, false);
            }
        }
    }

    fn publish(&self) {
        let status = &self.shared.status;
        *status.lock().unwrap_or_else(PoisonError::into_inner) = self.now;
    }

    /// The graph goes on behind what cannot be read, and says so.
    fn cannot_read(&mut self, error: ReplayError) -> Result<(), AppendFailure> {
        let end = match &error {
            ReplayError::Trimmed { oldest, .. } => *oldest,
            ReplayError::Damaged(range) => range.positions.end,
            ReplayError::Io { .. }
            | ReplayError::NewerFormat { .. }
            | ReplayError::Record { .. } => {
                return Err(AppendFailure::Refused {
                    reason: error.to_string(),
                });
            }
        };
        let missed = end.get().saturating_sub(self.now.position.get() + 1);
        tracing::error!(%error, missed, "the graph misses a part of the log");
        self.now.missed += missed;
        self.parts.metrics.analysis_missed.add(missed);
        self.now.position = Position(end.get().saturating_sub(1)).max(self.now.position);
        self.publish();
        Ok(())
    }

    /// What comes out of a record. Time passes with every record, whether or not anybody takes its
    /// rows: else windows would wait for ticks that nobody writes while others are busy, and close
    /// at other records when somebody watches a stream.
    fn take(&mut self, committed: CommittedRecord) -> Vec<DerivedRows> {
        let record = &committed.record;
        if let (RecordKind::Data, Some(stream)) = (record.kind, &record.stream)
            && self.analysis.takes(stream)
        {
            match rows_of(&committed, self.parts.appender.control.state()) {
                Ok(Some(rows)) => return self.analysis.rows(stream, rows, record.time),
                Ok(None) => {}
                Err(error) => {
                    let rows = u64::from(record.rows);
                    self.now.missed += rows;
                    self.parts.metrics.analysis_missed.add(rows);
                    tracing::error!(position = %committed.position, %error, "the graph cannot read a record");
                }
            }
        }
        let derived = self.analysis.tick(record.time);
        if record.kind == RecordKind::Registry
            && let Ok(change) = serde_json::from_slice::<RegistryChange>(&record.payload)
        {
            self.analysis.registry(&change);
        }
        derived
    }

    /// What is to be kept of the graph itself.
    fn graph(&self) -> KeptGraph {
        let node = |node: super::NodeDefinition| {
            let held = self.held.iter();
            let held = held.filter(|(_, nodes)| nodes.contains(&node.stream));
            let kept = KeptNode {
                lineage: node.lineage,
                held: held
                    .map(|(position, _)| *position)
                    .max()
                    .unwrap_or_default(),
            };
            (node.stream.to_string(), kept)
        };
        KeptGraph {
            told: self.told.clone(),
            nodes: self.analysis.nodes().into_iter().map(node).collect(),
        }
    }

    /// Keeps what nodes remember, as of now.
    fn keep(&mut self, is_all: bool) -> Result<(), StateLogError> {
        if self.shared.is(ABANDONED) {
            return Ok(());
        }
        self.kept_at = tokio::time::Instant::now();
        let is_all = is_all || self.keeps_all || self.state.is_large();
        // Nodes tell what has changed only once: if that is not kept, everything has to be.
        self.keeps_all = true;
        let state = KeptState {
            position: self.now.position,
            time: self.now.record_time,
            nodes: self.analysis.state(is_all),
            graph: self.graph(),
        };
        self.state.keep(&state, is_all)?;
        self.keeps_all = false;
        self.now.kept = state.position;
        self.parts.flusher.set_analysed(state.position.plus(1));
        self.publish();
        Ok(())
    }

    /// All or nothing: what can fail comes before the record that says that the next graph is in
    /// force, and changes nothing for the one that runs.
    async fn replace(&mut self, mut next: Box<dyn Analysis>) -> Result<Position, String> {
        // What both graphs go on from, on disk: of it the next one takes what is its nodes'. So
        // after a kill that comes before the last step here, it goes on as it does now.
        self.keep(false).map_err(|error| error.to_string())?;
        let state = self.analysis.state(true);
        let graph = self.graph();
        let held = hold(&mut *next, &self.parts.appender, self.now.position, &graph);
        restore(&mut *next, &state, &held);
        let from = self.now.position.plus(1);
        let name = next.name();
        let body = serde_json::json!({ "from": from.get(), "graph": name });
        self.tell(ControlKind::GraphApplied, &body).await?;
        self.analysis = next;
        self.held = held;
        self.told = Some(name);
        // What nodes remember that are gone is of no use any more.
        if let Err(error) = self.keep(true) {
            tracing::error!(%error, "what nodes of the new graph remember could not be kept; it is tried again");
        }
        Ok(from)
    }

    /// Writes into the log which graph is in force, unless it is the one that was told of last.
    async fn tell_graph(&mut self) {
        let name = self.analysis.name();
        if self.told.as_ref() == Some(&name) {
            return;
        }
        // Held nodes are of another definition than what was put out up to where they begin.
        let begin = self.held.last_key_value().map(|(position, _)| *position);
        let from = begin.unwrap_or_default().max(self.now.position).plus(1);
        let body = serde_json::json!({ "from": from.get(), "graph": name });
        match self.tell(ControlKind::GraphApplied, &body).await {
            Ok(()) => {
                self.told = Some(name);
                if let Err(error) = self.keep(false) {
                    tracing::error!(%error, "which graph is in force could not be kept; it is told again after a start");
                }
            }
            Err(error) => tracing::warn!(
                error,
                "which graph is in force is not in the log yet; it is tried again"
            ),
        }
    }

    async fn load(&mut self, load: LoadTable) -> Result<Position, String> {
        // Rows before it met the table before, and are not looked up again after a kill.
        self.keep(false).map_err(|error| error.to_string())?;
        self.analysis.load(&load.node, &load.table)?;
        let from = self.now.position.plus(1);
        let body = serde_json::json!({
            "node": load.node,
            "hash": load.hash,
            "rows": load.table.num_rows(),
            "from": from.get(),
        });
        // The table is in force, whether or not the log takes this now.
        self.untold.insert(load.node, body);
        self.tell_tables().await;
        Ok(from)
    }

    /// Writes into the log which tables are in force that it was not told of.
    async fn tell_tables(&mut self) {
        while let Some((node, body)) = self.untold.pop_first() {
            if let Err(error) = self.tell(ControlKind::LookupLoaded, &body).await {
                tracing::warn!(
                    node,
                    error,
                    "which table is in force is not in the log yet; it is tried again"
                );
                self.untold.insert(node, body);
                return;
            }
        }
    }

    /// Writes what happened to the graph.
    async fn tell(&mut self, kind: ControlKind, body: &serde_json::Value) -> Result<(), String> {
        let now = self.parts.record_clock.now();
        let written = self
            .parts
            .appender
            .control
            .write_control(kind, now, body.to_string());
        written.await.map(drop).map_err(|error| error.to_string())
    }
}

/// Holds nodes of which the log has rows behind `position` that they did not put out as they are
/// defined now; until where. What is kept says how they were defined, as of `position`.
fn hold(
    analysis: &mut dyn Analysis,
    appender: &Appender,
    position: Position,
    kept: &KeptGraph,
) -> BTreeMap<Position, Vec<StreamName>> {
    let mut held: BTreeMap<Position, Vec<StreamName>> = BTreeMap::new();
    for node in analysis.nodes() {
        let stream = node.stream;
        let known = kept.nodes.get(stream.as_str());
        let is_other = known.is_some_and(|known| known.lineage != node.lineage);
        let last = if is_other {
            appender.written.last(&stream)
        } else {
            appender.written.others_last(&stream, node.generation)
        };
        // It may not have got there when the engine was killed again.
        let until = last.max(known.map(|known| known.held));
        if let Some(until) = until.filter(|until| *until > position) {
            tracing::warn!(node = %stream, %until, "a node is defined otherwise than before the engine was killed; what it remembered is lost, and it begins behind what it has put out already");
            analysis.hold(&stream, true);
            held.entry(until).or_default().push(stream);
        }
    }
    held
}

/// Gives nodes what they remember; one that is held, or cannot take it, begins anew. Whether all of
/// it was taken.
fn restore(
    analysis: &mut dyn Analysis,
    nodes: &[OperatorState],
    held: &BTreeMap<Position, Vec<StreamName>>,
) -> bool {
    let held: HashSet<&str> = held.values().flatten().map(StreamName::as_str).collect();
    let mut is_all = true;
    for state in nodes {
        if held.contains(state.node.as_str()) {
            is_all = false;
            continue;
        }
        match analysis.restore(state) {
            Ok(is_taken) => is_all &= is_taken,
            Err(problem) => {
                is_all = false;
                tracing::error!(
                    node = state.node,
                    problem,
                    "a node of the graph cannot take up what it remembered, and begins anew"
                );
            }
        }
    }
    is_all
}
