//! A route's condition over a batch, and the loop written by hand for the same one: its limit.

use std::sync::Arc;

use arrow_array::{
    Array as _, DictionaryArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    types::Int32Type,
};
use quiver_model::Position;
use quiver_pipeline::{
    Config, Diagnostics, Executor, Graph, Sources,
    execute::{Emission, Rows},
    graph::{Origin, Port, TableSchemas},
};

use crate::{
    Entry, Fault, Kernel,
    data::{self, FIELDS, STREAM, Source},
};

/// About every second row is above.
const THRESHOLD: f64 = 50.0;

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for rows in [10, 10_000] {
        let name = format!("predicate/{rows}");
        entries.push(Entry::new("route", name.clone(), rows as u64, move || {
            Predicate::new(rows)
        }));
        entries.push(Entry::new(
            "route",
            format!("{name}/by_hand"),
            rows as u64,
            move || Ok(ByHand(stored(rows)?)),
        ));
    }
    entries
}

/// A row of each of many devices, as stored.
fn stored(rows: usize) -> Result<RecordBatch, Fault> {
    let schema = data::stream_schema(FIELDS)?;
    let mut gateway = Source::gateway(0, rows as u64, rows, FIELDS)?;
    let batch = gateway.batch(rows)?;
    let (_, checked) = data::check(&batch, &schema, gateway.sender())?;
    Ok(checked.place(Position(1), data::NOW)?)
}

/// A graph with one route, whose rows somebody looks at.
struct Predicate {
    executor: Executor,
    batch: RecordBatch,
    out: Vec<Emission>,
}

impl Predicate {
    fn new(rows: usize) -> Result<Self, Fault> {
        let sources = Sources::text(
            "graph.toml",
            format!(
                "[stream.{STREAM}.fields]\nvalue_0 = \"float64\"\n\
                 [route.high]\nfrom = \"{STREAM}\"\nwhere = \"value_0 > {THRESHOLD:?}\"\n\
                 [store.kept]\nfrom = \"high\"\n"
            ),
        );
        let mut diagnostics = Diagnostics::default();
        let nothing = |_: quiver_pipeline::value::Reference<'_>| Err("nothing".to_owned());
        let config = Config::read(&sources, &nothing, &mut diagnostics);
        let graph = Graph::new(&config, &TableSchemas::new(), &mut diagnostics);
        if diagnostics.has_errors() {
            return Err(diagnostics.render(&sources, false).into());
        }
        let mut executor = Executor::new(Arc::new(graph));
        executor.watch(Origin::Node(0, Port::Out));
        Ok(Self {
            executor,
            batch: stored(rows)?,
            out: Vec::new(),
        })
    }

    fn seen(&self) -> u64 {
        let counters = self.executor.counters().first();
        counters.map_or(0, |counters| counters.rows_in)
    }
}

impl Kernel for Predicate {
    fn prepare(&mut self) -> Result<(), Fault> {
        self.out.clear();
        Ok(())
    }

    fn run(&mut self) -> Result<u64, Fault> {
        let before = self.seen();
        let rows = Rows::new(self.batch.clone())?;
        let time = data::NOW.as_micros();
        self.executor.record(STREAM, rows, time, &mut self.out);
        if self.out.is_empty() {
            return Err("no row met the condition".into());
        }
        Ok(self.seen() - before)
    }
}

/// The rows above the threshold, column by column.
struct ByHand(RecordBatch);

impl Kernel for ByHand {
    fn run(&mut self) -> Result<u64, Fault> {
        let columns = self.0.columns();
        let any = |number: usize| columns.get(number).map(|column| column.as_any());
        let times = |number: usize| {
            let column = any(number)?.downcast_ref::<TimestampMicrosecondArray>()?;
            Some(column.values())
        };
        let (ts, arrival) = times(0).zip(times(2)).ok_or("no times")?;
        let devices = any(1).and_then(|any| any.downcast_ref::<DictionaryArray<Int32Type>>());
        let devices = devices.ok_or("no devices")?.keys().values();
        let positions = any(3).and_then(|any| any.downcast_ref::<Int64Array>());
        let positions = positions.ok_or("no positions")?.values();
        let mut fields: [&[f64]; FIELDS] = [&[]; FIELDS];
        for (number, slice) in fields.iter_mut().enumerate() {
            let column = any(4 + number).and_then(|any| any.downcast_ref::<Float64Array>());
            *slice = column.ok_or("no field")?.values();
        }
        let mut passed = Vec::with_capacity(self.0.num_rows());
        for (row, value) in fields[0].iter().enumerate() {
            if *value > THRESHOLD {
                passed.push(row);
            }
        }
        if passed.is_empty() {
            return Err("no row met the condition".into());
        }
        let ints = |values: &[i64]| -> Vec<i64> { passed.iter().map(|row| values[*row]).collect() };
        let floats =
            |values: &[f64]| -> Vec<f64> { passed.iter().map(|row| values[*row]).collect() };
        let devices: Vec<i32> = passed.iter().map(|row| devices[*row]).collect();
        std::hint::black_box((
            ints(ts),
            devices,
            ints(arrival),
            ints(positions),
            fields.map(floats),
        ));
        Ok(self.0.num_rows() as u64)
    }
}
