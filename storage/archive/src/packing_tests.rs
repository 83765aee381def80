use super::*;

/// Numbers that look random: splitmix64.
fn random(at: u64) -> u64 {
    let mut mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return value;
        }
    }
}

fn read_bits(bytes: &mut &[u8], count: usize, width: u32) -> Vec<u64> {
    let length = (count * width as usize).div_ceil(8);
    let (packed, rest) = bytes.split_at(length);
    *bytes = rest;
    let bit = |at: usize| u64::from(packed[at / 8] >> (at % 8) & 1);
    (0..count)
        .map(|index| {
            let start = index * width as usize;
            (0..width as usize).map(|at| bit(start + at) << at).sum()
        })
        .collect()
}

fn read_hybrid(mut bytes: &[u8], width: u32, count: usize) -> Vec<u32> {
    let mut values = Vec::new();
    while values.len() < count {
        let header = read_varint(&mut bytes);
        let number = (header >> 1) as usize;
        if header & 1 == 1 {
            let packed = read_bits(&mut bytes, number * 8, width);
            values.extend(packed.into_iter().map(|value| value as u32));
        } else {
            let value = read_bits(&mut bytes, 1, width.div_ceil(8) * 8)[0];
            values.extend(std::iter::repeat_n(value as u32, number));
        }
    }
    assert!(bytes.is_empty());
    values.truncate(count);
    values
}

#[test]
fn runs_and_packed_numbers_come_back() {
    for width in 0..=32 {
        let mask = ((1_u64 << width) - 1) as u32;
        for count in [0, 1, 7, 8, 9, 64, 1_003] {
            for run in [1, 3, 8, 9, 20, 500] {
                let values: Vec<u32> = (0..count)
                    .map(|at| random(at as u64 / run) as u32 & mask)
                    .collect();
                let mut out = Vec::new();
                hybrid(&values, width, &mut out);
                assert_eq!(
                    read_hybrid(&out, width, count),
                    values,
                    "{width} {count} {run}"
                );
            }
        }
    }
}

#[test]
fn long_runs_take_a_few_bytes() {
    let mut values = vec![5; 10_000];
    values.extend(vec![6; 10_000]);
    let mut out = Vec::new();
    hybrid(&values, 14, &mut out);
    assert!(out.len() <= 10, "{}", out.len());
}

#[test]
fn levels_come_back() {
    for rows in [1, 7, 8, 100, 20_480] {
        let mixed: Vec<bool> = (0..rows).map(|at| random(at as u64 / 5) & 1 == 1).collect();
        for present in [Vec::new(), mixed, vec![false; rows]] {
            let mut out = vec![9];
            levels(&present, rows, &mut out);
            let length = u32::from_le_bytes(out[1..5].try_into().unwrap());
            assert_eq!(length as usize, out.len() - 5);
            let expected: Vec<u32> = if present.is_empty() {
                vec![1; rows]
            } else {
                present.into_iter().map(u32::from).collect()
            };
            assert_eq!(read_hybrid(&out[5..], 1, rows), expected);
        }
    }
}

fn read_deltas(mut bytes: &[u8]) -> Vec<u64> {
    let block = read_varint(&mut bytes) as usize;
    let parts = read_varint(&mut bytes) as usize;
    let count = read_varint(&mut bytes) as usize;
    let signed = |zigzag: u64| (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
    let mut last = signed(read_varint(&mut bytes));
    let mut values = vec![last];
    while values.len() < count {
        let least = signed(read_varint(&mut bytes));
        let (widths, rest) = bytes.split_at(parts);
        bytes = rest;
        for width in widths {
            if values.len() >= count {
                assert_eq!(*width, 0);
            }
            for above in read_bits(&mut bytes, block / parts, u32::from(*width)) {
                last = last.wrapping_add(least).wrapping_add(above);
                values.push(last);
            }
        }
    }
    assert!(bytes.is_empty());
    values.truncate(count);
    values
}

#[test]
fn deltas_come_back_and_wrap_around() {
    let kinds: [fn(u64) -> u64; 4] = [
        |at| 1_700_000_000_000_000 + at * 10_000,
        random,
        |at| random(at) % 1_000,
        |at| [0, u64::MAX, 1 << 63, (1 << 63) - 1][at as usize % 4],
    ];
    for kind in kinds {
        for count in [0, 1, 2, 65, 256, 257, 1_000] {
            let values: Vec<u64> = (0..count).map(kind).collect();
            let mut out = Vec::new();
            deltas(&values, &mut out);
            let read = read_deltas(&out);
            assert_eq!(read[..values.len()], values);
        }
    }
}

#[test]
fn split_bytes_are_where_they_belong() {
    for count in [0, 1, 7, 8, 9, 100] {
        let values: Vec<u64> = (0..count).map(random).collect();
        let mut out = vec![1];
        split_bytes(&values, &mut out);
        assert_eq!(out.len(), 1 + 8 * values.len());
        for (index, value) in values.iter().enumerate() {
            for (stream, byte) in value.to_le_bytes().into_iter().enumerate() {
                assert_eq!(out[1 + stream * values.len() + index], byte);
            }
        }
    }
}
