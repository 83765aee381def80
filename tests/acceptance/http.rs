//! The HTTP door and who may use it.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::server::Server;

/// Status and body of a request written by hand.
pub fn request(server: &Server, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.http()).unwrap();
    let text = format!(
        "{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
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
