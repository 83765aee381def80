//! What depends on time alone.

use std::time::Duration;

use super::{Device, Files, readings, settle, wait_until};
use crate::{device::runtime, server::Server};

const GRAPH: &str = r#"
[stream.readings.fields]
n = "int64"
[window.seconds]
from = "readings"
size = "1s"
by = ["device"]
idle = "1s"
select = "count(*) AS rows"
"#;

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_micros()).unwrap()
}

/// Records of the log so far.
fn committed(server: &Server) -> u64 {
    let (_, status) = super::ask(server, "GET", "/api/v1/status");
    status["committed"].as_u64().unwrap()
}

fn closed(server: &Server) -> bool {
    let there = "SELECT table_name FROM information_schema.tables WHERE table_name = 'seconds'";
    !server.sql(there).is_empty()
}

#[test]
fn windows_of_silent_devices_end_though_nothing_comes() {
    let files = Files::new(GRAPH);
    let mut server = files.serve(&[]);
    runtime().block_on(async {
        let device = Device::connect(&server, "a").await;
        device
            .send("readings", &readings("good", [(1, now())]))
            .await;
    });
    wait_until("the window ends", || closed(&server));
    assert_eq!(server.sql("SELECT device, rows FROM seconds"), ["a,1"]);
    // Nothing is waited for any more: time is not written.
    settle(&server);
    let before = committed(&server);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(committed(&server), before);
    assert!(
        server
            .sql("SELECT kind FROM quiver_control WHERE kind = 'tick'")
            .is_empty()
    );
    server.audit();
    server.kill();
    server.restart();
    assert_eq!(server.sql("SELECT device, rows FROM seconds"), ["a,1"]);
}

#[test]
fn windows_of_silent_devices_end_while_streams_that_nobody_takes_are_busy() {
    let files = Files::new(GRAPH);
    let server = files.serve(&[]);
    runtime().block_on(async {
        let device = Device::connect(&server, "a").await;
        let other = Device::connect(&server, "b").await;
        device
            .send("readings", &readings("good", [(1, now())]))
            .await;
        let begun = std::time::Instant::now();
        while !closed(&server) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the window does not end"
            );
            let until = std::time::Instant::now() + Duration::from_secs(1);
            while std::time::Instant::now() < until {
                other.send("others", &readings("good", [(1, now())])).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
}

#[test]
fn an_engine_without_a_graph_writes_no_time() {
    let server = Server::start(&["--enroll-unknown"]);
    runtime().block_on(async {
        let device = Device::connect(&server, "a").await;
        device
            .send("readings", &readings("good", [(1, now())]))
            .await;
    });
    let before = committed(&server);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(committed(&server), before);
}
