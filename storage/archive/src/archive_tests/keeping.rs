//! Compaction, vacuum and check.

use super::*;

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
        matches!(&report.problems[0], Problem::Unreadable { path, .. } if *path == snapshot.files.get(0).unwrap().path)
    );
    assert!(
        matches!(&report.problems[1], Problem::Missing { path } if *path == snapshot.files.get(1).unwrap().path)
    );
}
