//! Running a test.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{Field, Schema};
use quiver_model::{ARRIVAL, DEVICE, POSITION, TS};

use crate::{
    config::{Expectation, InputRow, Step, TestConfig},
    execute::{Emission, Executor, NodeState, Rows, TICK},
    graph::{Columns, Graph, Origin, time_type},
    source::{Located, Place},
    testing::{
        compare::{Got, difference, got_text},
        input::{self, Arriving, Problem},
        time,
    },
    value::Value,
};

/// The reference tables of lookups, by node.
pub type Tables = BTreeMap<String, RecordBatch>;

/// Longest time that a test lets pass in one step.
const ADVANCE_MAX: i64 = 366 * 86_400 * 1_000_000;

/// Something that was not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub place: Place,
    /// What was expected and what came, in one sentence.
    pub message: String,
    /// The rows: lines with `-` did not come, lines with `+` were not expected.
    pub difference: Option<String>,
}

/// What came of a test.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// What was not as expected; nothing, if it passed.
    pub failures: Vec<Failure>,
    /// Steps that were done: a problem of a step that is no expectation ends the test.
    pub steps: usize,
}

/// Runs a test of a graph that has checked without errors.
pub fn run(graph: &Arc<Graph>, test: &TestConfig, tables: &Tables) -> Outcome {
    let mut outcome = carry_out(graph, test, tables);
    graph.secrets.mask(&mut outcome.name);
    for failure in &mut outcome.failures {
        graph.secrets.mask(&mut failure.message);
        failure
            .difference
            .iter_mut()
            .for_each(|text| graph.secrets.mask(text));
    }
    outcome
}

fn carry_out(graph: &Arc<Graph>, test: &TestConfig, tables: &Tables) -> Outcome {
    let mut outcome = Outcome {
        name: test.name.as_str().to_owned(),
        place: test.name.place.clone(),
        failures: Vec::new(),
        steps: 0,
    };
    let mut runner = match Runner::new(graph, test, tables) {
        Ok(runner) => runner,
        Err((place, message)) => {
            outcome.failures.push(Failure {
                place,
                message,
                difference: None,
            });
            return outcome;
        }
    };
    for step in &test.steps {
        match runner.step(step) {
            Ok(None) => {}
            Ok(Some(failure)) => outcome.failures.push(failure),
            Err((place, message)) => {
                outcome.failures.push(Failure {
                    place,
                    message,
                    difference: None,
                });
                return outcome;
            }
        }
        outcome.steps += 1;
    }
    outcome
}

struct Runner<'a> {
    graph: &'a Arc<Graph>,
    test: &'a TestConfig,
    tables: &'a Tables,
    executor: Executor,
    schemas: BTreeMap<String, arrow_schema::SchemaRef>,
    start: i64,
    now: i64,
    position: i64,
    seen: BTreeMap<Origin, Vec<Got>>,
    /// What nodes remembered, as a checkpoint has it.
    states: BTreeMap<(String, u64), NodeState>,
}

impl<'a> Runner<'a> {
    fn new(
        graph: &'a Arc<Graph>,
        test: &'a TestConfig,
        tables: &'a Tables,
    ) -> Result<Self, Problem> {
        let start = match &test.start {
            None => time::START,
            Some(start) => time::parse(&Value::Text(start.value.clone()), time::START)
                .map_err(|problem| (start.place.clone(), problem))?,
        };
        let declared = |stream: &str| {
            let origin = graph.find(stream);
            origin.map_or_else(Columns::unknown, |origin| graph.columns(origin))
        };
        Ok(Self {
            graph,
            test,
            tables,
            executor: executor(graph, test, tables)?,
            schemas: input::schemas(test, declared)?,
            start,
            now: start,
            position: 1,
            seen: BTreeMap::new(),
            states: BTreeMap::new(),
        })
    }

    fn step(&mut self, step: &Located<Step>) -> Result<Option<Failure>, Problem> {
        match &step.value {
            Step::Input { stream, rows } => self.input(stream.as_str(), rows)?,
            Step::Advance(span) => {
                if !(0..=ADVANCE_MAX).contains(span) {
                    let problem = "time passes by 0 to 366 days in a step".to_owned();
                    return Err((step.place.clone(), problem));
                }
                self.pass_to(self.now.saturating_add(*span));
            }
            Step::Restart => self.restart(&step.place)?,
            Step::Expect { port, what } => {
                let Some(origin) = self.graph.find(port.as_str()) else {
                    let problem = format!("there is no `{}`", port.as_str());
                    return Err((port.place.clone(), problem));
                };
                let got = self.seen.remove(&origin).unwrap_or_default();
                return Ok(self.judge(port.as_str(), &step.place, what, &got));
            }
        }
        Ok(None)
    }

    fn judge(&self, port: &str, place: &Place, what: &Expectation, got: &[Got]) -> Option<Failure> {
        let rows = |count: usize| match count {
            1 => "1 row".to_owned(),
            count => format!("{count} rows"),
        };
        let failure = |message, difference| {
            Some(Failure {
                place: place.clone(),
                message,
                difference,
            })
        };
        match what {
            Expectation::Count(count) if usize::try_from(*count) == Ok(got.len()) => None,
            Expectation::Count(count) => {
                let lines: Vec<String> = got
                    .iter()
                    .take(20)
                    .map(|got| format!("+ {}", got_text(got, &[])))
                    .collect();
                failure(
                    format!("expected {count} rows of `{port}`, got {}", got.len()),
                    (!lines.is_empty()).then(|| lines.join("\n")),
                )
            }
            Expectation::Rows {
                rows: expected,
                is_any_order,
            } => {
                let found = difference(expected, got, *is_any_order, self.start)?;
                let message = if expected.len() == got.len() {
                    format!("{} of `{port}` came, but not as expected", rows(got.len()))
                } else {
                    format!(
                        "expected {} of `{port}`, got {}",
                        rows(expected.len()),
                        got.len()
                    )
                };
                failure(message, Some(found))
            }
        }
    }

    /// Rows come: those that arrive at one time are one record.
    fn input(&mut self, stream: &str, rows: &[InputRow]) -> Result<(), Problem> {
        let Some(schema) = self.schemas.get(stream).cloned() else {
            return Ok(());
        };
        let mut arriving: Vec<Arriving<'_>> = Vec::new();
        for row in rows {
            let timed = input::timed(row, self.start)?;
            let ts = timed.ts.or(timed.arrival).unwrap_or(self.now);
            let arrival = timed.arrival.unwrap_or(ts.max(self.now));
            if timed.arrival.is_some() && arrival < self.now {
                let problem = format!(
                    "the row arrives at {}, and it is {} already: rows are in the order of their arrival",
                    time::text(arrival),
                    time::text(self.now)
                );
                return Err((row.place.clone(), problem));
            }
            if arrival != self.now && !arriving.is_empty() {
                self.record(stream, &arriving, &schema)?;
                arriving.clear();
            }
            self.pass_to(arrival);
            arriving.push(Arriving {
                row,
                device: timed.device,
                ts,
                arrival,
            });
        }
        if !arriving.is_empty() {
            self.record(stream, &arriving, &schema)?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        stream: &str,
        arriving: &[Arriving<'_>],
        schema: &arrow_schema::SchemaRef,
    ) -> Result<(), Problem> {
        let rows = input::rows(arriving, schema, self.position, self.start)?;
        self.position += arriving.len() as i64;
        let mut out = Vec::new();
        self.executor.record(stream, rows, self.now, &mut out);
        self.settle(out);
        Ok(())
    }

    /// Time passes, second by second, as ticks in the log say it.
    fn pass_to(&mut self, until: i64) {
        let mut second = self.now.div_euclid(TICK) * TICK;
        while second + TICK <= until {
            second += TICK;
            let mut out = Vec::new();
            self.executor.tick(second, &mut out);
            self.now = second;
            if !out.is_empty() {
                self.settle(out);
            }
        }
        self.now = self.now.max(until);
    }

    /// What nodes put out enters the log, and comes back as records, until nothing new comes.
    fn settle(&mut self, out: Vec<Emission>) {
        let mut waiting: VecDeque<Emission> = out.into();
        while let Some(emission) = waiting.pop_front() {
            match emission {
                Emission::View(origin, rows) => {
                    let batch = rows.batch().clone();
                    let got = (0..batch.num_rows()).map(|row| Got {
                        batch: batch.clone(),
                        row,
                    });
                    self.seen.entry(origin).or_default().extend(got);
                }
                Emission::Derived(node, batch) => {
                    let Some(rows) = self.stored(&batch) else {
                        continue;
                    };
                    self.position += rows.len() as i64;
                    let name = self.graph.nodes[node].name().to_owned();
                    let mut out = Vec::new();
                    self.executor.record(&name, rows, self.now, &mut out);
                    waiting.extend(out);
                }
            }
        }
    }

    /// New rows as the log stores them.
    fn stored(&self, batch: &RecordBatch) -> Option<Rows> {
        let rows = batch.num_rows();
        let schema = batch.schema();
        let mut fields = vec![
            schema.field_with_name(TS).ok()?.clone(),
            schema.field_with_name(DEVICE).ok()?.clone(),
            Field::new(ARRIVAL, time_type(), false),
            Field::new(POSITION, arrow_schema::DataType::Int64, false),
        ];
        let arrival = vec![self.now; rows];
        let positions = self.position..self.position + rows as i64;
        let mut columns: Vec<ArrayRef> = vec![
            batch.column_by_name(TS)?.clone(),
            batch.column_by_name(DEVICE)?.clone(),
            Arc::new(TimestampMicrosecondArray::from(arrival).with_timezone("UTC")),
            Arc::new(Int64Array::from_iter_values(positions)),
        ];
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            if ![TS, DEVICE].contains(&field.name().as_str()) {
                fields.push(field.as_ref().clone());
                columns.push(column.clone());
            }
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()?;
        Rows::new(batch).ok()
    }

    /// The engine is stopped and started: only what a checkpoint has is left.
    fn restart(&mut self, place: &Place) -> Result<(), Problem> {
        for changed in self.executor.changed(false) {
            let key = (changed.node.clone(), changed.generation);
            let state = self.states.entry(key).or_insert_with(|| NodeState {
                node: changed.node.clone(),
                generation: changed.generation,
                entries: BTreeMap::new(),
            });
            for (key, value) in changed.entries {
                match value {
                    Some(value) => state.entries.insert(key, Some(value)),
                    None => state.entries.remove(&key),
                };
            }
        }
        let mut next = executor(self.graph, self.test, self.tables)?;
        for state in self.states.values() {
            next.restore(state)
                .map_err(|error| (place.clone(), error.to_string()))?;
        }
        self.executor = next;
        Ok(())
    }
}

/// An executor that knows the test's devices and tables, and shows the ports it looks at.
fn executor(graph: &Arc<Graph>, test: &TestConfig, tables: &Tables) -> Result<Executor, Problem> {
    let mut executor = Executor::new(Arc::clone(graph));
    for (device, attributes) in &test.devices {
        let attributes = attributes
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        executor.attributes().set(device, attributes);
    }
    for (node, table) in tables {
        executor
            .load(node, table)
            .map_err(|problem| (test.name.place.clone(), problem))?;
    }
    for step in &test.steps {
        if let Step::Expect { port, .. } = &step.value
            && let Some(origin) = graph.find(port.as_str())
        {
            executor.watch(origin);
        }
    }
    Ok(executor)
}
