//! The bare pipeline: the stages of the engine by threads and bounded channels.
//!
//! ```text
//! a task per connection: QUIC ─▶ decode ─▶ judge, stored types ──bounded──▶ commit thread
//!   log, one fdatasync for all that has come ─▶ positions ─▶ memory ──bounded──▶ flush threads
//!                                                             sort ─▶ Parquet ─▶ file, fsync
//! ```
//!
//! There are no actors, routes, shards, sequences, acknowledgements, snapshots or Delta commits.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use crossbeam::channel::{Receiver, Sender, bounded};
use quinn::{Connection, Endpoint};
use quiver_archive::stages::sort;
use quiver_bench_kernels::data::{self, FIELDS};
use quiver_log::{Encoding, Log, LogOptions, OsVfs, Record, RecordKind, RecoveryFloor};
use quiver_model::{CheckedBatch, OsEntropy, Position, Producer, SenderId, StreamSchema};
use quiver_protocol::{TelemetryDecoder, TelemetryEvent};
use tokio::sync::mpsc;

use crate::{
    Fault,
    endpoint::{Server, runtime},
    measure::{Row, Stretch, cpu_seconds, now, percentile},
    options::{Options, Scenario},
    quic::started,
    sync::RECORD_BYTES,
};

/// Most bytes taken from a QUIC stream at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Batches that may wait for the commit thread.
const WAITING: usize = 512;
/// Threads that flush, as the engine has.
const FLUSHERS: usize = 2;
/// How long is waited for something to become durable, and how often is looked.
const LONGEST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// A batch that is whole and checked.
struct Arrived {
    record: Record,
    batch: CheckedBatch,
    at: Instant,
}

/// Rows that are flushed together.
struct FlushSet {
    number: u64,
    rows: usize,
    batches: Vec<RecordBatch>,
}

#[derive(Default)]
struct Counters {
    durable_points: AtomicU64,
    durable_bytes: AtomicU64,
    flushed_points: AtomicU64,
    file_bytes: AtomicU64,
    commits: AtomicU64,
    /// Seconds from arrival until durable.
    latencies: Mutex<Vec<f64>>,
    /// The first thing that went wrong on a thread.
    fault: Mutex<Option<String>>,
}

impl Counters {
    fn fail(&self, fault: &Fault) {
        let mut slot = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| fault.to_string());
    }

    fn check(&self) -> Result<(), Fault> {
        let slot = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().map_or(Ok(()), |fault| Err(fault.into()))
    }
}

/// Runs a scenario through the bare pipeline.
pub fn measure(
    scenario: &Scenario,
    options: &Options,
    results: &mut Vec<Row>,
) -> Result<(), Fault> {
    let directory = tempfile::TempDir::new_in(&options.directory)?;
    let counters = Arc::new(Counters::default());
    let schema = data::stream_schema(FIELDS)?;
    let (to_commit, commits) = mpsc::channel(WAITING);
    let threads = spawn(
        directory.path(),
        options.flush_rows,
        &schema,
        &counters,
        commits,
    )?;
    let row = runtime("limits-ingest")?.block_on(async {
        let server = Server::start()?;
        tokio::spawn(accept(
            server.endpoint.clone(),
            schema.clone(),
            to_commit,
            counters.clone(),
            scenario.clone(),
        ));
        let mut generator = server.generator(scenario, options.messages, false)?;
        // The first flush is under way: from here on all stages work.
        let first = (options.flush_rows * FIELDS) as u64;
        started(&mut generator, || {
            counters.durable_points.load(Ordering::Relaxed) >= first || counters.check().is_err()
        })
        .await?;
        tokio::time::sleep(options.warm_up()).await;
        let row = observe(scenario, &counters, generator.id()).await;
        let has_ended = generator.has_ended();
        server.endpoint.close(0_u32.into(), b"");
        server.endpoint.wait_idle().await;
        counters.check()?;
        if has_ended {
            return Err(Fault::from(
                "the generator ended before the measurement did",
            ));
        }
        Ok(row)
    })?;
    for thread in threads {
        thread
            .join()
            .map_err(|_| "a thread of the pipeline panicked")?;
    }
    counters.check()?;
    results.push(row);
    Ok(())
}

/// Counts for as long as the scenario lasts.
async fn observe(scenario: &Scenario, counters: &Counters, generator: u32) -> Row {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let before = [
        &counters.durable_points,
        &counters.durable_bytes,
        &counters.flushed_points,
        &counters.file_bytes,
        &counters.commits,
    ]
    .map(read);
    let lock = || {
        counters
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    lock().clear();
    let cpu = cpu_seconds(Some(generator)).unwrap_or_default();
    let stretch = Stretch::begin();
    tokio::time::sleep(scenario.duration).await;
    // A stretch so short that nothing became durable in it would measure nothing.
    while read(&counters.durable_points) == before[0] && stretch.elapsed() < LONGEST {
        tokio::time::sleep(LOOK).await;
    }
    let taken = stretch.end();
    let generator_cpu = cpu_seconds(Some(generator)).unwrap_or_default() - cpu;
    let mut latencies = std::mem::take(&mut *lock());
    latencies.sort_by(f64::total_cmp);

    let points = read(&counters.durable_points) - before[0];
    let bytes = read(&counters.durable_bytes) - before[1];
    let flushed = read(&counters.flushed_points) - before[2];
    let file_bytes = read(&counters.file_bytes) - before[3];
    let commits = read(&counters.commits) - before[4];
    let mut row = Row::of(&scenario.name, "bare pipeline", taken, points, bytes);
    row.generator_cpu_per_million = (points > 0).then(|| generator_cpu / (points as f64 / 1e6));
    row.note("flushed Mpoints/s", flushed as f64 / taken.seconds / 1e6)
        .note("file MB/s", file_bytes as f64 / taken.seconds / 1e6)
        .note("commits/s", commits as f64 / taken.seconds)
        .note("durable p50 ms", percentile(&latencies, 50.0) * 1e3)
        .note("p99 ms", percentile(&latencies, 99.0) * 1e3)
}

async fn accept(
    endpoint: Endpoint,
    schema: Arc<StreamSchema>,
    to_commit: mpsc::Sender<Arrived>,
    counters: Arc<Counters>,
    scenario: Scenario,
) {
    let mut number = 0;
    while let Some(incoming) = endpoint.accept().await {
        let sender = scenario
            .source(number)
            .map(|source| source.sender().clone());
        number += 1;
        let (schema, to_commit, counters) = (schema.clone(), to_commit.clone(), counters.clone());
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else {
                return;
            };
            let received = match sender {
                Ok(sender) => receive(&connection, &sender, &schema, &to_commit).await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = received {
                counters.fail(&fault);
            }
        });
    }
}

/// Decodes and checks what comes on a connection's QUIC stream, until it ends.
async fn receive(
    connection: &Connection,
    sender: &SenderId,
    schema: &Arc<StreamSchema>,
    to_commit: &mpsc::Sender<Arrived>,
) -> Result<(), Fault> {
    let Ok(mut stream) = connection.accept_uni().await else {
        return Ok(());
    };
    let mut decoder = TelemetryDecoder::default();
    while let Ok(Some(chunk)) = stream.read_chunk(CHUNK_BYTES, true).await {
        decoder.handle_bytes(chunk.bytes);
        while let Some(event) = decoder.poll_event() {
            let wire = match event {
                TelemetryEvent::Open(_) | TelemetryEvent::Schema(_) => continue,
                TelemetryEvent::Batch(wire) => wire,
                other => return Err(format!("the generator's bytes are refused: {other:?}").into()),
            };
            let at = now();
            let (verdict, batch) = data::check(&wire.batch, schema, sender)?;
            let mut record = Record::control(RecordKind::Data, data::NOW);
            record.encoding = Encoding::ArrowIpcMessage;
            record.sender = Some(sender.clone());
            record.producer = Producer(1);
            record.stream = Some(schema.stream().clone());
            record.sequence = wire.sequence;
            record.rows = batch.rows_sent();
            record.verdict = verdict;
            record.payload = wire.message;
            if to_commit.send(Arrived { record, batch, at }).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn spawn(
    directory: &Path,
    flush_rows: usize,
    schema: &Arc<StreamSchema>,
    counters: &Arc<Counters>,
    commits: mpsc::Receiver<Arrived>,
) -> Result<Vec<JoinHandle<()>>, Fault> {
    let (to_flush, sets) = bounded(1);
    let (to_report, flushed) = bounded(64);
    let log_options = LogOptions {
        retention_bytes: 0,
        ..LogOptions::default()
    };
    let path = directory.join("log");
    let floor = RecoveryFloor::default();
    let (log, _) = Log::open(Arc::new(OsVfs), &path, log_options, &OsEntropy, floor)?;
    let committer = Committer {
        log,
        flush_rows: flush_rows.max(1),
        counters: counters.clone(),
        to_flush,
        flushed,
        set: FlushSet {
            number: 0,
            rows: 0,
            batches: Vec::new(),
        },
        unflushed: VecDeque::new(),
    };
    let mut threads = vec![thread("limits-commit", counters, move || {
        committer.run(commits)
    })?];
    for number in 0..FLUSHERS {
        let flusher = Flusher {
            directory: directory.to_owned(),
            schema: schema.clone(),
            counters: counters.clone(),
            sets: sets.clone(),
            to_report: to_report.clone(),
        };
        let name = format!("limits-flush-{number}");
        threads.push(thread(&name, counters, move || flusher.run())?);
    }
    Ok(threads)
}

fn thread(
    name: &str,
    counters: &Arc<Counters>,
    work: impl FnOnce() -> Result<(), Fault> + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let counters = counters.clone();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(fault) = work() {
                counters.fail(&fault);
            }
        })
}

struct Committer {
    log: Log,
    flush_rows: usize,
    counters: Arc<Counters>,
    to_flush: Sender<FlushSet>,
    /// Numbers of sets that are files.
    flushed: Receiver<u64>,
    set: FlushSet,
    /// Sets that are not, oldest first: number, the position after them, whether they are by now.
    unflushed: VecDeque<(u64, Position, bool)>,
}

impl Committer {
    fn run(mut self, mut commits: mpsc::Receiver<Arrived>) -> Result<(), Fault> {
        let limit = LogOptions::default().group_bytes_max;
        let mut left_over = None;
        loop {
            let Some(first) = left_over.take().or_else(|| commits.blocking_recv()) else {
                return Ok(());
            };
            let mut bytes = first.record.payload.len() + RECORD_BYTES;
            let mut group = vec![first];
            while let Ok(next) = commits.try_recv() {
                bytes += next.record.payload.len() + RECORD_BYTES;
                if bytes > limit {
                    left_over = Some(next);
                    break;
                }
                group.push(next);
            }
            if !self.commit(group)? {
                return Ok(());
            }
        }
    }

    /// Makes a group durable and visible; whether there is anybody left to flush it.
    fn commit(&mut self, group: Vec<Arrived>) -> Result<bool, Fault> {
        let (mut records, rest): (Vec<Record>, Vec<(CheckedBatch, Instant)>) = group
            .into_iter()
            .map(|arrived| (arrived.record, (arrived.batch, arrived.at)))
            .unzip();
        let committed = self.log.append_group(&mut records)?;
        let mut position = committed.first;
        let mut latencies = Vec::with_capacity(records.len());
        let (mut points, mut bytes) = (0, 0);
        for (record, (batch, at)) in records.iter().zip(rest) {
            let rows = batch.place(position, record.time)?;
            position = position.plus(record.positions());
            latencies.push(at.elapsed().as_secs_f64());
            points += batch.point_count();
            bytes += record.payload.len() as u64;
            self.set.rows += rows.num_rows();
            self.set.batches.push(rows);
        }
        let counters = &self.counters;
        counters.durable_points.fetch_add(points, Ordering::Relaxed);
        counters.durable_bytes.fetch_add(bytes, Ordering::Relaxed);
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(latencies);
        if self.set.rows < self.flush_rows {
            return Ok(true);
        }
        let next = FlushSet {
            number: self.set.number + 1,
            rows: 0,
            batches: Vec::new(),
        };
        let set = std::mem::replace(&mut self.set, next);
        self.unflushed.push_back((set.number, position, false));
        let is_taken = self.to_flush.send(set).is_ok();
        self.trim()?;
        Ok(is_taken)
    }

    /// Gives up the log's segments whose rows are files.
    fn trim(&mut self) -> Result<(), Fault> {
        while let Ok(number) = self.flushed.try_recv() {
            for set in &mut self.unflushed {
                set.2 |= set.0 == number;
            }
        }
        let mut floor = None;
        while let Some((_, end, true)) = self.unflushed.front().copied() {
            floor = Some(end);
            self.unflushed.pop_front();
        }
        if let Some(floor) = floor {
            self.log.trim(floor)?;
        }
        Ok(())
    }
}

struct Flusher {
    directory: PathBuf,
    schema: Arc<StreamSchema>,
    counters: Arc<Counters>,
    sets: Receiver<FlushSet>,
    to_report: Sender<u64>,
}

impl Flusher {
    fn run(self) -> Result<(), Fault> {
        for set in &self.sets {
            let sorted = sort(&set.batches).ok_or("the rows have another layout")?;
            let contents = sorted.encode(self.schema.stored(), &set.batches)?;
            for (day, content) in contents.iter().enumerate() {
                let name = format!("{}-{day}.parquet", set.number);
                let path = self.directory.join(name);
                let mut file = File::create(&path)?;
                file.write_all(content)?;
                file.sync_all()?;
                // Measured is the writing; keeping it all would fill the disk.
                std::fs::remove_file(&path)?;
                self.counters
                    .file_bytes
                    .fetch_add(content.len() as u64, Ordering::Relaxed);
            }
            let points = (set.rows * FIELDS) as u64;
            self.counters
                .flushed_points
                .fetch_add(points, Ordering::Relaxed);
            if self.to_report.send(set.number).is_err() {
                break;
            }
        }
        Ok(())
    }
}
