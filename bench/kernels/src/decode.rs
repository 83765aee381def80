//! From bytes of a QUIC stream to a record batch: framing, guard, decompression, validation.

use bytes::Bytes;
use quiver_protocol::{Compression, TelemetryDecoder, TelemetryEvent};

use crate::{
    Entry, Fault, Kernel,
    data::{self, COMPRESSIONS, Device, FIELDS},
};

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, compression) in COMPRESSIONS {
        for rows in [1, 100, 1_000] {
            entries.push(Entry::new(
                "decode",
                format!("{name}/{rows}"),
                (rows * FIELDS) as u64,
                move || Decode::new(compression, rows),
            ));
        }
    }
    entries
}

struct Decode {
    decoder: TelemetryDecoder,
    message: Bytes,
}

impl Decode {
    fn new(compression: Compression, rows: usize) -> Result<Self, Fault> {
        let mut encoder = data::encoder(FIELDS, compression)?;
        let mut decoder = TelemetryDecoder::default();
        for bytes in data::opening(&encoder)? {
            decoder.handle_bytes(bytes);
            while decoder.poll_event().is_some() {}
        }
        let message = encoder.encode(&Device::new(1, FIELDS).batch(rows)?)?;
        Ok(Self { decoder, message })
    }
}

impl Kernel for Decode {
    fn run(&mut self) -> Result<u64, Fault> {
        self.decoder.handle_bytes(self.message.clone());
        let mut points = 0;
        while let Some(event) = self.decoder.poll_event() {
            let TelemetryEvent::Batch(batch) = event else {
                return Err("the message was refused".into());
            };
            points += batch.batch.num_rows() * (batch.batch.num_columns() - 1);
        }
        Ok(points as u64)
    }
}
