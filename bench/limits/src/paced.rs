//! The disk under a load: how long a write waits that is due at a random moment.
//!
//! ```text
//! due (Poisson) ─▶ all that is due by now is one group ─▶ one write, one fdatasync ─▶ latency of each, from due
//! ```
//!
//! The latency that a log with group commit cannot be below on this disk, whoever calls it: a sync that
//! takes 50 ms is one of thousands, and so no matter to the 99th percentile of syncs, but fifty of the
//! writes wait for it.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    Fault,
    measure::{Row, Stretch, now, percentile},
    options::Options,
};

/// Bytes after which writing begins at the front again.
const FILE_BYTES: u64 = 64 << 20;
/// Most bytes of a group, as the engine's log has it.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Measures it, into blocks that were written before.
pub fn commits(options: &Options, results: &mut Vec<Row>) -> Result<(), Fault> {
    let (rate, bytes) = (options.writes_per_second, options.write_bytes);
    if !(rate > 0.0 && rate <= 1e6) || bytes == 0 || bytes > GROUP_BYTES_MAX {
        return Err(format!(
            "{rate} writes a second of {bytes} bytes: give --writes-per-second up to 1,000,000 and --write-bytes up to {GROUP_BYTES_MAX}"
        )
        .into());
    }
    let directory = tempfile::TempDir::new_in(&options.directory)?;
    let file = recycled(&directory.path().join("paced"))?;
    let data: Vec<u8> = (0..GROUP_BYTES_MAX)
        .map(|at| (at * 31 % 251) as u8)
        .collect();
    let mut random = SmallRng::seed_from_u64(1);
    let mut syncs = Vec::new();
    let mut latencies = Vec::new();
    let mut at = 0;
    let stretch = Stretch::begin();
    let end = now() + options.duration();
    let mut due = now();
    while due < end {
        wait_until(due);
        let mut group = Vec::new();
        while due <= now() && group.len() < GROUP_BYTES_MAX / bytes {
            group.push(due);
            due += pause(&mut random, rate);
        }
        let group_bytes = group.len() * bytes;
        if at + group_bytes as u64 > FILE_BYTES {
            at = 0;
        }
        let start = now();
        file.write_all_at(&data[..group_bytes], at)?;
        file.sync_data()?;
        syncs.push(start.elapsed().as_secs_f64());
        latencies.extend(group.iter().map(|due| due.elapsed().as_secs_f64()));
        at = (at + group_bytes as u64).next_multiple_of(4_096);
    }
    let taken = stretch.end();
    syncs.sort_by(f64::total_cmp);
    latencies.sort_by(f64::total_cmp);
    let all = latencies.len() * bytes;
    let scenario = format!("{rate:.0} writes/s of {bytes} bytes");
    let ms = |values: &[f64], percent| percentile(values, percent) * 1e3;
    results.push(
        Row::of(&scenario, "fdatasync at a rate", taken, 0, all as u64)
            .note("syncs/s", syncs.len() as f64 / taken.seconds)
            .note("sync p50 ms", ms(&syncs, 50.0))
            .note("sync p99 ms", ms(&syncs, 99.0))
            .note("p50 ms", ms(&latencies, 50.0))
            .note("p99 ms", ms(&latencies, 99.0))
            .note("p99.9 ms", ms(&latencies, 99.9)),
    );
    Ok(())
}

/// A file all of whose blocks were written.
fn recycled(path: &std::path::Path) -> Result<File, Fault> {
    let file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Time from one arrival to the next of a Poisson process.
fn pause(random: &mut SmallRng, rate: f64) -> Duration {
    let part: f64 = random.random_range(f64::EPSILON..1.0);
    Duration::from_secs_f64(-part.ln() / rate)
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}
