//! Random histories against a naive model: a list of rows.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use quiver_model::{FIELD_TIME_MAX, FIELD_TIME_MIN};

use crate::harness::{DAY, Fixture, Row, name, schema};

const DEVICES: [&str; 5] = ["a", "b", "truck_17", "truck_2", "z"];

#[derive(Clone, Debug)]
enum Action {
    /// A batch with rows (day, µs in the day, device, fields).
    Append(Vec<Row>, usize),
    Freeze,
    ArchiveFrozen,
    Flush,
    Compact,
    /// A compaction between the choice of Q and the read of the next query.
    CompactMeanwhile,
    /// A flush, with rows before it, between the choice of Q and the read of the next query.
    FlushMeanwhile(Vec<Row>),
    Query,
}

fn row() -> impl Strategy<Value = Row> {
    (
        0..4_i64,
        prop_oneof![Just(0), Just(DAY - 1), 0..DAY],
        0..DEVICES.len(),
        prop::option::of(prop_oneof![
            Just(f64::NAN),
            Just(f64::INFINITY),
            (-100..100_i32).prop_map(f64::from)
        ]),
        prop::option::of(-5..5_i64),
        prop::option::of("[a-c\"',\n ]{0,4}"),
        any::<Option<bool>>(),
        prop::option::of(prop_oneof![-5..5_i64, FIELD_TIME_MIN.0..FIELD_TIME_MAX.0]),
    )
        .prop_map(|(day, time, device, speed, gear, note, on, seen)| Row {
            ts: day * DAY + time,
            device: DEVICES[device].into(),
            speed,
            gear,
            note,
            on,
            seen,
        })
}

fn action() -> impl Strategy<Value = Action> {
    let rows = || prop::collection::vec(row(), 1..20);
    prop_oneof![
        4 => (rows(), 0..6_usize).prop_map(|(rows, fields)| Action::Append(rows, fields)),
        1 => Just(Action::Freeze),
        1 => Just(Action::ArchiveFrozen),
        1 => Just(Action::Flush),
        1 => Just(Action::Compact),
        1 => Just(Action::CompactMeanwhile),
        1 => rows().prop_map(Action::FlushMeanwhile),
        3 => Just(Action::Query),
    ]
}

#[derive(Default)]
struct Model {
    /// Rows by position, with the number of fields they were stored with.
    rows: Vec<(Row, usize)>,
    fields: usize,
}

impl Model {
    fn line(&self, index: usize) -> String {
        let (row, fields) = &self.rows[index];
        let text = |wanted: usize, value: Option<String>| {
            if *fields > wanted {
                value.unwrap_or_default()
            } else {
                String::new()
            }
        };
        let note = row.note.clone().map(|note| format!("{note:?}"));
        [
            row.ts.to_string(),
            row.device.clone(),
            (index + 1).to_string(),
            text(0, row.speed.map(|speed| format!("{speed:?}"))),
            text(1, row.gear.map(|gear| gear.to_string())),
            text(2, note),
            text(3, row.on.map(|on| on.to_string())),
            text(4, row.seen.map(|seen| seen.to_string())),
        ]
        .join("|")
    }

    fn lines(&self, keep: impl Fn(&Row) -> bool) -> Vec<String> {
        let mut lines: Vec<String> = (0..self.rows.len())
            .filter(|index| keep(&self.rows[*index].0))
            .map(|index| self.line(index))
            .collect();
        lines.sort();
        lines
    }
}

/// The rows that a query finds, in the model's words.
fn found(fixture: &Fixture, filter: &str, fields: usize) -> Vec<String> {
    use arrow_array::{
        Array,
        cast::AsArray,
        types::{Float64Type, Int64Type, TimestampMicrosecondType},
    };
    let batches = fixture
        .query(&format!("SELECT * FROM readings WHERE {filter}"))
        .unwrap();
    let mut lines = Vec::new();
    for batch in batches {
        assert_eq!(batch.num_columns(), 4 + fields);
        for row in 0..batch.num_rows() {
            let value = |column: usize| -> String {
                let Some(array) = batch.columns().get(column) else {
                    return String::new();
                };
                if array.is_null(row) {
                    return String::new();
                }
                match column {
                    4 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
                    5 => array.as_primitive::<Int64Type>().value(row).to_string(),
                    6 => format!("{:?}", array.as_string::<i32>().value(row)),
                    7 => array.as_boolean().value(row).to_string(),
                    _ => {
                        let seen = array.as_primitive::<TimestampMicrosecondType>();
                        seen.value(row).to_string()
                    }
                }
            };
            let ts = batch
                .column(0)
                .as_primitive::<TimestampMicrosecondType>()
                .value(row);
            assert_eq!(
                batch
                    .column(2)
                    .as_primitive::<TimestampMicrosecondType>()
                    .value(row),
                ts + 1_000
            );
            lines.push(
                [
                    ts.to_string(),
                    batch.column(1).as_string::<i32>().value(row).to_owned(),
                    batch
                        .column(3)
                        .as_primitive::<Int64Type>()
                        .value(row)
                        .to_string(),
                    value(4),
                    value(5),
                    value(6),
                    value(7),
                    value(8),
                ]
                .join("|"),
            );
        }
    }
    lines.sort();
    lines
}

fn check(fixture: &Fixture, model: &Model) {
    if model.rows.is_empty() {
        return;
    }
    let all = found(fixture, "true", model.fields);
    assert_eq!(all, model.lines(|_| true));
    assert_eq!(
        found(
            fixture,
            "ts >= '1970-01-02' AND ts < '1970-01-03'",
            model.fields
        ),
        model.lines(|row| row.ts.div_euclid(DAY) == 1)
    );
    assert_eq!(
        found(fixture, "device = 'truck_17'", model.fields),
        model.lines(|row| row.device == "truck_17")
    );
    assert_eq!(
        found(
            fixture,
            "device > 'b' AND ts > '1970-01-01T12:00:00Z'",
            model.fields
        ),
        model.lines(|row| row.device.as_str() > "b" && row.ts > DAY / 2)
    );
    if model.fields > 4 {
        let before = found(fixture, "seen < '1970-01-01T00:00:00Z'", model.fields);
        let has_seen = |index: &usize| {
            let (row, fields) = &model.rows[*index];
            *fields > 4 && row.seen.is_some_and(|seen| seen < 0)
        };
        let rows = (0..model.rows.len()).filter(has_seen);
        let mut expected: Vec<String> = rows.map(|index| model.line(index)).collect();
        expected.sort();
        assert_eq!(before, expected);
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (row, _) in &model.rows {
        *counts.entry(&row.device).or_default() += 1;
    }
    let found = fixture.lines("SELECT device, count(*) FROM readings GROUP BY device");
    assert_eq!(
        found,
        counts
            .iter()
            .map(|(device, count)| format!("{device},{count}"))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        fixture.lines("SELECT count(*) FROM readings"),
        [model.rows.len().to_string()]
    );
}

fn check_last(fixture: &Fixture, model: &Model) {
    let mut last: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    for (index, (row, _)) in model.rows.iter().enumerate() {
        let key = (row.ts, index + 1);
        let entry = last.entry(&row.device).or_insert(key);
        *entry = key.max(*entry);
    }
    let expected: Vec<String> = last
        .iter()
        .map(|(device, (_, position))| format!("{device},{position}"))
        .collect();
    if !model.rows.is_empty() {
        assert_eq!(
            fixture.lines("SELECT device, position FROM last_cache('readings')"),
            expected
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_as_the_list_of_its_rows(actions in prop::collection::vec(action(), 1..25)) {
        let fixture = Fixture::new();
        let mut model = Model::default();
        let is_archived = |fixture: &Fixture| {
            let table = fixture.tables.table(&name("readings"));
            table.is_some_and(|table| table.state().archived().version >= 0)
        };
        let mut frozen = Vec::new();
        let append = |fixture: &Fixture, model: &mut Model, rows: Vec<Row>, fields: usize| {
            model.fields = model.fields.max(fields);
            // A sender may lag behind the newest schema: its rows lack later fields.
            fixture.append(&schema("readings", fields), &rows);
            model.rows.extend(rows.into_iter().map(|row| (row, fields)));
        };
        let archive_all = |fixture: &Fixture, frozen: &mut Vec<_>| {
            for input in frozen.drain(..) {
                fixture.archive(input);
            }
        };
        for action in actions {
            match action {
                Action::Append(rows, fields) => append(&fixture, &mut model, rows, fields),
                Action::Freeze => frozen.extend(fixture.freeze("readings")),
                Action::ArchiveFrozen => archive_all(&fixture, &mut frozen),
                Action::Flush => {
                    archive_all(&fixture, &mut frozen);
                    fixture.flush("readings");
                }
                Action::Compact => {
                    if is_archived(&fixture) {
                        fixture.compact("readings");
                    }
                }
                Action::CompactMeanwhile => {
                    if is_archived(&fixture) {
                        let other = Arc::clone(&fixture);
                        fixture.view.meanwhile(move || other.compact("readings"));
                        check(&fixture, &model);
                    }
                }
                Action::FlushMeanwhile(rows) => {
                    if model.rows.is_empty() {
                        continue;
                    }
                    let before = model.lines(|_| true);
                    archive_all(&fixture, &mut frozen);
                    let (other, fields, meanwhile) = (Arc::clone(&fixture), model.fields, rows.clone());
                    fixture.view.meanwhile(move || {
                        other.append(&schema("readings", fields), &meanwhile);
                        other.flush("readings");
                    });
                    prop_assert_eq!(found(&fixture, "true", model.fields), before);
                    let fields = model.fields;
                    model.rows.extend(rows.into_iter().map(|row| (row, fields)));
                }
                Action::Query => check(&fixture, &model),
            }
        }
        check(&fixture, &model);
        check_last(&fixture, &model);
    }
}
