//! Whether a test speaks of things that there are.

use std::collections::BTreeMap;

use quiver_model::{ARRIVAL, DEVICE, POSITION, TS, meant};

use crate::{
    config::{Config, Expectation, InputRow, Step, TestConfig},
    diagnostics::{Diagnostic, Diagnostics},
    graph::{Columns, Graph, Origin},
    source::{Located, Place},
    testing::{input, time},
    value::{Text, Value},
};

pub(crate) fn check(config: &Config, graph: &Graph, diagnostics: &mut Diagnostics) {
    let mut names: BTreeMap<&str, &Place> = BTreeMap::new();
    for test in &config.tests {
        let place = &test.name.place;
        if let Some(first) = names.insert(test.name.as_str(), place) {
            let message = format!("there are two tests {:?}", test.name.as_str());
            diagnostics.push(
                Diagnostic::warning(message, place.clone())
                    .related(first.clone(), "the first is here")
                    .help("`--only` and reports tell tests apart by their names"),
            );
        }
        if test.steps.is_empty() {
            let message = format!("test {:?} has no steps", test.name.as_str());
            diagnostics.push(
                Diagnostic::warning(message, place.clone())
                    .help("a test that expects nothing passes always: give it an `expect`"),
            );
        }
        let start = match &test.start {
            None => time::START,
            Some(start) => match time::parse(&Value::Text(start.value.clone()), time::START) {
                Ok(start) => start,
                Err(problem) => {
                    diagnostics.push(Diagnostic::error(problem, start.place.clone()));
                    continue;
                }
            },
        };
        let mut checker = Checker {
            graph,
            start,
            diagnostics,
        };
        checker.test(test);
    }
}

struct Checker<'a> {
    graph: &'a Graph,
    start: i64,
    diagnostics: &'a mut Diagnostics,
}

impl Checker<'_> {
    fn test(&mut self, test: &TestConfig) {
        for step in &test.steps {
            match &step.value {
                Step::Input { stream, rows } => self.input(stream, rows),
                Step::Expect { port, what } => self.expect(port, what),
                Step::Advance(_) | Step::Restart => {}
            }
        }
        let declared = |stream: &str| {
            let origin = self.graph.find(stream);
            origin.map_or_else(Columns::unknown, |origin| self.graph.columns(origin))
        };
        if let Err((place, problem)) = input::schemas(test, declared) {
            self.diagnostics.push(Diagnostic::error(problem, place));
        }
    }

    fn names(&self) -> Vec<String> {
        let nodes = self.graph.nodes.iter().map(|node| node.name().to_owned());
        let streams = self.graph.streams.iter().map(|stream| stream.name.clone());
        nodes.chain(streams).collect()
    }

    fn unknown(&mut self, name: &Located<Text>, what: &str) {
        let base = name.as_str().split('.').next().unwrap_or_default();
        let help = meant(base, self.names()).map(|near| format!("did you mean `{near}`?"));
        let message = format!("there is no {what} `{}`", name.as_str());
        self.diagnostics
            .push(Diagnostic::error(message, name.place.clone()).maybe_help(help));
    }

    fn input(&mut self, stream: &Located<Text>, rows: &[InputRow]) {
        match self.graph.find(stream.as_str()) {
            Some(origin @ Origin::Stream(_)) => {
                let columns = self.graph.columns(origin);
                for row in rows {
                    self.columns(row, &columns, &[TS, DEVICE, ARRIVAL], stream.as_str());
                    if let Err((place, problem)) = input::timed(row, self.start) {
                        self.diagnostics.push(Diagnostic::error(problem, place));
                    }
                }
            }
            Some(Origin::Node(..)) => {
                let message = format!("`{}` is a node: its rows are its own", stream.as_str());
                self.diagnostics.push(
                    Diagnostic::error(message, stream.place.clone())
                        .help("give rows to the streams that it takes them from"),
                );
            }
            None => self.unknown(stream, "stream"),
        }
    }

    fn expect(&mut self, port: &Located<Text>, what: &Expectation) {
        let Some(origin) = self.graph.find(port.as_str()) else {
            self.unknown(port, "stream, node or port");
            return;
        };
        let Expectation::Rows { rows, .. } = what else {
            return;
        };
        let columns = self.graph.columns(origin);
        for row in rows {
            self.columns(
                row,
                &columns,
                &[TS, DEVICE, ARRIVAL, POSITION],
                port.as_str(),
            );
        }
    }

    fn columns(&mut self, row: &InputRow, columns: &Columns, fixed: &[&str], subject: &str) {
        if columns.is_open {
            return;
        }
        for (name, _) in &row.columns {
            let is_known = fixed.contains(&name.value.as_str())
                || columns.fields.iter().any(|(field, _)| *field == name.value);
            if is_known {
                continue;
            }
            let names = columns.fields.iter().map(|(field, _)| field.clone());
            let help = meant(&name.value, names).map(|near| format!("did you mean `{near}`?"));
            let message = format!("`{subject}` has no column `{}`", name.value);
            self.diagnostics
                .push(Diagnostic::error(message, name.place.clone()).maybe_help(help));
        }
    }
}
