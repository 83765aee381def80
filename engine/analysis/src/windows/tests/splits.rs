//! Results do not depend on where batches end, nor on restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::harness::*;
use crate::{
    Changed, Emit, Function, Key, Kind, Late, Limits, Size, TimePolicy, WindowSpec, Windows,
};

/// What happens to windows.
#[derive(Clone, Debug)]
enum Event {
    /// Rows of one record.
    Rows(Vec<Row>),
    /// Record time goes on by seconds.
    Tick(i64),
}

const FUNCTIONS: [Function; 20] = [
    Function::Rows,
    Function::Count,
    Function::Sum,
    Function::Avg,
    Function::Min,
    Function::Max,
    Function::MinAt,
    Function::MaxAt,
    Function::First,
    Function::Last,
    Function::Delta,
    Function::Rate,
    Function::Stddev,
    Function::StddevPop,
    Function::Var,
    Function::VarPop,
    Function::Median,
    Function::Quantile,
    Function::TimeWeightedAvg,
    Function::ApproxCountDistinct,
];

/// All that can be computed of the three arguments.
pub(super) fn all_aggregates() -> Vec<crate::Aggregate> {
    let spec = spec(tumbling(1));
    let all = [FLOAT, INT, TEXT]
        .into_iter()
        .flat_map(|argument| FUNCTIONS.map(|function| aggregate(function, argument)));
    all.filter(|aggregate| spec.result(aggregate).is_ok())
        .collect()
}

fn a_row() -> impl Strategy<Value = Row> {
    (
        0..4_usize,
        0..200_i64,
        -3..3_i64,
        prop_oneof![
            4 => (-1_000..1_000_i64).prop_map(|value| Some(value as f64 / 7.0)),
            1 => Just(None),
            1 => prop_oneof![Just(Some(f64::NAN)), Just(Some(f64::INFINITY)), Just(Some(1e300))],
        ],
        any::<(bool, bool)>(),
        proptest::option::of(0..3_usize),
    )
        .prop_map(|(device, age, rush, float, (open, close), fleet)| Row {
            // `events` moves it to the time of its record.
            ts: -age.min(20 + age / 20) * SECOND / 4 + rush,
            arrival: 0,
            device: format!("device {device}"),
            fleet: fleet.map(|fleet| format!("fleet {fleet}")),
            float,
            int: float.map(|float| (float * 1e15) as i64),
            text: float.map(|float| format!("{float:.1}")),
            open,
            close,
        })
}

/// Rows and ticks: record time goes on, events happen up to some seconds before, a few in the
/// future.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (proptest::collection::vec(a_row(), 1..30), 0..2_000_i64).prop_map(Ok),
        2 => (1..8_i64).prop_map(Err),
        1 => (30..90_i64).prop_map(Err),
    ];
    proptest::collection::vec(event, 1..25).prop_map(|events| {
        let mut now = 1_000;
        let mut of_record = Vec::new();
        for event in events {
            match event {
                Ok((mut rows, step)) => {
                    for (number, row) in rows.iter_mut().enumerate() {
                        let at = now * SECOND + step * 1_000 * number as i64;
                        row.arrival = at;
                        row.ts = (row.ts + at) / 250_000 * 250_000;
                    }
                    of_record.push(Event::Rows(rows));
                }
                Err(seconds) => {
                    now += seconds;
                    of_record.push(Event::Tick(now));
                }
            }
        }
        of_record
    })
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let micros = |seconds: i64| Size::Micros(seconds * SECOND);
    let kind = prop_oneof![
        Just(tumbling(5)),
        Just(tumbling(60)),
        Just(Kind::Tumbling { size: Size::Day }),
        Just(Kind::Hopping {
            size: micros(20),
            every: 5 * SECOND
        }),
        Just(Kind::Hopping {
            size: micros(7),
            every: 3 * SECOND
        }),
        Just(Kind::Sliding { size: 3 * SECOND }),
        Just(Kind::Session {
            gap: 3 * SECOND,
            max: None
        }),
        Just(Kind::Session {
            gap: 4 * SECOND,
            max: Some(9 * SECOND)
        }),
        Just(Kind::State { max: None }),
        Just(Kind::State {
            max: Some(6 * SECOND)
        }),
    ];
    proptest::collection::vec(kind, 1..4)
}

fn specs() -> impl Strategy<Value = WindowSpec> {
    let key = prop_oneof![
        3 => Just(Key::Device),
        1 => Just(Key::Columns { count: 1, with_device: false }),
        1 => Just(Key::Columns { count: 1, with_device: true }),
        1 => Just(Key::All),
    ];
    let tolerance =
        |most: i64| proptest::option::of((0..most).prop_map(|seconds| seconds * SECOND));
    let time = (tolerance(12), 0..8_i64, tolerance(3), tolerance(20)).prop_map(
        |(late, out_of_order, early, idle)| TimePolicy {
            late,
            out_of_order: out_of_order * SECOND,
            early,
            idle,
        },
    );
    let limits = prop_oneof![
        3 => Just(Limits::default()),
        1 => (1..6_usize, 1..8_usize, 10_000..100_000_usize)
            .prop_map(|(keys, windows, bytes)| Limits { keys, windows, bytes }),
    ];
    let zone = prop_oneof![Just(None), Just(Some(chrono_tz::Europe::Berlin))];
    let retain = proptest::option::of(0..30_i64);
    (kinds(), key, time, limits, zone, retain).prop_map(
        |(kinds, key, time, limits, zone, retain)| {
            let mut spec = WindowSpec {
                kinds,
                key,
                time,
                limits,
                zone,
                aggregates: all_aggregates(),
                ..spec(tumbling(1))
            };
            if let Some(retain) = retain {
                spec.emit = Emit::Update {
                    retain: retain * SECOND,
                };
                if spec.check().is_err() {
                    spec.emit = Emit::Close;
                }
            }
            spec
        },
    )
}

/// Everything that came out, and the state in the end.
type Outcome = (Vec<String>, Vec<Late>, BTreeMap<Vec<u8>, Vec<u8>>);

/// Runs events; `cut` says after how many rows a batch is cut, and whether a restart follows.
fn run(
    spec: &WindowSpec,
    events: &[Event],
    mut cut: impl FnMut(usize) -> (usize, bool),
) -> Outcome {
    // Reading a time zone takes long; a clone has read it.
    let new = Windows::new(spec.clone()).unwrap();
    let mut windows = new.clone();
    let mut out = windows.output();
    let (mut results, mut late_rows) = (Vec::new(), Vec::new());
    let mut saved = BTreeMap::new();
    let mut now = 1_000;
    for event in events {
        match event {
            Event::Tick(second) => {
                now = *second;
                windows.advance(now * SECOND, &mut out);
            }
            Event::Rows(rows) => {
                let mut from = 0;
                while from < rows.len() {
                    let (many, restarts) = cut(rows.len() - from);
                    push(&mut windows, &rows[from..from + many], now, &mut out);
                    late_rows.extend(out.take_late().into_iter().map(|late| Late {
                        row: late.row + from as u32,
                        ..late
                    }));
                    from += many;
                    if restarts {
                        let common = apply(windows.changed(), &mut saved);
                        windows = new.clone();
                        restore(&mut windows, &common, &saved);
                    }
                }
            }
        }
        results.append(&mut texts(&mut out));
    }
    apply(windows.changed(), &mut saved);
    (results, late_rows, saved)
}

pub(super) fn apply(changed: Changed, saved: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    for (key, value) in changed.entries {
        match value {
            Some(value) => saved.insert(key, value),
            None => saved.remove(&key),
        };
    }
    changed.common
}

pub(super) fn restore(windows: &mut Windows, common: &[u8], saved: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let entries = saved.iter().map(|(key, value)| (&**key, &**value));
    windows.restore(common, entries).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn neither_batches_nor_restarts_show(
        spec in specs(),
        events in events(),
        cuts in proptest::collection::vec((1..40_usize, proptest::bool::weighted(0.3)), 1..50),
    ) {
        let whole = run(&spec, &events, |rows| (rows, false));
        let mut next = cuts.iter().cycle();
        let cut = run(&spec, &events, |rows| {
            let (many, restarts) = next.next().copied().unwrap_or((1, false));
            (many.min(rows), restarts)
        });
        prop_assert_eq!(&whole.0, &cut.0);
        prop_assert_eq!(&whole.1, &cut.1);
        prop_assert_eq!(&whole.2, &cut.2);
        let single = run(&spec, &events, |_| (1, true));
        prop_assert_eq!(&whole.0, &single.0);
        prop_assert_eq!(&whole.1, &single.1);
        prop_assert_eq!(&whole.2, &single.2);
    }

    /// Windows of one device are the same whoever else is there.
    #[test]
    fn shards_do_not_show(spec in specs(), events in events()) {
        let mut spec = spec;
        if !spec.key.has_device() {
            spec.key = Key::Device;
        }
        // Who comes first takes the room.
        spec.limits = Limits::default();
        let (whole, ..) = run(&spec, &events, |rows| (rows, false));
        let mut apart = Vec::new();
        for device in 0..4 {
            let device = format!("device {device}");
            let own: Vec<Event> = events
                .iter()
                .map(|event| match event {
                    Event::Tick(second) => Event::Tick(*second),
                    Event::Rows(rows) => Event::Rows(
                        rows.iter().filter(|row| row.device == device).cloned().collect(),
                    ),
                })
                .collect();
            apart.append(&mut run(&spec, &own, |rows| (rows, false)).0);
        }
        let mut whole = whole;
        whole.sort();
        apart.sort();
        prop_assert_eq!(whole, apart);
    }
}
