//! An engine's tables as what queries read.

use std::{path::Path, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use quiver_archive::DeltaArchive;
use quiver_hot::{LastValues, Tables};
use quiver_log::LogId;
use quiver_model::{Clock, Entropy, Position};
use quiver_query::{ArchiveLocation, CommittedView, QueryEngine, QueryLimits, QuerySources};
use quiver_runtime::Progress;

use crate::exit::{Failure, IO};

/// The runtime's progress, as queries ask for it.
pub struct ProgressView {
    progress: Arc<Progress>,
    /// If set, queries are as of this position, whatever is committed since.
    pinned: Option<Position>,
}

impl CommittedView for ProgressView {
    fn committed(&self) -> Position {
        self.pinned.unwrap_or_else(|| self.progress.committed())
    }

    fn wait_applied(&self, position: Position) -> BoxFuture<'_, ()> {
        self.progress.wait_applied(position).boxed()
    }
}

/// What a query engine is made of.
#[derive(Clone)]
pub struct Sources {
    /// Every stream's table.
    pub tables: Arc<Tables>,
    /// Last row of each device.
    pub last_values: Arc<LastValues>,
    /// How far the engine is.
    pub progress: Arc<Progress>,
    /// The archive.
    pub archive: Arc<DeltaArchive>,
}

impl Sources {
    /// Queries as of now, or all as of one position.
    pub fn query_engine(
        &self,
        limits: QueryLimits,
        pinned: Option<Position>,
    ) -> Result<QueryEngine, Failure> {
        let location = self.archive.location();
        let sources = QuerySources {
            tables: self.tables.clone(),
            last_values: self.last_values.clone(),
            archive: ArchiveLocation {
                store: location.0,
                root: location.1,
            },
            view: Arc::new(ProgressView {
                progress: self.progress.clone(),
                pinned,
            }),
        };
        QueryEngine::new(sources, limits).map_err(Failure::with(IO))
    }
}

/// The archive of a data directory, for the log with this id.
pub fn open_archive(
    data_dir: &Path,
    log: LogId,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> std::io::Result<DeltaArchive> {
    DeltaArchive::local(&data_dir.join("archive"), &log.to_string(), clock, entropy)
}
