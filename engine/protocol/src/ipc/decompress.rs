//! Decompression into buffers of exactly the declared size. The declared size is checked against
//! the budget before anything is allocated, and the codecs write into that buffer and nowhere
//! else: neither needs a window or block buffers of its own.

use arrow_buffer::{Buffer, MutableBuffer};
use bytes::Bytes;
use quiver_model::BatchRefusal;

use super::guard::{Codec, malformed, too_large};
use crate::limits::{DECOMPRESSION_RATIO_MAX, DecodeLimits, RATIO_FREE_BYTES};

/// Bytes before a compressed buffer: its size once decompressed, a little-endian i64.
const LENGTH_PREFIX_BYTES: usize = 8;
/// In place of a size: the bytes that follow are not compressed.
const NOT_COMPRESSED: i64 = -1;

/// How many bytes the buffers of one message may still take once decompressed.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    limit: usize,
    /// Decompressed bytes that the ratio rule allows for this body.
    ratio_limit: usize,
    inflated: usize,
}

impl Budget {
    pub(crate) fn new(limits: &DecodeLimits, body_bytes: usize) -> Self {
        Self {
            left: limits.decoded_bytes,
            limit: limits.decoded_bytes,
            ratio_limit: body_bytes
                .saturating_mul(DECOMPRESSION_RATIO_MAX)
                .max(RATIO_FREE_BYTES),
            inflated: 0,
        }
    }

    /// Takes `bytes` from what is left.
    pub(crate) fn take(&mut self, bytes: usize, column: &str) -> Result<(), BatchRefusal> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            too_large(
                &format!("bytes of the decoded batch, reached in column {column:?}"),
                "more",
                self.limit,
            )
        })?;
        Ok(())
    }

    fn inflate(&mut self, bytes: usize, column: &str) -> Result<(), BatchRefusal> {
        self.take(bytes, column)?;
        self.inflated += bytes;
        if self.inflated > self.ratio_limit {
            return Err(too_large(
                &format!(
                    "times its body that the batch decompresses to, reached in column {column:?}"
                ),
                "more",
                DECOMPRESSION_RATIO_MAX,
            ));
        }
        Ok(())
    }

    /// Bytes taken so far.
    pub(crate) fn used(&self) -> usize {
        self.limit - self.left
    }
}

/// Decompresses buffers; keeps what the codecs can use again.
#[derive(Default)]
pub(crate) struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressor")
    }
}

impl Decompressor {
    /// The content of a buffer that stands in the body as `raw`. Uncompressed bytes are shared,
    /// not copied.
    pub(crate) fn buffer(
        &mut self,
        codec: Codec,
        raw: Bytes,
        budget: &mut Budget,
        column: &str,
    ) -> Result<Buffer, BatchRefusal> {
        if codec == Codec::None || raw.is_empty() {
            budget.take(raw.len(), column)?;
            return Ok(Buffer::from(raw));
        }
        let Some((prefix, compressed)) = raw.split_first_chunk::<LENGTH_PREFIX_BYTES>() else {
            return Err(malformed(format!(
                "a compressed buffer of column {column:?} has {} bytes",
                raw.len()
            )));
        };
        let declared = i64::from_le_bytes(*prefix);
        if declared == NOT_COMPRESSED {
            budget.take(compressed.len(), column)?;
            return Ok(Buffer::from(raw.slice(LENGTH_PREFIX_BYTES..)));
        }
        let size = usize::try_from(declared).map_err(|_| {
            malformed(format!(
                "a buffer of column {column:?} declares {declared} bytes"
            ))
        })?;
        budget.inflate(size, column)?;
        // Aligned as the widest values are, and not as vector registers: that takes an allocator
        // several times as long.
        let mut out = MutableBuffer::from(vec![0_u64; size.div_ceil(size_of::<u64>())]);
        out.truncate(size);
        let written = match codec {
            Codec::Lz4Frame => lz4_frame(compressed, out.as_slice_mut()),
            Codec::Zstd => self.zstd(compressed, out.as_slice_mut()),
            Codec::None => Ok(0),
        }
        .map_err(|detail| {
            malformed(format!(
                "a buffer of column {column:?} does not decompress: {detail}"
            ))
        })?;
        if written != size {
            return Err(malformed(format!(
                "a buffer of column {column:?} declares {size} bytes and decompresses to {written}"
            )));
        }
        Ok(out.into())
    }

    /// One call writes straight into `out`; nothing beyond its end.
    pub(super) fn zstd(&mut self, compressed: &[u8], out: &mut [u8]) -> Result<usize, String> {
        if self.zstd.is_none() {
            self.zstd = Some(zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?);
        }
        let Some(zstd) = &mut self.zstd else {
            return Ok(0);
        };
        zstd.decompress_to_buffer(compressed, out)
            .map_err(|error| error.to_string())
    }
}

/// Decompresses one LZ4 frame (lz4 Frame Format 1.6) into `out` and returns how much was written.
///
/// lz4_flex's own frame reader allocates blocks of up to 8 MB by a byte of the header; this one
/// decodes block by block into `out`, with what is already there as the dictionary of linked
/// blocks. Checksums are skipped: QUIC and the log have their own.
fn lz4_frame(frame: &[u8], out: &mut [u8]) -> Result<usize, String> {
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    const UNCOMPRESSED: u32 = 0x8000_0000;
    const WINDOW: usize = 64 * 1024;

    let mut input = frame;
    if take(&mut input, 4)? != MAGIC {
        return Err("no LZ4 frame magic".to_owned());
    }
    let flags = take(&mut input, 1)?.first().copied().unwrap_or(0);
    let _block_size = take(&mut input, 1)?;
    if flags & 0b1100_0000 != 0b0100_0000 {
        return Err("unknown LZ4 frame version".to_owned());
    }
    if flags & 0b0000_0001 != 0 {
        return Err("LZ4 frames with a dictionary are not supported".to_owned());
    }
    let linked = flags & 0b0010_0000 == 0;
    let block_checksum = if flags & 0b0001_0000 == 0 { 0 } else { 4 };
    let content_size = if flags & 0b0000_1000 == 0 { 0 } else { 8 };
    let content_checksum = if flags & 0b0000_0100 == 0 { 0 } else { 4 };
    take(&mut input, content_size + 1)?;

    let mut written = 0;
    loop {
        let size = match take(&mut input, 4)? {
            [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
            _ => 0,
        };
        if size == 0 {
            take(&mut input, content_checksum)?;
            return if input.is_empty() {
                Ok(written)
            } else {
                Err(format!("{} bytes follow the LZ4 frame", input.len()))
            };
        }
        let block = take(&mut input, (size & !UNCOMPRESSED) as usize)?;
        take(&mut input, block_checksum)?;
        let (done, free) = out.split_at_mut(written);
        written += if size & UNCOMPRESSED != 0 {
            let free = free
                .get_mut(..block.len())
                .ok_or("more bytes than declared")?;
            free.copy_from_slice(block);
            block.len()
        } else {
            let window = if linked {
                done.get(done.len().saturating_sub(WINDOW)..)
                    .unwrap_or_default()
            } else {
                &[]
            };
            lz4_flex::block::decompress_into_with_dict(block, free, window)
                .map_err(|error| error.to_string())?
        };
    }
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = input
        .split_at_checked(count)
        .ok_or("the LZ4 frame is cut off")?;
    *input = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use proptest::prelude::*;

    use super::*;

    fn frame(content: &[u8], info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(frame: &[u8], size: usize) -> Result<Vec<u8>, String> {
        let mut out = vec![0xaa; size];
        lz4_frame(frame, &mut out).map(|written| out[..written].to_vec())
    }

    /// Text that compresses, longer than several blocks and than the window.
    fn content(length: usize) -> Vec<u8> {
        (0_u32..)
            .flat_map(|number| (number.wrapping_mul(number) % 9_973).to_le_bytes())
            .take(length)
            .collect()
    }

    #[test]
    fn lz4_frames_with_every_option_read_back() {
        for length in [0, 1, 100, 65_536, 65_537, 300_000] {
            let content = content(length);
            for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
                for block_mode in [BlockMode::Independent, BlockMode::Linked] {
                    for flags in 0..8_u8 {
                        let info = FrameInfo::new()
                            .block_size(block_size)
                            .block_mode(block_mode)
                            .block_checksums(flags & 1 != 0)
                            .content_checksum(flags & 2 != 0)
                            .content_size((flags & 4 != 0).then_some(length as u64));
                        let frame = frame(&content, info);
                        assert_eq!(
                            read(&frame, length).as_deref(),
                            Ok(&*content),
                            "{length} {flags}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_writes_no_more_than_was_declared_and_must_be_whole() {
        let content = content(100_000);
        let frame = frame(&content, FrameInfo::new().block_mode(BlockMode::Linked));
        assert!(read(&frame, content.len() - 1).is_err());
        assert!(read(&frame, 0).is_err());
        for cut in 0..frame.len() {
            assert!(read(&frame[..cut], content.len()).is_err(), "cut at {cut}");
            if cut > 64 {
                break;
            }
        }
        assert!(read(&frame[..frame.len() - 1], content.len()).is_err());
        assert!(read(&[&frame[..], &[0]].concat(), content.len()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn no_bytes_make_the_frame_reader_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            is_frame in any::<bool>(),
            size in 0_usize..5000,
        ) {
            if is_frame {
                bytes.splice(0..0, [0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0x00]);
            }
            let _ = read(&bytes, size);
        }
    }
}
