//! A small memory cap and fast senders: memory stays bounded, nothing is lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arrow_array::{ArrayRef, RecordBatch, StringArray};

use crate::{
    device::{self, numbered},
    server::Server,
};

const BATCHES: i64 = 400;
const ROWS: i64 = 5_000;
/// The least that the engine starts with.
const MEMORY_MIB: u64 = 150;
/// Characters of a row's text: all rows together take three times the memory.
const TEXT: usize = 200;

fn with_text(batch: &RecordBatch) -> RecordBatch {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(TEXT); batch.num_rows()]));
    let schema = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .zip(batch.columns().to_vec());
    RecordBatch::try_from_iter(columns.chain([("text".to_owned(), text)])).unwrap()
}

#[test]
fn memory_stays_bounded_and_nothing_is_lost_when_senders_are_faster() {
    let server = Server::start(&["--enroll-unknown", "--memory", "150MiB"]);
    let before = server.resident_bytes();
    let runtime = device::runtime();
    let peak = AtomicU64::new(0);
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(server.resident_bytes(), Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        runtime.block_on(async {
            let (first, second) = (
                device::connect(&server, "a").await,
                device::connect(&server, "b").await,
            );
            for index in 0..BATCHES / 2 {
                for (client, offset) in [(&first, 0), (&second, BATCHES / 2)] {
                    let from = (offset + index) * ROWS;
                    let _handle = client
                        .stream("flood")
                        .unwrap()
                        .send(&with_text(&numbered(from, from + ROWS)))
                        .await
                        .unwrap();
                }
            }
            first.flush().await.unwrap();
            second.flush().await.unwrap();
        });
        done.store(true, Ordering::Relaxed);
    });
    // 2 million rows of 240 bytes are 480 MB; the cap is 150 MiB, and decoding, sorting and
    // encoding a flush come on top.
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before) >> 20;
    assert!(
        grown < 3 * MEMORY_MIB,
        "resident memory grew by {grown} MiB"
    );
    assert_eq!(
        server.number("SELECT count(DISTINCT n) FROM flood"),
        (BATCHES * ROWS) as u64
    );
    server.audit();
}
