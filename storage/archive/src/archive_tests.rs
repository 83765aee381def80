//! What the archive promises, against real files in temporary directories.

use std::{
    collections::BTreeSet,
    fs,
    path::Path as FsPath,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, path::Path,
};
use quiver_hot::{Archive, ArchiveSnapshot, FlushError, FlushInput};
use quiver_model::{
    Clock, FieldName, FieldType, OsEntropy, Position, SchemaId, StreamField, StreamName,
    StreamSchema, SystemClock,
};

use crate::{
    ArchiveError, CompactOptions, DeltaArchive, DeltaArchiveParts, Directory, DurableStore,
    Problem, VacuumOptions,
};

#[path = "archive_tests/decimals.rs"]
mod decimals;
#[path = "archive_tests/many_days.rs"]
mod many_days;

const DAY_US: i64 = 86_400_000_000;
const LOG: &str = "00112233445566778899aabbccddeeff";

/// (ts, device, position, speed): what a row is in these tests.
type Row = (i64, String, i64, Option<u64>);

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn older_than(older_than: Duration) -> VacuumOptions {
    VacuumOptions {
        older_than,
        ..VacuumOptions::default()
    }
}

fn schema(name: &str, fields: &[&str]) -> Arc<StreamSchema> {
    let fields = fields
        .iter()
        .map(|field| StreamField::new(FieldName::new(field).unwrap(), FieldType::Float64))
        .collect();
    Arc::new(StreamSchema::new(stream(name), SchemaId(1), fields).unwrap())
}

/// A stored batch of (ts, device, position) rows; every field has the position as its value, or
/// null where the position is divisible by 7.
fn batch(schema: &StreamSchema, rows: &[(i64, &str, i64)]) -> RecordBatch {
    let ts = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0))
        .with_timezone("UTC");
    let device: DictionaryArray<Int32Type> = rows.iter().map(|row| Some(row.1)).collect();
    let position = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let value: Float64Array = rows
        .iter()
        .map(|row| (row.2 % 7 != 0).then_some(row.2 as f64 / 2.0))
        .collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(ts.clone()),
        Arc::new(device),
        Arc::new(ts),
        Arc::new(position),
    ];
    columns.extend(
        schema
            .fields()
            .iter()
            .map(|_| Arc::new(value.clone()) as ArrayRef),
    );
    RecordBatch::try_new(Arc::clone(schema.stored()), columns).unwrap()
}

fn input(schema: &Arc<StreamSchema>, barrier: u64, batches: Vec<RecordBatch>) -> FlushInput {
    FlushInput {
        stream: schema.stream().clone(),
        schema: Arc::clone(schema),
        barrier: Position(barrier),
        batches,
    }
}

/// `count` rows from position `first` on, over `devices` devices and `days` days.
fn rows(first: i64, count: i64, devices: i64, days: i64) -> Vec<(i64, String, i64)> {
    (first..first + count)
        .map(|position| {
            // Neither devices nor times are in order.
            let ts = (position * 7_919 % (days * 1_000)) * (DAY_US / 1_000) + position;
            (ts, format!("truck_{}", position % devices), position)
        })
        .collect()
}

fn batch_of(schema: &StreamSchema, rows: &[(i64, String, i64)]) -> RecordBatch {
    let rows: Vec<(i64, &str, i64)> = rows
        .iter()
        .map(|row| (row.0, row.1.as_str(), row.2))
        .collect();
    batch(schema, &rows)
}

fn archive(directory: &FsPath) -> DeltaArchive {
    DeltaArchive::local(
        directory,
        LOG,
        Arc::new(SystemClock::new()),
        Arc::new(OsEntropy),
    )
    .unwrap()
}

async fn read(archive: &DeltaArchive, snapshot: &ArchiveSnapshot) -> Vec<RecordBatch> {
    let layout = crate::read::stored_schema(&snapshot.stream, &snapshot.fields).unwrap();
    let mut batches = Vec::new();
    for file in snapshot.files.iter() {
        let location = crate::read::location(&snapshot.stream, &file.path);
        batches.extend(
            crate::read::read_file(&*archive.store, &location, layout.clone())
                .await
                .unwrap(),
        );
    }
    batches
}

fn to_rows(batches: &[RecordBatch]) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let ts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let device = batch
            .column(1)
            .as_dictionary::<Int32Type>()
            .downcast_dict::<StringArray>()
            .unwrap();
        let position = batch.column(3).as_primitive::<Int64Type>();
        let speed = batch.column(4).as_primitive::<Float64Type>();
        for (row, name) in device.into_iter().enumerate() {
            let speed = speed.is_valid(row).then(|| speed.value(row).to_bits());
            rows.push((
                ts.value(row),
                name.unwrap().to_owned(),
                position.value(row),
                speed,
            ));
        }
    }
    rows
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

async fn all(archive: &DeltaArchive, snapshot: &ArchiveSnapshot) -> Vec<Row> {
    sorted(to_rows(&read(archive, snapshot).await))
}

#[tokio::test]
async fn what_is_flushed_is_read_back_after_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema("readings", &["speed"]);
    let batches = vec![
        batch_of(&schema, &rows(1, 700, 9, 3)),
        batch_of(&schema, &rows(701, 300, 5, 2)),
    ];
    let expected = sorted(to_rows(&batches));
    let flushed = archive(directory.path())
        .flush(input(&schema, 1_000, batches))
        .await
        .unwrap();
    assert_eq!(
        (flushed.version, flushed.flushed, flushed.rows()),
        (0, Position(1_000), 1_000)
    );

    let reopened = archive(directory.path());
    let opened = reopened.open().await.unwrap();
    assert!(opened.damaged.is_empty(), "{:?}", opened.damaged);
    let table = &opened.tables[0];
    assert_eq!((table.version, table.flushed), (0, Position(1_000)));
    assert_eq!(table.fields.as_ref(), schema.fields());
    assert_eq!(all(&reopened, table).await, expected);
    for (before, after) in flushed.files.iter().zip(table.files.iter()) {
        assert_eq!(before.path, after.path);
        assert_eq!(
            (before.rows, before.bytes, before.day),
            (after.rows, after.bytes, after.day)
        );
        assert_eq!(
            (before.min_position, before.max_position),
            (after.min_position, after.max_position)
        );
        assert_eq!(
            (&before.min_device, &before.max_device),
            (&after.min_device, &after.max_device)
        );
        assert!(after.min_ts <= before.min_ts && before.max_ts <= after.max_ts);
    }
}

#[tokio::test]
async fn files_hold_one_day_each_sorted_by_device_time_and_position() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let schema = schema("readings", &["speed"]);
    let batches = vec![batch_of(&schema, &rows(1, 5_000, 40, 12))];
    let snapshot = archive.flush(input(&schema, 5_000, batches)).await.unwrap();
    assert_eq!(snapshot.files.len(), 12);
    let layout = Arc::clone(schema.stored());
    for file in snapshot.files.iter() {
        let location = crate::read::location(&snapshot.stream, &file.path);
        let batches = crate::read::read_file(&*archive.store, &location, layout.clone())
            .await
            .unwrap();
        let rows = to_rows(&batches);
        assert!(
            rows.iter()
                .all(|row| row.0.div_euclid(DAY_US) == i64::from(file.day))
        );
        assert!(rows.is_sorted_by_key(|row| (row.1.clone(), row.0, row.2)));
        assert_eq!(rows.first().unwrap().1, file.min_device);
        assert_eq!(rows.last().unwrap().1, file.max_device);
        assert_eq!(rows.iter().map(|row| row.0).min().unwrap(), file.min_ts.0);
        assert_eq!(rows.iter().map(|row| row.0).max().unwrap(), file.max_ts.0);
    }
}

#[tokio::test]
async fn a_flush_of_several_row_groups_keeps_every_row() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let schema = schema("readings", &["speed"]);
    let batches: Vec<_> = (0..20)
        .map(|part| batch_of(&schema, &rows(1 + part * 10_000, 10_000, 3, 1)))
        .collect();
    let expected = sorted(to_rows(&batches));
    let snapshot = archive
        .flush(input(&schema, 200_000, batches))
        .await
        .unwrap();
    assert_eq!(snapshot.files.len(), 1);
    assert!(all(&archive, &snapshot).await == expected);
    assert!(
        archive
            .check(&snapshot.stream)
            .await
            .unwrap()
            .problems
            .is_empty()
    );
}

#[tokio::test]
async fn streams_are_tables_of_their_own_and_a_damaged_one_names_itself() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["readings", "diagnostics"] {
        let schema = schema(name, &["speed"]);
        let batches = vec![batch_of(&schema, &rows(1, 10, 2, 1))];
        archive(directory.path())
            .flush(input(&schema, 10, batches))
            .await
            .unwrap();
    }
    fs::write(
        directory
            .path()
            .join("readings/_delta_log/00000000000000000000.json"),
        "{ not json",
    )
    .unwrap();
    let opened = archive(directory.path()).open().await.unwrap();
    assert_eq!(
        opened
            .tables
            .iter()
            .map(|table| table.stream.as_str())
            .collect::<Vec<_>>(),
        ["diagnostics"]
    );
    assert_eq!(
        opened
            .damaged
            .iter()
            .map(|table| table.name.as_str())
            .collect::<Vec<_>>(),
        ["readings"]
    );
}

#[tokio::test]
async fn a_stream_that_grows_keeps_its_old_rows_with_nulls() {
    let directory = tempfile::tempdir().unwrap();
    let archive_before = archive(directory.path());
    let old = schema("readings", &["speed"]);
    let new = schema("readings", &["speed", "fuel"]);
    archive_before
        .flush(input(&old, 10, vec![batch_of(&old, &rows(1, 10, 2, 1))]))
        .await
        .unwrap();
    // A batch of the old version in a flush of the new one.
    let mixed = vec![
        batch_of(&old, &rows(11, 10, 2, 1)),
        batch_of(&new, &rows(21, 10, 2, 1)),
    ];
    let snapshot = archive_before.flush(input(&new, 30, mixed)).await.unwrap();
    assert_eq!(snapshot.fields.as_ref(), new.fields());

    let reopened = archive(directory.path());
    let table = Arc::clone(&reopened.open().await.unwrap().tables[0]);
    assert_eq!(table.fields.as_ref(), new.fields());
    let mut with_fuel = Vec::new();
    for batch in read(&reopened, &table).await {
        let fuel = batch.column(5).as_primitive::<Float64Type>();
        let position = batch.column(3).as_primitive::<Int64Type>();
        with_fuel.extend(
            (0..batch.num_rows())
                .filter(|row| fuel.is_valid(*row))
                .map(|row| position.value(row)),
        );
    }
    with_fuel.sort_unstable();
    assert_eq!(with_fuel, [22, 23, 24, 25, 26, 27, 29, 30]);
}

#[tokio::test]
async fn a_field_that_changed_its_type_is_refused_and_nothing_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let float = schema("readings", &["speed"]);
    archive
        .flush(input(
            &float,
            10,
            vec![batch_of(&float, &rows(1, 10, 2, 1))],
        ))
        .await
        .unwrap();
    let text = vec![StreamField::new(
        FieldName::new("speed").unwrap(),
        FieldType::Utf8,
    )];
    let text = Arc::new(StreamSchema::new(stream("readings"), SchemaId(2), text).unwrap());
    let error = archive
        .flush(input(&text, 20, Vec::new()))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, FlushError::Invalid { problem, .. } if problem.contains("speed")),
        "{error}"
    );
    assert_eq!(
        archive.snapshot(&stream("readings")).await.unwrap().flushed,
        Position(10)
    );
}

#[tokio::test]
async fn flushing_a_barrier_again_stores_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let archive_before = archive(directory.path());
    let schema = schema("readings", &["speed"]);
    let flush = input(&schema, 10, vec![batch_of(&schema, &rows(1, 10, 2, 1))]);
    let first = archive_before.flush(flush.clone()).await.unwrap();
    let second = archive_before.flush(flush.clone()).await.unwrap();
    let after_restart = archive(directory.path()).flush(flush).await.unwrap();
    assert_eq!(
        (first.version, second.version, after_restart.version),
        (0, 0, 0)
    );
    assert_eq!(after_restart.rows(), 10);
}

#[tokio::test]
async fn another_logs_transaction_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema("readings", &["speed"]);
    let flush = input(&schema, 10, vec![batch_of(&schema, &rows(1, 10, 2, 1))]);
    archive(directory.path()).flush(flush).await.unwrap();
    let other = DeltaArchive::local(
        directory.path(),
        "other",
        Arc::new(SystemClock::new()),
        Arc::new(OsEntropy),
    )
    .unwrap();
    assert_eq!(
        other.snapshot(schema.stream()).await.unwrap().flushed,
        Position(0)
    );
}

/// What a store does to the puts of commits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    Fail,
    StoreThenFail,
}

/// A store that fails the next commits as told.
#[derive(Debug)]
struct TroubledStore {
    inner: DurableStore,
    trouble: std::sync::Mutex<Trouble>,
    /// The commit of this version fails, and is not stored.
    fail_version: std::sync::Mutex<Option<u64>>,
    requests: AtomicUsize,
}

impl std::fmt::Display for TroubledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for TroubledStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let failure = || object_store::Error::Generic {
            store: "troubled",
            source: "the network is gone".into(),
        };
        if !location.as_ref().ends_with(".json") {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let version = location.filename().and_then(|name| name.split('.').next());
        let version = version.and_then(|digits| digits.parse().ok());
        if version.is_some() && *self.fail_version.lock().unwrap() == version {
            return Err(failure());
        }
        let trouble = std::mem::replace(&mut *self.trouble.lock().unwrap(), Trouble::None);
        match trouble {
            Trouble::None => self.inner.put_opts(location, payload, opts).await,
            Trouble::Fail => Err(failure()),
            Trouble::StoreThenFail => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(failure())
            }
        }
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.put_multipart_opts(location, opts).await
    }
    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn troubled(directory: &FsPath) -> (Arc<TroubledStore>, DeltaArchive) {
    let store = Arc::new(TroubledStore {
        inner: DurableStore::open(directory).unwrap(),
        trouble: std::sync::Mutex::new(Trouble::None),
        fail_version: std::sync::Mutex::default(),
        requests: AtomicUsize::new(0),
    });
    let archive = DeltaArchive::new(DeltaArchiveParts {
        store: store.clone(),
        log_id: LOG.to_owned(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(OsEntropy),
    });
    (store, archive)
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_found_out_by_the_retry() {
    for trouble in [Trouble::StoreThenFail, Trouble::Fail] {
        let directory = tempfile::tempdir().unwrap();
        let (store, archive) = troubled(directory.path());
        let schema = schema("readings", &["speed"]);
        archive
            .flush(input(
                &schema,
                10,
                vec![batch_of(&schema, &rows(1, 10, 2, 1))],
            ))
            .await
            .unwrap();
        *store.trouble.lock().unwrap() = trouble;
        let flush = input(&schema, 20, vec![batch_of(&schema, &rows(11, 10, 2, 1))]);
        let error = archive.flush(flush.clone()).await.unwrap_err();
        assert!(
            matches!(error, FlushError::Unknown { .. }) && error.is_retryable(),
            "{error}"
        );

        // Even without any grace, vacuum leaves the files of a commit that may still arrive.
        archive
            .vacuum(schema.stream(), &older_than(Duration::ZERO))
            .await
            .unwrap();
        let retried = archive.flush(flush).await.unwrap();
        assert_eq!(
            (retried.version, retried.rows(), retried.flushed),
            (1, 20, Position(20))
        );
        let report = archive.check(schema.stream()).await.unwrap();
        assert_eq!((report.problems, report.rows), (Vec::new(), 20));
        // The first try's file is an orphan only if the retry wrote another.
        let orphans = if trouble == Trouble::Fail { 1 } else { 0 };
        assert_eq!(report.orphans.len(), orphans, "{trouble:?}");
        archive
            .vacuum(schema.stream(), &older_than(Duration::ZERO))
            .await
            .unwrap();
        assert_eq!(
            archive.check(schema.stream()).await.unwrap().orphans.len(),
            0
        );
    }
}

#[tokio::test]
async fn files_of_a_flush_that_died_before_its_commit_are_not_visible_and_are_vacuumed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, dying) = troubled(directory.path());
    let schema = schema("readings", &["speed"]);
    *store.trouble.lock().unwrap() = Trouble::Fail;
    let flush = input(&schema, 10, vec![batch_of(&schema, &rows(1, 10, 2, 1))]);
    dying.flush(flush.clone()).await.unwrap_err();
    drop(dying);

    let restarted = archive(directory.path());
    let opened = restarted.open().await.unwrap();
    assert!(opened.tables.is_empty() && opened.damaged.is_empty());
    assert!(matches!(
        restarted.snapshot(schema.stream()).await,
        Err(ArchiveError::Absent { .. })
    ));
    let snapshot = restarted.flush(flush).await.unwrap();
    assert_eq!(all(&restarted, &snapshot).await.len(), 10);
    assert_eq!(
        restarted
            .check(schema.stream())
            .await
            .unwrap()
            .orphans
            .len(),
        1
    );
    let kept = restarted
        .vacuum(schema.stream(), &older_than(Duration::from_secs(3_600)))
        .await
        .unwrap();
    assert_eq!(kept.deleted.len(), 0, "younger than the grace");
    assert_eq!(
        restarted
            .vacuum(schema.stream(), &older_than(Duration::ZERO))
            .await
            .unwrap()
            .deleted
            .len(),
        1
    );
    assert_eq!(all(&restarted, &snapshot).await.len(), 10);
}

#[tokio::test]
async fn a_version_that_another_writer_took_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema("readings", &["speed"]);
    let (ours, theirs) = (archive(directory.path()), archive(directory.path()));
    ours.flush(input(
        &schema,
        10,
        vec![batch_of(&schema, &rows(1, 10, 2, 1))],
    ))
    .await
    .unwrap();
    theirs
        .flush(input(
            &schema,
            20,
            vec![batch_of(&schema, &rows(11, 10, 2, 1))],
        ))
        .await
        .unwrap();
    let snapshot = ours
        .flush(input(
            &schema,
            30,
            vec![batch_of(&schema, &rows(21, 10, 2, 1))],
        ))
        .await
        .unwrap();
    assert_eq!((snapshot.version, snapshot.rows()), (2, 30));
    assert!(
        ours.check(schema.stream())
            .await
            .unwrap()
            .problems
            .is_empty()
    );
}

#[tokio::test]
async fn compaction_keeps_every_row_and_leased_files_stay() {
    let directory = tempfile::tempdir().unwrap();
    let archive_before = archive(directory.path());
    let schema = schema("readings", &["speed"]);
    for part in 0..10 {
        let batches = vec![batch_of(&schema, &rows(1 + part * 100, 100, 7, 2))];
        let barrier = u64::try_from(part * 100 + 100).unwrap();
        archive_before
            .flush(input(&schema, barrier, batches))
            .await
            .unwrap();
    }
    let before = archive_before.snapshot(schema.stream()).await.unwrap();
    let expected = all(&archive_before, &before).await;
    let report = archive_before
        .compact(schema.stream(), &CompactOptions::default())
        .await
        .unwrap();
    assert_eq!((report.removed, report.added), (20, 2));
    assert_eq!(
        (report.snapshot.version, report.snapshot.flushed),
        (10, Position(1_000))
    );
    assert!(all(&archive_before, &report.snapshot).await == expected);

    let vacuumed = archive_before
        .vacuum(schema.stream(), &older_than(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!((vacuumed.deleted.len(), vacuumed.leased), (0, 20));
    assert!(
        all(&archive_before, &before).await == expected,
        "a held version stays readable"
    );
    drop(before);
    assert_eq!(
        archive_before
            .vacuum(schema.stream(), &older_than(Duration::ZERO))
            .await
            .unwrap()
            .deleted
            .len(),
        20
    );

    let reopened = archive(directory.path());
    let table = reopened.snapshot(schema.stream()).await.unwrap();
    assert!(all(&reopened, &table).await == expected);
    let report = reopened.check(schema.stream()).await.unwrap();
    assert_eq!(
        (report.files, report.rows, report.problems, report.orphans),
        (2, 1_000, vec![], vec![])
    );
    let again = reopened
        .compact(schema.stream(), &CompactOptions::default())
        .await
        .unwrap();
    assert_eq!(
        (again.removed, again.snapshot.version),
        (0, 10),
        "nothing left to do"
    );
}

#[tokio::test]
async fn replaced_files_outlast_the_grace_from_their_removal_even_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema("readings", &["speed"]);
    let before = archive(directory.path());
    for part in 0..2 {
        let batches = vec![batch_of(&schema, &rows(1 + part * 10, 10, 2, 1))];
        before
            .flush(input(
                &schema,
                u64::try_from(part * 10 + 10).unwrap(),
                batches,
            ))
            .await
            .unwrap();
    }
    before
        .compact(schema.stream(), &CompactOptions::default())
        .await
        .unwrap();
    let restarted = archive(directory.path());
    assert_eq!(
        restarted
            .vacuum(schema.stream(), &older_than(Duration::from_secs(60)))
            .await
            .unwrap()
            .deleted
            .len(),
        0
    );
    assert_eq!(
        restarted
            .check(schema.stream())
            .await
            .unwrap()
            .orphans
            .len(),
        0,
        "tombstones are no orphans"
    );
    let dry = VacuumOptions {
        is_dry_run: true,
        ..older_than(Duration::ZERO)
    };
    for _ in 0..2 {
        let report = restarted.vacuum(schema.stream(), &dry).await.unwrap();
        assert_eq!(report.deleted.len(), 2, "a dry run deletes nothing");
        for file in &report.deleted {
            let path = directory.path().join("readings").join(&file.path);
            assert_eq!(fs::metadata(path).unwrap().len(), file.bytes);
        }
    }
    assert_eq!(
        restarted
            .vacuum(schema.stream(), &older_than(Duration::ZERO))
            .await
            .unwrap()
            .deleted
            .len(),
        2
    );
}

#[tokio::test]
async fn check_names_what_is_wrong_with_which_file() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let schema = schema("readings", &["speed"]);
    // The second flush has a position twice: a bug elsewhere.
    archive
        .flush(input(
            &schema,
            10,
            vec![batch_of(&schema, &rows(1, 10, 2, 1))],
        ))
        .await
        .unwrap();
    let snapshot = archive
        .flush(input(
            &schema,
            20,
            vec![
                batch_of(&schema, &rows(11, 10, 2, 1)),
                batch_of(&schema, &rows(15, 1, 2, 1)),
            ],
        ))
        .await
        .unwrap();
    let report = archive.check(schema.stream()).await.unwrap();
    assert_eq!(report.problems.len(), 1);
    assert!(
        matches!(report.problems[0], Problem::Duplicate { position: 15, .. }),
        "{:?}",
        report.problems
    );

    let paths: Vec<_> = snapshot
        .files
        .iter()
        .map(|file| directory.path().join("readings").join(&file.path))
        .collect();
    let content = fs::read(&paths[0]).unwrap();
    fs::write(&paths[0], &content[..content.len() - 1]).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    let report = archive.check(schema.stream()).await.unwrap();
    assert!(
        matches!(&report.problems[0], Problem::Unreadable { path, .. } if *path == snapshot.files[0].path)
    );
    assert!(
        matches!(&report.problems[1], Problem::Missing { path } if *path == snapshot.files[1].path)
    );
}

/// Flushes ten rows as the next version of a table whose versions all were such flushes.
async fn flush_version(archive: &DeltaArchive, schema: &Arc<StreamSchema>, version: u32) {
    let first = i64::from(version) * 10 + 1;
    let batches = vec![batch_of(schema, &rows(first, 10, 2, 1))];
    let barrier = u64::from(version) * 10 + 10;
    let snapshot = archive
        .flush(input(schema, barrier, batches))
        .await
        .unwrap();
    assert_eq!(snapshot.version, i64::from(version));
}

#[tokio::test]
async fn the_cost_of_a_commit_is_flat_to_two_hundred_versions() {
    let directory = tempfile::tempdir().unwrap();
    let archive_before = archive(directory.path());
    let (old, young) = (
        schema("readings", &["speed"]),
        schema("younger", &["speed"]),
    );
    for version in 0..=180 {
        flush_version(&archive_before, &old, version).await;
    }
    for version in 0..10 {
        flush_version(&archive_before, &young, version).await;
    }
    archive_before.settle().await;
    // Turn by turn, so that whatever else the machine does slows both.
    let clock = SystemClock::new();
    let (mut old_costs, mut young_costs) = (Vec::new(), Vec::new());
    for turn in 0..20 {
        let start = clock.monotonic();
        flush_version(&archive_before, &young, 10 + turn).await;
        let between = clock.monotonic();
        flush_version(&archive_before, &old, 181 + turn).await;
        young_costs.push(between - start);
        old_costs.push(clock.monotonic() - between);
    }
    let median = |costs: &mut Vec<Duration>| {
        costs.sort();
        costs[costs.len() / 2]
    };
    let (young_cost, old_cost) = (median(&mut young_costs), median(&mut old_costs));
    assert!(
        old_cost <= young_cost * 2,
        "a commit took {young_cost:?} at versions 10 to 30, {old_cost:?} at 181 to 200"
    );

    archive_before.settle().await;
    let names: BTreeSet<String> = fs::read_dir(directory.path().join("readings/_delta_log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(
        names.contains("00000000000000000100.checkpoint.parquet"),
        "{names:?}"
    );
    assert!(
        names.contains("00000000000000000200.checkpoint.parquet"),
        "{names:?}"
    );
    let reopened = archive(directory.path());
    let table = reopened.snapshot(old.stream()).await.unwrap();
    assert_eq!(
        (table.version, table.flushed, table.files.len()),
        (200, Position(2_010), 201)
    );
    let live = archive_before.snapshot(old.stream()).await.unwrap();
    for (live, read) in live.files.iter().zip(table.files.iter()) {
        assert_eq!(
            (&live.path, live.rows, live.min_position),
            (&read.path, read.rows, read.min_position)
        );
        assert!(read.min_ts <= live.min_ts && live.max_ts <= read.max_ts);
    }
}

#[tokio::test]
async fn a_commit_makes_the_same_requests_at_any_age_of_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let (store, archive) = troubled(directory.path());
    let schema = schema("readings", &["speed"]);
    for version in 0..60 {
        let before = store.requests.load(Ordering::SeqCst);
        flush_version(&archive, &schema, version).await;
        let requests = store.requests.load(Ordering::SeqCst) - before;
        assert!(
            version == 0 || requests == 2,
            "{requests} requests for version {version}: a file and a commit are two"
        );
    }
}

#[test]
fn it_works_without_a_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema("readings", &["speed"]);
    let snapshot = futures::executor::block_on(async {
        let archive = archive(directory.path());
        archive
            .flush(input(
                &schema,
                10,
                vec![batch_of(&schema, &rows(1, 10, 2, 1))],
            ))
            .await
            .unwrap()
    });
    assert_eq!(snapshot.rows(), 10);
}
