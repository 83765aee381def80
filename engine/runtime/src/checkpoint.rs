//! A checkpoint: the engine's state as of a position C, taken by a barrier that passes through
//! the log's order, not by a sample.
//!
//! ```text
//! Checkpointer ──Checkpoint──▶ commit loop: C, control state ──in band──▶ shards: their images
//!      └───────────── all delivered: write, fsync, rename, fsync ◀──────────────────┘
//! ```
//!
//! Payload, inside the file format of `quiver_log::CheckpointStore`:
//! `version u8 | header length u32 LE | header (JSON) | per image: length u32 LE, last values`.

use std::sync::{Arc, Mutex, PoisonError};

use quiver_log::CheckpointStore;
use quiver_model::{Position, ShardId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use crate::{
    catalog::CatalogImage,
    commit::{AppendQueue, CommitCommand},
    control::ControlState,
    damage::DamageImage,
    flush::Flusher,
    metrics::Metrics,
    record_clock::RecordClock,
    registry::RegistryEntry,
    shard::ShardImage,
};

const PAYLOAD_VERSION: u8 = 1;

/// Collects the parts of one checkpoint.
pub struct CheckpointCollector {
    state: Mutex<Collected>,
}

struct Collected {
    position: Position,
    catalog: Option<CatalogImage>,
    registry: Vec<RegistryEntry>,
    damage: DamageImage,
    images: Vec<Option<ShardImage>>,
    done: Option<oneshot::Sender<CheckpointState>>,
}

/// Everything a checkpoint holds.
pub struct CheckpointState {
    /// The position it is as of.
    pub position: Position,
    pub(crate) catalog: Option<CatalogImage>,
    pub(crate) registry: Vec<RegistryEntry>,
    pub(crate) damage: DamageImage,
    pub(crate) images: Vec<ShardImage>,
    /// Recovery needs the log from here on.
    pub replay_from: Position,
    /// Record time when it was taken.
    pub record_time: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Header {
    replay_from: u64,
    record_time_us: i64,
    catalog: Option<CatalogImage>,
    registry: Vec<RegistryEntry>,
    /// Absent in checkpoints of before damage was kept.
    #[serde(default)]
    damage: DamageImage,
    images: Vec<ShardImage>,
}

/// A checkpoint's payload does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint at position {position} is unreadable: {problem}")]
pub struct CheckpointError {
    /// Its position.
    pub position: Position,
    /// What is wrong.
    pub problem: String,
}

impl CheckpointState {
    /// The payload.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct HeaderRef<'a> {
            replay_from: u64,
            record_time_us: i64,
            catalog: &'a Option<CatalogImage>,
            registry: &'a [RegistryEntry],
            damage: &'a DamageImage,
            images: &'a [ShardImage],
        }
        let header = serde_json::to_vec(&HeaderRef {
            replay_from: self.replay_from.get(),
            record_time_us: self.record_time.as_micros(),
            catalog: &self.catalog,
            registry: &self.registry,
            damage: &self.damage,
            images: &self.images,
        })?;
        let mut payload = vec![PAYLOAD_VERSION];
        payload.extend((header.len() as u32).to_le_bytes());
        payload.extend(header);
        for image in &self.images {
            payload.extend((image.last_values.len() as u32).to_le_bytes());
            payload.extend(&image.last_values);
        }
        Ok(payload)
    }

    /// Reads a payload.
    pub fn decode(position: Position, payload: &[u8]) -> Result<Self, CheckpointError> {
        let fail = |problem: &str| CheckpointError {
            position,
            problem: problem.to_owned(),
        };
        let (version, rest) = payload.split_first().ok_or_else(|| fail("it is empty"))?;
        if *version != PAYLOAD_VERSION {
            return Err(fail(&format!("version {version} is from a later program")));
        }
        let (header, mut rest) = section(rest).ok_or_else(|| fail("its header is cut"))?;
        let mut header: Header =
            serde_json::from_slice(header).map_err(|error| fail(&error.to_string()))?;
        for image in &mut header.images {
            let (last_values, after) =
                section(rest).ok_or_else(|| fail("its last values are cut"))?;
            image.last_values = last_values.to_vec();
            rest = after;
        }
        Ok(Self {
            position,
            catalog: header.catalog,
            registry: header.registry,
            damage: header.damage,
            images: header.images,
            replay_from: Position(header.replay_from),
            record_time: Timestamp(header.record_time_us),
        })
    }
}

fn section(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

impl CheckpointCollector {
    pub(crate) fn new(shard_count: u16) -> (Arc<Self>, oneshot::Receiver<CheckpointState>) {
        let (done, wait) = oneshot::channel();
        let state = Collected {
            position: Position(0),
            catalog: None,
            registry: Vec::new(),
            damage: DamageImage::default(),
            images: vec![None; usize::from(shard_count)],
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
        state.registry = control.registry.all();
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
        let payload = state.encode().map_err(|error| error.to_string())?;
        let kept = {
            let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            store
                .save(position, &payload)
                .map_err(|error| crate::flush::chain(&error))?;
            store.positions().to_vec()
        };
        *last = position;
        self.metrics.checkpoints.add(1);
        if let [.., older, _] = kept.as_slice() {
            self.flusher.set_checkpointed(*older);
            self.control
                .catalog
                .forget_unused_wire_schemas(state.replay_from.min(*older));
        }
        self.flusher.trim().await;
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_as_it_was_written_and_a_cut_one_is_refused() {
        let state = CheckpointState {
            position: Position(7),
            catalog: None,
            registry: Vec::new(),
            damage: DamageImage::default(),
            images: vec![ShardImage::with_last_values(vec![1, 2, 3]); 2],
            replay_from: Position(3),
            record_time: Timestamp(9),
        };
        let payload = state.encode().unwrap();
        let read = CheckpointState::decode(Position(7), &payload).unwrap();
        assert_eq!((read.replay_from, read.images.len()), (Position(3), 2));
        assert_eq!(read.images[1].last_values, [1, 2, 3]);
        for cut in 0..payload.len() {
            assert!(CheckpointState::decode(Position(7), &payload[..cut]).is_err());
        }
    }
}
