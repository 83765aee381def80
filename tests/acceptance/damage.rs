//! Bits of the log that rot on a real disk, in the middle of what the archive does not have yet.

use std::path::PathBuf;

use quiver_client::Client;

use crate::{
    device::{self, numbered},
    http::request,
    server::{Server, quiver},
};

const ROWS: i64 = 10;

/// Sends batches of rows `from..to`, each its own commit group.
fn send(server: &Server, device: &str, from: i64, to: i64) {
    let mut credential = server.path(&format!("credential-device-{device}"));
    if !credential.exists() {
        credential = server.issue("device", device, &[]);
    }
    let options = device::options(server, &credential);
    device::runtime().block_on(async {
        let client = Client::connect(options).await.unwrap();
        let stream = client.stream("numbers").unwrap();
        for begin in (from..to).step_by(ROWS as usize) {
            let _handle = stream.send(&numbered(begin, begin + ROWS)).await.unwrap();
            client.flush().await.unwrap();
        }
        client.close().await;
    });
}

/// Flips a byte of the payload at the end of the commit group that holds `position`.
fn rot(server: &Server, position: u64) {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut segments: Vec<PathBuf> = std::fs::read_dir(server.path("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    for path in segments {
        let mut bytes = std::fs::read(&path).unwrap();
        let found = (0..bytes.len()).step_by(512).find(|offset| {
            let group = &bytes[*offset..];
            group.starts_with(b"QUIVRLOG")
                && (number(&group[40..48])..number(&group[48..56])).contains(&position)
        });
        if let Some(offset) = found {
            let body = u32::from_le_bytes(bytes[offset + 64..offset + 68].try_into().unwrap());
            bytes[offset + 80 + body as usize - 3] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("position {position} is not in the log");
}

/// What `quiver audit` says, as JSON; its exit code must be that of bad data.
#[track_caller]
fn audit(server: &Server) -> serde_json::Value {
    let output = quiver(&["audit", "--json", "--data-dir", server.data()]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(65), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[track_caller]
fn line<'a>(audit: &'a serde_json::Value, sender: &str) -> &'a serde_json::Value {
    let lines = audit["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| line["sender"] == sender);
    line.unwrap_or_else(|| panic!("{sender} is not in {audit}"))
}

/// `received = stored + rejected + quarantined + damaged`, and what is stored is found.
#[track_caller]
fn balanced(line: &serde_json::Value) {
    let number = |name: &str| line[name].as_u64().unwrap();
    let sum: u64 = ["stored", "rejected", "quarantined", "damaged"]
        .map(number)
        .iter()
        .sum();
    assert_eq!(number("received"), sum, "{line}");
    assert_eq!(number("stored"), number("found"), "{line}");
}

#[test]
fn a_damaged_part_of_the_log_is_named_by_every_audit_from_then_on() {
    let mut server = Server::start(&[
        "--enroll-unknown",
        "--flush-age",
        "1h",
        "--checkpoint-interval",
        "1h",
    ]);
    send(&server, "d0", 0, 30);
    // Flushes and checkpoints: what comes now is beyond both.
    server.stop();
    server.restart();
    send(&server, "d1", 100, 200);
    send(&server, "d2", 200, 250);
    server.audit();
    let position = server.number("SELECT min(position) FROM numbers WHERE n = 145");
    server.kill();
    rot(&server, position);

    server.restart();
    let present = |server: &Server| server.number("SELECT count(*) FROM numbers");
    assert_eq!(present(&server), 30 + 90 + 50);
    assert_eq!(
        server.number("SELECT count(*) FROM numbers WHERE n >= 140 AND n < 150"),
        0,
        "one batch is lost"
    );
    for start in 0..4_i64 {
        let more = (start * ROWS) as u64;
        assert_eq!(present(&server), 170 + more, "start {start}");
        let report = "SELECT body FROM quiver_control WHERE kind = 'damage_reported'";
        let reports = server.sql(report);
        assert_eq!(reports.len(), 1, "start {start}: {reports:?}");
        assert!(reports[0].contains("device:d1"), "{reports:?}");
        let head = "GET /metrics HTTP/1.1\r\nHost: localhost";
        let (_, metrics) = request(&server, head, "");
        assert!(metrics.contains("quiver_log_damaged_ranges 1\n"));
        assert!(metrics.contains("quiver_log_damaged_batches 1\n"));
        named(&audit(&server), position, more);

        send(
            &server,
            "d1",
            1_000 + start * ROWS,
            1_000 + (start + 1) * ROWS,
        );
        if start == 0 {
            // The damage is still in the log, and found again.
            server.kill();
        } else {
            // It is flushed and checkpointed over.
            server.stop();
        }
        named(&audit(&server), position, more + ROWS as u64);
        server.restart();
    }
    let told = quiver(&["audit", "--data-dir", server.data()]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("!  damaged: positions"), "{text}");
    assert!(text.contains("everything is accounted for, and"), "{text}");
}

/// An audit names the one batch of `d1` that is damaged, and everything else is there.
#[track_caller]
fn named(found: &serde_json::Value, position: u64, more: u64) {
    assert_eq!(found["damaged_ranges"], 1, "{found}");
    assert_eq!(found["damaged_batches"], 1, "{found}");
    assert_eq!(found["damaged"].as_array().unwrap().len(), 1);
    assert_eq!(found["damaged"][0]["first_position"], position - 5);
    assert_eq!(found["damaged"][0]["rows"], 10);
    for line in found["lines"].as_array().unwrap() {
        balanced(line);
    }
    let damaged = line(found, "device:d1");
    assert_eq!(damaged["received"], 100 + more);
    assert_eq!(damaged["damaged"], 10);
    assert_eq!(damaged["batches_damaged"], 1);
    assert_eq!(line(found, "device:d0")["damaged"], 0);
}
