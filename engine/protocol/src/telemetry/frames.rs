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
    Message {
        kind: MessageKind,
        bytes: Bytes,
        /// The same as it was sent.
        sent: Bytes,
    },
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

    /// The end of the batch is known, and not what is in it.
    pub(super) fn of(refusal: BatchRefusal) -> Self {
        Self {
            code: StreamCloseCode::Framing,
            refusal,
        }
    }

    pub(super) fn too_large(refusal: BatchRefusal) -> Self {
        Self {
            code: StreamCloseCode::TooLarge,
            refusal,
        }
    }

    pub(super) fn announced(what: &str, size: usize, limit: usize) -> Self {
        Self::too_large(BatchRefusal::new(
            RejectCode::BatchTooLarge,
            format!(
                "{what} of {size} bytes was announced; at most {limit} are allowed: send smaller batches"
            ),
        ))
    }
}

/// Bytes of an incomplete message. Memory is taken as bytes arrive, not as they are announced.
#[derive(Debug, Default)]
pub(super) struct Buffered(Vec<u8>);

impl Buffered {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        self.0.get(range)
    }

    pub(super) fn first_chunk<const N: usize>(&self) -> Option<[u8; N]> {
        self.0.first_chunk().copied()
    }

    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from(self.0)
    }

    /// Moves bytes from `input` until there are `target`; whether there are.
    pub(super) fn fill(&mut self, input: &mut VecDeque<Bytes>, target: usize) -> bool {
        let bytes = &mut self.0;
        while bytes.len() < target {
            let Some(chunk) = input.front_mut() else {
                return false;
            };
            let take = chunk.len().min(target - bytes.len());
            let needed = bytes.len() + take;
            if needed > bytes.capacity() {
                let capacity = needed
                    .max(2 * bytes.capacity())
                    .max(FIRST_ALLOCATION)
                    .min(target.max(needed));
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&chunk.split_to(take));
            if chunk.is_empty() {
                input.pop_front();
            }
        }
        true
    }
}

/// Cuts the stream.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The message so far.
    bytes: Buffered,
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

    /// Bytes of the incomplete message, as far as it has announced them.
    pub(super) fn announced_bytes(&self) -> usize {
        let metadata_end = self.metadata_end.unwrap_or(0);
        self.message.map_or(metadata_end, |(_, end)| end)
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
                if !self.bytes.fill(input, PREFIX_BYTES) {
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
                if !self.bytes.fill(input, metadata_end) {
                    return Ok(None);
                }
                *self
                    .message
                    .insert(self.read_metadata(metadata_end, limits)?)
            }
        };
        if !self.bytes.fill(input, end) {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.bytes).into_bytes();
        *self = Self::default();
        let sent = bytes.clone();
        Ok(Some(Frame::Message { kind, bytes, sent }))
    }

    fn check_marker(&self) -> Result<(), FrameError> {
        let begun = self.bytes.get(0..self.bytes.len().min(4));
        if begun.unwrap_or_default().iter().all(|byte| *byte == 0xff) {
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
            return Err(FrameError::announced(
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
            return Err(FrameError::announced(what, body_bytes, limit));
        }
        Ok((kind, end + body_bytes))
    }
}
