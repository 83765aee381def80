use proptest::prelude::*;

use super::*;

fn of(values: &[f64]) -> Digest {
    let mut digest = Digest::default();
    values.iter().for_each(|value| digest.push(*value));
    digest
}

/// DuckDB's `quantile_cont`, NumPy's method `linear`.
fn naive(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q * (sorted.len() - 1) as f64;
    let low = sorted[place.floor() as usize];
    let high = sorted[place.ceil() as usize];
    low + (high - low) * (place - place.floor())
}

/// How far from `q` the part of the values below (or at) `found` is; 0 if `q` is among equals.
fn rank_error(values: &[f64], q: f64, found: f64) -> f64 {
    let part = |count: usize| count as f64 / values.len() as f64;
    let below = part(values.iter().filter(|value| **value < found).count());
    let not_above = part(values.iter().filter(|value| **value <= found).count());
    (below - q).max(q - not_above).max(0.0)
}

/// Random numbers of 0 to 1 that are always the same.
fn noise(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    })
}

const QS: [f64; 9] = [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0];

fn saved(digest: &Digest) -> Vec<u8> {
    let mut out = Vec::new();
    digest.write(&mut out);
    out
}

proptest! {
    #[test]
    fn few_values_are_interpolated_exactly(values in prop::collection::vec(-1e6..1e6, 1..RECENT), q in 0.0..=1.0) {
        let digest = of(&values);
        prop_assert_eq!(digest.quantile(q), Some(naive(&values, q)));
        prop_assert_eq!(digest.count(), values.len() as u64);
    }

    #[test]
    fn a_restart_changes_no_bit(values in prop::collection::vec(any::<f64>(), 0..700), at in 0..700_usize) {
        let (before, after) = values.split_at(at.min(values.len()));
        let bytes = saved(&of(before));
        let mut from = &*bytes;
        let mut restored = Digest::read(&mut from).unwrap();
        prop_assert_eq!(from.end(), Ok(()));
        after.iter().for_each(|value| restored.push(*value));
        prop_assert_eq!(saved(&restored), saved(&of(&values)));
        for q in QS {
            let bits = |digest: &Digest| digest.quantile(q).map(f64::to_bits);
            prop_assert_eq!(bits(&restored), bits(&of(&values)));
        }
    }

    #[test]
    fn quantiles_rise_between_the_ends(values in prop::collection::vec(prop_oneof![any::<f64>(), -9.0..9.0_f64], 1..900)) {
        let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        prop_assume!(!values.is_empty());
        let digest = of(&values);
        prop_assert_eq!(digest.quantile(0.0), Some(naive(&values, 0.0)));
        prop_assert_eq!(digest.quantile(1.0), Some(naive(&values, 1.0)));
        let found: Vec<f64> = (0..=20).filter_map(|part| digest.quantile(f64::from(part) / 20.0)).collect();
        prop_assert_eq!(found.len(), 21);
        for pair in found.windows(2) {
            prop_assert!(pair[0] <= pair[1] || pair[0] - pair[1] <= 1e-12 * pair[0].abs(), "{:?}", pair);
        }
    }

    #[test]
    fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(mut digest) = Digest::read(&mut &*bytes) {
            (0..300).for_each(|value| digest.push(f64::from(value)));
            digest.merge(&digest.clone());
            prop_assert!(digest.quantile(0.5).is_some());
        }
    }

    #[test]
    fn what_is_damaged_in_one_byte_can_be_read(at in 0..3000_usize, flip in 1..=255_u8) {
        let mut bytes = saved(&of(&noise(3).take(1000).collect::<Vec<_>>()));
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(mut digest) = Digest::read(&mut &*bytes) {
            (0..300).for_each(|value| digest.push(f64::from(value)));
            prop_assert!(digest.quantile(0.5).is_some());
        }
    }
}

#[test]
fn many_values_are_told_within_a_small_part_of_their_number() {
    type Shape = fn(f64) -> f64;
    let shapes: [(&str, Shape); 4] = [
        ("even", |part| part),
        ("few are great", |part| -(1.0 - part).ln()),
        (
            "two heaps",
            |part| if part < 0.3 { part } else { 1e3 + part },
        ),
        ("rounded", |part| (part * part * 40.0).round()),
    ];
    for (name, shape) in shapes {
        let random: Vec<f64> = noise(7).take(20_000).map(shape).collect();
        let mut rising = random.clone();
        rising.sort_by(f64::total_cmp);
        let falling: Vec<f64> = rising.iter().rev().copied().collect();
        for (order, values) in [
            ("random", &random),
            ("rising", &rising),
            ("falling", &falling),
        ] {
            let whole = of(values);
            let mut parts = Digest::default();
            values.chunks(1234).for_each(|part| parts.merge(&of(part)));
            for (way, digest) in [("one", &whole), ("merged", &parts)] {
                assert_eq!(digest.count(), 20_000);
                assert!(
                    digest.centroids.len() <= 2 * COMPRESSION,
                    "{name} {order} {way}"
                );
                for q in QS {
                    let found = digest.quantile(q).unwrap();
                    let error = rank_error(values, q, found);
                    let allowed = 0.000_1 + 0.01 * (q * (1.0 - q)).sqrt();
                    // Between equal values and the next a digest interpolates: less than half a step.
                    let is_near = name == "rounded" && (found - naive(values, q)).abs() < 0.5;
                    assert!(
                        error <= allowed || is_near,
                        "{name} {order} {way} {q}: {error}"
                    );
                }
            }
            assert!(whole.heap_bytes() <= 6 * 1024);
        }
    }
}

#[test]
fn what_is_not_finite_has_its_place() {
    let digest = of(&[f64::NAN, 1.0, f64::NEG_INFINITY, 3.0, f64::INFINITY]);
    let found = |q: f64| digest.quantile(q).unwrap();
    assert_eq!(found(0.0), f64::NEG_INFINITY);
    assert_eq!(found(0.2), f64::NEG_INFINITY);
    assert_eq!((found(0.25), found(0.375), found(0.5)), (1.0, 2.0, 3.0));
    assert_eq!((found(0.6), found(0.75)), (f64::INFINITY, f64::INFINITY));
    assert!(found(0.8).is_nan() && found(1.0).is_nan());
    assert_eq!(of(&[]).quantile(0.5), None);
    assert_eq!(of(&[2.0]).quantile(f64::NAN), None);
    assert_eq!(of(&[2.0, 4.0]).quantile(7.0), Some(4.0));
    assert_eq!(of(&[f64::MIN, f64::MAX]).quantile(0.5), Some(0.0));
    assert!(of(&[f64::NAN]).quantile(0.5).unwrap().is_nan());
}

#[test]
fn the_limit_is_that_of_the_paper() {
    let exact = 2.0 * (std::f64::consts::PI / COMPRESSION as f64).sin();
    assert!((WEIGHT_LIMIT - exact).abs() < 1e-15);
}
