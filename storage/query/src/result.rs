//! A running query, as a stream of batches.
//!
//! ```text
//! plan's partitions ──▶ pump (a task: deadline, row limit, panics) ──bounded queue──▶ QueryResult
//! ```
//!
//! A reader that does not read stops the plan once the queue is full; a dropped result aborts it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::{error::DataFusionError, physical_plan::execute_stream};
use futures::{Stream, StreamExt};
use quiver_model::Position;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    catalog::QueryCatalog,
    error::QueryError,
    inspect::{find_damaged, may_be_damage},
    limits::RESULT_BATCHES_QUEUED,
    plan::Planned,
};

/// How long after its deadline a plan may find out that it is late.
const LATENESS_MAX: Duration = Duration::from_millis(500);

/// A task that ends when nobody waits for it any more.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A planned query and its limits.
pub(crate) struct Execution {
    pub(crate) planned: Planned,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
    pub(crate) rows_max: Option<u64>,
    pub(crate) explain: Box<dyn Fn(DataFusionError) -> QueryError + Send + Sync>,
    /// The leases on archived versions.
    pub(crate) catalog: Arc<QueryCatalog>,
    /// The permit to run.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// The rows of a query: a stream of batches, of which the first that is an error is the last.
/// Until it has ended or is dropped, the archived versions it reads stay readable, and it counts
/// as running.
pub struct QueryResult {
    schema: SchemaRef,
    position: Position,
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    _pump: AbortOnDrop<()>,
}

impl std::fmt::Debug for QueryResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryResult")
            .field("schema", &self.schema)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl QueryResult {
    pub(crate) fn start(execution: Execution) -> Self {
        let (sender, batches) = mpsc::channel(RESULT_BATCHES_QUEUED);
        let schema = execution.planned.plan.schema();
        let position = execution.catalog.position();
        let pump = AbortOnDrop(tokio::spawn(pump(execution, sender)));
        Self {
            schema,
            position,
            batches,
            _pump: pump,
        }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Q: the result shows every row up to this position, and none beyond.
    pub fn position(&self) -> Position {
        self.position
    }

    /// All batches. For small results and tests: memory grows with the result.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, QueryError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

impl Stream for QueryResult {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(context)
    }
}

/// Hands on the plan's batches until it ends or fails; on failure, finds out why. The permit and
/// the leases are given back when all this is done.
async fn pump(execution: Execution, sender: mpsc::Sender<Result<RecordBatch, QueryError>>) {
    let Execution {
        planned,
        deadline,
        timeout,
        rows_max,
        explain,
        catalog,
        permit,
    } = execution;
    let limits = RunLimits { deadline, rows_max };
    // Held by the plan's task: a plan that does not give way counts as running until it does.
    let held = (Arc::clone(&catalog), permit);
    // On a task of its own, so that a panic in the plan ends here.
    let mut task = AbortOnDrop(tokio::spawn(run(planned, limits, sender.clone(), held)));
    // The plan watches the deadline itself, wherever it gives way; this is for one that does not.
    let failure = match timeout_at(deadline + LATENESS_MAX, &mut task.0).await {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(failure))) => failure,
        Ok(Err(error)) => Failure::Panic(error.to_string()),
        Err(_) => Failure::Late,
    };
    let may_be_damage = match &failure {
        Failure::Plan(error) => catalog.reads().failure().is_none() && may_be_damage(error),
        Failure::Panic(_) => true,
        Failure::Late | Failure::TooManyRows { .. } => false,
    };
    let damaged = if may_be_damage {
        timeout_at(
            deadline,
            find_damaged(catalog.reads(), &catalog.location().store),
        )
        .await
        .ok()
        .flatten()
    } else {
        None
    };
    let error = match (damaged, failure) {
        (Some(damaged), _) => damaged.into(),
        (None, Failure::Plan(error)) => explain(error),
        (None, Failure::Panic(message)) => QueryError::Internal { message },
        (None, Failure::Late) => QueryError::Timeout { after: timeout },
        (None, Failure::TooManyRows { limit }) => QueryError::TooManyRows { limit },
    };
    drop(catalog);
    // This task lives until the reader takes the error or drops the result; the query is over.
    let _dropped = sender.send(Err(error)).await;
}

/// Why a plan did not run to its end.
enum Failure {
    Plan(DataFusionError),
    Panic(String),
    Late,
    TooManyRows { limit: u64 },
}

struct RunLimits {
    deadline: Instant,
    rows_max: Option<u64>,
}

async fn run(
    planned: Planned,
    limits: RunLimits,
    sender: mpsc::Sender<Result<RecordBatch, QueryError>>,
    _held: (Arc<QueryCatalog>, OwnedSemaphorePermit),
) -> Result<(), Failure> {
    let RunLimits { deadline, rows_max } = limits;
    let mut stream = execute_stream(planned.plan, planned.context).map_err(Failure::Plan)?;
    let mut rows = 0_u64;
    while let Some(batch) = timeout_at(deadline, stream.next())
        .await
        .map_err(|_| Failure::Late)?
    {
        let batch = batch.map_err(Failure::Plan)?;
        rows += batch.num_rows() as u64;
        if let Some(limit) = rows_max
            && rows > limit
        {
            return Err(Failure::TooManyRows { limit });
        }
        if batch.num_rows() == 0 {
            continue;
        }
        let sent = timeout_at(deadline, sender.send(Ok(batch)))
            .await
            .map_err(|_| Failure::Late)?;
        if sent.is_err() {
            break;
        }
    }
    Ok(())
}
