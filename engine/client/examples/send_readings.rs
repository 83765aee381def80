//! Sends a few batches of readings to a server on this machine, and waits until they are settled.
//!
//! ```text
//! cargo run -p quiver-client --example send_readings -- CREDENTIALS [ADDRESS [SPOOL]]
//! ```
//!
//! `CREDENTIALS` is a directory with `cert.pem`, `key.pem` and `ca.pem`, as `quiver pki` makes one
//! for a device; `ADDRESS` is that of the server's QUIC endpoint, by default 127.0.0.1:4433. With
//! a directory `SPOOL` batches survive a crash of this program, and it may be started before the
//! server is.

use std::{error::Error, path::PathBuf, sync::Arc};

use arrow_array::{Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use quiver_client::{Client, ClientEvent, ClientOptions, Settled, SpoolOptions};
use quiver_model::{Clock, SystemClock};
use quiver_pki::{ClientTls, Credential, rustls_client_config};

const BATCHES: i64 = 10;
const ROWS: i64 = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let credentials = arguments
        .next()
        .ok_or("usage: send_readings CREDENTIALS [ADDRESS [SPOOL]]")?;
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:4433".to_owned());
    let spool = arguments.next().map(PathBuf::from);

    // Who this device is, and whom it trusts.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let credential = Credential::load(credentials.as_ref())?;
    let tls = rustls_client_config(ClientTls::new(credential), Arc::clone(&clock))?;

    let mut options =
        ClientOptions::new(address.parse::<std::net::SocketAddr>()?, "localhost", tls);
    options.spool = spool.map(SpoolOptions::at).transpose()?;
    options.observer = Some(Arc::new(|event: &ClientEvent| println!("{event:?}")));
    let client = Client::connect(options).await?;
    let readings = client.stream("readings")?;

    let mut handles = Vec::new();
    for number in 0..BATCHES {
        // With a spool, the batch is on this machine's disk when `send` returns.
        handles.push(readings.send(&batch(&*clock, number)?).await?);
    }
    for (number, handle) in handles.into_iter().enumerate() {
        match handle.await? {
            Settled::Stored => println!("batch {number}: stored"),
            Settled::Rejected { message, .. } => println!("batch {number}: rejected: {message}"),
            other => println!("batch {number}: {other:?}"),
        }
    }
    // The handles said it already; this also waits for what earlier runs left in the spool.
    client.flush().await?;
    println!("{:?}", client.status().totals);
    client.close().await;
    Ok(())
}

/// A hundred readings, a millisecond apart.
fn batch(clock: &dyn Clock, number: i64) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let ts = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![
        Field::new("ts", ts, false),
        Field::new("velocity", DataType::Float64, true),
    ]);
    let first = clock.wall().as_micros() - (BATCHES - number) * ROWS * 1_000;
    let times: TimestampMicrosecondArray = (0..ROWS).map(|row| Some(first + row * 1_000)).collect();
    let velocity: Float64Array = (0..ROWS)
        .map(|row| Some(80.0 + (row as f64 / 10.0).sin()))
        .collect();
    RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(times.with_timezone("UTC")), Arc::new(velocity)],
    )
}
