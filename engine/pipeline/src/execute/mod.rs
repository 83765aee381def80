//! The graph at work: rows of one record of the log go in, and what the nodes put out comes back.
//!
//! ```text
//! record ─▶ routes, maps, lookups (views, at once, in the order of the graph) ─▶ windows, missing
//!              │ rows of their ports, if somebody looks                             │ new rows
//!              ▼                                                                    ▼
//!           watched                                                  to the log, and back as a record
//! ```
//!
//! Invariants: what comes out depends on the records, their order and their record times only: not
//! on a clock, nor on where one record ends and the next begins. What a node remembers can be taken
//! out and put back between any two records.

mod attributes;
mod bound;
mod last;
mod lookup;
mod map;
mod missing;
mod route;
mod rows;
mod state;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use hashbrown::{HashMap, HashSet};

use crate::{
    config::NodeKind,
    graph::{Columns, Graph, Origin, Port},
};

pub use attributes::Attributes;
pub use lookup::TABLE_ROWS_MAX;
pub(crate) use lookup::stored_type;
pub use rows::{LayoutError, Rows};
pub use state::{Entries, Key, NodeState, StateError};

use map::{Map, Mapped};
use route::Route;

/// Record time is looked at once in so many microseconds: windows of silent devices close, and what
/// is missing is told, at whole seconds of record time.
pub const TICK: i64 = 1_000_000;

/// The state of the executor itself. No node can be called so.
const OWN: &str = "";
/// Key of the last whole second that was looked at. No device can be called so, nor begin with the
/// bytes 0 and 1 as other keys do.
const TICKED: &[u8] = &[0];

/// What a node put out.
#[derive(Clone, Debug)]
pub enum Emission {
    /// Rows of a view, or of the ports `late` and `errors`: rows of the record, with their positions.
    View(Origin, Rows),
    /// New rows of a node, which enter the log as a stream of the node's name: `ts`, `device`, then
    /// the fields.
    Derived(usize, RecordBatch),
}

/// What passed through a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows that came in.
    pub rows_in: u64,
    /// Rows that went out.
    pub rows_out: u64,
    /// Rows that were late.
    pub late: u64,
    /// Rows for which an expression had no value.
    pub errors: u64,
}

enum Operator {
    Route(Route),
    Map(Map),
    Lookup(lookup::Lookup),
    Window(Box<window::WindowNode>),
    Missing(missing::MissingNode),
    /// Of a later version.
    Nothing,
}

/// What is known beside a row.
pub(crate) struct Beside {
    pub(crate) attributes: Attributes,
    pub(crate) lasts: last::Lasts,
}

/// Rows on their way into a node.
struct Pending {
    edge: usize,
    rows: Rows,
    /// Of routes: which rows meet the condition (`None`: all), and which have no value for it.
    judged: Option<(Option<BooleanArray>, Vec<quiver_expression::FailedRow>)>,
}

/// A graph at work.
pub struct Executor {
    graph: Arc<Graph>,
    operators: Vec<Operator>,
    counters: Vec<Counters>,
    /// Rows that entered each stream.
    entered: HashMap<Origin, u64>,
    /// Columns that the inputs of each node are known to have.
    declared: Vec<Vec<Columns>>,
    consumers: HashMap<Origin, Vec<(usize, usize)>>,
    sources: HashMap<String, Origin>,
    watched: HashSet<Origin>,
    beside: Beside,
    pending: Vec<Vec<Pending>>,
    /// The last whole second of record time that was looked at, in microseconds since 1970.
    ticked: i64,
    /// Nodes that see nothing for the time being.
    held: Vec<bool>,
}

impl Executor {
    /// A graph that has checked without errors.
    pub fn new(graph: Arc<Graph>) -> Self {
        let mut consumers: HashMap<Origin, Vec<(usize, usize)>> = HashMap::new();
        for (number, node) in graph.nodes.iter().enumerate() {
            for (edge, input) in node.inputs.iter().enumerate() {
                let of_origin = consumers.entry(input.origin).or_default();
                of_origin.push((number, edge));
            }
        }
        let mut sources = HashMap::new();
        for (number, stream) in graph.streams.iter().enumerate() {
            sources.insert(stream.name.clone(), Origin::Stream(number));
        }
        for (number, node) in graph.nodes.iter().enumerate() {
            if node.is_derived() {
                sources.insert(node.name().to_owned(), Origin::Node(number, Port::Out));
            }
        }
        let declared: Vec<Vec<Columns>> = graph
            .nodes
            .iter()
            .map(|node| {
                let columns = |edge: &crate::graph::Edge| graph.columns(edge.origin);
                node.inputs.iter().map(columns).collect()
            })
            .collect();
        let operators = graph
            .nodes
            .iter()
            .zip(&declared)
            .map(|(node, declared)| match &node.config.kind {
                NodeKind::Route(route) => Operator::Route(Route::new(node.name(), route)),
                NodeKind::Map(map) => Operator::Map(Map::new(map)),
                NodeKind::Lookup(lookup) => Operator::Lookup(lookup::Lookup::new(lookup)),
                NodeKind::Window(window) => Operator::Window(Box::new(window::WindowNode::new(
                    node.name(),
                    window,
                    declared,
                ))),
                NodeKind::Missing(missing) => Operator::Missing(missing::MissingNode::new(missing)),
                NodeKind::Later { .. } => Operator::Nothing,
            })
            .collect();
        let count = graph.nodes.len();
        Self {
            operators,
            counters: vec![Counters::default(); count],
            entered: HashMap::new(),
            declared,
            consumers,
            sources,
            watched: HashSet::new(),
            beside: Beside {
                attributes: Attributes::default(),
                lasts: last::Lasts::new(&graph),
            },
            pending: (0..count).map(|_| Vec::new()).collect(),
            ticked: i64::MIN,
            held: vec![false; count],
            graph,
        }
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Whether rows of this stream matter to any node.
    pub fn takes(&self, stream: &str) -> bool {
        let origin = self.sources.get(stream);
        origin.is_some_and(|origin| {
            self.watched.contains(origin)
                || self.consumers.contains_key(origin)
                || self.beside.lasts.tracks(stream)
        })
    }

    /// From now on rows of this port are put out as [`Emission::View`].
    pub fn watch(&mut self, origin: Origin) {
        self.watched.insert(origin);
    }

    /// Not any more.
    pub fn unwatch(&mut self, origin: Origin) {
        self.watched.remove(&origin);
    }

    /// What passed through each node, by number.
    pub fn counters(&self) -> &[Counters] {
        &self.counters
    }

    /// Rows that entered a stream.
    pub fn entered(&self, origin: Origin) -> u64 {
        self.entered.get(&origin).copied().unwrap_or(0)
    }

    /// What is known of devices, to be kept as the log says it.
    pub fn attributes(&mut self) -> &mut Attributes {
        &mut self.beside.attributes
    }

    /// From now on a node sees neither rows nor time, or does again. What it remembers stays.
    pub fn hold(&mut self, node: &str, is_held: bool) {
        let nodes = self.graph.nodes.iter().zip(&mut self.held);
        for (_, held) in nodes.filter(|(other, _)| other.name() == node) {
            *held = is_held;
        }
    }

    /// Gives a lookup node its reference table.
    ///
    /// # Errors
    /// If there is no such node, or the table is not what it needs.
    pub fn load(&mut self, node: &str, table: &RecordBatch) -> Result<(), String> {
        let number = self
            .graph
            .nodes
            .iter()
            .position(|other| other.name() == node);
        match number.and_then(|number| self.operators.get_mut(number)) {
            Some(Operator::Lookup(lookup)) => lookup.load(table),
            _ => Err(format!("there is no lookup `{node}`")),
        }
    }

    /// Takes the rows of a record, in the order of their positions; what entered the log at
    /// `record_time` (microseconds since 1970), which never goes back.
    pub fn record(&mut self, stream: &str, rows: Rows, record_time: i64, out: &mut Vec<Emission>) {
        self.tick(record_time, out);
        let Some(origin) = self.sources.get(stream).copied() else {
            return;
        };
        *self.entered.entry(origin).or_default() += rows.len() as u64;
        self.beside.lasts.enter(stream, &rows);
        self.put(origin, rows, out);
        self.run(record_time, out);
    }

    /// Record time has come to this: what is due at the last whole second is done, once.
    pub fn tick(&mut self, record_time: i64, out: &mut Vec<Emission>) {
        let second = record_time.div_euclid(TICK) * TICK;
        if second <= self.ticked {
            return;
        }
        self.ticked = second;
        for index in 0..self.graph.order.len() {
            let number = self.graph.order[index];
            if self.held[number] {
                continue;
            }
            let new = match &mut self.operators[number] {
                Operator::Window(window) => window.tick(second),
                Operator::Missing(missing) => missing.tick(second),
                _ => continue,
            };
            self.derived(number, new, out);
        }
    }

    /// New rows of a node: they come back as a record.
    fn derived(&mut self, number: usize, new: Option<RecordBatch>, out: &mut Vec<Emission>) {
        if let Some(new) = new.filter(|new| new.num_rows() > 0) {
            self.counters[number].rows_out += new.num_rows() as u64;
            out.push(Emission::Derived(number, new));
        }
    }

    /// Rows of a port: to whoever takes them.
    fn put(&mut self, origin: Origin, rows: Rows, out: &mut Vec<Emission>) {
        if rows.is_empty() {
            return;
        }
        if self.watched.contains(&origin) {
            out.push(Emission::View(origin, rows.clone()));
        }
        let Some(consumers) = self.consumers.get(&origin) else {
            return;
        };
        // What is the default takes is known when the other routes have judged.
        let mut taken: Option<BooleanBuffer> = None;
        let mut is_all_taken = false;
        let mut defaults = Vec::new();
        for (number, edge) in consumers.iter().copied() {
            let mut judged = None;
            if let Operator::Route(route) = &mut self.operators[number] {
                if is_default(&self.graph, number) {
                    defaults.push((number, edge));
                    continue;
                }
                let declared = &self.declared[number][edge];
                let (mask, failed) = route.matching(&rows, declared, &self.beside);
                match &mask {
                    None => is_all_taken = true,
                    Some(mask) => {
                        taken = Some(match taken {
                            None => mask.values().clone(),
                            Some(taken) => &taken | mask.values(),
                        });
                    }
                }
                judged = Some((mask, failed));
            }
            self.pending[number].push(Pending {
                edge,
                rows: rows.clone(),
                judged,
            });
        }
        for (number, edge) in defaults {
            let mask = match (&taken, is_all_taken) {
                (_, true) => BooleanBuffer::new_unset(rows.len()),
                (Some(taken), false) => !taken,
                (None, false) => BooleanBuffer::new_set(rows.len()),
            };
            self.pending[number].push(Pending {
                edge,
                rows: rows.clone(),
                judged: Some((Some(BooleanArray::new(mask, None)), Vec::new())),
            });
        }
    }

    /// Lets every node do what is pending, each behind those whose rows it takes.
    fn run(&mut self, record_time: i64, out: &mut Vec<Emission>) {
        for index in 0..self.graph.order.len() {
            let number = self.graph.order[index];
            if self.pending[number].is_empty() {
                continue;
            }
            let pending = std::mem::take(&mut self.pending[number]);
            if self.held[number] {
                continue;
            }
            let rows: usize = pending.iter().map(|pending| pending.rows.len()).sum();
            self.counters[number].rows_in += rows as u64;
            match &mut self.operators[number] {
                Operator::Route(_) => self.route(number, pending, out),
                Operator::Map(_) | Operator::Lookup(_) => self.map(number, pending, out),
                Operator::Window(_) => self.window(number, pending, record_time, out),
                Operator::Missing(missing) => {
                    let inputs = pending.into_iter().map(|pending| pending.rows).collect();
                    let new = missing.push(inputs, record_time);
                    self.derived(number, new, out);
                }
                Operator::Nothing => {}
            }
        }
    }

    fn errors(&mut self, number: usize, rows: Option<Rows>, out: &mut Vec<Emission>) {
        if let Some(rows) = rows {
            self.counters[number].errors += rows.len() as u64;
            self.put(Origin::Node(number, Port::Errors), rows, out);
        }
    }

    fn out(&mut self, number: usize, rows: Rows, out: &mut Vec<Emission>) {
        self.counters[number].rows_out += rows.len() as u64;
        self.put(Origin::Node(number, Port::Out), rows, out);
    }

    fn route(&mut self, number: usize, pending: Vec<Pending>, out: &mut Vec<Emission>) {
        for Pending { rows, judged, .. } in pending {
            let (mask, failed) = judged.unwrap_or((None, Vec::new()));
            let taken = match mask {
                None => rows.clone(),
                Some(mask) => rows.filter(&mask),
            };
            let taken = match &mut self.operators[number] {
                Operator::Route(route) if !taken.is_empty() => route.thin(taken),
                _ => taken,
            };
            self.out(number, taken, out);
            let errors = (!failed.is_empty()).then(|| rows.failed(&failed));
            self.errors(number, errors, out);
        }
    }

    fn map(&mut self, number: usize, pending: Vec<Pending>, out: &mut Vec<Emission>) {
        for Pending { edge, rows, .. } in pending {
            let declared = &self.declared[number][edge];
            let mapped = match &mut self.operators[number] {
                Operator::Map(map) => map.evaluate(&rows, declared, &self.beside),
                Operator::Lookup(lookup) => lookup.evaluate(&rows, &self.beside),
                _ => continue,
            };
            let Mapped { out: rows, errors } = mapped;
            self.out(number, rows, out);
            self.errors(number, errors, out);
        }
    }

    fn window(
        &mut self,
        number: usize,
        pending: Vec<Pending>,
        record_time: i64,
        out: &mut Vec<Emission>,
    ) {
        let Operator::Window(window) = &mut self.operators[number] else {
            return;
        };
        let inputs = pending
            .into_iter()
            .map(|pending| (pending.edge, pending.rows));
        let done = window.push(inputs.collect(), record_time, &self.beside);
        let late: usize = done.late.iter().map(Rows::len).sum();
        self.counters[number].late += late as u64;
        self.derived(number, done.new, out);
        for rows in done.late {
            self.put(Origin::Node(number, Port::Late), rows, out);
        }
        for rows in done.errors {
            self.errors(number, Some(rows), out);
        }
    }

    /// What each node remembers that has changed since this was last asked; everything, if
    /// `is_all`.
    pub fn changed(&mut self, is_all: bool) -> Vec<NodeState> {
        let mut states = Vec::new();
        let mut own = Entries::new();
        own.insert(TICKED.into(), Some(self.ticked.to_le_bytes().into()));
        self.beside.attributes.changed(is_all, &mut own);
        self.beside.lasts.changed(is_all, &mut own);
        states.push(NodeState {
            node: OWN.to_owned(),
            generation: 0,
            entries: own,
        });
        for (number, operator) in self.operators.iter_mut().enumerate() {
            let mut entries = Entries::new();
            match operator {
                Operator::Route(route) => route.changed(is_all, &mut entries),
                Operator::Window(window) => window.changed(is_all, &mut entries),
                Operator::Missing(missing) => missing.changed(is_all, &mut entries),
                Operator::Map(_) | Operator::Lookup(_) | Operator::Nothing => {}
            }
            if !entries.is_empty() {
                let node = &self.graph.nodes[number];
                states.push(NodeState {
                    node: node.name().to_owned(),
                    generation: node.generation(),
                    entries,
                });
            }
        }
        states
    }

    /// Puts back what [`Self::changed`] gave of a node, all of it at once. State of a node that is
    /// not there any more, or whose definition is another, is left out: the answer is `false`.
    ///
    /// # Errors
    /// If the bytes are not what the node wrote.
    pub fn restore(&mut self, state: &NodeState) -> Result<bool, StateError> {
        let wrong = |problem: String| StateError {
            node: state.node.clone(),
            problem,
        };
        if state.node == OWN {
            if let Some(ticked) = state.entries.get(TICKED).and_then(Option::as_deref) {
                let ticked = ticked
                    .try_into()
                    .map_err(|_| wrong("it has no time".to_owned()))?;
                self.ticked = i64::from_le_bytes(ticked);
            }
            let beside = &mut self.beside;
            let attributes = beside.attributes.restore(&state.entries);
            let lasts = beside.lasts.restore(&state.entries);
            return attributes.and(lasts).map(|()| true).map_err(wrong);
        }
        let is_node = |node: &crate::graph::Node| {
            node.name() == state.node && node.generation() == state.generation
        };
        let Some(number) = self.graph.nodes.iter().position(is_node) else {
            return Ok(false);
        };
        match &mut self.operators[number] {
            Operator::Route(route) => route.restore(&state.entries),
            Operator::Window(window) => window.restore(&state.entries),
            Operator::Missing(missing) => missing.restore(&state.entries),
            Operator::Map(_) | Operator::Lookup(_) | Operator::Nothing => Ok(()),
        }
        .map(|()| true)
        .map_err(wrong)
    }

    /// Whether time alone will make something come out.
    pub fn waits_for_time(&self) -> bool {
        self.operators.iter().any(|operator| match operator {
            Operator::Window(window) => window.waits_for_time(),
            Operator::Missing(missing) => missing.waits_for_time(),
            _ => false,
        })
    }

    /// Of a window node: the time up to which its rows are complete, in microseconds since 1970, and
    /// the bytes that it remembers.
    pub fn window_state(&self, node: usize) -> Option<(Option<i64>, usize)> {
        match self.operators.get(node) {
            Some(Operator::Window(window)) => Some((window.watermark(), window.bytes())),
            _ => None,
        }
    }
}

fn is_default(graph: &Graph, number: usize) -> bool {
    matches!(&graph.nodes[number].config.kind, NodeKind::Route(route) if route.is_default)
}
