//! Clients with genuine certificates that do what the SDK never does: they do not read, send little
//! that becomes much, or send slowly what they have announced.

use std::{path::Path, sync::Arc, time::Duration};

use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_ipc::{
    CompressionType,
    writer::{IpcWriteOptions, StreamWriter},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use quiver_model::{Producer, Sequence, StreamName, SystemClock};
use quiver_pki::{ClientTls, Credential, rustls_client_config};
use quiver_protocol::{
    BatchEncoder, ClientConversation, ClientEvent, ClientHello, Compression, OpenStream,
};

use crate::{
    device::{EPOCH_US, runtime},
    server::{Server, quiver_ok},
};

/// A connection that speaks the protocol by hand.
struct Raw {
    connection: Connection,
    conversation: ClientConversation,
    control: RecvStream,
    _send: SendStream,
    _endpoint: Endpoint,
}

impl Raw {
    /// Connects and says Hello; `reads` tells whether the server may say anything on the control
    /// stream: without flow control for it, it never can.
    async fn connect(server: &Server, credential: &Path, instance: u64, reads: bool) -> Self {
        let tls = ClientTls::new(Credential::load(credential).unwrap());
        let tls = rustls_client_config(tls, Arc::new(SystemClock::new())).unwrap();
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        let mut transport = TransportConfig::default();
        if !reads {
            transport.stream_receive_window(VarInt::from_u32(0));
        }
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, server.quic(), "localhost");
        let connection = connecting.unwrap().await.unwrap();
        let (mut send, control) = connection.open_bi().await.unwrap();
        let mut conversation = ClientConversation::new(ClientHello {
            instance,
            client: "by hand".to_owned(),
            ..ClientHello::default()
        });
        while let Some(bytes) = conversation.poll_transmit() {
            send.write_all(&bytes).await.unwrap();
        }
        Self {
            connection,
            conversation,
            control,
            _send: send,
            _endpoint: endpoint,
        }
    }

    /// The next thing the server says that is of interest.
    async fn next(&mut self) -> Option<ClientEvent> {
        loop {
            match self.conversation.poll_event() {
                Some(ClientEvent::Welcome { .. }) => {}
                Some(event) => return Some(event),
                None => {
                    let chunk = self.control.read_chunk(64 << 10, true).await;
                    self.conversation.handle_bytes(chunk.ok()??.bytes);
                }
            }
        }
    }

    /// A telemetry QUIC stream with these bytes behind its `OpenStream`.
    async fn open_raw(&self, stream: &str, bytes: &[u8]) -> SendStream {
        let mut quic = self.connection.open_uni().await.unwrap();
        let open = self.open_stream(stream, &quic);
        // It may be closed by the server before all is written.
        if quic.write_all(&open.encode()).await.is_ok() {
            let _ = quic.write_all(bytes).await;
        }
        quic
    }

    fn open_stream(&self, stream: &str, quic: &SendStream) -> OpenStream {
        let number = self.connection.stable_id() as u64;
        OpenStream::new(
            StreamName::new(stream).unwrap(),
            Producer(number << 16 | quic.id().index()),
            Sequence(0),
        )
    }

    async fn open(&self, stream: &str, schema: &RecordBatch) -> (SendStream, BatchEncoder) {
        let mut quic = self.connection.open_uni().await.unwrap();
        let encoder = BatchEncoder::new(&schema.schema(), Compression::Zstd).unwrap();
        let open = self.open_stream(stream, &quic);
        for bytes in [open.encode(), encoder.schema_message().unwrap()] {
            quic.write_all(&bytes).await.unwrap();
        }
        (quic, encoder)
    }
}

fn row(value: f64) -> RecordBatch {
    columns(&[("value", Arc::new(Float64Array::from(vec![value])))])
}

fn columns(fields: &[(&str, ArrayRef)]) -> RecordBatch {
    let rows = fields[0].1.len();
    let ts = TimestampMicrosecondArray::from(vec![EPOCH_US; rows]).with_timezone("UTC");
    let mut columns: Vec<(&str, ArrayRef)> = vec![("ts", Arc::new(ts))];
    columns.extend(fields.iter().cloned());
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..100 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}");
}

#[test]
fn who_is_revoked_stores_nothing_more_though_it_never_reads_that() {
    let server = Server::start(&["--enroll-unknown"]);
    let credential = server.issue("device", "deaf", &[]);
    runtime().block_on(async {
        let raw = Raw::connect(&server, &credential, 1, false).await;
        let (mut quic, mut encoder) = raw.open("heard", &row(1.0)).await;
        quic.write_all(&encoder.encode(&row(1.0)).unwrap())
            .await
            .unwrap();
        let query = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'heard'";
        eventually("the first row is stored", || server.number(query) == 1).await;
        quiver_ok(&["devices", "revoke", "deaf", "--data-dir", server.data()]);
        let closed = tokio::time::timeout(Duration::from_secs(5), raw.connection.closed());
        let later = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let more = encoder.encode(&row(2.0)).unwrap();
                if quic.write_all(&more).await.is_err() {
                    break;
                }
            }
        };
        let (closed, ()) = tokio::join!(closed, later);
        assert!(closed.is_ok(), "the connection of a revoked device stays");
    });
    assert_eq!(server.number("SELECT count(*) FROM heard"), 1);
    server.audit();
}

#[test]
fn connections_that_were_replaced_end_though_they_never_read_that() {
    let server = Server::start(&["--enroll-unknown"]);
    let credential = server.issue("device", "many", &[]);
    runtime().block_on(async {
        let mut all = Vec::new();
        for _ in 0..20 {
            all.push(Raw::connect(&server, &credential, 7, false).await);
        }
        let open = || {
            all.iter()
                .filter(|raw| raw.connection.close_reason().is_none())
        };
        eventually("all but the last are closed", || open().count() == 1).await;
    });
}

#[test]
fn two_columns_of_one_name_are_refused_also_when_the_stream_has_the_field() {
    let server = Server::start(&["--enroll-unknown"]);
    let credential = server.issue("device", "twice", &[]);
    runtime().block_on(async {
        let mut raw = Raw::connect(&server, &credential, 1, true).await;
        let number = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
        let good = columns(&[("v", number(1.0)), ("w", number(2.0))]);
        let (mut quic, mut encoder) = raw.open("doubled", &good).await;
        quic.write_all(&encoder.encode(&good).unwrap())
            .await
            .unwrap();
        assert!(matches!(raw.next().await, Some(ClientEvent::Ack { .. })));
        for second in ["v", "V"] {
            let bad = columns(&[("v", number(3.0)), (second, number(4.0)), ("w", number(5.0))]);
            let (mut quic, mut encoder) = raw.open("doubled", &bad).await;
            quic.write_all(&encoder.encode(&bad).unwrap())
                .await
                .unwrap();
            let said = raw.next().await;
            assert!(
                matches!(&said, Some(ClientEvent::Reject { message, .. }) if message.contains("twice")),
                "{said:?}"
            );
            assert!(matches!(raw.next().await, Some(ClientEvent::Ack { .. })));
        }
    });
    assert_eq!(server.sql("SELECT v, w FROM doubled"), ["1.0,2.0"]);
    server.audit();
}

/// An Arrow IPC stream as a library writes it that keeps dictionaries: `batches` of 700 rows that
/// all stand for the same text of 22,000 bytes, or only the dictionaries of four columns.
fn with_dictionaries(columns_of_text: usize, text: usize, rows: usize, batches: usize) -> Vec<u8> {
    let keys = Int32Array::from(vec![0; rows]);
    let values: ArrayRef = Arc::new(StringArray::from(vec!["y".repeat(text)]));
    let column = DictionaryArray::try_new(keys, values).unwrap();
    let names = ["a", "b", "c", "d"];
    let fields: Vec<(&str, ArrayRef)> = names[..columns_of_text]
        .iter()
        .map(|name| (*name, Arc::new(column.clone()) as ArrayRef))
        .collect();
    let batch = columns(&fields);
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::ZSTD))
        .unwrap();
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    for _ in 0..batches {
        writer.write(&batch).unwrap();
    }
    // Not finished: the QUIC stream stays open.
    writer.flush().unwrap();
    std::mem::take(writer.get_mut())
}

async fn highest(server: &Server, seconds: u32) -> u64 {
    let mut highest = 0;
    for _ in 0..seconds * 10 {
        highest = highest.max(server.resident_bytes());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    highest
}

#[test]
fn keys_that_stand_for_much_text_stay_within_the_memory() {
    let server = Server::start(&["--enroll-unknown", "--ingest-memory", "160MiB"]);
    let credential = server.issue("device", "wordy", &[]);
    let before = server.resident_bytes();
    let grown = runtime().block_on(async {
        let mut all = Vec::new();
        let bytes = with_dictionaries(1, 22_000, 700, 1);
        assert!(bytes.len() < 4_096, "{}", bytes.len());
        for instance in 0..14 {
            let raw = Raw::connect(&server, &credential, instance, true).await;
            for _ in 0..12 {
                all.push(raw.open_raw("wordy", &bytes).await);
            }
            all.push(raw.open_raw("wordy", &bytes).await);
            std::mem::forget(raw);
        }
        highest(&server, 6).await - before
    });
    // Rows up to the limit, and what flushes of them take; without bounds it was gigabytes.
    assert!(grown < 600 << 20, "grew by {} MiB", grown >> 20);
    assert_eq!(server.number("SELECT 1"), 1);
}

#[test]
fn dictionaries_without_a_batch_stay_within_the_memory() {
    let server = Server::start(&["--enroll-unknown", "--ingest-memory", "160MiB"]);
    let credential = server.issue("device", "learned", &[]);
    let before = server.resident_bytes();
    let grown = runtime().block_on(async {
        let mut all = Vec::new();
        let bytes = with_dictionaries(4, 1_000_000, 1, 1);
        assert!(bytes.len() < 4_096, "{}", bytes.len());
        // All but the end of the batch that follows the dictionaries.
        let bytes = &bytes[..bytes.len() - 8];
        for instance in 0..8 {
            let raw = Raw::connect(&server, &credential, instance, true).await;
            for _ in 0..14 {
                all.push(raw.open_raw("learned", bytes).await);
            }
            std::mem::forget(raw);
        }
        highest(&server, 5).await - before
    });
    assert!(grown < 200 << 20, "grew by {} MiB", grown >> 20);
    assert_eq!(server.number("SELECT 1"), 1);
}

#[test]
fn who_announces_much_and_sends_slowly_leaves_room_for_others() {
    let server = Server::start(&["--enroll-unknown", "--ingest-memory", "160MiB"]);
    let slow = server.issue("device", "slow", &[]);
    let quick = server.issue("device", "quick", &[]);
    runtime().block_on(async {
        let raw = Raw::connect(&server, &slow, 1, true).await;
        let noise = |rows: u64, fields: usize| {
            let mut state = 88_172_645_463_325_252_u64;
            let mut column = || -> ArrayRef {
                let values = (0..rows).map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    f64::from_bits(state >> 2)
                });
                Arc::new(Float64Array::from_iter_values(values))
            };
            let names = ["a", "b", "c", "d", "e", "f", "g"];
            let fields: Vec<(&str, ArrayRef)> = names[..fields]
                .iter()
                .map(|name| (*name, column()))
                .collect();
            columns(&fields)
        };
        let large = noise(65_000, 7);
        let mut trickling = Vec::new();
        for _ in 0..14 {
            let (mut quic, mut encoder) = raw.open("slow", &large).await;
            let message = encoder.encode(&large).unwrap();
            quic.write_all(&message[..2_000]).await.unwrap();
            trickling.push((quic, message));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut other = Raw::connect(&server, &quick, 1, true).await;
        let fair = noise(20_000, 2);
        let (mut quic, mut encoder) = other.open("quick", &fair).await;
        quic.write_all(&encoder.encode(&fair).unwrap())
            .await
            .unwrap();
        let trickle = async {
            for byte in 2_000.. {
                tokio::time::sleep(Duration::from_secs(2)).await;
                for (quic, message) in &mut trickling {
                    // Some are closed by and by.
                    let _ = quic.write_all(&message[byte..=byte]).await;
                }
            }
        };
        tokio::select! {
            said = tokio::time::timeout(Duration::from_secs(28), other.next()) => {
                assert!(matches!(said, Ok(Some(ClientEvent::Ack { .. }))), "{said:?}");
            }
            () = trickle => {}
        }
    });
    assert_eq!(server.number("SELECT count(*) FROM quick"), 20_000);
}
