//! How far the engine is: which positions are committed, and which each shard has applied.
//!
//! A query takes Q = [`Progress::committed`] and waits with [`Progress::wait_applied`] until every
//! shard has applied it; then what it reads in the tables is the log up to Q.

use std::sync::atomic::{AtomicU64, Ordering};

use quiver_model::{Position, ShardId};
use tokio::sync::Notify;

/// Committed and applied positions, shared by the commit loop, the shards and queries.
#[derive(Debug)]
pub struct Progress {
    committed: AtomicU64,
    applied: Vec<AtomicU64>,
    moved: Notify,
    /// Wakes whoever follows the log.
    grown: Notify,
}

impl Progress {
    /// Everything up to `position` is committed and applied.
    pub fn new(shard_count: u16, position: Position) -> Self {
        Self {
            committed: AtomicU64::new(position.get()),
            applied: (0..shard_count)
                .map(|_| AtomicU64::new(position.get()))
                .collect(),
            moved: Notify::new(),
            grown: Notify::new(),
        }
    }

    /// The last committed position: everything up to it is durable.
    pub fn committed(&self) -> Position {
        Position(self.committed.load(Ordering::Acquire))
    }

    pub(crate) fn set_committed(&self, position: Position) {
        self.committed.store(position.get(), Ordering::Release);
        self.grown.notify_waiters();
    }

    /// Returns when something after `position` is committed.
    pub async fn wait_committed_beyond(&self, position: Position) {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            // Registered before the check: a commit between the two is not missed.
            grown.as_mut().enable();
            if self.committed() > position {
                return;
            }
            grown.await;
        }
    }

    /// The position up to which a shard has applied everything.
    pub fn applied(&self, shard: ShardId) -> Position {
        Position(self.applied[usize::from(shard.get())].load(Ordering::Acquire))
    }

    /// The position up to which every shard has applied everything.
    pub fn applied_by_all(&self) -> Position {
        Position(
            self.applied
                .iter()
                .map(|applied| applied.load(Ordering::Acquire))
                .min()
                .unwrap_or(0),
        )
    }

    /// Recovery has committed and applied everything up to `position`.
    pub(crate) fn set_recovered(&self, position: Position) {
        self.set_committed(position);
        for applied in &self.applied {
            applied.store(position.get(), Ordering::Release);
        }
    }

    pub(crate) fn set_applied(&self, shard: ShardId, position: Position) {
        self.applied[usize::from(shard.get())].store(position.get(), Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Returns when every shard has applied `position`. Shards apply what is committed without
    /// waiting for anything, so this takes no longer than their inboxes are deep.
    pub async fn wait_applied(&self, position: Position) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Registered before the check: a move between the two is not missed.
            moved.as_mut().enable();
            if self.applied_by_all() >= position {
                return;
            }
            moved.await;
        }
    }
}
