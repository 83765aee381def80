//! Reads one telemetry QUIC stream and brings its batches to the log.

use std::{collections::BTreeSet, rc::Rc, sync::Arc, sync::atomic::Ordering, time::Duration};

use arrow_array::Array;
use bytes::Bytes;
use quinn::{Chunk, ReadError, RecvStream, VarInt};
use quiver_hot::Share;
use quiver_log::{Encoding, Record, RecordKind};
use quiver_model::{
    BatchRefusal, DEVICE, DeviceId, Judged, NormaliseContext, Producer, ProducerKind, RejectCode,
    SchemaId, SenderId, SenderKind, Sequence, StreamName, StreamSchema, Verdict, judge,
};
use quiver_protocol::{
    AckLevel, DecodeLimits, OpenStream, StreamCloseCode, StreamRefusal, TelemetryDecoder,
    TelemetryEvent, WireBatch, WireSchema, decode_schema, encode_self_contained,
    expanded_dictionary_bytes,
};

use super::{
    receive::{ARRIVAL_MAX, FREE_BYTES, Received},
    session::Session,
};
use crate::{
    admit::{Prepared, RejectPayload, prepare},
    catalog::KnownWireSchema,
    commit::{AppendRequest, OnCommit, Settlement},
    control::EnsureError,
    device::{AppendBatch, AppendOutcome, CloseTelemetry, IsCarried, OpenTelemetry},
    registry::{RegistryChange, RegistryEntry},
    shard::{
        AppendRefused, LiveStream, PairKey, SettledOutcome, StopSignal, device_in_row,
        distinct_devices, note_for_batch, rejects_schema,
    },
};

/// Bytes read from the QUIC stream at once.
const READ_BYTES: usize = 256 << 10;
/// How long a client waits before it opens again what was closed for a condition that passes.
const RETRY_AFTER_MS: u32 = 1_000;
/// A backlog waits while more than this share of the memory is in use, in percent: live data goes
/// first.
const BACKLOG_MEMORY_PERCENT: usize = 75;
/// How often, and with what pause, a new QUIC stream looks whether the one before it has ended.
const PREDECESSOR_LOOKS: usize = 5;
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(5);
/// Enrollments that are under way at once.
const ENROLLED_AT_ONCE: usize = 256;
/// Rows for devices that are not enrolled that are looked at, and other devices that are named.
const UNKNOWN_DEVICES_MAX: usize = 64;
const UNKNOWN_DEVICES_NAMED: usize = 3;
/// How often a waiting backlog looks again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// How a QUIC stream ends before its own end.
struct Closed {
    code: StreamCloseCode,
    retry_after_ms: u32,
    message: String,
}

impl Closed {
    fn new(code: StreamCloseCode, message: impl Into<String>) -> Self {
        let retry_after_ms = if code.is_retryable() {
            RETRY_AFTER_MS
        } else {
            0
        };
        Self {
            code,
            retry_after_ms,
            message: message.into(),
        }
    }

    fn is_told(&self) -> bool {
        self.message.is_empty()
    }

    /// It was closed from elsewhere, and the client has been told there.
    fn told(code: StreamCloseCode) -> Self {
        Self {
            code,
            retry_after_ms: 0,
            message: String::new(),
        }
    }
}

/// What is known once the first message was read.
struct Opened {
    key: PairKey,
    live: LiveStream,
    ack_received: bool,
    replayed: bool,
    /// Batches below this are duplicates.
    next: Sequence,
}

pub(super) struct TelemetryReader {
    session: Rc<Session>,
    receive: RecvStream,
    quic_stream: u64,
    signal: Arc<StopSignal>,
    decoder: TelemetryDecoder,
    opened: Option<Opened>,
    /// What an `OpenStream` named that was refused, for the answer.
    refused_open: Option<(Producer, StreamName)>,
    wire: Option<WireSchema>,
    known_wire: Option<Arc<KnownWireSchema>>,
    /// Memory for the message that is being received, or the batch that waits; since when.
    received: Option<Received>,
    received_since: tokio::time::Instant,
    /// Memory for the dictionaries that were sent.
    dictionaries: Option<Received>,
    /// The sender keeps to its rate if nothing more is read before.
    not_before: tokio::time::Instant,
}

impl TelemetryReader {
    pub fn new(session: Rc<Session>, receive: RecvStream) -> Self {
        let quic_stream = VarInt::from(receive.id()).into_inner();
        Self {
            session,
            receive,
            quic_stream,
            signal: Arc::default(),
            decoder: TelemetryDecoder::default(),
            opened: None,
            refused_open: None,
            wire: None,
            known_wire: None,
            received: None,
            received_since: tokio::time::Instant::now(),
            dictionaries: None,
            not_before: tokio::time::Instant::now(),
        }
    }

    pub async fn run(mut self) {
        let signal = self.signal.clone();
        let result = tokio::select! {
            biased;
            code = signal.stopped() => {
                Err(Closed::told(StreamCloseCode::from_number(code).unwrap_or(StreamCloseCode::Superseded)))
            }
            result = self.read() => result,
        };
        if let Err(closed) = result {
            self.close(&closed).await;
        }
        if let Some(Opened { key, live, .. }) = self.opened.take() {
            // The actor may have stopped with its connection.
            let _ = self.session.actor.send(CloseTelemetry { key, live }).await;
        }
    }

    async fn close(&mut self, closed: &Closed) {
        self.session.context.metrics.streams_closed.add(1);
        // It may have been finished or reset meanwhile; then there is nothing to stop.
        let _ = self.receive.stop(VarInt::from_u32(closed.code.number()));
        if closed.is_told() {
            return;
        }
        let pair: Option<(Producer, StreamName)> = match &self.opened {
            Some(opened) => Some((opened.key.1, opened.key.0.clone())),
            None => self.refused_open.take(),
        };
        self.session.outbox.stream_closed(
            self.quic_stream,
            pair.as_ref().map(|(producer, stream)| (*producer, stream)),
            self.durable().await,
            closed.code,
            closed.retry_after_ms,
            &closed.message,
        );
    }

    /// Durable batches of the pair, as its shard knows them.
    async fn durable(&self) -> Sequence {
        match &self.opened {
            None => Sequence(0),
            Some(opened) => {
                let ask = crate::device::NextSequence {
                    key: opened.key.clone(),
                };
                self.session.actor.send(ask).await.unwrap_or(opened.next)
            }
        }
    }

    async fn read(&mut self) -> Result<(), Closed> {
        loop {
            while let Some(event) = self.decoder.poll_event() {
                if self.handle(event).await? {
                    return Ok(());
                }
            }
            self.room_for_dictionaries()?;
            if self.received.is_none() {
                self.pace().await?;
            }
            self.session.fit_window();
            self.make_room().await?;
            match self.read_chunk().await? {
                Ok(Some(chunk)) => {
                    self.session
                        .context
                        .metrics
                        .bytes_received
                        .add(chunk.bytes.len() as u64);
                    self.decoder.handle_bytes(chunk.bytes);
                }
                // Ended or reset: a batch that was cut off was not sent.
                Ok(None) | Err(_) => self.decoder.handle_end(),
            }
        }
    }

    /// Waits until more may be read: for a client that reads its answers, for a sender's rate, and
    /// with a backlog for live data. Nobody does so while holding memory that others wait for.
    async fn pace(&self) -> Result<(), Closed> {
        self.session.outbox.uncongested().await;
        tokio::time::sleep_until(self.not_before).await;
        if self.opened.as_ref().is_some_and(|opened| opened.replayed) {
            let context = &self.session.context;
            let limit = context.budget.capacity(Share::Device) / 100 * BACKLOG_MEMORY_PERCENT;
            while context.budget.used(Share::Device) > limit {
                context.flusher.poke();
                tokio::time::sleep(BACKLOG_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Accounts for the dictionaries that came.
    fn room_for_dictionaries(&mut self) -> Result<(), Closed> {
        let bytes = self.decoder.dictionary_bytes();
        if bytes <= FREE_BYTES
            || self
                .session
                .dictionaries
                .try_raise(&mut self.dictionaries, bytes)
        {
            return Ok(());
        }
        Err(Closed::new(
            StreamCloseCode::Overloaded,
            "the server's memory for dictionaries, or this sender's half of it, is in use; send plain text columns, or smaller dictionaries on fewer QUIC streams",
        ))
    }

    /// Takes memory for the message whose length was announced, before its bytes are read.
    async fn make_room(&mut self) -> Result<(), Closed> {
        let announced = self.decoder.announced_bytes();
        if announced <= FREE_BYTES {
            self.received = None;
            return Ok(());
        }
        if self
            .received
            .as_ref()
            .is_some_and(|held| held.bytes() >= announced)
        {
            return Ok(());
        }
        // Nobody waits while holding some: see the module `receive`.
        self.received = None;
        let received = self.session.receive.take(announced).await;
        self.received_since = tokio::time::Instant::now();
        self.received = Some(received.ok_or_else(overloaded)?);
        Ok(())
    }

    /// The next bytes; an error if a message holds memory that others wait for, and does not come.
    async fn read_chunk(&mut self) -> Result<Result<Option<Chunk>, ReadError>, Closed> {
        loop {
            if self.received.is_none() {
                return Ok(self.receive.read_chunk(READ_BYTES, true).await);
            }
            let read = self.receive.read_chunk(READ_BYTES, true);
            let read = tokio::time::timeout(ARRIVAL_MAX / 4, read).await;
            // Also if a little came: a byte now and then would keep it for ever.
            if self.session.receive.is_short() && self.received_since.elapsed() > ARRIVAL_MAX {
                return Err(overloaded());
            }
            if let Ok(read) = read {
                return Ok(read);
            }
        }
    }

    /// Accounts for a batch as it is, decoded, and as it is stored; that may be more than what was
    /// announced.
    async fn charge(&mut self, batch: &WireBatch) -> Result<(), Closed> {
        let columns = || batch.batch.columns().iter();
        // What small batches take at most is known without looking at each buffer closely.
        let most: usize = columns().map(|column| column.get_array_memory_size()).sum();
        if batch.self_contained && most + batch.message.len() <= FREE_BYTES {
            return Ok(());
        }
        let decoded: usize = columns()
            .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
            .sum();
        let present = decoded + batch.message.len();
        // Columns with dictionaries are expanded to be stored, and once more for the log.
        let bytes = present + 2 * expanded_dictionary_bytes(&batch.batch);
        if bytes <= FREE_BYTES || self.session.receive.try_raise(&mut self.received, bytes) {
            return Ok(());
        }
        if present > FREE_BYTES {
            return Err(overloaded());
        }
        // So little is there by now that it may wait, holding nothing, until it can be expanded.
        self.received = None;
        self.received = Some(
            self.session
                .receive
                .take(bytes)
                .await
                .ok_or_else(overloaded)?,
        );
        Ok(())
    }

    /// Whether that was the last event.
    async fn handle(&mut self, event: TelemetryEvent) -> Result<bool, Closed> {
        match event {
            TelemetryEvent::Open(open) => self.open(open).await?,
            TelemetryEvent::Schema(schema) => {
                self.wire = Some(schema);
                self.known_wire = None;
            }
            TelemetryEvent::Batch(batch) => {
                self.charge(&batch).await?;
                self.batch(batch).await?;
                self.received = None;
            }
            TelemetryEvent::BadBatch {
                sequence, refusal, ..
            } => {
                self.reject(sequence, &refusal, 0, String::new()).await?;
            }
            TelemetryEvent::Refused(StreamRefusal {
                code,
                message,
                refused_open,
                reject,
            }) => {
                self.refused_open = refused_open;
                if let Some((sequence, refusal)) = reject {
                    self.reject(sequence, &refusal, 0, String::new()).await?;
                    // next_sequence must be behind the reject.
                    self.settled(sequence.next()).await;
                }
                return Err(Closed::new(code, message));
            }
            TelemetryEvent::Ended { .. } => return Ok(true),
        }
        Ok(false)
    }

    async fn open(&mut self, open: OpenStream) -> Result<(), Closed> {
        let live = LiveStream {
            session: self.session.id,
            instance: self.session.instance,
            quic_stream: self.quic_stream,
            signal: self.signal.clone(),
        };
        let key = (open.stream.clone(), open.producer);
        self.predecessor_ended(&key).await?;
        let message = OpenTelemetry {
            open: open.clone(),
            live: live.clone(),
        };
        let outcome = self.session.actor.send(message).await.map_err(|_| gone())?;
        let mut opened = Opened {
            key,
            live,
            ack_received: open.ack_level == AckLevel::Received,
            replayed: open.replayed,
            next: Sequence(0),
        };
        match outcome {
            Err(refused) => {
                opened.next = refused.next;
                self.opened = Some(opened);
                Err(Closed::new(refused.code, refused.message))
            }
            Ok(outcome) => {
                opened.next = outcome.next;
                self.opened = Some(opened);
                if outcome.lost {
                    self.declare_lost(open.first_sequence).await
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Gives the QUIC stream that carried the pair before a moment to end: its FIN may arrive just
    /// after the first bytes of this one, and a client that did nothing wrong is not to be told
    /// that its QUIC stream was superseded.
    async fn predecessor_ended(&self, key: &PairKey) -> Result<(), Closed> {
        for _ in 0..PREDECESSOR_LOOKS {
            let ask = IsCarried { key: key.clone() };
            if !self.session.actor.send(ask).await.map_err(|_| gone())? {
                break;
            }
            tokio::time::sleep(PREDECESSOR_PAUSE).await;
        }
        Ok(())
    }

    fn opened(&self) -> Result<&Opened, Closed> {
        self.opened.as_ref().ok_or_else(gone)
    }

    fn record(&self, kind: RecordKind, sequence: Sequence) -> Result<Record, Closed> {
        let opened = self.opened()?;
        let mut record = Record::control(kind, self.session.context.record_clock.now());
        record.producer_kind = ProducerKind::Dense;
        record.sender = Some(self.session.sender.clone());
        record.producer = opened.key.1;
        record.stream = Some(opened.key.0.clone());
        record.sequence = sequence;
        record.session = self.session.id;
        Ok(record)
    }

    async fn declare_lost(&mut self, first: Sequence) -> Result<(), Closed> {
        let record = self.record(RecordKind::Lost, first)?;
        self.session.context.metrics.declared_lost.add(1);
        let settlement = Settlement {
            sender: self.session.sender.clone(),
            rows: None,
            outcome: SettledOutcome::Lost,
            received: self.session.context.clock.monotonic(),
        };
        self.append(record, settlement, first, 0).await.map(drop)
    }

    async fn batch(&mut self, batch: WireBatch) -> Result<(), Closed> {
        let context = self.session.context.clone();
        let received = context.clock.monotonic();
        if batch.sequence < self.opened()?.next {
            context.metrics.duplicate_batches.add(1);
            context
                .metrics
                .duplicate_rows
                .add(batch.batch.num_rows() as u64);
            let (key, live) = (self.opened()?.key.clone(), self.opened()?.live.clone());
            let duplicate = crate::device::Duplicate { key, live };
            return self.session.actor.send(duplicate).await.map_err(|_| gone());
        }
        self.admission()?;
        let (schema, judged) = match self.judge(&batch).await {
            Ok(judged) => judged,
            Err(Judgement::Refused(refusal)) => {
                let rows = batch.batch.num_rows() as u64;
                let excerpt = if rows > 0 {
                    quiver_model::row_as_json(&batch.batch, 0, 1_024)
                } else {
                    String::new()
                };
                return self.reject(batch.sequence, &refusal, rows, excerpt).await;
            }
            Err(Judgement::Closed(closed)) => return Err(closed),
        };
        let (wire_schema, encoding, payload) = self.stored_bytes(&batch).await?;
        let prepared = match prepare(
            &batch.batch,
            &schema,
            &self.session.sender,
            &judged.verdict,
            context.options.shard_count,
        ) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                return self
                    .reject(batch.sequence, &refusal, 0, String::new())
                    .await;
            }
        };
        let rows = batch.batch.num_rows() as u64;
        let stored = prepared.row_count() as u64;
        let points = prepared.point_count();
        let Some(rows_and_memory) = self.reserve(prepared, payload.len()).await? else {
            let refusal = BatchRefusal::new(
                RejectCode::BatchTooLarge,
                "the batch takes more memory than the engine has for all batches; send smaller ones",
            );
            return self
                .reject(batch.sequence, &refusal, rows, String::new())
                .await;
        };
        let mut record = self.record(RecordKind::Data, batch.sequence)?;
        record.encoding = encoding;
        record.wire_schema = wire_schema.id;
        record.schema = schema.id();
        record.rows = batch.batch.num_rows() as u32;
        record.verdict = judged.verdict.clone();
        record.payload = payload;
        let settlement = Settlement {
            sender: self.session.sender.clone(),
            rows: Some(rows_and_memory),
            outcome: SettledOutcome::Stored,
            received,
        };
        if self
            .append(record, settlement, batch.sequence.next(), rows)
            .await?
        {
            count(&context.metrics, &judged.verdict, stored, points);
        }
        Ok(())
    }

    /// Conditions that pass: the QUIC stream is closed, and the client comes back.
    fn admission(&self) -> Result<(), Closed> {
        if self.session.context.disk_low.load(Ordering::Relaxed) {
            return Err(Closed::new(
                StreamCloseCode::StorageFull,
                "the server's disk is nearly full; nothing is accepted until space is free",
            ));
        }
        Ok(())
    }

    /// Judges the batch under a schema that has all its fields.
    async fn judge(&self, batch: &WireBatch) -> Result<(Arc<StreamSchema>, Judged), Judgement> {
        let context = &self.session.context;
        let stream = self.opened().map_err(Judgement::Closed)?.key.0.clone();
        if context.options.enroll_unknown && self.session.sender.kind == SenderKind::Operator {
            self.enroll_devices(batch).await?;
        }
        loop {
            let schema = context.control.state().catalog.stream(&stream);
            let registry = &context.control.state().registry;
            let judged = judge(
                &batch.batch,
                &NormaliseContext {
                    sender: &self.session.sender,
                    stream: &stream,
                    schema: schema.as_deref(),
                    now: context.record_clock.now(),
                    future_limit: context.options.future_limit,
                    may_speak_for: &|device| registry.may_speak_for(&self.session.sender, device),
                },
            )
            .map_err(Judgement::Refused)?;
            self.all_enrolled(batch, &judged)?;
            match schema {
                Some(schema) if judged.new_fields.is_empty() => return Ok((schema, judged)),
                _ => {
                    context
                        .control
                        .ensure_fields(&self.session.sender, &stream, &judged.new_fields)
                        .await?;
                }
            }
        }
    }

    /// An operator's batch for devices that are not enrolled is not taken: the operator is at hand
    /// and can enroll them, and its sequence must not be used up meanwhile. (A gateway runs
    /// unattended: such rows of its batches go to `rejects`, and the others are stored.)
    fn all_enrolled(&self, batch: &WireBatch, judged: &Judged) -> Result<(), Judgement> {
        if self.session.sender.kind != SenderKind::Operator {
            return Ok(());
        }
        let Some(column) = batch.batch.column_by_name(DEVICE) else {
            return Ok(());
        };
        let refused = judged.verdict.refused.iter();
        let unknown: BTreeSet<DeviceId> = refused
            .filter(|refused| refused.code == RejectCode::NotEnrolled)
            .filter_map(|refused| device_in_row(column, refused.row as usize))
            .take(UNKNOWN_DEVICES_MAX)
            .collect();
        let Some(first) = unknown.first() else {
            return Ok(());
        };
        let others: Vec<&str> = unknown.iter().skip(1).map(DeviceId::as_str).collect();
        let also = match others.len() {
            0 => String::new(),
            1..=UNKNOWN_DEVICES_NAMED => format!("; nor is {}", others.join(", ")),
            _ => format!(
                "; nor are {} and more",
                others[..UNKNOWN_DEVICES_NAMED].join(", ")
            ),
        };
        Err(Judgement::Closed(Closed::new(
            StreamCloseCode::NotAllowed,
            format!(
                "device {first} is not enrolled, or revoked: enroll it (quiver devices enroll {first}) and send again; nothing is stored from here on{also}"
            ),
        )))
    }

    /// Enrolls devices that an operator speaks for (demonstrations and loopback only).
    async fn enroll_devices(&self, batch: &WireBatch) -> Result<(), Judgement> {
        let context = &self.session.context;
        let Some(column) = batch.batch.column_by_name(DEVICE) else {
            return Ok(());
        };
        let registry = &context.control.state().registry;
        let unknown: Vec<DeviceId> = distinct_devices(column)
            .into_iter()
            .filter(|device| !registry.knows_device(device.as_str()))
            .collect();
        // Asked for together, they are durable together.
        for some in unknown.chunks(ENROLLED_AT_ONCE) {
            let changes = some.iter().map(|device| {
                let sender = SenderId::device(device.clone());
                let entry = RegistryEntry::new(&sender, context.record_clock.now());
                async move {
                    let change = RegistryChange::Put { entry };
                    context.control.change_registry(&change).await
                }
            });
            futures::future::try_join_all(changes)
                .await
                .map_err(|error| {
                    Judgement::Closed(Closed::new(StreamCloseCode::Retry, error.to_string()))
                })?;
        }
        Ok(())
    }

    /// Bytes that decode on their own together with a schema record, and that record.
    async fn stored_bytes(
        &mut self,
        batch: &WireBatch,
    ) -> Result<(Arc<KnownWireSchema>, Encoding, Bytes), Closed> {
        let control = self.session.context.control.clone();
        let ensured = |error: EnsureError| match error {
            EnsureError::NotAllowed(message) => Closed::new(StreamCloseCode::NotAllowed, message),
            other => Closed::new(StreamCloseCode::Retry, other.to_string()),
        };
        if batch.self_contained {
            let encoding = match batch.encoding {
                quiver_protocol::Encoding::Arrow => Encoding::ArrowIpcMessage,
                quiver_protocol::Encoding::ArrowZstd => Encoding::ArrowIpcZstd,
                quiver_protocol::Encoding::Compact => Encoding::Compact,
            };
            if let Some(known) = &self.known_wire {
                return Ok((known.clone(), encoding, batch.message.clone()));
            }
            let wire = self.wire.as_ref().ok_or_else(gone)?;
            let known = control
                .ensure_wire_schema(&self.session.sender, &wire.schema, &wire.message)
                .await
                .map_err(ensured)?;
            self.known_wire = Some(known.clone());
            return Ok((known, encoding, batch.message.clone()));
        }
        let failed = |error: String| Closed::new(StreamCloseCode::Retry, error);
        let (message, payload) =
            encode_self_contained(&batch.batch).map_err(|error| failed(error.to_string()))?;
        if let Some(known) = self
            .known_wire
            .as_ref()
            .filter(|known| known.bytes == message)
        {
            return Ok((known.clone(), Encoding::ArrowIpcMessage, payload));
        }
        let schema = decode_schema(&message, &DecodeLimits::STORED)
            .map_err(|error| failed(error.to_string()))?;
        let known = control
            .ensure_wire_schema(&self.session.sender, &schema, &message)
            .await
            .map_err(ensured)?;
        self.known_wire = Some(known.clone());
        Ok((known, Encoding::ArrowIpcMessage, payload))
    }

    /// Waits for the memory that the batch takes, and its record while it is queued; `None` if there
    /// is not so much in all for the batch.
    async fn reserve(
        &self,
        prepared: Prepared,
        record: usize,
    ) -> Result<Option<crate::shard::RowParts>, Closed> {
        let context = &self.session.context;
        let capacity = context.budget.capacity(Share::Device);
        let rows = prepared.bytes();
        let bytes = rows + record.min(capacity.saturating_sub(rows));
        let reservation = match context.budget.try_reserve(bytes, Share::Device) {
            Some(reservation) => reservation,
            None => {
                context.metrics.memory_waits.add(1);
                context.flusher.poke();
                match context.budget.reserve(bytes, Share::Device).await {
                    Ok(reservation) => reservation,
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(Some(prepared.into_parts(&context.tables, reservation)))
    }

    /// Makes it durable that batch `sequence` is refused for ever.
    async fn reject(
        &mut self,
        sequence: Sequence,
        refusal: &BatchRefusal,
        rows: u64,
        excerpt: String,
    ) -> Result<(), Closed> {
        if sequence < self.opened()?.next {
            self.session.context.metrics.duplicate_batches.add(1);
            return Ok(());
        }
        self.admission()?;
        let mut record = self.record(RecordKind::Reject, sequence)?;
        record.encoding = Encoding::Json;
        record.schema = SchemaId(0);
        record.payload = RejectPayload {
            code: refusal.code.number(),
            message: refusal.message.clone(),
            rows,
            excerpt: excerpt.clone(),
        }
        .encode();
        let note = note_for_batch(
            &self.session.sender,
            refusal.code,
            &refusal.message,
            rows,
            &excerpt,
        );
        let schema = rejects_schema().ok_or_else(gone)?;
        let rows_and_memory = self.reserve(Prepared::refused(schema, note), 0).await?;
        let settlement = Settlement {
            sender: self.session.sender.clone(),
            rows: rows_and_memory,
            outcome: SettledOutcome::Rejected {
                code: refusal.code,
                message: refusal.message.clone(),
            },
            received: self.session.context.clock.monotonic(),
        };
        if self.append(record, settlement, sequence.next(), 0).await? {
            self.session
                .context
                .metrics
                .add_rejected(refusal.code, rows.max(1));
        }
        Ok(())
    }

    /// Brings a record into the log's queue; whether it was new.
    async fn append(
        &mut self,
        record: Record,
        settlement: Settlement,
        next: Sequence,
        rows: u64,
    ) -> Result<bool, Closed> {
        let context = self.session.context.clone();
        let opened = self.opened()?;
        let sequence = record.sequence;
        let on_commit = OnCommit::Settle(Box::new(settlement));
        let mut request = Box::new(AppendRequest {
            record,
            on_commit,
            epoch: 0,
        });
        loop {
            let message = AppendBatch {
                key: opened.key.clone(),
                live: opened.live.clone(),
                sequence,
                next,
                rows,
                ack_received: opened.ack_received,
                request,
            };
            match self.session.actor.send(message).await.map_err(|_| gone())? {
                AppendOutcome::Accepted(pause) => {
                    self.not_before = tokio::time::Instant::now() + pause;
                    return Ok(true);
                }
                AppendOutcome::Refused(AppendRefused::Duplicate) => {
                    context.metrics.duplicate_batches.add(1);
                    return Ok(false);
                }
                AppendOutcome::Refused(AppendRefused::StreamOver) => {
                    return Err(Closed::told(StreamCloseCode::Superseded));
                }
                AppendOutcome::Full(back) => {
                    context.metrics.queue_waits.add(1);
                    request = back;
                    context.queue.space().await;
                }
            }
        }
    }

    /// Waits until everything before `next` is durable, or the engine takes too long for it.
    async fn settled(&self, next: Sequence) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while self.durable().await < next && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Why a batch was not judged.
enum Judgement {
    Refused(BatchRefusal),
    Closed(Closed),
}

impl From<EnsureError> for Judgement {
    fn from(error: EnsureError) -> Self {
        match error {
            EnsureError::Refused(refusal) => Self::Refused(refusal),
            EnsureError::NotAllowed(message) => {
                Self::Closed(Closed::new(StreamCloseCode::NotAllowed, message))
            }
            EnsureError::Append(failure) => {
                Self::Closed(Closed::new(StreamCloseCode::Retry, failure.to_string()))
            }
        }
    }
}

fn overloaded() -> Closed {
    Closed::new(
        StreamCloseCode::Overloaded,
        "the server's memory for messages that are being received is in use; send again later, or smaller batches",
    )
}

fn gone() -> Closed {
    Closed::told(StreamCloseCode::Superseded)
}

fn count(metrics: &crate::Metrics, verdict: &Verdict, rows: u64, points: u64) {
    metrics.batches.add(1);
    metrics.rows.add(rows);
    metrics.points.add(points);
    metrics
        .device_mismatch
        .add(u64::from(verdict.counts.device_mismatch));
    metrics
        .truncated_timestamps
        .add(u64::from(verdict.counts.truncated_timestamps));
    for refused in &verdict.refused {
        metrics.add_rejected(refused.code, 1);
    }
}
