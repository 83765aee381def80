//! Integers in few bits, as Parquet has them: bit-packed, in runs (RLE), and as deltas
//! (DELTA_BINARY_PACKED). The format: `Encodings.md` of apache/parquet-format.

/// Equal values from which a run is written instead of their bits: shorter ones take more.
const RUN_MIN: usize = 8;
/// Deltas of a block, which has one least delta, and of its four parts, which have a width each.
const BLOCK: usize = 256;
const PART: usize = 64;

/// Bits that `value` takes.
pub(crate) fn width_of(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Appends the lowest `width` bits of each value, the lowest first, and fills up the last byte.
fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let (mut word, mut filled) = (0_u64, 0);
    for value in values {
        word |= value << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= u64::BITS;
            word = if filled == 0 {
                0
            } else {
                value >> (width - filled)
            };
        }
    }
    let rest = word.to_le_bytes();
    out.extend(rest.iter().take(filled.div_ceil(8) as usize));
}

/// An unsigned number of seven bits a byte, the lowest first.
fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A signed number as [`varint`], small whatever its sign.
fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

/// Appends numbers below 2^`width` as runs of equal ones and bit-packed ones between them.
pub(crate) fn hybrid(values: &[u32], width: u32, out: &mut Vec<u8>) {
    // From here on nothing is written yet; always a multiple of eight values before `at`.
    let mut start = 0;
    let mut at = 0;
    while let Some(group) = values.get(at..at + RUN_MIN) {
        let first = group[0];
        if group.iter().any(|value| *value != first) {
            at += RUN_MIN;
            continue;
        }
        let more = values[at + RUN_MIN..].iter();
        let end = at + RUN_MIN + more.take_while(|value| **value == first).count();
        packed_run(&values[start..at], width, out);
        equal_run(first, end - at, width, out);
        (start, at) = (end, end);
    }
    packed_run(&values[start..], width, out);
}

/// Appends `count` times the same number below 2^`width`.
pub(crate) fn equal_run(value: u32, count: usize, width: u32, out: &mut Vec<u8>) {
    if count > 0 {
        varint((count as u64) << 1, out);
        let bytes = value.to_le_bytes();
        out.extend(bytes.iter().take(width.div_ceil(8) as usize));
    }
}

/// Appends numbers below 2^`width` in groups of eight; what the last one lacks is zero.
fn packed_run(values: &[u32], width: u32, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    varint(((groups as u64) << 1) | 1, out);
    let padded = std::iter::repeat_n(0, groups * 8 - values.len());
    let values = values.iter().map(|value| u64::from(*value));
    out.reserve(groups * width as usize);
    pack(values.chain(padded), width, out);
}

/// Appends definition levels, which are 0 or 1, with their length: whether each row has a value.
/// `present` is empty if every row has.
pub(crate) fn levels(present: &[bool], rows: usize, out: &mut Vec<u8>) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    if present.is_empty() {
        equal_run(1, rows, 1, out);
    } else if present.iter().all(|is_present| !is_present) {
        equal_run(0, rows, 1, out);
    } else {
        let levels: Vec<u32> = present.iter().copied().map(u32::from).collect();
        hybrid(&levels, 1, out);
    }
    let length = u32::try_from(out.len() - length_at - 4).unwrap_or(0);
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends 64-bit integers as DELTA_BINARY_PACKED. Differences wrap around, as they do when read.
pub(crate) fn deltas(values: &[u64], out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint((BLOCK / PART) as u64, out);
    varint(values.len() as u64, out);
    let (first, rest) = match values.split_first() {
        Some((first, rest)) => (*first, rest),
        None => (0, values),
    };
    zigzag(first.cast_signed(), out);
    let mut last = first;
    let mut block = [0_i64; BLOCK];
    for values in rest.chunks(BLOCK) {
        let deltas = &mut block[..values.len()];
        for (delta, value) in deltas.iter_mut().zip(values) {
            *delta = value.wrapping_sub(last).cast_signed();
            last = *value;
        }
        let least = deltas.iter().copied().min().unwrap_or(0);
        zigzag(least, out);
        let widths_at = out.len();
        out.extend_from_slice(&[0; BLOCK / PART]);
        for (number, part) in deltas.chunks(PART).enumerate() {
            let above = |delta: &i64| delta.wrapping_sub(least).cast_unsigned();
            let bits = part.iter().fold(0, |bits, delta| bits | above(delta));
            let width = width_of(bits);
            out[widths_at + number] = width as u8;
            let padded = std::iter::repeat_n(0, PART - part.len());
            pack(part.iter().map(above).chain(padded), width, out);
        }
    }
}

/// Appends 64-bit values as BYTE_STREAM_SPLIT: the first byte of each, then the second of each, …
pub(crate) fn split_bytes(values: &[u64], out: &mut Vec<u8>) {
    let count = values.len();
    if count == 0 {
        return;
    }
    let start = out.len();
    out.resize(start + size_of_val(values), 0);
    let mut streams: Vec<&mut [u8]> = out[start..].chunks_exact_mut(count).collect();
    let (blocks, rest) = values.as_chunks::<8>();
    for (number, block) in blocks.iter().enumerate() {
        let at = number * 8;
        for (stream, bytes) in streams.iter_mut().zip(transposed(*block)) {
            stream[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
        }
    }
    for (at, value) in (count - rest.len()..).zip(rest) {
        for (stream, byte) in streams.iter_mut().zip(value.to_le_bytes()) {
            stream[at] = byte;
        }
    }
}

/// The matrix of bytes that eight values are, with rows and columns exchanged: halves, quarters and
/// bytes change places.
fn transposed(mut rows: [u64; 8]) -> [u64; 8] {
    for (apart, mask) in [
        (4, 0x0000_0000_ffff_ffff_u64),
        (2, 0x0000_ffff_0000_ffff),
        (1, 0x00ff_00ff_00ff_00ff),
    ] {
        let bits = 8 * apart;
        for low in (0..8).filter(|row| row & apart == 0) {
            let high = low + apart;
            let differ = ((rows[low] >> bits) ^ rows[high]) & mask;
            rows[low] ^= differ << bits;
            rows[high] ^= differ;
        }
    }
    rows
}

#[cfg(test)]
#[path = "packing_tests.rs"]
mod tests;
