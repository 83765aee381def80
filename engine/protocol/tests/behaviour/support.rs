//! What several of these tests need.

use std::{path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use quiver_model::{Producer, Sequence, StreamName};
use quiver_protocol::{OpenStream, TelemetryDecoder, TelemetryEvent};

/// `path` below `tests/golden`.
pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(path)
}

pub fn readings() -> StreamName {
    StreamName::new("readings").unwrap()
}

/// An `OpenStream` whose first sequence is `first`.
pub fn open_at(first: u64) -> OpenStream {
    OpenStream::new(readings(), Producer(0x1122_3344_5566_7788), Sequence(first))
}

/// `rows` rows of ts, a float and a text.
pub fn batch(rows: i64) -> RecordBatch {
    RecordBatch::try_from_iter([
        (
            "ts",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(
                    (0..rows).map(|row| 1_700_000_000_000_000 + row * 1_000_000),
                )
                .with_timezone("UTC"),
            ) as ArrayRef,
        ),
        (
            "coolant_temp",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|row| 80.0 + row as f64 / 2.0),
            )),
        ),
        (
            "driver",
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|row| format!("driver {row}")),
            )),
        ),
    ])
    .unwrap()
}

/// All events that `pieces`, given one by one, lead to, without the end of the QUIC stream.
pub fn events_of_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (TelemetryDecoder, Vec<TelemetryEvent>) {
    let mut decoder = TelemetryDecoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        decoder.handle_bytes(Bytes::copy_from_slice(piece));
        events.extend(std::iter::from_fn(|| decoder.poll_event()));
    }
    (decoder, events)
}

/// All events of a telemetry QUIC stream that opens at 0 and consists of `ipc`, with its end.
pub fn events_of_ipc(ipc: &[u8]) -> Vec<TelemetryEvent> {
    let (mut decoder, mut events) = events_of_pieces([&*open_at(0).encode(), ipc]);
    decoder.handle_end();
    events.extend(std::iter::from_fn(|| decoder.poll_event()));
    events
}

/// The decoded batches among `events`; panics if there is anything but a clean stream.
pub fn batches(events: &[TelemetryEvent]) -> Vec<RecordBatch> {
    events
        .iter()
        .filter_map(|event| match event {
            TelemetryEvent::Batch(batch) => Some(batch.batch.clone()),
            TelemetryEvent::BadBatch { .. } | TelemetryEvent::Refused(_) => panic!("{event:?}"),
            TelemetryEvent::Ended { partial_bytes } => {
                assert_eq!(*partial_bytes, 0);
                None
            }
            TelemetryEvent::Open(_) | TelemetryEvent::Schema(_) => None,
        })
        .collect()
}
