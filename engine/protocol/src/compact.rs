//! The compact encoding (`OpenStream.encoding = 3`): batches of one row to some hundred rows as what
//! changed since the rows before them, column by column. `docs/protocol.md` specifies every byte.
//!
//! ```text
//! QUIC stream   { varint length │ payload } …      first payload: the schema message; then one a batch
//! payload       varint header │ modes │ null kinds │ column 0 │ column 1 │ …
//! header        rows << 3 │ MODES << 2 │ NULLS << 1 │ RESTART
//! ```
//!
//! Both sides keep, for each column, the value before (its *predecessor*) and a table of texts; a
//! payload with RESTART begins anew and so decodes alone. That is the form in which batches are
//! queued, spooled and logged: [`BatchEncoder`](crate::BatchEncoder) writes it, [`CompactPacker`]
//! makes what is sent of it, and [`decode::CompactDecoder`] *re-bases* what it receives: the first
//! value of each column is written absolutely and the rest of the column copied.
//!
//! - [`format`]: numbers, kinds of columns, modes.
//! - [`texts`]: the tables of texts of both sides.
//! - [`decode`], [`numbers`], [`rebase`]: from payloads to record batches, and to what the log keeps.
//! - [`encode`]: from record batches to payloads.

pub(crate) mod decode;
pub(crate) mod encode;
mod format;
mod numbers;
mod pack;
mod rebase;
#[cfg(test)]
mod tests;
mod texts;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use quiver_model::BatchRefusal;

use crate::{ipc::SchemaPlan, limits::DecodeLimits};

pub(crate) use format::{LENGTH_BYTES_MAX, Reader, put_varint};
pub use pack::CompactPacker;

/// Decodes a payload that stands alone, without its length: what the log keeps of a batch.
///
/// # Errors
/// `BatchTooLarge` beyond a limit, `UnsupportedType` for a schema with types that telemetry may not
/// have, else `MalformedBatch`. Whatever the bytes are, it does not panic.
pub fn decode_compact_batch(
    schema: &SchemaRef,
    payload: &[u8],
    limits: &DecodeLimits,
) -> Result<RecordBatch, BatchRefusal> {
    let plan = SchemaPlan::without_dictionaries(schema)?;
    let mut decoder = decode::CompactDecoder::new(&plan.schema)?;
    decoder
        .decode(payload, limits, false)
        .map(|decoded| decoded.batch)
}

/// A message of the QUIC stream: the payload behind its length.
pub(crate) fn with_length(payload: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(payload.len() + LENGTH_BYTES_MAX);
    put_varint(&mut message, payload.len() as u64);
    message.extend_from_slice(payload);
    Bytes::from(message)
}

/// The payload of a whole message: what is behind its length.
pub(crate) fn payload_of(message: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(message);
    let length = reader.varint()?;
    (length == reader.rest().len() as u64).then_some(reader.rest())
}
