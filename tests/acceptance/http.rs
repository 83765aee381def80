//! The HTTP door and who may use it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::server::{Server, binary, quiver};

/// Status and body of a request written by hand.
pub fn request(server: &Server, head: &str, body: &str) -> (u16, String) {
    request_to(server.http(), head, body).unwrap()
}

/// The same, of a server that may not listen yet.
fn request_to(address: SocketAddr, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let text = format!(
        "{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Some((status, body.to_owned()))
}

/// Asks until the answer is this one.
#[track_caller]
fn wait_for(address: SocketAddr, path: &str, status: u16) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost");
    let begun = Instant::now();
    loop {
        match request_to(address, &head, "") {
            Some((found, body)) if found == status => return body,
            found if begun.elapsed() > Duration::from_secs(60) => {
                panic!("{path} is not answered with {status}, but {found:?}")
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[test]
fn a_process_that_starts_is_alive_and_not_ready() {
    let mut server = Server::start(&[]);
    server.stop();
    // A start reads this file on its way; as a pipe it holds the start up until it is written to.
    let token = server.path("http-token");
    std::fs::remove_file(&token).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&token)
            .status()
            .unwrap()
            .success()
    );
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap();
    let mut child = Command::new(binary())
        .args([
            "serve",
            "--data-dir",
            server.data(),
            "--quic",
            "127.0.0.1:0",
        ])
        .args(["--http", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(wait_for(address, "/live", 200), "live\n");
    for path in ["/ready", "/metrics", "/api/v1/status"] {
        let body = wait_for(address, path, 503);
        assert!(body.contains("the engine is starting"), "{path}: {body}");
    }
    std::fs::write(&token, "a-token").unwrap();
    assert_eq!(wait_for(address, "/ready", 200), "ready\n");
    assert_eq!(wait_for(address, "/live", 200), "live\n");
    wait_for(address, "/api/v1/status", 401);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn only_who_has_the_token_and_says_json_may_ask() {
    let server = Server::start(&[]);
    let sql = r#"{"sql": "SELECT 1 AS one"}"#;
    let token = format!("Authorization: Bearer {}", server.token());
    let json = "Content-Type: application/json";
    let ask = |head: &str| {
        request(
            &server,
            &format!("POST /api/v1/sql HTTP/1.1\r\n{head}"),
            sql,
        )
    };

    let (status, body) = ask(&format!("Host: localhost\r\n{token}\r\n{json}"));
    assert_eq!(status, 200);
    assert!(body.contains("\"one\":1"), "{body}");
    assert_eq!(
        ask(&format!("Host: localhost\r\n{json}")).0,
        401,
        "no token"
    );
    assert_eq!(
        ask(&format!(
            "Host: localhost\r\nAuthorization: Bearer x\r\n{json}"
        ))
        .0,
        401,
        "wrong token"
    );
    assert_eq!(
        ask(&format!(
            "Host: localhost\r\n{token}\r\nContent-Type: text/plain"
        ))
        .0,
        415,
        "a form"
    );
    assert_eq!(
        ask(&format!("Host: evil.example\r\n{token}\r\n{json}")).0,
        421,
        "a rebound name"
    );
    for host in [
        "localhost:5480@evil.example",
        "localhost\r\nHost: localhost",
    ] {
        let (status, body) = ask(&format!("Host: {host}\r\n{token}\r\n{json}"));
        assert_eq!(status, 400, "{host}: {body}");
    }

    let get = |path: &str| {
        request(
            &server,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost"),
            "",
        )
    };
    assert_eq!(get("/live").0, 200);
    assert_eq!(get("/ready").0, 200);
    assert_eq!(get("/api/v1/audit").0, 401);
    let (status, metrics) = get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "quiver_ingest_rows_total",
        "quiver_log_commit_seconds",
        "process_resident_memory_bytes",
        "# EOF",
    ] {
        assert!(metrics.contains(name), "{name} is missing from /metrics");
    }
}

#[test]
fn statements_that_change_or_read_files_are_refused() {
    let server = Server::start(&[]);
    let token = server.token();
    for sql in [
        "CREATE TABLE t (a INT)",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SELECT * FROM '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT 1; SELECT 2",
        "DROP TABLE rejects",
    ] {
        let body = serde_json::json!({ "sql": sql }).to_string();
        let head = format!(
            "POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"
        );
        let (status, answer) = request(&server, &head, &body);
        assert_eq!(status, 400, "{sql}: {answer}");
    }
}

/// An endless query that makes no row.
const ENDLESS: &str =
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r";

fn sql_head(server: &Server) -> String {
    format!(
        "POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        server.token()
    )
}

#[test]
fn queries_whose_clients_are_gone_do_not_keep_others_from_their_turn() {
    let server = Server::start(&[]);
    let endless = serde_json::json!({ "sql": ENDLESS }).to_string();
    // More than run at the same time, so that some leave while they wait.
    let connections: Vec<TcpStream> = (0..6)
        .map(|_| {
            let mut stream = TcpStream::connect(server.http()).unwrap();
            let text = format!(
                "{}\r\nContent-Length: {}\r\n\r\n{endless}",
                sql_head(&server),
                endless.len()
            );
            stream.write_all(text.as_bytes()).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    drop(connections);
    let begun = Instant::now();
    assert_eq!(server.number("SELECT 7"), 7);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );

    let mut verbs: Vec<_> = (0..4)
        .map(|_| {
            Command::new(binary())
                .args(["sql", "--data-dir", server.data(), ENDLESS])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    // Nobody gets a turn; one that has to wait for ever is told so.
    let begun = Instant::now();
    let body = serde_json::json!({ "sql": "SELECT 7" }).to_string();
    let (status, answer) = request(&server, &sql_head(&server), &body);
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("4 queries are running"), "{answer}");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    for verb in &mut verbs {
        verb.kill().unwrap();
        verb.wait().unwrap();
    }
    let begun = Instant::now();
    assert_eq!(server.number("SELECT 7"), 7);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_query_may_be_given_less_time() {
    let server = Server::start(&["--query-timeout", "2s"]);
    let ask = |timeout: u64| {
        let body = serde_json::json!({ "sql": ENDLESS, "timeout_ms": timeout }).to_string();
        request(&server, &sql_head(&server), &body)
    };
    let (status, answer) = ask(300);
    assert_eq!(status, 504, "{answer}");
    assert!(answer.contains("longer than 0.3 s"), "{answer}");
    let (status, answer) = ask(60_000);
    assert_eq!(status, 504, "{answer}");
    assert!(
        answer.contains("longer than 2 s"),
        "the server's limit: {answer}"
    );
    assert_eq!(ask(0).0, 400);

    let sql = |more: &[&str]| {
        let output = quiver(&[&["sql", "--data-dir", server.data()], more, &[ENDLESS]].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), message)
    };
    let (code, message) = sql(&["--query-timeout", "400ms"]);
    assert_eq!(code, Some(69), "{message}");
    assert!(message.contains("longer than 0.4 s"), "{message}");
    let (code, message) = sql(&["--query-memory", "1GiB", "--memory", "1GiB"]);
    assert_eq!(code, Some(64), "{message}");
    assert!(message.contains("--memory and --query-memory"), "{message}");
    for verb in [&["audit"][..], &["archive", "check"]] {
        let output = quiver(&[verb, &["--data-dir", server.data(), "--shards", "2"]].concat());
        assert_eq!(output.status.code(), Some(64), "{verb:?}: {output:?}");
    }
}
