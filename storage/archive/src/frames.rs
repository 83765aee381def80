//! Compressed pages: ZSTD frames, with bytes that nothing makes smaller stored as they are.
//!
//! ZSTD finds out by itself that bytes are noise, but it takes as long as copying them several
//! times. What is known to be noise (the packed places of values in a dictionary, the low bytes of
//! a measurement's mantissa) goes into raw blocks of the frame, which every decoder of ZSTD knows
//! (RFC 8878, 3.1.1.2).

use std::io;

use zstd::{bulk::Compressor, zstd_safe::compress_bound};

/// Begins every frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Describes a frame whose content is one segment with its size in four bytes.
const ONE_SEGMENT: u8 = 0b1010_0000;
/// Most bytes of a block.
const BLOCK_MAX: usize = 128 << 10;
/// Smaller content is not worth a look.
const NOISE_MIN: usize = 512;
/// Bytes of a stream that are looked at, in so many runs.
const SAMPLE_RUN: usize = 256;
const SAMPLE_RUNS: usize = 4;
/// Greatest chi-square of 256 counts that still counts as noise: for noise it is 255 ± 23, and more
/// than this once in ten million times.
const NOISE_CHI_SQUARE: u64 = 380;

/// Makes frames. Its memory is used again.
#[derive(Default)]
pub(crate) struct Frames {
    /// By level.
    compressors: Vec<(i32, Compressor<'static>)>,
    part: Vec<u8>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

impl Frames {
    /// Replaces `out` by a frame of `content`.
    pub(crate) fn compress(
        &mut self,
        content: &[u8],
        level: i32,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        out.clear();
        out.reserve(compress_bound(content.len()));
        self.compressor(level)?.compress_to_buffer(content, out)?;
        Ok(())
    }

    /// Replaces `out` by a frame of `content`, of which the first `noise` bytes are stored as they
    /// are.
    pub(crate) fn compress_behind(
        &mut self,
        content: &[u8],
        noise: usize,
        level: i32,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let (Some((noise, rest)), Ok(size)) = (
            content.split_at_checked(noise),
            u32::try_from(content.len()),
        ) else {
            return self.compress(content, level, out);
        };
        if rest.is_empty() {
            store(content, size, out);
            return Ok(());
        }
        let mut part = std::mem::take(&mut self.part);
        self.compress(rest, level, &mut part)?;
        // Its blocks stand by themselves: they refer to nothing before them, and the offsets that
        // a frame begins with are still those, as raw blocks change none.
        let blocks = blocks_of(&part);
        let spliced = blocks.map(|blocks| {
            begin(size, out);
            raw_blocks(noise, false, out);
            out.extend_from_slice(blocks);
        });
        self.part = part;
        match spliced {
            Some(()) => Ok(()),
            None => self.compress(content, level, out),
        }
    }

    fn compressor(&mut self, level: i32) -> io::Result<&mut Compressor<'static>> {
        let at = match self
            .compressors
            .iter()
            .position(|(known, _)| *known == level)
        {
            Some(at) => at,
            None => {
                self.compressors.push((level, Compressor::new(level)?));
                self.compressors.len() - 1
            }
        };
        let found = self.compressors.get_mut(at).map(|(_, found)| found);
        found.ok_or_else(|| io::Error::other("a ZSTD context is gone"))
    }
}

/// Replaces `out` by a frame that has `content`, of `size` bytes, as it is.
fn store(content: &[u8], size: u32, out: &mut Vec<u8>) {
    begin(size, out);
    raw_blocks(content, true, out);
}

fn begin(size: u32, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.push(ONE_SEGMENT);
    out.extend_from_slice(&size.to_le_bytes());
}

fn raw_blocks(content: &[u8], is_end: bool, out: &mut Vec<u8>) {
    let count = content.len().div_ceil(BLOCK_MAX).max(usize::from(is_end));
    for number in 0..count {
        let start = number * BLOCK_MAX;
        let block = &content[start..content.len().min(start + BLOCK_MAX)];
        let is_last = is_end && number + 1 == count;
        // Bits: last, type 0 (raw), size.
        let header = u32::from(is_last) | (block.len() as u32) << 3;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
}

/// The blocks of a frame; `None` if it has a checksum or a dictionary, which ours have not.
fn blocks_of(frame: &[u8]) -> Option<&[u8]> {
    let descriptor = *frame.strip_prefix(&MAGIC)?.first()?;
    let is_one_segment = descriptor & 0b10_0000 != 0;
    if descriptor & 0b111 != 0 {
        return None;
    }
    let window = usize::from(!is_one_segment);
    let size = match descriptor >> 6 {
        0 => usize::from(is_one_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    frame.get(MAGIC.len() + 1 + window + size..)
}

/// Whether bytes look as if nothing made them smaller: each value as often as any other.
pub(crate) fn is_noise(bytes: &[u8]) -> bool {
    if bytes.len() < NOISE_MIN {
        return false;
    }
    let mut counts = [0_u64; 256];
    let mut total = 0;
    for run in 0..SAMPLE_RUNS {
        let start = run * bytes.len() / SAMPLE_RUNS;
        for byte in bytes.iter().skip(start).take(SAMPLE_RUN) {
            counts[usize::from(*byte)] += 1;
            total += 1;
        }
    }
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    // Sum of (count - total / 256)² / (total / 256).
    256 * squares / total < total + NOISE_CHI_SQUARE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(count)
        .collect()
    }

    #[test]
    fn frames_come_back_whatever_part_of_them_is_stored() {
        let mut frames = Frames::default();
        let mut out = Vec::new();
        for (raw, text) in [
            (0, 0),
            (0, 1),
            (1, 0),
            (300, 9),
            (BLOCK_MAX, 300),
            (BLOCK_MAX + 1, 200_000),
            (400_000, 0),
            (5, 300_000),
        ] {
            let mut content = noise(raw);
            content.extend((0..text).map(|at| b"temperature "[at * at % 12]));
            for level in [1, 3] {
                frames
                    .compress_behind(&content, raw, level, &mut out)
                    .unwrap();
                assert_eq!(
                    zstd::bulk::decompress(&out, content.len()).unwrap(),
                    content
                );
                // As readers decode it that do not know the size.
                assert_eq!(zstd::stream::decode_all(out.as_slice()).unwrap(), content);
                assert!(
                    out.len() <= raw + text / 2 + 64,
                    "{raw} {text} {}",
                    out.len()
                );
                frames.compress(&content, level, &mut out).unwrap();
                assert_eq!(
                    zstd::bulk::decompress(&out, content.len()).unwrap(),
                    content
                );
            }
        }
    }

    #[test]
    fn noise_is_told_from_what_can_be_made_smaller() {
        assert!(is_noise(&noise(10_000)));
        assert!(!is_noise(&noise(100)));
        let skewed: Vec<u8> = noise(10_000).iter().map(|byte| byte & 0x7f).collect();
        assert!(!is_noise(&skewed));
        assert!(!is_noise(&[7; 10_000]));
    }
}
