//! The wire protocol `quiver/1` without sockets: bytes go in (`handle_*`), events and bytes come
//! out (`poll_*`). `docs/protocol.md` is its specification for people.
//!
//! ```text
//! control QUIC stream    bytes ⇄ ControlDecoder ⇄ ServerConversation / ClientConversation ⇄ events
//! telemetry QUIC stream  bytes ─▶ TelemetryDecoder: OpenStream ─▶ frames ─▶ guard ─▶ RecordBatch
//!                        bytes ◀─ encode_open, BatchEncoder ◀─ RecordBatch
//! log replay             bytes ─▶ decode_schema, decode_batch, decode_compact_batch ─▶ RecordBatch
//! ```
//!
//! - [`limits`]: every limit of the conversation.
//! - [`message`]: the protobuf messages; [`control`]: how they are framed.
//! - [`codes`]: numbers that both sides agree on.
//! - [`conversation`]: the control stream as state machines.
//! - [`telemetry`]: a telemetry QUIC stream, both ways.
//! - [`ipc`]: Arrow IPC from an untrusted peer.
//!
//! Promises: no input makes this crate panic, read out of bounds, or allocate more than
//! [`limits::DECODE_MEMORY_MAX`] for a message; it does no I/O, reads no clock, spawns nothing.

//!
//! A batch from one side to the other:
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
//! use quiver_model::{Producer, Sequence, StreamName};
//! use quiver_protocol::{BatchEncoder, Compression, OpenStream, TelemetryDecoder, TelemetryEvent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let batch = RecordBatch::try_from_iter([
//!     ("ts", Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000])) as ArrayRef),
//!     ("coolant_temp", Arc::new(Float64Array::from(vec![81.5]))),
//! ])?;
//!
//! // The client writes these bytes to a unidirectional QUIC stream …
//! let mut encoder = BatchEncoder::new(&batch.schema(), Compression::Zstd)?;
//! let open = OpenStream::new(StreamName::new("readings")?, Producer(42), Sequence(0));
//! let sent = [open.encode(), encoder.schema_message()?, encoder.encode(&batch)?];
//!
//! // … and the server gets them, in pieces of any size.
//! let mut decoder = TelemetryDecoder::default();
//! let mut rows = 0;
//! for bytes in sent {
//!     decoder.handle_bytes(bytes);
//!     while let Some(event) = decoder.poll_event() {
//!         if let TelemetryEvent::Batch(received) = event {
//!             assert_eq!(received.sequence, Sequence(0));
//!             rows += received.batch.num_rows();
//!         }
//!     }
//! }
//! assert_eq!(rows, 1);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod codes;
mod compact;
pub mod control;
pub mod conversation;
pub mod ipc;
pub mod limits;
pub mod message;
pub mod telemetry;

pub use codes::{AckLevel, ConnectionClose, ConnectionCloseCode, Encoding, StreamCloseCode};
pub use compact::{CompactPacker, decode_compact_batch};
pub use control::{ControlDecoder, ControlError, encode_message};
pub use conversation::{
    ClientConversation, ClientEvent, ClientHello, Credential, HelloReceived, PairState,
    ProducerStream, RefusedRowCount, Resumed, ResumedReject, ServerConversation, ServerEvent,
    ServerRules,
};
pub use ipc::{
    BatchEncoder, Compression, EncodeError, decode_batch, decode_compressed_batch, decode_schema,
    encode_self_contained, expanded_dictionary_bytes,
};
pub use limits::{ALPN, DecodeLimits, Limits, PROTOCOL_VERSION};
pub use telemetry::{
    OpenStream, StreamRefusal, TelemetryDecoder, TelemetryEvent, WireBatch, WireSchema,
};
