use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn of(hashes: impl IntoIterator<Item = u64>) -> Distinct {
    let mut state = Distinct::default();
    hashes.into_iter().for_each(|hash| state.push(hash));
    state
}

/// Hashes, among them some that differ in few bits, up to enough of them for registers.
fn hashes() -> impl Strategy<Value = Vec<u64>> {
    let edge =
        (any::<u64>(), 0..64_u32).prop_map(|(hash, zeros)| hash.checked_shr(zeros).unwrap_or(0));
    let low = (0..64_u64).prop_map(|n| n << 39);
    let some = prop::collection::vec(prop_oneof![edge, low], 0..100);
    (some, 0..2_200_u64, any::<u32>()).prop_map(|(mut hashes, more, seed)| {
        hashes.extend((0..more).map(|n| hash::bits(n + u64::from(seed))));
        hashes
    })
}

fn saved(state: &Distinct) -> Vec<u8> {
    let mut out = Vec::new();
    state.write(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_state_is_of_the_set_of_its_values(hashes in hashes(), at in 0..2_300_usize) {
        let whole = of(hashes.iter().copied());
        prop_assert_eq!(&of(hashes.iter().rev().copied()), &whole);
        let (left, right) = hashes.split_at(at.min(hashes.len()));
        let mut merged = of(left.iter().copied());
        merged.merge(&of(right.iter().copied()));
        prop_assert_eq!(&merged, &whole);
        // Registers are what they had been from the beginning.
        let mut dense = Distinct { form: Form::Dense(vec![0; REGISTERS].into_boxed_slice()) };
        hashes.iter().for_each(|hash| dense.push(*hash));
        if let Form::Dense(_) = whole.form {
            prop_assert_eq!(&dense, &whole);
        }
        let mut emptied = Distinct { form: Form::Dense(vec![0; REGISTERS].into_boxed_slice()) };
        emptied.merge(&whole);
        prop_assert_eq!(&emptied, &dense);
        let mut few = of(left.iter().copied());
        few.merge(&dense);
        prop_assert_eq!(&few, &dense);
    }

    #[test]
    fn what_is_saved_is_read(hashes in hashes()) {
        let state = of(hashes);
        let bytes = saved(&state);
        let mut from = &*bytes;
        prop_assert_eq!(Distinct::read(&mut from), Ok(state));
        prop_assert_eq!(from.end(), Ok(()));
    }

    #[test]
    fn anything_can_be_read(mut bytes in prop::collection::vec(any::<u8>(), 0..80), hashes in hashes(), at: prop::sample::Index, flip: u8) {
        if let Some(first) = bytes.first_mut() {
            *first %= 3;
        }
        let mut damaged = saved(&of(hashes));
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        for bytes in [bytes, damaged] {
            if let Ok(mut state) = Distinct::read(&mut &*bytes) {
                state.push(7);
                state.merge(&of([1, 2, 3]));
                prop_assert!(state.count() > 0);
                prop_assert_eq!(Distinct::read(&mut &*saved(&state)), Ok(state));
            }
        }
    }
}

#[test]
fn few_are_counted_exactly() {
    let mut state = Distinct::default();
    assert_eq!(state.count(), 0);
    let mut names = HashSet::new();
    for n in 0..4_000_u64 {
        let name = format!("truck_{}", n % 1_000);
        state.push(hash::bytes(name.as_bytes()));
        names.insert(name);
        assert_eq!(state.count(), names.len() as u64);
    }
    assert!(state.heap_bytes() <= 8 * 1024);
}

type Kind = fn(u64, u64) -> u64;

/// Values by the number of their set and their number in it; no two sets share one.
const KINDS: [(&str, Kind); 3] = [
    ("whole", |set, n| hash::whole((set << 32 | n) as i64)),
    ("number", |set, n| {
        hash::number((set * 10_000_000 + n) as f64 * 0.01)
    }),
    ("text", |set, n| {
        hash::bytes(format!("{set}-{n}").as_bytes())
    }),
];

/// 1.04 / √2¹⁴.
const STANDARD_ERROR: f64 = 0.008_125;

fn error(state: &Distinct, count: u64) -> f64 {
    state.count() as f64 / count as f64 - 1.0
}

#[test]
fn errors_are_those_of_the_number_of_registers_and_have_no_bias() {
    const SETS: u64 = 40;
    for count in [2_500, 12_000, 40_000] {
        let mut errors = Vec::new();
        for (_, kind) in KINDS {
            errors.extend((0..SETS).map(|set| error(&of((0..count).map(|n| kind(set, n))), count)));
        }
        let sets = errors.len() as f64;
        let mean = errors.iter().sum::<f64>() / sets;
        let square = errors.iter().map(|error| error * error).sum::<f64>() / sets;
        assert!(
            mean.abs() <= 3.0 * STANDARD_ERROR / sets.sqrt(),
            "{count}: {mean}"
        );
        assert!(
            square.sqrt() <= 1.2 * STANDARD_ERROR,
            "{count}: {}",
            square.sqrt()
        );
        // Two percent are 2.46 standard errors: one or two sets of a hundred are further off.
        let far = errors.iter().filter(|error| error.abs() > 0.02).count();
        assert!(far <= 5, "{count}: {far} of {sets}");
    }
}

#[test]
fn up_to_a_million_are_counted_within_four_standard_errors() {
    for (name, kind) in KINDS {
        let mut state = Distinct::default();
        let mut check = 1_u64;
        for n in 1..=1_000_000_u64 {
            state.push(kind(0, n));
            if n == check || n == 1_000_000 {
                check += check / 8 + 1;
                let error = error(&state, n);
                assert!(error.abs() <= 4.0 * STANDARD_ERROR, "{name} {n}: {error}");
            }
        }
        assert_eq!(state.heap_bytes(), REGISTERS);
        assert_eq!(saved(&state).len(), 1 + REGISTERS / 4 * 3);
    }
}

#[test]
fn nothing_estimates_as_nothing() {
    assert_eq!(estimate(&[0; REGISTERS]), 0.0);
    assert!(estimate(&[RANK_MAX; REGISTERS]) > 1e18);
}

#[test]
fn what_is_damaged_is_told() {
    let read = |bytes: &[u8]| Distinct::read(&mut &*bytes).err();
    assert_eq!(read(&[9]), Some(SavedError::Version(9)));
    assert_eq!(read(&[DENSE, 1, 2]), Some(SavedError::Short));
    // A rank of nothing, the same place twice, a rank above all.
    for bytes in [&[SPARSE, 1, 0][..], &[SPARSE, 2, 1, 1], &[SPARSE, 1, 63]] {
        assert!(matches!(read(bytes), Some(SavedError::Invalid(_))));
    }
    let full = [&[DENSE][..], &[0xff; REGISTERS / 4 * 3]].concat();
    assert!(matches!(read(&full), Some(SavedError::Invalid(_))));
}
