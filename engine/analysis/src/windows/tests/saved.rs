//! Saved bytes may be anything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{harness::*, splits};
use crate::{Key, Kind, SavedError, TimePolicy, WindowSpec, Windows};

fn a_spec(key: Key) -> WindowSpec {
    WindowSpec {
        kinds: vec![
            tumbling(60),
            Kind::State { max: None },
            Kind::Session {
                gap: SECOND,
                max: None,
            },
        ],
        key,
        aggregates: splits::all_aggregates(),
        time: TimePolicy {
            out_of_order: 5 * SECOND,
            ..TimePolicy::default()
        },
        ..spec(tumbling(60))
    }
}

const KEYS: [Key; 3] = [
    Key::Device,
    Key::Columns {
        count: 1,
        with_device: true,
    },
    Key::All,
];

fn saved(key: Key) -> (Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut windows = Windows::new(a_spec(key)).unwrap();
    let mut out = windows.output();
    let mut rows: Vec<Row> = (0..20)
        .map(|second| row(["a", "bb"][second as usize % 2], second, second as f64))
        .collect();
    rows[3].open = true;
    push(&mut windows, &rows, 20, &mut out);
    let mut saved = BTreeMap::new();
    let common = splits::apply(windows.changed(), &mut saved);
    (common, saved)
}

#[test]
fn only_what_changed_is_saved() {
    let mut windows = Windows::new(a_spec(Key::Device)).unwrap();
    let mut out = windows.output();
    push(
        &mut windows,
        &[row("a", 0, 1.0), row("b", 0, 1.0)],
        0,
        &mut out,
    );
    assert_eq!(windows.changed().entries.len(), 2);
    assert_eq!(windows.changed().entries, []);
    push(&mut windows, &[row("b", 1, 1.0)], 1, &mut out);
    let entries = windows.changed().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].0, b"\0b");
    // Keys that are no devices vanish with their last window.
    let mut windows = Windows::new(WindowSpec {
        kinds: vec![tumbling(60)],
        ..a_spec(Key::All)
    })
    .unwrap();
    push(&mut windows, &[row("a", 0, 1.0)], 0, &mut out);
    assert_eq!(windows.changed().entries.len(), 2);
    windows.advance(1_000 * SECOND, &mut out);
    assert_eq!(windows.changed().entries, [(vec![1], None)]);
}

#[test]
fn other_windows_are_not_taken_for_these() {
    let (common, _) = saved(Key::Device);
    let mut others = Windows::new(spec(tumbling(60))).unwrap();
    assert!(matches!(
        others.restore(&common, []),
        Err(SavedError::Invalid(_))
    ));
    assert!(matches!(
        others.restore(&[9], []),
        Err(SavedError::Version(9))
    ));
    assert_eq!(others.restore(&[], []), Err(SavedError::Short));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_do_no_harm(
        key in 0..3_usize,
        entry in 0..10_usize,
        places in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<u16>()),
        in_key in proptest::bool::weighted(0.2),
    ) {
        let (common, saved) = saved(KEYS[key]);
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = saved.into_iter().collect();
        let entry = entry % entries.len();
        let (text, value) = &mut entries[entry];
        let bytes = if in_key { text } else { value };
        for (place, byte) in places {
            let place = place as usize % bytes.len();
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut as usize % bytes.len());
        }
        let mut windows = Windows::new(a_spec(KEYS[key])).unwrap();
        let entries = entries.iter().map(|(key, value)| (&**key, &**value));
        // What cannot be told from what was saved goes on, without harm.
        if windows.restore(&common, entries).is_ok() {
            let mut out = windows.output();
            let rows: Vec<Row> = (20..100).map(|second| row("a", second, 1.0)).collect();
            push(&mut windows, &rows, 100, &mut out);
            windows.advance(10_000 * SECOND, &mut out);
            out.take();
            windows.changed();
        }
    }
}
