//! Bytes and time of the encodings side by side: `cargo run --release -p quiver-protocol --example
//! compact_measure`. One run, interleaved rounds, the best of
//! each: short enough that one of them is not interrupted.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement"
)]

use std::{hint::black_box, sync::Arc, time::Instant};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
use bytes::Bytes;
use quiver_model::{Producer, Sequence, StreamName};
use quiver_protocol::{
    BatchEncoder, Compression, DecodeLimits, OpenStream, TelemetryDecoder, TelemetryEvent,
    decode_batch, decode_compact_batch, decode_compressed_batch, decode_schema,
};

const FIELDS: usize = 10;
const ROUNDS: usize = 25;

/// Sensor values that walk at random in hundredths, as those of `bench/kernels`.
struct Device {
    values: Vec<i64>,
    next: i64,
    state: u64,
}

impl Device {
    fn draw(&mut self, bound: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }

    fn batch(&mut self, rows: usize) -> RecordBatch {
        let mut times = Vec::new();
        let mut columns = vec![Vec::new(); FIELDS];
        for _ in 0..rows {
            times.push(self.next);
            self.next += 10_000;
            for (at, column) in columns.iter_mut().enumerate() {
                self.values[at] += self.draw(101).cast_signed() - 50;
                column.push(self.values[at] as f64 / 100.0);
            }
        }
        let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let mut named = vec![("ts".to_owned(), Arc::new(times) as ArrayRef)];
        for (at, column) in columns.into_iter().enumerate() {
            named.push((format!("value_{at}"), Arc::new(Float64Array::from(column))));
        }
        RecordBatch::try_from_iter(named).unwrap()
    }
}

fn best(values: Vec<f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}

fn main() {
    // Names one to profile it.
    let only = std::env::args().nth(1);
    let kinds = [
        ("plain", Compression::None),
        ("lz4", Compression::Lz4),
        ("zstd message", Compression::ZstdMessage),
        ("compact", Compression::Compact),
    ]
    .into_iter()
    .filter(|(name, _)| only.as_ref().is_none_or(|only| only == name))
    .collect::<Vec<_>>();
    println!(
        "rows  encoding      bytes/row  encode ns/pt  decode ns/pt  stored bytes/row  replay ns/pt"
    );
    for rows in [1, 32, 100, 1_000]
        .into_iter()
        .take(if only.is_some() { 1 } else { 4 })
    {
        let count = (4_000 / rows).clamp(10, 1_000);
        let mut device = Device {
            values: vec![5_000; FIELDS],
            next: 1_767_225_600_000_000,
            state: 42,
        };
        let batches: Vec<_> = (0..count).map(|_| device.batch(rows)).collect();
        let mut times = vec![[const { Vec::new() }; 3]; kinds.len()];
        let mut sizes = vec![(0, 0); kinds.len()];
        for _ in 0..ROUNDS {
            for (kind, (_, compression)) in kinds.iter().enumerate() {
                let per_point = |start: Instant| {
                    start.elapsed().as_nanos() as f64 / (count * rows * FIELDS) as f64
                };
                let schema = batches[0].schema();
                let mut encoder = BatchEncoder::new(&schema, *compression).unwrap();
                let start = Instant::now();
                let messages: Vec<Bytes> = batches
                    .iter()
                    .map(|batch| encoder.encode_next(batch).unwrap())
                    .collect();
                times[kind][0].push(per_point(start));
                let open = OpenStream {
                    encoding: encoder.encoding(),
                    ..OpenStream::new(
                        StreamName::new("readings").unwrap(),
                        Producer(1),
                        Sequence(0),
                    )
                };
                let mut decoder = TelemetryDecoder::default();
                let schema_message = encoder.schema_message().unwrap();
                for bytes in [open.encode(), schema_message] {
                    decoder.handle_bytes(bytes);
                    while decoder.poll_event().is_some() {}
                }
                let start = Instant::now();
                let mut stored = Vec::new();
                let mut stored_bytes = 0;
                for message in &messages {
                    decoder.handle_bytes(message.clone());
                    while let Some(TelemetryEvent::Batch(batch)) = decoder.poll_event() {
                        black_box(&batch.batch);
                        stored_bytes += batch.message.len();
                        stored.push(batch.message);
                    }
                }
                times[kind][1].push(per_point(start));
                assert_eq!(stored.len(), count);
                let plain = BatchEncoder::new(&schema, Compression::None).unwrap();
                let schema =
                    decode_schema(&plain.schema_message().unwrap(), &DecodeLimits::STORED).unwrap();
                let start = Instant::now();
                for message in &stored {
                    let limits = &DecodeLimits::STORED;
                    black_box(
                        match compression {
                            Compression::Compact => decode_compact_batch(&schema, message, limits),
                            Compression::ZstdMessage => {
                                decode_compressed_batch(&schema, message, limits)
                            }
                            _ => decode_batch(&schema, message, limits),
                        }
                        .unwrap(),
                    );
                }
                times[kind][2].push(per_point(start));
                sizes[kind] = (messages.iter().map(Bytes::len).sum(), stored_bytes);
            }
        }
        for (kind, (name, _)) in kinds.iter().enumerate() {
            let all = (count * rows) as f64;
            let [encode, decode, replay] = std::mem::take(&mut times[kind]).map(best);
            println!(
                "{rows:4}  {name:12}  {:9.1}  {encode:12.1}  {decode:12.1}  {:16.1}  {replay:12.1}",
                sizes[kind].0 as f64 / all,
                sizes[kind].1 as f64 / all,
            );
        }
    }
}
