//! Flushes of rows over very many days.

use super::*;

/// `count` rows of one device, each of a day of its own, in order.
fn one_a_day(first: i64, count: i64) -> Vec<(i64, String, i64)> {
    (first..first + count)
        .map(|position| (position * DAY_US, "station".to_owned(), position))
        .collect()
}

fn parquet_files(directory: &FsPath) -> usize {
    let days = fs::read_dir(directory).unwrap().map(Result::unwrap);
    days.filter(|day| day.file_name() != "_delta_log")
        .map(|day| fs::read_dir(day.path()).unwrap().count())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_over_many_days_is_committed_in_portions_and_a_retry_goes_on_where_it_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (store, archive) = troubled(directory.path());
    let schema = schema("climate", &["mean"]);
    let rows = one_a_day(1, 1_400);
    // In two batches that do not end where portions do.
    let batches = vec![
        batch_of(&schema, &rows[..1_000]),
        batch_of(&schema, &rows[1_000..]),
    ];
    let flush = input(&schema, 2_000, batches);
    // The second commit fails: the first portion stays.
    *store.fail_version.lock().unwrap() = Some(1);
    let error = archive.flush(flush.clone()).await.unwrap_err();
    assert!(matches!(
        error,
        FlushError::Unknown {
            barrier: Position(1_024),
            ..
        }
    ));
    drop(archive);

    let restarted = super::archive(directory.path());
    let opened = restarted.open().await.unwrap();
    assert_eq!(opened.tables[0].flushed, Position(512));
    assert_eq!(opened.tables[0].rows(), 512);
    let snapshot = restarted.flush(flush.clone()).await.unwrap();
    assert_eq!(
        (snapshot.version, snapshot.flushed, snapshot.files.len()),
        (2, Position(2_000), 1_400)
    );
    let written: Vec<Row> = all(&restarted, &snapshot).await;
    let expected: Vec<Row> = sorted(to_rows(&flush.batches));
    assert_eq!(sorted(written), expected);
    // Of the portion that failed nothing else is left.
    let report = restarted.check(schema.stream()).await.unwrap();
    assert_eq!((report.problems, report.orphans.len()), (Vec::new(), 512));
    let table = directory.path().join("climate");
    assert_eq!(parquet_files(&table), 1_400 + 512);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_jump_between_many_days_are_one_commit_of_a_file_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let schema = schema("climate", &["mean"]);
    // Every day comes five times, far apart.
    let rows: Vec<(i64, String, i64)> = (1..=3_000)
        .map(|position| ((position % 600) * DAY_US, "station".to_owned(), position))
        .collect();
    let flush = input(&schema, 3_000, vec![batch_of(&schema, &rows)]);
    let snapshot = archive.flush(flush).await.unwrap();
    assert_eq!((snapshot.version, snapshot.files.len()), (0, 600));
    assert_eq!(snapshot.rows(), 3_000);
}

#[tokio::test]
async fn what_a_first_flush_left_is_found_and_deleted_when_its_stream_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (store, dying) = troubled(directory.path());
    let schema = schema("climate", &["mean"]);
    *store.trouble.lock().unwrap() = Trouble::Fail;
    let flush = input(&schema, 10, vec![batch_of(&schema, &one_a_day(1, 10))]);
    dying.flush(flush).await.unwrap_err();
    // The commit may still arrive: its files are safe from this process's vacuum.
    let report = dying
        .vacuum(schema.stream(), &older_than(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!((report.deleted.len(), report.leased), (0, 10));
    drop(dying);

    let restarted = archive(directory.path());
    let surveyed = restarted.survey().await.unwrap();
    assert!(matches!(
        &surveyed[..],
        [(name, Directory::Uncommitted(stream))] if name == "climate" && stream == schema.stream()
    ));
    let report = restarted.check(schema.stream()).await.unwrap();
    assert_eq!((report.files, report.orphans.len()), (0, 10));
    let report = restarted
        .vacuum(schema.stream(), &older_than(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(report.deleted.len(), 10);
    assert!(matches!(
        restarted
            .vacuum(schema.stream(), &older_than(Duration::ZERO))
            .await,
        Err(ArchiveError::Absent { .. })
    ));
}

#[tokio::test]
async fn rows_that_another_process_of_the_same_log_archived_meanwhile_are_not_archived_again() {
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = (archive(directory.path()), archive(directory.path()));
    let schema = schema("readings", &["speed"]);
    let flush = |first: i64, last: i64| {
        let rows = rows(first, last - first + 1, 2, 1);
        input(&schema, last as u64, vec![batch_of(&schema, &rows)])
    };
    before.flush(flush(1, 10)).await.unwrap();
    after.open().await.unwrap();
    // The process before, which was given up, archives more after the next one has read the table.
    before.flush(flush(11, 20)).await.unwrap();
    let error = after.flush(flush(11, 30)).await.unwrap_err();
    assert!(
        matches!(error, FlushError::NotCommitted { .. }) && error.is_retryable(),
        "{error}"
    );
    let snapshot = after.flush(flush(11, 30)).await.unwrap();
    assert_eq!((snapshot.rows(), snapshot.flushed), (30, Position(30)));
    let report = after.check(schema.stream()).await.unwrap();
    assert_eq!((report.problems, report.rows), (Vec::new(), 30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portion_begins_where_another_process_of_the_same_log_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = (archive(directory.path()), archive(directory.path()));
    let schema = schema("climate", &["mean"]);
    let flush = |first: i64, last: i64| {
        let rows = one_a_day(first, last - first + 1);
        input(&schema, last as u64, vec![batch_of(&schema, &rows)])
    };
    before.flush(flush(1, 1)).await.unwrap();
    after.open().await.unwrap();
    // Two portions, the second of which ends inside the second of the flush below.
    before.flush(flush(2, 700)).await.unwrap();
    let snapshot = after.flush(flush(2, 1_400)).await.unwrap();
    assert_eq!(
        (snapshot.rows(), snapshot.flushed),
        (1_400, Position(1_400))
    );
    let report = after.check(schema.stream()).await.unwrap();
    assert_eq!((report.problems, report.rows), (Vec::new(), 1_400));
}
