//! Takes what has queued up, makes it durable as one group, and tells the shards.

use std::sync::{Arc, OnceLock};

use crossbeam::channel::{Receiver, TryRecvError};
use quiver_hot::Tables;
use quiver_log::{AppendError, GroupCommitted, Log, Record};
use quiver_model::{Clock, Position, ShardId};

use super::{
    AppendFailure, AppendQueue, AppendRequest, CommitCommand, OnCommit, Settlement, TrimReport,
};
use crate::{
    control::ControlState,
    metrics::Metrics,
    progress::Progress,
    record_clock::RecordClock,
    shard::{ShardEvent, ShardInbox, dispatch_control, dispatch_settlement},
};

/// Records of one group at most: bounds the time an early record waits for its group.
const GROUP_RECORDS_MAX: usize = 4_096;

/// The log can no longer be trusted to take anything. The process must end with exit code 74;
/// recovery decides what survived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log failed and accepts nothing more: {0}")]
pub struct FatalError(pub String);

/// The loop's parts. It owns the log.
pub struct CommitLoop {
    pub(crate) log: Log,
    pub(crate) commands: Receiver<CommitCommand>,
    pub(crate) queue: AppendQueue,
    pub(crate) inboxes: Vec<ShardInbox>,
    pub(crate) control: Arc<ControlState>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) record_clock: Arc<RecordClock>,
    pub(crate) group_bytes_max: usize,
    pub(crate) fatal: Arc<OnceLock<FatalError>>,
    pub(crate) on_fatal: Arc<tokio::sync::Notify>,
    /// Events that wait for room in an inbox, in order.
    pub(crate) outgoing: Vec<(ShardId, ShardEvent)>,
}

/// Whether the loop goes on.
enum Next {
    Continue,
    Stop(tokio::sync::oneshot::Sender<()>),
}

impl CommitLoop {
    /// Runs on a thread of its own.
    pub fn run_blocking(mut self) {
        while let Ok(command) = self.commands.recv() {
            let next = self.step(command);
            for (shard, event) in self.outgoing.drain(..) {
                self.inboxes[usize::from(shard.get())].send_blocking(event);
            }
            if let Next::Stop(done) = next {
                self.finish(done);
                return;
            }
        }
    }

    /// Runs as a task, for simulations: the same, without blocking the thread.
    pub async fn run(mut self) {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => {
                    self.queue.work().await;
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
            };
            let next = self.step(command);
            for (shard, event) in std::mem::take(&mut self.outgoing) {
                self.inboxes[usize::from(shard.get())].send(event).await;
            }
            if let Next::Stop(done) = next {
                self.finish(done);
                return;
            }
        }
    }

    fn finish(self, done: tokio::sync::oneshot::Sender<()>) {
        while let Ok(command) = self.commands.try_recv() {
            if let CommitCommand::Append(request) = command
                && let OnCommit::Control(reply) | OnCommit::Derived(_, reply) = request.on_commit
            {
                // Whoever asked may be gone as well.
                let _ = reply.send(Err(AppendFailure::Closed));
            }
        }
        drop(self.log);
        let _ = done.send(());
    }

    /// Handles one command and, if it is an append, all appends that queue behind it.
    fn step(&mut self, command: CommitCommand) -> Next {
        let mut command = Some(command);
        while let Some(current) = command.take() {
            match current {
                CommitCommand::Append(first) => {
                    let (group, following) = self.collect(*first);
                    self.queue.notify_space();
                    self.commit(group);
                    command = following;
                }
                CommitCommand::Barrier(ticket) => {
                    let position = self.progress.committed();
                    self.tell_all(|| ShardEvent::Barrier {
                        ticket: ticket.clone(),
                        position,
                    });
                }
                CommitCommand::Checkpoint(collector) => {
                    collector.begin(self.progress.committed(), &self.control);
                    self.tell_all(|| ShardEvent::Checkpoint(collector.clone()));
                }
                CommitCommand::Trim(floor, reply) => {
                    let result = self
                        .log
                        .trim(floor)
                        .map_err(|error| AppendFailure::Refused {
                            reason: error.to_string(),
                        });
                    let report = TrimReport {
                        oldest: self.log.oldest_position(),
                        bytes: self.log.bytes(),
                    };
                    let _ = reply.send(result.map(|_| report));
                }
                CommitCommand::Retain(time) => self.log.set_retention_time(time),
                CommitCommand::Stop(done) => return Next::Stop(done),
            }
        }
        Next::Continue
    }

    /// The appends that are waiting, up to a group's limits; and the command that ended the group,
    /// if it was another one.
    fn collect(&mut self, first: AppendRequest) -> (Vec<AppendRequest>, Option<CommitCommand>) {
        let mut bytes = first.record.payload.len();
        let mut group = vec![first];
        while group.len() < GROUP_RECORDS_MAX && bytes < self.group_bytes_max {
            match self.commands.try_recv() {
                Ok(CommitCommand::Append(request)) => {
                    bytes += request.record.payload.len();
                    group.push(*request);
                }
                Ok(other) => return (group, Some(other)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    fn commit(&mut self, requests: Vec<AppendRequest>) {
        let epoch = self.queue.epoch();
        let (current, stale): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| {
            // Control records depend on no predecessor of a sender: they are never stale.
            request.epoch == epoch || matches!(request.on_commit, OnCommit::Control(_))
        });
        if !stale.is_empty() {
            self.fail(stale, "an earlier batch was not written");
        }
        if current.is_empty() {
            return;
        }
        if let Some(fatal) = self.fatal.get() {
            let reason = fatal.to_string();
            self.fail(current, &reason);
            return;
        }
        let (mut records, actions): (Vec<Record>, Vec<(OnCommit, u64)>) = current
            .into_iter()
            .map(|request| (request.record, (request.on_commit, request.epoch)))
            .unzip();
        let started = self.clock.monotonic();
        match self.log.append_group(&mut records) {
            Ok(committed) => {
                self.metrics
                    .commit_latency
                    .record(self.clock.monotonic().saturating_sub(started));
                self.metrics.commit_groups.add(1);
                self.metrics.log_bytes.add(committed.bytes);
                self.publish(&committed, records, actions);
            }
            Err(error) => {
                self.metrics.commit_failures.add(1);
                let reason = error.to_string();
                tracing::error!(%reason, "a commit group failed");
                if matches!(error, AppendError::Poisoned { .. }) {
                    let _ = self.fatal.set(FatalError(reason.clone()));
                    self.on_fatal.notify_waiters();
                    self.on_fatal.notify_one();
                }
                self.queue.raise_epoch();
                let requests = records
                    .into_iter()
                    .zip(actions)
                    .map(|(record, (on_commit, epoch))| AppendRequest {
                        record,
                        on_commit,
                        epoch,
                    })
                    .collect();
                self.fail(requests, &reason);
            }
        }
    }

    fn publish(
        &mut self,
        committed: &GroupCommitted,
        records: Vec<Record>,
        actions: Vec<(OnCommit, u64)>,
    ) {
        let last = Position(committed.end.get() - 1);
        // Before any Ack can leave: a query that starts after an Ack must see its rows.
        self.progress.set_committed(last);
        let mut position = committed.first;
        let mut control_rows = Vec::new();
        for (record, (on_commit, _)) in records.into_iter().zip(actions) {
            let next = position.plus(record.positions());
            self.record_clock.observe(record.time);
            match on_commit {
                OnCommit::Settle(settlement) => self.settle(position, &record, *settlement),
                OnCommit::Derived(settlement, reply) => {
                    self.settle(position, &record, *settlement);
                    // The node may have stopped; what it put out stands.
                    let _ = reply.send(Ok(position));
                }
                OnCommit::Control(reply) => {
                    self.control.apply(position, &record);
                    let shard_count = self.inboxes.len() as u16;
                    let outgoing = &mut self.outgoing;
                    let mut tell = |shard, event| outgoing.push((shard, event));
                    dispatch_control(shard_count, position, &record, &mut control_rows, &mut tell);
                    // Whoever asked may have gone away; the record stands all the same.
                    let _ = reply.send(Ok(position));
                }
            }
            position = next;
        }
        if !control_rows.is_empty() {
            // They are of a table that nothing else of a group is of.
            self.outgoing
                .push((ShardId(0), ShardEvent::Control(control_rows)));
        }
        self.tell_all(|| ShardEvent::Watermark(last));
    }

    fn settle(&mut self, position: Position, record: &Record, settlement: Settlement) {
        self.control
            .catalog
            .touch_wire(record.wire_schema, position);
        dispatch_settlement(
            &self.tables,
            self.inboxes.len() as u16,
            position,
            record,
            settlement,
            &mut |shard, event| self.outgoing.push((shard, event)),
        );
    }

    fn fail(&mut self, requests: Vec<AppendRequest>, reason: &str) {
        let shard_count = self.inboxes.len() as u16;
        for request in requests {
            match request.on_commit {
                // Nothing of a node waits in a shard.
                OnCommit::Control(reply) | OnCommit::Derived(_, reply) => {
                    let _ = reply.send(Err(AppendFailure::Refused {
                        reason: reason.to_owned(),
                    }));
                }
                OnCommit::Settle(settlement) => {
                    let Some(stream) = request.record.stream.clone() else {
                        continue;
                    };
                    let shard = settlement.sender.shard(shard_count);
                    self.outgoing.push((
                        shard,
                        ShardEvent::AppendFailed {
                            sender: settlement.sender,
                            producer: request.record.producer,
                            stream,
                            epoch: request.epoch,
                            reason: reason.to_owned(),
                        },
                    ));
                }
            }
        }
    }

    fn tell_all(&mut self, event: impl Fn() -> ShardEvent) {
        for shard in 0..self.inboxes.len() {
            self.outgoing.push((ShardId(shard as u16), event()));
        }
    }
}
