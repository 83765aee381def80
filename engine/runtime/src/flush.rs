//! From memtables to the archive: which stream is due, the barrier, the commit, the swap, and what
//! the log may give up afterwards.
//!
//! ```text
//! Flusher ──Barrier──▶ commit loop ──in band──▶ every shard: freeze ──last one──▶ FlushInput
//!    ▲                                                                              │
//!    └──── Trim(floor) ◀── complete_flush (one swap) ◀── Archive::flush (durable) ◀─┘
//! ```
//!
//! Flushes of one stream go one at a time, in barrier order. A flush that fails is tried again
//! until it succeeds or the engine stops; its rows stay in memory and in the log.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use quiver_hot::{
    Archive, FlushError, FlushInput, FreezeOutcome, MemoryBudget, Share, StreamTable, Tables,
};
use quiver_model::{Clock, Position, StreamName};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::{
    commit::{AppendQueue, CommitCommand},
    control::ControlWriter,
    metrics::Metrics,
    progress::Progress,
};

/// How often the flusher looks around by itself.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Share of the memory in use from which the largest stream is flushed early, in percent.
const PRESSURE_PERCENT: usize = 50;
/// Share of the memory in use from which flushes no longer wait for everything else to leave the
/// processor, in percent. What is below it is time to flush at low priority; what is above, for
/// flushes to end before ingest has to wait.
const HURRY_PERCENT: usize = 65;
/// First and longest pause before a failed flush is tried again.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Flushes of different streams at once: each uses a core.
const FLUSHES_AT_ONCE: usize = 2;

/// A flush barrier on its way through the shards.
#[derive(Clone)]
pub struct FlushTicket {
    shared: Arc<Ticket>,
}

struct Ticket {
    table: Arc<StreamTable>,
    state: Mutex<TicketState>,
}

struct TicketState {
    shards_left: u16,
    ready: Option<oneshot::Sender<Option<FlushInput>>>,
}

impl FlushTicket {
    pub(crate) fn new(
        table: Arc<StreamTable>,
        shard_count: u16,
    ) -> (Self, oneshot::Receiver<Option<FlushInput>>) {
        let (ready, wait) = oneshot::channel();
        let state = Mutex::new(TicketState {
            shards_left: shard_count,
            ready: Some(ready),
        });
        (
            Self {
                shared: Arc::new(Ticket { table, state }),
            },
            wait,
        )
    }

    pub(crate) fn table(&self) -> &Arc<StreamTable> {
        &self.shared.table
    }

    /// A shard has frozen.
    pub(crate) fn frozen(&self, _: Position, outcome: FreezeOutcome) {
        let input = match outcome {
            FreezeOutcome::Waiting { .. } => None,
            FreezeOutcome::Complete(input) => Some(input),
        };
        self.report(input);
    }

    /// A shard had nothing to freeze.
    pub(crate) fn nothing(&self) {
        self.report(None);
    }

    fn report(&self, input: Option<FlushInput>) {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.shards_left = state.shards_left.saturating_sub(1);
        if (input.is_some() || state.shards_left == 0)
            && let Some(ready) = state.ready.take()
        {
            // The flusher may have stopped; the frozen rows are in the log.
            let _ = ready.send(input);
        }
    }
}

/// When a stream is flushed by itself.
#[derive(Clone, Copy, Debug)]
pub struct FlushRules {
    /// Unflushed bytes.
    pub bytes: usize,
    /// Age of the oldest unflushed row.
    pub age: Duration,
    /// Bytes of the log beyond which the stream that holds its oldest part is flushed.
    pub log_bytes: u64,
}

/// The log is kept for a graph that lags until it is so many times what it may be otherwise.
const ANALYSIS_LOG_FACTOR: u64 = 4;

/// Flushes streams, and trims the log.
pub struct Flusher {
    tables: Arc<Tables>,
    archive: Arc<dyn Archive>,
    queue: AppendQueue,
    budget: MemoryBudget,
    progress: Arc<Progress>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    control: Arc<ControlWriter>,
    rules: FlushRules,
    at_once: Semaphore,
    streams: Mutex<HashMap<StreamName, Arc<tokio::sync::Mutex<()>>>>,
    poke: Notify,
    stop: Notify,
    stopped: std::sync::atomic::AtomicBool,
    /// Position of the older checkpoint; nothing above it is trimmed.
    checkpointed: std::sync::atomic::AtomicU64,
    /// The graph goes on from here after a start; `u64::MAX` without one.
    analysed: std::sync::atomic::AtomicU64,
}

/// What a flusher works with.
pub struct FlusherParts {
    /// Every stream's table.
    pub tables: Arc<Tables>,
    /// Where rows go.
    pub archive: Arc<dyn Archive>,
    /// The log's queue.
    pub queue: AppendQueue,
    /// Memory.
    pub budget: MemoryBudget,
    /// How far the engine is.
    pub progress: Arc<Progress>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Which streams are of nodes of the graph.
    pub control: Arc<ControlWriter>,
    /// When to flush.
    pub rules: FlushRules,
}

impl Flusher {
    /// A flusher that does nothing until [`Flusher::run`].
    pub fn new(parts: FlusherParts) -> Arc<Self> {
        let FlusherParts {
            tables,
            archive,
            queue,
            budget,
            progress,
            metrics,
            clock,
            control,
            rules,
        } = parts;
        Arc::new(Self {
            tables,
            archive,
            queue,
            budget,
            progress,
            metrics,
            clock,
            control,
            rules,
            at_once: Semaphore::new(FLUSHES_AT_ONCE),
            streams: Mutex::default(),
            poke: Notify::new(),
            stop: Notify::new(),
            stopped: std::sync::atomic::AtomicBool::new(false),
            checkpointed: std::sync::atomic::AtomicU64::new(0),
            analysed: std::sync::atomic::AtomicU64::new(u64::MAX),
        })
    }

    /// Says that memory is short: look at once.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// Ends [`Flusher::run`], and retries.
    pub(crate) fn stop(&self) {
        self.stopped
            .store(true, std::sync::atomic::Ordering::SeqCst);
        self.stop.notify_waiters();
        self.stop.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The older of the two checkpoints is at `position`.
    pub(crate) fn set_checkpointed(&self, position: Position) {
        self.checkpointed
            .store(position.get(), std::sync::atomic::Ordering::SeqCst);
    }

    /// The graph needs the log from `position` on.
    pub(crate) fn set_analysed(&self, position: Position) {
        self.analysed
            .store(position.get(), std::sync::atomic::Ordering::SeqCst);
    }

    /// What the graph needs of the log; everything may go if it is so far behind that the log would
    /// fill the disk for it: it goes on where the log begins then, and says what it has missed.
    pub(crate) fn analysed(&self) -> Position {
        let log_size = u64::try_from(self.metrics.log_size.get()).unwrap_or(0);
        if log_size > self.rules.log_bytes.saturating_mul(ANALYSIS_LOG_FACTOR) {
            return Position(u64::MAX);
        }
        Position(self.analysed.load(std::sync::atomic::Ordering::SeqCst))
    }

    /// Looks for streams that are due, until stopped. A stream whose flush takes long, or fails
    /// again and again, does not keep the others from being flushed.
    pub async fn run(self: Arc<Self>) {
        let mut flushing: BTreeSet<StreamName> = BTreeSet::new();
        let mut flushes = FuturesUnordered::new();
        while !self.is_stopped() {
            tokio::select! {
                biased;
                () = self.stop.notified() => return,
                Some(ended) = flushes.next() => {
                    flushing.remove(&ended);
                    self.trim().await;
                }
                () = self.poke.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            for table in self.due() {
                if flushing.insert(table.name().clone()) {
                    flushes.push(self.flush(table));
                }
            }
        }
    }

    fn due(&self) -> Vec<Arc<StreamTable>> {
        let now = self.clock.monotonic();
        let tables = self.tables.all();
        let capacity = self.budget.capacity(Share::Device);
        let waiting = self.budget.waiting(Share::Device) > 0;
        let uses = |percent| self.budget.used(Share::Device) > capacity / 100 * percent;
        let pressed = waiting || uses(PRESSURE_PERCENT);
        // Rows of nodes have memory of their own, which only their streams give back.
        let derived = self.budget.capacity(Share::Derived);
        let derived_pressed = self.budget.waiting(Share::Derived) > 0
            || self.budget.used(Share::Derived) > derived / 100 * PRESSURE_PERCENT;
        let rules = self.control.rules();
        self.archive.set_hurried(waiting || uses(HURRY_PERCENT));
        let log_size = u64::try_from(self.metrics.log_size.get()).unwrap_or(0);
        let log_full = log_size > self.rules.log_bytes;
        let stats: Vec<_> = tables.iter().map(|table| (table, table.stats())).collect();
        let unflushed: usize = stats.iter().map(|(_, stats)| stats.bytes).sum();
        self.metrics
            .unflushed_bytes
            .set(i64::try_from(unflushed).unwrap_or(i64::MAX));
        let largest = stats
            .iter()
            .map(|(_, stats)| stats.active_bytes)
            .max()
            .unwrap_or(0);
        let is_derived = |table: &Arc<StreamTable>| rules.is_derived(table.name());
        let largest_derived = stats
            .iter()
            .filter(|(table, _)| is_derived(table))
            .map(|(_, stats)| stats.active_bytes)
            .max()
            .unwrap_or(0);
        let oldest = stats
            .iter()
            .filter_map(|(_, stats)| stats.oldest_active_position)
            .min();
        stats
            .iter()
            .filter(|(_, stats)| stats.active_rows > 0)
            .filter(|(table, stats)| {
                stats.active_bytes >= self.rules.bytes
                    || stats
                        .active_since
                        .is_some_and(|since| now.saturating_sub(since) >= self.rules.age)
                    || (pressed && stats.active_bytes == largest)
                    || (derived_pressed
                        && stats.active_bytes == largest_derived
                        && is_derived(table))
                    || (log_full && stats.oldest_active_position == oldest)
            })
            .map(|(table, _)| Arc::clone(table))
            .collect()
    }

    /// Flushes every stream that has rows in memory only.
    pub async fn flush_all(&self) -> Result<(), FlushError> {
        self.archive.set_hurried(true);
        for table in self.tables.all() {
            let stats = table.stats();
            if stats.rows > 0 {
                self.try_flush(&table).await?;
            }
        }
        self.trim().await;
        Ok(())
    }

    /// The streams that have rows in memory only.
    pub(crate) fn unflushed_streams(&self) -> Vec<String> {
        let tables = self.tables.all();
        let unflushed = tables.iter().filter(|table| table.stats().rows > 0);
        unflushed.map(|table| table.name().to_string()).collect()
    }

    /// Flushes a stream, trying again until it succeeds or the engine stops; its name.
    async fn flush(&self, table: Arc<StreamTable>) -> StreamName {
        let mut pause = RETRY_MIN;
        while let Err(error) = self.try_flush(&table).await {
            self.metrics.flush_failures.add(1);
            tracing::error!(error = %chain(&error), "a flush failed");
            if !error.is_retryable() {
                // Only an operator can mend it: no need to look often.
                pause = RETRY_MAX;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.notified() => break,
            }
            if self.is_stopped() {
                break;
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
        table.name().clone()
    }

    async fn try_flush(&self, table: &Arc<StreamTable>) -> Result<(), FlushError> {
        let one_at_a_time = {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.entry(table.name().clone()).or_default().clone()
        };
        let _one = one_at_a_time.lock().await;
        // An error means that the semaphore is closed, which never happens.
        let _slot = self.at_once.acquire().await;
        // What an earlier attempt froze and did not commit goes first.
        while let Some(input) = table.pending_flush() {
            self.archive_and_swap(table, input).await?;
        }
        let (ticket, ready) = FlushTicket::new(table.clone(), self.tables.shard_count());
        if self
            .queue
            .command(CommitCommand::Barrier(ticket))
            .await
            .is_err()
        {
            return Ok(());
        }
        match ready.await {
            Ok(Some(input)) => self.archive_and_swap(table, input).await,
            Ok(None) | Err(_) => Ok(()),
        }
    }

    async fn archive_and_swap(
        &self,
        table: &Arc<StreamTable>,
        input: FlushInput,
    ) -> Result<(), FlushError> {
        let (stream, barrier, rows) = (input.stream.clone(), input.barrier, input.rows());
        let snapshot = if input.is_empty() {
            table.state().archived().clone()
        } else {
            self.archive.flush(input).await?
        };
        self.metrics.flushes.add(1);
        tracing::debug!(%stream, %barrier, rows, version = snapshot.version, "flushed");
        table
            .complete_flush(barrier, snapshot)
            .map_err(|error| FlushError::Invalid {
                stream,
                barrier,
                problem: error.to_string(),
            })
    }

    /// First position that is not archived: recovery needs the log from here on.
    pub fn first_unflushed(&self) -> Position {
        // Taken first: what is applied by now is in a memtable that the tables below show.
        let applied = self.progress.applied_by_all();
        let in_memory = self
            .tables
            .all()
            .iter()
            .filter_map(|table| table.stats().oldest_position)
            .min();
        in_memory.unwrap_or(Position(u64::MAX)).min(applied.plus(1))
    }

    /// Lets the log give up what neither recovery nor its retention needs.
    pub async fn trim(&self) {
        let checkpointed = Position(self.checkpointed.load(std::sync::atomic::Ordering::SeqCst));
        if checkpointed == Position(0) {
            return;
        }
        let floor = self
            .first_unflushed()
            .min(checkpointed.plus(1))
            .min(self.analysed());
        let (reply, answer) = oneshot::channel();
        if self
            .queue
            .command(CommitCommand::Trim(floor, reply))
            .await
            .is_err()
        {
            return;
        }
        match answer.await {
            Ok(Ok(report)) => {
                self.metrics
                    .log_size
                    .set(i64::try_from(report.bytes).unwrap_or(i64::MAX));
                tracing::debug!(%floor, oldest = %report.oldest, bytes = report.bytes, "log trimmed");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the log could not be trimmed"),
            Err(_) => {}
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
