//! What the command line says and how it ends.

use crate::server::{Server, quiver, quiver_ok};

#[test]
fn demo_ends_by_itself_and_what_it_stored_can_be_proved() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let text = quiver_ok(&[
        "demo",
        "--devices",
        "5",
        "--rate",
        "500",
        "--duration",
        "3s",
        "--data-dir",
        data,
    ]);
    assert!(
        text.contains("stored") && text.contains("quiver sql --data-dir"),
        "{text}"
    );
    let count = quiver_ok(&[
        "sql",
        "--data-dir",
        data,
        "--format",
        "csv",
        "SELECT count(*) FROM readings",
    ]);
    assert!(
        count.lines().nth(1).unwrap().parse::<u64>().unwrap() > 100,
        "{count}"
    );
    quiver_ok(&["audit", "--data-dir", data]);
}

#[test]
fn exit_codes_say_what_was_wrong() {
    let nowhere = tempfile::tempdir().unwrap();
    let nowhere = nowhere.path().to_str().unwrap();
    assert_eq!(quiver(&["no-such-verb"]).status.code(), Some(64));
    assert_eq!(
        quiver(&["sql", "--data-dir", nowhere, "SELECT 1"])
            .status
            .code(),
        Some(69)
    );
    assert_eq!(
        quiver(&["serve", "--data-dir", nowhere, "--quic", "0.0.0.0:0"])
            .status
            .code(),
        Some(78)
    );
    assert_eq!(
        quiver(&["serve", "--data-dir", nowhere, "--http", "0.0.0.0:0"])
            .status
            .code(),
        Some(78)
    );
    let server = Server::start(&[]);
    let second = quiver(&[
        "serve",
        "--data-dir",
        server.data(),
        "--quic",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(
        second.status.code(),
        Some(69),
        "a second engine on one data directory"
    );
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"));
    assert_eq!(
        quiver(&["sql", "--data-dir", server.data(), "SELECT * FROM nothing"])
            .status
            .code(),
        Some(65)
    );
}

#[test]
fn every_verb_shows_an_example() {
    for verb in [
        "demo", "serve", "send", "sql", "audit", "archive", "bench", "pki", "devices", "version",
    ] {
        let text = quiver_ok(&[verb, "--help"]);
        assert!(text.contains("Example"), "{verb}");
    }
    assert!(quiver_ok(&["version"]).starts_with("quiver 0."));
}

#[test]
fn devices_are_enrolled_listed_and_revoked() {
    let server = Server::start(&[]);
    let data = server.data();
    quiver_ok(&[
        "devices",
        "enroll",
        "truck_1",
        "--data-dir",
        data,
        "--attribute",
        "fleet=north",
    ]);
    let text = quiver_ok(&["devices", "list", "--data-dir", data]);
    assert!(
        text.contains("truck_1") && text.contains("fleet=north"),
        "{text}"
    );

    let credential = server.issue("device", "truck_1", &[]);
    let runtime = crate::device::runtime();
    runtime.block_on(async {
        let client = quiver_client::Client::connect(crate::device::options(&server, &credential))
            .await
            .unwrap();
        client.connected().await.unwrap();
        let _handle = client
            .stream("seen")
            .unwrap()
            .send(&crate::device::numbered(0, 3))
            .await
            .unwrap();
        client.flush().await.unwrap();
        quiver_ok(&["devices", "revoke", "truck_1", "--data-dir", data]);
        // The live connection is closed, and the next one refused.
        let refused = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            let _handle = client
                .stream("seen")
                .unwrap()
                .send(&crate::device::numbered(3, 6))
                .await
                .unwrap();
            client.flush().await
        })
        .await;
        assert!(
            !matches!(refused, Ok(Ok(()))),
            "a revoked device was served"
        );
    });
    assert!(quiver_ok(&["devices", "show", "truck_1", "--data-dir", data]).contains("revoked"));
    assert_eq!(server.number("SELECT count(*) FROM seen"), 3);
    // Unknown devices are refused unless the server enrolls them by itself.
    let stranger = server.issue("device", "stranger", &[]);
    runtime.block_on(async {
        let client = quiver_client::Client::connect(crate::device::options(&server, &stranger))
            .await
            .unwrap();
        assert!(client.connected().await.is_err());
    });
}

#[test]
fn a_token_stands_in_for_a_certificate_where_the_server_allows_it() {
    let server = Server::start(&["--tokens"]);
    let data = server.data();
    let enrolled = quiver_ok(&["devices", "enroll", "tok_1", "--token", "--data-dir", data]);
    let token = enrolled
        .lines()
        .find_map(|line| line.strip_prefix("token "))
        .unwrap();
    let file = server.path("rows.csv");
    std::fs::write(
        &file,
        "ts,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:01Z,2\n",
    )
    .unwrap();
    let send = |token: &str| {
        quiver(&[
            "send",
            "--data-dir",
            data,
            "--token",
            token,
            "--device",
            "tok_1",
            "--stream",
            "tokens",
            file.to_str().unwrap(),
        ])
    };
    let wrong = send("0123456789abcdef");
    assert_eq!(
        wrong.status.code(),
        Some(69),
        "{}",
        String::from_utf8_lossy(&wrong.stderr)
    );
    let right = send(token);
    assert!(
        right.status.success(),
        "{}",
        String::from_utf8_lossy(&right.stderr)
    );
    assert_eq!(
        server.number("SELECT count(*) FROM tokens WHERE device = 'tok_1'"),
        2
    );
}

#[test]
fn rows_that_are_refused_or_quarantined_are_kept_with_their_reason_and_accounted_for() {
    let mut server = Server::start(&["--enroll-unknown"]);
    let file = server.path("rows.csv");
    std::fs::write(
        &file,
        "ts,value\n2026-01-01T00:00:00Z,1\n2099-01-01T00:00:00Z,2\n1969-01-01T00:00:00Z,3\n2026-01-01T00:00:03Z,4\n",
    )
    .unwrap();
    let data = server.data().to_owned();
    let output = quiver(&[
        "send",
        "--data-dir",
        &data,
        "--device",
        "clock_1",
        "--stream",
        "clocks",
        file.to_str().unwrap(),
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for _ in 0..2 {
        assert_eq!(server.number("SELECT count(*) FROM clocks"), 2);
        let rejects = "SELECT device, code, quarantined, rows FROM rejects ORDER BY position";
        assert_eq!(
            server.sql(rejects),
            [
                "clock_1,future_timestamp,true,1",
                "clock_1,timestamp_range,false,1"
            ]
        );
        server.audit();
        // And again when all of it came back from the log.
        server.kill();
        server.restart();
    }
}
