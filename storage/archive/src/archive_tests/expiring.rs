//! Retention.

use std::collections::BTreeMap;

use quiver_model::Timestamp;

use super::*;
use crate::{ExpiryBook, ExpiryRun};

/// A book in memory, whose positions begin at 1,000.
#[derive(Debug, Default)]
struct Book {
    runs: std::sync::Mutex<Vec<ExpiryRun>>,
    is_closed: bool,
}

#[async_trait]
impl ExpiryBook for Book {
    async fn write(
        &self,
        run: &ExpiryRun,
    ) -> Result<Position, Box<dyn std::error::Error + Send + Sync>> {
        if self.is_closed {
            return Err("the log is closed".into());
        }
        let mut runs = self.runs.lock().unwrap();
        runs.push(run.clone());
        Ok(Position(999 + runs.len() as u64))
    }
}

impl Book {
    /// What holds, going from the table's last run to those before.
    fn expired(&self, last: Position) -> BTreeMap<String, u64> {
        let runs = self.runs.lock().unwrap();
        let mut devices = BTreeMap::new();
        let mut at = last;
        while at > Position(0) {
            let run = &runs[usize::try_from(at.get()).unwrap() - 1_000];
            for (device, rows) in &run.devices {
                *devices.entry(device.clone()).or_default() += rows;
            }
            at = run.previous;
        }
        devices
    }
}

fn by_device(rows: &[Row]) -> BTreeMap<String, u64> {
    let mut devices = BTreeMap::new();
    for row in rows {
        *devices.entry(row.1.clone()).or_default() += 1;
    }
    devices
}

/// Three flushes of a hundred rows, over four days each.
async fn filled(archive: &DeltaArchive) -> Vec<Row> {
    let schema = schema("readings", &["speed"]);
    for part in 0..3 {
        let batches = vec![batch_of(&schema, &rows(1 + part * 100, 100, 7, 4))];
        let barrier = u64::try_from(part * 100 + 100).unwrap();
        let flushed = archive.flush(input(&schema, barrier, batches)).await;
        flushed.unwrap();
    }
    let snapshot = archive.snapshot(schema.stream()).await.unwrap();
    all(archive, &snapshot).await
}

#[tokio::test]
async fn files_older_than_is_kept_leave_and_what_leaves_is_written_down_by_device() {
    let directory = tempfile::tempdir().unwrap();
    let archive_before = archive(directory.path());
    let stream = stream("readings");
    let stored = filled(&archive_before).await;
    let book = Book::default();
    // In the middle of the second day: only files of the first are wholly older.
    let before = Timestamp(DAY_US + DAY_US / 2);
    let expired = archive_before.expire(&stream, before, &book).await;
    let expired = expired.unwrap().unwrap();
    let (gone, kept): (Vec<Row>, Vec<Row>) = stored.into_iter().partition(|row| row.0 < DAY_US);
    assert_eq!((expired.files, expired.rows), (3, gone.len() as u64));
    assert_eq!(
        sorted(to_rows(&read(&archive_before, &expired.snapshot).await)),
        sorted(kept.clone())
    );
    let again = archive_before.expire(&stream, before, &book).await;
    assert!(again.unwrap().is_none(), "nothing is left to go");
    assert_eq!(book.runs.lock().unwrap().len(), 1);
    assert_eq!(
        archive_before.last_expiry(&stream).await.unwrap(),
        Position(1_000)
    );
    assert_eq!(book.expired(Position(1_000)), by_device(&gone));

    // Merging what stays does not bring anything back, nor does a restart.
    archive_before
        .compact(&stream, &CompactOptions::default())
        .await
        .unwrap();
    let reopened = archive(directory.path());
    let snapshot = reopened.snapshot(&stream).await.unwrap();
    assert_eq!(all(&reopened, &snapshot).await, sorted(kept.clone()));
    assert_eq!(
        reopened.last_expiry(&stream).await.unwrap(),
        Position(1_000)
    );
    // Everything goes in the end; the table stays, and takes more.
    let expired = reopened.expire(&stream, Timestamp(i64::MAX), &book).await;
    assert_eq!(expired.unwrap().unwrap().rows, kept.len() as u64);
    let last = reopened.last_expiry(&stream).await.unwrap();
    let everything: Vec<Row> = gone.into_iter().chain(kept).collect();
    assert_eq!(book.expired(last), by_device(&everything));
    let schema = schema("readings", &["speed"]);
    let batches = vec![batch_of(&schema, &rows(301, 10, 7, 1))];
    let snapshot = reopened.flush(input(&schema, 310, batches)).await.unwrap();
    assert_eq!(snapshot.rows(), 10);
    let vacuumed = reopened.vacuum(&stream, &older_than(Duration::ZERO)).await;
    assert!(vacuumed.unwrap().deleted.len() >= 12);
    let report = reopened.check(&stream).await.unwrap();
    assert!(report.problems.is_empty() && report.orphans.is_empty());
}

#[tokio::test]
async fn whatever_becomes_of_a_commit_what_is_written_down_and_holds_is_what_has_left() {
    for trouble in [Trouble::Fail, Trouble::StoreThenFail] {
        let directory = tempfile::tempdir().unwrap();
        let (store, archive_before) = troubled(directory.path());
        let stream = stream("readings");
        let stored = filled(&archive_before).await;
        let closed = Book {
            is_closed: true,
            ..Book::default()
        };
        let before = Timestamp(2 * DAY_US);
        let error = archive_before.expire(&stream, before, &closed).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the log is closed"), "{error}");
        let snapshot = archive_before.snapshot(&stream).await.unwrap();
        assert_eq!(
            snapshot.rows(),
            300,
            "nothing goes that is not written down"
        );

        let book = Book::default();
        *store.trouble.lock().unwrap() = trouble;
        let failed = archive_before.expire(&stream, before, &book).await;
        assert!(failed.is_err());
        // Tried again, by the same process and by one that came after.
        for archive in [&archive_before, &archive(directory.path())] {
            archive.expire(&stream, before, &book).await.unwrap();
            let last = archive.last_expiry(&stream).await.unwrap();
            let snapshot = archive.snapshot(&stream).await.unwrap();
            let left = by_device(&all(archive, &snapshot).await);
            let mut sum = book.expired(last);
            for (device, rows) in left {
                *sum.entry(device).or_default() += rows;
            }
            assert_eq!(sum, by_device(&stored), "{trouble:?}");
            let young = stored.iter().filter(|row| row.0 >= before.0).count();
            assert_eq!(snapshot.rows(), young as u64);
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_stays_and_the_others_go() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(directory.path());
    let stream = stream("readings");
    filled(&archive).await;
    let snapshot = archive.snapshot(&stream).await.unwrap();
    let path = directory
        .path()
        .join("readings")
        .join(&snapshot.files.get(0).unwrap().path);
    fs::write(&path, b"no parquet").unwrap();
    let book = Book::default();
    let expired = archive.expire(&stream, Timestamp(DAY_US), &book).await;
    assert_eq!(expired.unwrap().unwrap().files, 2);
    let expired = archive.expire(&stream, Timestamp(DAY_US), &book).await;
    assert!(expired.unwrap().is_none());
}
