//! What a commit costs, whatever the age of the table.

use super::*;

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
