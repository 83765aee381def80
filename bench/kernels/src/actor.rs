//! One message per batch to the actor of its device, on the same arbiter: the check of the
//! sequence, and the hand-over to the log's queue.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, Addr};
use actix_rt::System;
use crossbeam::channel::Receiver;
use quiver_hot::{LastValues, MemoryBudget, MemoryLimits, Tables};
use quiver_log::Record;
use quiver_model::{
    Clock, ManualClock, Position, Producer, SenderId, Sequence, SessionId, ShardId,
};
use quiver_protocol::{OpenStream, ServerConversation, ServerRules};
use quiver_runtime::{
    Metrics, Progress,
    commit::{AppendQueue, AppendRequest, CommitCommand, OnCommit, Settlement},
    device::{AppendBatch, AppendOutcome, DeviceActor, DeviceActorParts, OpenTelemetry, Outbox},
    record_clock::RecordClock,
    shard::{LiveStream, PairKey, SettledOutcome, Shard, ShardImage, ShardParts, StopSignal},
};

use crate::{
    Entry, Fault, Kernel,
    data::{self, Device, FIELDS},
    route::data_record,
};

/// Messages of one run.
const MESSAGES: u64 = 64;
/// Rows that each claims to bring.
const ROWS: usize = 100;

pub(crate) fn entries() -> Vec<Entry> {
    vec![Entry::new("actor", "append", MESSAGES, Append::new)]
}

struct Append {
    system: actix_rt::SystemRunner,
    actor: Addr<DeviceActor>,
    commands: Receiver<CommitCommand>,
    sender: SenderId,
    record: Record,
    key: PairKey,
    live: LiveStream,
    next: Sequence,
    messages: Vec<AppendBatch>,
}

/// What a shard of nothing works with.
pub(crate) fn shard_parts(queue: AppendQueue) -> ShardParts {
    let limits = MemoryLimits {
        device: 1 << 30,
        derived: 1 << 30,
    };
    ShardParts {
        tables: Arc::new(Tables::new(1)),
        last_values: Arc::new(LastValues::new(1)),
        budget: MemoryBudget::new(limits),
        metrics: Arc::new(Metrics::default()),
        progress: Arc::new(Progress::new(1, Position(0))),
        clock: Arc::new(ManualClock::new(data::NOW)),
        queue,
    }
}

impl Append {
    fn new() -> Result<Self, Fault> {
        let system = System::new();
        let (queue, commands) = AppendQueue::new();
        let parts = shard_parts(queue.clone());
        let clock: Arc<dyn Clock> = parts.clock.clone();
        let mut shard = Shard::new(ShardId(0), parts, Position(0), ShardImage::default());
        let sender = Device::new(1, FIELDS).sender()?;
        let conversation = ServerConversation::new(Some(sender.clone()), ServerRules::default());
        let outbox = Arc::new(Outbox::new(conversation));
        let (session, _) = shard.sender(&sender).connect(1, outbox.clone());
        let (record_clock, _) = RecordClock::new(clock.clone(), data::NOW);
        let parts = DeviceActorParts {
            shard: Rc::new(RefCell::new(shard)),
            sender: sender.clone(),
            instance: 1,
            session,
            outbox,
            queue,
            rows_per_second_max: 0,
            clock,
            record_clock: Arc::new(record_clock),
        };
        let live = live_stream(session);
        let open = OpenStream::new(data::stream()?, Producer(1), Sequence(0));
        let actor = system.block_on(async { DeviceActor::new(parts).start() });
        let opening = OpenTelemetry {
            open,
            live: live.clone(),
        };
        system
            .block_on(actor.send(opening))?
            .map_err(|refused| refused.message)?;
        Ok(Self {
            system,
            actor,
            commands,
            record: data_record(&sender, ROWS)?,
            sender,
            key: (data::stream()?, Producer(1)),
            live,
            next: Sequence(0),
            messages: Vec::new(),
        })
    }

    fn message(&mut self) -> AppendBatch {
        let sequence = self.next;
        self.next = sequence.next();
        let settlement = Settlement {
            sender: self.sender.clone(),
            rows: None,
            outcome: SettledOutcome::Stored,
            received: Duration::ZERO,
        };
        AppendBatch {
            key: self.key.clone(),
            live: self.live.clone(),
            sequence,
            next: self.next,
            rows: ROWS as u64,
            ack_received: false,
            request: Box::new(AppendRequest {
                record: self.record.clone(),
                on_commit: OnCommit::Settle(Box::new(settlement)),
                epoch: 0,
            }),
        }
    }
}

fn live_stream(session: SessionId) -> LiveStream {
    LiveStream {
        session,
        instance: 1,
        quic_stream: 2,
        signal: Arc::new(StopSignal::default()),
    }
}

impl Kernel for Append {
    fn prepare(&mut self) -> Result<(), Fault> {
        while self.commands.try_recv().is_ok() {}
        self.messages = (0..MESSAGES).map(|_| self.message()).collect();
        Ok(())
    }

    fn run(&mut self) -> Result<u64, Fault> {
        let messages = std::mem::take(&mut self.messages);
        let actor = &self.actor;
        self.system.block_on(async move {
            let mut accepted = 0;
            for message in messages {
                if let AppendOutcome::Accepted(_) = actor.send(message).await? {
                    accepted += 1;
                }
            }
            Ok(accepted)
        })
    }
}
