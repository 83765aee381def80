//! Messages that are compressed as a whole: one codec call a message instead of one a buffer, which
//! is what small batches want, and metadata and buffers share their repetitions.
//!
//! ```text
//! u32 compressed length C │ u32 raw length R │ C bytes: one zstd frame ─▶ R bytes: one encapsulated message
//! ```
//!
//! Both lengths are little-endian. R is checked before anything is allocated for it, and the codec
//! writes into exactly R bytes.

use bytes::{BufMut, Bytes, BytesMut};
use quiver_model::BatchRefusal;

use super::{
    decompress::Decompressor,
    guard::{PREFIX_BYTES, malformed, too_large},
};
use crate::limits::{DECOMPRESSION_RATIO_MAX, DecodeLimits, RATIO_FREE_BYTES};

/// Bytes before the zstd frame.
pub(crate) const LENGTHS_BYTES: usize = 8;
/// Lengths of zero end the stream of messages.
pub const END_OF_COMPRESSED_STREAM: [u8; LENGTHS_BYTES] = [0; LENGTHS_BYTES];
/// zstd's fastest ordinary level: what is left to gain above it costs several times as much.
const LEVEL: i32 = 1;

/// What a compressed message announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Bytes of the zstd frame.
    pub compressed: usize,
    /// Bytes of the message.
    pub raw: usize,
}

impl Lengths {
    pub(crate) fn read(prefix: [u8; LENGTHS_BYTES]) -> Self {
        let [c0, c1, c2, c3, r0, r1, r2, r3] = prefix;
        Self {
            compressed: u32::from_le_bytes([c0, c1, c2, c3]) as usize,
            raw: u32::from_le_bytes([r0, r1, r2, r3]) as usize,
        }
    }

    pub(crate) fn is_end(self) -> bool {
        self.compressed == 0 && self.raw == 0
    }

    /// Refuses lengths beyond the limits, on their announcement alone.
    pub(crate) fn check(self, limits: &DecodeLimits) -> Result<(), BatchRefusal> {
        let compressed_max = limits.metadata_bytes + limits.body_bytes;
        if self.compressed > compressed_max {
            return Err(too_large(
                "bytes of a compressed message",
                self.compressed,
                compressed_max,
            ));
        }
        let raw_max = PREFIX_BYTES + limits.metadata_bytes + limits.decoded_bytes;
        if self.raw > raw_max {
            return Err(too_large(
                "bytes of a message once decompressed",
                self.raw,
                raw_max,
            ));
        }
        let ratio_max =
            (self.compressed.saturating_mul(DECOMPRESSION_RATIO_MAX)).max(RATIO_FREE_BYTES);
        if self.raw > ratio_max {
            return Err(too_large(
                "times its compressed size that a message decompresses to",
                "more",
                DECOMPRESSION_RATIO_MAX,
            ));
        }
        Ok(())
    }
}

/// Limits of the message inside: its body is as large as the batch decoded.
pub(crate) fn inside(limits: &DecodeLimits) -> DecodeLimits {
    DecodeLimits {
        body_bytes: limits.decoded_bytes,
        ..*limits
    }
}

/// Compresses an encapsulated message.
pub(crate) fn compress(message: &[u8]) -> std::io::Result<Bytes> {
    let compressed = zstd::bulk::compress(message, LEVEL)?;
    let mut out = BytesMut::with_capacity(LENGTHS_BYTES + compressed.len());
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(std::io::Error::other);
    out.put_u32_le(length(&compressed)?);
    out.put_u32_le(length(message)?);
    out.extend_from_slice(&compressed);
    Ok(out.freeze())
}

/// The encapsulated message in a compressed one, lengths included.
pub(crate) fn decompress(
    bytes: &[u8],
    limits: &DecodeLimits,
    decompressor: &mut Decompressor,
) -> Result<Bytes, BatchRefusal> {
    let Some((prefix, frame)) = bytes.split_first_chunk::<LENGTHS_BYTES>() else {
        return Err(malformed(format!(
            "{} bytes are no compressed message",
            bytes.len()
        )));
    };
    let lengths = Lengths::read(*prefix);
    lengths.check(limits)?;
    if lengths.compressed != frame.len() {
        return Err(malformed(format!(
            "a compressed message announces {} bytes and has {}",
            lengths.compressed,
            frame.len()
        )));
    }
    let mut out = vec![0; lengths.raw];
    let written = decompressor.zstd(frame, &mut out).map_err(|detail| {
        malformed(format!(
            "a compressed message does not decompress: {detail}"
        ))
    })?;
    if written != lengths.raw {
        return Err(malformed(format!(
            "a compressed message announces {} bytes and decompresses to {written}",
            lengths.raw
        )));
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Bytes, BatchRefusal> {
        decompress(bytes, &DecodeLimits::WIRE, &mut Decompressor::default())
    }

    #[test]
    fn a_message_comes_back_and_lengths_that_lie_are_refused() {
        let message: Vec<u8> = (0..50_000_u32)
            .flat_map(|n| (n % 977).to_le_bytes())
            .collect();
        let whole = compress(&message).unwrap();
        assert_eq!(read(&whole).unwrap(), message);
        for raw in [
            0,
            message.len() as u32 - 1,
            message.len() as u32 + 1,
            u32::MAX,
        ] {
            let mut forged = whole.to_vec();
            forged[4..8].copy_from_slice(&raw.to_le_bytes());
            assert!(read(&forged).is_err(), "{raw}");
        }
        for cut in 0..whole.len().min(200) {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_announcement() {
        let message = vec![0; 16 << 20];
        let whole = compress(&message).unwrap();
        let refusal = read(&whole).unwrap_err();
        assert!(
            refusal.message.contains("times its compressed size"),
            "{refusal}"
        );
    }
}
