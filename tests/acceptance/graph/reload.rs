//! Another graph takes the place of one that runs, under load.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Device, Files, MIDNIGHT, SECOND, ask, readings, run, same, settle, wait_until};
use crate::{
    device::runtime,
    server::{Server, quiver_ok},
};

fn graph(threshold: i64, more: &str) -> String {
    format!(
        r#"
[stream.readings.fields]
temperature = "float64"
kind = "utf8"
note = "utf8"
n = "int64"

[route.hot]
from = "readings"
where = "temperature > {threshold} OR kind = 'end'"

[window.minutes]
from = "readings"
size = "1m"
by = ["device"]
idle = "10m"
select = "count(*) AS rows, sum(n) AS total"

[window.halves]
from = "hot"
size = "30s"
by = ["device"]
idle = "10m"
select = "count(*) AS rows"

[store.kept]
from = ["hot"]
{more}"#
    )
}

const HOURS: &str = r#"
[window.hours]
from = "minutes"
size = "1h"
by = ["device"]
idle = "10m"
select = "sum(rows) AS rows"
"#;

/// Positions from which graphs were in force, but the first.
fn applied(server: &Server) -> Vec<i64> {
    let mut all = in_force(server);
    assert!(!all.is_empty(), "a start tells of its graph");
    all.split_off(1).into_iter().map(|(from, _)| from).collect()
}

/// From where graphs were in force, and which.
pub(super) fn in_force(server: &Server) -> Vec<(i64, String)> {
    let bodies = server.sql("SELECT CAST(body AS VARCHAR) FROM quiver_control WHERE kind = 'graph_applied' ORDER BY position");
    let told = |cell: &String| {
        let text = cell.trim_matches('"').replace("\"\"", "\"");
        let body: serde_json::Value = serde_json::from_str(&text).unwrap();
        let graph = body["graph"].as_str().unwrap().to_owned();
        (body["from"].as_i64().unwrap(), graph)
    };
    bodies.iter().map(told).collect()
}

#[test]
fn a_graph_is_replaced_under_load_and_no_row_is_lost_or_twice() {
    let files = Files::new(&graph(50, ""));
    let mut server = files.serve(&[]);
    let runtime = runtime();
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = ["a", "b"]
        .map(|id| {
            let device = runtime.block_on(Device::connect(&server, id));
            let (stop, sent) = (stop.clone(), sent.clone());
            runtime.spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let rows = (n..n + 7).map(|n| (n, MIDNIGHT + n * SECOND));
                    device.send("readings", &readings("good", rows)).await;
                    n += 7;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                for days in 1..3 {
                    let end = [(n, MIDNIGHT + days * 86_400 * SECOND)];
                    device.send("readings", &readings("end", end)).await;
                }
            })
        })
        .into();
    let load = || {
        let until = sent.load(Ordering::Relaxed) + 40;
        wait_until("devices send", || sent.load(Ordering::Relaxed) >= until);
    };
    load();

    // What is wrong is told, where it is, and nothing changes.
    files.write(
        "graph.toml",
        &graph(
            50,
            "[route.bad]\nfrom = \"readings\"\nwhere = \"temprature > 1\"\n",
        ),
    );
    let (status, answer) = ask(&server, "POST", "/api/v1/pipeline");
    assert_eq!(status, 422, "{answer}");
    let told = answer["error"].as_str().unwrap();
    assert!(told.contains("graph.toml:30:"), "{told}");
    assert!(told.contains("did you mean `temperature`"), "{told}");
    assert!(applied(&server).is_empty());
    load();

    // Another condition, another node: what the plan says is what happens.
    files.write("graph.toml", &graph(20, HOURS));
    let plan = quiver_ok(&["plan", &files.graph(), "--data-dir", server.data()]);
    let line = |node: &str| {
        let line = plan.lines().find(|line| line.starts_with(node)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("hot"), "hot route changed -");
    assert_eq!(line("minutes"), "minutes window unchanged kept");
    assert_eq!(line("halves"), "halves window unchanged kept");
    assert_eq!(line("hours"), "hours window new begins");
    let (status, answer) = ask(&server, "POST", "/api/v1/pipeline");
    assert_eq!(status, 200, "{answer}");
    let first = answer["from"].as_i64().unwrap();
    load();

    // By signal, without the nodes that were added, and with another window in the place of one.
    let last = graph(80, "").replace("30s", "15s");
    files.write("graph.toml", &last);
    let plan = quiver_ok(&["plan", &files.graph(), "--data-dir", server.data()]);
    assert!(plan.contains("lost: it begins anew"), "{plan}");
    assert!(plan.contains("removed"), "{plan}");
    server.reload();
    wait_until("the graph is applied", || applied(&server).len() == 2);
    let all = applied(&server);
    assert_eq!(all[0], first);
    let second = all[1];
    load();

    // A broken file and a signal: the graph that runs stays.
    files.write("graph.toml", "this is no TOML");
    server.reload();
    load();
    assert_eq!(run(&["validate", &files.graph()]).0, 78);
    assert_eq!(applied(&server).len(), 2);
    files.write("graph.toml", &last);

    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    settle(&server);
    let check = |server: &Server| {
        same(
            server,
            "SELECT device, n, kind FROM hot ORDER BY 1, 2, 3",
            &format!(
                "SELECT device, n, kind FROM readings WHERE temperature > CASE
                   WHEN position < {first} THEN 50 WHEN position < {second} THEN 20 ELSE 80 END OR kind = 'end' ORDER BY 1, 2, 3"
            ),
        );
        // Windows span the changes.
        same(
            server,
            "SELECT device, window_start, rows, total FROM minutes WHERE window_start < TIMESTAMP '2026-01-02T00:00:00Z' ORDER BY 1, 2",
            "SELECT device, date_bin(INTERVAL '1 minute', ts), count(*), sum(n)
             FROM readings WHERE kind = 'good' GROUP BY 1, 2 ORDER BY 1, 2",
        );
        // This one began anew with the last graph.
        same(
            server,
            "SELECT device, window_start, rows FROM halves WHERE window_start < TIMESTAMP '2026-01-02T00:00:00Z'
               AND window_end - window_start = INTERVAL '15 seconds' ORDER BY 1, 2",
            &format!(
                "SELECT device, date_bin(INTERVAL '15 seconds', ts), count(*)
                 FROM readings WHERE kind = 'good' AND temperature > 80 AND position >= {second} GROUP BY 1, 2 ORDER BY 1, 2"
            ),
        );
    };
    check(&server);
    server.audit();
    server.kill();
    server.restart();
    settle(&server);
    check(&server);
    server.audit();
}

#[test]
fn what_a_node_remembered_before_it_was_gone_is_not_taken_up_again() {
    let with = graph(50, "");
    let without = with.replace("[window.minutes]", "[window.others]");
    let files = Files::new(&with);
    let mut server = files.serve(&[]);
    let runtime = runtime();
    let rows = |from: i64, to: i64| (from..to).map(|n| (n, MIDNIGHT + n * SECOND));
    let send = |server: &Server, from: i64, to: i64| {
        runtime.block_on(async {
            let device = Device::connect(server, "a").await;
            device
                .send("readings", &readings("good", rows(from, to)))
                .await;
        });
        settle(server);
    };
    send(&server, 0, 10);
    for (graph, from, to) in [(&without, 10, 20), (&with, 20, 100)] {
        server.stop();
        files.write("graph.toml", graph);
        server.restart();
        send(&server, from, to);
    }
    // Of the first minute it has what came since it is there again.
    let rows = server.sql("SELECT window_start, rows FROM minutes");
    assert_eq!(rows, ["2026-01-01T00:00:00Z,40"]);
}

#[test]
fn a_server_ends_soon_though_somebody_watches() {
    let files = Files::new(&graph(50, ""));
    let mut server = files.serve(&[]);
    let mut tail = Command::new(crate::server::binary())
        .args(["tail", "hot", "--data-dir", server.data()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let begun = std::time::Instant::now();
    server.stop();
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    wait_until("the tail ends", || tail.try_wait().unwrap().is_some());
    assert_eq!(tail.wait().unwrap().code(), Some(69));
}
