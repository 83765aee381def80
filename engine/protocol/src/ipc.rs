//! Arrow IPC from a peer that may be hostile, and back.
//!
//! ```text
//! encapsulated message ─▶ guard: metadata verified, every node, buffer and length checked
//!                      ─▶ decompress: into buffers of exactly the declared size, within a budget
//!                      ─▶ decode: arrow's validating constructors check offsets, UTF-8, keys ─▶ RecordBatch
//! ```
//!
//! The bytes are never shown to arrow-ipc's reader: forged lengths reach its allocator unchecked,
//! and forged offsets its assertions. For the few types that telemetry may have, reading the
//! verified metadata ourselves is smaller than a guard that would have to foresee every path of a
//! general reader. arrow-ipc serves with its flatbuffer accessors, and as the writer.
//!
//! An *encapsulated message* is what an Arrow IPC stream consists of: `FF FF FF FF`, the length of
//! the metadata as a little-endian i32, the metadata (a flatbuffer), the body.

mod decode;
mod decompress;
mod dictionary;
mod encode;
mod guard;
mod schema;
pub(crate) mod whole;

pub use dictionary::expanded_dictionary_bytes;
pub use encode::{BatchEncoder, Compression, END_OF_STREAM, EncodeError, encode_self_contained};

pub use whole::END_OF_COMPRESSED_STREAM;

pub(crate) use decode::{decode_with, shielded};
pub(crate) use decompress::Decompressor;
pub(crate) use dictionary::Dictionaries;
pub(crate) use guard::{CONTINUATION, MessageKind, PREFIX_BYTES, describe, malformed, too_large};
pub(crate) use schema::{SchemaPlan, read_schema};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use quiver_model::BatchRefusal;

use crate::limits::DecodeLimits;

/// Decodes an encapsulated schema message.
///
/// # Errors
/// `UnsupportedType` if a column has a type that telemetry may not have, `BatchTooLarge` beyond a
/// limit, else `MalformedBatch`.
pub fn decode_schema(message: &Bytes, limits: &DecodeLimits) -> Result<SchemaRef, BatchRefusal> {
    read_schema(message, limits).map(|plan| plan.schema)
}

/// Decodes an encapsulated record batch message that needs no dictionaries, by the schema that
/// [`decode_schema`] read.
///
/// # Errors
/// `BatchTooLarge` beyond a limit, `UnsupportedType` for a schema with types that telemetry may
/// not have, else `MalformedBatch`. Whatever the bytes are, it does not panic, and allocates at
/// most [`DECODE_MEMORY_MAX`](crate::limits::DECODE_MEMORY_MAX) with [`DecodeLimits::WIRE`].
pub fn decode_batch(
    schema: &SchemaRef,
    message: &Bytes,
    limits: &DecodeLimits,
) -> Result<RecordBatch, BatchRefusal> {
    let plan = SchemaPlan::without_dictionaries(schema)?;
    decode_with(
        &plan,
        &Dictionaries::default(),
        message,
        limits,
        &mut Decompressor::default(),
    )
}

/// As [`decode_batch`], for a message that was compressed as a whole, its lengths included.
///
/// # Errors
/// As [`decode_batch`].
pub fn decode_compressed_batch(
    schema: &SchemaRef,
    message: &[u8],
    limits: &DecodeLimits,
) -> Result<RecordBatch, BatchRefusal> {
    let plan = SchemaPlan::without_dictionaries(schema)?;
    let mut decompressor = Decompressor::default();
    let message = whole::decompress(message, limits, &mut decompressor)?;
    decode_with(
        &plan,
        &Dictionaries::default(),
        &message,
        &whole::inside(limits),
        &mut decompressor,
    )
}
