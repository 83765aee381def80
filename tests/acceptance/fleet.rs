//! Many devices at once.

use std::sync::Arc;

use quiver_client::{Client, Connection};

use crate::{
    device::{self, numbered},
    server::{Server, quiver, quiver_ok},
};

const DEVICES: i64 = 200;

#[test]
fn two_hundred_devices_connect_send_and_disconnect() {
    let server = Arc::new(Server::start(&["--enroll-unknown"]));
    let runtime = device::runtime();
    // Issued one by one: each is a run of the binary.
    let credentials: Vec<_> = {
        let ca = quiver_pki::DevelopmentCa::load(&server.path("pki/ca")).unwrap();
        (0..DEVICES)
            .map(|index| {
                let id = quiver_model::DeviceId::new(&format!("unit_{index}")).unwrap();
                let validity = quiver_pki::Validity::starting_now(
                    &quiver_model::SystemClock::new(),
                    std::time::Duration::from_secs(3_600),
                );
                let request =
                    quiver_pki::Request::client(quiver_model::SenderId::device(id), validity);
                let directory = server.path(&format!("unit_{index}"));
                ca.issue(&request, &quiver_model::OsEntropy)
                    .unwrap()
                    .save(&directory)
                    .unwrap();
                directory
            })
            .collect()
    };
    let tasks: Vec<_> = credentials
        .into_iter()
        .enumerate()
        .map(|(index, credential)| {
            let options = device::options(&server, &credential);
            runtime.spawn(async move {
                let client = quiver_client::Client::connect(options).await.unwrap();
                let from = index as i64 * 100;
                let stream = client.stream("units").unwrap();
                for part in 0..4 {
                    let _handle = stream
                        .send(&numbered(from + part * 25, from + part * 25 + 25))
                        .await
                        .unwrap();
                }
                client.flush().await.unwrap();
                client.close().await;
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    assert_eq!(
        server.number("SELECT count(DISTINCT device) FROM units"),
        DEVICES as u64
    );
    assert_eq!(
        server.number("SELECT count(DISTINCT n) FROM units"),
        100 * DEVICES as u64
    );
    assert_eq!(
        server.number("SELECT count(*) FROM last_cache('units')"),
        DEVICES as u64
    );
    server.audit();
}

#[test]
fn a_connection_does_not_outlive_its_certificate() {
    let server = Server::start(&["--enroll-unknown", "--certificate-grace", "1s"]);
    let credential = server.issue("device", "brief", &["--valid-for", "4s"]);
    device::runtime().block_on(async {
        let client = Client::connect(device::options(&server, &credential))
            .await
            .unwrap();
        client.connected().await.unwrap();
        let ended = client.wait_for_status(|status| match &status.connection {
            Connection::Disconnected(reason) => Some(reason.to_string()),
            _ => None,
        });
        let reason = tokio::time::timeout(std::time::Duration::from_secs(30), ended);
        let reason = reason.await.unwrap();
        assert!(reason.contains("certificate expired at"), "{reason}");
    });
}

#[test]
fn send_with_a_certificate_that_is_not_accepted_ends_and_says_which_side_and_why() {
    let server = Server::start(&["--enroll-unknown"]);
    let file = server.path("rows.csv");
    std::fs::write(&file, "ts,n\n2026-01-01T00:00:00Z,1\n").unwrap();
    let expired = server.issue(
        "device",
        "late",
        &["--not-before", "2020-01-01", "--valid-for", "1d"],
    );
    let elsewhere = Server::start(&[]);
    let foreign = elsewhere.issue("device", "late", &[]);
    let own = server.issue("device", "prompt", &[]);
    let send = |certificates: &std::path::Path, ca: &std::path::Path| {
        let path = |file: &std::path::Path| file.to_str().unwrap().to_owned();
        let output = std::process::Command::new(crate::server::binary())
            .args(["send", "--stream", "numbers", "--device", "late"])
            .args(["--server", &server.quic().to_string()])
            .args(["--ca", &path(&ca.join("ca.pem"))])
            .args(["--cert", &path(&certificates.join("cert.pem"))])
            .args(["--key", &path(&certificates.join("key.pem"))])
            .arg(path(&file))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{text}");
        text
    };
    let text = send(&expired, &own);
    assert!(text.contains("expired; issue a new one"), "{text}");
    let text = send(&foreign, &own);
    assert!(text.contains("not of the server's CA"), "{text}");
    let text = send(&own, &foreign);
    assert!(text.contains("this side does not accept"), "{text}");
}

#[test]
fn a_device_may_have_the_id_of_the_operator_that_sends_its_rows() {
    let server = Server::start(&[]);
    // The operator's own id by default.
    quiver_ok(&["devices", "enroll", "local", "--data-dir", server.data()]);
    let file = server.path("rows.csv");
    std::fs::write(
        &file,
        "ts,n\n2026-01-01T00:00:00Z,1\n2099-01-01T00:00:00Z,2\n",
    )
    .unwrap();
    let sent = quiver(&[
        "send",
        "--data-dir",
        server.data(),
        "--stream",
        "numbers",
        "--device",
        "local",
        file.to_str().unwrap(),
    ]);
    assert_eq!(sent.status.code(), Some(65), "one row is in the future");
    server.audit();
}

#[test]
fn a_device_that_gets_another_credential_has_to_show_it() {
    let server = Server::start(&["--enroll-unknown"]);
    let credential = server.issue("device", "renewed", &[]);
    device::runtime().block_on(async {
        let client = Client::connect(device::options(&server, &credential))
            .await
            .unwrap();
        client.connected().await.unwrap();
        let pinned = "ab".repeat(32);
        let enroll = ["devices", "enroll", "renewed", "--fingerprint", &pinned];
        quiver_ok(&[&enroll[..], &["--data-dir", server.data()]].concat());
        let ended = client.wait_for_status(|status| match &status.connection {
            Connection::Disconnected(reason) => Some(reason.to_string()),
            _ => None,
        });
        let reason = tokio::time::timeout(std::time::Duration::from_secs(10), ended);
        let reason = reason.await.unwrap();
        assert!(
            reason.contains("credential") || reason.contains("certificate"),
            "{reason}"
        );
    });
}
