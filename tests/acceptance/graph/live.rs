//! What nodes put out is what SQL makes of the rows that went in.

use super::{Device, Files, MIDNIGHT, SECOND, readings, same, settle, wait_until};
use crate::device::runtime;

const GRAPH: &str = r#"
[stream.readings.fields]
temperature = "float64"
kind = "utf8"
note = "utf8"
n = "int64"

[route.hot]
from = "readings"
where = "temperature > 50"

[route.cold]
from = "readings"
where = "temperature < 10"

[route.rest]
from = "readings"
default = true

[map.numbers]
from = "readings"
select = "n, CAST(note AS BIGINT) AS number, temperature * 1.8 + 32 AS fahrenheit"

[window.minutes]
from = "readings"
size = "1m"
by = ["device"]
out_of_order = "10s"
select = "count(*) AS rows, min(temperature) AS low, max(temperature) AS high, avg(temperature) AS mean, first(n) AS first_n, last(n) AS last_n"

[window.hopping]
from = "hot"
size = "5m"
every = "1m"
by = ["device"]
out_of_order = "10s"
select = "count(*) AS rows, max(temperature) AS high"

[window.quarters]
from = "minutes"
size = "15m"
by = ["device"]
select = "sum(rows) AS rows, max(high) AS high"

[missing.silent]
from = "readings"
after = "3s"

[store.kept]
from = ["hot", "rest", "numbers", "numbers.errors", "minutes.late"]
"#;

/// Rows that a device sends, in batches: a second apart, each ten of them in disorder.
fn batches() -> Vec<Vec<(i64, i64)>> {
    let rows: Vec<(i64, i64)> = (0..3_000)
        .map(|n| {
            let second = n / 10 * 10 + (n * 7) % 10;
            (n, MIDNIGHT + second * SECOND)
        })
        .collect();
    // Batches of many sizes, so that windows end within them and between them.
    let mut batches = Vec::new();
    let mut rest = rows.as_slice();
    for size in (1..).map(|number: usize| number * 37 % 211 + 1) {
        let (batch, after) = rest.split_at(size.min(rest.len()));
        batches.push(batch.to_vec());
        rest = after;
        if rest.is_empty() {
            return batches;
        }
    }
    unreachable!()
}

#[test]
fn nodes_put_out_what_sql_makes_of_the_same_rows() {
    let files = Files::new(GRAPH);
    let mut server = files.serve(&[]);
    let runtime = runtime();
    runtime.block_on(async {
        for id in ["a", "b", "c"] {
            let device = Device::connect(&server, id).await;
            for batch in batches() {
                device.send("readings", &readings("good", batch)).await;
            }
            // Of the first minute, which has ended by now.
            let old = (0..20).map(|n| (n, MIDNIGHT + n * SECOND));
            device.send("readings", &readings("old", old)).await;
            // A day later: everything before has ended.
            let end = [(1, MIDNIGHT + 86_400 * SECOND)];
            device.send("readings", &readings("end", end)).await;
            // So have windows of what came out of others, with what the next one puts out.
            let end = [(1, MIDNIGHT + 2 * 86_400 * SECOND)];
            device.send("readings", &readings("end", end)).await;
        }
    });
    settle(&server);

    let route = |name: &str, condition: &str| {
        same(
            &server,
            &format!("SELECT device, n, kind, temperature FROM {name} ORDER BY 1, 3, 2"),
            &format!(
                "SELECT device, n, kind, temperature FROM readings WHERE {condition} ORDER BY 1, 3, 2"
            ),
        )
    };
    assert!(route("hot", "temperature > 50") > 1_000);
    assert!(route("rest", "temperature BETWEEN 10 AND 50") > 1_000);
    assert!(
        server
            .sql("SELECT table_name FROM information_schema.tables WHERE table_name = 'cold'")
            .is_empty(),
        "what no store names is not stored"
    );

    same(
        &server,
        "SELECT device, n, number, fahrenheit FROM numbers ORDER BY 1, 2, 3, 4",
        "SELECT device, n, CAST(note AS BIGINT), temperature * 1.8 + 32 FROM readings WHERE note <> 'x' ORDER BY 1, 2, 3, 4",
    );
    same(
        &server,
        "SELECT device, ts, n, note FROM numbers_errors ORDER BY 1, 2, 3",
        "SELECT device, ts, n, note FROM readings WHERE note = 'x' ORDER BY 1, 2, 3",
    );
    assert_eq!(
        server.number("SELECT count(*) FROM numbers_errors WHERE error_reason IS NULL"),
        0
    );

    let windows = same(
        &server,
        "SELECT device, window_start, window_end, rows, low, high, mean FROM minutes ORDER BY 1, 2",
        "SELECT device, date_bin(INTERVAL '1 minute', ts), date_bin(INTERVAL '1 minute', ts) + INTERVAL '1 minute', count(*), min(temperature), max(temperature), avg(temperature)
         FROM readings WHERE kind <> 'old' AND ts < TIMESTAMP '2026-01-03T00:00:00Z' GROUP BY 1, 2, 3 ORDER BY 1, 2",
    );
    assert_eq!(
        windows,
        3 * 51,
        "50 minutes of each device, and the next day's"
    );
    same(
        &server,
        "SELECT device, window_start, first_n, last_n FROM minutes ORDER BY 1, 2",
        "SELECT device, date_bin(INTERVAL '1 minute', ts), first_value(n ORDER BY ts), last_value(n ORDER BY ts)
         FROM readings WHERE kind <> 'old' AND ts < TIMESTAMP '2026-01-03T00:00:00Z' GROUP BY 1, 2 ORDER BY 1, 2",
    );
    // Each row is in five windows.
    same(
        &server,
        "SELECT device, window_start, rows, high FROM hopping WHERE window_start < TIMESTAMP '2026-01-01T12:00:00Z' ORDER BY 1, 2",
        "SELECT device, date_bin(INTERVAL '1 minute', ts) - hop AS begins, count(*), max(temperature)
         FROM readings CROSS JOIN (VALUES (INTERVAL '0 minutes'), (INTERVAL '1 minutes'), (INTERVAL '2 minutes'), (INTERVAL '3 minutes'), (INTERVAL '4 minutes')) AS hops(hop)
         WHERE kind <> 'old' AND temperature > 50 AND ts < TIMESTAMP '2026-01-02T00:00:00Z' GROUP BY 1, 2 ORDER BY 1, 2",
    );
    same(
        &server,
        "SELECT device, window_start, rows, high FROM quarters WHERE window_start < TIMESTAMP '2026-01-02T00:00:00Z' ORDER BY 1, 2",
        "SELECT device, date_bin(INTERVAL '15 minutes', ts), count(*), max(temperature)
         FROM readings WHERE kind <> 'old' AND ts < TIMESTAMP '2026-01-02T00:00:00Z' GROUP BY 1, 2 ORDER BY 1, 2",
    );
    same(
        &server,
        "SELECT device, ts, n FROM minutes_late ORDER BY 1, 2, 3",
        "SELECT device, ts, n FROM readings WHERE kind = 'old' ORDER BY 1, 2, 3",
    );
    assert_eq!(
        server.sql("SELECT DISTINCT late_reason, window_start FROM minutes_late"),
        ["out_of_order,2026-01-01T00:00:00Z"]
    );

    // Nothing comes any more: that is told of every device once, and when something comes.
    let told = "SELECT device, state FROM silent ORDER BY device, position";
    let is_there = "SELECT table_name FROM information_schema.tables WHERE table_name = 'silent'";
    wait_until("silence is told", || {
        !server.sql(is_there).is_empty()
            && server.sql(told) == ["a,missing", "b,missing", "c,missing"]
    });
    runtime.block_on(async {
        let device = Device::connect(&server, "b").await;
        let again = [(1, MIDNIGHT + 2 * 86_400 * SECOND)];
        device.send("readings", &readings("end", again)).await;
    });
    settle(&server);
    let rows = server.sql(told);
    assert_eq!(rows[..3], ["a,missing", "b,missing", "b,back"], "{rows:?}");

    server.audit();
    server.stop();
    assert_eq!(server.number("SELECT count(*) FROM minutes"), 3 * 51);
    server.audit();
}
