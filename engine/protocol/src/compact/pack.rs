//! From messages that stand alone to those of one QUIC stream.

use bytes::Bytes;
use quiver_model::BatchRefusal;

use super::{decode::CompactDecoder, encode::CompactEncoder, payload_of, with_length};
use crate::{
    ipc::{malformed, read_schema},
    limits::DecodeLimits,
};

/// Makes the messages of one QUIC stream from messages that stand alone, as
/// [`BatchEncoder`](crate::BatchEncoder) writes them: each batch stays the same, row by row and bit
/// by bit, and is written as what changed since the one before.
#[derive(Debug)]
pub struct CompactPacker {
    decoder: CompactDecoder,
    encoder: CompactEncoder,
}

impl CompactPacker {
    /// For a QUIC stream that begins with this schema message (which is sent as it is).
    ///
    /// # Errors
    /// If it is no schema message of the compact encoding.
    pub fn new(schema_message: &[u8]) -> Result<Self, BatchRefusal> {
        let message = payload_of(schema_message)
            .ok_or_else(|| malformed("not one whole message of the compact encoding"))?;
        let plan = read_schema(&Bytes::copy_from_slice(message), &DecodeLimits::STORED)?;
        let decoder = CompactDecoder::new(&plan.schema)?;
        let encoder = CompactEncoder::new(&plan.schema)
            .ok_or_else(|| malformed("a column has a type that telemetry may not have"))?;
        Ok(Self { decoder, encoder })
    }

    /// The message to send next in place of one that stands alone.
    ///
    /// # Errors
    /// If `message` is none of this schema. It may be sent as it is: one that stands alone can be
    /// sent at any time, and the next one that is packed begins anew.
    pub fn pack(&mut self, message: &[u8]) -> Result<Bytes, BatchRefusal> {
        let packed = payload_of(message)
            .ok_or_else(|| malformed("not one whole message of the compact encoding"))
            .and_then(|payload| self.decoder.decode(payload, &DecodeLimits::STORED, false));
        match packed {
            Ok(decoded) => {
                let mut payload = Vec::with_capacity(message.len());
                let batch = decoded.batch;
                let columns = batch.columns();
                self.encoder
                    .encode(columns, batch.num_rows(), false, &mut payload);
                Ok(with_length(&payload))
            }
            Err(refusal) => {
                self.encoder.restart();
                Err(refusal)
            }
        }
    }
}
