use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal64Array, Float64Array, Int64Array};

use super::*;

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Numbers that look random: splitmix64.
fn random(at: u64) -> u64 {
    let mut mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const ROWS: u64 = 8_192;

#[test]
fn each_kind_of_values_gets_the_encoding_that_suits_it() {
    let noise = (0..ROWS).map(|at| 20.0 + (random(at) % (1 << 40)) as f64 / 1e9);
    let few = (0..ROWS).map(|at| (random(at) % 60) as f64 / 10.0);
    let steps = (0..ROWS as i64).map(|at| 1_700_000_000 + 10 * at);
    let codes = (0..ROWS).map(|at| [7, 1_000_003, -5][(random(at) % 3) as usize]);
    let decimals = (0..ROWS).map(|at| (at * 3 + random(at) % 9) as i64);
    let decimals = Decimal64Array::from_iter_values(decimals)
        .with_precision_and_scale(18, 2)
        .unwrap();
    let sample = table(vec![
        ("noise", Arc::new(Float64Array::from_iter_values(noise))),
        ("few", Arc::new(Float64Array::from_iter_values(few))),
        ("steps", Arc::new(Int64Array::from_iter_values(steps))),
        ("codes", Arc::new(Int64Array::from_iter_values(codes))),
        ("decimals", Arc::new(decimals)),
        (
            "text",
            Arc::new(arrow_array::StringArray::from(vec!["a"; ROWS as usize])),
        ),
    ]);
    let choices = choose(&sample, 1_000_000, Effort::Flush).unwrap();
    let kinds: Vec<_> = choices
        .iter()
        .map(|choice| choice.map(|choice| choice.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            Some(Kind::ByteStreamSplit),
            Some(Kind::Dictionary),
            Some(Kind::Delta),
            Some(Kind::Dictionary),
            Some(Kind::Delta),
            None
        ]
    );
}

#[test]
fn a_sample_is_bounded_and_spread() {
    for effort in [Effort::Flush, Effort::Merge] {
        for rows in [0, 1, 63, 2_047, 2_048, 100_000, 131_072, 5_000_000] {
            let ranges = sample_ranges(rows, effort);
            let sampled: usize = ranges.iter().map(ExactSizeIterator::len).sum();
            assert!(sampled <= rows / effort.share(), "{sampled} of {rows}");
            let least = SAMPLE_ROWS_MIN * effort.share();
            assert_eq!(ranges.is_empty(), rows < least, "{rows}");
            assert!(ranges.is_sorted_by(|left, right| left.end <= right.start));
            assert!(ranges.iter().all(|range| range.end <= rows));
        }
    }
}

#[test]
fn a_column_without_values_is_no_obstacle() {
    let nothing = Arc::new(Float64Array::new_null(4_096));
    let sample = table(vec![("nothing", nothing)]);
    assert_eq!(choose(&sample, 200_000, Effort::Merge).unwrap().len(), 1);
    assert_eq!(
        choose(&sample.slice(0, 0), 0, Effort::Flush).unwrap().len(),
        1
    );
}

#[test]
fn more_distinct_values_are_expected_than_were_seen() {
    let seen = |values: Vec<f64>| {
        let bits: Vec<u64> = values.into_iter().map(f64::to_bits).collect();
        Spectrum::of(&bits)
    };
    // All of them seen often: that is all there are.
    let often = seen((0..1_000).map(|at| f64::from(at % 10)).collect());
    assert_eq!((often.distinct, often.estimate(1_000_000)), (10, 10));
    // Each once: in proportion.
    let once = seen((0..1_000).map(f64::from).collect());
    assert_eq!(once.estimate(100_000), 100_000);
}
