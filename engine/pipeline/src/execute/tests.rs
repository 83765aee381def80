//! What comes out depends neither on where records end, nor on when the engine starts anew, nor on
//! reloads that change nothing.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    types::Int32Type,
};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use proptest::{prelude::*, test_runner::TestRunner};
use quiver_model::{ARRIVAL, DEVICE, POSITION, TS};

use super::{Emission, Executor, NodeState, Rows};
use crate::{
    Config, Diagnostics, Graph, Sources,
    graph::{Origin, time_type},
};

const GRAPH: &str = r#"
[stream.s.fields]
x = "float64"
n = "int64"

[route.high]
from = "s"
where = "x > 0 AND device.group = 'g1'"

[route.some]
from = "s"
sample = 0.5
limit = 0.5

[route.rest]
from = "s"
default = true

[map.inverse]
from = ["high", "some"]
select = "1.0 / NULLIF(n, 3) AS y, 10 / n AS z, x"

[window.minute]
from = ["s"]
size = ["10s", "1m"]
by = ["device"]
select = "count(*) AS rows, sum(x) AS total, avg(x) AS mean, stddev(x), first(n), last(n), median(x), count(DISTINCT n) AS kinds, max_at(x), time_weighted_avg(x) AS held"
out_of_order = "5s"
late = "20s"

[window.groups]
from = ["high", "inverse"]
size = "30s"
every = "10s"
by = ["device.group"]
select = "count(*) AS rows, min(x) AS least, sum(x) AS total"
late = "15s"
out_of_order = "15s"

[window.sessions]
from = "s"
gap = "7s"
by = ["device"]
select = "count(*) AS rows, delta(n)"
out_of_order = "3s"

[window.up]
from = "s"
open = "x > 5"
close = "x < -5"
by = ["device"]
select = "count(*) AS rows, max(x) AS top"

[window.all]
from = ["minute"]
size = "1m"
by = []
select = "sum(rows) AS rows, count(*) AS parts"

[missing.silent]
from = "s"
fields = ["x"]
after = "25s"

[store.kept]
from = ["inverse", "inverse.errors", "rest", "some"]
"#;

fn graph() -> Arc<Graph> {
    graph_of(GRAPH)
}

fn graph_of(text: &str) -> Arc<Graph> {
    let sources = Sources::text("graph.toml", text);
    let mut diagnostics = Diagnostics::default();
    let nothing = |_: crate::value::Reference<'_>| Err("nothing".to_owned());
    let config = Config::read(&sources, &nothing, &mut diagnostics);
    let graph = Graph::new(
        &config,
        &crate::graph::TableSchemas::new(),
        &mut diagnostics,
    );
    let told = diagnostics.render(&sources, false);
    assert!(!diagnostics.has_errors(), "{told}");
    Arc::new(graph)
}

#[derive(Clone, Copy, Debug)]
struct Row {
    device: u8,
    ts: i64,
    x: Option<f64>,
    n: i64,
}

/// Rows that arrive at one time.
#[derive(Clone, Debug)]
struct Group {
    after: i64,
    rows: Vec<Row>,
}

const SECOND: i64 = 1_000_000;
const START: i64 = 1_767_225_600 * SECOND;

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let value = prop_oneof![4 => (-10.0..10.0_f64).prop_map(Some), 1 => Just(None)];
    let row = (0..4_u8, -25..3_i64, value, 0..5_i64).prop_map(|(device, behind, x, n)| Row {
        device,
        ts: behind * SECOND + n,
        x,
        n,
    });
    let after = prop_oneof![3 => 0..3 * SECOND, 1 => 0..40 * SECOND];
    let group = (after, prop::collection::vec(row, 1..8));
    let group = group.prop_map(|(after, rows)| Group { after, rows });
    prop::collection::vec(group, 1..40)
}

/// What is done between two parts of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Nothing: they are one record.
    None,
    /// They are two records.
    Split,
    /// And the engine starts anew between them.
    Restart,
    /// And the graph is read again between them.
    Reload,
}

fn cuts() -> impl Strategy<Value = Vec<Cut>> {
    let cut = prop_oneof![
        6 => Just(Cut::None),
        3 => Just(Cut::Split),
        1 => Just(Cut::Restart),
        1 => Just(Cut::Reload),
    ];
    prop::collection::vec(cut, 1..50)
}

struct Run {
    graph: Arc<Graph>,
    executor: Executor,
    schema: SchemaRef,
    position: i64,
    seen: BTreeMap<String, Vec<(i64, String)>>,
    kept: BTreeMap<(String, u64), NodeState>,
}

impl Run {
    fn new(graph: &Arc<Graph>) -> Self {
        let device = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let fields = vec![
            Field::new(TS, time_type(), false),
            Field::new(DEVICE, device, false),
            Field::new(ARRIVAL, time_type(), false),
            Field::new(POSITION, DataType::Int64, false),
            Field::new("x", DataType::Float64, true),
            Field::new("n", DataType::Int64, true),
        ];
        let mut run = Self {
            graph: graph.clone(),
            executor: Executor::new(graph.clone()),
            schema: Arc::new(Schema::new(fields)),
            position: 1,
            seen: BTreeMap::new(),
            kept: BTreeMap::new(),
        };
        for device in 0..4 {
            let group = format!("g{}", device % 2);
            let name = format!("d{device}");
            let attributes = [("group", group.as_str())];
            run.executor.attributes().set(&name, attributes);
        }
        run.watch();
        run
    }

    fn watch(&mut self) {
        for (number, node) in self.graph.nodes.iter().enumerate() {
            for port in node.ports() {
                self.executor.watch(Origin::Node(number, *port));
            }
        }
    }

    fn begin_anew(&mut self, is_all: bool) {
        for changed in self.executor.changed(is_all) {
            let key = (changed.node.clone(), changed.generation);
            let kept = self.kept.entry(key).or_default();
            (kept.node, kept.generation) = (changed.node, changed.generation);
            if is_all {
                kept.entries.clear();
            }
            for (key, value) in changed.entries {
                match value {
                    Some(value) => kept.entries.insert(key, Some(value)),
                    None => kept.entries.remove(&key),
                };
            }
        }
        self.executor = Executor::new(self.graph.clone());
        for state in self.kept.values() {
            self.executor.restore(state).unwrap();
        }
        self.watch();
    }

    fn record(&mut self, rows: &[Row], now: i64) {
        let times = |times: Vec<i64>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        };
        let names: Vec<String> = rows.iter().map(|row| format!("d{}", row.device)).collect();
        let device: DictionaryArray<Int32Type> =
            names.iter().map(|name| Some(name.as_str())).collect();
        let positions = self.position..self.position + rows.len() as i64;
        self.position = positions.end;
        let columns: Vec<ArrayRef> = vec![
            times(rows.iter().map(|row| now + row.ts).collect()),
            Arc::new(device),
            times(vec![now; rows.len()]),
            Arc::new(Int64Array::from_iter_values(positions)),
            Arc::new(rows.iter().map(|row| row.x).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.n)).collect::<Int64Array>()),
        ];
        let batch = RecordBatch::try_new(self.schema.clone(), columns).unwrap();
        let mut out = Vec::new();
        self.executor
            .record("s", Rows::new(batch).unwrap(), now, &mut out);
        self.settle(out, now);
    }

    /// New rows come back with positions of their own, which do not tell anything.
    fn settle(&mut self, out: Vec<Emission>, now: i64) {
        let mut waiting: VecDeque<Emission> = out.into();
        while let Some(emission) = waiting.pop_front() {
            match emission {
                Emission::View(origin, rows) => {
                    let name = self.graph.name(origin);
                    let rows = lines(rows.batch());
                    self.seen.entry(name).or_default().extend(rows);
                }
                Emission::Derived(number, batch) => {
                    let name = self.graph.nodes[number].name().to_owned();
                    let rows = batch.num_rows();
                    let schema = batch.schema();
                    let mut fields: Vec<Field> = schema
                        .fields()
                        .iter()
                        .map(|field| field.as_ref().clone())
                        .collect();
                    fields.insert(2, Field::new(ARRIVAL, time_type(), false));
                    fields.insert(3, Field::new(POSITION, DataType::Int64, false));
                    let mut columns = batch.columns().to_vec();
                    let arrival = TimestampMicrosecondArray::from(vec![now; rows]);
                    columns.insert(2, Arc::new(arrival.with_timezone("UTC")));
                    columns.insert(3, Arc::new(Int64Array::from(vec![0; rows])));
                    let batch =
                        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
                    let mut out = Vec::new();
                    let rows = Rows::new(batch).unwrap();
                    self.executor.record(&name, rows, now, &mut out);
                    waiting.extend(out);
                }
            }
        }
    }
}

/// Position, and every value of every row, floats to the last bit.
fn lines(batch: &RecordBatch) -> Vec<(i64, String)> {
    let options = FormatOptions::default().with_null("NULL");
    let schema = batch.schema();
    let positions = Rows::new(batch.clone()).unwrap().position().clone();
    (0..batch.num_rows())
        .map(|row| {
            let mut line = String::new();
            for (field, column) in schema.fields().iter().zip(batch.columns()) {
                if field.name() == POSITION {
                    continue;
                }
                let shown = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
                line.push_str(&format!("{}={} ", field.name(), shown.value(row)));
            }
            (positions.value(row), line)
        })
        .collect()
}

fn run(graph: &Arc<Graph>, groups: &[Group], cuts: &[Cut]) -> BTreeMap<String, Vec<(i64, String)>> {
    let mut run = Run::new(graph);
    let mut now = START;
    let mut cuts = cuts.iter().cycle().copied();
    for group in groups {
        now += group.after;
        let mut part: Vec<Row> = Vec::new();
        for row in &group.rows {
            part.push(*row);
            let cut = cuts.next().unwrap_or(Cut::None);
            if cut != Cut::None {
                run.record(&part, now);
                part.clear();
            }
            match cut {
                Cut::Restart => run.begin_anew(false),
                Cut::Reload => run.begin_anew(true),
                Cut::None | Cut::Split => {}
            }
        }
        if !part.is_empty() {
            run.record(&part, now);
        }
    }
    // Time passes until everything has closed.
    for second in 1..200 {
        let mut out = Vec::new();
        let now = now + second * SECOND;
        run.executor.tick(now, &mut out);
        run.settle(out, now);
    }
    // Rows that come to a node by several ways are not in order within a record.
    for rows in run.seen.values_mut() {
        rows.sort_by_key(|(position, _)| *position);
    }
    run.seen
}

#[test]
fn records_restarts_and_reloads_do_not_show() {
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ports = RefCell::new(BTreeSet::new());
    let checked = TestRunner::new(config).run(&(groups(), cuts()), |(groups, cuts)| {
        let graph = graph();
        let whole = run(&graph, &groups, &[Cut::None]);
        let cut = run(&graph, &groups, &cuts);
        for (port, rows) in &whole {
            prop_assert_eq!(Some(rows), cut.get(port), "{}", port);
        }
        prop_assert_eq!(whole.len(), cut.len());
        // What never had a value is not missed.
        let has_value = groups
            .iter()
            .flat_map(|group| &group.rows)
            .any(|row| row.x.is_some());
        prop_assert_eq!(whole.contains_key("silent"), has_value);
        ports.borrow_mut().extend(whole.into_keys());
        Ok(())
    });
    checked.unwrap();
    let ports = ports.into_inner();
    assert!(ports.contains("minute") && ports.contains("silent"));
}

/// Seconds in which each device has a row a second.
fn seconds(run: &mut Run, from: i64, to: i64) {
    for second in from..to {
        let row = |device| Row {
            device,
            ts: 0,
            x: Some(1.0),
            n: second,
        };
        run.record(&[row(0), row(1)], START + second * SECOND);
    }
}

#[test]
fn a_node_that_is_held_sees_nothing_and_the_others_do() {
    let graph = graph();
    let counts = |is_held: bool| {
        let mut run = Run::new(&graph);
        run.executor.hold("minute", is_held);
        seconds(&mut run, 0, 90);
        run.executor.hold("minute", false);
        seconds(&mut run, 90, 200);
        run.seen
    };
    let (held, free) = (counts(true), counts(false));
    assert_eq!(held.get("groups"), free.get("groups"));
    let windows = |seen: &BTreeMap<String, Vec<(i64, String)>>, from: &str| {
        let lines = seen["minute"].iter();
        lines.filter(|(_, line)| line.contains(from)).count()
    };
    assert_eq!(windows(&held, "window_start=2026-01-01T00:00:"), 0);
    assert!(windows(&free, "window_start=2026-01-01T00:00:") > 0);
    let later = "window_start=2026-01-01T00:02:";
    assert_eq!(windows(&held, later), windows(&free, later));
    assert!(windows(&free, later) > 0);
}

#[test]
fn a_lineage_is_that_of_the_views_that_rows_come_through() {
    let lineages = |text: &str| -> BTreeMap<String, u64> {
        let graph = graph_of(text);
        let names = graph.nodes.iter().map(|node| node.name().to_owned());
        names.zip(graph.lineages()).collect()
    };
    let before = lineages(GRAPH);
    let changed = |from: &str, to: &str| -> Vec<String> {
        let text = GRAPH.replace(from, to);
        assert_ne!(graph_of(&text).fingerprint(), graph().fingerprint());
        let after = lineages(&text);
        let names = after.into_iter();
        let names = names.filter(|(name, lineage)| before.get(name) != Some(lineage));
        names.map(|(name, _)| name).collect()
    };
    assert_eq!(lineages(GRAPH), before);
    assert_eq!(graph().fingerprint(), graph().fingerprint());
    assert_eq!(
        changed("x > 0 AND", "x > 1 AND"),
        ["groups", "high", "inverse", "rest"]
    );
    assert_eq!(changed("late = \"20s\"", "late = \"21s\""), ["minute"]);
    assert_eq!(changed("10 / n AS z", "20 / n AS z"), ["groups", "inverse"]);
    assert_eq!(changed("n = \"int64\"", "n = \"float64\""), [""; 0]);
    assert_eq!(changed("\"rest\", \"some\"]", "\"some\"]"), [""; 0]);
}
