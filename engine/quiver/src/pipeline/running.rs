//! The graph of an engine: read, applied, read again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use quiver_model::{FieldType, OsEntropy, Position, StreamName};
use quiver_pipeline::{
    Graph,
    config::Mode,
    graph::{Origin, Port},
    testing::Tables,
};
use quiver_runtime::{Engine, control::StreamRules};

use super::{
    Board, Loaded,
    live::{Live, kept_views},
    load_tables,
};
use crate::{
    access,
    exit::{CONFIG, Failure, IO},
};

/// A configuration that was read and can be applied.
pub struct LoadedPipeline {
    path: PathBuf,
    graph: Arc<Graph>,
    tables: Tables,
}

/// The graph of an engine that runs.
pub struct RunningPipeline {
    path: PathBuf,
    board: Arc<Board>,
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
        declare(engine, &self.graph)
            .await
            .map_err(|error| Failure::new(CONFIG, error.to_string()))?;
        let board = Arc::<Board>::default();
        let live = Live::new(&self.graph, &self.tables, board.clone())
            .map_err(|problem| Failure::new(CONFIG, problem))?;
        board.announce(self.graph.clone());
        engine
            .analyze(Box::new(live), Arc::new(OsEntropy))
            .map_err(Failure::with(IO))?;
        Ok(RunningPipeline {
            path: self.path,
            board,
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
        let live = Live::new(&loaded.graph, &loaded.tables, self.board.clone())
            .map_err(ApplyError::Configuration)?;
        declare(engine, &loaded.graph).await?;
        let from = analyzer
            .replace(Box::new(live))
            .await
            .map_err(ApplyError::Engine)?;
        let nodes = loaded.graph.nodes.len();
        self.board.announce(loaded.graph.clone());
        *self.graph.lock().unwrap_or_else(PoisonError::into_inner) = loaded.graph;
        Ok(Applied { from, nodes })
    }
}

/// Gives streams the fields that are declared, and puts the rules of streams in force. Conflicts
/// with what is stored are told before anything is changed.
async fn declare(engine: &Engine, graph: &Graph) -> Result<(), ApplyError> {
    let name = |name: &str| {
        StreamName::new(name).map_err(|error| ApplyError::Configuration(error.to_string()))
    };
    let catalog = &engine.control().catalog;
    let mut rules = StreamRules::default();
    for (number, node) in graph.nodes.iter().enumerate() {
        let stream = name(node.name())?;
        if let (true, Some(schema)) = (node.is_derived(), catalog.stream(&stream)) {
            for (field, data_type) in graph.columns(Origin::Node(number, Port::Out)).fields {
                let stored = schema.find(&field).map(|(_, stored)| stored.field_type);
                let new = FieldType::from_arrow(&data_type);
                if let (Some(stored), Some(new)) = (stored, new)
                    && stored != new
                {
                    return Err(ApplyError::Configuration(format!(
                        "column `{field}` of {} `{}` is {}, and is stored as {}; give it, or the node, another name",
                        node.section(),
                        node.name(),
                        new.as_str(),
                        stored.as_str()
                    )));
                }
            }
        }
        rules.nodes.insert(stream);
    }
    rules.nodes.extend(kept_views(graph).into_values());
    let operator =
        access::local_operator().map_err(|failure| ApplyError::Engine(failure.to_string()))?;
    for stream in &graph.streams {
        let Some(declared) = &stream.declared else {
            continue;
        };
        let stream = name(&stream.name)?;
        if declared.mode == Mode::Strict {
            rules.strict.insert(stream.clone());
        }
        let fields: Vec<_> = declared
            .fields
            .iter()
            .map(|field| field.field.clone())
            .collect();
        if fields.is_empty() || declared.mode == Mode::Learned {
            continue;
        }
        engine
            .declare_fields(&operator, &stream, &fields)
            .await
            .map_err(|error| ApplyError::Configuration(error.to_string()))?;
    }
    engine.set_stream_rules(rules);
    Ok(())
}
