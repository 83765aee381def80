//! One stream's table: memtables per shard, frozen memtables on their way to the archive, and the
//! archived version, published together as one [`TableState`] that is swapped atomically.
//!
//! Who may do what:
//! - [`StreamTable::append`] and [`StreamTable::freeze`] for a shard: that shard's thread only.
//! - [`StreamTable::complete_flush`] and [`StreamTable::install_archived`]: whoever flushes or compacts.
//! - [`StreamTable::snapshot`], [`StreamTable::stats`]: anyone, at any time.
//!
//! Why a snapshot is whole. A reader takes a state that was current when every shard had applied
//! Q. All rows ≤ Q were then in that state's memtables or archived version. Memtables only grow,
//! and after a freeze a shard appends to a new one, so a state taken before a swap stays complete:
//! its memtables and its archived version belong together, whatever is published later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use quiver_model::{Position, ShardId, StreamName, StreamSchema};

use crate::{
    ArchiveSnapshot, FlushInput, LayoutError, Reservation,
    layout::{check, conform, position_bounds, slice_positions},
    memtable::{Memtable, Usage},
    sync::lock,
};

/// A stream's table; shared by shards, queries and the flusher.
#[derive(Debug)]
pub struct StreamTable {
    name: StreamName,
    shard_count: u16,
    schema: ArcSwap<StreamSchema>,
    state: ArcSwap<TableState>,
    /// Held while a new state is made from the present one; readers and appends never take it.
    barriers: Mutex<Barriers>,
}

/// What is in the table, at one moment.
#[derive(Clone, Debug)]
pub struct TableState {
    archived: Arc<ArchiveSnapshot>,
    flushed: Position,
    shards: Vec<ShardMemtables>,
}

#[derive(Clone, Debug, Default)]
struct ShardMemtables {
    active: Arc<Memtable>,
    /// Oldest first, each with the barrier it was frozen for.
    frozen: Vec<(Position, Arc<Memtable>)>,
}

/// Flushes under way.
#[derive(Debug)]
struct Barriers {
    /// Last barrier of each shard.
    last: Vec<Position>,
    /// Barriers that some shards have not reached, with those that have.
    waiting: BTreeMap<Position, BTreeSet<ShardId>>,
    /// Barriers that every shard has reached and that are not archived.
    complete: BTreeSet<Position>,
}

/// What became of a batch that was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the memtable.
    Stored,
    /// All its rows are in the archive already (recovery replays what a flush had covered).
    AlreadyArchived,
}

/// Why a batch cannot be appended: a mistake of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No such shard.
    #[error("stream {stream} has no shard {shard}")]
    Shard {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
    },
    /// The batch is not laid out as the stream's schema says.
    #[error("a batch of stream {stream} cannot be stored: {source}")]
    Layout {
        /// The stream.
        stream: StreamName,
        /// What is wrong.
        #[source]
        source: LayoutError,
    },
    /// The batch does not come after the rows before it.
    #[error("a batch of stream {stream} begins at position {first}, not after {last}")]
    Order {
        /// The stream.
        stream: StreamName,
        /// First position of the batch.
        first: Position,
        /// Last position or barrier of this shard.
        last: Position,
    },
}

/// What a freeze led to.
#[derive(Debug)]
pub enum FreezeOutcome {
    /// Other shards have yet to reach the barrier.
    Waiting {
        /// How many.
        remaining: u16,
    },
    /// This was the last shard: everything up to the barrier is ready to be archived.
    Complete(FlushInput),
}

/// Why a shard cannot freeze: a mistake of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// No such shard.
    #[error("stream {stream} has no shard {shard}")]
    Shard {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
    },
    /// The barrier is not after the shard's last one, or is archived already.
    #[error("barrier {barrier} of stream {stream} on shard {shard} is not after {last}")]
    Order {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
        /// The barrier.
        barrier: Position,
        /// The last barrier, or the position the archive is complete up to.
        last: Position,
    },
    /// The shard has applied rows beyond the barrier.
    #[error("shard {shard} applied position {applied} of stream {stream} before barrier {barrier}")]
    AppliedBeyond {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
        /// The barrier.
        barrier: Position,
        /// The last position applied.
        applied: Position,
    },
    /// An earlier barrier still waits for this shard.
    #[error("shard {shard} of stream {stream} missed barrier {missed} before {barrier}")]
    Missed {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
        /// The barrier.
        barrier: Position,
        /// The earlier one.
        missed: Position,
    },
}

/// Why an archived version cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// The snapshot is of another stream.
    #[error("a snapshot of stream {found} was offered to stream {stream}")]
    Stream {
        /// This table's stream.
        stream: StreamName,
        /// The snapshot's.
        found: StreamName,
    },
    /// The barrier is not the oldest one that waits for the archive.
    #[error(
        "flush {barrier} of stream {stream} is not the next to complete; flushes complete in barrier order"
    )]
    Order {
        /// The stream.
        stream: StreamName,
        /// The barrier.
        barrier: Position,
    },
    /// Rows up to the barrier are in memory, and the snapshot does not have them.
    #[error(
        "the archive of stream {stream} is complete up to {archived}, not up to barrier {barrier}"
    )]
    NotArchived {
        /// The stream.
        stream: StreamName,
        /// The barrier.
        barrier: Position,
        /// What the snapshot is complete up to.
        archived: Position,
    },
    /// Rows that the snapshot says it has are still in an active memtable.
    #[error(
        "the archive of stream {stream} is complete up to {archived}, but position {active} was not frozen for a flush"
    )]
    Active {
        /// The stream.
        stream: StreamName,
        /// What the snapshot is complete up to.
        archived: Position,
        /// First position of the active memtable.
        active: Position,
    },
}

/// A table as of a position: each row with position ≤ that position exactly once.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// The schema that [`TableSnapshot::hot`] has; archived files may lack its later fields.
    pub schema: Arc<StreamSchema>,
    /// The archived part. Holding it keeps its files.
    pub archived: Arc<ArchiveSnapshot>,
    /// If set, archived rows beyond this position are not part of the snapshot.
    pub archived_limit: Option<Position>,
    /// The other rows. Positions ascend within a batch; batches are in no particular order.
    pub hot: Vec<RecordBatch>,
}

/// How much of a table is in memory only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Rows not archived.
    pub rows: u64,
    /// Bytes of memory they take.
    pub bytes: usize,
    /// Of these, rows that no flush has been started for.
    pub active_rows: u64,
    /// Bytes of memory those take.
    pub active_bytes: usize,
    /// Least position not archived: the log is needed from here on.
    pub oldest_position: Option<Position>,
    /// Least position that no flush has been started for.
    pub oldest_active_position: Option<Position>,
    /// When the first row came that no flush has been started for, on the clock that
    /// [`StreamTable::append`] was given.
    pub active_since: Option<Duration>,
}

impl TableState {
    /// The archived version.
    pub fn archived(&self) -> &Arc<ArchiveSnapshot> {
        &self.archived
    }

    /// Every row up to this position is archived.
    pub fn flushed(&self) -> Position {
        self.flushed
    }

    fn has_frozen_up_to(&self, barrier: Position) -> bool {
        self.shards
            .iter()
            .flat_map(|shard| &shard.frozen)
            .any(|(frozen_for, _)| *frozen_for <= barrier)
    }
}

impl StreamTable {
    /// An empty table of the schema's stream for `shard_count` shards (at least one).
    pub fn new(schema: Arc<StreamSchema>, shard_count: u16) -> Self {
        let shard_count = shard_count.max(1);
        let name = schema.stream().clone();
        let state = TableState {
            archived: Arc::new(ArchiveSnapshot::absent(name.clone())),
            flushed: Position(0),
            shards: (0..shard_count)
                .map(|_| ShardMemtables::default())
                .collect(),
        };
        let barriers = Barriers {
            last: vec![Position(0); usize::from(shard_count)],
            waiting: BTreeMap::new(),
            complete: BTreeSet::new(),
        };
        Self {
            name,
            shard_count,
            schema: ArcSwap::new(schema),
            state: ArcSwap::from_pointee(state),
            barriers: Mutex::new(barriers),
        }
    }

    /// The stream.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// The newest schema version set.
    pub fn schema(&self) -> Arc<StreamSchema> {
        self.schema.load_full()
    }

    /// Takes `schema` over if it has more fields than the present one. Versions only grow, so an
    /// older one that comes late changes nothing.
    pub fn set_schema(&self, schema: &Arc<StreamSchema>) {
        let grows = |present: &StreamSchema| {
            schema.stream() == &self.name && schema.fields().len() > present.fields().len()
        };
        // Asked for every batch, and hardly ever true.
        if grows(&self.schema.load()) {
            self.schema
                .rcu(|present| Arc::clone(if grows(present) { schema } else { present }));
        }
    }

    /// The present state.
    pub fn state(&self) -> Arc<TableState> {
        self.state.load_full()
    }

    /// Appends stored rows, whose positions ascend and are greater than all before on this shard.
    /// `reservation` is held until the rows are archived and no reader uses them; `now` (of a
    /// monotonic clock) is when they came. Takes one uncontended lock.
    pub fn append(
        &self,
        shard: ShardId,
        batch: RecordBatch,
        reservation: Reservation,
        now: Duration,
    ) -> Result<Appended, AppendError> {
        let stream = || self.name.clone();
        let state = self.state.load();
        let memtables =
            state
                .shards
                .get(usize::from(shard.get()))
                .ok_or_else(|| AppendError::Shard {
                    stream: stream(),
                    shard,
                })?;
        check(&batch, self.schema.load().stored()).map_err(|source| AppendError::Layout {
            stream: stream(),
            source,
        })?;
        let Some((first, last)) = position_bounds(&batch) else {
            return Ok(Appended::Stored);
        };
        if last <= state.flushed {
            return Ok(Appended::AlreadyArchived);
        }
        let previous = memtables.last_position();
        if previous.is_some_and(|previous| first <= previous) || first > last {
            return Err(AppendError::Order {
                stream: stream(),
                first,
                last: previous.unwrap_or(last),
            });
        }
        let batch = slice_positions(&batch, state.flushed, last).unwrap_or(batch);
        memtables.active.append(batch, reservation, now);
        Ok(Appended::Stored)
    }

    /// Freezes what the shard has of this stream for the flush up to `barrier`. When this returns,
    /// the shard may apply rows beyond the barrier. The last shard to freeze for a barrier gets
    /// what is to be flushed, once.
    pub fn freeze(&self, shard: ShardId, barrier: Position) -> Result<FreezeOutcome, FreezeError> {
        let stream = || self.name.clone();
        let index = usize::from(shard.get());
        let mut barriers = lock(&self.barriers);
        let state = self.state.load_full();
        let Some(memtables) = state.shards.get(index) else {
            return Err(FreezeError::Shard {
                stream: stream(),
                shard,
            });
        };
        let last = barriers
            .last
            .get(index)
            .copied()
            .unwrap_or_default()
            .max(state.flushed);
        if barrier <= last {
            return Err(FreezeError::Order {
                stream: stream(),
                shard,
                barrier,
                last,
            });
        }
        let usage = memtables.active.usage();
        if let Some((_, applied)) = usage.bounds
            && applied > barrier
        {
            return Err(FreezeError::AppliedBeyond {
                stream: stream(),
                shard,
                barrier,
                applied,
            });
        }
        let missed = barriers
            .waiting
            .range(..barrier)
            .find(|(_, frozen)| !frozen.contains(&shard));
        if let Some((missed, _)) = missed {
            return Err(FreezeError::Missed {
                stream: stream(),
                shard,
                barrier,
                missed: *missed,
            });
        }

        if usage.rows > 0 {
            let mut next = TableState::clone(&state);
            if let Some(memtables) = next.shards.get_mut(index) {
                let frozen = std::mem::take(&mut memtables.active);
                memtables.frozen.push((barrier, frozen));
            }
            self.state.store(Arc::new(next));
        }
        if let Some(last) = barriers.last.get_mut(index) {
            *last = barrier;
        }
        let frozen = barriers.waiting.entry(barrier).or_default();
        frozen.insert(shard);
        let remaining = usize::from(self.shard_count).saturating_sub(frozen.len());
        if remaining > 0 {
            return Ok(FreezeOutcome::Waiting {
                remaining: u16::try_from(remaining).unwrap_or(u16::MAX),
            });
        }
        barriers.waiting.remove(&barrier);
        barriers.complete.insert(barrier);
        Ok(FreezeOutcome::Complete(self.flush_input(barrier)))
    }

    /// The oldest flush that every shard has frozen for and that is not archived; for trying again.
    pub fn pending_flush(&self) -> Option<FlushInput> {
        let barriers = lock(&self.barriers);
        let barrier = *barriers.complete.first()?;
        Some(self.flush_input(barrier))
    }

    fn flush_input(&self, barrier: Position) -> FlushInput {
        let state = self.state.load();
        let mut batches = Vec::new();
        let frozen = state.shards.iter().flat_map(|shard| &shard.frozen);
        for (_, memtable) in frozen.filter(|(frozen_for, _)| *frozen_for == barrier) {
            memtable.read(state.flushed, barrier, &mut batches);
        }
        FlushInput {
            stream: self.name.clone(),
            schema: self.schema(),
            barrier,
            batches,
        }
    }

    /// Publishes that the flush up to `barrier` is archived as `snapshot`: in one swap the version
    /// replaces the frozen memtables it holds the rows of. If nothing was to be written, `snapshot`
    /// may be the present version. Calling it again for an archived barrier does nothing.
    pub fn complete_flush(
        &self,
        barrier: Position,
        snapshot: Arc<ArchiveSnapshot>,
    ) -> Result<(), CompleteError> {
        let stream = || self.name.clone();
        let mut barriers = lock(&self.barriers);
        let state = self.state.load_full();
        if barrier > state.flushed {
            if barriers.complete.first() != Some(&barrier) {
                return Err(CompleteError::Order {
                    stream: stream(),
                    barrier,
                });
            }
            if snapshot.flushed < barrier && state.has_frozen_up_to(barrier) {
                return Err(CompleteError::NotArchived {
                    stream: stream(),
                    barrier,
                    archived: snapshot.flushed,
                });
            }
        }
        self.install(&mut barriers, &state, snapshot, barrier)
    }

    /// Publishes a version that did not come from a flush: the one found at start, or one made by
    /// compaction. An older version than the present one changes nothing.
    pub fn install_archived(&self, snapshot: Arc<ArchiveSnapshot>) -> Result<(), CompleteError> {
        let mut barriers = lock(&self.barriers);
        let state = self.state.load_full();
        self.install(&mut barriers, &state, snapshot, Position(0))
    }

    fn install(
        &self,
        barriers: &mut Barriers,
        state: &TableState,
        snapshot: Arc<ArchiveSnapshot>,
        barrier: Position,
    ) -> Result<(), CompleteError> {
        if snapshot.stream != self.name {
            return Err(CompleteError::Stream {
                stream: self.name.clone(),
                found: snapshot.stream.clone(),
            });
        }
        let archived = if snapshot.version > state.archived.version {
            snapshot
        } else {
            Arc::clone(&state.archived)
        };
        let flushed = state.flushed.max(archived.flushed).max(barrier);
        for shard in &state.shards {
            if let Some((active, _)) = shard.active.usage().bounds
                && active <= flushed
            {
                return Err(CompleteError::Active {
                    stream: self.name.clone(),
                    archived: flushed,
                    active,
                });
            }
        }
        let shards = state.shards.iter().map(|shard| ShardMemtables {
            active: Arc::clone(&shard.active),
            frozen: shard
                .frozen
                .iter()
                .filter(|(frozen_for, _)| *frozen_for > flushed)
                .cloned()
                .collect(),
        });
        self.state.store(Arc::new(TableState {
            archived,
            flushed,
            shards: shards.collect(),
        }));
        barriers.complete = barriers.complete.split_off(&flushed.plus(1));
        barriers.waiting = barriers.waiting.split_off(&flushed.plus(1));
        Ok(())
    }

    /// The table as of `q`. Every shard must have applied `q` before this is called.
    ///
    /// # Errors
    /// Only if a batch contradicts its stream's schema, which [`StreamTable::append`] prevents.
    pub fn snapshot(&self, q: Position) -> Result<TableSnapshot, ArrowError> {
        let state = self.state.load_full();
        let mut batches = Vec::new();
        for shard in &state.shards {
            for (_, memtable) in &shard.frozen {
                memtable.read(state.flushed, q, &mut batches);
            }
            shard.active.read(state.flushed, q, &mut batches);
        }
        // After the rows: a schema is set before its first batch, so this one knows every column
        // that was read.
        let schema = self.schema();
        let hot = batches
            .iter()
            .map(|batch| conform(batch, schema.stored()))
            .collect::<Result<_, _>>()?;
        let archived_limit = (state.archived.flushed > q).then_some(q);
        Ok(TableSnapshot {
            schema,
            archived: Arc::clone(&state.archived),
            archived_limit,
            hot,
        })
    }

    /// How much is in memory only: what flush decisions and the log's trimming go by.
    pub fn stats(&self) -> TableStats {
        let state = self.state.load();
        let mut stats = TableStats::default();
        for shard in &state.shards {
            for (_, memtable) in &shard.frozen {
                stats.add(memtable.usage());
            }
            let active = shard.active.usage();
            stats.add(active);
            stats.active_rows += active.rows;
            stats.active_bytes += active.bytes;
            stats.oldest_active_position = least(
                stats.oldest_active_position,
                active.bounds.map(|(first, _)| first),
            );
            stats.active_since = least(stats.active_since, active.since);
        }
        stats
    }
}

impl ShardMemtables {
    fn last_position(&self) -> Option<Position> {
        let active = self.active.usage().bounds.map(|(_, last)| last);
        active.or_else(|| self.frozen.last().map(|(barrier, _)| *barrier))
    }
}

impl TableStats {
    fn add(&mut self, usage: Usage) {
        self.rows += usage.rows;
        self.bytes += usage.bytes;
        self.oldest_position = least(self.oldest_position, usage.bounds.map(|(first, _)| first));
    }
}

fn least<T: Ord>(left: Option<T>, right: Option<T>) -> Option<T> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
