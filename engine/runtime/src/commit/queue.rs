//! The bounded queue in front of the commit loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use quiver_log::Record;
use quiver_model::{Position, SenderId};
use tokio::sync::{Notify, oneshot};

use crate::{
    checkpoint::CheckpointCollector,
    flush::FlushTicket,
    shard::{RowParts, SettledOutcome},
};

/// Requests that may wait. Memory is bounded by the budget that every request has reserved from;
/// this bounds their number.
const QUEUE_LENGTH: usize = 4_096;

/// A batch for the log, with what is to be done once it is durable.
pub struct AppendRequest {
    /// The record.
    pub record: Record,
    /// What shards are told then.
    pub on_commit: OnCommit,
    /// Epoch it was made under.
    pub epoch: u64,
}

/// What follows the commit of a record.
pub enum OnCommit {
    /// A sender's batch: its rows are applied, its sequence settles.
    Settle(Box<Settlement>),
    /// A batch of a node of the graph: as a sender's, and the node waits for it.
    Derived(Box<Settlement>, ControlReply),
    /// A control record: it is applied to the catalog or registry, and somebody waits for it.
    Control(ControlReply),
}

/// How a control append ended.
pub type ControlReply = oneshot::Sender<Result<Position, AppendFailure>>;

/// A sender's batch on its way to the shards.
pub struct Settlement {
    /// Who sent it.
    pub sender: SenderId,
    /// Its rows by shard, decoded and with their memory reserved; none for a refused batch.
    pub rows: Option<RowParts>,
    /// What the sender is told.
    pub outcome: SettledOutcome,
    /// Monotonic time at which the batch was whole in memory.
    pub received: Duration,
}

/// Why a record did not become durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendFailure {
    /// The group was refused and taken back; the same may be tried again.
    #[error("the log refused the record for the time being: {reason}")]
    Refused {
        /// What the disk said.
        reason: String,
    },
    /// The log accepts nothing any more, or the engine is stopping.
    #[error("the log is closed")]
    Closed,
}

/// Space and oldest position after trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimReport {
    /// Oldest position that the log still holds.
    pub oldest: Position,
    /// Bytes of its segments.
    pub bytes: u64,
}

/// What the commit loop is asked to do, in order.
pub enum CommitCommand {
    /// Make a record durable.
    Append(Box<AppendRequest>),
    /// Send a flush barrier of one stream to every shard.
    Barrier(FlushTicket),
    /// Send a checkpoint barrier to every shard.
    Checkpoint(Arc<CheckpointCollector>),
    /// Give up segments below a position, as far as retention lets.
    Trim(Position, oneshot::Sender<Result<TrimReport, AppendFailure>>),
    /// Keep segments that nothing needs for so long, as far as their bytes may reach.
    Retain(Duration),
    /// End; requests behind this one fail as closed.
    Stop(oneshot::Sender<()>),
}

/// The queue has no room now; here is the request back.
pub struct QueueFull(pub Box<AppendRequest>);

/// The sending side, shared by all of ingest.
#[derive(Clone)]
pub struct AppendQueue {
    shared: Arc<Shared>,
}

struct Shared {
    commands: Sender<CommitCommand>,
    /// Wakes an asynchronous commit loop.
    work: Notify,
    /// Wakes those who found the queue full.
    space: Notify,
    epoch: AtomicU64,
}

impl AppendQueue {
    /// An empty queue, and the side that the commit loop takes from.
    pub fn new() -> (Self, Receiver<CommitCommand>) {
        let (commands, receiver) = bounded(QUEUE_LENGTH);
        let shared = Shared {
            commands,
            work: Notify::new(),
            space: Notify::new(),
            epoch: AtomicU64::new(0),
        };
        (
            Self {
                shared: Arc::new(shared),
            },
            receiver,
        )
    }

    /// The epoch now. A request must carry the epoch its sender's state was last reset in.
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn raise_epoch(&self) -> u64 {
        self.shared.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Queues a batch, or gives it back at once. A closed log takes it and fails it.
    pub fn try_append(&self, request: Box<AppendRequest>) -> Result<(), QueueFull> {
        match self
            .shared
            .commands
            .try_send(CommitCommand::Append(request))
        {
            Ok(()) => {
                self.shared.work.notify_one();
                Ok(())
            }
            Err(TrySendError::Full(CommitCommand::Append(request))) => Err(QueueFull(request)),
            // The loop is gone: nothing is acknowledged any more, and connections are closing.
            Err(_) => Ok(()),
        }
    }

    /// Waits until the queue may have room.
    pub async fn space(&self) {
        let space = self.shared.space.notified();
        tokio::pin!(space);
        space.as_mut().enable();
        if self.shared.commands.is_full() {
            space.await;
        }
    }

    /// Queues a command, waiting for room.
    pub async fn command(&self, mut command: CommitCommand) -> Result<(), AppendFailure> {
        loop {
            match self.shared.commands.try_send(command) {
                Ok(()) => {
                    self.shared.work.notify_one();
                    return Ok(());
                }
                Err(TrySendError::Full(back)) => {
                    command = back;
                    self.space().await;
                }
                Err(TrySendError::Disconnected(_)) => return Err(AppendFailure::Closed),
            }
        }
    }

    /// Appends a control record and waits until it is durable and applied.
    pub async fn append_control(&self, record: Record) -> Result<Position, AppendFailure> {
        let answer = self.queue_control(record).await?;
        answer.await.unwrap_or(Err(AppendFailure::Closed))
    }

    /// Appends control records in this order, and waits until all of them are durable and applied:
    /// they share commit groups. What became of each; one may fail although a later one does not.
    pub async fn append_controls(
        &self,
        records: impl IntoIterator<Item = Record>,
    ) -> Vec<Result<Position, AppendFailure>> {
        let mut answers = Vec::new();
        for record in records {
            // One after the other, so that they are queued in this order.
            answers.push(self.queue_control(record).await);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(AppendFailure::Closed)),
                Err(failure) => Err(failure),
            });
        }
        results
    }

    async fn queue_control(
        &self,
        record: Record,
    ) -> Result<oneshot::Receiver<Result<Position, AppendFailure>>, AppendFailure> {
        let (reply, answer) = oneshot::channel();
        let request = AppendRequest {
            record,
            on_commit: OnCommit::Control(reply),
            epoch: self.epoch(),
        };
        self.command(CommitCommand::Append(Box::new(request)))
            .await?;
        Ok(answer)
    }

    pub(crate) fn notify_space(&self) {
        self.shared.space.notify_waiters();
    }

    pub(crate) async fn work(&self) {
        self.shared.work.notified().await;
    }
}
