//! Peers in Python.

use std::{io::Write, path::PathBuf, process::Command};

/// Directory of the Python programs.
fn programs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// The interpreter that has the peers; `None`, said in the log of skipped tests, if there is none.
pub fn interpreter(test: &str) -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("QUIVER_TEST_PYTHON") {
        return Some(PathBuf::from(python));
    }
    assert!(
        std::env::var_os("QUIVER_TEST_REQUIRE_PEERS").is_none(),
        "{test} needs Python with the packages of tests/python/requirements.txt: run cargo xtask test"
    );
    let line = format!("skipped: {test}: python missing\n");
    eprint!("{line}");
    if let Some(log) = std::env::var_os("QUIVER_TEST_SKIP_LOG") {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    None
}

/// Runs a program; what it printed, if it succeeded.
#[track_caller]
pub fn run(python: &PathBuf, program: &str, args: &[&str]) -> String {
    let output = Command::new(python)
        .arg(programs().join(program))
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
