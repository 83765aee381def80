//! Framing of the control stream: each message is a protobuf, preceded by its length as a varint.
//!
//! The decoder takes bytes as they come, in pieces of any size, and holds at most one incomplete
//! message. A length over the limit is refused when it is read, before anything is buffered for it.

use std::{collections::VecDeque, marker::PhantomData};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use crate::limits::CONTROL_MESSAGE_BYTES_MAX;

/// Longest varint of a length: 64 KiB fits three bytes; four and five are read so that an
/// oversized length is reported as such.
const LENGTH_BYTES_MAX: usize = 5;

/// Why a control stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The length prefix is longer than any allowed length needs.
    #[error(
        "the length prefix of a message is longer than {LENGTH_BYTES_MAX} bytes; write it as a protobuf varint"
    )]
    LengthPrefix,
    /// The message is longer than the limit.
    #[error("a message of {length} bytes was announced; at most {limit} are allowed")]
    TooLong {
        /// Its announced length, in bytes.
        length: u64,
        /// The longest allowed, in bytes.
        limit: usize,
    },
    /// The message is no protobuf of the expected type.
    #[error("a message of {length} bytes is not valid protobuf: {detail}")]
    Protobuf {
        /// Its length, in bytes.
        length: usize,
        /// What the protobuf decoder says.
        detail: String,
    },
    /// The stream ended inside a message.
    #[error("the control stream ended inside a message")]
    Truncated,
}

/// Reads length-prefixed messages of type `M`.
#[derive(Debug)]
pub struct ControlDecoder<M> {
    input: VecDeque<Bytes>,
    prefix: u64,
    prefix_bytes: usize,
    /// Length of the message being collected, once its prefix is complete.
    length: Option<usize>,
    collected: BytesMut,
    limit: usize,
    failed: Option<ControlError>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Default for ControlDecoder<M> {
    fn default() -> Self {
        Self::new(CONTROL_MESSAGE_BYTES_MAX)
    }
}

impl<M: Message + Default> ControlDecoder<M> {
    /// A decoder that refuses messages of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            input: VecDeque::new(),
            prefix: 0,
            prefix_bytes: 0,
            length: None,
            collected: BytesMut::new(),
            limit,
            failed: None,
            message: PhantomData,
        }
    }

    /// Takes the next bytes of the stream. To keep memory bounded, poll until `None` in between.
    pub fn handle_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.input.push_back(bytes);
        }
    }

    /// The next whole message; `None` when more bytes are needed. An error is final and repeats.
    pub fn poll_message(&mut self) -> Result<Option<M>, ControlError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.read()
            .inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Whether the stream may end here: all bytes were parts of whole messages.
    pub fn is_at_boundary(&self) -> bool {
        self.prefix_bytes == 0
            && self.length.is_none()
            && self.input.is_empty()
            && self.failed.is_none()
    }

    /// Bytes held that are not part of a message yet.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.prefix_bytes + self.collected.len() + self.input.iter().map(Bytes::len).sum::<usize>()
    }

    /// What is left of the input; for what follows a single message on a telemetry QUIC stream.
    pub(crate) fn take_rest(&mut self) -> VecDeque<Bytes> {
        std::mem::take(&mut self.input)
    }

    fn read(&mut self) -> Result<Option<M>, ControlError> {
        while self.length.is_none() {
            let Some(byte) = self.next_byte() else {
                return Ok(None);
            };
            self.prefix |= u64::from(byte & 0x7f) << (7 * self.prefix_bytes);
            self.prefix_bytes += 1;
            if byte & 0x80 == 0 {
                self.length = Some(self.checked_length()?);
            } else if self.prefix_bytes == LENGTH_BYTES_MAX {
                return Err(ControlError::LengthPrefix);
            }
        }
        let length = self.length.unwrap_or(0);
        while self.collected.len() < length {
            let Some(chunk) = self.input.front_mut() else {
                return Ok(None);
            };
            let take = chunk.len().min(length - self.collected.len());
            self.collected.extend_from_slice(&chunk.split_to(take));
            if chunk.is_empty() {
                self.input.pop_front();
            }
        }
        let whole = self.collected.split_to(length).freeze();
        (self.length, self.prefix, self.prefix_bytes) = (None, 0, 0);
        M::decode(whole)
            .map(Some)
            .map_err(|error| ControlError::Protobuf {
                length,
                detail: error.to_string(),
            })
    }

    fn checked_length(&self) -> Result<usize, ControlError> {
        usize::try_from(self.prefix)
            .ok()
            .filter(|length| *length <= self.limit)
            .ok_or(ControlError::TooLong {
                length: self.prefix,
                limit: self.limit,
            })
    }

    fn next_byte(&mut self) -> Option<u8> {
        let chunk = self.input.front_mut()?;
        let byte = chunk.get_u8();
        if chunk.is_empty() {
            self.input.pop_front();
        }
        Some(byte)
    }
}

/// `message` with its length in front, as it goes on the control stream.
pub fn encode_message(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_length_delimited_to_vec())
}
