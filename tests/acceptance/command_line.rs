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
fn a_demo_whose_rows_are_refused_says_why_and_fails_soon() {
    // More than any disk has free.
    let refused = [
        "--disk-reserve",
        "900TiB",
        "--devices",
        "3",
        "--rate",
        "300",
    ];
    for duration in [&["--duration", "1s"][..], &[]] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        let begun = std::time::Instant::now();
        let output = quiver(&[&["demo", "--data-dir", data], &refused[..], duration].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{message}");
        // Which of its two streams is closed last is not said.
        for part in ["it closes stream ", "disk is nearly full", "--disk-reserve"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("prove it"), "no success: {text}");
        assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
    }
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
fn memory_for_less_than_one_batch_is_refused_by_every_verb_that_starts_an_engine() {
    let directory = tempfile::tempdir().unwrap();
    let fresh = directory.path().join("fresh");
    let fresh = fresh.to_str().unwrap();
    let mut server = Server::start(&[]);
    server.stop();
    let idle = server.data();
    let local = ["--quic", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    for (verb, data, more) in [
        ("serve", fresh, &local[..]),
        ("demo", fresh, &local[..]),
        ("sql", idle, &["SELECT 1"]),
        ("audit", idle, &[]),
    ] {
        for (flag, memory, parts) in [
            (
                "--ingest-memory",
                "0",
                [
                    "--ingest-memory 0 B",
                    "less than 150.0 MiB",
                    "150MiB or more",
                ],
            ),
            (
                "--ingest-memory",
                "64MiB",
                [
                    "--ingest-memory 64.0 MiB",
                    "less than 150.0 MiB",
                    "150MiB or more",
                ],
            ),
            (
                "--memory",
                "0",
                ["--memory 0 B", "150.0 MiB for rows", "512MiB or more"],
            ),
            (
                "--memory",
                "256MiB",
                [
                    "--memory 256.0 MiB",
                    "64.0 MiB for queries",
                    "512MiB or more",
                ],
            ),
        ] {
            let output = quiver(&[&[verb, "--data-dir", data, flag, memory], more].concat());
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{verb}: {message}");
            for part in parts {
                assert!(message.contains(part), "{verb}: {message}");
            }
        }
    }
    let archive = ["archive", "files", "--data-dir", idle, "--memory", "0"];
    assert_eq!(quiver(&archive).status.code(), Some(78));
    assert!(
        !std::path::Path::new(fresh).exists(),
        "nothing is made before"
    );
}

#[test]
fn every_verb_shows_an_example() {
    for verb in [
        "demo", "serve", "send", "sql", "audit", "archive", "bench", "pki", "devices", "streams",
        "version",
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
    // A token that was revoked stays so when its device is enrolled again.
    quiver_ok(&["devices", "revoke", "tok_1", "--data-dir", data]);
    quiver_ok(&["devices", "enroll", "tok_1", "--data-dir", data]);
    assert_eq!(send(token).status.code(), Some(69));
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
    assert_eq!(output.status.code(), Some(65), "{output:?}");
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

#[test]
fn enrolling_again_changes_what_is_said_and_keeps_the_rest() {
    let server = Server::start(&["--tokens"]);
    let data = server.data();
    let credential = server.issue("device", "truck_1", &[]);
    let shown = quiver_ok(&["pki", "show", credential.join("cert.pem").to_str().unwrap()]);
    let fingerprint = shown
        .lines()
        .find_map(|line| line.strip_prefix("fingerprint "))
        .unwrap();
    let enroll = |more: &[&str]| {
        let args = ["devices", "enroll", "truck_1", "--data-dir", data];
        quiver(&[&args, more].concat())
    };
    let show = || -> serde_json::Value {
        let text = quiver_ok(&["devices", "show", "truck_1", "--data-dir", data]);
        serde_json::from_str(&text).unwrap()
    };

    // As other tools print it: with colons, in capitals.
    let pairs: Vec<&str> = (0..32)
        .map(|byte| &fingerprint[2 * byte..2 * byte + 2])
        .collect();
    let written = pairs.join(":").to_uppercase();
    assert!(
        enroll(&[
            "--fingerprint",
            &written,
            "--token",
            "--gateway",
            "gateway_1",
            "--attribute",
            "fleet=north",
            "--attribute",
            "color=red",
        ])
        .status
        .success()
    );
    let first = show();
    assert_eq!(first["fingerprint"], fingerprint);
    assert!(
        first["token_sha256"].as_str().unwrap().len() == 64,
        "{first}"
    );

    assert!(
        enroll(&["--attribute", "color=blue", "--gateway", "gateway_2"])
            .status
            .success()
    );
    let mut expected = first.clone();
    expected["attributes"]["color"] = "blue".into();
    expected["gateways"] = serde_json::json!(["gateway_1", "gateway_2"]);
    assert_eq!(show(), expected);

    // Revoked and enrolled again it is as it was, but for the token: somebody else may have it.
    let revoked = quiver_ok(&["devices", "revoke", "truck_1", "--data-dir", data]);
    assert!(
        revoked.contains("quiver devices enroll truck_1 --kind device"),
        "{revoked}"
    );
    assert!(enroll(&[]).status.success());
    expected.as_object_mut().unwrap().remove("token_sha256");
    assert_eq!(show(), expected);

    for wrong in [
        "",
        "12",
        &fingerprint[1..],
        &format!("{fingerprint}0"),
        &format!("g{}", &fingerprint[1..]),
    ] {
        let refused = enroll(&["--fingerprint", wrong]);
        assert_eq!(refused.status.code(), Some(65), "{wrong:?}");
        let message = String::from_utf8(refused.stderr).unwrap();
        for part in ["SHA-256", "64 hexadecimal digits", "quiver pki show"] {
            assert!(message.contains(part), "{wrong:?}: {message}");
        }
    }
    assert_eq!(show(), expected, "nothing of what was refused");
}

#[test]
fn what_is_said_of_an_operator_that_may_not_connect_names_the_way_out() {
    let server = Server::start(&["--enroll-unknown"]);
    let data = server.data();
    let file = server.path("rows.csv");
    std::fs::write(&file, "ts,value\n2026-01-01T00:00:00Z,1\n").unwrap();
    let send = || {
        let args = ["send", "--data-dir", data, "--device", "d", "--stream", "s"];
        quiver(&[&args[..], &[file.to_str().unwrap()]].concat())
    };
    let operator = |verb: &str, id: &str| {
        quiver(&[
            "devices",
            verb,
            id,
            "--kind",
            "operator",
            "--data-dir",
            data,
        ])
    };
    let way_out = "quiver devices enroll local --kind operator";
    let revoked = operator("revoke", "local");
    assert!(revoked.status.success());
    assert!(String::from_utf8(revoked.stdout).unwrap().contains(way_out));
    let refused = send();
    assert_eq!(refused.status.code(), Some(69));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains(way_out), "{message}");
    assert!(operator("enroll", "local").status.success());
    assert!(send().status.success());
    for verb in ["revoke", "show"] {
        let unknown = operator(verb, "nobody");
        assert_eq!(unknown.status.code(), Some(65));
        let message = String::from_utf8(unknown.stderr).unwrap();
        assert!(message.contains("quiver devices list"), "{message}");
    }
}

#[test]
fn a_named_file_that_is_not_there_is_a_matter_of_reading() {
    let server = Server::start(&[]);
    let data = server.data();
    let there = server.path("rows.csv");
    std::fs::write(&there, "ts,value\n2026-01-01T00:00:00Z,1\n").unwrap();
    let there = there.to_str().unwrap();
    let certificates = [
        "--ca",
        "no-ca.pem",
        "--cert",
        "no-cert.pem",
        "--key",
        "no-key.pem",
    ];
    let to = ["send", "--data-dir", data, "--device", "d", "--stream", "s"];
    let local = ["--quic", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let fresh = server.path("fresh");
    let serve = ["serve", "--data-dir", fresh.to_str().unwrap()];
    for (args, name) in [
        (vec!["pki", "show", "no-such.pem"], "no-such.pem"),
        ([&to[..], &["no-such.csv"]].concat(), "no-such.csv"),
        ([&to[..], &["no-such.jsonl"]].concat(), "no-such.jsonl"),
        ([&to[..], &["no-such.parquet"]].concat(), "no-such.parquet"),
        ([&to[..], &["no-such.arrow"]].concat(), "no-such.arrow"),
        ([&to[..], &certificates, &[there]].concat(), "no-cert.pem"),
        ([&serve[..], &local, &certificates].concat(), "no-cert.pem"),
    ] {
        let output = quiver(&args);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(74), "{args:?}: {message}");
        assert!(message.contains(name), "{args:?}: {message}");
    }
    // What is there and is no certificate is wrong data.
    assert_eq!(quiver(&["pki", "show", there]).status.code(), Some(65));
}

#[test]
fn a_certificate_for_no_time_or_for_ages_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let out = directory.path().join("out");
    for valid_for in ["0d", "0", "500ms", "4000d", "99999999999999999999d"] {
        let args = [
            "pki",
            "issue",
            "device",
            "d",
            "--data-dir",
            data,
            "--valid-for",
            valid_for,
        ];
        let output = quiver(&[&args[..], &["--out", out.to_str().unwrap()]].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{valid_for}: {message}");
        assert!(message.contains("--valid-for"), "{valid_for}: {message}");
        assert!(!out.exists());
    }
}

#[test]
fn a_file_enrolls_what_is_right_and_names_the_lines_that_are_not() {
    let mut server = Server::start(&[]);
    let data = server.data().to_owned();
    let enroll = |file: &std::path::Path, more: &[&str]| {
        let from = ["devices", "enroll", "--from", file.to_str().unwrap()];
        quiver(&[&from[..], &["--data-dir", &data], more].concat())
    };
    let many = server.path("many.txt");
    let ids: String = (0..5_000)
        .map(|index| format!("device-{index:06}\n"))
        .collect();
    std::fs::write(&many, &ids).unwrap();
    for _ in 0..2 {
        let output = enroll(&many, &["--attribute", "fleet=north, all of it"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("5,000 identities are enrolled"), "{text}");
    }
    let listed = quiver_ok(&["devices", "list", "--data-dir", &data]);
    assert_eq!(listed.matches("device-00").count(), 5_000);

    let wrong = server.path("wrong.csv");
    let lines = "\u{feff}id,kind,gateway\r\ntruck_1,,gw_1\r\nbad id,,\ngw_1,gateway,\n\ntruck_2\ntruck_3,lorry,\n\"truck_4\",device,gw_2";
    std::fs::write(&wrong, lines).unwrap();
    let output = enroll(&wrong, &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(65), "{message}");
    for part in ["line 3: ", "line 6: ", "line 7: ", "3 of 6 lines"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("3 identities")
    );
    let unknown_column = server.path("unknown.csv");
    std::fs::write(&unknown_column, "id,site\nd1,Oslo\n").unwrap();
    assert_eq!(enroll(&unknown_column, &[]).status.code(), Some(65));
    assert_eq!(enroll(&server.path("nowhere"), &[]).status.code(), Some(74));

    // What was enrolled together is there after a restart, one by one.
    server.kill();
    server.restart();
    let show = |id: &str| quiver_ok(&["devices", "show", id, "--data-dir", &data]);
    assert!(show("device-004999").contains("north, all of it"));
    assert!(show("truck_4").contains("gw_2"));
    assert!(
        !quiver(&["devices", "show", "truck_2", "--data-dir", &data])
            .status
            .success()
    );
    let controls = server.sql("SELECT count(*) FROM quiver_control WHERE kind = 'registry'");
    // What is enrolled as it was is not written again.
    let controls: u64 = controls[0].parse().unwrap();
    assert!((5_003..5_100).contains(&controls), "{controls}");

    // The engine bounds what it takes at once, and names what is wrong by its place.
    let (token, path) = (server.token(), "/api/v1/devices/bulk");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"
    );
    let body = r#"{"identities": [{"id": "a"}, {"id": "bad id"}, {"id": "b", "kind": "lorry"}, {"id": "a"}]}"#;
    let (status, answer) = crate::http::request(&server, &head, body);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["enrolled"]), (200, &1.into()));
    assert_eq!(
        (
            &answer["refused"][0]["index"],
            &answer["refused"][1]["index"]
        ),
        (&1.into(), &2.into())
    );
    let body = format!(
        r#"{{"identities": [{}]}}"#,
        vec![r#"{"id":"a"}"#; 10_001].join(",")
    );
    assert_eq!(crate::http::request(&server, &head, &body).0, 400);
}

#[test]
fn of_several_ids_none_is_enrolled_if_one_is_wrong() {
    let server = Server::start(&[]);
    let data = server.data();
    let enroll = [
        "devices",
        "enroll",
        "d1",
        "bad id",
        "d2",
        "--data-dir",
        data,
    ];
    let output = quiver(&enroll);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(65), "{message}");
    for part in ["bad id", "nothing was enrolled"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!quiver_ok(&["devices", "list", "--data-dir", data]).contains("d1"));
    let kind = [
        "devices",
        "enroll",
        "d1",
        "--kind",
        "truck",
        "--data-dir",
        data,
    ];
    assert_eq!(quiver(&kind).status.code(), Some(65));
}

#[test]
fn a_result_that_nobody_reads_any_more_is_no_failure() {
    let server = Server::start(&[]);
    let data = server.data();
    let other = server.path("other");
    let other = other.to_str().unwrap();
    for args in [
        &["version"][..],
        &["archive", "files", "--data-dir", data],
        &["audit", "--data-dir", data],
        &["devices", "list", "--data-dir", data],
        &["pki", "init", "--data-dir", other],
    ] {
        let mut child = std::process::Command::new(crate::server::binary())
            .args(args)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{args:?}: {} {message}",
            output.status
        );
    }
}
