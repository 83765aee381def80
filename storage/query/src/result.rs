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
    task::{Context, Poll, ready},
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::{error::DataFusionError, physical_plan::execute_stream};
use futures::{FutureExt, Stream, StreamExt};
use quiver_model::Position;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    catalog::QueryCatalog, error::QueryError, limits::RESULT_BATCHES_QUEUED, plan::Planned,
};

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
    pub(crate) position: Position,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
    pub(crate) rows_max: Option<u64>,
    pub(crate) explain: Box<dyn Fn(DataFusionError) -> QueryError + Send>,
    /// The leases on archived versions, and the permit to run: kept until the plan has ended.
    pub(crate) held: (Arc<QueryCatalog>, OwnedSemaphorePermit),
}

/// The rows of a query: a stream of batches, of which the first that is an error is the last.
/// Until it has ended or is dropped, the archived versions it reads stay readable, and it counts
/// as running.
pub struct QueryResult {
    schema: SchemaRef,
    position: Position,
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    pump: Option<AbortOnDrop<()>>,
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
        let position = execution.position;
        let pump = AbortOnDrop(tokio::spawn(pump(execution, sender)));
        Self {
            schema,
            position,
            batches,
            pump: Some(pump),
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
        if let Some(item) = ready!(self.batches.poll_recv(context)) {
            return Poll::Ready(Some(item));
        }
        // The queue is closed: the pump has ended, or panicked.
        let Some(pump) = self.pump.as_mut() else {
            return Poll::Ready(None);
        };
        let ended = ready!(pump.0.poll_unpin(context));
        self.pump = None;
        Poll::Ready(ended.err().map(|error| {
            Err(QueryError::Internal {
                message: error.to_string(),
            })
        }))
    }
}

/// Runs the plan and hands on its batches, until it ends, fails, or takes too long.
async fn pump(execution: Execution, sender: mpsc::Sender<Result<RecordBatch, QueryError>>) {
    let deadline = execution.deadline;
    if let Err(error) = run(execution, &sender).await {
        // A reader that never comes back must not keep this task; it sees the queue's end instead.
        let grace = deadline.max(Instant::now()) + Duration::from_secs(1);
        let _unread = timeout_at(grace, sender.send(Err(error))).await;
    }
}

async fn run(
    execution: Execution,
    sender: &mpsc::Sender<Result<RecordBatch, QueryError>>,
) -> Result<(), QueryError> {
    let Execution {
        planned,
        deadline,
        timeout,
        rows_max,
        explain,
        held,
        ..
    } = execution;
    let late = |_| QueryError::Timeout { after: timeout };
    let mut stream = execute_stream(planned.plan, planned.context).map_err(&explain)?;
    let mut rows = 0_u64;
    while let Some(batch) = timeout_at(deadline, stream.next()).await.map_err(late)? {
        let batch = batch.map_err(&explain)?;
        rows += batch.num_rows() as u64;
        if let Some(limit) = rows_max
            && rows > limit
        {
            return Err(QueryError::TooManyRows { limit });
        }
        if batch.num_rows() == 0 {
            continue;
        }
        if timeout_at(deadline, sender.send(Ok(batch)))
            .await
            .map_err(late)?
            .is_err()
        {
            break;
        }
    }
    drop(held);
    Ok(())
}
