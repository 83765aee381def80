//! From a batch and its verdict to what shards will hold. Ingest does this before the append, to
//! know what memory to reserve; recovery does the same from the log's bytes.

use std::sync::Arc;

use arrow_array::{DictionaryArray, RecordBatch, types::Int32Type};
use bytes::Bytes;
use quiver_hot::{MemoryBudget, Reservation, Share, Tables};
use quiver_log::{Encoding, Record, RecordKind};
use quiver_model::{
    BatchPart, BatchRefusal, RejectCode, SenderId, ShardId, StreamSchema, Verdict, apply,
};
use quiver_protocol::{DecodeLimits, decode_batch, decode_compact_batch, decode_compressed_batch};
use serde::{Deserialize, Serialize};

use crate::{
    commit::Settlement,
    control::ControlState,
    shard::{RejectNote, RowPart, RowParts, SettledOutcome, note_for_batch, notes_for_rows},
};

/// A batch, decoded, normalised and dealt out, that waits for its memory.
pub struct Prepared {
    schema: Arc<StreamSchema>,
    parts: Vec<(ShardId, BatchPart)>,
    rejects: Vec<RejectNote>,
}

/// Obeys the verdict. `devices` are those of the judgement, if this is the process that judged.
pub fn prepare(
    wire: &RecordBatch,
    schema: &Arc<StreamSchema>,
    sender: &SenderId,
    verdict: &Verdict,
    devices: Option<&DictionaryArray<Int32Type>>,
    shard_count: u16,
) -> Result<Prepared, BatchRefusal> {
    let checked = apply(wire, schema, sender, verdict, devices)?;
    Ok(Prepared {
        schema: schema.clone(),
        parts: checked.split_by_shard(shard_count),
        rejects: notes_for_rows(wire, sender, verdict),
    })
}

impl Prepared {
    /// A batch refused as a whole.
    pub fn refused(schema: Arc<StreamSchema>, note: RejectNote) -> Self {
        Self {
            schema,
            parts: Vec::new(),
            rejects: vec![note],
        }
    }

    /// Bytes of memory it will take.
    pub fn bytes(&self) -> usize {
        let rows: usize = self.parts.iter().map(|(_, part)| part.memory_size()).sum();
        rows + self.rejects_bytes()
    }

    fn rejects_bytes(&self) -> usize {
        self.rejects.iter().map(RejectNote::bytes).sum()
    }

    /// Rows that will be stored.
    pub fn row_count(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.row_count()).sum()
    }

    /// Field values that will be stored.
    pub fn point_count(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.point_count()).sum()
    }

    /// With its memory reserved: `reservation` is of [`Prepared::bytes`] at least; what is beyond is
    /// the record's.
    pub fn into_parts(self, tables: &Tables, mut reservation: Reservation) -> RowParts {
        let rejects_reservation =
            (!self.rejects.is_empty()).then(|| reservation.split(self.rejects_bytes()));
        let table = (!self.parts.is_empty()).then(|| tables.get_or_create(&self.schema));
        let parts = self
            .parts
            .into_iter()
            .map(|(shard, rows)| {
                let reservation = reservation.split(rows.memory_size());
                RowPart {
                    shard,
                    rows,
                    reservation,
                }
            })
            .collect();
        RowParts {
            table,
            parts,
            rejects: self.rejects,
            rejects_reservation,
            queued: reservation,
        }
    }
}

/// Payload (JSON) of a record for a refused batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectPayload {
    /// Number of a `RejectCode`.
    pub code: u16,
    /// What is wrong, where, and how to mend it.
    pub message: String,
    /// Rows that the batch had, as far as they are known.
    pub rows: u64,
    /// Beginning of its content.
    pub excerpt: String,
}

impl RejectPayload {
    /// The payload's bytes.
    pub fn encode(&self) -> Bytes {
        // A struct of numbers and strings always has a JSON form.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Why a record of the log cannot be applied again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayRefusal {
    /// The log does not hold a schema that the record needs.
    #[error("schema {0} is not in the log or the checkpoint")]
    Schema(quiver_model::SchemaId),
    /// A later program wrote it.
    #[error("its encoding {0} is not known to this version")]
    Encoding(u8),
    /// A part is missing that every such record has.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Its bytes do not decode, although they did when they were accepted.
    #[error("its payload does not decode: {0}")]
    Payload(String),
}

/// What shards are to be told of a record, from the record alone. `rows` says whether its rows are
/// wanted, or only its sequence.
pub fn settlement_of(
    record: &Record,
    control: &ControlState,
    tables: &Tables,
    budget: &MemoryBudget,
    rows: bool,
) -> Result<Settlement, ReplayRefusal> {
    let sender = record
        .sender
        .clone()
        .ok_or(ReplayRefusal::Missing("sender"))?;
    let received = std::time::Duration::ZERO;
    if record.kind == RecordKind::Lost {
        return Ok(Settlement {
            sender,
            rows: None,
            outcome: SettledOutcome::Lost,
            received,
        });
    }
    if record.kind == RecordKind::Reject {
        let payload: RejectPayload = serde_json::from_slice(&record.payload)
            .map_err(|error| ReplayRefusal::Payload(error.to_string()))?;
        let code = RejectCode::from_number(payload.code).unwrap_or(RejectCode::MalformedBatch);
        let note = note_for_batch(
            &sender,
            code,
            &payload.message,
            payload.rows,
            &payload.excerpt,
        );
        let schema =
            crate::shard::rejects_schema().ok_or(ReplayRefusal::Missing("schema of rejects"))?;
        let rows = Some(held(Prepared::refused(schema, note), tables, budget));
        let outcome = SettledOutcome::Rejected {
            code,
            message: payload.message,
        };
        return Ok(Settlement {
            sender,
            rows,
            outcome,
            received,
        });
    }
    let rows = if rows {
        Some(held(
            decode(record, control, &sender, tables)?,
            tables,
            budget,
        ))
    } else {
        None
    };
    Ok(Settlement {
        sender,
        rows,
        outcome: SettledOutcome::Stored,
        received,
    })
}

fn held(prepared: Prepared, tables: &Tables, budget: &MemoryBudget) -> RowParts {
    // It was admitted once: it is counted, not asked for. Recovery flushes when it is much.
    let reservation = budget.account(prepared.bytes(), Share::Device);
    prepared.into_parts(tables, reservation)
}

/// The batch of a record as it was sent, and the schema that it was normalised to.
pub fn decode_record(
    record: &Record,
    control: &ControlState,
) -> Result<(RecordBatch, Arc<StreamSchema>), ReplayRefusal> {
    let wire = control
        .catalog
        .wire(record.wire_schema)
        .ok_or(ReplayRefusal::Schema(record.wire_schema))?;
    let schema = control
        .catalog
        .version(record.schema)
        .ok_or(ReplayRefusal::Schema(record.schema))?;
    let limits = &DecodeLimits::STORED;
    let batch = match record.encoding {
        Encoding::ArrowIpcMessage => decode_batch(&wire.schema, &record.payload, limits),
        Encoding::ArrowIpcZstd => decode_compressed_batch(&wire.schema, &record.payload, limits),
        Encoding::Compact => decode_compact_batch(&wire.schema, &record.payload, limits),
        other => return Err(ReplayRefusal::Encoding(other.number())),
    }
    .map_err(|error| ReplayRefusal::Payload(error.to_string()))?;
    Ok((batch, schema))
}

fn decode(
    record: &Record,
    control: &ControlState,
    sender: &SenderId,
    tables: &Tables,
) -> Result<Prepared, ReplayRefusal> {
    let (batch, schema) = decode_record(record, control)?;
    prepare(
        &batch,
        &schema,
        sender,
        &record.verdict,
        None,
        tables.shard_count(),
    )
    .map_err(|error| ReplayRefusal::Payload(error.to_string()))
}
