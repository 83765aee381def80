//! One telemetry QUIC stream: an `OpenStream`, then an Arrow IPC stream, its messages compressed one
//! by one, or payloads of the compact encoding.
//!
//! ```text
//! bytes ─▶ OpenStream ─▶ Frames (where does a message end?) ─▶ schema | dictionary | record batch ─▶ events
//! ```
//!
//! Three kinds of trouble are kept apart:
//! - A batch that is wrong while its end is known: [`TelemetryEvent::BadBatch`]; it consumes its
//!   sequence, and the QUIC stream goes on. (Not in the compact encoding, where the batches behind it
//!   refer to it: there it ends the QUIC stream.)
//! - Bytes after which the next message cannot be found, or that are more than allowed:
//!   [`TelemetryEvent::Refused`], which is final. Whatever stands where batch n should begin and
//!   cannot be read as a message is batch n, and is rejected as such.
//! - The end of the QUIC stream inside a message: that batch was not sent. No reject.

mod compact;
mod compressed;
mod decoder;
mod frames;
mod open;

pub use decoder::{StreamRefusal, TelemetryDecoder, TelemetryEvent, WireBatch, WireSchema};
pub use open::OpenStream;
