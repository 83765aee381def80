//! A telemetry QUIC stream after its `OpenStream`: an Arrow IPC stream, its messages compressed one
//! by one, or compact payloads, from a hostile peer.

use bytes::Bytes;
use quiver_model::{Producer, Sequence, StreamName};
use quiver_protocol::{
    DecodeLimits, Encoding, OpenStream, TelemetryDecoder, TelemetryEvent, decode_batch,
    decode_compact_batch, decode_compressed_batch, decode_schema, encode_self_contained,
    limits::{BATCH_COLUMNS_MAX, BATCH_ROWS_MAX},
};

/// Decodes `data` as an Arrow IPC stream and as stored messages. What must hold: nothing panics;
/// batches keep to the limits; sequences are dense; what a batch becomes for the log reads back
/// equal; the pieces in which bytes arrive do not matter.
pub fn ipc_frame(data: &[u8]) {
    for encoding in [Encoding::Arrow, Encoding::ArrowZstd, Encoding::Compact] {
        telemetry(encoding, data);
    }
    let message = Bytes::copy_from_slice(data);
    if let Ok(schema) = decode_schema(&message, &DecodeLimits::STORED) {
        let _ = decode_batch(&schema, &message, &DecodeLimits::STORED);
        let _ = decode_compressed_batch(&schema, &message, &DecodeLimits::STORED);
        let _ = decode_compact_batch(&schema, &message, &DecodeLimits::STORED);
    }
}

fn telemetry(encoding: Encoding, data: &[u8]) {
    let whole = events(encoding, data, data.len().max(1));
    let mut next = 0;
    for event in &whole {
        match event {
            TelemetryEvent::Batch(batch) => {
                assert_eq!(batch.sequence, Sequence(next));
                next += 1;
                assert!(
                    batch.batch.num_rows() <= BATCH_ROWS_MAX
                        && batch.batch.num_columns() <= BATCH_COLUMNS_MAX
                );
                check_stored(batch);
            }
            TelemetryEvent::BadBatch { sequence, .. } => {
                assert_eq!(*sequence, Sequence(next));
                next += 1;
            }
            TelemetryEvent::Refused(refusal) => {
                assert_eq!(
                    refusal.reject.as_ref().map(|(sequence, _)| *sequence),
                    Some(Sequence(next))
                );
            }
            TelemetryEvent::Open(_) | TelemetryEvent::Schema(_) | TelemetryEvent::Ended { .. } => {}
        }
    }
    let in_pieces = events(encoding, data, 61);
    assert_eq!(format!("{whole:?}"), format!("{in_pieces:?}"));
}

fn check_stored(received: &quiver_protocol::WireBatch) {
    if received.encoding == Encoding::Compact {
        // Kept re-based: it decodes alone, to the same.
        let schema = received.batch.schema();
        let read = decode_compact_batch(&schema, &received.message, &DecodeLimits::STORED);
        assert!(
            read.as_ref().is_ok_and(|read| {
                format!("{:?}", read.columns()) == format!("{:?}", received.batch.columns())
            }),
            "{read:?}"
        );
    }
    let stored = encode_self_contained(&received.batch);
    assert!(stored.is_ok(), "{stored:?}");
    let Ok((schema_message, message)) = stored else {
        return;
    };
    let read = decode_schema(&schema_message, &DecodeLimits::STORED)
        .and_then(|schema| decode_batch(&schema, &message, &DecodeLimits::STORED));
    assert!(read.is_ok(), "{read:?}");
    let Ok(read) = read else { return };
    assert_eq!(read.num_rows(), received.batch.num_rows());
    if received.self_contained {
        // Debug text, since a NaN differs from itself.
        assert_eq!(
            format!("{:?}", read.columns()),
            format!("{:?}", received.batch.columns())
        );
    }
}

fn events(encoding: Encoding, data: &[u8], piece: usize) -> Vec<TelemetryEvent> {
    let mut decoder = TelemetryDecoder::default();
    let mut events = Vec::new();
    if let Ok(stream) = StreamName::new("readings") {
        let open = OpenStream {
            encoding,
            ..OpenStream::new(stream, Producer(1), Sequence(0))
        };
        decoder.handle_bytes(open.encode());
    }
    events.extend(std::iter::from_fn(|| decoder.poll_event()));
    for piece in data.chunks(piece) {
        decoder.handle_bytes(Bytes::copy_from_slice(piece));
        events.extend(std::iter::from_fn(|| decoder.poll_event()));
    }
    decoder.handle_end();
    events.extend(std::iter::from_fn(|| decoder.poll_event()));
    events
}
