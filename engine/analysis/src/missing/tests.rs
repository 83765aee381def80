use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::SavedError;

const SPEC: MissingSpec = MissingSpec {
    watch: Watch::Device,
    after: 10,
    forget_after: None,
    limit: 1_000,
};

fn missing(spec: MissingSpec) -> Missing {
    Missing::new(spec).unwrap()
}

/// A record in short.
fn short(record: &MissingRecord) -> (i64, String, Option<u32>, State, i64) {
    let name = record.device.to_string();
    (record.at, name, record.field, record.state, record.since)
}

fn push(watch: &mut Missing, device: &str, at: i64) -> Vec<(State, i64, i64, i64)> {
    let mut out = Vec::new();
    watch.push(device, &[], at, &mut out);
    states(&out)
}

fn advance(watch: &mut Missing, at: i64) -> Vec<(State, i64, i64, i64)> {
    let mut out = Vec::new();
    watch.advance(at, &mut out);
    states(&out)
}

fn states(out: &[MissingRecord]) -> Vec<(State, i64, i64, i64)> {
    let state = |record: &MissingRecord| (record.state, record.since, record.at, record.silent());
    out.iter().map(state).collect()
}

#[test]
fn a_silence_begins_and_ends() {
    let mut watch = missing(SPEC);
    assert_eq!(advance(&mut watch, 1_000), []);
    assert_eq!(push(&mut watch, "a", 1_000), []);
    assert_eq!(push(&mut watch, "a", 1_005), []);
    assert_eq!(advance(&mut watch, 1_014), []);
    assert_eq!(
        advance(&mut watch, 1_015),
        [(State::Missing, 1_005, 1_015, 10)]
    );
    assert_eq!(advance(&mut watch, 1_020), []);
    assert_eq!(watch.counters().missing, 1);
    assert_eq!(
        push(&mut watch, "a", 1_030),
        [(State::Back, 1_005, 1_030, 25)]
    );
    assert_eq!(watch.counters().missing, 0);
    // One that nobody told of before it ended.
    assert_eq!(
        push(&mut watch, "a", 1_100),
        [
            (State::Missing, 1_030, 1_040, 10),
            (State::Back, 1_030, 1_100, 70)
        ]
    );
    assert_eq!(watch.next_deadline().map(|at| at <= 1_110), Some(true));
}

#[test]
fn fields_are_watched_from_their_first_value_on() {
    let spec = MissingSpec {
        watch: Watch::Fields(3),
        ..SPEC
    };
    let mut watch = missing(spec);
    let mut out = Vec::new();
    watch.push("a", &[true, false, true, true], 0, &mut out);
    watch.push("a", &[true], 8, &mut out);
    watch.advance(12, &mut out);
    watch.push("a", &[false, true, true], 13, &mut out);
    watch.advance(40, &mut out);
    let found: Vec<_> = out.iter().map(short).collect();
    let record = |at, field, state, since| (at, "a".to_owned(), Some(field), state, since);
    assert_eq!(
        found,
        [
            record(10, 2, State::Missing, 0),
            record(13, 2, State::Back, 0),
            record(18, 0, State::Missing, 8),
            record(23, 1, State::Missing, 13),
            record(23, 2, State::Missing, 13),
        ]
    );
    assert_eq!(watch.counters().watched, 3);
}

#[test]
fn there_are_bounds() {
    let spec = MissingSpec {
        limit: 2,
        forget_after: Some(50),
        ..SPEC
    };
    let mut watch = missing(spec);
    for (device, at) in [("a", 0), ("b", 1), ("c", 2), ("c", 3)] {
        assert_eq!(push(&mut watch, device, at), []);
    }
    assert_eq!((watch.counters().watched, watch.counters().refused), (2, 2));
    assert_eq!(advance(&mut watch, 49).len(), 2);
    // One is forgotten: there is room, and what comes from it is a first value.
    assert_eq!(advance(&mut watch, 50), []);
    assert_eq!(
        (watch.counters().watched, watch.counters().forgotten),
        (1, 1)
    );
    assert_eq!(push(&mut watch, "a", 50), []);
    assert_eq!(push(&mut watch, "c", 50), []);
    assert_eq!((watch.counters().watched, watch.counters().refused), (2, 3));
    assert_eq!(push(&mut watch, "b", 50), [(State::Back, 1, 50, 49)]);
}

#[test]
fn a_flapping_series_leaves_no_heap_of_deadlines() {
    let spec = MissingSpec {
        forget_after: Some(1_000_000),
        ..SPEC
    };
    let mut watch = missing(spec);
    for round in 0..2_000 {
        let _ = push(&mut watch, "a", round * 20);
        assert_eq!(advance(&mut watch, round * 20 + 15).len(), 1);
        assert!(watch.deadlines.len() <= 66);
    }
    // A million ticks without anything due look at one number each.
    let mut out = Vec::new();
    let deadline = watch.next_deadline().unwrap();
    (40_000..deadline.min(1_040_000)).for_each(|at| watch.advance(at, &mut out));
    assert_eq!(out, []);
}

#[test]
fn a_clock_that_is_put_makes_nothing_missing() {
    let mut watch = missing(SPEC);
    let _ = push(&mut watch, "a", 1_000);
    let _ = push(&mut watch, "b", 900);
    assert_eq!(advance(&mut watch, 1_000).len(), 1);
    watch.clock_stepped(9_000);
    assert_eq!(advance(&mut watch, 9_009), []);
    assert_eq!(
        advance(&mut watch, 9_010),
        [(State::Missing, 9_000, 9_010, 10)]
    );
    watch.clock_stepped(50);
    assert_eq!(push(&mut watch, "b", 51), [(State::Back, 900, 51, 0)]);
    assert_eq!(advance(&mut watch, 61).len(), 1);
}

#[test]
fn what_is_no_watch_is_told() {
    let no = |spec: MissingSpec| Missing::new(spec).err();
    let (after, forget_after) = (10, 10);
    assert_eq!(
        no(MissingSpec { after: 0, ..SPEC }),
        Some(MissingError::After(0))
    );
    let forgotten = MissingSpec {
        forget_after: Some(10),
        ..SPEC
    };
    assert_eq!(
        no(forgotten),
        Some(MissingError::Forgotten {
            after,
            forget_after
        })
    );
    let watch = Watch::Fields(0);
    assert_eq!(
        no(MissingSpec { watch, ..SPEC }),
        Some(MissingError::NoFields)
    );
}

/// Something that happens so long after what was before.
#[derive(Clone, Debug)]
enum Event {
    Data(u8, [bool; 2]),
    Tick,
    Restart,
    Checkpoint,
}

fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let event = prop_oneof![
        6 => (0..4_u8, any::<[bool; 2]>()).prop_map(|(device, present)| Event::Data(device, present)),
        3 => Just(Event::Tick),
        1 => Just(Event::Restart),
        1 => Just(Event::Checkpoint),
    ];
    prop::collection::vec((prop_oneof![0..4_i64, 0..40_i64], event), 0..80)
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn save(watch: &mut Missing, entries: &mut Entries) {
    for (name, entry) in watch.changed() {
        match entry {
            Some(entry) => entries.insert(name, entry),
            None => entries.remove(&name),
        };
    }
}

fn run(spec: MissingSpec, events: &[(i64, Event)], restarts: bool) -> (Vec<MissingRecord>, i64) {
    let mut watch = missing(spec);
    let mut entries = Entries::new();
    let (mut out, mut now) = (Vec::new(), 1_000);
    for (after, event) in events {
        now += after;
        match event {
            Event::Data(device, present) => {
                watch.push(&format!("device-{device}"), present, now, &mut out);
            }
            Event::Tick => watch.advance(now, &mut out),
            Event::Checkpoint => save(&mut watch, &mut entries),
            Event::Restart if restarts => {
                save(&mut watch, &mut entries);
                let counters = watch.counters();
                watch = missing(spec);
                // In another order than the slots had.
                for (name, entry) in entries.iter().rev() {
                    watch.restore(name, entry).unwrap();
                }
                assert_eq!(watch.counters().watched, counters.watched);
                assert_eq!(watch.counters().missing, counters.missing);
                assert_eq!(watch.changed(), []);
            }
            Event::Restart => {}
        }
    }
    watch.advance(now + 5, &mut out);
    (out, now + 5)
}

/// The records, from the times of data alone.
fn naive(spec: MissingSpec, events: &[(i64, Event)], end: i64) -> Vec<MissingRecord> {
    let mut times: BTreeMap<(u8, Option<u32>), Vec<i64>> = BTreeMap::new();
    let mut now = 1_000;
    for (after, event) in events {
        now += after;
        if let Event::Data(device, present) = event {
            let fields: Vec<Option<u32>> = match spec.watch {
                Watch::Device => vec![None],
                Watch::Fields(_) => (0..2)
                    .filter(|field| present[*field as usize])
                    .map(Some)
                    .collect(),
            };
            for field in fields {
                times.entry((*device, field)).or_default().push(now);
            }
        }
    }
    let mut records = Vec::new();
    for ((device, field), times) in times {
        for (index, since) in times.iter().copied().enumerate() {
            let next = times.get(index + 1).copied();
            let record = |state, at| MissingRecord {
                device: format!("device-{device}").into(),
                field,
                state,
                since,
                at,
            };
            if next.unwrap_or(end) - since >= spec.after {
                records.push(record(State::Missing, since + spec.after));
            }
            if let Some(next) = next
                && next - since >= spec.after
                && spec.forget_after.is_none_or(|forget| next - since < forget)
            {
                records.push(record(State::Back, next));
            }
        }
    }
    records
}

proptest! {
    #[test]
    fn records_are_those_of_the_times_of_data(events in events(), fields: bool, forget: bool) {
        let spec = MissingSpec {
            watch: if fields { Watch::Fields(2) } else { Watch::Device },
            forget_after: forget.then_some(25),
            ..SPEC
        };
        let (restarted, end) = run(spec, &events, true);
        // In the same order, wherever restarts fall.
        prop_assert_eq!(&restarted, &run(spec, &events, false).0);
        let sorted = |records: Vec<MissingRecord>| {
            let mut sorted: Vec<_> = records.iter().map(short).collect();
            sorted.sort();
            sorted
        };
        prop_assert_eq!(sorted(restarted), sorted(naive(spec, &events, end)));
    }

    #[test]
    fn anything_can_be_restored(name in prop::collection::vec(any::<u8>(), 0..4), mut entry in prop::collection::vec(0..6_u8, 0..30)) {
        let mut watch = missing(MissingSpec { watch: Watch::Fields(9), ..SPEC });
        if let Some(first) = entry.first_mut() {
            *first %= 3;
        }
        if watch.restore(&name, &entry).is_ok() {
            prop_assert_eq!(watch.changed(), []);
            watch.clock_stepped(7);
            prop_assert!(watch.changed().len() == 1);
        }
        watch.advance(i64::MAX, &mut Vec::new());
        watch.advance(i64::MIN, &mut Vec::new());
    }
}

#[test]
fn what_is_damaged_is_told() {
    let mut watch = missing(SPEC);
    let mut read = |name: &[u8], entry: &[u8]| watch.restore(name, entry).err();
    assert_eq!(read(b"a", &[9]), Some(SavedError::Version(9)));
    assert_eq!(read(b"a", &[1, 200, 1]), Some(SavedError::Short));
    assert_eq!(
        read(b"a", &[1, 1, 0, 0, 2, 7]),
        Some(SavedError::Trailing(1))
    );
    // A field that is not watched, none at all, a state that there is not, a name that is no text.
    for entry in [
        &[1, 1, 1, 0, 2][..],
        &[1, 0],
        &[1, 1, 0, 2, 2],
        &[1, 2, 0, 0, 2, 0, 0, 2],
    ] {
        assert!(matches!(read(b"a", entry), Some(SavedError::Invalid(_))));
    }
    assert!(matches!(
        read(&[0xff], &[1, 1, 0, 0, 2]),
        Some(SavedError::Invalid(_))
    ));
    assert_eq!(read(b"a", &[1, 1, 0, 0, 2]), None);
    assert!(matches!(
        read(b"a", &[1, 1, 0, 0, 2]),
        Some(SavedError::Invalid(_))
    ));
}
