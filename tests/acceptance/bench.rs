//! The load generator against the real server: its own child, and one that runs already.

use std::path::Path;

use crate::server::{Server, quiver, quiver_ok};

/// A small load with a little of every trouble, in TOML as a user would write it.
const SCENARIO: &str = "\
# Small, for a test.
devices = 12
rows = 5
fields = 3
rate = 2000
arrivals = \"poisson\"
disorder = 0.1
disorder_by = \"10s\"
late = 0.1
future = 0.1
duplicates = 0.1
warmup = \"500ms\"
duration = \"2s\"
";

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn bench_starts_a_server_loads_it_and_proves_that_nothing_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    std::fs::write(path("small.toml"), SCENARIO).unwrap();
    let run = |json: &str, more: &[&str]| {
        let scenario = text("small.toml");
        let mut args = vec!["bench", "--serve", "--quiet", "--scenario", &scenario];
        args.extend([
            "--work-dir",
            directory.path().to_str().unwrap(),
            "--json",
            json,
        ]);
        args.extend(more);
        quiver_ok(&args)
    };
    let table = run(
        &text("a.json"),
        &[
            "--html",
            &text("a.html"),
            "--hgrm",
            &text("a.hgrm"),
            "--hlog",
            &text("a.hlog"),
        ],
    );
    assert!(
        table.contains("audit") && table.contains(": holds"),
        "{table}"
    );

    let result = json(&path("a.json"));
    assert_eq!(result["scenario"]["devices"], 12);
    let run_0 = &result["runs"][0];
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let acked = number(&run_0["audit"]["acked_rows"]);
    assert!(acked > 2_000.0, "{run_0}");
    let stored = number(&run_0["audit"]["stored_rows"]);
    let quarantined = number(&run_0["audit"]["expected_quarantined"]);
    assert_eq!(acked, stored + quarantined);
    assert!(quarantined > 0.0);
    assert_eq!(run_0["audit"]["server_audit"], true);
    assert!(
        number(&run_0["counts"]["resent"]) > 0.0,
        "duplicates were sent"
    );
    assert!(number(&run_0["latency"]["p50"]) > 0.0);
    assert!(run_0["samples"].as_array().unwrap().len() >= 2);
    assert!(number(&run_0["server"]["resident_bytes"]) > 1e6);

    let page = std::fs::read_to_string(path("a.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"));
    assert!(!page.contains("http:") && !page.contains("https:"));
    let hgrm = std::fs::read_to_string(path("a.hgrm")).unwrap();
    assert!(hgrm.trim_start().starts_with("Value") && hgrm.contains("#[Max"));
    assert!(
        std::fs::read_to_string(path("a.hlog"))
            .unwrap()
            .contains("HISTF")
    );
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 5, "the server's directory is removed");

    run(&text("b.json"), &["--rate", "500"]);
    let compared = quiver_ok(&["bench", "compare", &text("a.json"), &text("b.json")]);
    assert!(compared.contains("rate was 2000 and is 500"), "{compared}");
    assert!(
        compared.contains("rows/s") && compared.contains("WORSE"),
        "{compared}"
    );
    let gated = quiver(&[
        "bench",
        "compare",
        &text("a.json"),
        &text("b.json"),
        "--gate",
        "10%",
    ]);
    assert_eq!(gated.status.code(), Some(65));
}

#[test]
fn bench_enrolls_gateways_at_a_server_that_runs_and_survives_a_bad_network() {
    let server = Server::start(&[]);
    let run = |more: &[&str]| {
        let mut args = vec!["bench", "--quiet", "--data-dir", server.data()];
        args.extend(["--warmup", "0s", "--duration", "2s"]);
        args.extend(more);
        quiver_ok(&args)
    };
    let gateways = [
        "--rate",
        "2000",
        "--identity",
        "gateway",
        "--devices",
        "9",
        "--connections",
        "3",
        "--rows",
        "10",
    ];
    let mut lossy = gateways.to_vec();
    lossy.extend([
        "--devices-per-batch",
        "3",
        "--loss",
        "2%",
        "--delay",
        "3ms",
        "--jitter",
        "2ms",
    ]);
    lossy.extend([
        "--rebind-every",
        "700ms",
        "--reconnect-every",
        "1s",
        "--compression",
        "zstd",
    ]);
    let table = run(&lossy);
    assert!(
        table.contains("lost on purpose") && table.contains(": holds"),
        "{table}"
    );
    // Again, on top of what is there; and as the operator, flat out.
    let table = run(&gateways);
    assert!(table.contains(": holds"), "{table}");
    let table = run(&[
        "--identity",
        "operator",
        "--rate",
        "0",
        "--stream",
        "flat",
        "--prebuilt",
        "4",
    ]);
    assert!(table.contains(": holds"), "{table}");
    assert_eq!(server.number("SELECT count(DISTINCT device) FROM bench"), 9);
    assert!(server.number("SELECT count(*) FROM flat") > 1_000);
}

#[test]
fn bench_says_what_is_wrong_with_a_scenario_and_lists_its_own() {
    let list = quiver_ok(&["bench", "--list"]);
    assert!(
        list.contains("few-large") && list.contains("iot-trucks"),
        "{list}"
    );
    let directory = tempfile::tempdir().unwrap();
    // What is shown is a file that gives the same load.
    let shown = quiver_ok(&["bench", "--scenario", "lossy", "--rows", "7", "--show"]);
    assert!(
        shown.contains("rows = 7\n") && shown.contains("delay = \"40ms\""),
        "{shown}"
    );
    let file = directory.path().join("shown.toml");
    std::fs::write(&file, &shown).unwrap();
    let again = quiver_ok(&["bench", "--scenario", file.to_str().unwrap(), "--show"]);
    assert_eq!(shown, again);
    let file = directory.path().join("bad.toml");
    std::fs::write(&file, "# A typo.\nrows = 5\ndevises = 3\n").unwrap();
    let output = quiver(&["bench", "--scenario", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("bad.toml:3:") && said.contains("devises"),
        "{said}"
    );
    let nowhere = directory.path().to_str().unwrap();
    let output = quiver(&["bench", "--data-dir", nowhere]);
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--serve"));
}
