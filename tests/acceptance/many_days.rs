//! A file of decades with a row a day: thousands of days are thousands of archived files.

use crate::server::{Server, quiver_ok};

const DAYS: usize = 6_000;

#[test]
fn a_row_a_day_for_decades_is_sent_archived_and_read_back() {
    let mut server = Server::start(&["--enroll-unknown"]);
    let file = server.path("climate.csv");
    // From 2001-01-01 on; noon of each day, in seconds.
    let text: String = (0..DAYS)
        .map(|day| format!("{},{}\n", 978_350_400 + day * 86_400, day))
        .collect();
    std::fs::write(&file, format!("ts,value\n{text}")).unwrap();
    quiver_ok(&[
        "send",
        "--data-dir",
        server.data(),
        "--stream",
        "climate",
        "--device",
        "station",
        file.to_str().unwrap(),
    ]);
    // The stop archives everything, and says so by ending well.
    server.stop();
    let listed = quiver_ok(&["archive", "files", "--data-dir", server.data(), "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    let of_stream = |file: &&serde_json::Value| file["stream"] == "climate";
    assert_eq!(listed.iter().filter(of_stream).count(), DAYS);
    server.restart();
    assert_eq!(
        server.number("SELECT count(*) FROM climate WHERE value >= 0"),
        DAYS as u64
    );
    assert_eq!(
        server.number("SELECT count(*) FROM climate WHERE ts < TIMESTAMP '2002-01-01'"),
        365
    );
    server.audit();
}
