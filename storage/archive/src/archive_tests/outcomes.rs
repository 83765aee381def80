//! Flushes that fail, die, or meet another writer.

use super::*;

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
