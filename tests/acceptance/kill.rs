//! `kill -9` of the real process under load, again and again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quiver_client::{Client, Settled};

use crate::{
    device::{self, numbered},
    python,
    server::Server,
};

/// Kills in CI.
const KILLS: u64 = 20;
const DEVICES: i64 = 4;
const ROWS: i64 = 50;

#[test]
fn every_acknowledged_row_is_there_once_after_twenty_kills() {
    let mut server = Server::start(&[
        "--enroll-unknown",
        "--flush-age",
        "1s",
        "--checkpoint-interval",
        "1s",
        "--ingest-memory",
        "160MiB",
    ]);
    let runtime = device::runtime();
    let stop = Arc::new(AtomicBool::new(false));
    // What each device knows to be settled: ranges of `n`.
    let settled: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let mut devices = Vec::new();
    for index in 0..DEVICES {
        let credential = server.issue("device", &format!("d{index}"), &[]);
        let mut options = device::options(&server, &credential);
        options.backoff.first = Duration::from_millis(20);
        options.backoff.max = Duration::from_millis(200);
        let (stop, settled) = (stop.clone(), settled.clone());
        devices.push(runtime.spawn(async move {
            let client = Client::connect(options).await.unwrap();
            let stream = client.stream("numbers").unwrap();
            let mut from = index * 1_000_000_000;
            let mut waiting = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let handle = stream.send(&numbered(from, from + ROWS)).await.unwrap();
                let (settled, begin) = (settled.clone(), from);
                waiting.push(tokio::spawn(async move {
                    match handle.await {
                        Ok(Settled::Stored) => {
                            settled.lock().unwrap().insert(begin);
                        }
                        other => panic!("batch {begin}: {other:?}"),
                    }
                }));
                from += ROWS;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            client.flush().await.unwrap();
            for task in waiting {
                task.await.unwrap();
            }
            client.close().await;
            from - index * 1_000_000_000
        }));
    }

    for kill in 0..KILLS {
        // Between a tenth and half of a second: before, within and after flushes and checkpoints.
        std::thread::sleep(Duration::from_millis(100 + (kill * 97) % 400));
        let acknowledged: Vec<i64> = settled.lock().unwrap().iter().copied().collect();
        server.kill();
        server.restart();
        let rows: BTreeSet<i64> = server
            .sql("SELECT n FROM numbers")
            .iter()
            .map(|row| row.parse().unwrap())
            .collect();
        for begin in acknowledged {
            for number in begin..begin + ROWS {
                assert!(
                    rows.contains(&number),
                    "row {number} was acknowledged before kill {kill} and is gone"
                );
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = BTreeSet::new();
    for (index, device) in devices.into_iter().enumerate() {
        let rows = runtime.block_on(device).unwrap();
        let base = index as i64 * 1_000_000_000;
        sent.extend(base..base + rows);
    }
    assert!(sent.len() > 1_000, "only {} rows were sent", sent.len());

    let check = |rows: Vec<String>, reader: &str| {
        let count = rows.len();
        let rows: BTreeSet<i64> = rows.iter().map(|row| row.parse().unwrap()).collect();
        assert_eq!(count, rows.len(), "{reader} finds rows twice");
        assert!(
            rows == sent,
            "{reader} finds other rows than were sent: {} and {}",
            rows.len(),
            sent.len()
        );
    };
    check(server.sql("SELECT n FROM numbers"), "sql");
    server.audit();
    server.stop();
    check(
        server.sql("SELECT n FROM numbers"),
        "sql on the idle directory",
    );
    server.audit();
    if let Some(python) =
        python::interpreter("kill::every_acknowledged_row_is_there_once_after_twenty_kills")
    {
        let table = format!("{}/archive/numbers", server.data());
        let text = python::run(&python, "read_archive.py", &["duckdb", &table, "n"]);
        check(text.lines().map(str::to_owned).collect(), "duckdb");
    }
}
