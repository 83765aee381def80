//! Wall time of every kernel: `cargo bench -p quiver-bench-kernels [-- FILTER]`.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use quiver_bench_kernels::{Fault, Kernel, all};

/// Runs of a kernel that waits for a disk.
const SLOW_SAMPLES: usize = 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    kernels(&mut criterion);
    criterion.final_summary();
}

fn kernels(criterion: &mut Criterion) {
    for entry in all() {
        let mut group = criterion.benchmark_group(entry.group);
        group.throughput(Throughput::Elements(entry.items));
        if entry.is_slow {
            group.sample_size(SLOW_SAMPLES);
        }
        group.bench_function(entry.name.as_str(), |bencher| {
            // Set up here, so that a kernel that the filter leaves out costs nothing.
            let mut kernel = match entry.setup() {
                Ok(kernel) => kernel,
                Err(fault) => fail(&entry.full_name(), &fault),
            };
            bencher.iter_custom(|runs| match time(&mut *kernel, runs) {
                Ok(elapsed) => elapsed,
                Err(fault) => fail(&entry.full_name(), &fault),
            });
        });
        group.finish();
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn time(kernel: &mut dyn Kernel, runs: u64) -> Result<Duration, Fault> {
    let mut elapsed = Duration::ZERO;
    for _ in 0..runs {
        kernel.prepare()?;
        let start = Instant::now();
        std::hint::black_box(kernel.run()?);
        elapsed += start.elapsed();
    }
    Ok(elapsed)
}

fn fail(name: &str, fault: &Fault) -> ! {
    eprintln!("kernel {name} failed: {fault}");
    std::process::exit(1);
}
