//! Sends a file: asks the server where its producer stands, sends the rest, waits until all of it
//! is settled.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_array::RecordBatch;
use quiver_model::{Producer, Sequence};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::timeout,
};

use super::{FileError, FileOptions, FilePlan, SendFileError, guard::said};
use crate::{Client, ClientEvent, ClientOptions, ConnectError, Connection, Disconnect, Observer};

/// Batches that are read ahead.
const READ_AHEAD: usize = 2;
/// Rejects that are listed one by one in a report; all are counted.
const REJECTS_LISTED_MAX: usize = 256;

/// How to send a file.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// As live data, not as a backlog with lower priority.
    pub is_live: bool,
    /// How long to wait for a first connection.
    pub connect_patience: Duration,
    /// How long to wait for a connection that was lost to come back.
    pub reconnect_patience: Duration,
}

impl Default for SendOptions {
    /// A backlog; 10 s, and 2 min.
    fn default() -> Self {
        Self {
            is_live: false,
            connect_patience: Duration::from_secs(10),
            reconnect_patience: Duration::from_secs(120),
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows of the file.
    pub rows_total: u64,
    /// Bytes of the file.
    pub bytes_total: u64,
    /// Rows read, and sent or skipped.
    pub rows_read: u64,
    /// About how many of the file's bytes those are.
    pub bytes_read: u64,
    /// Rows settled, those of earlier runs included.
    pub rows_settled: u64,
}

/// A batch of the file that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedBatch {
    /// Its number in the file, from 0.
    pub sequence: Sequence,
    /// Number of the code.
    pub code: u32,
    /// What is wrong, where, and how to mend it.
    pub message: String,
}

/// How it went: every row is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The file's producer.
    pub producer: Producer,
    /// Rows of the file.
    pub rows: u64,
    /// Batches of the file.
    pub batches: u64,
    /// Rows that this run stored.
    pub rows_stored: u64,
    /// Rows that the server had already.
    pub rows_duplicate: u64,
    /// Rows in batches that the server refused, in this run or an earlier one.
    pub rows_rejected: u64,
    /// Rows of stored batches that the server refused one by one, in this run or an earlier one, by
    /// the number of the reason. The server keeps them in its stream `rejects`.
    pub rows_refused: BTreeMap<u32, u64>,
    /// Rows that are settled, but of which this run does not know whether they were stored.
    pub rows_unreported: u64,
    /// The refused batches, the first 256.
    pub rejected: Vec<RejectedBatch>,
}

/// Collects rejects, and passes events on.
struct Rejects {
    found: Mutex<BTreeMap<u64, (u32, String)>>,
    next: Option<Arc<dyn Observer>>,
}

impl Observer for Rejects {
    fn on_event(&self, event: &ClientEvent) {
        if let ClientEvent::Rejected {
            sequence,
            number,
            message,
            ..
        } = event
        {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.len() < REJECTS_LISTED_MAX {
                found.insert(sequence.get(), (*number, message.clone()));
            }
        }
        if let Some(next) = &self.next {
            next.on_event(event);
        }
    }
}

/// Sends a file and waits until every row is settled. `progress` is called often; it must return
/// at once. A spool in `client` is not used: the file is one.
///
/// Sending the same file with the same options again stores nothing again; after an interruption
/// it goes on where it stopped.
///
/// # Errors
/// If the file is at fault, the server refuses it, or it is not reachable. Batches that were
/// settled before stay so.
pub async fn send_file(
    file: FileOptions,
    mut client: ClientOptions,
    options: SendOptions,
    mut progress: impl FnMut(&Progress),
) -> Result<FileReport, SendFileError> {
    let path = file.path.clone();
    let plan = on_blocking_thread(&path, move || FilePlan::read(file)).await?;
    let plan = Arc::new(plan);
    let rejects = Arc::new(Rejects {
        found: Mutex::default(),
        next: client.observer.take(),
    });
    client.observer = Some(Arc::clone(&rejects) as Arc<dyn Observer>);
    client.spool = None;
    let (stream, producer) = (plan.options().stream.clone(), plan.producer());
    let client = Client::start(client, vec![(stream.clone(), producer, !options.is_live)]).await?;
    let result = Sending {
        plan,
        client: &client,
        options,
        rejects: &rejects,
    }
    .run(&mut progress)
    .await;
    client.close().await;
    result
}

struct Sending<'a> {
    plan: Arc<FilePlan>,
    client: &'a Client,
    options: SendOptions,
    rejects: &'a Rejects,
}

impl Sending<'_> {
    async fn run(
        &self,
        report_progress: &mut impl FnMut(&Progress),
    ) -> Result<FileReport, SendFileError> {
        let (stream, producer) = (self.plan.options().stream.clone(), self.plan.producer());
        match timeout(self.options.connect_patience, self.client.connected()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(self.unavailable()),
        }
        let next = self
            .or_trouble(async { Ok(self.client.resumed_at(&stream, producer).await?) })
            .await?;
        let refused_before = self.client.refused_rows(&stream, producer);
        let out = self.client.stream_of(stream.clone(), Some(producer));
        let mut progress = Progress {
            rows_total: self.plan.rows(),
            bytes_total: self.plan.bytes(),
            ..Progress::default()
        };
        let mut report = FileReport {
            producer,
            rows: self.plan.rows(),
            batches: 0,
            rows_stored: 0,
            rows_duplicate: 0,
            rows_rejected: 0,
            rows_refused: BTreeMap::new(),
            rows_unreported: 0,
            rejected: Vec::new(),
        };
        let plan = Arc::clone(&self.plan);
        let mut batches = ReadAhead::start(&self.plan.options().path, move || plan.batches());
        let mut skipped = 0;
        while let Some(batch) = batches.next().await? {
            let (sequence, rows) = (report.batches, batch.num_rows() as u64);
            if sequence < next {
                skipped += rows;
                if self.is_rejected(sequence) {
                    report.rows_rejected += rows;
                } else {
                    report.rows_duplicate += rows;
                }
            } else {
                drop(
                    self.or_trouble(async { Ok(out.send_numbered(sequence, &batch).await?) })
                        .await?,
                );
            }
            report.batches += 1;
            progress.rows_read += rows;
            progress.bytes_read = scaled(
                progress.bytes_total,
                progress.rows_read,
                progress.rows_total,
            );
            progress.rows_settled = skipped + self.settled_rows();
            report_progress(&progress);
        }
        if progress.rows_read != progress.rows_total {
            return Err(FileError::Changed {
                path: self.plan.options().path.clone(),
            }
            .into());
        }
        let all_settled = async {
            loop {
                let settled = progress.rows_settled;
                let flushed = tokio::select! {
                    biased;
                    flushed = self.client.flush() => Some(flushed),
                    () = self.client.wait_for_status(|_| (skipped + self.settled_rows() > settled).then_some(())) => None,
                };
                progress.rows_settled = skipped + self.settled_rows();
                report_progress(&progress);
                if let Some(flushed) = flushed {
                    return Ok(flushed?);
                }
            }
        };
        self.or_trouble(all_settled).await?;
        let totals = self.client.status().totals;
        report.rows_refused = self.client.refused_rows(&stream, producer);
        let earlier: u64 = refused_before.values().sum();
        report.rows_duplicate = report.rows_duplicate.saturating_sub(earlier);
        report.rows_stored = totals.stored_rows;
        report.rows_rejected += totals.rejected_rows;
        report.rows_unreported = totals.unreported_rows;
        let found = self
            .rejects
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        report.rejected = found
            .iter()
            .map(|(sequence, (code, message))| RejectedBatch {
                sequence: Sequence(*sequence),
                code: *code,
                message: message.clone(),
            })
            .collect();
        Ok(report)
    }

    fn is_rejected(&self, sequence: u64) -> bool {
        self.rejects
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&sequence)
    }

    fn settled_rows(&self) -> u64 {
        let totals = self.client.status().totals;
        totals.stored_rows + totals.refused_rows + totals.rejected_rows + totals.unreported_rows
    }

    /// `work`, or what makes waiting for it pointless.
    async fn or_trouble<T>(
        &self,
        work: impl Future<Output = Result<T, SendFileError>>,
    ) -> Result<T, SendFileError> {
        tokio::select! {
            biased;
            done = work => done,
            trouble = self.trouble() => Err(trouble),
        }
    }

    /// Waits until the server refuses this client, or has been away for too long.
    async fn trouble(&self) -> SendFileError {
        loop {
            let lost = self
                .client
                .wait_for_status(|status| match &status.connection {
                    Connection::Disconnected(reason) => Some(reason.clone()),
                    _ => None,
                });
            let reason: Disconnect = lost.await;
            if reason.is_refusal() {
                return ConnectError::Refused(reason).into();
            }
            match timeout(self.options.reconnect_patience, self.client.connected()).await {
                Ok(Ok(())) => {}
                Ok(Err(refused)) => return refused.into(),
                Err(_) => return self.unavailable(),
            }
        }
    }

    fn unavailable(&self) -> SendFileError {
        let reason = match self.client.status().connection {
            Connection::Disconnected(reason) => reason.to_string(),
            _ => "it does not answer".to_owned(),
        };
        SendFileError::Unavailable { reason }
    }
}

/// `total · part / whole`, without overflow.
fn scaled(total: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(total) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

async fn on_blocking_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(aborted(path, error)),
    }
}

/// A reading thread that did not end by itself.
fn aborted(path: &Path, error: JoinError) -> FileError {
    let reason = match error.try_into_panic() {
        Ok(panic) => said(panic.as_ref()),
        Err(cancelled) => cancelled.to_string(),
    };
    FileError::Aborted {
        path: path.to_owned(),
        reason,
    }
}

/// Batches that are read on a thread that may block, a few ahead of who sends them.
struct ReadAhead {
    path: PathBuf,
    batches: mpsc::Receiver<Result<RecordBatch, FileError>>,
    /// Until it has ended. It ends by itself: at the end of the file, or when nobody receives.
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    fn start<B: Iterator<Item = Result<RecordBatch, FileError>>>(
        path: &Path,
        open: impl FnOnce() -> Result<B, FileError> + Send + 'static,
    ) -> Self {
        let (sender, batches) = mpsc::channel(READ_AHEAD);
        let thread = tokio::task::spawn_blocking(move || match open() {
            Ok(batches) => {
                for batch in batches {
                    let is_last = batch.is_err();
                    if sender.blocking_send(batch).is_err() || is_last {
                        return;
                    }
                }
            }
            Err(error) => {
                let _nobody_reads = sender.blocking_send(Err(error));
            }
        });
        Self {
            path: path.to_owned(),
            batches,
            thread: Some(thread),
        }
    }

    /// The next batch; `None` at the end of the file, and at no other.
    async fn next(&mut self) -> Result<Option<RecordBatch>, FileError> {
        if let Some(batch) = self.batches.recv().await {
            return batch.map(Some);
        }
        // The channel is closed at the end, and also by a thread that did not come so far.
        if let Some(thread) = self.thread.take() {
            thread.await.map_err(|error| aborted(&self.path, error))?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::Schema;

    use super::*;

    #[tokio::test]
    async fn a_reading_thread_that_panics_is_not_the_end_of_the_file() {
        let batch = || RecordBatch::new_empty(Arc::new(Schema::empty()));
        let mut whole = ReadAhead::start(Path::new("a.csv"), move || {
            Ok((0..5).map(move |_| Ok(batch())))
        });
        for _ in 0..5 {
            assert!(whole.next().await.unwrap().is_some());
        }
        assert!(whole.next().await.unwrap().is_none());
        assert!(whole.next().await.unwrap().is_none());

        let mut cut = ReadAhead::start(Path::new("a.csv"), move || {
            Ok((0..5).map(move |index| match index {
                3 => panic!("no third batch"),
                _ => Ok(batch()),
            }))
        });
        for _ in 0..3 {
            assert!(cut.next().await.unwrap().is_some());
        }
        let error = cut.next().await.unwrap_err();
        assert!(matches!(error, FileError::Aborted { .. }), "{error}");
        let error = error.to_string();
        assert!(
            error.contains("a.csv") && error.contains("no third batch"),
            "{error}"
        );
    }
}
