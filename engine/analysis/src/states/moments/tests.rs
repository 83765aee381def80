use proptest::prelude::*;

use super::*;

fn of(values: &[f64]) -> Moments {
    let mut moments = Moments::default();
    values.iter().for_each(|value| moments.push(*value));
    moments
}

/// Mean and sum of squared distances, in two passes.
fn naive(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares)
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(1e-6)
}

proptest! {
    #[test]
    fn moments_are_those_of_two_passes(values in prop::collection::vec(-1e3..1e3, 2..200), far in -1e6..1e6, at in 0..200_usize) {
        let values: Vec<f64> = values.iter().map(|value| value + far).collect();
        let (mean, squares) = naive(&values);
        let whole = of(&values);
        let (left, right) = values.split_at(at.min(values.len()));
        let mut merged = of(left);
        merged.merge(&of(right));
        for moments in [whole, merged] {
            prop_assert_eq!(moments.count(), values.len() as u64);
            prop_assert!(close(moments.mean().unwrap(), mean));
            let count = values.len() as f64;
            prop_assert!(close(moments.variance_population().unwrap(), squares / count));
            prop_assert!(close(moments.variance_sample().unwrap(), squares / (count - 1.0)));
            prop_assert!(close(moments.deviation_sample().unwrap(), (squares / (count - 1.0)).sqrt()));
            prop_assert!(close(moments.deviation_population().unwrap(), (squares / count).sqrt()));
        }
    }

    #[test]
    fn a_restart_changes_no_bit(values in prop::collection::vec(any::<f64>(), 0..40), at in 0..40_usize) {
        let whole = of(&values);
        let (before, after) = values.split_at(at.min(values.len()));
        let mut saved = Vec::new();
        of(before).write(&mut saved);
        let mut from = &*saved;
        let mut restored = Moments::read(&mut from).unwrap();
        prop_assert_eq!(from.end(), Ok(()));
        after.iter().for_each(|value| restored.push(*value));
        let bits = |moments: Moments| (moments.count, moments.mean.to_bits(), moments.squares.to_bits());
        prop_assert_eq!(bits(restored), bits(whole));
    }

    #[test]
    fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(mut moments) = Moments::read(&mut &*bytes) {
            moments.push(1.0);
            moments.merge(&moments.clone());
        }
    }
}

#[test]
fn few_values_have_few_moments() {
    let none = Moments::default();
    assert_eq!(
        (none.mean(), none.variance_population(), none.count()),
        (None, None, 0)
    );
    let one = of(&[4.0]);
    assert_eq!(
        (
            one.mean(),
            one.variance_population(),
            one.variance_sample(),
            one.deviation_sample()
        ),
        (Some(4.0), Some(0.0), None, None)
    );
    let mut merged = none;
    merged.merge(&one);
    merged.merge(&none);
    assert_eq!(merged, one);
    assert!(
        of(&[1.0, f64::INFINITY])
            .variance_sample()
            .unwrap()
            .is_nan()
    );
}

#[test]
fn digits_far_from_zero_are_kept() {
    let values: Vec<f64> = (0..1000).map(|index| 1e9 + f64::from(index % 2)).collect();
    assert!(close(of(&values).variance_population().unwrap(), 0.25));
}
