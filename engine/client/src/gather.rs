//! Rows written one at a time, gathered into batches: a batch a row would cost a sequence, a
//! message, and (with a spool) a sync each.
//!
//! ```text
//! send_rows ─▶ inbox ─▶ group: until the linger is over, or it has rows enough ─▶ send ─▶ RowsHandle each
//! ```
//!
//! One task a stream, made by the first rows. What it gathers is an ordinary batch from then on:
//! its rows and its end never change again, whatever becomes of the connection.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use arrow_array::RecordBatch;
use quiver_protocol::EncodeError;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{Abandoned, ClientEvent, ClientStream, SendError, Settled};

/// Calls of `send_rows` that wait to be gathered; more wait in the call.
pub(crate) const INBOX: usize = 1_024;

/// How long rows are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linger {
    /// Longest time that a row waits for others. 0: only what is waiting already goes together.
    pub time: Duration,
    /// A batch of so many rows, or more, waits no longer.
    pub rows: usize,
}

impl Default for Linger {
    /// 20 ms, 1,024 rows.
    fn default() -> Self {
        Self {
            time: Duration::from_millis(20),
            rows: 1_024,
        }
    }
}

/// How a batch of gathered rows ended.
pub(crate) type Outcome = Result<Settled, RowsError>;

/// Rows that wait to be gathered.
#[derive(Debug)]
pub(crate) struct Rows {
    pub batch: RecordBatch,
    pub since: Instant,
    pub waiter: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
pub(crate) enum Item {
    Rows(Rows),
    /// Send what was gathered, and say so.
    Flush(oneshot::Sender<()>),
}

/// Why rows were not stored or rejected.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RowsError {
    /// The batch that they were gathered into was not queued. They are the caller's again.
    #[error("the rows were not queued: {0}")]
    NotQueued(SendError),
    /// The client was closed before the batch was settled.
    #[error(transparent)]
    Abandoned(Abandoned),
}

/// Rows that were handed over. Await it to learn how their batch ended; dropping it changes nothing.
#[derive(Debug)]
#[must_use = "await it to learn how the rows ended, or drop it on purpose"]
pub struct RowsHandle {
    pub(crate) settled: oneshot::Receiver<Outcome>,
}

impl Future for RowsHandle {
    type Output = Result<Settled, RowsError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.settled)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(RowsError::Abandoned(Abandoned))))
    }
}

/// Gathers and sends until nobody can write rows any more.
pub(crate) async fn run(stream: ClientStream, linger: Linger, mut inbox: mpsc::Receiver<Item>) {
    let mut held = None;
    loop {
        let first: Rows = match held.take() {
            Some(rows) => rows,
            None => match inbox.recv().await {
                Some(Item::Rows(rows)) => rows,
                Some(Item::Flush(done)) => {
                    // Whoever asked may be gone.
                    let _gone = done.send(());
                    continue;
                }
                None => return,
            },
        };
        // From when the row was written: what waited for a batch before it waits no longer.
        let until = first.since + linger.time;
        let mut count = first.batch.num_rows();
        let mut group = vec![first];
        let mut asked = None;
        while count < linger.rows {
            let item = match inbox.try_recv() {
                Ok(item) => Some(item),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
                Err(mpsc::error::TryRecvError::Empty) => {
                    timeout_at(until, inbox.recv()).await.unwrap_or_default()
                }
            };
            match item {
                Some(Item::Rows(rows)) if same_schema(&group, &rows) => {
                    count += rows.batch.num_rows();
                    group.push(rows);
                }
                Some(Item::Rows(rows)) => {
                    held = Some(rows);
                    break;
                }
                Some(Item::Flush(done)) => {
                    asked = Some(done);
                    break;
                }
                None => break,
            }
        }
        send(&stream, group).await;
        if let Some(done) = asked {
            let _gone = done.send(());
        }
    }
}

fn same_schema(group: &[Rows], rows: &Rows) -> bool {
    group.first().is_some_and(|first| {
        let (left, right) = (first.batch.schema_ref(), rows.batch.schema_ref());
        std::sync::Arc::ptr_eq(left, right) || left == right
    })
}

/// Sends rows as one batch, or as several if one would be too large.
async fn send(stream: &ClientStream, group: Vec<Rows>) {
    let mut groups = vec![group];
    while let Some(mut group) = groups.pop() {
        let Some(first) = group.first() else {
            continue;
        };
        let joined = match group.len() {
            1 => Ok(first.batch.clone()),
            _ => arrow_select::concat::concat_batches(
                first.batch.schema_ref(),
                group.iter().map(|rows| &rows.batch),
            )
            .map_err(|error| SendError::Encode(EncodeError::from(error))),
        };
        let queued = match joined {
            Ok(batch) => stream.send(&batch).await,
            Err(error) => Err(error),
        };
        match queued {
            Err(SendError::Encode(EncodeError::TooLarge { .. })) if group.len() > 1 => {
                let behind = group.split_off(group.len() / 2);
                groups.push(behind);
                groups.push(group);
            }
            Err(error) => {
                let rows = group.iter().map(|rows| rows.batch.num_rows() as u64).sum();
                stream.report(ClientEvent::NotQueued {
                    stream: stream.name().clone(),
                    rows,
                    message: error.to_string(),
                });
                for rows in group {
                    let _gone = rows.waiter.send(Err(RowsError::NotQueued(error.clone())));
                }
            }
            Ok(handle) => {
                group.retain(|rows| !rows.waiter.is_closed());
                if !group.is_empty() {
                    tokio::spawn(async move {
                        let outcome = handle.await.map_err(RowsError::Abandoned);
                        for rows in group {
                            let _gone = rows.waiter.send(outcome.clone());
                        }
                    });
                }
            }
        }
    }
}
