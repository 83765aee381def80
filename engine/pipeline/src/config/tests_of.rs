//! Tests of a configuration as they are written.
//!
//! ```toml
//! [[test]]
//! name = "a hot engine is found"
//! devices = { truck_1 = { fleet = "west" } }
//! steps = [
//!   { input = "readings", rows = [{ ts = "10:00:00", device = "truck_1", coolant_temp = 95.0 }] },
//!   { advance = "5m" },
//!   { restart = true },
//!   { expect = "hot_engines", rows = [{ device = "truck_1", coolant_temp = 95.0 }] },
//!   { expect = "hot_engines.errors", count = 0 },
//! ]
//! ```

use std::collections::BTreeMap;

use crate::{
    config::TableReader,
    diagnostics::{Diagnostic, Diagnostics},
    source::{Located, Place},
    value::{Table, Text, Value},
};

/// A test.
#[derive(Clone, Debug)]
pub struct TestConfig {
    /// Its name.
    pub name: Located<Text>,
    /// Devices and their attributes.
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
    /// When it begins: what times without a date are of.
    pub start: Option<Located<Text>>,
    /// What is done.
    pub steps: Vec<Located<Step>>,
}

/// A row: columns by name, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct InputRow {
    /// The columns.
    pub columns: Vec<(Located<String>, Located<Value>)>,
    /// Where it stands.
    pub place: Place,
}

/// What is expected of a port.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// These rows: in this order, or in any. A row that is expected has the columns that are named.
    Rows {
        /// The rows.
        rows: Vec<InputRow>,
        /// Whether they may come in any order.
        is_any_order: bool,
    },
    /// So many rows.
    Count(i64),
}

/// A step.
#[derive(Clone, Debug)]
pub enum Step {
    /// Rows come.
    Input {
        /// On this stream.
        stream: Located<Text>,
        /// The rows.
        rows: Vec<InputRow>,
    },
    /// Time passes, in microseconds.
    Advance(i64),
    /// The engine is stopped and started again.
    Restart,
    /// What has come out of a port since the last time that somebody looked.
    Expect {
        /// The port: `node`, `node.late`, a stream.
        port: Located<Text>,
        /// What is expected of it.
        what: Expectation,
    },
}

pub(crate) fn read(value: &Located<Value>, diagnostics: &mut Diagnostics) -> Vec<TestConfig> {
    let Value::List(items) = &value.value else {
        let problem = Diagnostic::error("`test` is a list of tables", value.place.clone());
        diagnostics.push(problem.help("write `[[test]]`"));
        return Vec::new();
    };
    let tests = items.iter().filter_map(|item| {
        let Value::Table(table) = &item.value else {
            return None;
        };
        let name = table.get("name").map_or("", |(_, name)| match &name.value {
            Value::Text(text) => text.value.as_str(),
            _ => "",
        });
        let subject = format!("test {name:?}");
        let place = item.place.clone();
        let mut reader = TableReader::new(table, subject, place, diagnostics);
        let name = reader.required_text("name", "\"what it shows\"");
        let start = reader.text("start");
        let devices = devices(&mut reader);
        let steps = steps(&mut reader);
        reader.finish();
        Some(TestConfig {
            name: name?,
            devices,
            start,
            steps,
        })
    });
    tests.collect()
}

fn devices(reader: &mut TableReader<'_>) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut devices = BTreeMap::new();
    let Some((table, _)) = reader.table("devices") else {
        return devices;
    };
    for (device, value) in &table.entries {
        let mut attributes = BTreeMap::new();
        match &value.value {
            Value::Table(table) => {
                for (key, value) in &table.entries {
                    match &value.value {
                        Value::Text(text) => {
                            attributes.insert(key.value.clone(), text.value.clone());
                        }
                        _ => reader.invalid("devices", "attributes are texts", value.place.clone()),
                    }
                }
            }
            _ => reader.invalid(
                "devices",
                "write `devices = { truck_1 = { fleet = \"west\" } }`",
                value.place.clone(),
            ),
        }
        devices.insert(device.value.clone(), attributes);
    }
    devices
}

fn steps(reader: &mut TableReader<'_>) -> Vec<Located<Step>> {
    // `[[test.step]]` and `steps = [...]` are the same.
    let key = if reader.any("step").is_some() {
        "step"
    } else {
        "steps"
    };
    let value = if key == "step" {
        reader.any("step")
    } else {
        reader.any("steps")
    };
    let Some(value) = value else {
        reader.missing(
            "steps",
            "[{ input = \"readings\", rows = […] }, { expect = \"node\", rows = […] }]",
        );
        return Vec::new();
    };
    let Value::List(items) = &value.value else {
        reader.invalid(key, "it is a list", value.place.clone());
        return Vec::new();
    };
    let mut steps = Vec::with_capacity(items.len());
    for item in items {
        let Value::Table(table) = &item.value else {
            reader.invalid(key, "a step is a table", item.place.clone());
            continue;
        };
        let subject = format!("a step of {}", reader.subject);
        let place = item.place.clone();
        let inner = TableReader::new(table, subject, place, reader.diagnostics);
        if let Some(step) = step(inner) {
            steps.push(Located::new(step, item.place.clone()));
        }
    }
    steps
}

fn step(mut reader: TableReader<'_>) -> Option<Step> {
    let input = reader.text("input");
    let advance = reader.duration("advance");
    let restart = reader.boolean("restart");
    let expect = reader.text("expect");
    let rows = rows(&mut reader);
    let count = reader.integer("count");
    let is_any_order = reader.boolean("any_order").is_some_and(|any| any.value);
    let place = reader.place.clone();
    let step = match (input, advance, restart, expect) {
        (Some(stream), None, None, None) => Some(Step::Input {
            stream,
            rows: rows.unwrap_or_default(),
        }),
        (None, Some(advance), None, None) => Some(Step::Advance(advance.value)),
        (None, None, Some(_), None) => Some(Step::Restart),
        (None, None, None, Some(port)) => {
            let what = match (rows, count) {
                (Some(rows), None) => Some(Expectation::Rows { rows, is_any_order }),
                (None, Some(count)) => Some(Expectation::Count(count.value)),
                _ => None,
            };
            if what.is_none() {
                let problem = Diagnostic::error("what is expected is not clear", place);
                reader
                    .diagnostics
                    .push(problem.help("write either `rows = [{ … }]` or `count = 3`"));
            }
            what.map(|what| Step::Expect { port, what })
        }
        _ => {
            let problem = Diagnostic::error("a step does one thing", place);
            reader
                .diagnostics
                .push(problem.help("write one of `input`, `advance`, `restart`, `expect`"));
            None
        }
    };
    reader.finish();
    step
}

fn rows(reader: &mut TableReader<'_>) -> Option<Vec<InputRow>> {
    let value = reader.any("rows")?;
    let Value::List(items) = &value.value else {
        reader.invalid("rows", "it is a list of tables", value.place.clone());
        return None;
    };
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        match &item.value {
            Value::Table(Table { entries }) => rows.push(InputRow {
                columns: entries.clone(),
                place: item.place.clone(),
            }),
            _ => reader.invalid("rows", "a row is a table", item.place.clone()),
        }
    }
    Some(rows)
}
