//! The schemas: of streams, as their versions grew, and of the wire, as senders announced them.
//!
//! Both are records in the log, written before the first batch that refers to them: what a batch
//! was normalised to, and what its bytes decode with, is found again at replay by number. The
//! catalog changes only by applying those records; [`crate::control::ControlWriter`] decides what
//! is written.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow_schema::SchemaRef;
use bytes::Bytes;
use quiver_model::{
    FieldName, Position, SchemaConflict, SchemaId, StreamField, StreamName, StreamSchema,
};
use serde::{Deserialize, Serialize};

/// A schema message that a sender announced. Held by every batch in flight that needs it: one
/// that nobody holds and no retained record refers to may be forgotten.
#[derive(Debug)]
pub struct KnownWireSchema {
    /// Number of its record.
    pub id: SchemaId,
    /// Decoded.
    pub schema: SchemaRef,
    /// The encapsulated IPC schema message as received.
    pub bytes: Bytes,
    last_used: AtomicU64,
}

/// Payload (JSON) of a stream schema record: the whole version, so that a record explains itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaPayload {
    /// (name, type) of each field, oldest first.
    pub fields: Vec<(String, String)>,
}

impl SchemaPayload {
    pub(crate) fn of(fields: &[StreamField]) -> Self {
        Self {
            fields: fields
                .iter()
                .map(|field| (field.name.to_string(), field.type_word()))
                .collect(),
        }
    }

    pub(crate) fn to_fields(&self) -> Option<Vec<StreamField>> {
        self.fields
            .iter()
            .map(|(name, word)| StreamField::from_type_word(FieldName::new(name).ok()?, word))
            .collect()
    }
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<StreamName, Arc<StreamSchema>>,
    versions: HashMap<SchemaId, Arc<StreamSchema>>,
    wire: HashMap<SchemaId, Arc<KnownWireSchema>>,
    wire_by_bytes: HashMap<Bytes, Arc<KnownWireSchema>>,
    last_id: u32,
}

/// Every schema the log may refer to.
#[derive(Debug, Default)]
pub struct Catalog {
    state: RwLock<State>,
}

impl Catalog {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest schema of a stream.
    pub fn stream(&self, stream: &StreamName) -> Option<Arc<StreamSchema>> {
        self.read().streams.get(stream).cloned()
    }

    /// A version by the number of its record.
    pub fn version(&self, id: SchemaId) -> Option<Arc<StreamSchema>> {
        self.read().versions.get(&id).cloned()
    }

    /// Number of streams.
    pub fn stream_count(&self) -> usize {
        self.read().streams.len()
    }

    /// The newest schema of every stream.
    pub fn streams(&self) -> Vec<Arc<StreamSchema>> {
        let mut streams: Vec<_> = self.read().streams.values().cloned().collect();
        streams.sort_by(|a, b| a.stream().cmp(b.stream()));
        streams
    }

    /// A wire schema by its bytes.
    pub fn wire_by_bytes(&self, bytes: &Bytes) -> Option<Arc<KnownWireSchema>> {
        self.read().wire_by_bytes.get(bytes).cloned()
    }

    /// A wire schema by the number of its record.
    pub fn wire(&self, id: SchemaId) -> Option<Arc<KnownWireSchema>> {
        self.read().wire.get(&id).cloned()
    }

    /// Notes that the record at `position` needs this wire schema.
    pub(crate) fn touch_wire(&self, id: SchemaId, position: Position) {
        if let Some(known) = self.read().wire.get(&id) {
            known.last_used.fetch_max(position.get(), Ordering::Relaxed);
        }
    }

    /// Number of wire schemas.
    pub fn wire_count(&self) -> usize {
        self.read().wire.len()
    }

    /// The number for the next schema record, of either kind.
    pub(crate) fn next_id(&self) -> SchemaId {
        SchemaId(self.read().last_id + 1)
    }

    /// Gives no number up to `id` again: its record is lost, and others still name it.
    pub(crate) fn reserve(&self, id: SchemaId) {
        let mut state = self.write();
        state.last_id = state.last_id.max(id.get());
    }

    /// Applies a durable stream schema record. Applying it again changes nothing.
    pub(crate) fn apply_stream_schema(
        &self,
        stream: &StreamName,
        id: SchemaId,
        fields: Vec<StreamField>,
    ) -> Result<Arc<StreamSchema>, SchemaConflict> {
        let schema = Arc::new(StreamSchema::new(stream.clone(), id, fields)?);
        let mut state = self.write();
        state.last_id = state.last_id.max(id.get());
        state.versions.insert(id, schema.clone());
        let newest = state
            .streams
            .entry(stream.clone())
            .or_insert_with(|| schema.clone());
        // Versions only grow: the one with more fields is the newer one.
        if newest.fields().len() <= schema.fields().len() {
            *newest = schema.clone();
        }
        Ok(schema)
    }

    /// Applies a durable wire schema record. Applying it again changes nothing.
    pub(crate) fn apply_wire_schema(
        &self,
        id: SchemaId,
        schema: SchemaRef,
        bytes: Bytes,
        position: Position,
    ) -> Arc<KnownWireSchema> {
        let mut state = self.write();
        state.last_id = state.last_id.max(id.get());
        if let Some(known) = state.wire.get(&id) {
            return known.clone();
        }
        // Its own copy: the bytes must not keep a whole commit group or network buffer alive.
        let bytes = Bytes::copy_from_slice(&bytes);
        let last_used = AtomicU64::new(position.get());
        let known = Arc::new(KnownWireSchema {
            id,
            schema,
            bytes: bytes.clone(),
            last_used,
        });
        state.wire.insert(id, known.clone());
        state.wire_by_bytes.insert(bytes, known.clone());
        known
    }

    /// Forgets wire schemas that no record at or above `floor` needs and nobody holds.
    pub(crate) fn forget_unused_wire_schemas(&self, floor: Position) {
        let mut state = self.write();
        let State {
            wire,
            wire_by_bytes,
            ..
        } = &mut *state;
        wire.retain(|_, known| {
            // Held by the two maps alone.
            let in_use = Arc::strong_count(known) > 2
                || known.last_used.load(Ordering::Relaxed) >= floor.get();
            if !in_use {
                wire_by_bytes.remove(&known.bytes);
            }
            in_use
        });
    }

    /// What a checkpoint keeps.
    pub(crate) fn export(&self) -> CatalogImage {
        let state = self.read();
        let mut versions: Vec<VersionImage> = state
            .versions
            .values()
            .map(|version| VersionImage {
                id: version.id().get(),
                stream: version.stream().to_string(),
                field_count: version.fields().len(),
            })
            .collect();
        versions.sort_by_key(|version| version.id);
        let mut streams: Vec<StreamImage> = state
            .streams
            .values()
            .map(|schema| StreamImage {
                stream: schema.stream().to_string(),
                fields: SchemaPayload::of(schema.fields()),
            })
            .collect();
        streams.sort_by(|a, b| a.stream.cmp(&b.stream));
        let mut wire: Vec<WireImage> = state
            .wire
            .values()
            .map(|known| WireImage {
                id: known.id.get(),
                last_used: known.last_used.load(Ordering::Relaxed),
                message: known.bytes.to_vec(),
            })
            .collect();
        wire.sort_by_key(|wire| wire.id);
        CatalogImage {
            last_id: state.last_id,
            versions,
            streams,
            wire,
        }
    }

    /// Restores what [`Catalog::export`] gave; `decode` turns a wire schema's bytes into a schema.
    pub(crate) fn import<E>(
        &self,
        image: CatalogImage,
        decode: impl Fn(&Bytes) -> Result<SchemaRef, E>,
    ) -> Result<(), CatalogImageError> {
        let unreadable = || CatalogImageError;
        let mut fields_of = HashMap::new();
        for stream in image.streams {
            let name = StreamName::new(&stream.stream).map_err(|_| unreadable())?;
            fields_of.insert(name, stream.fields.to_fields().ok_or_else(unreadable)?);
        }
        for version in image.versions {
            let name = StreamName::new(&version.stream).map_err(|_| unreadable())?;
            let fields = fields_of
                .get(&name)
                .and_then(|fields| fields.get(..version.field_count));
            let fields = fields.ok_or_else(unreadable)?.to_vec();
            self.apply_stream_schema(&name, SchemaId(version.id), fields)
                .map_err(|_| unreadable())?;
        }
        for wire in image.wire {
            let bytes = Bytes::from(wire.message);
            let schema = decode(&bytes).map_err(|_| unreadable())?;
            self.apply_wire_schema(SchemaId(wire.id), schema, bytes, Position(wire.last_used));
        }
        let mut state = self.write();
        state.last_id = state.last_id.max(image.last_id);
        Ok(())
    }
}

/// The catalog's part of a checkpoint does not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint's catalog is unreadable")]
pub struct CatalogImageError;

/// The catalog's part of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CatalogImage {
    last_id: u32,
    versions: Vec<VersionImage>,
    streams: Vec<StreamImage>,
    wire: Vec<WireImage>,
}

/// A version's fields are the first `field_count` of its stream's.
#[derive(Debug, Serialize, Deserialize)]
struct VersionImage {
    id: u32,
    stream: String,
    field_count: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct StreamImage {
    stream: String,
    fields: SchemaPayload,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireImage {
    id: u32,
    last_used: u64,
    message: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use quiver_model::{DecimalScale, FieldType};

    use super::*;

    #[test]
    fn the_scale_of_a_decimal_field_is_in_its_record() {
        let scale = DecimalScale::new(2).unwrap();
        let fields = vec![StreamField::decimal(
            FieldName::new("speed").unwrap(),
            scale,
        )];
        let payload = SchemaPayload::of(&fields);
        let json = serde_json::to_string(&payload).unwrap();
        assert_eq!(json, r#"{"fields":[["speed","decimal(2)"]]}"#);
        let read: SchemaPayload = serde_json::from_str(&json).unwrap();
        assert_eq!(read.to_fields(), Some(fields));
    }

    #[test]
    fn the_records_words_of_types_stay_what_they_are() {
        let json = r#"{"fields":[["a","int64"],["b","float64"],["c","utf8"],["d","bool"],["e","timestamp"]]}"#;
        let read: SchemaPayload = serde_json::from_str(json).unwrap();
        let fields = read.to_fields().unwrap();
        let types: Vec<_> = fields.iter().map(|field| field.field_type).collect();
        assert_eq!(
            types,
            [
                FieldType::Int64,
                FieldType::Float64,
                FieldType::Utf8,
                FieldType::Bool,
                FieldType::Timestamp
            ]
        );
        assert_eq!(
            serde_json::to_string(&SchemaPayload::of(&fields)).unwrap(),
            json
        );
    }

    fn field(name: &str) -> StreamField {
        StreamField::new(FieldName::new(name).unwrap(), FieldType::Float64)
    }

    #[test]
    fn versions_survive_export_and_import() {
        let catalog = Catalog::default();
        let stream = StreamName::new("readings").unwrap();
        catalog
            .apply_stream_schema(&stream, SchemaId(1), vec![field("a")])
            .unwrap();
        catalog
            .apply_stream_schema(&stream, SchemaId(3), vec![field("a"), field("b")])
            .unwrap();
        let schema: SchemaRef = Arc::new(arrow_schema::Schema::empty());
        catalog.apply_wire_schema(
            SchemaId(2),
            schema.clone(),
            Bytes::from_static(b"w"),
            Position(9),
        );

        let restored = Catalog::default();
        restored
            .import(catalog.export(), |_| Ok::<_, ()>(schema.clone()))
            .unwrap();
        assert_eq!(restored.next_id(), SchemaId(4));
        assert_eq!(restored.stream(&stream).unwrap().fields().len(), 2);
        assert_eq!(restored.version(SchemaId(1)).unwrap().fields().len(), 1);
        assert!(restored.wire(SchemaId(2)).is_some());
        assert!(restored.wire_by_bytes(&Bytes::from_static(b"w")).is_some());
    }

    #[test]
    fn a_wire_schema_is_forgotten_only_when_nobody_holds_it_and_no_record_needs_it() {
        let catalog = Catalog::default();
        let schema: SchemaRef = Arc::new(arrow_schema::Schema::empty());
        let held =
            catalog.apply_wire_schema(SchemaId(1), schema, Bytes::from_static(b"w"), Position(5));
        catalog.forget_unused_wire_schemas(Position(10));
        assert_eq!(catalog.wire_count(), 1, "held by a batch in flight");
        drop(held);
        catalog.forget_unused_wire_schemas(Position(5));
        assert_eq!(catalog.wire_count(), 1, "a retained record needs it");
        catalog.forget_unused_wire_schemas(Position(6));
        assert_eq!(catalog.wire_count(), 0);
        assert!(catalog.wire_by_bytes(&Bytes::from_static(b"w")).is_none());
    }
}
