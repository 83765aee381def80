//! What a commit costs at 10, 1,000 and 10,000 versions of a table.

use std::time::Instant;

use object_store::memory::InMemory;

use super::*;

/// Takes a minute: run it with `--ignored --nocapture` to see the figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
async fn a_commit_costs_the_same_at_10_and_at_10_000_versions() {
    let archive = DeltaArchive::new(DeltaArchiveParts {
        store: Arc::new(InMemory::new()),
        log_id: LOG.to_owned(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(OsEntropy),
    });
    let schema = schema("readings", &["speed"]);
    // As many files as versions: nothing is merged.
    let mut times = Vec::new();
    for version in 0..10_050_i64 {
        let batches = vec![batch_of(&schema, &rows(1 + version, 1, 1, 1))];
        // Checkpoints beside it would be measured with it.
        if version % 100 == 2 {
            archive.settle().await;
        }
        let barrier = (version + 1).cast_unsigned();
        let begun = Instant::now();
        archive
            .flush(input(&schema, barrier, batches))
            .await
            .unwrap();
        times.push(begun.elapsed());
    }
    let median = |around: usize| {
        let mut near = times[around.saturating_sub(40).max(5)..around + 40].to_vec();
        near.sort_unstable();
        near[near.len() / 2]
    };
    let [ten, thousand, ten_thousand] = [10, 1_000, 10_000].map(median);
    println!(
        "median of a flush of one row at 10, 1,000 and 10,000 versions: {ten:?} {thousand:?} {ten_thousand:?}"
    );
    assert!(thousand < ten * 2 && ten_thousand < ten * 3);
}
