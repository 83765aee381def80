//! Values as 64 well-mixed bits, the same on every machine and in every version: states that were
//! saved hold them, so never change them.
//!
//! Whole numbers go through the finaliser of SplitMix64 (Steele, Lea and Flood, Fast Splittable
//! Pseudorandom Number Generators, 2014), which is one-to-one: different numbers have different
//! hashes. Bytes are folded eight at a time by it. It is no defence against somebody who chooses
//! values in order to be counted wrongly.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of 64 bits, such as a whole number's or a time's.
#[inline]
pub const fn bits(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(GOLDEN);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The hash of a whole number.
#[inline]
pub const fn whole(value: i64) -> u64 {
    bits(value.cast_unsigned())
}

/// The hash of a number. Equal numbers have one: 0 and −0, and all that are none count as equal.
#[inline]
pub fn number(value: f64) -> u64 {
    if value == 0.0 {
        bits(0)
    } else if value.is_nan() {
        bits(f64::NAN.to_bits())
    } else {
        bits(value.to_bits())
    }
}

/// The hash of bytes, such as a text's.
pub fn bytes(value: &[u8]) -> u64 {
    let mut hash = bits(value.len() as u64);
    let (words, rest) = value.as_chunks::<8>();
    for word in words {
        hash = bits(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    bits(hash ^ u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn hashes_never_change() {
        // Saved states depend on these values. The first are SplitMix64's own, with seed 0.
        assert_eq!(bits(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(bits(GOLDEN), 0x6e78_9e6a_a1b9_65f4);
        let found = [
            whole(-1),
            number(1.5),
            bytes(b""),
            bytes(b"truck_0"),
            bytes(b"a text of several words"),
        ];
        assert_eq!(found, PINNED, "{found:#x?}");
    }
    const PINNED: [u64; 5] = [
        0xe4d9_7177_1b65_2c20,
        0xd6da_b18e_1392_608a,
        0xa706_dd2f_4d19_7e6f,
        0xf167_1038_f19e_b0b5,
        0x62f9_deaa_dca6_6a82,
    ];

    #[test]
    fn equal_numbers_have_one_hash() {
        assert_eq!(number(0.0), number(-0.0));
        assert_eq!(number(f64::NAN), number(-f64::NAN));
        assert_ne!(number(1.0), number(-1.0));
    }

    #[test]
    fn every_bit_of_a_hash_turns_with_every_bit_of_the_value() {
        let texts: Vec<Vec<u8>> = (0..256)
            .map(|n: u32| format!("device-{n:05}").into())
            .collect();
        for bit in 0..12 * 8 {
            let mut turned = [0_u32; 64];
            for text in &texts {
                let mut other = text.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                let differ = bytes(text) ^ bytes(&other);
                (0..64).for_each(|at| turned[at] += (differ >> at & 1) as u32);
            }
            // Each about 128 times; five standard errors are 40.
            assert!(
                turned.iter().all(|count| (80..176).contains(count)),
                "{bit}: {turned:?}"
            );
        }
        let all: HashSet<u64> = texts.iter().map(|text| bytes(text)).collect();
        assert_eq!(all.len(), texts.len());
        assert_ne!(bytes(b"a"), bytes(b"a\0"));
    }
}
