//! The compact encoding as a QUIC stream carries it, each batch as what changed since the one before:
//! encoding, and decoding with what the log keeps of it. (`decode/compact` decodes batches that stand
//! alone.)

use arrow_array::RecordBatch;
use bytes::Bytes;
use quiver_protocol::{BatchEncoder, Compression, TelemetryDecoder, TelemetryEvent};

use crate::{
    Entry, Fault, Kernel,
    data::{self, Device, FIELDS},
};

/// Batches of one run.
const BATCHES: usize = 32;

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for rows in [1, 32, 100] {
        let points = (BATCHES * rows * FIELDS) as u64;
        entries.push(Entry::new(
            "compact",
            format!("encode/{rows}"),
            points,
            move || Encode::new(rows),
        ));
        entries.push(Entry::new(
            "compact",
            format!("decode/{rows}"),
            points,
            move || Decode::new(rows),
        ));
    }
    entries
}

fn batches(rows: usize) -> Result<Vec<RecordBatch>, Fault> {
    let mut device = Device::new(1, FIELDS);
    (0..BATCHES).map(|_| device.batch(rows)).collect()
}

struct Encode {
    encoder: BatchEncoder,
    batches: Vec<RecordBatch>,
}

impl Encode {
    fn new(rows: usize) -> Result<Self, Fault> {
        Ok(Self {
            encoder: data::encoder(FIELDS, Compression::Compact)?,
            batches: batches(rows)?,
        })
    }
}

impl Kernel for Encode {
    fn run(&mut self) -> Result<u64, Fault> {
        let mut points = 0;
        for batch in &self.batches {
            std::hint::black_box(self.encoder.encode_next(batch)?);
            points += batch.num_rows() * FIELDS;
        }
        Ok(points as u64)
    }
}

struct Decode {
    decoder: TelemetryDecoder,
    messages: Vec<Bytes>,
}

impl Decode {
    fn new(rows: usize) -> Result<Self, Fault> {
        let mut encoder = data::encoder(FIELDS, Compression::Compact)?;
        let mut decoder = TelemetryDecoder::default();
        for bytes in data::opening(&encoder)? {
            decoder.handle_bytes(bytes);
            while decoder.poll_event().is_some() {}
        }
        // The first stands alone, so that the others may follow it any number of times.
        let messages = batches(rows)?
            .iter()
            .map(|batch| encoder.encode_next(batch))
            .collect::<Result<_, _>>()?;
        Ok(Self { decoder, messages })
    }
}

impl Kernel for Decode {
    fn run(&mut self) -> Result<u64, Fault> {
        let mut points = 0;
        for message in &self.messages {
            self.decoder.handle_bytes(message.clone());
            while let Some(event) = self.decoder.poll_event() {
                let TelemetryEvent::Batch(received) = event else {
                    return Err("the message was refused".into());
                };
                points += received.batch.num_rows() * FIELDS;
            }
        }
        Ok(points as u64)
    }
}
