//! The Python client, written from `docs/protocol.md` alone, against the engine: every scenario
//! that page promises something about, attacks included.

use crate::{
    python,
    server::{Server, binary, quiver_ok},
};

#[test]
fn the_client_written_from_the_page_finds_every_promise_kept() {
    let Some(python) =
        python::interpreter("protocol::the_client_written_from_the_page_finds_every_promise_kept")
    else {
        return;
    };
    let server = Server::start(&[]);
    quiver_ok(&[
        "devices",
        "enroll",
        "conformance_1",
        "--data-dir",
        server.data(),
    ]);
    let own = server.issue("device", "conformance_1", &[]);
    let expired = server.issue(
        "device",
        "expired_1",
        &["--not-before", "2020-01-01", "--valid-for", "1d"],
    );
    let revoked = server.issue("device", "revoked_1", &[]);
    quiver_ok(&[
        "devices",
        "enroll",
        "revoked_1",
        "--data-dir",
        server.data(),
    ]);
    quiver_ok(&[
        "devices",
        "revoke",
        "revoked_1",
        "--data-dir",
        server.data(),
    ]);
    // Another engine's authority is one that this engine does not trust.
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = elsewhere.path().join("foreign");
    quiver_ok(&[
        "pki",
        "issue",
        "device",
        "conformance_1",
        "--data-dir",
        elsewhere.path().to_str().unwrap(),
        "--out",
        foreign.to_str().unwrap(),
    ]);
    let file =
        |directory: &std::path::Path, name: &str| directory.join(name).to_str().unwrap().to_owned();
    let sql = format!(
        "{} sql --data-dir {} --format csv",
        binary().display(),
        server.data()
    );
    let args = [
        "all".to_owned(),
        "--server".to_owned(),
        server.quic().to_string(),
        "--server-name".to_owned(),
        "localhost".to_owned(),
        "--ca".to_owned(),
        file(&own, "ca.pem"),
        "--cert".to_owned(),
        file(&own, "cert.pem"),
        "--key".to_owned(),
        file(&own, "key.pem"),
        "--ca-key".to_owned(),
        server
            .path("pki/ca/ca-key.pem")
            .to_str()
            .unwrap()
            .to_owned(),
        "--foreign-cert".to_owned(),
        file(&foreign, "cert.pem"),
        "--foreign-key".to_owned(),
        file(&foreign, "key.pem"),
        "--expired-cert".to_owned(),
        file(&expired, "cert.pem"),
        "--expired-key".to_owned(),
        file(&expired, "key.pem"),
        "--revoked-cert".to_owned(),
        file(&revoked, "cert.pem"),
        "--revoked-key".to_owned(),
        file(&revoked, "key.pem"),
        "--sql".to_owned(),
        sql,
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let printed = python::run(&python, "scenarios.py", &args);
    assert!(printed.lines().count() >= 10, "{printed}");
    server.audit();
}

#[test]
fn the_client_reads_the_vectors_of_the_page() {
    let Some(python) = python::interpreter("protocol::the_client_reads_the_vectors_of_the_page")
    else {
        return;
    };
    python::run(&python, "test_vectors.py", &[]);
}
