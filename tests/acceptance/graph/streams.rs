//! What a configuration says of streams is in force before the first row.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
use quiver_client::Settled;

use super::{Device, Files, MIDNIGHT, ask, readings, run, settle, wait_until};
use crate::{device::runtime, server::Server};

fn batch(columns: &[(&str, f64)]) -> RecordBatch {
    let ts = TimestampMicrosecondArray::from(vec![MIDNIGHT]).with_timezone("UTC");
    let mut all: Vec<(&str, ArrayRef)> = vec![("ts", Arc::new(ts))];
    for (name, value) in columns {
        all.push((name, Arc::new(Float64Array::from(vec![*value]))));
    }
    RecordBatch::try_from_iter(all).unwrap()
}

const STRICT: &str = r#"
[stream.fuel]
mode = "strict"
[stream.fuel.fields]
litres = { scale = 2, unit = "l" }
pumps = "int64"
"#;

fn code(settled: &Settled) -> String {
    format!("{settled:?}")
}

#[test]
fn a_strict_stream_takes_what_is_declared_and_nothing_else() {
    let files = Files::new(&STRICT.replace("strict", "relaxed"));
    let mut server = files.serve(&[]);
    let runtime = runtime();
    runtime.block_on(async {
        let device = Device::connect(&server, "a").await;
        device
            .send("fuel", &batch(&[("litres", 1.25), ("seen", 1.0)]))
            .await;
    });
    // Declared before the first row: types and scales.
    assert_eq!(
        server.sql("SELECT arrow_typeof(pumps) FROM fuel"),
        ["Int64"]
    );
    runtime.block_on(async {
        let device = Device::connect(&server, "a").await;
        device.settled("fuel", &batch(&[("litres", 1.234)])).await;
    });
    let refused = "SELECT sum(rows) FROM rejects WHERE code = 'decimal_scale'";
    assert_eq!(server.number(refused), 1);

    // A connection that is open already is held to it, and so is a field that was learned before.
    runtime.block_on(async {
        let device = Device::connect(&server, "a").await;
        device.send("fuel", &batch(&[("litres", 2.5)])).await;
        files.write("graph.toml", STRICT);
        assert_eq!(ask(&server, "POST", "/api/v1/pipeline").0, 200);
        device.send("fuel", &batch(&[("litres", 3.75)])).await;
        for field in ["seen", "unseen"] {
            let settled = device
                .settled("fuel", &batch(&[("litres", 1.0), (field, 1.0)]))
                .await;
            assert!(
                code(&settled).contains("UndeclaredField")
                    || code(&settled).contains("undeclared_field"),
                "{settled:?}"
            );
        }
        device.send("fuel", &batch(&[("litres", 5.0)])).await;
    });
    assert_eq!(server.number("SELECT count(*) FROM fuel"), 4);
    let rejects =
        server.sql("SELECT DISTINCT code, stream FROM rejects WHERE code <> 'decimal_scale'");
    assert_eq!(rejects, ["undeclared_field,fuel"]);
    server.audit();
    server.kill();
    server.restart();
    runtime.block_on(async {
        let device = Device::connect(&server, "a").await;
        let settled = device.settled("fuel", &batch(&[("unseen", 1.0)])).await;
        assert!(!matches!(settled, Settled::Stored), "{settled:?}");
    });
    server.audit();
}

const NODES: &str = r#"
[stream.readings.fields]
temperature = "float64"
[window.minutes]
from = "readings"
size = "1m"
by = ["device"]
select = "max(temperature) AS high"
[store.kept]
from = ["minutes.late"]
"#;

/// How the SDK is told that it may not write a stream.
fn refused(server: &Server, stream: &str) -> String {
    runtime().block_on(async {
        let device = Device::connect(server, "a").await;
        let rows = batch(&[("high", 1.0)]);
        let sent = device.settled(stream, &rows);
        match tokio::time::timeout(std::time::Duration::from_secs(3), sent).await {
            Ok(settled) => format!("{settled:?}"),
            Err(_) => "waits".to_owned(),
        }
    })
}

#[test]
fn devices_do_not_write_streams_of_nodes() {
    let files = Files::new(NODES);
    let server = files.serve(&[]);
    for stream in ["minutes", "minutes_late"] {
        let told = refused(&server, stream);
        assert!(!told.contains("Stored"), "{stream}: {told}");
    }
    // A QUIC stream that was open before its stream became a node's.
    runtime().block_on(async {
        let device = Device::connect(&server, "b").await;
        device.send("later", &batch(&[("high", 1.0)])).await;
        files.write("graph.toml", &NODES.replace("minutes", "later"));
        assert_eq!(ask(&server, "POST", "/api/v1/pipeline").0, 200);
        let rows = batch(&[("high", 2.0)]);
        let sent = device.settled("later", &rows);
        let told = tokio::time::timeout(std::time::Duration::from_secs(3), sent).await;
        assert!(!matches!(told, Ok(Settled::Stored)), "{told:?}");
    });
    assert_eq!(server.number("SELECT count(*) FROM later"), 1);
    server.audit();
}

#[test]
fn a_declaration_against_what_is_stored_is_refused() {
    let files = Files::new("[stream.readings.fields]\ntemperature = \"float64\"\n");
    let mut server = files.serve(&[]);
    runtime().block_on(async {
        let device = Device::connect(&server, "a").await;
        device
            .send("readings", &readings("good", [(1, MIDNIGHT)]))
            .await;
        device.send("hot", &readings("good", [(1, MIDNIGHT)])).await;
    });
    // Of a stream, of a node's stream, and of a view that a store keeps; nothing else changes.
    let wrong = [
        ("[stream.readings.fields]\ntemperature = \"utf8\"\n".to_owned(), "temperature"),
        (NODES.replace("minutes", "hot").replace("AS high", "AS note").replace("[\"hot.late\"]", "[\"hot\"]"), "note"),
        ("[stream.readings.fields]\ntemperature = \"float64\"\n[map.hot]\nfrom = \"readings\"\nselect = \"temperature AS kind\"\n[store.kept]\nfrom = [\"hot\"]\n".to_owned(), "kind"),
    ];
    let fields = server.sql("SELECT * FROM information_schema.columns WHERE table_name = 'fresh'");
    for (graph, field) in &wrong {
        let graph = format!("[stream.fresh.fields]\nspeed = \"float64\"\n{graph}");
        files.write("graph.toml", &graph);
        let (status, answer) = ask(&server, "POST", "/api/v1/pipeline");
        assert_eq!(status, 422, "{answer}");
        assert!(
            answer["error"].as_str().unwrap().contains(field),
            "{answer}"
        );
    }
    let still = server.sql("SELECT * FROM information_schema.columns WHERE table_name = 'fresh'");
    assert_eq!(
        fields, still,
        "nothing is declared of a configuration that is refused"
    );
    settle(&server);
    server.stop();
    for (graph, field) in &wrong {
        files.write("graph.toml", graph);
        let (code, told) = run(&[
            "serve",
            "--data-dir",
            server.data(),
            "--quic",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--config",
            &files.graph(),
        ]);
        assert_eq!(code, 78, "{told}");
        assert!(told.contains(field), "{told}");
    }
    wait_until("the directory is idle", || {
        server.number("SELECT count(*) FROM readings") == 1
    });
}
