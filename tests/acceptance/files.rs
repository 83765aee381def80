//! Real files over QUIC: row for row what was sent, what SQL returns, and what readers that know
//! nothing of Quiver find in the archive.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    python,
    server::{Server, quiver, quiver_ok},
};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name)
}

const FILES: [&str; 3] = [
    "nab/rogue_agent_key_hold.csv",
    "nab/exchange-2_cpc_results.csv",
    "smap/A-6.csv",
];

/// (microseconds, value) of each row of a CSV of two columns, read without any of our code's help.
fn rows_of(name: &str) -> Vec<(i64, f64)> {
    let text = std::fs::read_to_string(data(name)).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let (time, value) = line.split_once(',').unwrap();
            (micros(time), value.parse().unwrap())
        })
        .collect()
}

/// `YYYY-MM-DD HH:MM:SS` as microseconds since 1970, UTC (days by the civil calendar's formula).
fn micros(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60_000_000 + number(17..19) * 1_000_000
}

fn parse(lines: &[String]) -> Vec<(i64, f64)> {
    lines
        .iter()
        .map(|line| {
            let (time, value) = line.split_once(',').unwrap();
            (time.parse().unwrap(), value.parse().unwrap())
        })
        .collect()
}

fn send(server: &Server, file: &str, device: &str) -> String {
    let path = data(file);
    quiver_ok(&[
        "send",
        "--server",
        &server.quic().to_string(),
        "--data-dir",
        server.data(),
        "--stream",
        "measured",
        "--device",
        device,
        path.to_str().unwrap(),
    ])
}

fn stored(server: &Server, device: &str) -> Vec<(i64, f64)> {
    let sql = format!(
        "SELECT CAST(arrow_cast(ts, 'Timestamp(Microsecond, None)') AS BIGINT), value FROM measured WHERE device = '{device}' ORDER BY position"
    );
    parse(&server.sql(&sql))
}

#[test]
fn what_was_sent_is_what_sql_and_every_reader_return() {
    let mut server = Server::start(&["--enroll-unknown", "--flush-age", "1s"]);
    let mut sent = BTreeMap::new();
    for (index, file) in FILES.into_iter().enumerate() {
        let device = format!("sensor_{index}");
        send(&server, file, &device);
        assert_eq!(stored(&server, &device), rows_of(file), "{file}, hot");
        sent.insert(device, rows_of(file));
    }

    // The same file for another device is other data; twice for one device is once.
    send(&server, FILES[0], "another");
    send(&server, FILES[0], "sensor_0");
    sent.insert("another".to_owned(), rows_of(FILES[0]));
    for (device, rows) in &sent {
        assert_eq!(
            &stored(&server, device),
            rows,
            "{device}, after sending again"
        );
    }
    server.audit();

    // Stopped: everything is in the archive, and the idle directory answers the same.
    server.stop();
    for (device, rows) in &sent {
        assert_eq!(&stored(&server, device), rows, "{device}, idle");
    }
    server.audit();
    quiver_ok(&["archive", "check", "--data-dir", server.data()]);

    let Some(python) =
        python::interpreter("files::what_was_sent_is_what_sql_and_every_reader_return")
    else {
        return;
    };
    let table = format!("{}/archive/measured", server.data());
    for reader in ["deltalake", "duckdb", "polars", "pyarrow"] {
        let text = python::run(
            &python,
            "read_archive.py",
            &[reader, &table, "device", "ts", "value"],
        );
        let mut found: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        for line in text.lines() {
            let (device, rest) = line.split_once(',').unwrap();
            found
                .entry(device.to_owned())
                .or_default()
                .extend(parse(&[rest.to_owned()]));
        }
        assert!(found == sent, "{reader} reads other rows than were sent");
    }

    // Compaction changes files, not rows.
    quiver_ok(&["archive", "compact", "--data-dir", server.data()]);
    for (device, rows) in &sent {
        assert_eq!(&stored(&server, device), rows, "{device}, compacted");
    }
    let text = python::run(&python, "read_archive.py", &["duckdb", &table, "ts"]);
    assert_eq!(
        text.lines().count(),
        sent.values().map(Vec::len).sum::<usize>()
    );
}

#[test]
fn an_interrupted_send_goes_on_where_it_was() {
    let server = Server::start(&["--enroll-unknown"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.csv");
    let mut text = String::from("ts,value\n");
    for row in 0..120_000 {
        text.push_str(&format!("{},{}\n", 1_700_000_000_000_i64 + row, row % 977));
    }
    std::fs::write(&path, text).unwrap();
    let quic = server.quic().to_string();
    let args = [
        "send",
        "--server",
        &quic,
        "--data-dir",
        server.data(),
        "--stream",
        "long",
        "--device",
        "d",
        path.to_str().unwrap(),
    ];
    let mut child = std::process::Command::new(crate::server::binary())
        .args(args)
        .spawn()
        .unwrap();
    // Somewhere in the middle, wherever that is on this machine today.
    for _ in 0..2_000 {
        let rows = server
            .sql("SELECT table_name FROM information_schema.tables WHERE table_name = 'long'");
        if !rows.is_empty() && server.number("SELECT count(*) FROM long") > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = child.kill();
    child.wait().unwrap();
    quiver_ok(&args);
    assert_eq!(server.number("SELECT count(*) FROM long"), 120_000);
    assert_eq!(
        server.number("SELECT count(DISTINCT ts) FROM long"),
        120_000
    );
    server.audit();
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_line() {
    let server = Server::start(&["--enroll-unknown"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.csv");
    std::fs::write(&path, "ts,value\n2026-01-01T00:00:00Z,1\nyesterday,2\n").unwrap();
    let output = quiver(&[
        "send",
        "--server",
        &server.quic().to_string(),
        "--data-dir",
        server.data(),
        "--stream",
        "bad",
        "--device",
        "d",
        path.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(65));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("bad.csv") && message.contains('3') && message.contains("yesterday"),
        "{message}"
    );
}

fn csv(directory: &std::path::Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_device_that_is_not_enrolled_is_named_and_its_file_can_be_sent_once_it_is() {
    let mut server = Server::start(&[]);
    let path = data(FILES[0]);
    let arguments = |server: &Server| {
        ["send", "--data-dir", server.data(), "--stream", "measured"]
            .iter()
            .chain(&["--device", "press_9", path.to_str().unwrap()])
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let send = |server: &Server| {
        let arguments = arguments(server);
        quiver(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = send(&server);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(65), "{message}");
    assert!(
        message.contains("quiver devices enroll press_9"),
        "{message}"
    );
    quiver_ok(&["devices", "enroll", "press_9", "--data-dir", server.data()]);
    let sent = send(&server);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(stored(&server, "press_9"), rows_of(FILES[0]));
    server.audit();
    server.stop();
}

#[test]
fn rows_that_are_refused_one_by_one_are_not_said_to_be_stored_in_this_run_or_the_next() {
    let mut server = Server::start(&["--enroll-unknown"]);
    let directory = tempfile::tempdir().unwrap();
    let file = csv(
        directory.path(),
        "clock.csv",
        "ts,value\n2026-01-01T00:00:00Z,1\n2061-01-01T00:00:00Z,2\n1961-01-01T00:00:00Z,3\n2026-01-01T00:00:01Z,4\n",
    );
    let send = |server: &Server, file: &str| {
        let output = quiver(&[
            "send",
            "--data-dir",
            server.data(),
            "--stream",
            "clocks",
            "--device",
            "d",
            file,
        ]);
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (said, reasons) = send(&server, &file);
    assert!(
        said.contains("4 rows settled: 2 stored, 0 were there already, 2 refused"),
        "{said}"
    );
    assert!(
        reasons.contains("1 timestamp_range, 1 future_timestamp, quarantined"),
        "{reasons}"
    );
    let (again, _) = send(&server, &file);
    assert!(
        again.contains("4 rows settled: 0 stored, 2 were there already, 2 refused"),
        "{again}"
    );
    // And the counts survive a crash.
    server.kill();
    server.restart();
    let (after, _) = send(&server, &file);
    assert_eq!(after, again);
    assert_eq!(
        server.number("SELECT count(*) FROM rejects WHERE quarantined"),
        1
    );
}

#[test]
fn a_file_with_a_wrong_value_far_in_is_refused_before_a_row_is_stored() {
    let server = Server::start(&["--enroll-unknown"]);
    let directory = tempfile::tempdir().unwrap();
    let rows = |wrong: &str| -> String {
        let rows = (0..30_000).map(|row| {
            let value = if row == 25_000 { wrong } else { "1" };
            format!("{row},{value}\n")
        });
        format!("ts,value\n{}", rows.collect::<String>())
    };
    let arguments = |file: &str| -> Vec<String> {
        let to = ["send", "--data-dir", server.data(), "--stream", "late"];
        let of = ["--device", "d", "--timestamp-format", "s"];
        to.iter()
            .chain(&of)
            .chain(&[file])
            .map(ToString::to_string)
            .collect()
    };
    let send = |file: &str| {
        let arguments = arguments(file);
        quiver(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = send(&csv(directory.path(), "late.csv", &rows("oops")));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(65), "{message}");
    assert!(message.contains("line 25002"), "{message}");
    let stray = "timestamp,value,text\n2024-01-01 00:00:00,1,\"oops\n".to_owned()
        + &"2024-01-01 00:00:00,1,x\n".repeat(50);
    let refused = send(&csv(directory.path(), "stray.csv", &stray));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(65), "{message}");
    assert!(
        message.contains("stray.csv, line 2") && message.contains("quote"),
        "{message}"
    );

    // Mended it is another file; of the first nothing was stored.
    let mended = send(&csv(directory.path(), "late.csv", &rows("2")));
    assert!(mended.status.success(), "{mended:?}");
    assert_eq!(server.number("SELECT count(*) FROM late"), 30_000);
}

#[test]
fn a_later_file_may_have_fractions_and_a_damaged_one_is_no_panic() {
    let server = Server::start(&["--enroll-unknown"]);
    let directory = tempfile::tempdir().unwrap();
    let send = |file: &str| {
        let to = ["send", "--data-dir", server.data(), "--stream", "mixed"];
        quiver(&[&to[..], &["--device", "d", file]].concat())
    };
    // Whole numbers of a CSV file are float64, so that these go into one stream.
    for (name, value) in [("whole.csv", "1"), ("fraction.csv", "2.5")] {
        let text = format!("ts,value\n2026-01-01T00:00:00Z,{value}\n");
        let sent = send(&csv(directory.path(), name, &text));
        assert!(sent.status.success(), "{sent:?}");
    }
    assert_eq!(
        server.number("SELECT count(*) FROM mixed WHERE value IN (1.0, 2.5)"),
        2
    );
    // A message whose metadata are not valid, and one that announces 2 GiB of them.
    for content in [
        &b"\xff\xff\xff\xff\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    ] {
        let path = directory.path().join("damaged.arrows");
        std::fs::write(&path, content).unwrap();
        let refused = send(path.to_str().unwrap());
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(65), "{message}");
        assert!(
            message.contains("damaged.arrows") && !message.contains("panicked"),
            "{message}"
        );
    }
}

#[test]
fn a_token_is_enough_where_the_engine_has_no_files() {
    let server = Server::start(&["--tokens"]);
    let enrolled = quiver_ok(&[
        "devices",
        "enroll",
        "press_9",
        "--token",
        "--data-dir",
        server.data(),
    ]);
    let token = enrolled
        .lines()
        .find_map(|line| line.strip_prefix("token "))
        .unwrap()
        .to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    let ca = elsewhere.path().join("server-ca.pem");
    let issued = server.issue("device", "other", &[]);
    std::fs::copy(issued.join("ca.pem"), &ca).unwrap();
    let quic = server.quic().to_string();
    let path = data(FILES[0]);
    let send = |credential: &[&str]| {
        let to = ["send", "--server", &quic, "--stream", "measured"];
        let nothing = elsewhere.path().join("nothing");
        let of = ["--device", "press_9", "--data-dir"];
        let files = [nothing.to_str().unwrap(), path.to_str().unwrap()];
        quiver(&[&to, credential, &of, &files].concat())
    };
    let ca = ca.to_str().unwrap();
    let alone = send(&["--ca", ca]);
    assert_eq!(alone.status.code(), Some(64), "{alone:?}");
    let sent = send(&["--ca", ca, "--token", &token]);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(stored(&server, "press_9"), rows_of(FILES[0]));
}

#[test]
fn why_nothing_is_taken_is_said_once() {
    let server = Server::start(&["--enroll-unknown", "--disk-reserve", "100TiB"]);
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("said");
    let path = data(FILES[0]);
    let mut child = std::process::Command::new(crate::server::binary())
        .args(["send", "--data-dir", server.data(), "--stream", "full"])
        .args(["--device", "d", path.to_str().unwrap()])
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let text = || std::fs::read_to_string(&said).unwrap();
    for _ in 0..200 {
        if !text().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Long enough for it to be paused a second time.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let _ = child.kill();
    child.wait().unwrap();
    let text = text();
    assert!(text.contains("takes no rows for now"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// Files that lie in a stream's directory, listed or not.
fn parquet_files(server: &Server, stream: &str) -> usize {
    let mut directories = vec![server.path("archive").join(stream)];
    let mut count = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                directories.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "parquet")
            {
                count += 1;
            }
        }
    }
    count
}

fn vacuum(server: &Server, more: &[&str]) -> String {
    let args = ["archive", "vacuum", "--data-dir", server.data()];
    quiver_ok(&[&args, more].concat())
}

/// Compacts and vacuums; `files` lie there before, in one table.
fn compact_and_vacuum(server: &Server, files: usize, rows: u64) {
    let count = "SELECT count(*) FROM measured";
    assert_eq!(parquet_files(server, "measured"), files);
    quiver_ok(&["archive", "compact", "--data-dir", server.data()]);
    let listed = quiver_ok(&[
        "archive",
        "files",
        "--data-dir",
        server.data(),
        "--json",
        "measured",
    ]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    assert!(listed.len() < files, "{listed:?}");
    let both = parquet_files(server, "measured");
    assert_eq!(both, files + listed.len(), "the replaced files stay");

    let kept = vacuum(server, &[]);
    assert!(kept.starts_with("0 files"), "a week has not passed: {kept}");
    let dry = vacuum(server, &["--older-than", "0s", "--dry-run", "measured"]);
    assert_eq!(
        dry.lines().filter(|line| line.contains(".parquet")).count(),
        files,
        "{dry}"
    );
    assert!(dry.contains("would be deleted"), "{dry}");
    assert_eq!(parquet_files(server, "measured"), both, "a dry run");

    let deleted = vacuum(server, &["--older-than", "0s", "--json"]);
    let deleted: serde_json::Value = serde_json::from_str(&deleted).unwrap();
    let of_stream = |file: &&serde_json::Value| file["stream"] == "measured";
    assert_eq!(
        deleted["files"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of_stream)
            .count(),
        files
    );
    assert_eq!(parquet_files(server, "measured"), listed.len());
    assert_eq!(server.number(count), rows);
    quiver_ok(&["archive", "check", "--data-dir", server.data()]);
    server.audit();
}

#[test]
fn replaced_files_are_deleted_by_vacuum_on_a_running_engine_and_on_an_idle_directory() {
    let mut server = Server::start(&["--enroll-unknown"]);
    let rows = rows_of(FILES[0]).len() as u64;
    // Each stop archives what was sent: a file for each day.
    send(&server, FILES[0], "first");
    server.stop();
    let of_one_send = parquet_files(&server, "measured");
    server.restart();
    send(&server, FILES[0], "second");
    server.stop();
    server.restart();
    compact_and_vacuum(&server, 2 * of_one_send, 2 * rows);
    let compacted = parquet_files(&server, "measured");
    send(&server, FILES[0], "third");
    server.stop();
    compact_and_vacuum(&server, compacted + of_one_send, 3 * rows);
    let unknown = quiver(&["archive", "vacuum", "--data-dir", server.data(), "nothing"]);
    assert_eq!(unknown.status.code(), Some(65));
}
