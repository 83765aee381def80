//! A configuration as it is written: streams, stores and nodes, typed, with their places.
//!
//! Only what a table says by itself is judged here; names and expressions are the graph's.

mod duration;
mod node;
mod reader;
mod stream;
mod tests_of;

use crate::{
    diagnostics::{Diagnostic, Diagnostics},
    secrets::Secrets,
    source::{Located, Place, Sources},
    value::{self, Lookup, Table, Value},
};

pub use duration::{duration_text, parse_duration};
pub use node::{
    Emission, LookupConfig, LookupTable, MapConfig, MissingConfig, NodeConfig, NodeKind,
    RouteConfig, Shape, WindowConfig,
};
pub(crate) use reader::{TableReader, listed};
pub use stream::{FieldConfig, Mode, StoreConfig, StreamConfig};
pub use tests_of::{Expectation, InputRow, Step, TestConfig};

/// The sections of a configuration that make nodes, in the order of a graph.
pub const NODE_SECTIONS: [&str; 8] = [
    "route", "map", "lookup", "window", "missing", "detect", "alert", "action",
];

/// A configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Declared streams.
    pub streams: Vec<StreamConfig>,
    /// What is kept, where, for how long.
    pub stores: Vec<StoreConfig>,
    /// Everything with inputs.
    pub nodes: Vec<NodeConfig>,
    /// Its tests.
    pub tests: Vec<TestConfig>,
    /// What came from outside, and is not shown.
    pub secrets: Secrets,
}

impl Config {
    /// Reads the files of a configuration. What is wrong is told, and left out.
    pub fn read(sources: &Sources, lookup: Lookup<'_>, diagnostics: &mut Diagnostics) -> Self {
        let mut config = Self::default();
        for table in value::tables(sources, lookup, diagnostics) {
            config.add(&table, diagnostics);
        }
        config.refuse_double_names(diagnostics);
        if !diagnostics.has_errors() && config.is_empty() {
            let place = Place {
                file: 0,
                span: 0..0,
            };
            let problem = Diagnostic::warning("there is nothing in this configuration", place);
            diagnostics.push(problem.help("begin with a stream: `[stream.readings]`"));
        }
        config.secrets = diagnostics.secrets.clone();
        config
    }

    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.stores.is_empty() && self.nodes.is_empty()
    }

    fn add(&mut self, file: &Table, diagnostics: &mut Diagnostics) {
        for (section, value) in &file.entries {
            let name = section.value.as_str();
            if name == "test" {
                self.tests.extend(tests_of::read(value, diagnostics));
                continue;
            }
            let kind = NODE_SECTIONS.iter().find(|kind| **kind == name).copied();
            if kind.is_none() && name != "stream" && name != "store" {
                let mut known = vec!["stream".to_owned(), "store".to_owned(), "test".to_owned()];
                known.extend(NODE_SECTIONS.map(str::to_owned));
                let help = match quiver_model::meant(name, known.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there is {}", listed(&known)),
                };
                let message = format!("there is no section `{name}`");
                diagnostics.push(Diagnostic::error(message, section.place.clone()).help(help));
                continue;
            }
            for (named, value) in named_tables(section, value, diagnostics) {
                let Value::Table(table) = &value.value else {
                    continue;
                };
                let subject = format!("{name} `{}`", named.value);
                let place = named.place.clone();
                let reader = TableReader::new(table, subject, place, diagnostics);
                match (name, kind) {
                    ("stream", _) => self.streams.push(stream::read_stream(named, reader)),
                    ("store", _) => self.stores.push(stream::read_store(named, reader)),
                    (_, Some(kind)) => self.nodes.push(node::read(kind, named, reader)),
                    _ => {}
                }
            }
        }
    }

    /// Streams and nodes have names of one kind: a node's output is a stream.
    fn refuse_double_names(&self, diagnostics: &mut Diagnostics) {
        let streams = self.streams.iter().map(|stream| &stream.name);
        let nodes = self.nodes.iter().map(|node| &node.name);
        let mut seen: Vec<&Located<String>> = Vec::new();
        for name in streams.chain(nodes) {
            if let Some(first) = seen.iter().find(|seen| seen.value == name.value) {
                let message = format!("there are two streams or nodes `{}`", name.value);
                diagnostics.push(
                    Diagnostic::error(message, name.place.clone())
                        .related(first.place.clone(), "the first is here")
                        .help("a node's output is a stream of the same name: rename one of them"),
                );
            }
            seen.push(name);
        }
        let mut seen: Vec<&Located<String>> = Vec::new();
        for store in &self.stores {
            if let Some(first) = seen.iter().find(|seen| seen.value == store.name.value) {
                let message = format!("there are two stores `{}`", store.name.value);
                diagnostics.push(
                    Diagnostic::error(message, store.name.place.clone())
                        .related(first.place.clone(), "the first is here"),
                );
            }
            seen.push(&store.name);
        }
    }
}

/// The tables of a section by name.
fn named_tables<'a>(
    section: &Located<String>,
    value: &'a Located<Value>,
    diagnostics: &mut Diagnostics,
) -> Vec<(Located<String>, &'a Located<Value>)> {
    let Value::Table(table) = &value.value else {
        let message = format!("`{}` is {}", section.value, value.value.word());
        diagnostics.push(
            Diagnostic::error(message, value.place.clone())
                .help(format!("name what it is of: `[{}.name]`", section.value)),
        );
        return Vec::new();
    };
    let mut tables = Vec::with_capacity(table.entries.len());
    for (name, value) in &table.entries {
        if !matches!(value.value, Value::Table(_)) {
            let message = format!(
                "`{}.{}` is {}",
                section.value,
                name.value,
                value.value.word()
            );
            diagnostics.push(
                Diagnostic::error(message, name.place.clone())
                    .help(format!("name what it is of: `[{}.name]`", section.value)),
            );
            continue;
        }
        if let Some(problem) = wrong_name(&name.value) {
            diagnostics.push(
                Diagnostic::error(
                    format!(
                        "{} cannot be called `{}`: {problem}",
                        section.value, name.value
                    ),
                    name.place.clone(),
                )
                .help("a name is [a-z][a-z0-9_]{0,62}"),
            );
            continue;
        }
        tables.push((name.clone(), value));
    }
    tables
}

/// What is wrong with a name of a stream or node.
fn wrong_name(name: &str) -> Option<&'static str> {
    if quiver_model::StreamName::new(name).is_err() {
        return Some("it is no name of a stream");
    }
    if name.starts_with("quiver_") {
        return Some("names with `quiver_` are the engine's");
    }
    None
}
