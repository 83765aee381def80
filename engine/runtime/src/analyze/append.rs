//! New rows of nodes on their way into the log.
//!
//! ```text
//! rows that a record caused ──divide──▶ parts ──known already: left out──▶ encoded ──▶ the log's queue, in order
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_array::RecordBatch;
use quiver_hot::{MemoryBudget, Share, Tables};
use quiver_log::{Encoding, Record, RecordKind};
use quiver_model::{
    ARRIVAL, DEVICE, DeviceId, FieldName, FieldType, Position, Producer, ProducerKind, SenderId,
    SenderKind, Sequence, StreamField, StreamName, TS, Verdict,
};
use quiver_protocol::{DecodeLimits, decode_schema, encode_self_contained};
use tokio::sync::oneshot;

use super::{
    DerivedRows,
    parts::{divide, part},
    sequences::{PARTS_MAX, Written, is_there, producer, sequence},
};
use crate::{
    Metrics,
    admit::{Prepared, prepare},
    commit::{AppendFailure, AppendQueue, AppendRequest, CommitCommand, OnCommit, Settlement},
    control::{ControlWriter, EnsureError},
    record_clock::RecordClock,
    shard::SettledOutcome,
};

/// Time between two attempts to write what the log has refused.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of records that are encoded before they are written.
const READY_BYTES: usize = 16 << 20;

/// Rows of a node that one record caused.
pub(super) struct Caused {
    pub(super) by: Position,
    pub(super) derived: DerivedRows,
}

/// Rows of each stream of a node that no stream could take, since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusedRows(Arc<Mutex<BTreeMap<StreamName, u64>>>);

impl RefusedRows {
    /// The figures now.
    pub(super) fn get(&self) -> BTreeMap<StreamName, u64> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.clone()
    }

    fn add(&self, stream: &StreamName, rows: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(stream.clone()).or_default() += rows;
    }
}

/// Brings rows of nodes into the log.
pub(crate) struct Appender {
    pub(crate) control: Arc<ControlWriter>,
    pub(crate) queue: AppendQueue,
    pub(crate) tables: Arc<Tables>,
    pub(crate) budget: MemoryBudget,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) record_clock: Arc<RecordClock>,
    pub(crate) shard_count: u16,
    /// Most bytes of a record, well below what a group of the log takes: only one row by itself can
    /// have more.
    pub(crate) record_bytes_max: usize,
    /// What the log has of nodes.
    pub(crate) written: Written,
    pub(crate) refused: RefusedRows,
}

/// Numbers the parts of what one record caused, for each producer.
#[derive(Default)]
struct Numbering {
    by: Position,
    next: HashMap<(StreamName, u64), u32>,
}

impl Numbering {
    fn number(&mut self, by: Position, derived: &DerivedRows) -> u32 {
        if by != self.by {
            self.by = by;
            self.next.clear();
        }
        let key = (derived.stream.clone(), derived.generation);
        let next = self.next.entry(key).or_default();
        let number = *next;
        *next += 1;
        number
    }
}

/// A part of a node's rows that waits to be written, with everything but its memory.
struct Ready {
    stream: StreamName,
    sender: SenderId,
    producer: Producer,
    sequence: Sequence,
    wire_schema: quiver_model::SchemaId,
    schema: Arc<quiver_model::StreamSchema>,
    batch: RecordBatch,
    payload: bytes::Bytes,
    /// As it was found that it can be stored; gone with the first attempt to write it.
    prepared: Option<Prepared>,
    /// Nevertheless it cannot.
    is_refused: bool,
}

impl Appender {
    /// Writes rows in this order, and returns when they are durable. Rows that are there already are
    /// left out; what the log refuses for the time being is tried again; what it refuses for ever is
    /// counted.
    ///
    /// # Errors
    /// If the log is closed.
    pub(super) async fn append(&mut self, caused: Vec<Caused>) -> Result<(), AppendFailure> {
        let mut ready = Vec::new();
        let mut bytes = 0;
        let mut numbering = Numbering::default();
        for Caused { by, derived } in caused {
            for rows in divide(&derived.rows) {
                let number = numbering.number(by, &derived);
                let Some(batch) = self.ready_in_time(by, number, &derived, rows).await? else {
                    continue;
                };
                bytes += batch.payload.len() + batch.batch.get_array_memory_size();
                ready.push(batch);
                if bytes >= READY_BYTES {
                    self.write(std::mem::take(&mut ready)).await?;
                    bytes = 0;
                }
            }
        }
        self.write(ready).await
    }

    /// Everything that a part needs; `None` if the log has it already, or can never take it.
    async fn ready_in_time(
        &mut self,
        by: Position,
        number: u32,
        derived: &DerivedRows,
        rows: std::ops::Range<usize>,
    ) -> Result<Option<Ready>, AppendFailure> {
        let count = rows.len() as u64;
        loop {
            match self.ready(by, number, derived, rows.clone()).await {
                Ok(ready) => return Ok(ready),
                Err(EnsureError::Append(AppendFailure::Closed)) => {
                    return Err(AppendFailure::Closed);
                }
                // The log takes nothing for the time being, and a node never drops.
                Err(EnsureError::Append(AppendFailure::Refused { .. })) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    self.refuse(&derived.stream, count, &error);
                    return Ok(None);
                }
            }
        }
    }

    /// Writes parts in this order.
    async fn write(&mut self, mut ready: Vec<Ready>) -> Result<(), AppendFailure> {
        let mut first = 0;
        while first < ready.len() {
            let epoch = self.queue.epoch();
            let mut answers = Vec::with_capacity(ready.len() - first);
            for batch in &mut ready[first..] {
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
        for batch in ready.into_iter().filter(|batch| !batch.is_refused) {
            self.metrics.derived_rows.add(batch.batch.num_rows() as u64);
            if !self.written.knows(&batch.stream) {
                self.control.note_written(&batch.stream);
            }
            let next = batch.sequence.next();
            self.written.note(&batch.stream, batch.producer, next);
        }
        Ok(())
    }

    /// Rows that can never be stored are counted, and told.
    fn refuse(&self, stream: &StreamName, rows: u64, error: &dyn std::fmt::Display) {
        self.metrics.derived_refused.add(rows);
        self.refused.add(stream, rows);
        tracing::error!(%stream, rows, %error, "rows of a node cannot be stored, and are lost");
    }

    /// As [`Self::ready_in_time`], at once.
    async fn ready(
        &mut self,
        by: Position,
        number: u32,
        derived: &DerivedRows,
        rows: std::ops::Range<usize>,
    ) -> Result<Option<Ready>, EnsureError> {
        let DerivedRows {
            stream, generation, ..
        } = derived;
        let not_allowed = |problem: String| EnsureError::NotAllowed(problem);
        let id = DeviceId::new(stream.as_str()).map_err(|error| not_allowed(error.to_string()))?;
        let sender = SenderId {
            kind: SenderKind::Node,
            id,
        };
        let producer = producer(stream, *generation);
        let Some(sequence) = sequence(by, number) else {
            return Err(not_allowed(format!(
                "the record at position {by} makes the node put out more than {PARTS_MAX} batches of rows; let it put out fewer rows, or shorter texts, for one row that comes in"
            )));
        };
        if is_there(self.written.next(stream, producer), sequence) {
            self.metrics.derived_again.add(rows.len() as u64);
            return Ok(None);
        }
        let batch = part(&derived.rows, rows).map_err(|error| not_allowed(error.to_string()))?;
        let fields = fields(&batch).map_err(not_allowed)?;
        let schema = self
            .control
            .ensure_fields(&sender, stream, &fields)
            .await
            .map_err(|error| match error {
                EnsureError::Refused(refusal) => not_allowed(format!(
                    "{refusal}; give the node, or its column, another name"
                )),
                error => error,
            })?;
        let (message, payload) =
            encode_self_contained(&batch).map_err(|error| not_allowed(error.to_string()))?;
        if payload.len() > self.record_bytes_max {
            return Err(not_allowed(format!(
                "a row has {} bytes, and the log takes {}; select fewer columns, or shorter texts",
                payload.len(),
                self.record_bytes_max
            )));
        }
        let wire = decode_schema(&message, &DecodeLimits::STORED)
            .map_err(|error| not_allowed(error.to_string()))?;
        let wire = self
            .control
            .ensure_wire_schema(&sender, &wire, &message)
            .await?;
        let mut ready = Ready {
            stream: stream.clone(),
            sender,
            producer,
            sequence,
            wire_schema: wire.id,
            schema,
            batch,
            payload,
            prepared: None,
            is_refused: false,
        };
        ready.prepared = Some(self.prepare(&ready)?);
        Ok(Some(ready))
    }

    fn prepare(&self, ready: &Ready) -> Result<Prepared, quiver_model::BatchRefusal> {
        prepare(
            &ready.batch,
            &ready.schema,
            &ready.sender,
            &Verdict::default(),
            None,
            self.shard_count,
        )
    }

    /// Waits for the memory of a part, and queues it; `None` if it can never be stored.
    async fn request(
        &self,
        ready: &mut Ready,
        epoch: u64,
    ) -> Result<Option<oneshot::Receiver<Result<Position, AppendFailure>>>, AppendFailure> {
        if ready.is_refused {
            return Ok(None);
        }
        let rows = ready.batch.num_rows() as u64;
        let prepared = match ready.prepared.take() {
            Some(prepared) => Ok(prepared),
            None => self.prepare(ready),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                ready.is_refused = true;
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
                    ready.is_refused = true;
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
