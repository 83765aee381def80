//! Verbs and engines that want the same data directory at the same time, and results that nobody
//! takes.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::server::{Server, binary, quiver};

/// A verb that keeps an idle directory locked for about so long.
fn busy(data: &str, time: &str) -> Child {
    let endless =
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r";
    let child = Command::new(binary())
        .args(["sql", "--data-dir", data, "--query-timeout", time, endless])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    child
}

#[test]
fn verbs_and_a_start_wait_for_a_verb_that_is_at_work() {
    let mut server = Server::start(&[]);
    server.stop();
    let mut first = busy(server.data(), "3s");
    assert_eq!(server.number("SELECT 7"), 7, "the second waits");
    first.wait().unwrap();

    let mut first = busy(server.data(), "4s");
    server.restart();
    first.wait().unwrap();
    assert_eq!(server.number("SELECT 7"), 7);
    server.stop();

    let mut first = busy(server.data(), "20s");
    let output = quiver(&["audit", "--data-dir", server.data()]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{message}");
    for part in ["another quiver sql", &first.id().to_string(), "at work"] {
        assert!(message.contains(part), "{message}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_verb_says_that_an_engine_is_starting() {
    let mut server = Server::start(&[]);
    server.stop();
    // A start reads this file on its way; as a pipe it holds the start up, with the lock taken.
    let token = server.path("http-token");
    std::fs::remove_file(&token).unwrap();
    let made = Command::new("mkfifo").arg(&token).status().unwrap();
    assert!(made.success());
    let mut engine = Command::new(binary())
        .args(["serve", "--data-dir", server.data()])
        .args(["--quic", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let output = quiver(&["sql", "--data-dir", server.data(), "SELECT 1"]);
    let message = String::from_utf8(output.stderr).unwrap();
    engine.kill().unwrap();
    engine.wait().unwrap();
    assert_eq!(output.status.code(), Some(69), "{message}");
    assert!(message.contains("an engine (process"), "{message}");
}

#[test]
fn a_result_that_is_not_wanted_any_more_is_no_failure_and_a_full_disk_is() {
    let mut server = Server::start(&[]);
    let many = "SELECT value FROM generate_series(1, 2000000)";
    for is_running in [true, false] {
        if !is_running {
            server.stop();
        }
        let arguments = ["sql", "--data-dir", server.data(), "--format", "csv", many];
        let mut child = Command::new(binary())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut head = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut head).unwrap();
        assert_eq!(head, "value\n");
        let mut message = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut message)
            .unwrap();
        let status = child.wait().unwrap();
        assert!(
            status.success() && message.is_empty(),
            "{status}: {message}"
        );

        for sql in [many, "SELECT 1"] {
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let output = Command::new(binary())
                .args(["sql", "--data-dir", server.data(), "--format", "csv", sql])
                .stdout(full)
                .output()
                .unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(74), "{message}");
            assert!(message.contains("No space left"), "{message}");
        }
    }
}
