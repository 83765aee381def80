//! `quiver top` where there is no terminal: one table, or why there is none.

use std::path::PathBuf;

use crate::server::{Server, quiver, quiver_ok};

#[test]
fn a_table_of_every_stream_and_node() {
    let graph = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/fleet.toml");
    let server = Server::start(&["--config", graph.to_str().unwrap()]);
    let arguments = ["top", "--once", "--interval", "200ms", "--sort", "name"];
    let told = quiver_ok(&[&arguments[..], &["--data-dir", server.data()]].concat());
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("engine http://127.0.0.1:"), "{told}");
    assert!(lines[2].starts_with("graph  lag "), "{told}");
    let titles: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!(
        titles,
        [
            "name", "kind", "in/s", "out/s", "in", "out", "late", "errors", "refused", "delay",
            "state"
        ]
    );
    let names: Vec<&str> = lines[5..]
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.is_sorted(), "{told}");
    for name in [
        "diagnostics",
        "driving",
        "lost",
        "metric",
        "readings",
        "truck",
        "west",
    ] {
        assert!(names.contains(&name), "{name}: {told}");
    }
    let row = |name: &str| {
        let found = lines.iter().find(|line| line.starts_with(name)).unwrap();
        found
            .split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(row("readings"), "stream 0 - 0 - - - - - -");
    assert_eq!(row("west"), "route 0 0 0 0 - 0 0 - -");
    assert_eq!(row("driving"), "window 0 0 0 0 0 0 0 - 0 B");
}

#[test]
fn without_a_graph_or_an_engine_it_says_so() {
    let server = Server::start(&[]);
    let output = quiver(&["top", "--once", "--data-dir", server.data()]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(65), "{told}");
    assert!(told.contains("start it with --config FILE"), "{told}");

    let nobody = tempfile::tempdir().unwrap();
    let nobody = nobody.path().to_str().unwrap();
    let output = quiver(&["top", "--data-dir", nobody]);
    assert_eq!(output.status.code(), Some(69));
    for wrong in [["--sort", "speed"], ["--interval", "1ms"]] {
        let output = quiver(&[&["top", "--data-dir", nobody][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
    }
}
