//! The graph: what is connected with what, and in which order it is evaluated.
//!
//! ```text
//! Config ─connect─▶ nodes and ports, cycles refused ─check─▶ columns of each port, expressions compiled
//! ```

mod check;
mod columns;
mod connect;
mod identity;
mod paths;
mod retention;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use arrow_schema::SchemaRef;

use crate::{
    config::{Config, NodeConfig, NodeKind, StoreConfig, StreamConfig},
    diagnostics::Diagnostics,
    secrets::Secrets,
    source::Place,
};

pub use check::aggregate_type;
pub(crate) use check::last_streams;
pub use columns::{
    Columns, ERROR_REASON, LATE_REASON, REVISION, WINDOW_END, WINDOW_SIZE, WINDOW_START,
};
pub(crate) use columns::{is_field, time_type};

/// An output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// What it is for.
    Out,
    /// Rows that came too late for their window.
    Late,
    /// Rows for which an expression has no value, with the reason.
    Errors,
}

impl Port {
    /// As it is written behind a node's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Late => "late",
            Self::Errors => "errors",
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A stream that devices send: its number in [`Graph::streams`].
    Stream(usize),
    /// A port of a node: its number in [`Graph::nodes`].
    Node(usize, Port),
}

/// A stream that devices send.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// How it is declared, if it is.
    pub declared: Option<StreamConfig>,
}

/// An input of a node.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Whose rows.
    pub origin: Origin,
    /// Where it is written.
    pub place: Place,
}

/// A node and what is connected with it.
#[derive(Clone, Debug)]
pub struct Node {
    /// As it is written.
    pub config: NodeConfig,
    /// Its inputs.
    pub inputs: Vec<Edge>,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name.value
    }

    /// Its ports.
    pub fn ports(&self) -> &'static [Port] {
        ports_of(&self.config.kind)
    }

    /// Its section in the configuration.
    pub fn section(&self) -> &'static str {
        match &self.config.kind {
            NodeKind::Route(_) => "route",
            NodeKind::Map(_) => "map",
            NodeKind::Lookup(_) => "lookup",
            NodeKind::Window(_) => "window",
            NodeKind::Missing(_) => "missing",
            NodeKind::Later { section, .. } => section,
        }
    }

    /// Whether what it puts out are new rows, which enter the log, rather than a view of others.
    pub fn is_derived(&self) -> bool {
        matches!(self.config.kind, NodeKind::Window(_) | NodeKind::Missing(_))
    }
}

/// The ports of a kind of node.
pub(crate) fn ports_of(kind: &NodeKind) -> &'static [Port] {
    match kind {
        NodeKind::Route(_) | NodeKind::Map(_) | NodeKind::Lookup(_) => &[Port::Out, Port::Errors],
        NodeKind::Window(_) => &[Port::Out, Port::Late, Port::Errors],
        NodeKind::Missing(_) | NodeKind::Later { .. } => &[Port::Out],
    }
}

/// What a store keeps.
#[derive(Clone, Debug)]
pub struct Store {
    /// As it is written.
    pub config: StoreConfig,
    /// Whose rows.
    pub inputs: Vec<Edge>,
}

/// A graph without cycles.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// What devices send.
    pub streams: Vec<Stream>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What is kept.
    pub stores: Vec<Store>,
    /// Numbers of the nodes, each behind those whose rows it takes.
    pub order: Vec<usize>,
    columns: check::Ports,
    /// Last values that expressions ask for: stream and field.
    pub lasts: BTreeSet<(String, String)>,
    /// What came into the configuration from outside, and is not shown.
    pub secrets: Secrets,
}

/// Schemas of the reference tables of lookups, by node, as far as they could be read.
pub type TableSchemas = BTreeMap<String, SchemaRef>;

impl Graph {
    /// Connects and checks a configuration, with what is known of the tables that it refers to. With
    /// errors it is as much as could be made of it, for a picture, and cannot be run.
    pub fn new(config: &Config, tables: &TableSchemas, diagnostics: &mut Diagnostics) -> Self {
        let mut graph = connect::connect(config, diagnostics);
        graph.secrets = config.secrets.clone();
        graph.order = connect::order(&graph, diagnostics);
        paths::check(&graph, diagnostics);
        (graph.columns, graph.lasts) = check::check(&graph, tables, diagnostics);
        crate::testing::check(config, &graph, diagnostics);
        graph
    }

    /// The columns of an origin's rows, as far as they are known from the configuration.
    pub fn columns(&self, origin: Origin) -> Columns {
        let known = self.columns.get(&origin);
        known.cloned().unwrap_or_else(Columns::unknown)
    }

    /// What a name means: `stream`, `node`, `node.port`.
    pub fn find(&self, name: &str) -> Option<Origin> {
        let (name, port) = match name.split_once('.') {
            None => (name, None),
            Some((name, port)) => (name, Some(port)),
        };
        if let Some(number) = self.nodes.iter().position(|node| node.name() == name) {
            let word = port.unwrap_or(Port::Out.word());
            let ports = self.nodes[number].ports().iter();
            let port = ports.copied().find(|port| port.word() == word)?;
            return Some(Origin::Node(number, port));
        }
        let number = self.streams.iter().position(|stream| stream.name == name)?;
        port.is_none().then_some(Origin::Stream(number))
    }

    /// The stream as which rows of a view are kept if a store names it: that of the node's name,
    /// with the port behind it if that is not `out`. `None` of what is a stream by itself.
    pub fn kept_as(&self, origin: Origin) -> Option<String> {
        let Origin::Node(number, port) = origin else {
            return None;
        };
        let node = self.nodes.get(number)?;
        match port {
            Port::Out if node.is_derived() => None,
            Port::Out => Some(node.name().to_owned()),
            port => Some(format!("{}_{port}", node.name())),
        }
    }

    /// The name of an origin: `node` for its port `out`.
    pub fn name(&self, origin: Origin) -> String {
        match origin {
            Origin::Stream(number) => self.streams[number].name.clone(),
            Origin::Node(number, Port::Out) => self.nodes[number].name().to_owned(),
            Origin::Node(number, port) => format!("{}.{port}", self.nodes[number].name()),
        }
    }
}
