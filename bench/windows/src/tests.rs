//! The engine and the loops give the same, so that what is timed is the same work.

use std::collections::BTreeMap;

use crate::{Case, Order, Results, Rows, Windows, by_hand, engine::OfEngine};

fn run(mut windows: Box<dyn Windows>, order: Order) -> BTreeMap<(String, i64), (i64, Vec<f64>)> {
    let rows = Rows::new(order, 7);
    let mut results = Results::default();
    for number in 0..rows.batch_count(700) {
        windows.push(&rows.batch(number)).unwrap();
        results.append(windows.take());
    }
    windows.close();
    results.append(windows.take());
    let many = results.device.len();
    let keys = results.device.into_iter().zip(results.start);
    let keyed: BTreeMap<_, _> = keys
        .enumerate()
        .map(|(at, key)| {
            let values = results.values.iter().map(|column| column[at]).collect();
            (key, (results.count[at], values))
        })
        .collect();
    assert_eq!(keyed.len(), many);
    keyed
}

#[test]
fn engine_and_loops_agree() {
    for case in Case::ALL {
        for order in Order::ALL {
            let got = run(Box::new(OfEngine::new(case).unwrap()), order);
            let expected = run(by_hand::of(case), order);
            let name = (case.name(), order.name());
            assert!(got.len() > 7, "{name:?}");
            assert!(got.keys().eq(expected.keys()), "{name:?}");
            for (key, (count, values)) in got {
                let (other, others) = &expected[&key];
                assert_eq!(count, *other, "{name:?} {key:?}");
                assert_eq!(values.len(), others.len());
                for (value, other) in values.iter().zip(others) {
                    let far = (value - other).abs();
                    assert!(far <= 1e-9 * other.abs().max(1.0), "{name:?} {key:?}");
                }
            }
        }
    }
}
