//! Where a payload ends: cuts a QUIC stream of the compact encoding, in which each payload has its
//! length in front as a varint. The first one is the schema message, each other one a batch.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::frames::{Buffered, Frame, FrameError};
use crate::{
    compact::LENGTH_BYTES_MAX,
    ipc::{MessageKind, PREFIX_BYTES},
    limits::DecodeLimits,
};

/// Cuts the stream.
#[derive(Debug, Default)]
pub(super) struct CompactFrames {
    /// The length so far: its bits, and how many bytes were read.
    begun: (usize, usize),
    /// The length of the payload that is being received.
    length: Option<usize>,
    bytes: Buffered,
    has_schema: bool,
}

impl CompactFrames {
    /// Bytes held of an incomplete payload and its length.
    pub(super) fn pending_bytes(&self) -> usize {
        self.begun.1 + self.bytes.len()
    }

    /// Bytes of the incomplete payload, once it has announced them.
    pub(super) fn announced_bytes(&self) -> usize {
        self.length.unwrap_or(0)
    }

    /// The next whole payload; `None` when `input` is used up.
    pub(super) fn poll(
        &mut self,
        input: &mut VecDeque<Bytes>,
        limits: &DecodeLimits,
    ) -> Result<Option<Frame>, FrameError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.read_length(input, limits)? {
                None => return Ok(None),
                Some(0) => {
                    self.begun = (0, 0);
                    return Ok(Some(Frame::End));
                }
                Some(length) => *self.length.insert(length),
            },
        };
        let whole = input
            .front_mut()
            .filter(|chunk| self.bytes.len() == 0 && chunk.len() >= length);
        let bytes = if let Some(chunk) = whole {
            // Most payloads are small and come whole: nothing is copied.
            let bytes = chunk.split_to(length);
            if chunk.is_empty() {
                input.pop_front();
            }
            bytes
        } else if self.bytes.fill(input, length) {
            std::mem::take(&mut self.bytes).into_bytes()
        } else {
            return Ok(None);
        };
        self.length = None;
        self.begun = (0, 0);
        let kind = match std::mem::replace(&mut self.has_schema, true) {
            true => MessageKind::RecordBatch,
            false => MessageKind::Schema,
        };
        // What is kept of a batch is made when it is decoded.
        let sent = Bytes::new();
        Ok(Some(Frame::Message { kind, bytes, sent }))
    }

    fn read_length(
        &mut self,
        input: &mut VecDeque<Bytes>,
        limits: &DecodeLimits,
    ) -> Result<Option<usize>, FrameError> {
        loop {
            let Some(chunk) = input.front_mut() else {
                return Ok(None);
            };
            let Some(byte) = chunk.first().copied() else {
                input.pop_front();
                continue;
            };
            chunk.advance(1);
            if chunk.is_empty() {
                input.pop_front();
            }
            let (bits, count) = &mut self.begun;
            *bits |= usize::from(byte & 0x7f) << (7 * *count);
            *count += 1;
            if byte < 0x80 {
                return self.check(limits).map(Some);
            }
            if *count == LENGTH_BYTES_MAX {
                return Err(FrameError::framing(format!(
                    "a length of the compact encoding is a varint of at most {LENGTH_BYTES_MAX} bytes"
                )));
            }
        }
    }

    fn check(&self, limits: &DecodeLimits) -> Result<usize, FrameError> {
        let length = self.begun.0;
        let (what, limit) = match self.has_schema {
            true => ("a compact batch", limits.body_bytes),
            false => ("a schema message", PREFIX_BYTES + limits.metadata_bytes),
        };
        if length > limit {
            return Err(FrameError::announced(what, length, limit));
        }
        Ok(length)
    }
}
