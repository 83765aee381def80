//! Devices made of the SDK.

use std::{net::SocketAddr, path::Path, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use quiver_client::{Client, ClientOptions};
use quiver_model::SystemClock;
use quiver_pki::{ClientTls, Credential, rustls_client_config};

use crate::server::Server;

/// Options for a client with this credential.
pub fn options(server: &Server, credential: &Path) -> ClientOptions {
    options_to(server.quic(), credential)
}

/// The same, for a server at this address.
pub fn options_to(address: SocketAddr, credential: &Path) -> ClientOptions {
    let credential = Credential::load(credential).unwrap();
    let tls =
        rustls_client_config(ClientTls::new(credential), Arc::new(SystemClock::new())).unwrap();
    ClientOptions::new(address, "localhost", tls)
}

/// A connected device with a certificate of its own.
pub async fn connect(server: &Server, id: &str) -> Client {
    let credential = server.issue("device", id, &[]);
    let client = Client::connect(options(server, &credential)).await.unwrap();
    client.connected().await.unwrap();
    client
}

/// Event time of the first row of these tests: 2026-01-01.
pub const EPOCH_US: i64 = 1_767_225_600_000_000;

/// Rows numbered `from..to` in column `n`, a second apart (from the start again at each million),
/// with a value.
pub fn numbered(from: i64, to: i64) -> RecordBatch {
    let numbers: Vec<i64> = (from..to).collect();
    let times = numbers
        .iter()
        .map(|number| EPOCH_US + number % 1_000_000 * 1_000_000)
        .collect::<Vec<_>>();
    let values = numbers
        .iter()
        .map(|number| *number as f64 / 7.0)
        .collect::<Vec<_>>();
    RecordBatch::try_from_iter([
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef,
        ),
        ("n", Arc::new(Int64Array::from(numbers))),
        ("value", Arc::new(Float64Array::from(values))),
    ])
    .unwrap()
}

/// A runtime for clients.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
