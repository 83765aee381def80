//! Files of the archive that are damaged or gone: what can still be said is said, and the file is
//! named.

use std::path::{Path, PathBuf};

use crate::server::{Server, quiver, quiver_ok};

/// Data files of a stream.
fn parquet_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            found.extend(parquet_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            found.push(path);
        }
    }
    found
}

fn send(server: &Server, stream: &str, device: &str, rows: u32) {
    let file = server.path(&format!("{stream}-{device}.csv"));
    let text: String = (0..rows)
        .map(|row| format!("2026-01-01T00:00:{row:02}Z,{row}\n"))
        .collect();
    std::fs::write(&file, format!("ts,value\n{text}")).unwrap();
    quiver_ok(&[
        "send",
        "--data-dir",
        server.data(),
        "--stream",
        stream,
        "--device",
        device,
        file.to_str().unwrap(),
    ]);
}

/// The cells of the line about a device, after its name.
fn line_of<'a>(text: &'a str, device: &str) -> Vec<&'a str> {
    let name = format!("device:{device}");
    let line = text
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(name.as_str()))
        .unwrap_or_else(|| panic!("no line of {device} in {text}"));
    line.split_whitespace().collect()
}

/// Audits with the file of one stream harmed, on the idle directory and on a running engine.
fn audit_names_the_file(harm: impl Fn(&Path)) {
    let mut server = Server::start(&["--enroll-unknown"]);
    send(&server, "whole", "a", 7);
    send(&server, "broken", "b", 5);
    send(&server, "whole", "c", 3);
    send(&server, "broken", "c", 2);
    // Everything is archived.
    server.stop();
    server.audit();
    let files = parquet_files(&server.path("archive").join("broken"));
    let [file] = files.as_slice() else {
        panic!("{files:?}");
    };
    harm(file);
    let name = file.file_name().unwrap().to_str().unwrap();

    for state in ["idle", "running"] {
        if state == "running" {
            server.restart();
        }
        let output = quiver(&["audit", "--data-dir", server.data()]);
        let (text, message) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert_eq!(output.status.code(), Some(65), "{state}: {text}{message}");
        assert!(!message.contains("panicked"), "{state}: {message}");
        // received, stored, found
        assert_eq!(
            line_of(&text, "a")[..5],
            ["✓", "device:a", "7", "7", "7"],
            "{state}"
        );
        assert_eq!(
            line_of(&text, "b")[..5],
            ["✗", "device:b", "5", "5", "0"],
            "{state}"
        );
        assert_eq!(
            line_of(&text, "c")[..5],
            ["✗", "device:c", "5", "5", "3"],
            "{state}"
        );
        let fault = text.lines().find(|line| line.contains(name));
        assert!(
            fault.is_some_and(|line| line.starts_with('✗') && line.contains("stream broken")),
            "{state}: {text}"
        );
        let json = quiver(&["audit", "--json", "--data-dir", server.data()]);
        assert_eq!(json.status.code(), Some(65));
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert!(
            json["unreadable"][0].as_str().unwrap().contains(name),
            "{json}"
        );
    }
}

#[test]
fn an_audit_names_the_file_that_is_missing_and_says_what_it_can() {
    audit_names_the_file(|file| std::fs::remove_file(file).unwrap());
}

#[test]
fn an_audit_names_the_file_that_is_damaged_and_says_what_it_can() {
    // The end of a Parquet file says where everything is.
    audit_names_the_file(|file| {
        let length = std::fs::metadata(file).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(length / 2).unwrap();
    });
}

#[test]
fn an_audit_names_the_file_that_is_empty_and_says_what_it_can() {
    audit_names_the_file(|file| std::fs::write(file, "").unwrap());
}

#[test]
fn a_table_whose_log_cannot_be_read_is_named_by_audit_and_check() {
    let mut server = Server::start(&["--enroll-unknown"]);
    send(&server, "whole", "a", 7);
    send(&server, "broken", "b", 5);
    server.stop();
    let log = server.path("archive").join("broken").join("_delta_log");
    for entry in std::fs::read_dir(log).unwrap() {
        std::fs::write(entry.unwrap().path(), "{\"add\":").unwrap();
    }
    for state in ["idle", "running"] {
        if state == "running" {
            server.restart();
        }
        for verb in [&["audit"][..], &["archive", "check"]] {
            let output = quiver(&[verb, &["--data-dir", server.data()]].concat());
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(65), "{state} {verb:?}: {text}");
            let fault = text
                .lines()
                .find(|line| line.starts_with('✗') && line.contains("broken"));
            assert!(
                fault.is_some_and(|line| line.contains("cannot be")),
                "{state} {verb:?}: {text}"
            );
        }
        let audit = quiver(&["audit", "--data-dir", server.data()]);
        let text = String::from_utf8(audit.stdout).unwrap();
        assert_eq!(
            line_of(&text, "a")[..5],
            ["✓", "device:a", "7", "7", "7"],
            "{state}"
        );
    }
}

#[test]
fn files_without_a_table_are_counted_and_deleted_only_if_the_stream_is_named() {
    let mut server = Server::start(&["--enroll-unknown"]);
    send(&server, "whole", "a", 7);
    server.stop();
    // What a first flush leaves that dies before its commit.
    let archive = server.path("archive");
    let left = archive.join("died").join("quiver_day=2026-01-01");
    std::fs::create_dir_all(&left).unwrap();
    for file in parquet_files(&archive.join("whole")) {
        std::fs::copy(&file, left.join(file.file_name().unwrap())).unwrap();
    }
    let vacuum = ["archive", "vacuum", "--older-than", "0s", "--data-dir"];
    for state in ["idle", "running"] {
        if state == "running" {
            server.restart();
        }
        let checked = quiver_ok(&["archive", "check", "--data-dir", server.data()]);
        assert!(checked.contains("1 orphans"), "{state}: {checked}");
        let text = quiver_ok(&[&vacuum[..], &[server.data()]].concat());
        assert!(
            text.contains("died has 1 files and no table"),
            "{state}: {text}"
        );
    }
    let text = quiver_ok(&[&vacuum[..], &[server.data(), "died"]].concat());
    assert!(text.contains("1 files"), "{text}");
    assert_eq!(parquet_files(&archive.join("died")).len(), 0);
    let gone = quiver(&[&vacuum[..], &[server.data(), "died"]].concat());
    assert_eq!(gone.status.code(), Some(65));
    server.audit();
}
