//! Timestamp fields through a real table: flushed, opened again, merged, checked.

use quiver_model::{FIELD_TIME_MAX, FIELD_TIME_MIN};

use super::*;

fn times_schema() -> Arc<StreamSchema> {
    let field = StreamField::new(FieldName::new("seen").unwrap(), FieldType::Timestamp);
    Arc::new(StreamSchema::new(stream("readings"), SchemaId(1), vec![field]).unwrap())
}

/// What the row at this position says: the earliest time there is, the latest, one before 1970,
/// none, an ordinary one.
fn seen(position: i64) -> Option<i64> {
    match position % 5 {
        0 => Some(FIELD_TIME_MIN.as_micros()),
        1 => Some(FIELD_TIME_MAX.as_micros()),
        2 => Some(-position),
        3 => None,
        _ => Some(1_700_000_000_000_000 + position),
    }
}

fn batch_of_times(schema: &StreamSchema, first: i64, count: i64) -> RecordBatch {
    let none = StreamSchema::new(stream("readings"), SchemaId(1), Vec::new()).unwrap();
    let mut columns = batch_of(&none, &rows(first, count, 9, 1))
        .columns()
        .to_vec();
    let times: TimestampMicrosecondArray = (first..first + count).map(seen).collect();
    columns.push(Arc::new(times.with_timezone("UTC")));
    RecordBatch::try_new(Arc::clone(schema.stored()), columns).unwrap()
}

/// Position and time of every row of the table, in order of position.
async fn times_in(archive: &DeltaArchive, snapshot: &ArchiveSnapshot) -> Vec<(i64, Option<i64>)> {
    let mut found = Vec::new();
    for batch in read(archive, snapshot).await {
        let positions = batch.column(3).as_primitive::<Int64Type>();
        let times = batch.column(4).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(*times.data_type(), FieldType::Timestamp.arrow());
        found.extend(positions.values().iter().copied().zip(times));
    }
    found.sort_unstable();
    found
}

#[tokio::test]
async fn times_survive_a_flush_a_reopen_and_a_merge() {
    let directory = tempfile::tempdir().unwrap();
    let schema = times_schema();
    let first = archive(directory.path());
    for part in 0..3 {
        let batches = vec![batch_of_times(&schema, 1 + part * 3_000, 3_000)];
        let barrier = (part + 1).cast_unsigned() * 3_000;
        first.flush(input(&schema, barrier, batches)).await.unwrap();
    }
    let expected: Vec<_> = (1..=9_000).map(|at| (at, seen(at))).collect();

    let reopened = archive(directory.path());
    let opened = reopened.open().await.unwrap();
    assert!(opened.damaged.is_empty(), "{:?}", opened.damaged);
    assert_eq!(opened.tables[0].fields.as_ref(), schema.fields());
    assert_eq!(times_in(&reopened, &opened.tables[0]).await, expected);
    let merged = reopened
        .compact(schema.stream(), &CompactOptions::default())
        .await
        .unwrap();
    assert_eq!((merged.removed, merged.added, merged.rows), (3, 1, 9_000));
    assert_eq!(times_in(&reopened, &merged.snapshot).await, expected);
    let report = reopened.check(schema.stream()).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);

    // In the table's log, the field is a time like any other.
    let log = directory.path().join("readings/_delta_log");
    let commit = fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
    for word in [
        r#"{\"metadata\":{},\"name\":\"seen\",\"nullable\":true,\"type\":\"timestamp\"}"#,
        r#"\"seen\":\"0001-01-01T00:00:00.000000Z\""#,
        r#"\"seen\":\"9999-12-31T23:59:59.999999Z\""#,
        r#"\"seen\":600"#,
    ] {
        assert!(commit.contains(word), "{word} in {commit}");
    }
}

#[tokio::test]
async fn a_number_does_not_become_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let numbers = schema("readings", &["seen"]);
    let batches = vec![batch_of(&numbers, &rows(1, 10, 2, 1))];
    archive.flush(input(&numbers, 10, batches)).await.unwrap();
    let times = times_schema();
    let batches = vec![batch_of_times(&times, 11, 10)];
    let error = archive.flush(input(&times, 20, batches)).await.unwrap_err();
    assert!(
        matches!(&error, FlushError::Invalid { problem, .. }
            if problem.contains("seen is float64 in the table, timestamp in memory")),
        "{error}"
    );
}
