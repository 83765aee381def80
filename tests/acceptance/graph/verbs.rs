//! What the command line says of graphs.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use super::{Device, Files, MIDNIGHT, SECOND, ask, readings, run};
use crate::{
    device::runtime,
    python,
    server::{Server, binary, quiver_ok},
};

const GRAPH: &str = r#"
[stream.readings.fields]
temperature = "float64"
note = "utf8"
n = "int64"
kind = "utf8"
[route.hot]
from = "readings"
where = "temperature > 50 AND kind <> '${env:QUIVER_TEST_SECRET}'"
[map.numbers]
from = "readings"
select = "CAST(note AS BIGINT) AS number"
[window.minutes]
from = "hot"
size = "1m"
by = ["device"]
select = "count(*) AS rows"
[store.kept]
from = ["numbers"]
[[test]]
name = "hot & <cold>"
steps = [
  { input = "readings", rows = [{ ts = "10:00:00", device = "a", temperature = 60.0, kind = "k", n = 1 }] },
  { expect = "hot", count = 1 },
]
[[test]]
name = "this one is wrong"
steps = [
  { input = "readings", rows = [{ ts = "10:00:00", device = "a", temperature = 40.0, kind = "k", n = 1 }] },
  { expect = "hot", rows = [{ device = "a" }] },
]
"#;
const SECRET: &str = "hunter2hunter2";

/// Runs the binary with the secret in its environment.
fn with_secret(args: &[&str]) -> (i32, String) {
    let output = Command::new(binary())
        .args(args)
        .env("QUIVER_TEST_SECRET", SECRET)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

#[test]
fn verbs_say_what_is_wrong_and_end_accordingly() {
    let files = Files::new(GRAPH);
    let graph = files.graph();
    // Nothing of what is outside may be missing.
    let (code, told) = run(&["validate", &graph]);
    assert_eq!(code, 78, "{told}");
    assert!(
        told.contains("QUIVER_TEST_SECRET") && told.contains("graph.toml:9:"),
        "{told}"
    );
    assert_eq!(with_secret(&["validate", &graph]).0, 0);
    assert_eq!(run(&["validate", "/no/such/file"]).0, 74);

    let (code, told) = with_secret(&["test", &graph]);
    assert_eq!(code, 65, "{told}");
    assert!(told.contains("1 passed, 1 failed"), "{told}");
    let junit = files.path("junit.xml");
    let (code, _) = with_secret(&["test", &graph, "--junit", junit.to_str().unwrap()]);
    assert_eq!(code, 65);
    let (code, told) = with_secret(&["test", &graph, "--only", "cold"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(with_secret(&["test", &graph, "--only", "none"]).0, 78);
    assert_eq!(with_secret(&["test", "/no/such/file"]).0, 74);
    if let Some(python) =
        python::interpreter("graph::verbs::verbs_say_what_is_wrong_and_end_accordingly")
    {
        let counted = python::run(&python, "read_junit.py", &[junit.to_str().unwrap()]);
        assert_eq!(
            counted.trim(),
            "2 tests, 1 failures: hot & <cold>, this one is wrong"
        );
    }

    // A file's content, its end of line left out.
    let file = GRAPH.replace("env:QUIVER_TEST_SECRET", "file:secret.txt");
    files.write("graph.toml", &file);
    let (code, told) = run(&["validate", &graph]);
    assert_eq!(code, 78, "{told}");
    assert!(told.contains("secret.txt"), "{told}");
    files.write("secret.txt", &format!("{SECRET}\n"));
    assert_eq!(run(&["validate", &graph]).0, 0);

    // Every problem at once, as JSON, too.
    files.write(
        "graph.toml",
        "[route.a]\nfrom = \"b\"\n[route.b]\nfrom = \"a\"\n[route.d]\nfrom = \"e\"\nwhere = \"x >\"\n[widow.c]\n",
    );
    let (code, told) = run(&["validate", &graph, "--json"]);
    assert_eq!(code, 78);
    let end = told.rfind(']').unwrap() + 1;
    let problems: serde_json::Value = serde_json::from_str(&told[..end]).unwrap();
    let problems = problems.as_array().unwrap();
    assert!(problems.len() >= 3, "{problems:?}");
    let all = format!("{problems:?}");
    for part in ["a → b → a", "did you mean `window`"] {
        assert!(all.contains(part), "{all}");
    }
    assert!(
        problems
            .iter()
            .all(|problem| problem["line"].as_u64() > Some(0)),
        "{all}"
    );

    // A directory of files is one configuration.
    let directory = files.path("parts");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(
        directory.join("1.toml"),
        "[stream.readings.fields]\nspeed = \"float64\"\n",
    )
    .unwrap();
    std::fs::write(
        directory.join("2.toml"),
        "[route.fast]\nfrom = \"readings\"\nwhere = \"sped > 1\"\n[store.s]\nfrom = [\"fast\"]\n",
    )
    .unwrap();
    let path = directory.to_str().unwrap();
    let (code, told) = run(&["validate", path]);
    assert_eq!(code, 78);
    assert!(
        told.contains("2.toml:3:") && told.contains("did you mean `speed`"),
        "{told}"
    );
    std::fs::write(
        directory.join("2.toml"),
        "[route.fast]\nfrom = \"readings\"\nwhere = \"speed > 1\"\n[store.s]\nfrom = [\"fast\"]\n",
    )
    .unwrap();
    let server = Server::start(&["--config", path]);
    assert_eq!(
        ask(&server, "GET", "/api/v1/pipeline").1["nodes"][0]["name"],
        "fast"
    );
    std::fs::write(directory.join("1.toml"), "[stream.readings]\n").unwrap();
    std::fs::write(
        directory.join("2.toml"),
        "[route.slow]\nfrom = \"readings\"\n[store.s]\nfrom = [\"slow\"]\n",
    )
    .unwrap();
    assert_eq!(ask(&server, "POST", "/api/v1/pipeline").0, 200);
    assert_eq!(
        ask(&server, "GET", "/api/v1/pipeline").1["nodes"][0]["name"],
        "slow"
    );
}

#[test]
fn what_comes_from_outside_is_shown_nowhere() {
    let files = Files::new(&GRAPH.replace("env:QUIVER_TEST_SECRET", "file:secret.txt"));
    files.write("secret.txt", SECRET);
    let graph = files.graph();
    let server = files.serve(&[]);
    let mut told = Vec::new();
    for format in ["ascii", "svg", "dot", "mermaid"] {
        told.push(quiver_ok(&["graph", &graph, "--format", format]));
    }
    told.push(quiver_ok(&["validate", &graph]));
    told.push(quiver_ok(&["plan", &graph, "--data-dir", server.data()]));
    told.push(ask(&server, "GET", "/api/v1/pipeline").1.to_string());
    told.push(server.sql("SELECT * FROM quiver_control").join("\n"));
    // In what is told of a condition that is wrong because of it.
    files.write("secret.txt", &format!("{SECRET}' AND"));
    told.push(run(&["validate", &graph]).1);
    told.push(run(&["validate", &graph, "--json"]).1);
    told.push(run(&["plan", &graph, "--data-dir", server.data()]).1);
    told.push(run(&["graph", &graph]).1);
    told.push(run(&["test", &graph]).1);
    let (status, answer) = ask(&server, "POST", "/api/v1/pipeline");
    assert_eq!(status, 422, "{answer}");
    told.push(answer.to_string());
    for told in told {
        assert!(!told.contains(SECRET), "{told}");
    }
}

/// A tail, which ends after so many rows, or with the test.
struct Tail {
    process: Child,
    rows: BufReader<ChildStdout>,
}

impl Tail {
    fn of(server: &Server, port: &str, limit: usize) -> Self {
        let mut process = Command::new(binary())
            .args(["tail", port, "--json", "--limit", &limit.to_string()])
            .args(["--data-dir", server.data()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let rows = BufReader::new(process.stdout.take().unwrap());
        Self { process, rows }
    }

    fn row(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.rows.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn rows_of_streams_nodes_and_ports_are_shown_as_they_come() {
    let files = Files::new(&GRAPH.replace("${env:QUIVER_TEST_SECRET}", "x"));
    let server = files.serve(&[]);
    let mut tails: Vec<_> = [
        "readings",
        "readings",
        "hot",
        "numbers.errors",
        "minutes",
        "minutes.late",
    ]
    .iter()
    .map(|port| (*port, Tail::of(&server, port, 1)))
    .collect();
    for (port, near) in [("ho", "hot"), ("minuts.late", "minutes")] {
        let (code, told) = run(&["tail", port, "--data-dir", server.data()]);
        assert_eq!(code, 65, "{told}");
        assert!(told.contains(&format!("did you mean \"{near}\"")), "{told}");
    }
    // They are there when the engine says so: rows are sent until each has its own.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let runtime = runtime();
    let device = runtime.block_on(Device::connect(&server, "a"));
    let is_over = stop.clone();
    let sending = runtime.spawn(async move {
        let mut n = 0;
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            let rows = (n..n + 50).map(|n| (n, MIDNIGHT + n * SECOND));
            device.send("readings", &readings("good", rows)).await;
            device
                .send(
                    "readings",
                    &readings("old", [(3, MIDNIGHT), (13, MIDNIGHT), (1, MIDNIGHT)]),
                )
                .await;
            n += 50;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    for (port, tail) in &mut tails {
        let row = tail.row();
        assert_eq!(row["device"], "a", "{port}: {row}");
        match *port {
            "numbers.errors" => assert!(row["error_reason"].is_string(), "{row}"),
            "minutes" => assert!(row["rows"].is_i64(), "{row}"),
            "minutes.late" => assert!(row["late_reason"].is_string(), "{row}"),
            "hot" => assert!(row["temperature"].as_f64() > Some(50.0), "{row}"),
            _ => assert!(row["n"].is_i64(), "{row}"),
        }
    }
    // Meanwhile, the picture shows how much comes.
    let http = server.http().to_string();
    let rates = [
        "--server",
        &http,
        "--data-dir",
        server.data(),
        "--duration",
        "1s",
    ];
    let graph = files.graph();
    let picture = quiver_ok(&[&["graph", &graph, "--format", "mermaid"], &rates[..]].concat());
    assert!(picture.contains("/s"), "{picture}");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    runtime.block_on(sending).unwrap();
}
