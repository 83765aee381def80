use std::sync::Arc;

use arrow_array::{
    ArrayRef, DictionaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray, types::Int32Type,
};
use quiver_model::{SchemaId, StreamName, StreamSchema};

use super::{Fixed, sort_by_day};

const DAY_US: i64 = 86_400_000_000;

fn batch(rows: &[(i64, String, i64)]) -> RecordBatch {
    let schema = StreamSchema::new(
        StreamName::new("readings").unwrap(),
        SchemaId(1),
        Vec::new(),
    )
    .unwrap();
    let ts = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0))
        .with_timezone("UTC");
    let device: DictionaryArray<Int32Type> = rows.iter().map(|row| Some(row.1.as_str())).collect();
    let position = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ts.clone()),
        Arc::new(device),
        Arc::new(ts),
        Arc::new(position),
    ];
    RecordBatch::try_new(Arc::clone(schema.stored()), columns).unwrap()
}

/// A small generator: the same rows in every run.
fn scrambled(count: i64, seed: u64) -> Vec<(i64, String, i64)> {
    let mut state = seed;
    let mut next = |bound: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    (1..=count)
        .map(|position| {
            let ts = next(5) as i64 * DAY_US + next(50) as i64
                - if next(9) == 0 { 3 * DAY_US } else { 0 };
            (ts, format!("device_{}", next(12)), position)
        })
        .collect()
}

#[test]
fn rows_come_out_as_a_plain_sort_would_have_them() {
    for (seed, sizes) in [
        (1, vec![100, 1, 7]),
        (2, vec![1; 50]),
        (3, vec![0, 500, 0]),
        (4, vec![]),
    ] {
        let all = scrambled(sizes.iter().sum(), seed);
        let mut rest = all.as_slice();
        let mut batches = Vec::new();
        for size in sizes {
            let (head, tail) = rest.split_at(usize::try_from(size).unwrap());
            batches.push(batch(head));
            rest = tail;
        }
        // The order of batches must not matter.
        batches.reverse();
        let mut expected = all.clone();
        expected.sort_by_key(|(ts, device, position)| {
            (ts.div_euclid(DAY_US), device.clone(), *ts, *position)
        });

        let mut found = Vec::new();
        for day in sort_by_day(&batches).unwrap() {
            for at in day.rows {
                let fixed = Fixed::of(&batches[at.batch as usize]).unwrap();
                let row = at.row as usize;
                assert_eq!(fixed.ts[row].div_euclid(DAY_US), i64::from(day.day));
                found.push((
                    fixed.ts[row],
                    fixed.name(fixed.keys[row]).to_owned(),
                    fixed.position[row],
                ));
            }
        }
        assert_eq!(found, expected, "seed {seed}");
    }
}
