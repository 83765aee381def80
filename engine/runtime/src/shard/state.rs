//! The state machine of a shard.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use quiver_hot::{Appended, FreezeError, LastValues, MemoryBudget, Share, Tables};
use quiver_log::{DamagedRecord, RecordKind};
use quiver_model::{
    BatchRefusal, CheckedBatch, Clock, DEVICE, Placed, Position, ProducerKind, SenderId,
    SenderKind, Sequence, ShardId, Timestamp,
};
use quiver_protocol::StreamCloseCode;

use super::{
    ControlRow, GapWatch, Ledger, LiveSender, PairKey, RecentReject, SenderState, SequenceGap,
    SettledOutcome, ShardEvent, ShardImage, control_schema,
    event::Settled,
    gaps::is_news,
    pending::{PendingRows, Ready},
    rejects::{control_rows, reject_rows},
    roster::{KeptSender, Roster},
};
use crate::{commit::AppendQueue, damage::SenderDamage, metrics::Metrics, progress::Progress};

/// How long a sender waits before it opens a QUIC stream again after the log refused a batch.
const RETRY_AFTER_MS: u32 = 500;

/// What a shard works with.
#[derive(Clone)]
pub struct ShardParts {
    /// Every stream's table.
    pub tables: Arc<Tables>,
    /// Last row of each device.
    pub last_values: Arc<LastValues>,
    /// Memory.
    pub budget: MemoryBudget,
    /// What the engine counts.
    pub metrics: Arc<Metrics>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Monotonic time, for latencies and the age of memtables.
    pub clock: Arc<dyn Clock>,
    /// The log's queue, for its epoch.
    pub queue: AppendQueue,
}

/// A shard.
pub struct Shard {
    id: ShardId,
    parts: ShardParts,
    /// State was restored as of this position: records up to it are not counted again.
    restored: Position,
    /// Its identities.
    roster: Roster,
    /// While a damaged log is replayed.
    gaps: Option<GapWatch>,
    pending: PendingRows,
}

impl Shard {
    /// A shard that knows nothing, or what `image` says as of position `restored`.
    pub fn new(id: ShardId, parts: ShardParts, restored: Position, image: ShardImage) -> Self {
        let mut shard = Self {
            id,
            parts,
            restored,
            roster: Roster::default(),
            gaps: None,
            pending: PendingRows::default(),
        };
        image.for_each(|sender, ledger, kept| shard.restore(&sender, ledger.as_ref(), kept));
        shard
    }

    /// Takes over what a checkpoint has of an identity.
    pub(super) fn restore(
        &mut self,
        sender: &SenderId,
        ledger: Option<&Ledger>,
        kept: Option<KeptSender>,
    ) {
        self.roster.restore(sender, ledger, kept);
    }

    /// Its number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The sequences that producers of nodes go on with.
    pub(crate) fn node_sequences(&self) -> Vec<(PairKey, Sequence)> {
        self.roster.sequences_of(SenderKind::Node)
    }

    /// Does what an event says. Events come in position order.
    pub fn apply(&mut self, event: ShardEvent) {
        match event {
            ShardEvent::Rows {
                table,
                rows,
                reservation,
                first,
                time,
            } => {
                let schema = rows.schema().clone();
                table.set_schema(&schema);
                let ready = Ready {
                    table,
                    schema,
                    parts: vec![Placed {
                        part: rows,
                        first,
                        time,
                    }],
                    reservation,
                    is_news: first > self.restored,
                };
                for ready in self.pending.add(ready) {
                    self.store(ready);
                }
            }
            ShardEvent::Settled(settled) => self.settle(*settled),
            ShardEvent::AppendFailed {
                sender,
                producer,
                stream,
                epoch,
                reason,
            } => {
                self.append_failed(&sender, &(stream, producer), epoch, &reason);
            }
            ShardEvent::Control(rows) => self.control(&rows),
            ShardEvent::Damaged {
                position,
                time,
                damage,
            } => self.damaged(position, time, &damage),
            ShardEvent::Barrier { ticket, position } => {
                self.store_pending();
                match ticket.table().freeze(self.id, position) {
                    Ok(outcome) => ticket.frozen(position, outcome),
                    // A barrier at or below the last one has nothing to flush.
                    Err(FreezeError::Order { .. }) => ticket.nothing(),
                    Err(error) => {
                        tracing::error!(%error, "a memtable could not be frozen");
                        ticket.nothing();
                    }
                }
            }
            ShardEvent::Checkpoint(collector) => {
                self.store_pending();
                collector.deliver(self.id, self.image());
            }
            ShardEvent::Watermark(position) => {
                self.store_pending();
                self.parts.progress.set_applied(self.id, position);
            }
        }
    }

    /// Brings all rows that were applied into their tables. To be called before anything looks at
    /// these that did not come as an event.
    pub(crate) fn store_pending(&mut self) {
        for ready in self.pending.take() {
            self.store(ready);
        }
    }

    fn store(&mut self, ready: Ready) {
        let Ready {
            table,
            schema,
            parts,
            mut reservation,
            is_news,
        } = ready;
        // Rows that are durable and not in a table: never expected, and never silent.
        let position = parts.first().map_or(Position(0), |part| part.first);
        let rows = match CheckedBatch::place_together(&schema, &parts) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, %position, "durable rows could not be placed");
                return;
            }
        };
        if let [_, _, ..] = *parts {
            drop(parts);
            // Together they take less than the sum of what each would take by itself.
            reservation.shrink_to(quiver_hot::batch_bytes(&rows));
        }
        if is_news {
            self.count_stored(&rows);
            let last_values = &self.parts.last_values;
            if let Err(error) = last_values.update(self.id, schema.stream(), &rows) {
                tracing::error!(%error, stream = %schema.stream(), "last values not updated");
            }
        }
        let now = self.parts.clock.monotonic();
        match table.append(self.id, rows, reservation, now) {
            Ok(Appended::Stored | Appended::AlreadyArchived) => {}
            Err(error) => {
                tracing::error!(%error, %position, "durable rows could not be applied");
            }
        }
    }

    fn count_stored(&mut self, rows: &RecordBatch) {
        let Some(device) = rows
            .column_by_name(DEVICE)
            .and_then(|column| column.as_any_dictionary_opt())
        else {
            return;
        };
        let Some(names) = device.values().as_string_opt::<i32>() else {
            return;
        };
        if names.len() == 1 {
            self.roster
                .add_stored(names.value(0), rows.num_rows() as u64);
            return;
        }
        let mut counts = vec![0_u64; names.len()];
        for key in device.normalized_keys() {
            counts[key] += 1;
        }
        for (index, count) in counts
            .into_iter()
            .enumerate()
            .filter(|(_, count)| *count > 0)
        {
            self.roster.add_stored(names.value(index), count);
        }
    }

    fn settle(&mut self, settled: Settled) {
        if settled.position > self.restored {
            self.count_refused(&settled);
            if settled.outcome != SettledOutcome::Lost
                && settled.producer_kind == ProducerKind::Dense
                && let Some(gaps) = &mut self.gaps
            {
                let key = (settled.stream.clone(), settled.producer);
                let known = self.roster.durable(&settled.sender, &key);
                let key = (&settled.sender, &settled.stream, settled.producer);
                gaps.look(known, key, settled.sequence, settled.position);
            }
            let next = match settled.outcome {
                SettledOutcome::Lost => settled.sequence,
                SettledOutcome::Stored | SettledOutcome::Rejected { .. } => settled.sequence.next(),
            };
            self.settle_sequence(&settled, next);
        }
        self.keep_rejects(settled);
    }

    fn count_refused(&mut self, settled: &Settled) {
        for note in &settled.rejects {
            self.roster.count(&note.attributed, |ledger| {
                if note.code.is_quarantine() {
                    ledger.quarantined += note.rows;
                } else {
                    ledger.rejected += note.rows;
                }
            });
        }
        match settled.outcome {
            SettledOutcome::Stored => {}
            SettledOutcome::Rejected { .. } => {
                self.roster
                    .count(&settled.sender, |own| own.batches_rejected += 1);
            }
            SettledOutcome::Lost => {
                let key = (settled.stream.clone(), settled.producer);
                let known = self.roster.durable(&settled.sender, &key);
                let lost = settled
                    .sequence
                    .get()
                    .saturating_sub(known.unwrap_or_default().get());
                self.roster
                    .count(&settled.sender, |own| own.batches_lost += lost);
            }
        }
    }

    fn settle_sequence(&mut self, settled: &Settled, next: Sequence) {
        let key = (settled.stream.clone(), settled.producer);
        let reject = match &settled.outcome {
            SettledOutcome::Rejected { code, message } => Some(RecentReject {
                sequence: settled.sequence,
                code: *code,
                message: message.clone(),
            }),
            SettledOutcome::Stored | SettledOutcome::Lost => None,
        };
        let known = self.roster.known(&settled.sender);
        let (kind, time) = (settled.producer_kind, settled.time);
        if reject.is_none()
            && settled.rejects.is_empty()
            && self.roster.settle_resting(known, &key, kind, next, time)
        {
            return;
        }
        let epoch = self.parts.queue.epoch();
        let mut sender = self.roster.wake_known(known, epoch);
        let is_new = !sender.pairs.contains_key(&key);
        sender.settle(
            &key,
            settled.producer_kind,
            next,
            reject.clone(),
            settled.time,
            epoch,
        );
        if settled.outcome == SettledOutcome::Stored {
            let rows = settled.rejects.iter().map(|note| (note.code, note.rows));
            sender.count_refused(&key, rows);
        }
        if is_new {
            let evicted = sender.evict(settled.sender.kind, &settled.stream, settled.time);
            if let Some(gaps) = &mut self.gaps {
                for (stream, _) in &evicted {
                    gaps.evicted(&settled.sender, stream);
                }
            }
        }
        let Some(pair) = sender.pairs.get(&key) else {
            return;
        };
        let Some(live) = &pair.live else {
            return;
        };
        let Some(session) = sender.sessions.get(&live.instance) else {
            return;
        };
        if let Some(reject) = reject {
            let refusal = BatchRefusal::new(reject.code, reject.message);
            session
                .outbox
                .reject(settled.producer, &settled.stream, reject.sequence, &refusal);
        }
        session
            .outbox
            .ack(settled.producer, &settled.stream, next, &pair.refused_rows);
        sender.release(&key);
        if let Some(received) = settled.received {
            self.parts
                .metrics
                .ack_latency
                .record(self.parts.clock.monotonic().saturating_sub(received));
        }
    }

    /// From now on jumps of sequences are noted, until [`Shard::take_gaps`].
    pub(crate) fn watch_gaps(&mut self) {
        self.gaps.get_or_insert_default();
    }

    /// The jumps that were seen; no more are noted.
    pub(crate) fn take_gaps(&mut self) -> Vec<SequenceGap> {
        self.gaps.take().unwrap_or_default().into_gaps()
    }

    /// Settles the sequence of a record of which only its header is left, in a damaged part of
    /// the log that ends at `end`: what was acknowledged stays so. `false` if this cannot be what
    /// was there.
    pub(crate) fn settle_damaged(&mut self, record: &DamagedRecord, end: Position) -> bool {
        let (Some(sender), Some(stream)) = (&record.sender, &record.stream) else {
            return false;
        };
        let key = (stream.clone(), record.producer);
        let known = self.roster.durable(sender, &key);
        let next = match record.kind {
            RecordKind::Data | RecordKind::Reject => record.sequence.next(),
            RecordKind::Lost => record.sequence,
            _ => return false,
        };
        if !is_news(known, record) {
            return false;
        }
        if record.kind != RecordKind::Lost
            && record.producer_kind == ProducerKind::Dense
            && let Some(gaps) = &mut self.gaps
        {
            let key = (sender, stream, record.producer);
            gaps.look(known, key, record.sequence, end);
        }
        let kind = record.producer_kind;
        let epoch = self.parts.queue.epoch();
        let mut state = self.roster.wake(sender, epoch);
        state.settle(&key, kind, next, None, record.time, epoch);
        true
    }

    /// Counts what a report says of a sender, and settles its sequences, which the log may tell
    /// no more.
    fn damaged(&mut self, position: Position, time: Timestamp, damage: &SenderDamage) {
        let Some((sender, stream, producer)) = damage.key().filter(|_| position > self.restored)
        else {
            return;
        };
        self.roster.count(&sender, |ledger| {
            ledger.batches_damaged += damage.batches;
            if !damage.counted {
                ledger.damaged += damage.rows;
            }
        });
        let epoch = self.parts.queue.epoch();
        let next = Sequence(damage.next_sequence);
        let mut state = self.roster.wake(&sender, epoch);
        state.settle(&(stream, producer), damage.kind(), next, None, time, epoch);
    }

    fn keep_rejects(&mut self, mut settled: Settled) {
        let Some((table, reservation)) = settled.rejects_table.take() else {
            return;
        };
        let now = self.parts.clock.monotonic();
        let result = reject_rows(&table.schema(), &settled)
            .map_err(|error| error.to_string())
            .and_then(|rows| {
                table
                    .append(self.id, rows, reservation, now)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = result {
            tracing::error!(%error, position = %settled.position, "rejects could not be kept");
        }
    }

    fn control(&mut self, rows: &[ControlRow]) {
        let Some(first) = rows.first() else { return };
        let Some(schema) = control_schema() else {
            return;
        };
        let table = self.parts.tables.get_or_create(&schema);
        let now = self.parts.clock.monotonic();
        let result = control_rows(&schema, rows)
            .map_err(|error| error.to_string())
            .and_then(|rows| {
                // Control records are few and must always enter: counted, not asked for.
                let bytes = quiver_hot::batch_bytes(&rows);
                let reservation = self.parts.budget.account(bytes, Share::Derived);
                table
                    .append(self.id, rows, reservation, now)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = result {
            tracing::error!(%error, position = %first.position, "control records could not be kept as rows");
        }
    }

    fn append_failed(
        &mut self,
        sender: &SenderId,
        key: &super::PairKey,
        failed: u64,
        reason: &str,
    ) {
        let epoch = self.parts.queue.epoch();
        // Of who rests nothing is under way that could be set back.
        let Some(mut state) = self.roster.awake(sender) else {
            return;
        };
        let Some(live) = state.fail(key, failed, epoch) else {
            return;
        };
        // A newer connection of the same instance counts its QUIC streams anew.
        let Some(session) = state.session_of(&live) else {
            return;
        };
        let durable = state
            .pairs
            .get(key)
            .map_or(Sequence(0), |pair| pair.durable);
        self.parts.metrics.streams_closed.add(1);
        live.stop(StreamCloseCode::Retry);
        session.outbox.stream_closed(
            live.quic_stream,
            Some((key.1, &key.0)),
            durable,
            StreamCloseCode::Retry,
            RETRY_AFTER_MS,
            &format!("the log refused the batch and undid it: {reason}"),
        );
    }

    /// Everything a checkpoint keeps of this shard. What it takes longest to encode, the last
    /// values, is only held on to: see [`quiver_hot::LastValues::freeze`].
    pub fn image(&self) -> ShardImage {
        ShardImage::of(&self.roster, self.parts.last_values.freeze(self.id))
    }

    /// The ledgers of this shard.
    pub fn ledgers(&self) -> BTreeMap<SenderId, Ledger> {
        self.roster.ledgers()
    }

    /// How many identities it knows.
    pub fn identities(&self) -> usize {
        self.roster.len()
    }

    /// The state of a sender, made if there is none.
    pub fn sender(&mut self, sender: &SenderId) -> LiveSender<'_> {
        self.roster.wake(sender, self.parts.queue.epoch())
    }

    /// The connections: of all senders, in one order, or of one.
    pub(crate) fn connected(&self, sender: Option<&SenderId>) -> Vec<(SenderId, &SenderState)> {
        self.roster.connected(sender)
    }

    /// A connection has ended.
    pub fn disconnect(
        &mut self,
        sender: &SenderId,
        instance: u64,
        session: quiver_model::SessionId,
    ) {
        if let Some(mut state) = self.roster.awake(sender) {
            state.disconnect(instance, session);
        }
    }

    /// A batch of a sender turned out to be known already.
    pub(crate) fn duplicate(&self, sender: &SenderId, key: &super::PairKey, instance: u64) {
        let Some(state) = self.roster.look(sender) else {
            return;
        };
        let (Some(pair), Some(session)) = (state.pairs.get(key), state.sessions.get(&instance))
        else {
            return;
        };
        // Only what is durable is acknowledged; an original still on its way will be, later.
        session
            .outbox
            .ack(key.1, &key.0, pair.durable, &pair.refused_rows);
    }
}

const _: fn() = || {
    fn assert_send<T: Send>() {}
    // Shards are built by recovery and then moved to their threads.
    assert_send::<Shard>();
};
