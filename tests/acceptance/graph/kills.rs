//! `kill -9` while windows are open, again and again: what comes out is as if nothing had happened.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;

use super::{Device, Files, MIDNIGHT, SECOND, readings, same, settle};
use crate::{device::runtime, server::Server};

/// Windows of many shapes, one over all devices, one of what another puts out; views that are kept.
const GRAPH: &str = r#"
[stream.readings.fields]
temperature = "float64"
kind = "utf8"
note = "utf8"
n = "int64"

[route.hot]
from = "readings"
where = "temperature > 50 OR kind = 'end'"

[map.numbers]
from = "readings"
select = "n, CAST(note AS BIGINT) AS number"

[window.minutes]
from = "readings"
size = "1m"
by = ["device"]
idle = "10m"
out_of_order = "5s"
select = "count(*) AS rows, sum(n) AS total, max(temperature) AS high, avg(temperature) AS mean"

[window.hours]
from = "minutes"
size = "1h"
by = ["device"]
idle = "10m"
select = "sum(rows) AS rows, max(high) AS high"

[window.bursts]
from = "hot"
gap = "4s"
by = ["device"]
idle = "10m"
out_of_order = "5s"
select = "count(*) AS rows, first(n) AS first_n, last(n) AS last_n"

[window.together]
from = "now"
size = "1s"
by = []
idle = "1s"
select = "count(*) AS rows, sum(n) AS total"

[store.kept]
from = ["hot", "numbers.errors", "together.late"]
"#;

const DEVICES: i64 = 3;
/// Rows of a batch: three seconds and a half, so that windows end within batches.
const ROWS: i64 = 7;

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_micros()).unwrap()
}

/// Kills under load, each after so many batches; then everything that came out is compared.
fn killed(rounds: impl IntoIterator<Item = u64>, more: &[&str]) {
    let files = Files::new(GRAPH);
    let arguments = [&["--flush-age", "1s", "--checkpoint-interval", "1s"], more].concat();
    let mut server = files.serve(&arguments);
    let runtime = runtime();
    let stop = Arc::new(AtomicBool::new(false));
    let settled = Arc::new(AtomicU64::new(0));
    let (restarts, _) = tokio::sync::watch::channel(0_u64);
    let mut devices = Vec::new();
    for index in 0..DEVICES {
        let device = runtime.block_on(Device::connect(&server, &format!("d{index}")));
        let mut sender = Sender {
            device,
            restarts: restarts.subscribe(),
        };
        let (stop, settled) = (stop.clone(), settled.clone());
        devices.push(runtime.spawn(async move {
            let mut from = 0;
            while !stop.load(Ordering::Relaxed) {
                let rows = (from..from + ROWS).map(|n| (n, MIDNIGHT + n * SECOND / 2));
                sender.send("readings", &readings("good", rows)).await;
                let rows = (from..from + ROWS).map(|n| (n, now()));
                sender.send("now", &readings("now", rows)).await;
                from += ROWS;
                settled.fetch_add(2, Ordering::Relaxed);
            }
            // Everything before has ended; and so has what came out of it.
            for days in 1..3 {
                let end = [(from, MIDNIGHT + days * 86_400 * SECOND)];
                sender.send("readings", &readings("end", end)).await;
            }
            from
        }));
    }
    let load = |batches: u64| {
        let until = settled.load(Ordering::Relaxed) + batches;
        while settled.load(Ordering::Relaxed) < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for round in rounds {
        load(round);
        server.kill();
        server.restart();
        restarts.send_modify(|count| *count += 1);
    }
    load(50);
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<i64> = devices
        .into_iter()
        .map(|device| runtime.block_on(device).unwrap())
        .collect();
    assert!(sent.iter().sum::<i64>() > 1_000, "{sent:?} rows were sent");
    settle(&server);
    // Windows over all devices end by time alone.
    std::thread::sleep(Duration::from_secs(4));
    settle(&server);
    for (index, sent) in sent.iter().enumerate() {
        let count = "SELECT count(DISTINCT n) FROM readings WHERE kind = 'good' AND device =";
        let count = server.number(&format!("{count} 'd{index}'"));
        assert_eq!(count, *sent as u64, "rows of d{index}");
    }
    compare(&server);
    server.audit();
    server.stop();
    compare(&server);
    server.audit();
}

/// A device that connects anew when the server has been killed, and sends again what was not
/// settled: rows may be there twice, as rows of a device that knows no better may.
struct Sender {
    device: Device,
    restarts: tokio::sync::watch::Receiver<u64>,
}

impl Sender {
    async fn send(&mut self, stream: &str, batch: &RecordBatch) {
        loop {
            tokio::select! {
                biased;
                changed = self.restarts.changed() => {
                    changed.unwrap();
                    self.device = self.device.again().await;
                }
                () = self.device.send(stream, batch) => return,
            }
        }
    }
}

#[track_caller]
fn compare(server: &Server) {
    same(
        server,
        "SELECT device, n FROM hot ORDER BY 1, 2",
        "SELECT device, n FROM readings WHERE temperature > 50 OR kind = 'end' ORDER BY 1, 2",
    );
    same(
        server,
        "SELECT device, n FROM numbers_errors ORDER BY 1, 2",
        "SELECT device, n FROM readings WHERE note = 'x' ORDER BY 1, 2",
    );
    let minutes = same(
        server,
        "SELECT device, window_start, rows, total, high, mean FROM minutes WHERE window_start < TIMESTAMP '2026-01-02T00:00:00Z' ORDER BY 1, 2",
        "SELECT device, date_bin(INTERVAL '1 minute', ts), count(*), sum(n), max(temperature), avg(temperature)
         FROM readings WHERE kind = 'good' GROUP BY 1, 2 ORDER BY 1, 2",
    );
    assert!(minutes > 10);
    same(
        server,
        "SELECT device, window_start, rows, high FROM hours WHERE window_start < TIMESTAMP '2026-01-02T00:00:00Z' ORDER BY 1, 2",
        "SELECT device, date_bin(INTERVAL '1 hour', ts), count(*), max(temperature)
         FROM readings WHERE kind = 'good' GROUP BY 1, 2 ORDER BY 1, 2",
    );
    let bursts = "WITH hot AS (SELECT device, ts, n FROM readings WHERE temperature > 50 OR kind = 'end'),
        marked AS (SELECT *, CASE WHEN ts - lag(ts) OVER w < INTERVAL '4 seconds' THEN 0 ELSE 1 END AS begins
                   FROM hot WINDOW w AS (PARTITION BY device ORDER BY ts)),
        numbered AS (SELECT *, sum(begins) OVER (PARTITION BY device ORDER BY ts) AS burst FROM marked)
        SELECT device, min(n), max(n), count(*) FROM numbered
        GROUP BY device, burst HAVING max(ts) < TIMESTAMP '2026-01-02T00:00:00Z' ORDER BY 1, 2";
    same(
        server,
        "SELECT device, first_n, last_n, rows FROM bursts WHERE window_start < TIMESTAMP '2026-01-02T00:00:00Z' ORDER BY 1, 2",
        bursts,
    );
    let late = if server
        .sql("SELECT table_name FROM information_schema.tables WHERE table_name = 'together_late'")
        .is_empty()
    {
        ""
    } else {
        "UNION ALL SELECT ts, -1, -n FROM together_late"
    };
    same(
        server,
        "SELECT window_start, rows, total FROM together ORDER BY 1",
        &format!(
            "SELECT date_bin(INTERVAL '1 second', ts), sum(count), sum(n)
             FROM (SELECT ts, 1 AS count, n FROM now {late}) GROUP BY 1 HAVING sum(count) > 0 ORDER BY 1"
        ),
    );
}

#[test]
fn windows_go_on_after_kills_before_their_state_was_kept() {
    killed((0..8).map(|kill| 20 + kill * 397 % 150), &[]);
}
