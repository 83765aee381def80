//! An engine without ingest: rows are placed where a test wants them.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, types::Int32Type,
};
use futures::{FutureExt, future::BoxFuture};
use quiver_archive::{CompactOptions, DeltaArchive};
use quiver_hot::{Archive, FreezeOutcome, LastValues, Reservation, Tables};
use quiver_model::{
    FieldName, FieldType, OsEntropy, Partition, Position, SchemaId, ShardId, StreamField,
    StreamName, StreamSchema, SystemClock,
};
use quiver_query::{
    ArchiveLocation, CommittedView, Format, QueryEngine, QueryError, QueryLimits, QuerySources,
    query_runtime, write_result,
};

pub const SHARDS: u16 = 3;
pub const DAY: i64 = 86_400_000_000;

/// A row of a stream with the fields `speed` (float), `gear` (int), `note` (text), `on` (bool),
/// `seen` (a time, in microseconds since 1970).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub ts: i64,
    pub device: String,
    pub speed: Option<f64>,
    pub gear: Option<i64>,
    pub note: Option<String>,
    pub on: Option<bool>,
    pub seen: Option<i64>,
}

impl Row {
    pub fn new(ts: i64, device: &str, speed: f64) -> Self {
        Self {
            ts,
            device: device.into(),
            speed: Some(speed),
            gear: None,
            note: None,
            on: None,
            seen: None,
        }
    }
}

pub fn name(stream: &str) -> StreamName {
    StreamName::new(stream).unwrap()
}

/// The schema of a stream with the first `fields` of the five fields.
pub fn schema(stream: &str, fields: usize) -> Arc<StreamSchema> {
    let all = [
        ("speed", FieldType::Float64),
        ("gear", FieldType::Int64),
        ("note", FieldType::Utf8),
        ("on_road", FieldType::Bool),
        ("seen", FieldType::Timestamp),
    ];
    let fields = all
        .into_iter()
        .take(fields)
        .map(|(name, field_type)| StreamField::new(FieldName::new(name).unwrap(), field_type));
    Arc::new(StreamSchema::new(name(stream), SchemaId(1), fields.collect()).unwrap())
}

/// Commits and applies at once; a test may have something done in between.
#[derive(Default)]
pub struct View {
    committed: AtomicU64,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    stuck: std::sync::atomic::AtomicBool,
}

impl View {
    /// Runs `action` between the next query's choice of Q and its look at the tables.
    pub fn meanwhile(&self, action: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(action));
    }

    /// From now on nothing is applied any more.
    pub fn stick(&self) {
        self.stuck.store(true, Ordering::SeqCst);
    }
}

impl CommittedView for View {
    fn committed(&self) -> Position {
        Position(self.committed.load(Ordering::SeqCst))
    }

    fn wait_applied(&self, _position: Position) -> BoxFuture<'_, ()> {
        async move {
            if self.stuck.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let action = self.meanwhile.lock().unwrap().take();
            if let Some(action) = action {
                // Flushing blocks on a runtime of its own.
                std::thread::spawn(action).join().unwrap();
            }
        }
        .boxed()
    }
}

/// Tables, an archive and a query engine over both.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub tables: Arc<Tables>,
    pub last_values: Arc<LastValues>,
    pub archive: Arc<DeltaArchive>,
    pub view: Arc<View>,
    pub engine: QueryEngine,
    pub runtime: tokio::runtime::Runtime,
}

pub fn limits() -> QueryLimits {
    QueryLimits {
        memory_bytes: 64 << 20,
        timeout: Duration::from_secs(30),
        partitions: 2,
        ..QueryLimits::default()
    }
}

impl Fixture {
    pub fn new() -> Arc<Self> {
        Self::with_limits(limits())
    }

    pub fn with_limits(limits: QueryLimits) -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (archive, location) = crate::harness::archive(directory.path());
        let tables = Arc::new(Tables::new(SHARDS));
        let last_values = Arc::new(LastValues::new(SHARDS));
        let view = Arc::new(View::default());
        let sources = QuerySources {
            tables: Arc::clone(&tables),
            last_values: Arc::clone(&last_values),
            archive: location,
            view: Arc::clone(&view) as _,
        };
        let engine = QueryEngine::new(sources, limits).unwrap();
        let runtime = query_runtime(2).unwrap();
        Arc::new(Self {
            directory,
            tables,
            last_values,
            archive,
            view,
            engine,
            runtime,
        })
    }

    /// Appends and commits one batch; returns its first position.
    pub fn append(&self, schema: &Arc<StreamSchema>, rows: &[Row]) -> u64 {
        let first = self.view.committed.load(Ordering::SeqCst) + 1;
        self.place(schema, rows, first);
        self.view
            .committed
            .store(first + rows.len() as u64 - 1, Ordering::SeqCst);
        first
    }

    /// Applies rows at `first` without committing them.
    pub fn place(&self, schema: &Arc<StreamSchema>, rows: &[Row], first: u64) {
        let table = self.tables.get_or_create(schema);
        for shard in 0..SHARDS {
            let mine: Vec<(u64, &Row)> = (first..)
                .zip(rows)
                .filter(|(_, row)| Partition::of_str(&row.device).shard(SHARDS) == ShardId(shard))
                .collect();
            if mine.is_empty() {
                continue;
            }
            let batch = batch(schema, &mine);
            self.last_values
                .update(ShardId(shard), schema.stream(), &batch)
                .unwrap();
            table
                .append(ShardId(shard), batch, Reservation::none(), Duration::ZERO)
                .unwrap();
        }
    }

    /// Freezes every shard at the last position; the rows are on their way to the archive.
    pub fn freeze(&self, stream: &str) -> Option<quiver_hot::FlushInput> {
        self.freeze_at(stream, self.view.committed.load(Ordering::SeqCst))
    }

    pub fn freeze_at(&self, stream: &str, barrier: u64) -> Option<quiver_hot::FlushInput> {
        let table = self.tables.table(&name(stream))?;
        let mut complete = None;
        for shard in 0..SHARDS {
            match table.freeze(ShardId(shard), Position(barrier)) {
                Ok(FreezeOutcome::Complete(input)) => complete = Some(input),
                Ok(FreezeOutcome::Waiting { .. }) => {}
                Err(quiver_hot::FreezeError::Order { .. }) => return None,
                Err(error) => panic!("{error}"),
            }
        }
        complete
    }

    /// Archives what was frozen.
    pub fn archive(&self, input: quiver_hot::FlushInput) {
        let table = self.tables.table(&input.stream).unwrap();
        let barrier = input.barrier;
        let snapshot = if input.is_empty() {
            Arc::clone(table.state().archived())
        } else {
            self.block_on(self.archive.flush(input)).unwrap()
        };
        table.complete_flush(barrier, snapshot).unwrap();
    }

    /// Archives everything of a stream.
    pub fn flush(&self, stream: &str) {
        if let Some(input) = self.freeze(stream) {
            self.archive(input);
        }
    }

    /// Merges the small files of a stream and publishes the version that has the large ones.
    pub fn compact(&self, stream: &str) {
        let stream = name(stream);
        let snapshot = self.block_on(async {
            let options = CompactOptions::default();
            self.archive.compact(&stream, &options).await.unwrap();
            self.archive.snapshot(&stream).await.unwrap()
        });
        let table = self.tables.table(&stream).unwrap();
        table.install_archived(snapshot).unwrap();
    }

    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        std::thread::scope(|scope| {
            let waiter = std::thread::Builder::new().stack_size(16 << 20);
            let runtime = &self.runtime;
            let join = waiter
                .spawn_scoped(scope, move || runtime.block_on(future))
                .unwrap();
            join.join().unwrap()
        })
    }

    pub fn query(&self, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
        self.block_on(async { self.engine.query(sql).await?.collect().await })
    }

    #[track_caller]
    pub fn error(&self, sql: &str) -> QueryError {
        match self.query(sql) {
            Err(error) => error,
            Ok(batches) => panic!(
                "{sql:.200} has {} rows",
                batches.iter().map(RecordBatch::num_rows).sum::<usize>()
            ),
        }
    }

    pub fn bytes(&self, sql: &str, format: Format) -> Vec<u8> {
        self.block_on(async {
            let mut bytes = Vec::new();
            let result = self.engine.query(sql).await.unwrap();
            write_result(result, format, &mut bytes).await.unwrap();
            bytes
        })
    }

    /// The result as lines of CSV, without the header, sorted.
    #[track_caller]
    pub fn lines(&self, sql: &str) -> Vec<String> {
        let text = String::from_utf8(self.bytes(sql, Format::Csv)).unwrap();
        let mut lines: Vec<String> = text.lines().skip(1).map(String::from).collect();
        lines.sort();
        lines
    }

    /// Paths of a stream's live files, with the day of each.
    pub fn files(&self, stream: &str) -> Vec<(i32, PathBuf)> {
        let archived = Arc::clone(self.tables.table(&name(stream)).unwrap().state().archived());
        let root = archive_root(self.directory.path()).join(stream);
        archived
            .files
            .iter()
            .map(|file| (file.day, root.join(&file.path)))
            .collect()
    }
}

fn batch(schema: &Arc<StreamSchema>, rows: &[(u64, &Row)]) -> RecordBatch {
    let times = |of: fn(&Row) -> Option<i64>| -> ArrayRef {
        let times: TimestampMicrosecondArray = rows.iter().map(|(_, row)| of(row)).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let devices: DictionaryArray<Int32Type> =
        rows.iter().map(|(_, row)| row.device.as_str()).collect();
    let positions: Int64Array = rows.iter().map(|(position, _)| *position as i64).collect();
    let mut columns: Vec<ArrayRef> = vec![
        times(|row| Some(row.ts)),
        Arc::new(devices),
        times(|row| Some(row.ts + 1_000)),
        Arc::new(positions),
    ];
    let fields: [ArrayRef; 5] = [
        Arc::new(
            rows.iter()
                .map(|(_, row)| row.speed)
                .collect::<Float64Array>(),
        ),
        Arc::new(rows.iter().map(|(_, row)| row.gear).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|(_, row)| row.note.clone())
                .collect::<StringArray>(),
        ),
        Arc::new(rows.iter().map(|(_, row)| row.on).collect::<BooleanArray>()),
        times(|row| row.seen),
    ];
    columns.extend(fields.into_iter().take(schema.fields().len()));
    RecordBatch::try_new(schema.stored().clone(), columns).unwrap()
}

fn archive_root(directory: &std::path::Path) -> PathBuf {
    directory.join("archive")
}

/// A real archive: Delta tables in a temporary directory.
fn archive(directory: &std::path::Path) -> (Arc<DeltaArchive>, ArchiveLocation) {
    let log_id = "0123456789abcdef0123456789abcdef";
    let clock = Arc::new(SystemClock::new());
    let root = archive_root(directory);
    let archive = DeltaArchive::local(&root, log_id, clock, Arc::new(OsEntropy)).unwrap();
    let (store, root) = archive.location();
    (Arc::new(archive), ArchiveLocation { store, root })
}
