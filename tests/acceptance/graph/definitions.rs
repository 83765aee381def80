//! Nodes that are defined otherwise, or not at all, when an engine is started again; and what is too
//! much for one record.

use std::time::Instant;

use quiver_client::Settled;

use super::{Device, Files, MIDNIGHT, PATIENCE, SECOND, ask, readings, reload::in_force, settle};
use crate::{device::runtime, server::Server};

const MINUTES: &str = r#"
[stream.readings.fields]
n = "int64"

[window.w]
from = "readings"
size = "1m"
by = ["device"]
idle = "1h"
select = "count(*) AS rows"
"#;

/// Sends rows a second apart.
fn send(server: &Server, from: i64, to: i64) {
    let rows = (from..to).map(|n| (n, MIDNIGHT + n * SECOND));
    runtime().block_on(async {
        let device = Device::connect(server, "a").await;
        device.send("readings", &readings("good", rows)).await;
    });
    settle(server);
}

#[test]
fn a_window_that_is_defined_otherwise_after_a_kill_is_not_put_out_twice() {
    let others = [
        // Another state, the same state with another tolerance, and another way to it.
        MINUTES.replace("count(*) AS rows", "count(*) AS rows, max(n) AS top"),
        MINUTES.replace("idle", "out_of_order = \"10s\"\nidle"),
        MINUTES.replace("from = \"readings\"", "from = \"some\"")
            + "[route.some]\nfrom = \"readings\"\nwhere = \"n > -1\"\n",
    ];
    for other in others {
        let files = Files::new(MINUTES);
        let mut server = files.serve(&[]);
        let begun = Instant::now();
        send(&server, 0, 600);
        let windows = "SELECT window_start, rows FROM w ORDER BY 1, 2";
        let before = server.sql(windows);
        assert_eq!(before.len(), 9);
        server.kill();
        // What nodes remember is kept every ten seconds.
        assert!(
            begun.elapsed().as_secs() < 9,
            "the machine is too slow for this test"
        );
        files.write("graph.toml", &other);
        server.restart();
        settle(&server);
        assert_eq!(server.sql(windows), before);
        let graphs = in_force(&server);
        assert_eq!(graphs.len(), 2, "{graphs:?}");
        assert_ne!(graphs[0].1, graphs[1].1);
        server.kill();
        server.restart();
        send(&server, 600, 800);
        let after = server.sql(windows);
        assert_eq!(after[..9], before);
        assert_eq!(
            after[9..]
                .iter()
                .map(|row| &row[11..16])
                .collect::<Vec<_>>(),
            ["00:10", "00:11", "00:12"]
        );
        assert_eq!(in_force(&server).len(), 2, "the same graph is told of once");
        server.audit();
        server.stop();
        server.restart();
        settle(&server);
        assert_eq!(server.sql(windows), after);
    }
}

#[test]
fn a_stream_of_a_node_is_closed_to_devices_without_the_graph_too() {
    let files = Files::new(MINUTES);
    let mut server = files.serve(&[]);
    send(&server, 0, 200);
    server.kill();
    server.set_arguments(&["--enroll-unknown"]);
    server.restart();
    let told = runtime().block_on(async {
        let device = Device::connect(&server, "a").await;
        device
            .send("others", &readings("good", [(1, MIDNIGHT)]))
            .await;
        let rows = readings("good", [(1, MIDNIGHT)]);
        let sent = device.settled("w", &rows);
        tokio::time::timeout(std::time::Duration::from_secs(2), sent).await
    });
    assert!(!matches!(told, Ok(Settled::Stored)), "{told:?}");
    assert_eq!(server.number("SELECT count(*) FROM w"), 3);
    server.audit();
}

#[test]
fn more_rows_than_a_batch_may_have_come_out_of_one_record() {
    // A row is in as many windows of each size as that has seconds.
    let sizes: Vec<usize> = (9_000..9_008).collect();
    let windows: usize = sizes.iter().sum();
    let list: Vec<String> = sizes.iter().map(|size| format!("\"{size}s\"")).collect();
    let size = format!("size = [{}]\nevery = \"1s\"", list.join(", "));
    let graph = MINUTES.replace("size = \"1m\"", &size);
    let files = Files::new(&graph);
    let mut server = files.serve(&[]);
    send(&server, 0, 1);
    let begun = Instant::now();
    send(&server, 200_000, 200_001);
    assert!(begun.elapsed() < PATIENCE);
    let counts = "SELECT count(*), count(DISTINCT concat(window_size, ' ', window_start)), count(DISTINCT arrival) FROM w WHERE window_start <= TIMESTAMP '2026-01-01T00:00:00Z'";
    assert!(server.sql(counts)[0].starts_with(&format!("{windows},{windows},")));
    let (_, answer) = ask(&server, "GET", "/api/v1/pipeline");
    assert_eq!(answer["nodes"][0]["refused"], 0, "{answer}");
    server.kill();
    server.restart();
    settle(&server);
    assert!(server.sql(counts)[0].starts_with(&format!("{windows},{windows},")));
    server.audit();
}
