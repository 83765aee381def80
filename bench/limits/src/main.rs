//! Small programs that measure the machine itself, so that the engine's figures can be quoted as
//! fractions of what this machine can do in the same run.
//!
//! ```text
//! quiver-bench-limits all
//!   stages alone   quic ─ decode ─ append ─ log ─ fdatasync ─ sort ─ parquet ─▶ composed limit
//!   bare pipeline  generator process ─QUIC─▶ decode ─▶ log, fdatasync ─▶ memory ─▶ sort ─▶ Parquet, fsync
//!                  the same stages by threads and bounded channels: no actors, routes, sequences, snapshots
//! ```
//!
//! Everything that is measured is the engine's own code (its decoder, log, sort, encoder, TLS and
//! transport settings); what is left out is everything that ties it together.

mod composed;
mod endpoint;
mod generator;
mod measure;
mod options;
mod paced;
mod pipeline;
mod quic;
mod stages;
mod sync;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    measure::Report,
    options::{Arguments, What},
};

/// As the engine has it.
#[global_allocator]
static ALLOCATOR: quiver_allocator::MiMalloc = quiver_allocator::MiMalloc;

/// Why a limit could not be measured.
type Fault = quiver_bench_kernels::Fault;

fn main() -> ExitCode {
    quiver_allocator::keep_freed_memory();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("quiver-bench-limits: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Fault> {
    if let What::Generate(generate) = &arguments.what {
        return generator::run(generate);
    }
    let options = &arguments.options;
    if let Some(page) = &options.page {
        // Better now than after minutes of measuring.
        measure::around(page)?;
    }
    let mut report = Report::new(options.duration());
    let runs = options.runs;
    let is = |what: &What| arguments.what == What::All || arguments.what == *what;
    if is(&What::Fdatasync) {
        report.medians(runs, |rows| sync::fdatasync(options, rows))?;
    }
    if is(&What::Paced) {
        report.medians(runs, |rows| paced::commits(options, rows))?;
    }
    for scenario in options.scenarios() {
        if is(&What::Decode) {
            report.medians(runs, |rows| stages::decode(&scenario, rows))?;
        }
        if is(&What::Append) {
            report.medians(runs, |rows| stages::append(&scenario, rows))?;
        }
        if is(&What::Log) {
            report.medians(runs, |rows| sync::group_commit(&scenario, options, rows))?;
        }
        if is(&What::Encode) {
            report.medians(runs, |rows| {
                stages::sort_and_encode(&scenario, options, rows)
            })?;
        }
        if is(&What::Quic) {
            report.medians(runs, |rows| quic::transfer(&scenario, options, rows))?;
        }
        if is(&What::Pipeline) {
            report.medians(runs, |rows| pipeline::measure(&scenario, options, rows))?;
        }
        if arguments.what == What::All {
            composed::compose(&scenario, &mut report);
        }
    }
    if is(&What::Packets) {
        report.medians(runs, |rows| quic::packets(options, rows))?;
    }
    print!("{}", report.table());
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    if let Some(path) = &options.page {
        report.fill(path)?;
    }
    Ok(())
}
