//! Test vectors under `tests/golden/protocol`, and the page that shows them: what the page says
//! is what the code does. After a wanted change: `QUIVER_UPDATE_GOLDEN=1 cargo test -p quiver-protocol`.

use std::{
    env, fs,
    path::PathBuf,
    sync::{Arc, Once},
};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::Schema;
use bytes::Bytes;
use quiver_model::{
    BatchRefusal, DeviceId, Producer, RefusedRows, RejectCode, SenderId, SenderKind, Sequence,
    SessionId,
};
use quiver_protocol::{
    BatchEncoder, ClientConversation, ClientHello, Compression, ConnectionClose,
    ConnectionCloseCode, DecodeLimits, Encoding, Limits, OpenStream, PairState, ServerConversation,
    ServerEvent, ServerRules, StreamCloseCode, TelemetryEvent, decode_compact_batch, decode_schema,
    encode_message, ipc::END_OF_STREAM, limits, message,
};

use crate::support::{batch, events_of_pieces, golden, open_at, readings};

const PRODUCER: Producer = Producer(0x1122_3344_5566_7788);

fn updating() -> bool {
    env::var_os("QUIVER_UPDATE_GOLDEN").is_some()
}

/// Writes the vectors anew, once, if that is wanted.
fn update_vectors() {
    static ONCE: Once = Once::new();
    if !updating() {
        return;
    }
    ONCE.call_once(|| {
        for (name, made) in vectors() {
            fs::write(golden("protocol").join(name), made).unwrap();
        }
        let mut encoder = BatchEncoder::new(&batch(2).schema(), Compression::None).unwrap();
        let parts = [
            open_at(2).encode(),
            encoder.schema_message().unwrap(),
            encoder.encode(&batch(2)).unwrap(),
            Bytes::from_static(&END_OF_STREAM),
        ];
        fs::write(golden("protocol/telemetry.bin"), parts.concat()).unwrap();
        let mut encoder = BatchEncoder::new(&batch(2).schema(), Compression::ZstdMessage).unwrap();
        let parts = [
            compressed_at(2).encode(),
            encoder.schema_message().unwrap(),
            encoder.encode(&batch(2)).unwrap(),
            Bytes::from_static(encoder.encoding().end_of_stream()),
        ];
        fs::write(golden("protocol/telemetry_zstd.bin"), parts.concat()).unwrap();
        for (name, batches) in [
            ("protocol/telemetry_compact.bin", compact_batches()),
            ("protocol/telemetry_compact_times.bin", time_batches()),
        ] {
            let mut encoder =
                BatchEncoder::new(&batches[0].schema(), Compression::Compact).unwrap();
            let mut parts = vec![compact_at(2).encode(), encoder.schema_message().unwrap()];
            let batches = batches.iter();
            parts.extend(batches.map(|batch| encoder.encode_next(batch).unwrap()));
            parts.push(Bytes::from_static(encoder.encoding().end_of_stream()));
            fs::write(golden(name), parts.concat()).unwrap();
        }
    });
}

fn page_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md")
}

fn sent_by(server: &mut ServerConversation) -> Vec<u8> {
    server.poll_transmit().expect("bytes to send").to_vec()
}

/// Every vector that the code makes: file name and content.
fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let mut client = ClientConversation::new(ClientHello {
        instance: 0x0102_0304_0506_0708,
        client: "example/1.0".to_owned(),
        last_acks: vec![((PRODUCER, readings()), Sequence(2))],
        ..Default::default()
    });
    let hello = client.poll_transmit().unwrap().to_vec();
    let mut with_token = ClientConversation::new(ClientHello {
        instance: 0x0102_0304_0506_0708,
        token: Some((DeviceId::new("truck_1").unwrap(), "secret".to_owned())),
        ..Default::default()
    });
    let mut server = ServerConversation::new(
        Some(SenderId::device(DeviceId::new("truck_1").unwrap())),
        ServerRules::default(),
    );
    server.handle_bytes(Bytes::from(hello.clone()));
    assert!(matches!(server.poll_event(), Some(ServerEvent::Hello(_))));
    let rejected = BatchRefusal::new(
        RejectCode::TypeConflict,
        "field coolant_temp is float64, not utf8",
    );
    let pair = PairState {
        next_sequence: Sequence(4),
        known: true,
        rejects: vec![(Sequence(3), rejected.clone())],
        rejects_total: 1,
        refused_rows: RefusedRows::default(),
    };
    server.welcome(
        Limits::for_sender(SenderKind::Device),
        SessionId(7),
        "quiver/0.1.0",
        vec![pair],
    );
    let welcome = sent_by(&mut server);
    server.ack(PRODUCER, &readings(), Sequence(5), &RefusedRows::default());
    let ack = sent_by(&mut server);
    let refused_rows = [
        (RejectCode::FutureTimestamp, 2),
        (RejectCode::NotEnrolled, 300),
    ];
    server.ack(
        PRODUCER,
        &readings(),
        Sequence(5),
        &refused_rows.into_iter().collect(),
    );
    let ack_refused_rows = sent_by(&mut server);
    server.reject(PRODUCER, &readings(), Sequence(6), &rejected);
    let reject = sent_by(&mut server);
    let text = "expected first_sequence 7 or lower, got 9";
    server.stream_closed(
        6,
        Some((PRODUCER, &readings())),
        Sequence(7),
        StreamCloseCode::Gap,
        0,
        text,
    );
    let stream_closed = sent_by(&mut server);
    server.bye(
        &ConnectionClose::new(ConnectionCloseCode::ShuttingDown, "the server restarts"),
        2000,
    );
    let bye = sent_by(&mut server);
    vec![
        ("hello.bin", hello),
        (
            "hello_token.bin",
            with_token.poll_transmit().unwrap().to_vec(),
        ),
        ("welcome.bin", welcome),
        ("ack.bin", ack),
        ("ack_refused_rows.bin", ack_refused_rows),
        ("reject.bin", reject),
        ("stream_closed.bin", stream_closed),
        ("bye.bin", bye),
        ("unknown_member.bin", vec![4, 0x7a, 2, 0x08, 0x01]),
        ("open_stream.bin", open_at(2).encode().to_vec()),
        (
            "open_stream_lost.bin",
            encode_message(&message::OpenStream {
                stream: "readings".to_owned(),
                producer: PRODUCER.get(),
                first_sequence: 9,
                lost_before: 9,
                encoding: 1,
                ack_level: 0,
                replayed: true,
            })
            .to_vec(),
        ),
    ]
}

#[test]
fn the_vectors_are_what_the_code_sends() {
    update_vectors();
    for (name, made) in vectors() {
        let path = golden("protocol").join(name);
        assert_eq!(
            fs::read(&path).unwrap(),
            made,
            "{name} has changed; set QUIVER_UPDATE_GOLDEN=1 if that is wanted"
        );
    }
    for (name, _) in vectors() {
        // A control vector is whole: a length, and as many bytes.
        let bytes = fs::read(golden("protocol").join(name)).unwrap();
        assert_eq!(
            prost::decode_length_delimiter(&bytes[..]).unwrap() + prefix_length(bytes.len()),
            bytes.len(),
            "{name}"
        );
    }
}

fn prefix_length(whole: usize) -> usize {
    if whole <= 128 { 1 } else { 2 }
}

fn compressed_at(first: u64) -> OpenStream {
    OpenStream {
        encoding: Encoding::ArrowZstd,
        ..open_at(first)
    }
}

fn compact_at(first: u64) -> OpenStream {
    OpenStream {
        encoding: Encoding::Compact,
        ..open_at(first)
    }
}

/// The two rows of the other vectors; the row after them; and one with a value that is no decimal
/// and a text that is missing.
fn compact_batches() -> [RecordBatch; 3] {
    let fields = batch(2)
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let is_nullable = field.name() == "driver";
            field.as_ref().clone().with_nullable(is_nullable)
        })
        .collect::<Vec<_>>();
    let schema = Arc::new(Schema::new(fields));
    let row = |seconds: i64, value: f64, driver: Option<&str>| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(
                TimestampMicrosecondArray::from(vec![1_700_000_000_000_000 + seconds * 1_000_000])
                    .with_timezone("UTC"),
            ),
            Arc::new(Float64Array::from(vec![value])),
            Arc::new(StringArray::from(vec![driver])),
        ];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    };
    [
        RecordBatch::try_new(schema.clone(), batch(2).columns().to_vec()).unwrap(),
        row(2, 80.4, Some("driver 1")),
        row(3, -0.0, None),
    ]
}

/// Rows with a time beside the event time: two in whole milliseconds, the second before 1970; one
/// without; one by the microsecond.
fn time_batches() -> [RecordBatch; 3] {
    let times = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let of = |seconds: &[i64], opened: &[Option<i64>]| {
        let ts = seconds
            .iter()
            .map(|at| 1_700_000_000_000_000 + at * 1_000_000);
        let ts = times(ts.map(Some).collect());
        let columns = [("ts", ts, false), ("opened", times(opened.to_vec()), true)];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    [
        of(&[0, 1], &[Some(1_699_999_980_000_000), Some(-1_000_000)]),
        of(&[2], &[None]),
        of(&[3], &[Some(1_699_999_990_123_456)]),
    ]
}

#[test]
fn the_compact_vectors_decode_to_their_batches() {
    update_vectors();
    decodes_compactly("protocol/telemetry_compact.bin", &compact_batches());
    decodes_compactly("protocol/telemetry_compact_times.bin", &time_batches());
}

fn decodes_compactly(vector: &str, expected: &[RecordBatch]) {
    let sent = fs::read(golden(vector)).unwrap();
    for piece in [1, 7, sent.len()] {
        let (_, events) = events_of_pieces(sent.chunks(piece));
        let [
            TelemetryEvent::Open(open),
            TelemetryEvent::Schema(schema),
            batches @ ..,
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!(*open, compact_at(2));
        assert_eq!(batches.len(), expected.len(), "{batches:?}");
        let stored = decode_schema(&schema.message, &DecodeLimits::STORED).unwrap();
        for (at, (event, wanted)) in batches.iter().zip(expected).enumerate() {
            let TelemetryEvent::Batch(received) = event else {
                panic!("{event:?}")
            };
            // Debug text shows the sign of 0.
            let shown = |batch: &RecordBatch| format!("{:?}", batch.columns());
            assert_eq!(received.sequence, Sequence(2 + at as u64));
            assert_eq!(shown(&received.batch), shown(wanted));
            let read = decode_compact_batch(&stored, &received.message, &DecodeLimits::STORED);
            assert_eq!(shown(&read.unwrap()), shown(wanted));
        }
    }
}

#[test]
fn the_telemetry_vectors_decode_to_two_rows() {
    update_vectors();
    decodes_to_two_rows("protocol/telemetry.bin", open_at(2));
    decodes_to_two_rows("protocol/telemetry_zstd.bin", compressed_at(2));
}

fn decodes_to_two_rows(vector: &str, opened: OpenStream) {
    let path = golden(vector);
    let (_, events) = events_of_pieces([fs::read(path).unwrap().as_slice()]);
    let [
        TelemetryEvent::Open(open),
        TelemetryEvent::Schema(_),
        TelemetryEvent::Batch(received),
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(*open, opened);
    assert_eq!(
        (received.sequence, &received.batch),
        (Sequence(2), &batch(2))
    );
}

/// 16 bytes a line: offset, hex, text.
fn hex_dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = line
            .iter()
            .map(|byte| {
                if (0x20..0x7f).contains(byte) {
                    *byte as char
                } else {
                    '.'
                }
            })
            .collect();
        dump += &format!("{:04x}  {:<47}  {text}\n", index * 16, hex.join(" "));
    }
    dump
}

fn limits_table() -> String {
    let device = Limits::for_sender(SenderKind::Device);
    let gateway = Limits::for_sender(SenderKind::Gateway);
    let mut table = "| limit | value | in `Welcome.limits` |\n|---|---|---|\n".to_owned();
    let rows: [(&str, String, &str); 24] = [
        (
            "live telemetry QUIC streams",
            format!(
                "{} for devices, {} for gateways and operators",
                device.quic_streams, gateway.quic_streams
            ),
            "`quic_streams`",
        ),
        (
            "control message, without its length",
            limits::CONTROL_MESSAGE_BYTES_MAX.to_string(),
            "`control_message_bytes`",
        ),
        (
            "`OpenStream`, without its length",
            limits::OPEN_STREAM_BYTES_MAX.to_string(),
            "",
        ),
        (
            "pairs in `Hello.last_acks`",
            limits::LAST_ACKS_MAX.to_string(),
            "`last_acks`",
        ),
        (
            "`Hello.token`, bytes",
            limits::TOKEN_BYTES_MAX.to_string(),
            "",
        ),
        (
            "`Hello.client`, bytes",
            limits::SOFTWARE_BYTES_MAX.to_string(),
            "",
        ),
        (
            "rejects in one `Welcome`",
            limits::RESUME_REJECTS_MAX.to_string(),
            "",
        ),
        (
            "counts of refused rows in one `Welcome`",
            limits::RESUME_REFUSED_ROWS_MAX.to_string(),
            "",
        ),
        (
            "`first_sequence`",
            format!("{} (2^62)", limits::SEQUENCE_MAX),
            "",
        ),
        (
            "metadata of an Arrow IPC message, bytes",
            limits::IPC_METADATA_BYTES_MAX.to_string(),
            "`ipc_metadata_bytes`",
        ),
        (
            "body of a record batch as sent, bytes",
            limits::BATCH_BODY_BYTES_MAX.to_string(),
            "`batch_body_bytes`",
        ),
        (
            "record batch decompressed, dictionaries expanded, bytes",
            limits::BATCH_DECODED_BYTES_MAX.to_string(),
            "`batch_decoded_bytes`",
        ),
        (
            "rows of a batch",
            limits::BATCH_ROWS_MAX.to_string(),
            "`batch_rows`",
        ),
        (
            "columns of a batch",
            limits::BATCH_COLUMNS_MAX.to_string(),
            "`batch_columns`",
        ),
        (
            "one dictionary, as sent and decompressed, bytes",
            limits::DICTIONARY_BYTES_MAX.to_string(),
            "`dictionary_bytes`",
        ),
        (
            "values of one dictionary",
            limits::DICTIONARY_VALUES_MAX.to_string(),
            "`dictionary_values`",
        ),
        (
            "connections of one identity, each of another `Hello.instance`",
            format!(
                "{} for devices, {} for gateways and operators",
                limits::DEVICE_CONNECTIONS_MAX,
                limits::GATEWAY_CONNECTIONS_MAX
            ),
            "",
        ),
        (
            "all dictionaries of a QUIC stream, bytes",
            limits::DICTIONARIES_BYTES_MAX.to_string(),
            "",
        ),
        (
            "dictionary messages without a batch between",
            limits::DICTIONARY_MESSAGES_MAX.to_string(),
            "",
        ),
        (
            "decompressed size over body, beyond 1 MiB",
            format!("{} : 1", limits::DECOMPRESSION_RATIO_MAX),
            "",
        ),
        (
            "texts that a column of the compact encoding remembers",
            limits::COMPACT_TEXTS_MAX.to_string(),
            "",
        ),
        (
            "a text that the compact encoding remembers, bytes",
            limits::COMPACT_TEXT_BYTES_MAX.to_string(),
            "",
        ),
        (
            "texts that a QUIC stream of the compact encoding remembers, bytes, 32 more for each",
            limits::COMPACT_TEXTS_BYTES_MAX.to_string(),
            "",
        ),
        (
            "text of a `message` field sent by the server, bytes",
            limits::MESSAGE_TEXT_BYTES_MAX.to_string(),
            "",
        ),
    ];
    for (what, value, field) in rows {
        table += &format!("| {what} | {value} | {field} |\n");
    }
    table
}

fn stream_codes() -> String {
    let mut table = "| number | name | what to do |\n|---|---|---|\n".to_owned();
    for code in StreamCloseCode::ALL {
        table += &format!("| {} | `{code}` | {} |\n", code.number(), code.remedy());
    }
    table
}

fn connection_codes() -> String {
    let mut table = "| number | name | what to do |\n|---|---|---|\n".to_owned();
    for code in ConnectionCloseCode::ALL {
        table += &format!("| {} | `{code}` | {} |\n", code.number(), code.remedy());
    }
    table
}

/// What belongs between `<!-- name -->` and `<!-- /name -->` on the page.
fn generated(name: &str) -> String {
    match name {
        "table limits" => limits_table(),
        "table stream codes" => stream_codes(),
        "table connection codes" => connection_codes(),
        _ => {
            let file = name
                .strip_prefix("vector ")
                .unwrap_or_else(|| panic!("nothing generates {name:?}"));
            let bytes = fs::read(golden("protocol").join(file)).unwrap();
            format!(
                "`tests/golden/protocol/{file}`, {} bytes:\n```text\n{}```\n",
                bytes.len(),
                hex_dump(&bytes)
            )
        }
    }
}

#[test]
fn the_page_shows_what_the_code_does() {
    update_vectors();
    let page = fs::read_to_string(page_path()).unwrap();
    let mut made = String::new();
    let mut rest = page.as_str();
    let mut blocks = 0;
    while let Some(start) = rest.find("<!-- begin ") {
        let after = start + rest[start..].find("-->").expect("a comment ends") + 3;
        let name = &rest[start + "<!-- begin ".len()..after - 4];
        let end_marker = format!("<!-- end {name} -->");
        let end = after
            + rest[after..]
                .find(&end_marker)
                .unwrap_or_else(|| panic!("{end_marker} is missing"));
        made += &rest[..after];
        made += "\n";
        made += &generated(name);
        rest = &rest[end..];
        blocks += 1;
    }
    made += rest;
    if updating() {
        fs::write(page_path(), &made).unwrap();
    } else {
        for (number, (shown, wanted)) in page.lines().zip(made.lines()).enumerate() {
            assert_eq!(
                shown,
                wanted,
                "line {} of docs/protocol.md; set QUIVER_UPDATE_GOLDEN=1 if that is wanted",
                number + 1
            );
        }
        assert_eq!(page.lines().count(), made.lines().count());
    }
    assert!(blocks >= 12, "{blocks} generated blocks");
    for code in RejectCode::ALL {
        let row = format!("| {} | `{code}` |", code.number());
        assert!(
            page.contains(&row),
            "reject code {code} is missing on the page: {row}"
        );
    }
    for column in quiver_model::RESERVED_COLUMNS {
        assert!(page.contains(&format!("`{column}`")), "{column}");
    }
}
