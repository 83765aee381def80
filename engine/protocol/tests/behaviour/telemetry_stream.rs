//! A telemetry QUIC stream.

use std::sync::Arc;

use arrow_array::{ArrayRef, Date32Array, RecordBatch, cast::AsArray, types::Float64Type};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use quiver_model::{RejectCode, Sequence};
use quiver_protocol::{
    AckLevel, BatchEncoder, Compression, DecodeLimits, EncodeError, Encoding, OpenStream,
    StreamCloseCode, StreamRefusal, TelemetryDecoder, TelemetryEvent, decode_batch,
    decode_compressed_batch, decode_schema, encode_message,
    ipc::END_OF_STREAM,
    limits::{BATCH_BODY_BYTES_MAX, BATCH_COLUMNS_MAX, BATCH_ROWS_MAX},
    message,
};

use crate::support::{batch, batches, events_of_ipc, events_of_pieces, golden, open_at};

/// Schema, two batches and the end marker.
fn stream() -> Vec<Bytes> {
    let mut encoder = BatchEncoder::new(&batch(1).schema(), Compression::Lz4).unwrap();
    vec![
        encoder.schema_message().unwrap(),
        encoder.encode(&batch(3)).unwrap(),
        encoder.encode(&batch(200)).unwrap(),
        Bytes::from_static(&END_OF_STREAM),
    ]
}

fn refused(event: &TelemetryEvent) -> &StreamRefusal {
    match event {
        TelemetryEvent::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn batches_come_out_with_their_sequences_and_the_bytes_that_were_sent() {
    let sent = stream();
    let open = OpenStream {
        ack_level: AckLevel::Received,
        replayed: true,
        lost_before: Sequence(40),
        ..open_at(41)
    };
    let pieces = std::iter::once(open.encode())
        .chain(sent.clone())
        .collect::<Vec<_>>();
    let (mut decoder, mut events) = events_of_pieces(pieces.iter().map(|piece| &**piece));
    decoder.handle_end();
    events.extend(std::iter::from_fn(|| decoder.poll_event()));
    let [
        TelemetryEvent::Open(opened),
        TelemetryEvent::Schema(schema),
        TelemetryEvent::Batch(first),
        TelemetryEvent::Batch(second),
        TelemetryEvent::Ended { partial_bytes: 0 },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(*opened, open);
    assert_eq!((first.index, first.sequence), (0, Sequence(41)));
    assert_eq!((second.index, second.sequence), (1, Sequence(42)));
    assert_eq!((&first.message, &second.message), (&sent[1], &sent[2]));
    assert_eq!(schema.message, sent[0]);
    assert_eq!(first.batch, batch(3));
    assert_eq!(second.batch, batch(200));

    // What the log keeps decodes on its own.
    assert!(schema.self_contained && second.self_contained);
    let replayed_schema = decode_schema(&schema.message, &DecodeLimits::STORED).unwrap();
    assert_eq!(
        decode_batch(&replayed_schema, &second.message, &DecodeLimits::STORED).unwrap(),
        batch(200)
    );
}

#[test]
fn the_pieces_in_which_bytes_arrive_do_not_matter() {
    let bytes: Vec<u8> = std::iter::once(open_at(0).encode())
        .chain(stream())
        .flatten()
        .collect();
    let whole = format!("{:?}", events_of_pieces([bytes.as_slice()]).1);
    for size in [1, 2, 3, 7, 8, 64, 1000] {
        assert_eq!(
            format!("{:?}", events_of_pieces(bytes.chunks(size)).1),
            whole,
            "in pieces of {size}"
        );
    }
}

#[test]
fn an_end_inside_a_batch_sends_nothing_of_it() {
    let sent: Vec<u8> = stream().concat();
    let cut = &sent[..sent.len() - END_OF_STREAM.len() - 1];
    let events = events_of_ipc(cut);
    let [
        ..,
        TelemetryEvent::Batch(last),
        TelemetryEvent::Ended { partial_bytes },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(last.index, 0);
    assert!(*partial_bytes > 0);
}

#[test]
fn an_open_stream_that_cannot_be_obeyed_is_refused_without_a_batch() {
    let good = message::OpenStream {
        stream: "readings".to_owned(),
        producer: 1,
        first_sequence: 5,
        encoding: 1,
        ..Default::default()
    };
    use StreamCloseCode::{BadOpen, NotAllowed};
    for (open, code) in [
        (
            message::OpenStream {
                stream: "Readings".to_owned(),
                ..good.clone()
            },
            BadOpen,
        ),
        (
            message::OpenStream {
                stream: String::new(),
                ..good.clone()
            },
            BadOpen,
        ),
        (
            message::OpenStream {
                stream: "alerts".to_owned(),
                ..good.clone()
            },
            NotAllowed,
        ),
        (
            message::OpenStream {
                stream: "rejects".to_owned(),
                ..good.clone()
            },
            NotAllowed,
        ),
        (
            message::OpenStream {
                stream: "quiver_control".to_owned(),
                ..good.clone()
            },
            NotAllowed,
        ),
        (
            message::OpenStream {
                lost_before: 6,
                ..good.clone()
            },
            BadOpen,
        ),
        (
            message::OpenStream {
                first_sequence: u64::MAX,
                ..good.clone()
            },
            BadOpen,
        ),
        (
            message::OpenStream {
                encoding: 0,
                ..good.clone()
            },
            BadOpen,
        ),
        (
            message::OpenStream {
                encoding: 4,
                ..good.clone()
            },
            BadOpen,
        ),
        (
            message::OpenStream {
                ack_level: 2,
                ..good.clone()
            },
            BadOpen,
        ),
        (
            message::OpenStream {
                stream: "x".repeat(2000),
                ..good.clone()
            },
            BadOpen,
        ),
    ] {
        let (_, events) = events_of_pieces([&*encode_message(&open)]);
        assert_eq!(events.len(), 1, "{open:?}");
        let refusal = refused(&events[0]);
        assert_eq!((refusal.code, &refusal.reject), (code, &None), "{open:?}");
    }
    assert!(matches!(
        events_of_pieces([&*encode_message(&good)]).1.as_slice(),
        [TelemetryEvent::Open(_)]
    ));
}

#[test]
fn a_batch_that_is_wrong_inside_consumes_its_sequence_and_the_stream_goes_on() {
    let sent = stream();
    let good = sent[1].to_vec();
    let mut broken = 0;
    for position in 8..good.len() {
        let mut changed = good.clone();
        changed[position] ^= 0x40;
        let ipc = [&sent[0][..], &changed, &sent[2]].concat();
        let events = events_of_ipc(&ipc);
        if let [
            _,
            _,
            TelemetryEvent::BadBatch {
                index,
                sequence,
                refusal,
            },
            TelemetryEvent::Batch(next),
            _,
        ] = events.as_slice()
        {
            assert_eq!((*index, *sequence), (0, Sequence(0)));
            assert!(
                matches!(
                    refusal.code,
                    RejectCode::MalformedBatch | RejectCode::BatchTooLarge
                ),
                "{refusal:?}"
            );
            assert_eq!((next.index, &next.batch), (1, &batch(200)));
            broken += 1;
        }
    }
    assert!(
        broken > 10,
        "{broken} changes broke the batch and not its frame"
    );
}

#[test]
fn bytes_that_are_no_message_reject_the_batch_in_whose_place_they_stand() {
    let sent = stream();
    let schema_and_batch = [&sent[0][..], &sent[1]].concat();
    let mut huge = vec![0xff; 4];
    huge.extend(i32::MAX.to_le_bytes());
    let unverifiable = [&[0xff; 4][..], &16_i32.to_le_bytes(), &[0xee; 16]].concat();
    for (tail, code) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), StreamCloseCode::Framing),
        (b"G".to_vec(), StreamCloseCode::Framing),
        (b"ARROW1\0\0".to_vec(), StreamCloseCode::Framing),
        (unverifiable, StreamCloseCode::Framing),
        (sent[0].to_vec(), StreamCloseCode::Framing),
        (huge, StreamCloseCode::TooLarge),
        (
            [&END_OF_STREAM[..], &sent[2]].concat(),
            StreamCloseCode::Framing,
        ),
    ] {
        let events = events_of_ipc(&[schema_and_batch.clone(), tail].concat());
        let [_, _, TelemetryEvent::Batch(_), last] = events.as_slice() else {
            panic!("{events:?}")
        };
        let refusal = refused(last);
        assert_eq!(refusal.code, code);
        assert_eq!(
            refusal.reject.as_ref().map(|(sequence, _)| *sequence),
            Some(Sequence(1))
        );
    }
    // In place of the schema: batch 0, so that a client that tries again does not do so for ever.
    let events = events_of_ipc(&sent[1]);
    assert_eq!(
        refused(events.last().unwrap()).reject.as_ref().unwrap().0,
        Sequence(0)
    );
}

#[test]
fn an_oversized_body_is_refused_by_its_announcement() {
    let column: ArrayRef = Arc::new(arrow_array::Float64Array::from(vec![0.5; BATCH_ROWS_MAX]));
    let wide =
        RecordBatch::try_from_iter((0..9).map(|index| (format!("c{index}"), Arc::clone(&column))))
            .unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &wide.schema()).unwrap();
    writer.write(&wide).unwrap();
    let ipc = writer.into_inner().unwrap();
    assert!(ipc.len() > BATCH_BODY_BYTES_MAX);
    // Nothing of the body is needed for the answer.
    let events = events_of_ipc(&ipc[..8192]);
    let refusal = refused(events.last().unwrap());
    assert_eq!(refusal.code, StreamCloseCode::TooLarge);
    assert_eq!(
        refusal.reject.as_ref().unwrap().1.code,
        RejectCode::BatchTooLarge
    );
}

#[test]
fn a_batch_with_too_many_rows_is_rejected_alone() {
    let column: ArrayRef = Arc::new(arrow_array::Int8Array::from(vec![1; BATCH_ROWS_MAX + 1]));
    let long = RecordBatch::try_from_iter([("c", column)]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &long.schema()).unwrap();
    writer.write(&long).unwrap();
    writer.write(&long.slice(0, BATCH_ROWS_MAX)).unwrap();
    let events = events_of_ipc(&writer.into_inner().unwrap());
    let [
        _,
        _,
        TelemetryEvent::BadBatch { refusal, .. },
        TelemetryEvent::Batch(_),
        _,
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(refusal.code, RejectCode::BatchTooLarge);
}

#[test]
fn a_schema_that_quiver_does_not_store_rejects_each_batch_and_keeps_the_stream() {
    let dates =
        RecordBatch::try_from_iter([("d", Arc::new(Date32Array::from(vec![1, 2])) as ArrayRef)])
            .unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &dates.schema()).unwrap();
    writer.write(&dates).unwrap();
    writer.write(&dates).unwrap();
    let events = events_of_ipc(&writer.into_inner().unwrap());
    let [
        TelemetryEvent::Open(_),
        TelemetryEvent::BadBatch {
            index: 0, refusal, ..
        },
        TelemetryEvent::BadBatch { index: 1, .. },
        TelemetryEvent::Ended { .. },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(refusal.code, RejectCode::UnsupportedType);
    assert!(
        refusal.message.contains("\"d\"") && refusal.message.contains("Date"),
        "{refusal}"
    );
}

#[test]
fn the_widest_schema_passes_and_one_column_more_does_not() {
    let wide = |columns: usize| {
        let fields: Vec<_> = (0..columns)
            .map(|index| Field::new(format!("f{index:062}"), DataType::Utf8, true))
            .collect();
        let batch = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        events_of_ipc(&writer.into_inner().unwrap())
    };
    assert_eq!(
        batches(&wide(BATCH_COLUMNS_MAX))[0].num_columns(),
        BATCH_COLUMNS_MAX
    );
    let events = wide(BATCH_COLUMNS_MAX + 1);
    let [_, TelemetryEvent::BadBatch { refusal, .. }, _] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(refusal.code, RejectCode::BatchTooLarge);
}

#[test]
fn the_encoder_refuses_what_the_server_would_refuse() {
    let small = batch(1);
    let mut encoder = BatchEncoder::new(&small.schema(), Compression::None).unwrap();
    let too_long = batch(BATCH_ROWS_MAX as i64 + 1);
    assert!(matches!(
        encoder.encode(&too_long),
        Err(EncodeError::TooLarge { what: "rows", .. })
    ));
    assert!(encoder.encode(&batch(BATCH_ROWS_MAX as i64)).is_ok());
    let other = RecordBatch::try_from_iter([("x", small.column(0).clone())]).unwrap();
    assert_eq!(encoder.encode(&other), Err(EncodeError::OtherSchema));
    let dates = Schema::new(vec![Field::new("d", DataType::Date32, true)]);
    assert!(matches!(
        BatchEncoder::new(&Arc::new(dates), Compression::None),
        Err(EncodeError::UnsupportedType { .. })
    ));
}

#[test]
fn nothing_comes_out_after_the_last_event() {
    let mut decoder = TelemetryDecoder::default();
    decoder.handle_bytes(open_at(0).encode());
    decoder.handle_bytes(Bytes::from_static(b"nonsense"));
    let events: Vec<_> = std::iter::from_fn(|| decoder.poll_event()).collect();
    assert!(matches!(
        events.as_slice(),
        [TelemetryEvent::Open(_), TelemetryEvent::Refused(_)]
    ));
    decoder.handle_bytes(stream().concat().into());
    decoder.handle_end();
    assert!(decoder.poll_event().is_none());
    assert_eq!(decoder.pending_bytes(), 0);
}

/// Events of a QUIC stream of compressed messages, in pieces of `piece` bytes.
fn events_of_compressed(messages: &[u8], piece: usize) -> Vec<TelemetryEvent> {
    let open = OpenStream {
        encoding: Encoding::ArrowZstd,
        ..open_at(0)
    };
    let sent = [&open.encode()[..], messages].concat();
    let (mut decoder, mut events) = events_of_pieces(sent.chunks(piece));
    decoder.handle_end();
    events.extend(std::iter::from_fn(|| decoder.poll_event()));
    events
}

/// Schema, two batches and the end, each compressed.
fn compressed() -> Vec<Bytes> {
    let mut encoder = BatchEncoder::new(&batch(1).schema(), Compression::ZstdMessage).unwrap();
    vec![
        encoder.schema_message().unwrap(),
        encoder.encode(&batch(3)).unwrap(),
        encoder.encode(&batch(20_000)).unwrap(),
        Bytes::from_static(encoder.encoding().end_of_stream()),
    ]
}

#[test]
fn compressed_messages_come_out_in_any_pieces_and_the_log_keeps_them_as_they_are() {
    let sent = compressed();
    assert_eq!(Encoding::of_schema_message(&sent[0]), Encoding::ArrowZstd);
    assert_eq!(Encoding::of_schema_message(&stream()[0]), Encoding::Arrow);
    for piece in [1, 61, 1 << 20] {
        let events = events_of_compressed(&sent.concat(), piece);
        let [
            TelemetryEvent::Open(_),
            TelemetryEvent::Schema(schema),
            TelemetryEvent::Batch(first),
            TelemetryEvent::Batch(second),
            TelemetryEvent::Ended { partial_bytes: 0 },
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!((&first.batch, &second.batch), (&batch(3), &batch(20_000)));
        assert_eq!(
            (&first.message, first.encoding),
            (&sent[1], Encoding::ArrowZstd)
        );
        // The schema is the same as without compression: the log has it once.
        let plain = BatchEncoder::new(&batch(1).schema(), Compression::None).unwrap();
        assert_eq!(schema.message, plain.schema_message().unwrap());
        let stored = decode_schema(&schema.message, &DecodeLimits::STORED).unwrap();
        let read = decode_compressed_batch(&stored, &second.message, &DecodeLimits::STORED);
        assert_eq!(read.unwrap().columns(), batch(20_000).columns());
    }
    let mut plain = BatchEncoder::new(&batch(1).schema(), Compression::None).unwrap();
    assert!(sent[2].len() * 3 < plain.encode(&batch(20_000)).unwrap().len());
}

#[test]
fn compressed_messages_that_are_not_what_they_announce_end_the_quic_stream() {
    let sent = compressed();
    let refused_with = |messages: &[u8]| {
        let events = events_of_compressed(messages, 4_096);
        let Some(TelemetryEvent::Refused(refusal)) = events.last() else {
            panic!("{events:?}")
        };
        (refusal.code, refusal.reject.as_ref().unwrap().0)
    };
    let lengths =
        |compressed: u32, raw: u32| [compressed.to_le_bytes(), raw.to_le_bytes()].concat();
    // More than is allowed, before a byte of it is there.
    for announced in [
        lengths(u32::MAX, 100),
        lengths(100, u32::MAX),
        lengths(1_000, (1 << 20) + 1),
    ] {
        let messages = [&sent[0][..], &sent[1][..], &announced].concat();
        assert_eq!(
            refused_with(&messages),
            (StreamCloseCode::TooLarge, Sequence(1))
        );
    }
    // Uncompressed Arrow, two messages in one frame, a frame that is cut, garbage.
    let two = [&stream()[0][..], &stream()[0][..]].concat();
    let two = zstd::bulk::compress(&two, 1).unwrap();
    let raw = 2 * stream()[0].len() as u32;
    let two = [&lengths(two.len() as u32, raw)[..], &two].concat();
    assert_eq!(refused_with(&stream()[0]).0, StreamCloseCode::TooLarge);
    assert_eq!(refused_with(&two), (StreamCloseCode::Framing, Sequence(0)));
    let mut cut = sent[1].to_vec();
    cut.truncate(cut.len() - 1);
    let length = u32::from_le_bytes(cut[..4].try_into().unwrap()) - 1;
    cut[..4].copy_from_slice(&length.to_le_bytes());
    let messages = [&sent[0][..], &cut].concat();
    assert_eq!(
        refused_with(&messages),
        (StreamCloseCode::Framing, Sequence(0))
    );
    let garbage = [&lengths(16, 64)[..], &[7; 16]].concat();
    assert_eq!(refused_with(&garbage).0, StreamCloseCode::Framing);
    // Behind the end nothing may follow.
    let messages = [sent.concat(), sent[1].to_vec()].concat();
    assert_eq!(
        refused_with(&messages),
        (StreamCloseCode::Framing, Sequence(2))
    );
}

/// Events of a QUIC stream of compact payloads.
fn events_of_compact(payloads: &[u8]) -> Vec<TelemetryEvent> {
    let open = OpenStream {
        encoding: Encoding::Compact,
        ..open_at(0)
    };
    let (mut decoder, mut events) = events_of_pieces([&open.encode()[..], payloads]);
    decoder.handle_end();
    events.extend(std::iter::from_fn(|| decoder.poll_event()));
    events
}

#[test]
fn a_compact_batch_that_cannot_be_decoded_is_rejected_and_ends_the_quic_stream() {
    let mut encoder = BatchEncoder::new(&batch(1).schema(), Compression::Compact).unwrap();
    let schema = encoder.schema_message().unwrap();
    assert_eq!(Encoding::of_schema_message(&schema), Encoding::Compact);
    let [first, second, third] = [3, 1, 2].map(|rows| encoder.encode_next(&batch(rows)).unwrap());
    // The second names a text that was not told.
    let mut broken = second.to_vec();
    *broken.last_mut().unwrap() = 0x70;
    let events = events_of_compact(&[&schema[..], &first, &broken, &third].concat());
    let [
        TelemetryEvent::Open(_),
        TelemetryEvent::Schema(_),
        TelemetryEvent::Batch(_),
        refusal,
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    let refusal = refused(refusal);
    assert_eq!(refusal.code, StreamCloseCode::Framing);
    let (sequence, reject) = refusal.reject.as_ref().unwrap();
    assert_eq!(
        (*sequence, reject.code),
        (Sequence(1), RejectCode::MalformedBatch)
    );
    assert!(reject.message.contains("\"driver\""), "{reject}");
    // One that refers to others cannot come first.
    let events = events_of_compact(&[&schema[..], &second].concat());
    assert_eq!(
        refused(events.last().unwrap()).code,
        StreamCloseCode::Framing
    );
    // A schema that cannot be stored refuses each batch, as with the other encodings.
    let dates = Arc::new(Schema::new(vec![Field::new("d", DataType::Date32, true)]));
    let options = arrow_ipc::writer::IpcWriteOptions::default();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &dates, options).unwrap();
    writer.finish().unwrap();
    let message = writer.into_inner().unwrap();
    let message = &message[..message.len() - 8];
    let mut sent = Vec::new();
    prost::encoding::encode_varint(message.len() as u64, &mut sent);
    sent.extend_from_slice(message);
    sent.extend_from_slice(&[2, 9, 0, 2, 9, 0, 0]);
    let events = events_of_compact(&sent);
    let bad = |event: &&TelemetryEvent| matches!(event, TelemetryEvent::BadBatch { .. });
    assert_eq!(events.iter().filter(bad).count(), 2, "{events:?}");
}

#[test]
fn what_the_python_client_sends_in_the_compact_encoding_is_read() {
    let sent = std::fs::read(golden("compact/python.bin")).unwrap();
    let events = events_of_compact(&sent);
    let batches = batches(&events);
    let sizes: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [vec![8], vec![1; 16], vec![8, 0]].concat());
    let whole = &batches[0];
    for (row, batch) in batches[1..17].iter().enumerate() {
        assert_eq!(*batch, whole.slice(row % 8, 1), "row {row}");
    }
    assert_eq!(&batches[17], whole);
    let floats = |name: &str| {
        let column = whole.column_by_name(name).unwrap();
        column.as_primitive::<Float64Type>().values().to_vec()
    };
    let rows = (0..8).map(f64::from);
    assert_eq!(floats("row"), rows.clone().collect::<Vec<_>>());
    assert_eq!(
        floats("tenth"),
        rows.map(|row| row / 10.0).collect::<Vec<_>>()
    );
    let texts = whole.column_by_name("text").unwrap().as_string::<i32>();
    assert_eq!(texts.value(7), "row 7");
    assert_eq!(floats("f64")[1].to_bits(), (-0.0_f64).to_bits());
}
