//! Stages that need no network, alone on one core.

use std::{fs::File, io::Write, time::Duration};

use bytes::Bytes;
use quiver_archive::stages::sort;
use quiver_bench_kernels::data::{self, FIELDS, stored_batches_of};
use quiver_model::Position;
use quiver_protocol::{TelemetryDecoder, TelemetryEvent};

use crate::{
    Fault,
    measure::{Row, Stretch, Taken},
    options::{Options, Scenario},
};

/// Sources whose batches are decoded in turn.
const SOURCES: u64 = 16;

/// Messages of several sources, and what opens their QUIC stream.
fn messages(scenario: &Scenario) -> Result<([Bytes; 2], Vec<Bytes>), Fault> {
    let mut encoder = scenario.source(0)?.encoder(scenario.codec.compression())?;
    let opening = data::opening(&encoder)?;
    let messages = (0..SOURCES)
        .map(|number| Ok(encoder.encode(&scenario.source(number)?.batch(scenario.rows)?)?))
        .collect::<Result<_, Fault>>()?;
    Ok((opening, messages))
}

/// Framing, guard, decompression, validation.
pub fn decode(scenario: &Scenario, results: &mut Vec<Row>) -> Result<(), Fault> {
    let (opening, messages) = messages(scenario)?;
    let mut decoder = TelemetryDecoder::default();
    for bytes in opening {
        decoder.handle_bytes(bytes);
        while decoder.poll_event().is_some() {}
    }
    let (mut points, mut bytes) = (0, 0);
    let stretch = Stretch::begin();
    while stretch.elapsed() < scenario.duration {
        for message in &messages {
            decoder.handle_bytes(message.clone());
            while let Some(event) = decoder.poll_event() {
                if let TelemetryEvent::Batch(batch) = event {
                    points += (batch.batch.num_rows() * FIELDS) as u64;
                }
            }
            bytes += message.len() as u64;
        }
    }
    let row = Row::of(&scenario.name, "decode", stretch.end(), points, bytes);
    results.push(row.note("bytes/point", bytes as f64 / points.max(1) as f64));
    Ok(())
}

/// Judging, stored types, positions: what happens between decoding and memory.
pub fn append(scenario: &Scenario, results: &mut Vec<Row>) -> Result<(), Fault> {
    let schema = data::stream_schema(FIELDS)?;
    let mut source = scenario.source(1)?;
    let batch = source.batch(scenario.rows)?;
    let (mut points, mut next) = (0, Position(1));
    let stretch = Stretch::begin();
    while stretch.elapsed() < scenario.duration {
        for _ in 0..64 {
            let (_, checked) = data::check(&batch, &schema, source.sender())?;
            let placed = checked.place(next, data::NOW)?;
            next = next.plus(placed.num_rows() as u64);
            points += (placed.num_rows() * FIELDS) as u64;
            std::hint::black_box(placed);
        }
    }
    let bytes = points * 8;
    results.push(Row::of(
        &scenario.name,
        "append",
        stretch.end(),
        points,
        bytes,
    ));
    Ok(())
}

/// The flush: sort, Parquet, and the file with its fsync, each measured by itself.
pub fn sort_and_encode(
    scenario: &Scenario,
    options: &Options,
    results: &mut Vec<Row>,
) -> Result<(), Fault> {
    let schema = data::stream_schema(FIELDS)?;
    let rows = options.flush_rows / scenario.connections * scenario.connections;
    let rows = rows.max(scenario.rows * scenario.connections);
    let mut fleet = (0..scenario.connections as u64)
        .map(|number| scenario.source(number))
        .collect::<Result<Vec<_>, Fault>>()?;
    let batches = stored_batches_of(&mut fleet, &schema, rows, scenario.rows)?;
    let directory = tempfile::TempDir::new_in(&options.directory)?;
    let (mut sorting, mut encoding, mut storing) =
        (Taken::default(), Taken::default(), Taken::default());
    let (mut points, mut raw, mut stored, mut files) = (0, 0, 0, 0_u64);
    while Duration::from_secs_f64(sorting.seconds + encoding.seconds) < scenario.duration {
        let stretch = Stretch::begin();
        let sorted = sort(&batches).ok_or("the rows have another layout")?;
        add(&mut sorting, stretch.end());
        let stretch = Stretch::begin();
        let contents = sorted.encode(schema.stored(), &batches)?;
        add(&mut encoding, stretch.end());
        let stretch = Stretch::begin();
        for content in &contents {
            files += 1;
            let mut file = File::create(directory.path().join(format!("{files}.parquet")))?;
            file.write_all(content)?;
            file.sync_all()?;
            stored += content.len() as u64;
        }
        add(&mut storing, stretch.end());
        points += (sorted.rows() * FIELDS) as u64;
        raw += (sorted.rows() * (FIELDS + 3) * 8) as u64;
    }
    let name = &scenario.name;
    results.push(Row::of(name, "sort", sorting, points, raw));
    let row = Row::of(name, "parquet", encoding, points, stored);
    results.push(row.note("bytes/point", stored as f64 / points.max(1) as f64));
    results.push(Row::of(name, "file and fsync", storing, points, stored));
    Ok(())
}

fn add(sum: &mut Taken, taken: Taken) {
    sum.seconds += taken.seconds;
    sum.cpu += taken.cpu;
}
