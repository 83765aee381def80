//! The disk: fdatasync of a plain file, and commit groups of the engine's log.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use quiver_bench_kernels::data::{self, FIELDS};
use quiver_log::{Encoding, Log, LogOptions, OsVfs, Record, RecordKind, RecoveryFloor};
use quiver_model::{OsEntropy, Producer};

use crate::{
    Fault,
    measure::{Row, Stretch, now, percentile},
    options::{Options, Scenario},
};

/// Bytes between two fdatasyncs.
const SIZES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Bytes after which writing begins at the front again.
const FILE_BYTES: u64 = 64 << 20;
/// Batches of a commit group. As many as fit are taken if they would be larger than the log takes.
const GROUPS: [usize; 4] = [1, 8, 64, 256];
/// Room that is left in a commit group for what is around the payloads, for each record.
pub const RECORD_BYTES: usize = 1_024;

/// Writes and fdatasync, into new blocks and into blocks that were written before.
pub fn fdatasync(options: &Options, results: &mut Vec<Row>) -> Result<(), Fault> {
    let directory = tempfile::TempDir::new_in(&options.directory)?;
    for bytes in SIZES {
        let data: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
        for recycled in [false, true] {
            let file = File::create(directory.path().join("sync"))?;
            if recycled {
                let zeros = vec![0; 1 << 20];
                for at in (0..FILE_BYTES).step_by(1 << 20) {
                    file.write_all_at(&zeros, at)?;
                }
                file.sync_all()?;
            }
            let mut at = 0;
            let mut latencies = Vec::new();
            let stretch = Stretch::begin();
            while stretch.elapsed() < options.duration() / 4 {
                let start = now();
                file.write_all_at(&data, at)?;
                file.sync_data()?;
                latencies.push(start.elapsed().as_secs_f64());
                at += bytes as u64;
                if at + bytes as u64 > FILE_BYTES {
                    at = 0;
                }
            }
            let kind = if recycled { "recycled" } else { "new" };
            let scenario = format!("fdatasync, {} KiB, {kind} blocks", bytes >> 10);
            results.push(synced(
                &scenario,
                "fdatasync",
                &stretch,
                latencies,
                0,
                bytes,
            ));
        }
    }
    Ok(())
}

/// The engine's log with a scenario's batches, in groups of several sizes.
pub fn group_commit(
    scenario: &Scenario,
    options: &Options,
    results: &mut Vec<Row>,
) -> Result<(), Fault> {
    let mut source = scenario.source(1)?;
    let mut encoder = source.encoder(scenario.codec.compression())?;
    let limit = LogOptions::default().group_bytes_max;
    for batches in GROUPS {
        let directory = tempfile::TempDir::new_in(&options.directory)?;
        let log_options = LogOptions {
            retention_bytes: 0,
            ..LogOptions::default()
        };
        let path = directory.path().join("log");
        let floor = RecoveryFloor::default();
        let (mut log, _) = Log::open(Arc::new(OsVfs), &path, log_options, &OsEntropy, floor)?;
        let mut group = Vec::new();
        let mut bytes = 0;
        for _ in 0..batches {
            let payload = encoder.encode(&source.batch(scenario.rows)?)?;
            bytes += payload.len() + RECORD_BYTES;
            if bytes > limit {
                break;
            }
            let mut record = Record::control(RecordKind::Data, data::NOW);
            record.encoding = Encoding::ArrowIpcMessage;
            record.sender = Some(source.sender().clone());
            record.producer = Producer(1);
            record.stream = Some(data::stream()?);
            record.rows = u32::try_from(scenario.rows)?;
            record.payload = payload;
            group.push(record);
        }
        let mut latencies = Vec::new();
        let stretch = Stretch::begin();
        while stretch.elapsed() < options.duration() / GROUPS.len() as u32 {
            let start = now();
            let committed = log.append_group(&mut group)?;
            latencies.push(start.elapsed().as_secs_f64());
            log.trim(committed.end)?;
        }
        let points = (group.len() * scenario.rows * FIELDS) as u64;
        let stage = format!("log, groups of {}", group.len());
        results.push(synced(
            &scenario.name,
            &stage,
            &stretch,
            latencies,
            points,
            bytes,
        ));
    }
    Ok(())
}

fn synced(
    scenario: &str,
    stage: &str,
    stretch: &Stretch,
    mut latencies: Vec<f64>,
    points: u64,
    bytes: usize,
) -> Row {
    let count = latencies.len() as u64;
    let taken = stretch.end();
    latencies.sort_by(f64::total_cmp);
    Row::of(scenario, stage, taken, points * count, bytes as u64 * count)
        .note("syncs/s", count as f64 / taken.seconds)
        .note("p50 ms", percentile(&latencies, 50.0) * 1e3)
        .note("p99 ms", percentile(&latencies, 99.0) * 1e3)
}
