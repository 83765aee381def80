//! Control records: what changes catalog and registry. [`ControlWriter`] decides and writes,
//! [`ControlState`] is what the durable records add up to; the commit loop and recovery apply them
//! in position order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use arrow_schema::SchemaRef;
use bytes::Bytes;
use quiver_log::{ControlKind, Encoding, Record, RecordKind};
use quiver_model::{
    BatchRefusal, FieldName, Position, RESERVED_COLUMNS, RejectCode, SenderId, SenderKind,
    StreamField, StreamName, StreamSchema, Timestamp,
};
use quiver_protocol::{DecodeLimits, decode_schema};

use crate::{
    catalog::{Catalog, KnownWireSchema, SchemaPayload},
    commit::{AppendFailure, AppendQueue},
    damage::{DamageBook, DamageReport},
    record_clock::{ClockStep, RecordClock},
    registry::{Registry, RegistryChange, RegistryEntry},
};

/// Wire schemas remembered at once. A stream has one per order and subset of columns that its
/// senders use; beyond this something is wrong.
const WIRE_SCHEMAS_MAX: usize = 65_536;
/// Of these, new ones of one device or gateway in a day: none may use up what all have.
const NEW_WIRE_SCHEMAS_PER_DAY: u32 = 256;
/// Senders whose growth of today is remembered.
const GROWTH_SENDERS_MAX: usize = 100_000;

/// Catalog, registry and reported damage, as of the committed position.
#[derive(Debug, Default)]
pub struct ControlState {
    /// Schemas.
    pub catalog: Catalog,
    /// Identities.
    pub registry: Registry,
    /// Damaged parts of the log.
    pub damage: DamageBook,
}

impl ControlState {
    /// Applies a durable control record. One that cannot be read changes nothing and is said so:
    /// it was written by this program, so it is damaged or from a later version.
    pub(crate) fn apply(&self, position: Position, record: &Record) {
        if let Err(reason) = self.try_apply(position, record) {
            tracing::error!(%position, kind = ?record.kind, reason, "a control record could not be applied");
        }
    }

    fn try_apply(&self, position: Position, record: &Record) -> Result<(), String> {
        match record.kind {
            RecordKind::StreamSchema => {
                let payload: SchemaPayload =
                    serde_json::from_slice(&record.payload).map_err(|error| error.to_string())?;
                let fields = payload
                    .to_fields()
                    .ok_or("unknown field type or malformed name")?;
                let stream = record.stream.as_ref().ok_or("no stream")?;
                self.catalog
                    .apply_stream_schema(stream, record.schema, fields)
                    .map_err(|error| error.to_string())?;
            }
            RecordKind::WireSchema => {
                let schema = decode_schema(&record.payload, &DecodeLimits::STORED)
                    .map_err(|error| error.to_string())?;
                self.catalog.apply_wire_schema(
                    record.wire_schema,
                    schema,
                    record.payload.clone(),
                    position,
                );
            }
            RecordKind::Registry => {
                let change: RegistryChange =
                    serde_json::from_slice(&record.payload).map_err(|error| error.to_string())?;
                self.registry.apply(&change);
            }
            RecordKind::Control(ControlKind::DamageReported) => {
                let report = DamageReport::read(record).map_err(|error| error.to_string())?;
                self.damage.apply(position, &report);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Why a schema could not be had.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// The batch can never be stored.
    #[error(transparent)]
    Refused(#[from] BatchRefusal),
    /// The sender may not create this stream.
    #[error("{0}")]
    NotAllowed(String),
    /// The log did not take the record; later it may.
    #[error(transparent)]
    Append(#[from] AppendFailure),
}

/// How much new a sender may bring a day.
#[derive(Clone, Copy, Debug)]
pub struct GrowthLimits {
    /// Streams in all.
    pub streams_max: usize,
    /// Streams per sender and day.
    pub new_streams_per_day: u32,
    /// Fields per sender and day.
    pub new_fields_per_day: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Growth {
    day: i32,
    streams: u32,
    fields: u32,
    wire_schemas: u32,
}

/// Whether a sender is of those who run the engine, and may bring as much new as there is room for.
fn is_ours(sender: &SenderId) -> bool {
    matches!(sender.kind, SenderKind::Operator | SenderKind::Node)
}

/// What the graph's configuration says of streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRules {
    /// Streams that take the declared fields and no others, with those.
    pub strict: BTreeMap<StreamName, BTreeSet<FieldName>>,
    /// Streams that nodes of the graph write, and nobody else.
    pub nodes: BTreeSet<StreamName>,
}

/// What is in force of streams: the graph's rules, and what the log says.
#[derive(Clone, Debug, Default)]
pub struct StreamsInForce {
    rules: StreamRules,
    /// Streams with rows of nodes, be these still in the graph or not: the senders of kind node that
    /// the log knows. Whose rows they are must not depend on whether an engine was started with its
    /// graph.
    written: BTreeSet<StreamName>,
}

impl StreamsInForce {
    /// Whether a stream's rows come from within.
    pub fn is_derived(&self, stream: &StreamName) -> bool {
        self.rules.nodes.contains(stream) || self.written.contains(stream)
    }
}

/// The one writer of schemas and registry changes. Decisions are made one at a time, under a lock
/// that is held until the record is durable; batches that bring nothing new never come here.
pub struct ControlWriter {
    state: Arc<ControlState>,
    queue: AppendQueue,
    clock: Arc<RecordClock>,
    limits: GrowthLimits,
    deciding: tokio::sync::Mutex<()>,
    /// Whose turn it is to change what the registry says: see [`ControlWriter::registry_turn`].
    registry_turn: tokio::sync::RwLock<()>,
    growth: Mutex<HashMap<SenderId, Growth>>,
    streams: RwLock<Arc<StreamsInForce>>,
}

impl StreamsInForce {
    /// Whether a sender's batch of a stream may have these columns.
    ///
    /// # Errors
    /// If the stream is a node's or was, or is strict and one of the columns is not declared.
    pub fn check<'a>(
        &self,
        stream: &StreamName,
        columns: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), EnsureError> {
        if self.rules.nodes.contains(stream) {
            return Err(EnsureError::NotAllowed(format!(
                "stream {stream} is written by a node of the graph; choose another name"
            )));
        }
        if self.written.contains(stream) {
            return Err(EnsureError::NotAllowed(format!(
                "stream {stream} has rows of a node that is not in the graph now, and takes no others; choose another name"
            )));
        }
        let Some(fields) = self.rules.strict.get(stream) else {
            return Ok(());
        };
        let is_known = |column: &str| {
            let is = |name: &str| name.eq_ignore_ascii_case(column);
            RESERVED_COLUMNS.iter().any(|name| is(name))
                || fields.iter().any(|field| is(field.as_str()))
        };
        match columns.into_iter().find(|column| !is_known(column)) {
            None => Ok(()),
            Some(column) => Err(EnsureError::Refused(BatchRefusal::new(
                RejectCode::UndeclaredField,
                format!(
                    "stream {stream} is strict, and has no field {column:?}; declare it in the configuration, or do not send it"
                ),
            ))),
        }
    }
}

impl ControlWriter {
    /// Writes to this queue.
    pub fn new(
        state: Arc<ControlState>,
        queue: AppendQueue,
        clock: Arc<RecordClock>,
        limits: GrowthLimits,
    ) -> Self {
        Self {
            state,
            queue,
            clock,
            limits,
            deciding: tokio::sync::Mutex::default(),
            registry_turn: tokio::sync::RwLock::default(),
            growth: Mutex::default(),
            streams: RwLock::default(),
        }
    }

    /// What is in force of streams, now.
    pub fn rules(&self) -> Arc<StreamsInForce> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        streams.clone()
    }

    /// Puts other rules in force; those that were. Fields that streams have already stay.
    pub fn set_rules(&self, rules: StreamRules) -> StreamRules {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut Arc::make_mut(&mut *streams).rules, rules)
    }

    /// A node writes a stream: nobody else may, whatever graph comes.
    pub fn note_written(&self, stream: &StreamName) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut *streams).written.insert(stream.clone());
    }

    /// The state that the records add up to.
    pub fn state(&self) -> &Arc<ControlState> {
        &self.state
    }

    /// The stream's schema with at least `fields`, durable. Conflicts with what others added
    /// meanwhile refuse the batch.
    pub async fn ensure_fields(
        &self,
        sender: &SenderId,
        stream: &StreamName,
        fields: &[StreamField],
    ) -> Result<Arc<StreamSchema>, EnsureError> {
        let _deciding = self.deciding.lock().await;
        let present = self.state.catalog.stream(stream);
        let missing: Vec<StreamField> = fields
            .iter()
            .filter(|field| {
                present.as_ref().is_none_or(|schema| {
                    let known = schema.find(field.name.as_str());
                    known.is_none_or(|(_, known)| !known.holds(field))
                })
            })
            .cloned()
            .collect();
        if let Some(schema) = &present
            && missing.is_empty()
        {
            return Ok(schema.clone());
        }
        let id = self.state.catalog.next_id();
        let next = match &present {
            Some(schema) => schema.grown(id, &missing),
            None => StreamSchema::new(stream.clone(), id, missing.clone()),
        }
        .map_err(BatchRefusal::from)?;
        let today = self.clock.now().day();
        self.check_growth(
            sender,
            stream,
            present.is_none(),
            missing.len() as u32,
            today,
        )?;
        let payload = serde_json::to_vec(&SchemaPayload::of(next.fields()))
            .map_err(|error| BatchRefusal::new(RejectCode::MalformedBatch, error.to_string()))?;
        let mut record = Record::control(RecordKind::StreamSchema, self.clock.now());
        record.encoding = Encoding::Json;
        record.schema = id;
        record.stream = Some(stream.clone());
        record.payload = Bytes::from(payload);
        self.queue.append_control(record).await?;
        self.note_growth(sender, today, |growth| {
            if present.is_none() {
                growth.streams += 1;
            } else {
                growth.fields += missing.len() as u32;
            }
        });
        self.state
            .catalog
            .stream(stream)
            .ok_or(EnsureError::Append(AppendFailure::Closed))
    }

    fn check_growth(
        &self,
        sender: &SenderId,
        stream: &StreamName,
        new_stream: bool,
        new_fields: u32,
        today: i32,
    ) -> Result<(), EnsureError> {
        if new_stream && self.state.catalog.stream_count() >= self.limits.streams_max {
            return Err(EnsureError::NotAllowed(format!(
                "stream {stream} is new, and the engine has its {} streams; use an existing one",
                self.limits.streams_max
            )));
        }
        if is_ours(sender) {
            return Ok(());
        }
        let growth = self.growth_today(sender, today);
        if new_stream && growth.streams >= self.limits.new_streams_per_day {
            return Err(EnsureError::NotAllowed(format!(
                "{sender} has created {} new streams today, as many as allowed; stream {stream} can be created tomorrow or by an operator",
                growth.streams
            )));
        }
        // The fields a stream is created with are the stream's, not an addition to it.
        if !new_stream && growth.fields + new_fields > self.limits.new_fields_per_day {
            return Err(EnsureError::Refused(BatchRefusal::new(
                RejectCode::FieldLimit,
                format!(
                    "the batch adds {new_fields} fields to stream {stream}, and {sender} has added {} of {} allowed today; an operator may add more",
                    growth.fields, self.limits.new_fields_per_day
                ),
            )));
        }
        Ok(())
    }

    fn growth_today(&self, sender: &SenderId, today: i32) -> Growth {
        let growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        growth
            .get(sender)
            .copied()
            .filter(|growth| growth.day == today)
            .unwrap_or_default()
    }

    fn note_growth(&self, sender: &SenderId, today: i32, note: impl FnOnce(&mut Growth)) {
        let mut all = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= GROWTH_SENDERS_MAX {
            all.retain(|_, growth| growth.day == today);
        }
        let growth = all.entry(sender.clone()).or_default();
        if growth.day != today {
            *growth = Growth {
                day: today,
                ..Growth::default()
            };
        }
        note(growth);
    }

    /// The wire schema with these bytes, durable.
    pub async fn ensure_wire_schema(
        &self,
        sender: &SenderId,
        schema: &SchemaRef,
        message: &Bytes,
    ) -> Result<Arc<KnownWireSchema>, EnsureError> {
        let catalog = &self.state.catalog;
        if let Some(known) = catalog.wire_by_bytes(message) {
            return Ok(known);
        }
        let _deciding = self.deciding.lock().await;
        if let Some(known) = catalog.wire_by_bytes(message) {
            return Ok(known);
        }
        if catalog.wire_count() >= WIRE_SCHEMAS_MAX {
            return Err(EnsureError::NotAllowed(format!(
                "the engine knows {WIRE_SCHEMAS_MAX} different orders of columns; send the columns of a stream in one order"
            )));
        }
        let today = self.clock.now().day();
        let new_today = self.growth_today(sender, today).wire_schemas;
        if !is_ours(sender) && new_today >= NEW_WIRE_SCHEMAS_PER_DAY {
            return Err(EnsureError::NotAllowed(format!(
                "{sender} has brought {new_today} new orders of columns today, as many as allowed; send the columns of a stream in one order"
            )));
        }
        let id = catalog.next_id();
        let mut record = Record::control(RecordKind::WireSchema, self.clock.now());
        record.encoding = Encoding::ArrowIpcMessage;
        record.wire_schema = id;
        record.payload = message.clone();
        let position = self.queue.append_control(record).await?;
        self.note_growth(sender, today, |growth| growth.wire_schemas += 1);
        Ok(catalog.wire(id).unwrap_or_else(|| {
            catalog.apply_wire_schema(id, schema.clone(), message.clone(), position)
        }))
    }

    /// The turn of one who changes entries: held from reading what is known until the change is
    /// in force, so that nobody's change is overwritten by what another made of the entry before.
    pub async fn registry_turn(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.registry_turn.write().await
    }

    /// Enrolls an identity durably, unless it is known. Those who do so wait for the disk together,
    /// and not for each other.
    pub async fn enroll_unknown(&self, sender: &SenderId) -> Result<(), AppendFailure> {
        let registry = &self.state.registry;
        if registry.get(sender).is_some() {
            return Ok(());
        }
        let _turn = self.registry_turn.read().await;
        // Somebody may have enrolled it with more to say of it, meanwhile.
        if registry.get(sender).is_some() {
            return Ok(());
        }
        let entry = RegistryEntry::new(sender, self.clock.now());
        let put = RegistryChange::Put { entry };
        self.change_registry(&put).await.map(drop)
    }

    /// Makes a registry change durable and in force.
    pub async fn change_registry(
        &self,
        change: &RegistryChange,
    ) -> Result<Position, AppendFailure> {
        let record = self.registry_record(change)?;
        self.queue.append_control(record).await
    }

    /// Makes registry changes durable and in force, in this order and together: they wait for the
    /// disk once, not each for itself. What became of each; none is tried if one has no encoding.
    pub async fn change_registry_all(
        &self,
        changes: &[RegistryChange],
    ) -> Vec<Result<Position, AppendFailure>> {
        let records = changes.iter().map(|change| self.registry_record(change));
        match records.collect::<Result<Vec<_>, _>>() {
            Ok(records) => self.queue.append_controls(records).await,
            Err(failure) => vec![Err(failure); changes.len()],
        }
    }

    fn registry_record(&self, change: &RegistryChange) -> Result<Record, AppendFailure> {
        let payload = serde_json::to_vec(change).map_err(|error| AppendFailure::Refused {
            reason: error.to_string(),
        })?;
        let mut record = Record::control(RecordKind::Registry, self.clock.now());
        record.encoding = Encoding::Json;
        record.payload = Bytes::from(payload);
        Ok(record)
    }

    /// Writes that the wall clock stepped.
    pub async fn clock_stepped(&self, step: ClockStep) -> Result<Position, AppendFailure> {
        let body = serde_json::json!({
            "record_time_us": step.record_time.as_micros(),
            "wall_us": step.wall.as_micros(),
        });
        self.write_control(
            ControlKind::ClockStepped,
            step.record_time,
            body.to_string(),
        )
        .await
    }

    /// Writes a control record of the engine with a JSON body.
    pub async fn write_control(
        &self,
        kind: ControlKind,
        time: Timestamp,
        body: String,
    ) -> Result<Position, AppendFailure> {
        let mut record = Record::control(RecordKind::Control(kind), time);
        record.encoding = Encoding::Json;
        record.payload = Bytes::from(body);
        self.queue.append_control(record).await
    }
}

#[cfg(test)]
#[path = "control/tests.rs"]
mod tests;
