//! A small memory cap and fast senders: memory stays bounded, nothing is lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use quinn::crypto::rustls::QuicClientConfig;
use quiver_model::{Producer, Sequence, StreamName, SystemClock};
use quiver_pki::{ClientTls, Credential, rustls_client_config};
use quiver_protocol::{BatchEncoder, ClientConversation, ClientHello, Compression, OpenStream};

use crate::{
    device::{self, numbered},
    server::Server,
};

const BATCHES: i64 = 400;
const ROWS: i64 = 5_000;
/// The least that the engine starts with.
const MEMORY_MIB: u64 = 150;
/// Characters of a row's text: all rows together take seven times the memory.
const TEXT: usize = 500;

fn with_text(batch: &RecordBatch) -> RecordBatch {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(TEXT); batch.num_rows()]));
    let schema = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .zip(batch.columns().to_vec());
    RecordBatch::try_from_iter(columns.chain([("text".to_owned(), text)])).unwrap()
}

#[test]
fn memory_stays_bounded_and_nothing_is_lost_when_senders_are_faster() {
    let server = Server::start(&["--enroll-unknown", "--ingest-memory", "150MiB"]);
    let before = server.resident_bytes();
    let runtime = device::runtime();
    let peak = AtomicU64::new(0);
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(server.resident_bytes(), Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        runtime.block_on(async {
            let (first, second) = (
                device::connect(&server, "a").await,
                device::connect(&server, "b").await,
            );
            for index in 0..BATCHES / 2 {
                for (client, offset) in [(&first, 0), (&second, BATCHES / 2)] {
                    let from = (offset + index) * ROWS;
                    let _handle = client
                        .stream("flood")
                        .unwrap()
                        .send(&with_text(&numbered(from, from + ROWS)))
                        .await
                        .unwrap();
                }
            }
            first.flush().await.unwrap();
            second.flush().await.unwrap();
        });
        done.store(true, Ordering::Relaxed);
    });
    // 2 million rows of 540 bytes are 1,080 MB; the cap is 150 MiB, and decoding, sorting and
    // encoding a flush come on top.
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before) >> 20;
    assert!(
        grown < 3 * MEMORY_MIB,
        "resident memory grew by {grown} MiB"
    );
    assert_eq!(
        server.number("SELECT count(DISTINCT n) FROM flood"),
        (BATCHES * ROWS) as u64
    );
    server.audit();
}

/// Connections of one device, and QUIC streams of each.
const HOGS: (u64, u64) = (4, 15);

/// A connection whose every QUIC stream carries all of a large batch but its end.
async fn hog(server: &Server, credential: &std::path::Path, instance: u64) -> quinn::Connection {
    let credential = Credential::load(credential).unwrap();
    let clock = Arc::new(SystemClock::new());
    let tls = rustls_client_config(ClientTls::new(credential), clock).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, server.quic(), "localhost");
    let connection = connecting.unwrap().await.unwrap();
    let (mut control, mut answers) = connection.open_bi().await.unwrap();
    let mut conversation = ClientConversation::new(ClientHello {
        instance,
        ..Default::default()
    });
    control
        .write_all(&conversation.poll_transmit().unwrap())
        .await
        .unwrap();
    let welcome = answers.read_chunk(65_536, true).await.unwrap().unwrap();
    conversation.handle_bytes(welcome.bytes);
    assert!(conversation.poll_event().is_some());
    let batch = with_text(&numbered(0, 7_000));
    let mut encoder = BatchEncoder::new(batch.schema_ref(), Compression::None).unwrap();
    let (schema, body) = (
        encoder.schema_message().unwrap(),
        encoder.encode(&batch).unwrap(),
    );
    let body = body.slice(..body.len() - 64);
    for stream in 0..HOGS.1 {
        let name = StreamName::new(&format!("hog_{stream}")).unwrap();
        let open = OpenStream::new(name, Producer(instance), Sequence(0)).encode();
        let mut telemetry = connection.open_uni().await.unwrap();
        let mut bytes = [open, schema.clone(), body.clone()];
        // It is not read to its end, so neither is this; the QUIC stream stays open.
        tokio::spawn(async move {
            let _ = telemetry.write_all_chunks(&mut bytes).await;
            std::future::pending::<()>().await;
        });
    }
    // Held open, as the connection is.
    tokio::spawn(async move {
        let _control = (control, answers, endpoint);
        std::future::pending::<()>().await;
    });
    connection
}

#[test]
fn unfinished_batches_of_many_quic_streams_take_no_more_memory_than_is_set_aside_for_them() {
    let server = Server::start(&["--enroll-unknown", "--ingest-memory", "150MiB"]);
    let credential = server.issue("device", "hog", &[]);
    let before = server.resident_bytes();
    let runtime = device::runtime();
    let grown = runtime.block_on(async {
        let mut held = Vec::new();
        for instance in 0..HOGS.0 {
            held.push(hog(&server, &credential, instance + 1).await);
        }
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let grown = server.resident_bytes().saturating_sub(before) >> 20;
        // Others are served meanwhile: what is small waits for nobody.
        let client = device::connect(&server, "other").await;
        let small = numbered(0, 100);
        let _handle = client.stream("small").unwrap().send(&small).await.unwrap();
        let flushed = tokio::time::timeout(std::time::Duration::from_secs(20), client.flush());
        flushed.await.unwrap().unwrap();
        drop(held);
        grown
    });
    // 60 batches of 3.7 MB are 224 MB; 41 MiB are set aside, and what QUIC holds of the others is
    // bounded by its windows.
    assert!(grown < 120, "resident memory grew by {grown} MiB");
    assert_eq!(server.number("SELECT count(*) FROM small"), 100);
}
