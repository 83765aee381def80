use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    types::Int32Type,
};
use quiver_hot::{Archive, FlushInput};
use quiver_model::{
    Clock, FieldName, ManualClock, OsEntropy, Position, SchemaId, StreamSchema, Timestamp,
};

use super::*;

const DAY_US: i64 = 86_400_000_000;
const ROWS: i64 = 50;

/// Forgets what is written down.
#[derive(Debug)]
struct Book(AtomicU64);

#[async_trait::async_trait]
impl ExpiryBook for Book {
    async fn write(
        &self,
        _: &crate::ExpiryRun,
    ) -> Result<Position, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Position(self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

struct Engine {
    clock: Arc<ManualClock>,
    archive: Arc<DeltaArchive>,
    tables: Arc<Tables>,
    table: Arc<StreamTable>,
    retention: Arc<Retention>,
    schema: Arc<StreamSchema>,
    next: i64,
    _directory: tempfile::TempDir,
}

impl Engine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(20_000 * DAY_US)));
        let archive =
            DeltaArchive::local(directory.path(), "log", clock.clone(), Arc::new(OsEntropy))
                .unwrap();
        let field = StreamField::new(FieldName::new("speed").unwrap(), FieldType::Float64);
        let name = StreamName::new("readings").unwrap();
        let schema = Arc::new(StreamSchema::new(name, SchemaId(1), vec![field]).unwrap());
        let tables = Arc::new(Tables::new(1));
        let table = tables.get_or_create(&schema);
        Self {
            clock,
            archive: Arc::new(archive),
            tables,
            table,
            retention: Arc::default(),
            schema,
            next: 1,
            _directory: directory,
        }
    }

    async fn flush(&mut self) {
        let now = self.clock.wall().0;
        let ts = TimestampMicrosecondArray::from_iter_values((0..ROWS).map(|row| now + row))
            .with_timezone("UTC");
        let device: DictionaryArray<Int32Type> = (0..ROWS).map(|_| Some("truck")).collect();
        let positions = self.next..self.next + ROWS;
        self.next += ROWS;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ts.clone()),
            Arc::new(device),
            Arc::new(ts),
            Arc::new(Int64Array::from_iter_values(positions.clone())),
            Arc::new(Float64Array::from_iter_values(
                positions.map(|position| position as f64),
            )),
        ];
        let batch = RecordBatch::try_new(Arc::clone(self.schema.stored()), columns).unwrap();
        let input = FlushInput {
            stream: self.schema.stream().clone(),
            schema: Arc::clone(&self.schema),
            barrier: Position((self.next - 1).cast_unsigned()),
            batches: vec![batch],
        };
        let snapshot = self.archive.flush(input).await.unwrap();
        self.table.install_archived(snapshot).unwrap();
    }

    fn maintenance(&self) -> Arc<Maintenance> {
        let options = MaintenanceOptions {
            merge_every: Duration::from_millis(1),
            ..MaintenanceOptions::default()
        };
        Maintenance::new(
            Arc::clone(&self.archive),
            Arc::clone(&self.tables),
            options,
            Arc::clone(&self.retention),
            Arc::new(Book(AtomicU64::new(1))),
        )
    }

    fn files(&self) -> usize {
        self.table.state().archived().files.len()
    }

    fn rows(&self) -> u64 {
        self.table.state().archived().rows()
    }
}

#[tokio::test]
async fn small_files_are_merged_replaced_ones_deleted_and_queries_see_the_same_rows() {
    let mut engine = Engine::new();
    let maintenance = engine.maintenance();
    for _ in 0..7 {
        engine.flush().await;
        assert_eq!(maintenance.merge_round().await, 0);
    }
    engine.flush().await;
    // Somebody still reads the files as they are.
    let lease = engine.table.state().archived().clone();
    assert_eq!(maintenance.merge_round().await, 1);
    assert_eq!(
        (engine.files(), engine.rows()),
        (1, 8 * ROWS.cast_unsigned())
    );
    let report = engine.archive.check(engine.schema.stream()).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(maintenance.merge_round().await, 0);
    let totals = maintenance.totals();
    assert_eq!(
        (totals.merges, totals.merged_files, totals.failures),
        (1, 8, 0)
    );
    assert_eq!(totals.merged_rows, 8 * ROWS.cast_unsigned());

    maintenance.vacuum_round().await;
    assert_eq!(maintenance.totals().deleted_files, 0, "not old enough");
    engine.clock.advance(Duration::from_secs(8 * 86_400));
    maintenance.vacuum_round().await;
    assert_eq!(maintenance.totals().deleted_files, 0, "still read");
    drop(lease);
    maintenance.vacuum_round().await;
    assert_eq!(maintenance.totals().deleted_files, 8);
    let report = engine.archive.check(engine.schema.stream()).await.unwrap();
    assert!(report.problems.is_empty() && report.orphans.is_empty());
}

#[tokio::test]
async fn a_stream_that_cannot_be_merged_is_left_alone_for_a_while() {
    let mut engine = Engine::new();
    let maintenance = engine.maintenance();
    for _ in 0..8 {
        engine.flush().await;
    }
    let first = engine
        .table
        .state()
        .archived()
        .files
        .get(0)
        .unwrap()
        .path
        .clone();
    let stream = engine.schema.stream();
    let file = engine._directory.path().join(stream.as_str()).join(first);
    let content = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"no parquet").unwrap();
    for _ in 0..3 {
        assert_eq!(maintenance.merge_round().await, 0);
    }
    assert_eq!(maintenance.totals().failures, 1);
    std::fs::write(&file, content).unwrap();
    engine.clock.advance(RETRY_MIN);
    assert_eq!(maintenance.merge_round().await, 1);
    assert_eq!(engine.files(), 1);
}

#[tokio::test]
async fn rows_go_when_they_are_older_than_they_are_kept_and_files_span_a_part_of_that() {
    let mut engine = Engine::new();
    let hour = Duration::from_secs(3_600);
    let keep = |hours: u32| BTreeMap::from([(engine.schema.stream().clone(), hour * hours)]);
    engine.retention.set(keep(10));
    let maintenance = engine.maintenance();
    let one = ROWS.cast_unsigned();
    for _ in 0..16 {
        engine.flush().await;
        engine.clock.advance(hour / 10);
        maintenance.expiry_round().await;
        maintenance.merge_round().await;
    }
    // Sixteen flushes, six minutes apart: merged as far as an hour reaches.
    let files: Vec<u64> = {
        let state = engine.table.state();
        state
            .archived()
            .files
            .iter()
            .map(|file| file.rows)
            .collect()
    };
    assert_eq!(files.iter().sum::<u64>(), 16 * one);
    assert!(files.len() >= 2 && files.len() < 16, "{files:?}");
    engine.clock.advance(hour * 9);
    maintenance.expiry_round().await;
    let left = engine.rows();
    assert!(left >= 10 * one, "{left}: younger ones went, too");
    // It is looked again after a tenth of the time that rows are kept.
    engine.clock.advance(hour / 2);
    maintenance.expiry_round().await;
    assert_eq!(engine.rows(), left);
    engine.clock.advance(hour);
    maintenance.expiry_round().await;
    assert_eq!((engine.rows(), engine.files()), (0, 0));
    let totals = maintenance.totals();
    assert_eq!((totals.expired_rows, totals.failures), (16 * one, 0));
    // What left goes from the disk when it was gone for as long as it was kept.
    maintenance.vacuum_round().await;
    let deleted = maintenance.totals().deleted_files;
    engine.clock.advance(hour * 11);
    maintenance.vacuum_round().await;
    assert!(maintenance.totals().deleted_files > deleted);
    let report = engine.archive.check(engine.schema.stream()).await.unwrap();
    assert!(report.problems.is_empty() && report.orphans.is_empty());

    // What is kept for ever stays.
    engine.flush().await;
    engine.retention.set(BTreeMap::new());
    engine.clock.advance(hour * 10_000);
    maintenance.expiry_round().await;
    assert_eq!(engine.rows(), one);
}

#[tokio::test]
async fn it_runs_by_itself_and_stops_when_told() {
    let mut engine = Engine::new();
    for _ in 0..8 {
        engine.flush().await;
    }
    let maintenance = engine.maintenance();
    let running = tokio::spawn(Arc::clone(&maintenance).run());
    while engine.files() > 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    maintenance.stop();
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
    ended.unwrap().unwrap();
    // Stopped before it ran: it does not begin.
    let again = tokio::time::timeout(Duration::from_secs(20), maintenance.run()).await;
    again.unwrap();
}

#[tokio::test]
async fn rows_that_would_take_too_much_memory_are_merged_in_parts() {
    let mut engine = Engine::new();
    for _ in 0..8 {
        engine.flush().await;
    }
    // The rows of a file take 50 * 36 bytes, and a few of its one device's name.
    let of_files = |files: u64| files * 1_850;
    let stream = engine.schema.stream();
    let merge = async |memory: u64| {
        let present = engine.archive.snapshot(stream).await.unwrap();
        let merge = present.files.iter().cloned().collect();
        let merged = engine
            .archive
            .merge_files(stream, &present, vec![merge], memory);
        merged.await.unwrap()
    };
    let (report, too_large) = merge(of_files(1)).await;
    assert_eq!((report.removed, report.added), (0, 0));
    assert!(!too_large.is_empty());
    let (report, too_large) = merge(of_files(3)).await;
    // Parts of three, three and two.
    assert_eq!((report.removed, report.added, too_large.len()), (8, 3, 0));
    assert_eq!(report.snapshot.rows(), 8 * ROWS.cast_unsigned());
}

#[test]
fn wide_rows_make_smaller_merges() {
    let options = MaintenanceOptions::default();
    let fields = |count: usize| -> Vec<StreamField> {
        (0..count)
            .map(|at| {
                StreamField::new(
                    FieldName::new(&format!("f{at}")).unwrap(),
                    FieldType::Float64,
                )
            })
            .collect()
    };
    assert_eq!(options.limits_for(&fields(2)).rows, 4_000_000);
    let rows = options.limits_for(&fields(1_000)).rows;
    assert!(
        rows * 8_040 <= options.memory_bytes && rows > 30_000,
        "{rows}"
    );
}
