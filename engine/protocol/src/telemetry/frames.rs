//! Where a message ends: cuts an Arrow IPC stream into encapsulated messages.
//!
//! Holds at most one incomplete message. Its lengths are checked when they are read, and memory is
//! taken as bytes arrive, not as they are announced.

use std::collections::VecDeque;

use bytes::Bytes;
use quiver_model::{BatchRefusal, RejectCode};

use crate::{
    codes::StreamCloseCode,
    ipc::{MessageKind, PREFIX_BYTES, describe},
    limits::{DICTIONARY_BYTES_MAX, DecodeLimits},
};

/// Memory taken for a message at first, in bytes; doubled as more arrives.
const FIRST_ALLOCATION: usize = 4 * 1024;

/// A piece of an Arrow IPC stream.
#[derive(Debug)]
pub(super) enum Frame {
    /// A whole encapsulated message.
    Message { kind: MessageKind, bytes: Bytes },
    /// The marker that ends an Arrow IPC stream.
    End,
}

/// Why a QUIC stream cannot be read on, and what becomes of the batch that should have been here.
#[derive(Clone, Debug)]
pub(super) struct FrameError {
    pub code: StreamCloseCode,
    pub refusal: BatchRefusal,
}

impl FrameError {
    pub(super) fn framing(message: impl Into<String>) -> Self {
        Self {
            code: StreamCloseCode::Framing,
            refusal: BatchRefusal::new(RejectCode::MalformedBatch, message),
        }
    }

    fn too_large(what: &str, size: usize, limit: usize) -> Self {
        Self {
            code: StreamCloseCode::TooLarge,
            refusal: BatchRefusal::new(
                RejectCode::BatchTooLarge,
                format!(
                    "{what} of {size} bytes was announced; at most {limit} are allowed: send smaller batches"
                ),
            ),
        }
    }
}

/// Cuts the stream.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The message so far.
    bytes: Vec<u8>,
    /// Where its metadata ends, once its prefix was read.
    metadata_end: Option<usize>,
    /// Its kind and where it ends, once its metadata was read.
    message: Option<(MessageKind, usize)>,
}

impl Frames {
    /// Bytes held of an incomplete message.
    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole piece; `None` when `input` is used up.
    pub(super) fn poll(
        &mut self,
        input: &mut VecDeque<Bytes>,
        limits: &DecodeLimits,
    ) -> Result<Option<Frame>, FrameError> {
        let metadata_end = match self.metadata_end {
            Some(end) => end,
            None => {
                if !self.fill(input, PREFIX_BYTES) {
                    // Judge the marker before eight bytes are there: a peer that writes another
                    // format would else wait for an answer.
                    return self.check_marker().map(|()| None);
                }
                match self.read_prefix(limits)? {
                    0 => {
                        *self = Self::default();
                        return Ok(Some(Frame::End));
                    }
                    length => *self.metadata_end.insert(PREFIX_BYTES + length),
                }
            }
        };
        let (kind, end) = match self.message {
            Some(message) => message,
            None => {
                if !self.fill(input, metadata_end) {
                    return Ok(None);
                }
                *self
                    .message
                    .insert(self.read_metadata(metadata_end, limits)?)
            }
        };
        if !self.fill(input, end) {
            return Ok(None);
        }
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        *self = Self::default();
        Ok(Some(Frame::Message { kind, bytes }))
    }

    /// Moves bytes from `input` until there are `target`; whether there are.
    fn fill(&mut self, input: &mut VecDeque<Bytes>, target: usize) -> bool {
        while self.bytes.len() < target {
            let Some(chunk) = input.front_mut() else {
                return false;
            };
            let take = chunk.len().min(target - self.bytes.len());
            let needed = self.bytes.len() + take;
            if needed > self.bytes.capacity() {
                let capacity = needed
                    .max(2 * self.bytes.capacity())
                    .max(FIRST_ALLOCATION)
                    .min(target.max(needed));
                self.bytes.reserve_exact(capacity - self.bytes.len());
            }
            self.bytes.extend_from_slice(&chunk.split_to(take));
            if chunk.is_empty() {
                input.pop_front();
            }
        }
        true
    }

    fn check_marker(&self) -> Result<(), FrameError> {
        if self.bytes.iter().take(4).all(|byte| *byte == 0xff) {
            return Ok(());
        }
        Err(FrameError::framing(
            "an Arrow IPC message must begin with FF FF FF FF; the framing of Arrow before 0.15 and the file format \
             are not supported",
        ))
    }

    fn read_prefix(&self, limits: &DecodeLimits) -> Result<usize, FrameError> {
        self.check_marker()?;
        let length = match self.bytes.get(4..8) {
            Some([a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]),
            _ => 0,
        };
        let length = usize::try_from(length).map_err(|_| {
            FrameError::framing(format!("the length of a message's metadata is {length}"))
        })?;
        if length > limits.metadata_bytes {
            return Err(FrameError::too_large(
                "message metadata",
                length,
                limits.metadata_bytes,
            ));
        }
        Ok(length)
    }

    fn read_metadata(
        &self,
        end: usize,
        limits: &DecodeLimits,
    ) -> Result<(MessageKind, usize), FrameError> {
        let metadata = self.bytes.get(PREFIX_BYTES..end).unwrap_or_default();
        let (kind, body_bytes) = describe(metadata, limits).map_err(|refusal| FrameError {
            code: StreamCloseCode::Framing,
            refusal,
        })?;
        let (what, limit) = match kind {
            MessageKind::Schema => ("a schema body", 0),
            MessageKind::Dictionary => ("a dictionary body", DICTIONARY_BYTES_MAX),
            MessageKind::RecordBatch => ("a batch body", limits.body_bytes),
            MessageKind::Other => {
                return Err(FrameError::framing(
                    "a message that is neither schema, dictionary nor record batch",
                ));
            }
        };
        if body_bytes > limit {
            return Err(FrameError::too_large(what, body_bytes, limit));
        }
        Ok((kind, end + body_bytes))
    }
}
