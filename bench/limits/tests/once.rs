//! Everything is measured once, very briefly, so that none of it rots. The figures say nothing.

use std::{fs, process::Command};

#[test]
fn every_limit_is_measured_and_reported() {
    let directory = tempfile::TempDir::new().unwrap();
    let json = directory.path().join("limits.json");
    let status = Command::new(env!("CARGO_BIN_EXE_quiver-bench-limits"))
        .args(["all", "--seconds", "0.1", "--warm-up", "0.1"])
        .args(["--connections", "2", "--packet-connections", "4"])
        .args(["--messages", "2", "--flush-rows", "4000"])
        .args(["--compression", "lz4"])
        .arg("--directory")
        .arg(directory.path())
        .arg("--json")
        .arg(&json)
        .status()
        .unwrap();
    assert!(status.success());

    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    for stage in [
        "decode",
        "append",
        "sort",
        "parquet",
        "quic",
        "bare pipeline",
        "composed limit",
    ] {
        let of_stage: Vec<_> = rows.iter().filter(|row| row["stage"] == stage).collect();
        assert_eq!(of_stage.len(), 2, "{stage}: once for each scenario");
        for row in of_stage {
            assert!(row["points_per_second"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "only the report is left"
    );
}
