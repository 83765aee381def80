//! New rows of nodes on their way into the log.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::Addr;
use arrow_array::RecordBatch;
use quiver_hot::{MemoryBudget, Share, Tables};
use quiver_log::{Encoding, Record, RecordKind};
use quiver_model::{
    ARRIVAL, DEVICE, DeviceId, FieldName, FieldType, Position, Producer, ProducerKind, SenderId,
    SenderKind, Sequence, StreamField, StreamName, TS, Verdict,
};
use quiver_protocol::{DecodeLimits, decode_schema, encode_self_contained};
use tokio::sync::oneshot;

use super::DerivedRows;
use crate::{
    Metrics,
    admit::prepare,
    commit::{AppendFailure, AppendQueue, AppendRequest, CommitCommand, OnCommit, Settlement},
    control::{ControlWriter, EnsureError},
    record_clock::RecordClock,
    shard::{NextSequence, SettledOutcome, ShardActor},
};

/// Time between two attempts to write what the log has refused.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Rows of a node that one record caused.
pub(super) struct Caused {
    pub(super) by: Position,
    pub(super) derived: DerivedRows,
}

/// Brings rows of nodes into the log.
pub(crate) struct Appender {
    pub(crate) control: Arc<ControlWriter>,
    pub(crate) queue: AppendQueue,
    pub(crate) tables: Arc<Tables>,
    pub(crate) budget: MemoryBudget,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) record_clock: Arc<RecordClock>,
    pub(crate) shards: Vec<Addr<ShardActor>>,
    pub(crate) shard_count: u16,
    /// Sequences that nodes go on with.
    pub(crate) next: HashMap<(StreamName, u64), Sequence>,
}

/// Rows that wait to be written, with everything but their memory.
struct Ready {
    stream: StreamName,
    sender: SenderId,
    producer: Producer,
    sequence: Sequence,
    wire_schema: quiver_model::SchemaId,
    schema: Arc<quiver_model::StreamSchema>,
    batch: RecordBatch,
    payload: bytes::Bytes,
}

/// The producer of a node. Its sequences are positions, so that they rise whatever definition the
/// node had before.
fn producer(stream: &StreamName, generation: u64) -> Producer {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in stream.as_str().bytes().chain(generation.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Producer(hash)
}

impl Appender {
    /// Writes rows in this order, and returns when they are durable. Rows that are there already are
    /// left out; what the log refuses for the time being is tried again; what it refuses for ever is
    /// counted.
    ///
    /// # Errors
    /// If the log is closed.
    pub(super) async fn append(&mut self, caused: Vec<Caused>) -> Result<(), AppendFailure> {
        let mut ready = Vec::with_capacity(caused.len());
        for Caused { by, derived } in caused {
            let rows = derived.rows.num_rows() as u64;
            loop {
                match self.ready(by, &derived).await {
                    Ok(Some(batch)) => ready.push(batch),
                    Ok(None) => {}
                    Err(EnsureError::Append(AppendFailure::Closed)) => {
                        return Err(AppendFailure::Closed);
                    }
                    // The log takes nothing for the time being, and a node never drops.
                    Err(EnsureError::Append(AppendFailure::Refused { .. })) => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    Err(error) => self.refuse(&derived.stream, rows, &error),
                }
                break;
            }
        }
        let mut first = 0;
        while first < ready.len() {
            let epoch = self.queue.epoch();
            let mut answers = Vec::with_capacity(ready.len() - first);
            for batch in &ready[first..] {
                answers.push(self.request(batch, epoch).await?);
            }
            for answer in answers {
                let Some(answer) = answer else {
                    first += 1;
                    continue;
                };
                match answer.await.unwrap_or(Err(AppendFailure::Closed)) {
                    Ok(_) => first += 1,
                    Err(AppendFailure::Closed) => return Err(AppendFailure::Closed),
                    // Nothing behind it was written either: its epoch has ended.
                    Err(AppendFailure::Refused { .. }) => break,
                }
            }
            if first < ready.len() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        for batch in ready {
            self.metrics.derived_rows.add(batch.batch.num_rows() as u64);
            let key = (batch.stream, batch.producer.get());
            self.next.insert(key, batch.sequence.next());
        }
        Ok(())
    }

    /// Rows that can never be stored are counted, and told.
    fn refuse(&self, stream: &StreamName, rows: u64, error: &dyn std::fmt::Display) {
        self.metrics.derived_refused.add(rows);
        tracing::error!(%stream, rows, %error, "rows of a node cannot be stored; rename the node, or its columns");
    }

    /// Everything that a batch needs; `None` if the log has it already.
    async fn ready(
        &mut self,
        by: Position,
        derived: &DerivedRows,
    ) -> Result<Option<Ready>, EnsureError> {
        let DerivedRows {
            stream,
            generation,
            rows: batch,
        } = derived.clone();
        let not_allowed = |problem: String| EnsureError::NotAllowed(problem);
        let id = DeviceId::new(stream.as_str()).map_err(|error| not_allowed(error.to_string()))?;
        let sender = SenderId {
            kind: SenderKind::Node,
            id,
        };
        let producer = producer(&stream, generation);
        let sequence = Sequence(by.get());
        if sequence < self.next_sequence(&sender, &stream, producer).await? {
            self.metrics.derived_again.add(batch.num_rows() as u64);
            return Ok(None);
        }
        let fields = fields(&batch).map_err(not_allowed)?;
        let schema = self
            .control
            .ensure_fields(&sender, &stream, &fields)
            .await?;
        let (message, payload) =
            encode_self_contained(&batch).map_err(|error| not_allowed(error.to_string()))?;
        let wire = decode_schema(&message, &DecodeLimits::STORED)
            .map_err(|error| not_allowed(error.to_string()))?;
        let wire = self
            .control
            .ensure_wire_schema(&sender, &wire, &message)
            .await?;
        Ok(Some(Ready {
            stream,
            sender,
            producer,
            sequence,
            wire_schema: wire.id,
            schema,
            batch,
            payload,
        }))
    }

    async fn next_sequence(
        &mut self,
        sender: &SenderId,
        stream: &StreamName,
        producer: Producer,
    ) -> Result<Sequence, EnsureError> {
        let key = (stream.clone(), producer.get());
        if let Some(next) = self.next.get(&key) {
            return Ok(*next);
        }
        let shard = sender.shard(self.shard_count);
        let asked = NextSequence {
            sender: sender.clone(),
            key: (stream.clone(), producer),
        };
        let known = match self.shards.get(usize::from(shard.get())) {
            Some(shard) => shard.send(asked).await,
            None => Ok(None),
        };
        let known = known.map_err(|_| EnsureError::Append(AppendFailure::Closed))?;
        let next = known.unwrap_or_default();
        self.next.insert(key, next);
        Ok(next)
    }

    /// Waits for the memory of a batch, and queues it; `None` if it can never be stored.
    async fn request(
        &self,
        ready: &Ready,
        epoch: u64,
    ) -> Result<Option<oneshot::Receiver<Result<Position, AppendFailure>>>, AppendFailure> {
        let rows = ready.batch.num_rows() as u64;
        let verdict = Verdict::default();
        let prepared = prepare(
            &ready.batch,
            &ready.schema,
            &ready.sender,
            &verdict,
            None,
            self.shard_count,
        );
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.refuse(&ready.stream, rows, &error);
                return Ok(None);
            }
        };
        let bytes =
            (prepared.bytes() + ready.payload.len()).min(self.budget.capacity(Share::Derived));
        let reservation = match self.budget.try_reserve(bytes, Share::Derived) {
            Some(reservation) => reservation,
            None => match self.budget.reserve(bytes, Share::Derived).await {
                Ok(reservation) => reservation,
                Err(error) => {
                    self.refuse(&ready.stream, rows, &error);
                    return Ok(None);
                }
            },
        };
        let mut record = Record::control(RecordKind::Data, self.record_clock.now());
        record.encoding = Encoding::ArrowIpcMessage;
        record.wire_schema = ready.wire_schema;
        record.schema = ready.schema.id();
        record.producer_kind = ProducerKind::Skipping;
        record.sender = Some(ready.sender.clone());
        record.producer = ready.producer;
        record.stream = Some(ready.stream.clone());
        record.sequence = ready.sequence;
        record.rows = u32::try_from(ready.batch.num_rows()).unwrap_or(u32::MAX);
        record.payload = ready.payload.clone();
        let settlement = Settlement {
            sender: ready.sender.clone(),
            rows: Some(prepared.into_parts(&self.tables, reservation)),
            outcome: SettledOutcome::Stored,
            received: Duration::ZERO,
        };
        let (reply, answer) = oneshot::channel();
        let request = AppendRequest {
            record,
            on_commit: OnCommit::Derived(Box::new(settlement), reply),
            epoch,
        };
        self.queue
            .command(CommitCommand::Append(Box::new(request)))
            .await?;
        Ok(Some(answer))
    }
}

/// The fields of new rows.
fn fields(batch: &RecordBatch) -> Result<Vec<StreamField>, String> {
    let schema = batch.schema_ref();
    schema
        .fields()
        .iter()
        .filter(|field| ![TS, DEVICE, ARRIVAL].contains(&field.name().as_str()))
        .map(|field| {
            let name = FieldName::new(field.name()).map_err(|error| error.to_string())?;
            let field_type = FieldType::from_arrow(field.data_type()).ok_or_else(|| {
                format!(
                    "column `{name}` is of type {}, which a stream cannot have",
                    field.data_type()
                )
            })?;
            Ok(StreamField::new(name, field_type))
        })
        .collect()
}
