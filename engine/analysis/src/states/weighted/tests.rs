use proptest::prelude::*;

use super::*;

fn of(rows: &[(i64, f64)]) -> Weighted {
    let mut state = Weighted::default();
    rows.iter().for_each(|(ts, value)| state.push(*ts, *value));
    state
}

/// The average over sorted rows, straight from its definition.
fn naive(rows: &[(i64, f64)], end: i64) -> f64 {
    let first = rows[0].0;
    let area: f64 = rows
        .iter()
        .zip(rows.iter().skip(1).chain([&(end, 0.0)]))
        .map(|((ts, value), (next, _))| (next - ts) as f64 * value)
        .sum();
    match end - first {
        0 => rows[rows.len() - 1].1,
        time => area / time as f64,
    }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(1e3)
}

/// Rows in order of time, the time after the last, and a number to choose by.
fn rows() -> impl Strategy<Value = (Vec<(i64, f64)>, i64, usize)> {
    let steps = prop::collection::vec((0..4_i64, -1e3..1e3), 1..80);
    (steps, 0..5_i64, 0..80_usize, 0..2_000_000_000_i64).prop_map(|(steps, after, at, start)| {
        let mut ts = start * 1_000_000;
        let rows: Vec<(i64, f64)> = steps
            .iter()
            .map(|(step, value)| {
                ts += step * 1_000_000;
                (ts, *value)
            })
            .collect();
        let at = at.min(rows.len());
        (rows, ts + after * 1_000_000, at)
    })
}

proptest! {
    #[test]
    fn rows_in_order_give_the_area_under_the_steps((rows, end, at) in rows()) {
        let state = of(&rows);
        prop_assert!(close(state.average(end).unwrap(), naive(&rows, end)));
        prop_assert!(state.kept.len() <= KEPT);
        // So do rows before and after a point of time, in either order of merging.
        let (left, right) = rows.split_at(at);
        let (left, right) = (of(left), of(right));
        let mut merged = left.clone();
        prop_assert_eq!(merged.merge(&right), Ok(()));
        prop_assert!(close(merged.average(end).unwrap(), naive(&rows, end)));
        if left.kept.last().map(|row| row.ts) != Some(right.first) {
            let mut merged = right;
            prop_assert_eq!(merged.merge(&left), Ok(()));
            prop_assert!(close(merged.average(end).unwrap(), naive(&rows, end)));
        }
    }

    #[test]
    fn rows_that_are_overtaken_by_few_are_put_in_their_place((rows, end, seed) in rows()) {
        // Within blocks of the size that is kept, any order: rows of the same time stay in theirs.
        let mut arrive = rows.clone();
        for (index, block) in arrive.chunks_mut(KEPT / 2).enumerate() {
            block.sort_by_key(|(ts, _)| (ts / 1_000_000 * (7 + seed as i64 + index as i64)) % 5);
        }
        let mut sorted = arrive.clone();
        sorted.sort_by_key(|(ts, _)| *ts);
        let state = of(&arrive);
        prop_assert!(close(state.average(end).unwrap(), naive(&sorted, end)));
        prop_assert_eq!(state.ignored(), 0);
    }

    #[test]
    fn a_restart_changes_no_bit((rows, end, at) in rows(), turn: bool) {
        let mut rows = rows;
        if turn {
            rows.reverse();
        }
        let (before, after) = rows.split_at(at);
        let mut saved = Vec::new();
        of(before).write(&mut saved);
        let mut from = &*saved;
        let mut restored = Weighted::read(&mut from).unwrap();
        prop_assert_eq!(from.end(), Ok(()));
        after.iter().for_each(|(ts, value)| restored.push(*ts, *value));
        prop_assert_eq!(&restored, &of(&rows));
        prop_assert_eq!(restored.average(end), of(&rows).average(end));
    }

    #[test]
    fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..60), ts: i64) {
        if let Ok(mut state) = Weighted::read(&mut &*bytes) {
            state.push(ts, 1.0);
            let _ = state.average(ts);
            let _ = state.merge(&state.clone());
        }
    }
}

#[test]
fn edges_are_as_told() {
    assert_eq!(Weighted::default().average(10), None);
    // Nothing is known before the first row; the last holds until the end.
    let state = of(&[(10, 10.0), (20, 20.0), (40, 5.0)]);
    let area = 10.0 * 10.0 + 20.0 * 20.0 + 5.0 * 60.0;
    assert_eq!(state.average(100), Some(area / 90.0));
    // A single row, and rows that all have the time of the end.
    assert_eq!(of(&[(10, 3.0)]).average(20), Some(3.0));
    assert_eq!(of(&[(10, 3.0), (10, 4.0)]).average(10), Some(4.0));
    // An end before the last row is no end.
    assert_eq!(of(&[(10, 3.0), (20, 4.0)]).average(0), Some(3.0));
    // What held for no time counts nothing.
    assert_eq!(of(&[(10, f64::INFINITY), (10, 4.0)]).average(20), Some(4.0));
    assert_eq!(of(&[(10, f64::INFINITY)]).average(20), Some(f64::INFINITY));
}

#[test]
fn rows_that_come_much_too_late_are_counted_or_extend_the_average() {
    let mut state = of(&[]);
    (0..40).for_each(|index| state.push(100 + 10 * index, 1.0));
    state.push(105, 1e9);
    assert_eq!((state.average(500), state.ignored()), (Some(1.0), 1));
    state.push(50, 3.0);
    assert_eq!(state.average(500), Some((3.0 * 50.0 + 400.0) / 450.0));
    assert_eq!(state.ignored(), 1);
    assert_eq!(state.merge(&of(&[(300, 1.0)])), Err(Interleaved));
}
