//! What a flush stores, and what it refuses.

use super::*;

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
