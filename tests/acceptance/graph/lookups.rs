//! Reference tables.

use std::time::Duration;

use super::{Device, Files, MIDNIGHT, SECOND, readings, run, settle, wait_until};
use crate::{
    device::runtime,
    server::{Server, quiver_ok},
};

const GRAPH: &str = r#"
[stream.readings.fields]
n = "int64"
[lookup.kept]
from = "readings"
file = "trucks.csv"
on = { device = "truck" }
[lookup.known]
from = "readings"
file = "limits.parquet"
on = "n"
unmatched = "error"
[store.kept]
from = ["kept", "known", "known.errors"]
"#;

/// Writes a table of limits by means of the engine itself.
fn limits(files: &Files, server: &Server) {
    let sql = "SELECT 1 AS n, 10.5 AS upper UNION ALL SELECT 2, 20.5";
    let output = crate::server::quiver(&[
        "sql",
        "--data-dir",
        server.data(),
        "--format",
        "parquet",
        sql,
    ]);
    assert!(output.status.success());
    std::fs::write(files.path("limits.parquet"), output.stdout).unwrap();
}

#[test]
fn rows_are_looked_up_and_a_changed_table_is_taken() {
    let files = Files::new(GRAPH);
    let start = |files: &Files, data: &str| {
        run(&[
            "serve",
            "--data-dir",
            data,
            "--quic",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--config",
            &files.graph(),
        ])
    };
    let other = Server::start(&[]);
    limits(&files, &other);
    let nowhere = files.path("nowhere");
    let (code, told) = start(&files, nowhere.to_str().unwrap());
    assert_eq!(code, 78, "{told}");
    assert!(
        told.contains("lookup `kept`") && told.contains("trucks.csv"),
        "{told}"
    );
    assert!(
        !nowhere.exists(),
        "a configuration that is wrong changes nothing"
    );
    assert_eq!(run(&["validate", &files.graph()]).0, 78);

    files.write("trucks.csv", "truck,model,axles\na,x1,2\nb,x2,3\n");
    quiver_ok(&["validate", &files.graph()]);
    let mut server = files.serve(&[]);
    let runtime = runtime();
    let send = |server: &Server, id: &str, n: i64| {
        runtime.block_on(async {
            let device = Device::connect(server, id).await;
            device
                .send("readings", &readings("good", [(n, MIDNIGHT + n * SECOND)]))
                .await;
        });
        settle(server);
    };
    send(&server, "a", 1);
    send(&server, "c", 2);
    send(&server, "c", 3);
    let kept = "SELECT n, device, model, axles FROM kept ORDER BY n";
    assert_eq!(server.sql(kept), ["1,a,x1,2", "2,c,,", "3,c,,"]);
    assert_eq!(
        server.sql("SELECT n, upper FROM known ORDER BY n"),
        ["1,10.5", "2,20.5"]
    );
    assert_eq!(server.sql("SELECT n FROM known_errors"), ["3"]);

    let loaded = |server: &Server| {
        server.sql("SELECT CAST(body AS VARCHAR) FROM quiver_control WHERE kind = 'lookup_loaded' ORDER BY position").len()
    };
    assert_eq!(loaded(&server), 2, "both tables at the start");
    files.write("trucks.csv", "truck,model,axles\na,x9,4\nc,x3,6\n");
    wait_until("the table is loaded", || loaded(&server) == 3);
    send(&server, "c", 4);
    // Files that cannot be taken: two rows of a key, another type, none at all.
    for broken in [
        "truck,model,axles\na,x1,2\na,x1,2\n",
        "truck,model,axles\na,x1,two\n",
        "truck\n",
    ] {
        files.write("trucks.csv", broken);
        std::thread::sleep(Duration::from_secs(3));
    }
    std::fs::remove_file(files.path("trucks.csv")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    send(&server, "c", 5);
    assert_eq!(loaded(&server), 3);
    files.write("trucks.csv", "truck,model,axles\nc,x5,8\n");
    wait_until("the table is loaded", || loaded(&server) == 4);
    send(&server, "c", 6);
    let rows = [
        "1,a,x1,2", "2,c,,", "3,c,,", "4,c,x3,6", "5,c,x3,6", "6,c,x5,8",
    ];
    assert_eq!(server.sql(kept), rows);
    server.kill();
    server.restart();
    settle(&server);
    assert_eq!(server.sql(kept), rows);
    server.audit();
}
