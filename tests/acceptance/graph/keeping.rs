//! Stores that keep rows for a time only: what is older goes, is counted, and never comes back.

use std::time::Duration;

use super::{Device, Files, SECOND, ask, readings, run, wait_until};
use crate::{
    device::runtime,
    server::{Server, quiver_ok},
};

const GRAPH: &str = r#"
[stream.readings.fields]
temperature = "float64"
kind = "utf8"
note = "utf8"
n = "int64"

[route.hot]
from = "readings"
where = "temperature > 50"

[store.short]
from = ["readings"]
hot = "1m"
archive = false

[store.long]
from = ["hot"]
keep = "30d"
"#;

const ARGUMENTS: [&str; 6] = [
    "--flush-age",
    "300ms",
    "--compact-every",
    "200ms",
    "--checkpoint-interval",
    "1s",
];

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_micros()).unwrap()
}

/// What an audit says has left the archive, of all devices; it must hold.
fn expired(server: &Server) -> u64 {
    let (code, text) = run(&["audit", "--json", "--data-dir", server.data()]);
    assert_eq!(code, 0, "{text}");
    let audit: serde_json::Value = serde_json::from_str(&text).unwrap();
    let lines = audit["lines"].as_array().unwrap();
    lines
        .iter()
        .map(|line| line["expired"].as_u64().unwrap())
        .sum()
}

fn stored(server: &Server, kind: &str) -> u64 {
    server.number(&format!(
        "SELECT count(*) FROM readings WHERE kind = '{kind}'"
    ))
}

/// Rows that are not archived yet.
fn in_memory(server: &Server) -> u64 {
    let (_, status) = ask(server, "GET", "/api/v1/status");
    status["hot_rows"].as_u64().unwrap()
}

#[test]
fn rows_go_when_they_are_older_than_their_store_keeps_them_and_the_audit_knows() {
    let files = Files::new(GRAPH);
    let mut server = files.serve(&ARGUMENTS);
    let runtime = runtime();
    let mut device = runtime.block_on(Device::connect(&server, "a"));
    // An hour old, and ahead, so that they stay however long this takes.
    let old = readings("old", (0..100).map(|n| (n, now() - 3_600 * SECOND + n)));
    let new = readings("new", (0..100).map(|n| (n, now() + 3_600 * SECOND + n)));
    // Each in a file of its own: a file goes when its newest row is too old.
    for rows in [&new, &old] {
        runtime.block_on(device.send("readings", rows));
        wait_until("rows are archived", || in_memory(&server) == 0);
    }
    wait_until("old rows have gone", || stored(&server, "old") == 0);
    assert_eq!(stored(&server, "new"), 100);
    let hot = "SELECT count(*) FROM hot WHERE kind = 'old'";
    let kept = server.number(hot);
    assert!(kept > 40, "another store keeps them for longer: {kept}");
    assert_eq!(expired(&server), 100);

    // Killed while they come and go.
    let mut sent = 100;
    for round in 0..4_u64 {
        runtime.block_on(async {
            for part in 0..6 {
                let at = now() - 7_200 * SECOND + part;
                device
                    .send("readings", &readings("old", (0..50).map(|n| (n, at + n))))
                    .await;
                sent += 50;
                tokio::time::sleep(Duration::from_millis(60 + 25 * round)).await;
            }
        });
        server.kill();
        server.restart();
        // They go on going while they are counted.
        let (gone, left) = (expired(&server), stored(&server, "old"));
        let told = format!("after round {round}: {gone} gone, {left} left of {sent}");
        assert!(
            gone + left <= sent && expired(&server) + left >= sent,
            "{told}"
        );
        device = runtime.block_on(device.again());
    }
    wait_until("all old rows have gone", || stored(&server, "old") == 0);
    assert_eq!((expired(&server), stored(&server, "new")), (sent, 100));
    let text = server.sql(
        "SELECT count(*) FROM quiver_control WHERE kind = 'retention_applied' AND body LIKE '%\"stream\":\"readings\"%'",
    );
    assert!(text[0].parse::<u64>().unwrap() >= 2, "{text:?}");
    server.stop();
    assert_eq!(expired(&server), sent, "of a directory at rest, too");
    server.restart();

    // Kept for ever from now on, as it is said before.
    let graph = files.graph();
    let for_ever = GRAPH.replace("hot = \"1m\"\narchive = false", "");
    files.write("graph.toml", &for_ever);
    let plan = quiver_ok(&["plan", &graph, "--data-dir", server.data()]);
    assert!(
        plan.contains("rows of readings are kept for ever (now: 1m)"),
        "{plan}"
    );
    assert_eq!(ask(&server, "POST", "/api/v1/pipeline").0, 200);
    let (_, status) = ask(&server, "GET", "/api/v1/pipeline");
    assert_eq!(status["kept_for"]["readings"], serde_json::Value::Null);
    assert_eq!(status["kept_for"]["hot"], 30.0 * 86_400.0);
    device = runtime.block_on(device.again());
    let at = now() - 3_600 * SECOND;
    runtime.block_on(device.send("readings", &readings("old", [(1, at)])));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stored(&server, "old"), 1);
}
