//! Decimal fields: declared before rows bring them, stored exactly, refused where they do not fit;
//! and the archive that merges its files by itself while queries go on.

use std::time::{Duration, Instant};

use crate::{
    python,
    server::{Server, quiver, quiver_ok},
};

const ROWS: i64 = 6_000;

fn file(server: &Server, name: &str, rows: impl Iterator<Item = (i64, String)>) -> String {
    let path = server.path(name);
    let text: String = rows
        .map(|(row, value)| format!("{},{value}\n", 1_700_000_000_000 + row))
        .collect();
    std::fs::write(&path, format!("ts,value\n{text}")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn hundredths(scaled: i64) -> String {
    let sign = if scaled < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", scaled.abs() / 100, scaled.abs() % 100)
}

fn archived_files(server: &Server, stream: &str) -> usize {
    let listed = quiver_ok(&["archive", "files", "--data-dir", server.data(), "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    listed
        .iter()
        .filter(|file| file["stream"] == stream)
        .count()
}

#[test]
fn declared_decimals_are_exact_everywhere_and_what_does_not_fit_is_refused() {
    let mut server = Server::start(&["--enroll-unknown"]);
    let declare = |word: &str| {
        let field = format!("value={word}");
        quiver(&[
            "streams",
            "declare",
            "scaled",
            &field,
            "--data-dir",
            server.data(),
        ])
    };
    let told = declare("decimal(2)");
    assert!(told.status.success(), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).contains("decimal(2)"));
    assert!(declare("decimal(2)").status.success(), "twice is once");
    for wrong in ["decimal(3)", "float64x", "utf8"] {
        assert!(!declare(wrong).status.success(), "{wrong}");
    }

    let good = (0..ROWS).map(|row| (row, hundredths(row - ROWS / 2)));
    let wrong = [(ROWS, "0.125".to_owned()), (ROWS + 1, "1e300".to_owned())];
    let path = file(&server, "scaled.csv", good.chain(wrong));
    let args = [
        "send",
        "--data-dir",
        server.data(),
        "--stream",
        "scaled",
        "--device",
        "meter",
        &path,
    ];
    let sent = quiver(&args);
    assert_eq!(
        sent.status.code(),
        Some(65),
        "two rows are refused: {sent:?}"
    );

    let all = |server: &Server| server.sql("SELECT value FROM scaled ORDER BY position");
    let expected: Vec<f64> = (0..ROWS)
        .map(|row| hundredths(row - ROWS / 2).parse().unwrap())
        .collect();
    let same = |lines: Vec<String>| {
        let found: Vec<f64> = lines.iter().map(|line| line.parse().unwrap()).collect();
        found == expected
    };
    assert!(same(all(&server)), "in memory");
    assert_eq!(
        server.number("SELECT sum(rows) FROM rejects WHERE code = 'decimal_scale'"),
        2
    );
    server.audit();
    server.stop();
    assert!(same(all(&server)), "archived");
    assert_eq!(
        server.number("SELECT count(*) FROM scaled WHERE value = 0.07"),
        1
    );
    assert_eq!(
        server.number("SELECT count(*) FROM scaled WHERE value >= 0 AND value < 1"),
        100
    );
    server.audit();
    quiver_ok(&["archive", "check", "--data-dir", server.data()]);
    server.restart();
    assert!(same(all(&server)), "after a restart");

    let name = "decimals::declared_decimals_are_exact_everywhere_and_what_does_not_fit_is_refused";
    let Some(python) = python::interpreter(name) else {
        return;
    };
    let table = format!("{}/archive/scaled", server.data());
    for reader in ["deltalake", "duckdb", "polars", "pyarrow"] {
        let text = python::run(&python, "read_archive.py", &[reader, &table, "value"]);
        assert!(same(text.lines().map(str::to_owned).collect()), "{reader}");
    }
}

#[test]
fn small_files_are_merged_while_the_engine_runs() {
    let server = Server::start(&[
        "--enroll-unknown",
        "--flush-bytes",
        "1",
        "--compact-every",
        "100ms",
    ]);
    for part in 0..12_i64 {
        let rows = (part * 100..(part + 1) * 100).map(|row| (row, row.to_string()));
        let path = file(&server, &format!("part{part}.csv"), rows);
        quiver_ok(&[
            "send",
            "--data-dir",
            server.data(),
            "--stream",
            "parts",
            "--device",
            "meter",
            &path,
        ]);
        let count = server.number("SELECT count(DISTINCT position) FROM parts");
        assert_eq!(count, (part as u64 + 1) * 100);
    }
    let begun = Instant::now();
    while archived_files(&server, "parts") > 8 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing is merged"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        server.number("SELECT count(DISTINCT position) FROM parts"),
        1_200
    );
    server.audit();
    let text = quiver_ok(&["archive", "suggest", "parts", "--data-dir", server.data()]);
    assert!(text.contains("parts"), "{text}");
}
