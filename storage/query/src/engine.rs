//! Admits queries, chooses Q, plans and starts them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow_array::{cast::AsArray, types::Int64Type};
use datafusion::execution::{
    disk_manager::{DiskManagerBuilder, DiskManagerMode},
    runtime_env::RuntimeEnvBuilder,
};
use futures::StreamExt;
use quiver_hot::{LastValues, Tables};
use quiver_model::StreamName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    CommittedView,
    catalog::QueryCatalog,
    deep_stack::DeepStack,
    error::QueryError,
    limits::{METADATA_CACHE_BYTES, QueryLimits, WAITING_PER_RUNNING},
    plan::{Planned, Planner},
    result::{AbortOnDrop, Execution, QueryResult},
    stores::{ArchiveLocation, ArchiveOnly},
};

/// What queries read.
#[derive(Clone)]
pub struct QuerySources {
    /// Every stream's table.
    pub tables: Arc<Tables>,
    /// The last row of each device.
    pub last_values: Arc<LastValues>,
    /// Where the files are that the tables' archived versions list.
    pub archive: ArchiveLocation,
    /// How far the log is committed and applied.
    pub view: Arc<dyn CommittedView>,
}

/// Answers SQL. Cheap to clone; clones share limits and caches.
#[derive(Clone)]
pub struct QueryEngine {
    shared: Arc<Shared>,
}

struct Shared {
    sources: QuerySources,
    limits: QueryLimits,
    planner: Planner,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryEngine")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl QueryEngine {
    /// An engine that reads `sources` within `limits`.
    ///
    /// # Errors
    /// If the directory for spilled data cannot be made.
    pub fn new(sources: QuerySources, limits: QueryLimits) -> Result<Self, QueryError> {
        let mode = match &limits.spill_directory {
            Some(directory) => DiskManagerMode::Directories(vec![directory.clone()]),
            None => DiskManagerMode::Disabled,
        };
        let disk = DiskManagerBuilder::default()
            .with_mode(mode)
            .with_max_temp_directory_size(limits.spill_bytes);
        let runtime = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(disk)
            .with_metadata_cache_limit(METADATA_CACHE_BYTES)
            .with_object_store_registry(Arc::new(ArchiveOnly::new(Arc::clone(
                &sources.archive.store,
            ))))
            .build()
            .map_err(|error| QueryError::Internal {
                message: error.strip_backtrace(),
            })?;
        let planner = Planner::new(runtime, &limits);
        let running = Arc::new(Semaphore::new(limits.concurrent_queries.max(1)));
        let shared = Shared {
            sources,
            limits,
            planner,
            running,
            waiting: AtomicUsize::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The limits.
    pub fn limits(&self) -> &QueryLimits {
        &self.shared.limits
    }

    /// Queries that run or whose result is being read.
    pub fn running(&self) -> usize {
        self.shared
            .limits
            .concurrent_queries
            .max(1)
            .saturating_sub(self.shared.running.available_permits())
    }

    /// Runs one statement over everything committed by now, and returns the beginning of its
    /// result. Must be called within a Tokio runtime with time enabled; all work of the query is
    /// done on that runtime (see [`crate::query_runtime`]). Dropping the future or the result ends
    /// the query.
    ///
    /// # Errors
    /// If it is not a statement that may be run, cannot be planned, or does not get its turn in
    /// time. What goes wrong later comes as an item of the result.
    pub async fn query(&self, sql: &str) -> Result<QueryResult, QueryError> {
        self.query_within(sql, self.shared.limits.timeout).await
    }

    /// Like [`QueryEngine::query`], in at most `timeout`, if that is less than the limit of all
    /// queries.
    ///
    /// # Errors
    /// As [`QueryEngine::query`].
    pub async fn query_within(
        &self,
        sql: &str,
        timeout: Duration,
    ) -> Result<QueryResult, QueryError> {
        let shared = Arc::clone(&self.shared);
        let after = timeout.min(shared.limits.timeout);
        let deadline = Instant::now() + after;
        let timeout = QueryError::Timeout { after };
        let permit = match timeout_at(deadline, shared.admit()).await {
            Ok(permit) => permit?,
            Err(_) => return Err(timeout),
        };
        // On a task of its own: a panic ends the task, and a plan that takes for ever to make keeps
        // its permit while it does, although the caller is answered in time.
        let prepare = prepare(Arc::clone(&shared), sql.to_owned(), permit);
        let mut task = AbortOnDrop(tokio::spawn(prepare));
        let (planned, catalog, permit) = match timeout_at(deadline, &mut task.0).await {
            Err(_) => return Err(timeout),
            Ok(Err(error)) => {
                return Err(QueryError::Internal {
                    message: error.to_string(),
                });
            }
            Ok(Ok(prepared)) => prepared?,
        };
        let explain = {
            let catalog = Arc::clone(&catalog);
            move |error| shared.planner.explain(error, &catalog)
        };
        let limits = &self.shared.limits;
        Ok(QueryResult::start(Execution {
            planned,
            deadline,
            timeout: after,
            rows_max: limits.rows_max,
            explain: Box::new(explain),
            catalog,
            permit,
        }))
    }

    /// Rows of each device in a stream, archived and hot: what `quiver audit` compares with the
    /// ledger. Reads the rows; nothing is taken from statistics.
    ///
    /// # Errors
    /// As [`QueryEngine::query`].
    pub async fn rows_per_device(
        &self,
        stream: &StreamName,
    ) -> Result<BTreeMap<String, u64>, QueryError> {
        let sql = format!("SELECT device, count(position) FROM \"{stream}\" GROUP BY device");
        let mut result = self.query(&sql).await?;
        let mut rows = BTreeMap::new();
        while let Some(batch) = result.next().await {
            let batch = batch?;
            let devices = batch.column(0).as_string::<i32>();
            let counts = batch.column(1).as_primitive::<Int64Type>();
            for (device, count) in devices.iter().zip(counts.values()) {
                *rows
                    .entry(device.unwrap_or_default().to_owned())
                    .or_default() += u64::try_from(*count).unwrap_or(0);
            }
        }
        Ok(rows)
    }
}

impl Shared {
    async fn admit(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        let running = self.limits.concurrent_queries.max(1);
        let turn = Turn::take(&self.waiting);
        if turn.before >= running * WAITING_PER_RUNNING {
            return Err(QueryError::Busy {
                running,
                waiting: turn.before,
            });
        }
        let permit = Arc::clone(&self.running).acquire_owned();
        let Ok(permit) = tokio::time::timeout(self.limits.turn_timeout, permit).await else {
            return Err(QueryError::Busy {
                running,
                waiting: self.waiting.load(Ordering::Acquire).saturating_sub(1),
            });
        };
        permit.map_err(|error| QueryError::Internal {
            message: error.to_string(),
        })
    }
}

/// A place among those that wait; given up when dropped.
struct Turn<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> Turn<'a> {
    fn take(waiting: &'a AtomicUsize) -> Self {
        Self {
            waiting,
            before: waiting.fetch_add(1, Ordering::AcqRel),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

type Prepared = (Planned, Arc<QueryCatalog>, OwnedSemaphorePermit);

async fn prepare(
    shared: Arc<Shared>,
    sql: String,
    permit: OwnedSemaphorePermit,
) -> Result<Prepared, QueryError> {
    let sources = &shared.sources;
    let position = sources.view.committed();
    sources.view.wait_applied(position).await;
    let catalog = Arc::new(QueryCatalog::new(
        Arc::clone(&sources.tables),
        Arc::clone(&sources.last_values),
        sources.archive.clone(),
        position,
    ));
    let planned = DeepStack::new(shared.planner.plan(&sql, &catalog)).await?;
    Ok((planned, catalog, permit))
}
