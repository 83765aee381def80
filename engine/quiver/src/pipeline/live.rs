//! The graph at work in an engine that runs.
//!
//! ```text
//! Analyzer (runtime) ──rows of a record──▶ Live ──▶ Executor (pipeline)
//!       ▲                                    │
//!       ├──── new rows of nodes, and rows of views that a store keeps
//!       └ view: rows, counters               └──▶ Board: counters, watchers (tail), read by the HTTP door
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::{RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field, Schema};
use arrow_select::concat::concat_batches;
use quiver_model::{ARRIVAL, DEVICE, POSITION, SenderKind, StreamName, TS, Timestamp};
use quiver_pipeline::{
    Executor, Graph,
    execute::{Counters, Emission, NodeState, Rows},
    graph::Origin,
    testing::Tables,
};
use quiver_runtime::{
    analyze::{Analysis, DerivedRows, NodeDefinition, OperatorState},
    registry::{Registry, RegistryChange},
};
use tokio::sync::mpsc;

/// Batches that a watcher may lag behind; what comes then is left out and counted.
const WATCHER_LAG: usize = 256;
/// Most that watch at one time.
const WATCHERS_MAX: usize = 100;

/// What a node did so far, and where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFigures {
    /// Rows in, out, late, and in error.
    pub counters: Counters,
    /// Rows are complete up to here, in microseconds since 1970; of windows.
    pub watermark: Option<i64>,
    /// Bytes that it remembers; of windows.
    pub bytes: usize,
}

/// What others see of the graph that runs.
#[derive(Default)]
pub struct Board {
    state: Mutex<BoardState>,
}

#[derive(Default)]
struct BoardState {
    graph: Option<Arc<Graph>>,
    /// Whose figures these are: after a reload those of the graph before, until the new one has seen
    /// something.
    reported: Option<Arc<Graph>>,
    nodes: Vec<NodeFigures>,
    /// Rows that entered each stream.
    streams: BTreeMap<String, u64>,
    watchers: HashMap<String, Vec<Watcher>>,
    /// Ports that somebody has begun or ceased to watch.
    is_changed: bool,
}

struct Watcher {
    sender: mpsc::Sender<RecordBatch>,
    /// Rows that were left out.
    missed: Arc<std::sync::atomic::AtomicU64>,
}

/// Rows of a port as they come.
pub struct Watch {
    /// The rows, with the columns of every row.
    pub rows: mpsc::Receiver<RecordBatch>,
    /// Rows that were left out because the watcher was too slow.
    pub missed: Arc<std::sync::atomic::AtomicU64>,
}

/// Why a port cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no graph.
    #[error("the engine runs without a graph; start it with --config FILE")]
    NoGraph,
    /// There is no such port.
    #[error("there is no stream, node or port {0:?} in the graph{1}")]
    Unknown(String, String),
    /// Too many watch.
    #[error("{WATCHERS_MAX} watch already; try again when one has ended")]
    Full,
}

impl Board {
    fn lock(&self) -> std::sync::MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is the graph that runs.
    pub fn announce(&self, graph: Arc<Graph>) {
        let mut state = self.lock();
        state.graph = Some(graph);
        state.is_changed = true;
    }

    /// Figures of the nodes of a graph, by number, and rows that entered each of its streams; none,
    /// and no rows, as long as it has seen nothing.
    pub fn figures(&self, graph: &Arc<Graph>) -> (Vec<NodeFigures>, BTreeMap<String, u64>) {
        let state = self.lock();
        let reported = state.reported.as_ref();
        if reported.is_some_and(|reported| Arc::ptr_eq(reported, graph)) {
            return (state.nodes.clone(), state.streams.clone());
        }
        let streams = graph.streams.iter();
        let nothing = streams.map(|stream| (stream.name.clone(), 0));
        (Vec::new(), nothing.collect())
    }

    /// Begins to watch a port: `stream`, `node`, `node.port`.
    ///
    /// # Errors
    /// If there is no such port, or too many watch.
    pub fn watch(&self, port: &str) -> Result<Watch, WatchError> {
        let mut state = self.lock();
        let graph = state.graph.clone().ok_or(WatchError::NoGraph)?;
        let Some(origin) = graph.find(port) else {
            let names = graph
                .nodes
                .iter()
                .map(|node| node.name().to_owned())
                .chain(graph.streams.iter().map(|stream| stream.name.clone()));
            let near = quiver_model::meant(port.split('.').next().unwrap_or_default(), names);
            let help = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            return Err(WatchError::Unknown(port.to_owned(), help));
        };
        state.forget_gone();
        if state.watchers.values().map(Vec::len).sum::<usize>() >= WATCHERS_MAX {
            return Err(WatchError::Full);
        }
        let (sender, rows) = mpsc::channel(WATCHER_LAG);
        let missed = Arc::<std::sync::atomic::AtomicU64>::default();
        let watcher = Watcher {
            sender,
            missed: missed.clone(),
        };
        let of_port = state.watchers.entry(graph.name(origin)).or_default();
        of_port.push(watcher);
        state.is_changed = true;
        Ok(Watch { rows, missed })
    }
}

impl BoardState {
    /// Watchers that have ended are forgotten.
    fn forget_gone(&mut self) {
        let before = self.watchers.len();
        self.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.sender.is_closed());
            !watchers.is_empty()
        });
        self.is_changed |= self.watchers.len() != before;
    }
}

/// The graph at work.
pub struct Live {
    executor: Executor,
    board: Arc<Board>,
    /// Views that a store keeps, and the streams that their rows are of.
    kept: HashMap<Origin, StreamName>,
    watched: Vec<Origin>,
    definitions: Vec<NodeDefinition>,
}

impl Live {
    /// A graph that has checked without errors, with the reference tables of its lookups.
    ///
    /// # Errors
    /// If a table is not what its node needs.
    pub fn new(graph: &Arc<Graph>, tables: &Tables, board: Arc<Board>) -> Result<Self, String> {
        let mut executor = Executor::new(graph.clone());
        for (node, table) in tables {
            let problem = |problem: String| format!("lookup `{node}`: {problem}");
            executor.load(node, table).map_err(problem)?;
        }
        let kept = kept_views(graph);
        for origin in kept.keys() {
            executor.watch(*origin);
        }
        Ok(Self {
            executor,
            board,
            kept,
            watched: Vec::new(),
            definitions: definitions(graph),
        })
    }

    /// What came out: to the log, and to whoever watches.
    fn sort(&mut self, out: Vec<Emission>) -> Vec<DerivedRows> {
        let graph = self.executor.graph().clone();
        let mut derived: Vec<DerivedRows> = Vec::new();
        for emission in out {
            match emission {
                Emission::Derived(number, rows) => {
                    let Some(node) = graph.nodes.get(number) else {
                        continue;
                    };
                    if let Ok(stream) = StreamName::new(node.name()) {
                        add(&mut derived, stream, node.generation(), rows);
                    }
                }
                Emission::View(origin, rows) => {
                    if let Some(stream) = self.kept.get(&origin)
                        && let Some(rows) = as_new(&rows)
                    {
                        add(&mut derived, stream.clone(), 0, rows);
                    }
                    self.tell(&graph.name(origin), &rows);
                }
            }
        }
        self.report(&graph);
        derived
    }

    fn tell(&self, port: &str, rows: &Rows) {
        let state = self.board.lock();
        for watcher in state.watchers.get(port).into_iter().flatten() {
            if watcher.sender.try_send(rows.batch().clone()).is_err() {
                let rows = rows.len() as u64;
                watcher
                    .missed
                    .fetch_add(rows, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }

    fn report(&mut self, graph: &Arc<Graph>) {
        let mut state = self.board.lock();
        let reported = state.reported.as_ref();
        if !reported.is_some_and(|reported| Arc::ptr_eq(reported, graph)) {
            state.reported = Some(graph.clone());
            state.streams.clear();
        }
        state.nodes.clear();
        let counters = self.executor.counters().iter().enumerate();
        state.nodes.extend(counters.map(|(number, counters)| {
            let (watermark, bytes) = self.executor.window_state(number).unwrap_or_default();
            NodeFigures {
                counters: *counters,
                watermark,
                bytes,
            }
        }));
        for (number, stream) in graph.streams.iter().enumerate() {
            let entered = self.executor.entered(Origin::Stream(number));
            match state.streams.get_mut(&stream.name) {
                Some(known) => *known = entered,
                None => {
                    state.streams.insert(stream.name.clone(), entered);
                }
            }
        }
    }

    /// Ports that somebody watches are put out.
    fn look_at_watchers(&mut self) {
        let mut state = self.board.lock();
        if !std::mem::take(&mut state.is_changed) {
            return;
        }
        state.forget_gone();
        state.is_changed = false;
        for origin in self.watched.drain(..) {
            if !self.kept.contains_key(&origin) {
                self.executor.unwatch(origin);
            }
        }
        for port in state.watchers.keys() {
            if let Some(origin) = self.executor.graph().find(port) {
                self.executor.watch(origin);
                self.watched.push(origin);
            }
        }
    }
}

/// How the nodes are defined that put out new rows.
fn definitions(graph: &Graph) -> Vec<NodeDefinition> {
    let nodes = graph.nodes.iter().zip(graph.lineages());
    let derived = nodes.filter(|(node, _)| node.is_derived());
    let definition = |(node, lineage): (&quiver_pipeline::graph::Node, u64)| {
        Some(NodeDefinition {
            stream: StreamName::new(node.name()).ok()?,
            generation: node.generation(),
            lineage,
        })
    };
    derived.filter_map(definition).collect()
}

/// Rows that one record caused are one batch of a stream if their columns allow it: many small ones
/// would cost the log more. What has columns of the same name and other types stays by itself, for
/// the log to refuse and count.
fn add(derived: &mut Vec<DerivedRows>, stream: StreamName, generation: u64, rows: RecordBatch) {
    let mut same = derived
        .iter_mut()
        .filter(|known| known.stream == stream && known.generation == generation);
    // Rows stay in their order.
    if let Some(known) = same.next_back()
        && let Ok(all) = joined(&known.rows, &rows)
    {
        known.rows = all;
        return;
    }
    derived.push(DerivedRows {
        stream,
        generation,
        rows,
    });
}

/// Rows one behind the other, with the columns of both.
fn joined(first: &RecordBatch, second: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if first.schema() == second.schema() {
        return concat_batches(first.schema_ref(), [first, second]);
    }
    let nullable = |batch: &RecordBatch| {
        let fields = batch.schema_ref().fields().iter();
        let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
        Schema::new(fields.collect::<Vec<_>>())
    };
    let schema = Arc::new(Schema::try_merge([nullable(first), nullable(second)])?);
    let widened = |batch: &RecordBatch| {
        let columns = schema.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name()).cloned();
            column.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
        });
        RecordBatch::try_new(schema.clone(), columns.collect())
    };
    concat_batches(&schema, [&widened(first)?, &widened(second)?])
}

/// Rows of a view without their positions: they get others.
fn as_new(rows: &Rows) -> Option<RecordBatch> {
    let schema = rows.schema();
    let kept: Vec<usize> = (0..schema.fields().len())
        .filter(|index| schema.field(*index).name() != POSITION)
        .collect();
    let fields: Vec<Field> = kept
        .iter()
        .map(|index| schema.field(*index).clone())
        .collect();
    let columns = kept
        .iter()
        .map(|index| rows.batch().column(*index).clone())
        .collect();
    debug_assert!(
        [TS, DEVICE, ARRIVAL]
            .iter()
            .all(|name| schema.index_of(name).is_ok())
    );
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()
}

/// Views that stores name: their rows are streams of the name of the node, with the port behind it
/// if that is not `out`.
pub(super) fn kept_views(graph: &Graph) -> HashMap<Origin, StreamName> {
    let mut kept = HashMap::new();
    for edge in graph.stores.iter().flat_map(|store| &store.inputs) {
        let Some(name) = graph.kept_as(edge.origin) else {
            continue;
        };
        if let Ok(name) = StreamName::new(&name) {
            kept.insert(edge.origin, name);
        }
    }
    kept
}

impl Analysis for Live {
    fn name(&self) -> String {
        format!("{:016x}", self.executor.graph().fingerprint())
    }

    fn nodes(&self) -> Vec<NodeDefinition> {
        self.definitions.clone()
    }

    fn hold(&mut self, node: &StreamName, is_held: bool) {
        self.executor.hold(node.as_str(), is_held);
    }

    fn takes(&self, stream: &StreamName) -> bool {
        self.executor.takes(stream.as_str()) || self.board.lock().is_changed
    }

    fn begin(&mut self, registry: &Registry) {
        for entry in registry.all() {
            if entry.kind == SenderKind::Device.as_str() {
                let attributes = entry.attributes.iter();
                let attributes = attributes.map(|(key, value)| (key.as_str(), value.as_str()));
                self.executor.attributes().set(&entry.id, attributes);
            }
        }
    }

    fn rows(
        &mut self,
        stream: &StreamName,
        rows: RecordBatch,
        record_time: Timestamp,
    ) -> Vec<DerivedRows> {
        self.look_at_watchers();
        let Ok(rows) = Rows::new(rows) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        self.executor
            .record(stream.as_str(), rows, record_time.as_micros(), &mut out);
        self.sort(out)
    }

    fn tick(&mut self, record_time: Timestamp) -> Vec<DerivedRows> {
        let mut out = Vec::new();
        self.executor.tick(record_time.as_micros(), &mut out);
        self.sort(out)
    }

    fn waits_for_time(&self) -> bool {
        self.executor.waits_for_time()
    }

    fn registry(&mut self, change: &RegistryChange) {
        if let RegistryChange::Put { entry } = change
            && entry.kind == SenderKind::Device.as_str()
        {
            let attributes = entry.attributes.iter();
            let attributes = attributes.map(|(key, value)| (key.as_str(), value.as_str()));
            self.executor.attributes().set(&entry.id, attributes);
        }
    }

    fn state(&mut self, is_all: bool) -> Vec<OperatorState> {
        let states = self.executor.changed(is_all).into_iter();
        states
            .map(|state| OperatorState {
                node: state.node,
                generation: state.generation,
                entries: state.entries,
            })
            .collect()
    }

    fn load(&mut self, node: &str, table: &RecordBatch) -> Result<(), String> {
        self.executor.load(node, table)
    }

    fn restore(&mut self, state: &OperatorState) -> Result<bool, String> {
        let state = NodeState {
            node: state.node.clone(),
            generation: state.generation,
            entries: state.entries.clone(),
        };
        self.executor
            .restore(&state)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Float64Array, Int64Array};

    use super::*;

    fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
        RecordBatch::try_from_iter(columns.iter().cloned()).unwrap()
    }

    #[test]
    fn rows_of_one_record_are_one_batch_whatever_columns_they_have() {
        let numbers = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let stream = StreamName::new("kept").unwrap();
        let mut derived = Vec::new();
        let mut put = |generation, rows| add(&mut derived, stream.clone(), generation, rows);
        put(0, batch(&[("a", numbers(&[1])), ("b", numbers(&[2]))]));
        put(0, batch(&[("a", numbers(&[3])), ("c", numbers(&[4]))]));
        put(1, batch(&[("a", numbers(&[5]))]));
        // The log is going to refuse this.
        put(0, batch(&[("a", Arc::new(Float64Array::from(vec![6.0])))]));
        let shown: Vec<_> = derived
            .iter()
            .map(|derived| {
                let rows = &derived.rows;
                let names = rows.schema_ref().fields().iter().map(|field| field.name());
                let names: Vec<String> = names.cloned().collect();
                (derived.generation, names.join(" "), rows.num_rows())
            })
            .collect();
        let expected = [(0, "a b c", 2), (1, "a", 1), (0, "a", 1)];
        assert_eq!(
            shown,
            expected.map(|(generation, names, rows)| (generation, names.to_owned(), rows))
        );
    }
}
