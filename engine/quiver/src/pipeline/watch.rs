//! Reference tables whose files change while the graph runs.
//!
//! ```text
//! files ──looked at every few seconds──▶ Watched ──changed: read, checked──▶ Analyzer (between two records)
//! ```
//!
//! Invariant: a file that cannot be taken leaves the table before it in force, and is told once.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use quiver_pipeline::{
    Graph,
    config::{LookupConfig, NodeKind},
};
use quiver_runtime::analyze::{AnalyzerHandle, LoadTable};

use super::tables::{ReadTable, Stamp, read_stamped, stamp};

/// Time between two looks at the files.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The files of a graph's reference tables.
#[derive(Default)]
pub struct Watched {
    files: Vec<WatchedFile>,
}

struct WatchedFile {
    node: String,
    lookup: LookupConfig,
    path: PathBuf,
    /// What was looked at last, be it in force or not; why there was nothing to look at.
    seen: Result<Stamp, String>,
    /// What is in force.
    hash: String,
    rows: usize,
}

impl Watched {
    /// The files that these tables were read from.
    pub fn new(graph: &Graph, tables: Vec<ReadTable>) -> Self {
        let mut lookups: BTreeMap<&str, &LookupConfig> = BTreeMap::new();
        for node in &graph.nodes {
            if let NodeKind::Lookup(lookup) = &node.config.kind {
                lookups.insert(node.name(), lookup);
            }
        }
        let file = |table: ReadTable| {
            let lookup = (*lookups.get(table.node.as_str())?).clone();
            Some(WatchedFile {
                lookup,
                node: table.node,
                path: table.path,
                seen: Ok(table.stamp),
                hash: table.hash,
                rows: table.rows.num_rows(),
            })
        };
        Self {
            files: tables.into_iter().filter_map(file).collect(),
        }
    }

    /// Writes into the log which tables are in force.
    pub async fn tell_loaded(&self, analyzer: &AnalyzerHandle) {
        for file in &self.files {
            let told = analyzer
                .tell_loaded(&file.node, &file.hash, file.rows)
                .await;
            if let Err(error) = told {
                tracing::error!(
                    node = file.node,
                    error,
                    "which table is in force is not in the log"
                );
            }
        }
    }

    /// Looks at every file once.
    pub async fn look(&mut self, analyzer: &AnalyzerHandle) {
        for file in &mut self.files {
            let found = stamp(&file.path);
            if found == file.seen {
                continue;
            }
            file.seen = found;
            match file.take(analyzer).await {
                Ok(None) => {}
                Ok(Some(rows)) => {
                    tracing::info!(node = file.node, path = %file.path.display(), rows, "reference table loaded");
                }
                Err(error) => {
                    tracing::error!(node = file.node, path = %file.path.display(), error, "the reference table was not loaded; the one before stays in force");
                }
            }
        }
    }
}

impl WatchedFile {
    /// Reads the file and puts it in force; how many rows it has, if it says something else than
    /// before.
    async fn take(&mut self, analyzer: &AnalyzerHandle) -> Result<Option<usize>, String> {
        self.seen.clone()?;
        let (node, lookup, path) = (self.node.clone(), self.lookup.clone(), self.path.clone());
        let read = tokio::task::spawn_blocking(move || read_stamped(&node, &lookup, &path));
        let table = read.await.map_err(|error| error.to_string())??;
        self.seen = Ok(table.stamp);
        if table.hash == self.hash {
            return Ok(None);
        }
        let rows = table.rows.num_rows();
        let load = LoadTable {
            node: table.node,
            table: table.rows,
            hash: table.hash.clone(),
        };
        analyzer.load(load).await?;
        self.hash = table.hash;
        self.rows = rows;
        Ok(Some(rows))
    }
}
