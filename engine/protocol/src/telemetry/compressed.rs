//! Where a compressed message ends: cuts a QUIC stream of messages that are compressed as a whole.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frames::{Buffered, Frame, FrameError};
use crate::{
    ipc::{
        Decompressor, PREFIX_BYTES, describe,
        whole::{LENGTHS_BYTES, Lengths, decompress, inside},
    },
    limits::DecodeLimits,
};

/// Cuts the stream. A message whose compression is broken ends it, like one that is no message.
#[derive(Debug, Default)]
pub(super) struct CompressedFrames {
    bytes: Buffered,
    lengths: Option<Lengths>,
}

impl CompressedFrames {
    /// Bytes held of an incomplete message.
    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the incomplete message and of what it decompresses to, once it has announced them.
    pub(super) fn announced_bytes(&self) -> usize {
        self.lengths
            .map_or(0, |lengths| lengths.compressed + lengths.raw)
    }

    /// The next whole piece; `None` when `input` is used up.
    pub(super) fn poll(
        &mut self,
        input: &mut VecDeque<Bytes>,
        limits: &DecodeLimits,
        decompressor: &mut Decompressor,
    ) -> Result<Option<Frame>, FrameError> {
        let lengths = match self.lengths {
            Some(lengths) => lengths,
            None => {
                if !self.bytes.fill(input, LENGTHS_BYTES) {
                    return Ok(None);
                }
                let prefix = self.bytes.first_chunk().unwrap_or_default();
                let lengths = Lengths::read(prefix);
                if lengths.is_end() {
                    *self = Self::default();
                    return Ok(Some(Frame::End));
                }
                lengths.check(limits).map_err(FrameError::too_large)?;
                *self.lengths.insert(lengths)
            }
        };
        if !self.bytes.fill(input, LENGTHS_BYTES + lengths.compressed) {
            return Ok(None);
        }
        let sent = std::mem::take(&mut self.bytes).into_bytes();
        self.lengths = None;
        let message = decompress(&sent, limits, decompressor).map_err(FrameError::of)?;
        let metadata_length = match message.get(4..PREFIX_BYTES) {
            Some([a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]),
            _ => -1,
        };
        let metadata = usize::try_from(metadata_length)
            .ok()
            .and_then(|length| message.get(PREFIX_BYTES..PREFIX_BYTES + length))
            .ok_or_else(|| {
                FrameError::framing("a compressed message holds no whole Arrow IPC message")
            })?;
        let (kind, body_bytes) = describe(metadata, &inside(limits)).map_err(FrameError::of)?;
        if PREFIX_BYTES + metadata.len() + body_bytes != message.len() {
            return Err(FrameError::framing(
                "a compressed message must hold exactly one Arrow IPC message",
            ));
        }
        Ok(Some(Frame::Message {
            kind,
            bytes: message,
            sent,
        }))
    }
}
