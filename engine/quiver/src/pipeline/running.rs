//! The graph of an engine: read, applied, read again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use quiver_archive::Retention;
use quiver_model::{FieldType, OsEntropy, Position, StreamField, StreamName, StreamSchema};
use quiver_pipeline::{
    Graph,
    config::Mode,
    graph::{Origin, Port},
};
use quiver_runtime::{
    Engine,
    analyze::AnalyzerHandle,
    control::{EnsureError, StreamRules},
};

use super::{
    Board, Loaded, by_node,
    live::{Live, kept_views},
    load_tables,
    tables::ReadTable,
    watch::{LOOK_INTERVAL, Watched},
};
use crate::{
    access,
    exit::{CONFIG, Failure, IO},
};

/// A configuration that was read and can be applied.
pub struct LoadedPipeline {
    path: PathBuf,
    graph: Arc<Graph>,
    tables: Vec<ReadTable>,
}

/// The graph of an engine that runs.
pub struct RunningPipeline {
    path: PathBuf,
    board: Arc<Board>,
    /// How long rows are kept.
    retention: Arc<Retention>,
    /// Files of reference tables, looked at again and again.
    watched: tokio::sync::Mutex<Watched>,
    /// One reload at a time; the graph that is in force.
    graph: Mutex<Arc<Graph>>,
    turn: tokio::sync::Mutex<()>,
}

/// A graph is in force.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    /// From this position of the log on.
    pub from: Position,
    /// How many nodes it has.
    pub nodes: usize,
}

/// Why a graph was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Something is wrong with it.
    #[error("{0}")]
    Configuration(String),
    /// The engine could not.
    #[error("{0}")]
    Engine(String),
}

impl LoadedPipeline {
    /// Reads a configuration; everything that is wrong is in the error.
    fn read(path: &Path) -> Result<Self, String> {
        let loaded = Loaded::read(path, false).map_err(|failure| failure.to_string())?;
        let told = loaded.rendered(false);
        if loaded.diagnostics.has_errors() {
            return Err(format!("{told}{}", loaded.summary(path)));
        }
        if !told.is_empty() {
            tracing::warn!("{}", told.trim_end());
        }
        let tables =
            load_tables(&loaded.graph, &loaded.directory).map_err(|failure| failure.to_string())?;
        Ok(Self {
            path: path.to_owned(),
            graph: loaded.graph,
            tables,
        })
    }

    /// Declares what is declared, and lets the graph follow the log.
    ///
    /// # Errors
    /// If streams have other fields than are declared, or the graph's state cannot be read.
    pub async fn start(self, engine: &Engine) -> Result<RunningPipeline, Failure> {
        let rules = declare(engine, &self.graph)
            .await
            .map_err(|error| Failure::new(CONFIG, error.to_string()))?;
        engine.set_stream_rules(rules);
        let board = Arc::<Board>::default();
        let live = Live::new(&self.graph, &by_node(&self.tables), board.clone())
            .map_err(|problem| Failure::new(CONFIG, problem))?;
        board.announce(self.graph.clone());
        let analyzer = engine
            .analyze(Box::new(live), Arc::new(OsEntropy))
            .map_err(Failure::with(IO))?;
        let watched = Watched::new(&self.graph, self.tables);
        watched.tell_loaded(&analyzer).await;
        let retention = Arc::<Retention>::default();
        keep(engine, &self.graph, &retention)
            .await
            .map_err(|error| Failure::new(CONFIG, error.to_string()))?;
        Ok(RunningPipeline {
            path: self.path,
            board,
            retention,
            watched: tokio::sync::Mutex::new(watched),
            graph: Mutex::new(self.graph),
            turn: tokio::sync::Mutex::default(),
        })
    }
}

impl RunningPipeline {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<LoadedPipeline, Failure> {
        LoadedPipeline::read(path).map_err(|problem| Failure::new(CONFIG, problem))
    }

    /// What others see of it.
    pub const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// How long rows are kept, as the graph that is in force says.
    pub const fn retention(&self) -> &Arc<Retention> {
        &self.retention
    }

    /// The graph that is in force.
    pub fn graph(&self) -> Arc<Graph> {
        let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        graph.clone()
    }

    /// Reads the configuration again and applies it: no row is lost or seen twice, nodes that are
    /// defined as before keep what they remember.
    ///
    /// # Errors
    /// What kept it from being done; the graph that runs stays.
    pub async fn reload(&self, engine: &Engine) -> Result<Applied, ApplyError> {
        let _turn = self.turn.lock().await;
        let loaded = LoadedPipeline::read(&self.path).map_err(ApplyError::Configuration)?;
        let analyzer = engine
            .analyzer()
            .ok_or_else(|| ApplyError::Engine("the graph does not run".to_owned()))?;
        let live = Live::new(&loaded.graph, &by_node(&loaded.tables), self.board.clone())
            .map_err(ApplyError::Configuration)?;
        let mut watched = self.watched.lock().await;
        let rules = declare(engine, &loaded.graph).await?;
        // Nobody may write a node's stream from before the node does.
        let rules_before = engine.set_stream_rules(rules);
        let from = match analyzer.replace(Box::new(live)).await {
            Ok(from) => from,
            Err(problem) => {
                engine.set_stream_rules(rules_before);
                return Err(ApplyError::Engine(format!(
                    "the graph was not applied, and the one before goes on: {problem}"
                )));
            }
        };
        // From here on it is in force, whatever comes.
        *watched = Watched::new(&loaded.graph, loaded.tables);
        watched.tell_loaded(analyzer).await;
        let nodes = loaded.graph.nodes.len();
        self.board.announce(loaded.graph.clone());
        let graph = loaded.graph.clone();
        *self.graph.lock().unwrap_or_else(PoisonError::into_inner) = loaded.graph;
        if let Err(error) = keep(engine, &graph, &self.retention).await {
            tracing::error!(%error, "how long the log is kept stays as the graph before said; reload the graph again");
        }
        Ok(Applied { from, nodes })
    }

    /// Takes reference tables whose files have changed, until the graph ends.
    pub async fn watch_tables(self: Arc<Self>, analyzer: AnalyzerHandle) {
        while !analyzer.is_ended() {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.watched.lock().await.look(&analyzer).await;
        }
    }
}

/// Puts in force how long rows are kept.
async fn keep(engine: &Engine, graph: &Graph, retention: &Retention) -> Result<(), ApplyError> {
    let mut spans = BTreeMap::new();
    for (stream, span) in graph.retention() {
        let stream = StreamName::new(&stream)
            .map_err(|error| ApplyError::Configuration(error.to_string()))?;
        spans.insert(stream, span);
    }
    retention.set(spans);
    let queue = engine.set_log_retention(graph.queue()).await;
    queue.map_err(|error| ApplyError::Engine(error.to_string()))
}

/// Gives streams the fields that are declared; the rules of streams that are to be in force. Conflicts
/// with what is stored are told before anything is changed. Fields that are declared stay, if the
/// graph is not applied then.
async fn declare(engine: &Engine, graph: &Graph) -> Result<StreamRules, ApplyError> {
    let name = |name: &str| {
        StreamName::new(name).map_err(|error| ApplyError::Configuration(error.to_string()))
    };
    let mut rules = StreamRules::default();
    let mut conflicts = Vec::new();
    for (number, node) in graph.nodes.iter().enumerate() {
        let stream = name(node.name())?;
        if node.is_derived() {
            let origin = Origin::Node(number, Port::Out);
            conflicts.extend(conflict(engine, graph, origin, &stream));
        }
        rules.nodes.insert(stream);
    }
    for (origin, stream) in kept_views(graph) {
        conflicts.extend(conflict(engine, graph, origin, &stream));
        rules.nodes.insert(stream);
    }
    let catalog = &engine.control().catalog;
    let mut declared = Vec::new();
    for stream in &graph.streams {
        let Some(config) = &stream.declared else {
            continue;
        };
        let stream = name(&stream.name)?;
        let fields = config.fields.iter().map(|field| field.field.clone());
        let fields: Vec<_> = fields.collect();
        if config.mode == Mode::Strict {
            let names = fields.iter().map(|field| field.name.clone());
            rules.strict.insert(stream.clone(), names.collect());
        }
        if fields.is_empty() || config.mode == Mode::Learned {
            continue;
        }
        if let Some(schema) = catalog.stream(&stream)
            && let Err(error) = schema.grown(schema.id(), &missing(&schema, &fields))
        {
            conflicts.push(format!("stream `{stream}`: {error}"));
        }
        declared.push((stream, fields));
    }
    if !conflicts.is_empty() {
        conflicts.sort();
        return Err(ApplyError::Configuration(conflicts.join("\n")));
    }
    let operator =
        access::local_operator().map_err(|failure| ApplyError::Engine(failure.to_string()))?;
    for (stream, fields) in &declared {
        let done = engine.declare_fields(&operator, stream, fields).await;
        done.map_err(|error| match error {
            EnsureError::Append(_) => ApplyError::Engine(error.to_string()),
            error => ApplyError::Configuration(error.to_string()),
        })?;
    }
    Ok(rules)
}

/// Fields that a stream does not have yet, or has otherwise.
fn missing(schema: &StreamSchema, fields: &[StreamField]) -> Vec<StreamField> {
    let is_missing = |field: &&StreamField| {
        let known = schema.find(field.name.as_str());
        known.is_none_or(|(_, known)| !known.holds(field))
    };
    fields.iter().filter(is_missing).cloned().collect()
}

/// What is stored of a stream otherwise than a port of a node puts it out.
fn conflict(engine: &Engine, graph: &Graph, origin: Origin, stream: &StreamName) -> Option<String> {
    let schema = engine.control().catalog.stream(stream)?;
    let columns = graph.columns(origin).fields;
    columns.into_iter().find_map(|(field, data_type)| {
        let stored = schema.find(&field)?.1.field_type;
        let new = FieldType::from_arrow(&data_type)?;
        (stored != new).then(|| {
            format!(
                "column `{field}` of `{}` is {}, and is stored as {} in stream `{stream}`; give it, or the node, another name",
                graph.name(origin),
                new.as_str(),
                stored.as_str()
            )
        })
    })
}
