//! The graph of an engine that runs: what its nodes put out is what SQL makes of the same rows,
//! through kills and reloads.

mod attributes;
mod definitions;
mod keeping;
mod kills;
mod live;
mod lookups;
mod reload;
mod streams;
mod time;
mod verbs;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use quiver_client::{Client, Settled};

use crate::{device, http, server::Server};

/// How long something may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration in `graph.toml`, and what belongs to it.
struct Files(tempfile::TempDir);

impl Files {
    fn new(graph: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("graph.toml", graph);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a file in the place of the one before at once, as editors do.
    fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    fn graph(&self) -> String {
        self.path("graph.toml").to_str().unwrap().to_owned()
    }

    /// Starts an engine with the configuration.
    fn serve(&self, more: &[&str]) -> Server {
        let graph = self.graph();
        let arguments = [&["--enroll-unknown", "--config", &graph], more].concat();
        Server::start(&arguments)
    }
}

/// Runs the binary to its end: exit code, and what it printed on both outputs.
fn run(args: &[&str]) -> (i32, String) {
    let output = crate::server::quiver(args);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(text).unwrap(),
    )
}

/// A request to the HTTP door, with the token.
fn ask(server: &Server, method: &str, path: &str) -> (u16, serde_json::Value) {
    let token = server.token();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {}",
        token.trim()
    );
    let (status, body) = http::request(server, &head, "");
    (status, serde_json::from_str(&body).unwrap_or_default())
}

/// Waits until something is so.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until everything that is in the log has gone through the graph, and what came out of it,
/// too.
#[track_caller]
fn settle(server: &Server) {
    wait_until("the graph has seen everything", || {
        ask(server, "GET", "/api/v1/pipeline").1["lag"] == 0
    });
}

/// Rows of `readings`, numbered in `n`.
///
/// `temperature` goes up and down between 0 and 99.9; `note` is the number as a text, but of every
/// tenth row it is no number; `kind` tells rows apart.
fn readings(kind: &str, rows: impl IntoIterator<Item = (i64, i64)>) -> RecordBatch {
    let (numbers, times): (Vec<i64>, Vec<i64>) = rows.into_iter().unzip();
    let notes = numbers.iter().map(|n| match n % 10 {
        3 => "x".to_owned(),
        _ => n.to_string(),
    });
    let kinds = numbers.iter().map(|_| Some(kind));
    let temperatures = numbers.iter().map(|n| (n * 7_919 % 1_000) as f64 / 10.0);
    RecordBatch::try_from_iter([
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef,
        ),
        (
            "temperature",
            Arc::new(Float64Array::from_iter_values(temperatures)),
        ),
        ("kind", Arc::new(StringArray::from_iter(kinds))),
        ("note", Arc::new(StringArray::from_iter_values(notes))),
        ("n", Arc::new(Int64Array::from(numbers))),
    ])
    .unwrap()
}

/// A device that waits for each batch to be settled before it sends the next, so that its rows are
/// in the log in the order in which they were sent.
struct Device {
    client: Client,
    address: SocketAddr,
    credential: PathBuf,
}

impl Device {
    async fn connect(server: &Server, id: &str) -> Self {
        let credential = server.path(&format!("credential-device-{id}"));
        if !credential.exists() {
            server.issue("device", id, &[]);
        }
        Self::with(server.quic(), credential).await
    }

    async fn with(address: SocketAddr, credential: PathBuf) -> Self {
        let options = device::options_to(address, &credential);
        Self {
            client: Client::connect(options).await.unwrap(),
            address,
            credential,
        }
    }

    /// With another connection, to the server that was killed and started again: the one before
    /// would take half a minute to find out.
    async fn again(&self) -> Self {
        Self::with(self.address, self.credential.clone()).await
    }

    /// Sends a batch; how it ended.
    async fn settled(&self, stream: &str, batch: &RecordBatch) -> Settled {
        let stream = self.client.stream(stream).unwrap();
        stream.send(batch).await.unwrap().await.unwrap()
    }

    async fn send(&self, stream: &str, batch: &RecordBatch) {
        let settled = self.settled(stream, batch).await;
        assert!(matches!(settled, Settled::Stored), "{settled:?}");
    }
}

/// Asserts that two queries have the same rows in the same order. Numbers may differ by a
/// thousand-millionth part: SQL adds up in another order.
#[track_caller]
fn same(server: &Server, got: &str, expected: &str) -> usize {
    let (rows, wanted) = (server.sql(got), server.sql(expected));
    let differs = rows
        .iter()
        .zip(&wanted)
        .position(|(row, wanted)| !same_row(row, wanted));
    let first = differs.or((rows.len() != wanted.len()).then_some(rows.len().min(wanted.len())));
    if let Some(first) = first {
        panic!(
            "{got}\nhas {} rows, and\n{expected}\nhas {}; the first that differs is {first}:\n{:?}\n{:?}",
            rows.len(),
            wanted.len(),
            rows.get(first),
            wanted.get(first)
        );
    }
    rows.len()
}

fn same_row(row: &str, wanted: &str) -> bool {
    let cells: Vec<&str> = row.split(',').collect();
    let others: Vec<&str> = wanted.split(',').collect();
    cells.len() == others.len()
        && cells.iter().zip(others).all(|(cell, other)| {
            *cell == other
                || match (cell.parse::<f64>(), other.parse::<f64>()) {
                    (Ok(cell), Ok(other)) => (cell - other).abs() <= 1e-9 * other.abs().max(1e-3),
                    _ => false,
                }
        })
}

/// Event time of the first rows: midnight, in microseconds.
const MIDNIGHT: i64 = device::EPOCH_US;
/// A second, in microseconds.
const SECOND: i64 = 1_000_000;
