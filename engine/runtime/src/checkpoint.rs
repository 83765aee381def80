//! A checkpoint: the engine's state as of a position C, taken by a barrier that passes through
//! the log's order, not by a sample.
//!
//! ```text
//! Checkpointer ──Checkpoint──▶ commit loop: C, control state ──in band──▶ shards: their images
//!      └───────────── all delivered: write, fsync, rename, fsync ◀──────────────────┘
//! ```
//!
//! What the shards and the commit loop hand over costs them little: the registry and the last values
//! are only held on to, and what is written afterwards is copied first; identities are encoded into
//! bytes at once. The rest is done where it is in nobody's way, portion by portion: see
//! [`CheckpointState::write`] and [`StoredCheckpoint`].

mod payload;

use std::sync::{Arc, Mutex, PoisonError};

use quiver_log::CheckpointStore;
use quiver_model::{Position, ShardId, Timestamp};
use tokio::sync::{Notify, oneshot};

use crate::{
    catalog::CatalogImage,
    commit::{AppendQueue, CommitCommand},
    control::ControlState,
    damage::DamageImage,
    flush::Flusher,
    metrics::Metrics,
    record_clock::RecordClock,
    registry::FrozenEntries,
    shard::ShardImage,
};

pub use payload::{CheckpointError, StoredCheckpoint};

/// Collects the parts of one checkpoint.
pub struct CheckpointCollector {
    state: Mutex<Collected>,
}

struct Collected {
    position: Position,
    catalog: Option<CatalogImage>,
    registry: FrozenEntries,
    damage: DamageImage,
    images: Vec<Option<ShardImage>>,
    done: Option<oneshot::Sender<CheckpointState>>,
}

/// Everything a checkpoint holds.
pub struct CheckpointState {
    /// The position it is as of.
    pub position: Position,
    pub(crate) catalog: Option<CatalogImage>,
    pub(crate) registry: FrozenEntries,
    pub(crate) damage: DamageImage,
    pub(crate) images: Vec<ShardImage>,
    /// Recovery needs the log from here on.
    pub replay_from: Position,
    /// Record time when it was taken.
    pub record_time: Timestamp,
}

impl CheckpointCollector {
    pub(crate) fn new(shard_count: u16) -> (Arc<Self>, oneshot::Receiver<CheckpointState>) {
        let (done, wait) = oneshot::channel();
        let state = Collected {
            position: Position(0),
            catalog: None,
            registry: FrozenEntries::default(),
            damage: DamageImage::default(),
            images: (0..shard_count).map(|_| None).collect(),
            done: Some(done),
        };
        (
            Arc::new(Self {
                state: Mutex::new(state),
            }),
            wait,
        )
    }

    /// The commit loop has reached the checkpoint: everything up to `position` is before it.
    pub(crate) fn begin(&self, position: Position, control: &ControlState) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.position = position;
        state.catalog = Some(control.catalog.export());
        state.registry = control.registry.freeze();
        state.damage = control.damage.export();
    }

    /// A shard has reached it.
    pub(crate) fn deliver(&self, shard: ShardId, image: ShardImage) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = state.images.get_mut(usize::from(shard.get())) {
            *slot = Some(image);
        }
        if state.images.iter().all(Option::is_some)
            && let Some(done) = state.done.take()
        {
            // The registry and the rest are as of the position, taken by the commit loop.
            let collected = CheckpointState {
                position: state.position,
                catalog: state.catalog.take(),
                registry: std::mem::take(&mut state.registry),
                damage: std::mem::take(&mut state.damage),
                images: state.images.iter_mut().filter_map(Option::take).collect(),
                replay_from: Position(0),
                record_time: Timestamp(0),
            };
            // The checkpointer may have stopped.
            let _ = done.send(collected);
        }
    }
}

/// Takes checkpoints.
pub struct Checkpointer {
    store: Mutex<CheckpointStore>,
    queue: AppendQueue,
    flusher: Arc<Flusher>,
    control: Arc<ControlState>,
    record_clock: Arc<RecordClock>,
    metrics: Arc<Metrics>,
    shard_count: u16,
    one_at_a_time: tokio::sync::Mutex<Position>,
    stop: Notify,
}

impl Checkpointer {
    pub(crate) fn new(
        store: CheckpointStore,
        queue: AppendQueue,
        flusher: Arc<Flusher>,
        control: Arc<ControlState>,
        record_clock: Arc<RecordClock>,
        metrics: Arc<Metrics>,
        shard_count: u16,
    ) -> Arc<Self> {
        Arc::new(Self {
            store: Mutex::new(store),
            queue,
            flusher,
            control,
            record_clock,
            metrics,
            shard_count,
            one_at_a_time: tokio::sync::Mutex::new(Position(0)),
            stop: Notify::new(),
        })
    }

    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Takes one every `interval`, as long as something was committed since the last, until
    /// stopped.
    pub async fn run(
        self: Arc<Self>,
        interval: std::time::Duration,
        progress: Arc<crate::Progress>,
    ) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.notified() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let last = *self.one_at_a_time.lock().await;
            if progress.committed() > last
                && let Err(error) = self.take().await
            {
                self.metrics.checkpoint_failures.add(1);
                tracing::error!(error, "no checkpoint; the log is kept for longer");
            }
        }
    }

    /// Takes a checkpoint now; its position.
    pub async fn take(&self) -> Result<Position, String> {
        let mut last = self.one_at_a_time.lock().await;
        let (collector, wait) = CheckpointCollector::new(self.shard_count);
        self.queue
            .command(CommitCommand::Checkpoint(collector))
            .await
            .map_err(|error| error.to_string())?;
        let mut state = wait
            .await
            .map_err(|_| "the engine is stopping".to_owned())?;
        let position = state.position;
        if position == *last {
            return Ok(position);
        }
        state.replay_from = self.flusher.first_unflushed().min(position.plus(1));
        state.record_time = self.record_clock.now();
        let kept = {
            let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            store
                .save_with(position, &mut |payload| {
                    state.write(&mut |bytes| payload.write(bytes))
                })
                .map_err(|error| crate::flush::chain(&error))?;
            store.positions().to_vec()
        };
        let replay_from = state.replay_from;
        // What it held on to is copied no more when it is written.
        drop(state);
        *last = position;
        self.metrics.checkpoints.add(1);
        if let [.., older, _] = kept.as_slice() {
            self.flusher.set_checkpointed(*older);
            self.control
                .catalog
                .forget_unused_wire_schemas(replay_from.min(*older).min(self.flusher.analysed()));
        }
        self.flusher.trim().await;
        Ok(position)
    }
}
