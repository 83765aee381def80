//! The storage task: the one place where batches get their numbers and become durable. It works off
//! commands in order; whatever queued up while the disk was busy shares its next sync.
//!
//! ```text
//! send ──Append──▶ ┌─────────┐ write + fdatasync ┌───────┐ push ┌───────┐
//! session ─Resume▶ │ storage │ ────────────────▶ │ spool │ ───▶ │ queue │ ──▶ lanes
//!       Renumber─▶ └─────────┘                   └───────┘      └───────┘
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quiver_model::{Producer, StreamName};
use quiver_protocol::Resumed;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    SendError,
    event::{ClientEvent, Settled},
    queue::{Entry, LaneKey, LaneKind, RenumberPlan},
    shared::Shared,
    spool::{Assignment, BATCH_OVERHEAD_BYTES, NewBatch, NewRecord, Record, Spool, SpoolError},
};

/// Commands that share a sync, at most.
const GROUP_MAX: usize = 256;
/// Bytes that share a sync, at most (and one batch more).
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Room in the storage task's mailbox; more waits at the sender.
pub(crate) const MAILBOX: usize = 64;

/// A batch that was admitted.
#[derive(Debug)]
pub(crate) struct Append {
    pub stream: StreamName,
    /// Producer and sequence, if the caller names them.
    pub named: Option<(Producer, u64)>,
    pub rows: u32,
    pub schema: Bytes,
    pub body: Bytes,
    /// What `try_admit` was asked for.
    pub admitted_bytes: usize,
    pub reply: oneshot::Sender<Result<oneshot::Receiver<Settled>, SendError>>,
}

#[derive(Debug)]
pub(crate) enum StoreCommand {
    Append(Append),
    /// The server has welcomed the client.
    Resume {
        resume: Vec<Resumed>,
        quic_streams_max: usize,
        reply: oneshot::Sender<()>,
    },
    /// A lane goes on under a new producer.
    Renumber(RenumberPlan),
    /// Batches were settled: segments may go.
    Trim,
    /// Note what is settled, and end.
    Close(oneshot::Sender<()>),
}

pub(crate) struct Store {
    shared: Arc<Shared>,
    spool: Option<Spool>,
    backlog_after: Duration,
    /// What the spool was last told to be settled, per lane.
    noted: Vec<(LaneKey, Producer, u64)>,
}

/// The bytes that a batch may take in the spool.
pub(crate) fn spooled_bytes(schema: &Bytes, body: &Bytes) -> usize {
    schema.len() + body.len() + BATCH_OVERHEAD_BYTES
}

impl Store {
    pub fn new(shared: Arc<Shared>, spool: Option<Spool>, backlog_after: Duration) -> Self {
        Self {
            shared,
            spool,
            backlog_after,
            noted: Vec::new(),
        }
    }

    /// Works until it is told to close, or everybody who could tell it is gone.
    pub async fn run(mut self, mut mailbox: mpsc::Receiver<StoreCommand>) {
        let mut held: Option<StoreCommand> = None;
        loop {
            let command = match held.take() {
                Some(command) => command,
                None => match mailbox.recv().await {
                    Some(command) => command,
                    None => return,
                },
            };
            match command {
                StoreCommand::Append(first) => {
                    let mut bytes = first.body.len();
                    let mut group = vec![first];
                    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
                        match mailbox.try_recv() {
                            Ok(StoreCommand::Append(append)) => {
                                bytes += append.body.len();
                                group.push(append);
                            }
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(group).await;
                }
                StoreCommand::Resume {
                    resume,
                    quic_streams_max,
                    reply,
                } => {
                    self.resume(&resume, quic_streams_max).await;
                    // A session that is gone comes again.
                    let _gone = reply.send(());
                }
                StoreCommand::Renumber(plan) => {
                    if let Err(error) = self.renumber(vec![plan], Vec::new()).await {
                        self.on_spool_failure(&error);
                    }
                }
                StoreCommand::Trim => self.trim().await,
                StoreCommand::Close(reply) => {
                    let records = self.settled_records();
                    // Only spares work at the next start.
                    let _best_effort = self.make_durable(records).await;
                    drop(self.spool.take());
                    let _gone = reply.send(());
                    return;
                }
            }
        }
    }

    async fn append(&mut self, group: Vec<Append>) {
        let records = self.settled_records();
        let mut assignments = Vec::with_capacity(group.len());
        let (mut new_batches, mut accepted) = (records, Vec::with_capacity(group.len()));
        {
            let state = self.shared.lock();
            // Numbers given in this group, which the queue does not know yet.
            let mut given: Vec<(LaneKey, Producer, u64)> = Vec::new();
            for (id, append) in (state.queue.next_id()..).zip(group) {
                let lane = match append.named {
                    Some((producer, sequence)) => Some(Assignment {
                        kind: LaneKind::Named(producer),
                        producer,
                        sequence,
                    }),
                    None if state.queue.is_online() => {
                        let key = LaneKey {
                            stream: append.stream.clone(),
                            kind: LaneKind::Live,
                        };
                        let at = given
                            .iter()
                            .position(|(given, ..)| *given == key)
                            .unwrap_or_else(|| {
                                let (producer, next) = match state.queue.lane(&key) {
                                    Some(lane) => (lane.producer, lane.next_sequence),
                                    None => (Producer(self.shared.entropy.next_u64()), 0),
                                };
                                given.push((key.clone(), producer, next));
                                given.len() - 1
                            });
                        let (_, producer, next) = &mut given[at];
                        let sequence = *next;
                        *next += 1;
                        Some(Assignment {
                            kind: LaneKind::Live,
                            producer: *producer,
                            sequence,
                        })
                    }
                    None => None,
                };
                if self.spool.is_some() && append.named.is_none() {
                    new_batches.push(NewRecord::Batch(NewBatch {
                        id,
                        stream: append.stream.clone(),
                        assignment: lane,
                        rows: append.rows,
                        schema: append.schema.clone(),
                        body: append.body.clone(),
                    }));
                }
                assignments.push((id, lane));
                accepted.push(append);
            }
        }
        let places = match self.make_durable(new_batches).await {
            Ok(places) => places,
            Err(error) => {
                self.on_spool_failure(&error);
                let text = error.to_string();
                for append in accepted {
                    let is_spooled = append.named.is_none();
                    self.shared
                        .update(|state| state.release(append.admitted_bytes, is_spooled));
                    let _gone = append.reply.send(Err(SendError::Spool(text.clone())));
                }
                return;
            }
        };
        let mut places = places.into_iter();
        let used = self.spool.as_ref().map(Spool::bytes);
        self.shared.update(|state| {
            if let Some(used) = used {
                state.admission.spool_used = used;
            }
            for (append, (id, lane)) in accepted.into_iter().zip(assignments) {
                let is_spooled = append.named.is_none();
                state.release(append.admitted_bytes, is_spooled);
                let place = if is_spooled { places.next() } else { None };
                let length = append.body.len();
                let keep = place.is_none()
                    || state.queue.memory() + length <= state.admission.window.bytes;
                let (waiter, settled) = oneshot::channel();
                let entry = Entry {
                    id,
                    sequence: lane.map_or(0, |lane| lane.sequence),
                    rows: append.rows,
                    length: length as u32,
                    schema: append.schema,
                    place,
                    body: keep.then_some(append.body),
                    queued: Some(Instant::now()),
                    waiter: Some(waiter),
                    sent: false,
                };
                state.queue.push(
                    &append.stream,
                    lane.map(|lane| (lane.kind, lane.producer)),
                    entry,
                );
                let _gone = append.reply.send(Ok(settled));
            }
        });
    }

    /// Settles what the server has, gives new producers where needed, and gives numbers to what
    /// waited; then the queue is online.
    async fn resume(&mut self, resume: &[Resumed], quic_streams_max: usize) {
        let (plans, events, assign) = self.shared.update(|state| {
            let (plans, events) = state.queue.on_welcome(resume, quic_streams_max);
            state.quic_streams_max = Some(quic_streams_max);
            let assign = state.queue.assign_plans(Instant::now(), self.backlog_after);
            (plans, events, assign)
        });
        self.shared.report(events);
        if let Err(error) = self.renumber(plans, assign).await {
            // What has a number can be sent all the same; the rest waits for a disk that works.
            self.on_spool_failure(&error);
        }
        self.shared.update(|state| state.queue.set_online());
        self.trim().await;
    }

    async fn renumber(
        &mut self,
        plans: Vec<RenumberPlan>,
        assign: Vec<crate::queue::AssignPlan>,
    ) -> Result<(), SpoolError> {
        let mut records = Vec::new();
        let mut events = Vec::new();
        let mut changes: Vec<Record> = Vec::new();
        for plan in plans {
            let producer = Producer(self.shared.entropy.next_u64());
            let stream = plan.key.stream.clone();
            events.push(ClientEvent::Renumbered {
                stream,
                reason: plan.reason,
                producer,
            });
            changes.push(Record::Renumber {
                key: plan.key,
                producer,
                settled_before: plan.settled_before,
            });
        }
        {
            let state = self.shared.lock();
            for plan in assign {
                let renumbered = changes.iter().find_map(|change| match change {
                    Record::Renumber {
                        key,
                        producer,
                        settled_before,
                    } if *key == plan.key => {
                        let kept = state.queue.lane(key).map_or(0, |lane| {
                            lane.entries
                                .iter()
                                .filter(|entry| entry.sequence >= *settled_before)
                                .count()
                        });
                        Some((*producer, kept as u64))
                    }
                    _ => None,
                });
                let (producer, first_sequence) = renumbered
                    .or_else(|| {
                        state
                            .queue
                            .lane(&plan.key)
                            .map(|lane| (lane.producer, lane.next_sequence))
                    })
                    .unwrap_or_else(|| (Producer(self.shared.entropy.next_u64()), 0));
                changes.push(Record::Assign {
                    key: plan.key,
                    producer,
                    first_sequence,
                    from_id: plan.from_id,
                    to_id: plan.to_id,
                });
            }
        }
        records.extend(changes.iter().cloned().map(NewRecord::Other));
        self.make_durable(records).await?;
        self.shared.update(|state| {
            for change in changes {
                match change {
                    Record::Renumber {
                        key,
                        producer,
                        settled_before,
                    } => {
                        state.queue.renumber(&key, producer, settled_before);
                    }
                    Record::Assign {
                        key,
                        producer,
                        first_sequence,
                        from_id,
                        to_id,
                    } => {
                        state
                            .queue
                            .assign(&key, producer, first_sequence, from_id, to_id);
                    }
                    _ => {}
                }
            }
        });
        self.shared.report(events);
        Ok(())
    }

    /// What is settled since the spool was last told; written beside something else, never alone.
    fn settled_records(&mut self) -> Vec<NewRecord> {
        if self.spool.is_none() {
            return Vec::new();
        }
        let mut records = Vec::new();
        let state = self.shared.lock();
        for lane in state
            .queue
            .lanes
            .iter()
            .filter(|lane| crate::spool::is_spooled(&lane.key))
        {
            let now = (lane.key.clone(), lane.producer, lane.settled_before);
            let noted = self.noted.iter_mut().find(|(key, ..)| *key == lane.key);
            let is_new = noted.as_deref() != Some(&now);
            if is_new && lane.settled_before > 0 {
                records.push(NewRecord::Other(Record::Settled {
                    key: now.0.clone(),
                    settled_before: now.2,
                }));
            }
            match noted {
                Some(noted) => *noted = now,
                None => self.noted.push(now),
            }
        }
        records
    }

    async fn make_durable(
        &mut self,
        records: Vec<NewRecord>,
    ) -> Result<Vec<crate::queue::Place>, SpoolError> {
        if records.is_empty() || self.spool.is_none() {
            return Ok(Vec::new());
        }
        let state = match &self.spool {
            Some(spool) if spool.is_due_for_rotation() => {
                Some(self.shared.lock().queue.state_record(spool.instance()))
            }
            _ => None,
        };
        self.with_spool(move |spool| spool.append(records, state))
            .await
    }

    async fn trim(&mut self) {
        let Some(spool) = &self.spool else { return };
        let (rotate, state) = {
            let state = self.shared.lock();
            let rotate = spool.is_worth_rotating(&state.queue);
            (
                rotate,
                rotate.then(|| state.queue.state_record(spool.instance())),
            )
        };
        if rotate
            && let Err(error) = self
                .with_spool(move |spool| spool.append(Vec::new(), state))
                .await
        {
            return self.on_spool_failure(&error);
        }
        let Some(spool) = &self.spool else { return };
        let removable = spool.removable(&self.shared.lock().queue);
        if removable.is_empty() {
            return;
        }
        if let Err(error) = self.with_spool(move |spool| spool.remove(&removable)).await {
            return self.on_spool_failure(&error);
        }
        let used = self.spool.as_ref().map_or(0, Spool::bytes);
        self.shared
            .update(|state| state.admission.spool_used = used);
    }

    /// Lends the spool to a thread that may block, if its directory does.
    async fn with_spool<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let Some(mut spool) = self.spool.take() else {
            return Err(SpoolError::Poisoned);
        };
        if !spool.options().directory.blocks() {
            let result = work(&mut spool);
            self.spool = Some(spool);
            return result;
        }
        let lent = tokio::task::spawn_blocking(move || {
            let result = work(&mut spool);
            (spool, result)
        });
        match lent.await {
            Ok((spool, result)) => {
                self.spool = Some(spool);
                result
            }
            // The runtime is shutting down: the spool is gone with it, and is whole on disk.
            Err(_) => Err(SpoolError::Poisoned),
        }
    }

    fn on_spool_failure(&self, error: &SpoolError) {
        self.shared
            .update(|state| state.spool_failure = Some(error.to_string()));
    }
}
