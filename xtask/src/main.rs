//! The project's chores as one program: `cargo xtask <verb>`.
//!
//! ```text
//! cargo xtask test    Python peers ─▶ build ─▶ tests                              ─▶ "312 passed, 0 failed, 3 skipped"
//! cargo xtask ci      rules ─▶ the same, linted ─▶ cargo deny ─▶ documentation    ─▶ the same line
//! ```
//!
//! The last line printed always counts passed, failed and skipped, and the exit code is zero only
//! if nothing failed. No shell scripts, and no dependency that takes long to compile.

mod arrows;
mod ci;
mod dependencies;
mod distance;
mod failure;
mod house_rules;
mod instructions;
mod licence;
mod peers;
mod policy;
mod process;
mod report;
mod test_run;
mod totals;
mod venv;
mod windows;
mod workspace;

use std::process::ExitCode;

use crate::{report::Report, test_run::Selection, workspace::Workspace};

const HELP: &str = "\
cargo xtask <verb>

  test [--ci] [-p PACKAGE]... [FILTER]
        install the Python peers into a virtual environment under target/, build everything,
        run every test (or those whose name contains FILTER). A test whose peer is missing is
        skipped and counted; with --ci it fails.
  ci [-p PACKAGE]...
        what .ci/run runs: the rules below, build with clippy's warnings as errors, every test
        as with --ci, the instruction counts below, cargo deny (installed under target/ if missing),
        documentation
  rules
        the checks that compile nothing: format, house rules, dependency arrows, and of the
        dependencies their sources, licences and version floors
  instructions [--update]
        count the instructions of the hottest kernels under valgrind, and compare them with
        bench/kernels/instructions.json; --update writes them down instead
  peers [--install-only] [--no-limits] [-- ARGUMENT...]
        install the peers under target/peers without root, measure the machine's limits, load
        the same data into Quiver and each peer, and fill in the tables of docs/performance.md;
        needs target/release/quiver and quiver-bench-limits; -- --help names the driver's
        arguments
  distance [--pairs N] [--only SCENARIO]...
        measure the engine against the machine's limits, in turn, N times (5), and the latency of
        its acknowledgements at half of its rate; fills in two tables of docs/performance.md,
        unless only some workloads were wanted; needs what peers needs
  windows [--devices N] [--rows N] [--rounds N] [--case CASE]... [--order ORDER]...
        time windows against loops written by hand, DuckDB and polars: the same rows in memory,
        one thread each, in turns; fails if their answers are not the same
  help
        this text

-p restricts what is compiled to some packages, for work on xtask itself.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::from(64)
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<ExitCode, String> {
    let (verb, rest) = match arguments.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("help", [].as_slice()),
    };
    match verb {
        "test" => {
            let selection = Selection::parse(rest)?;
            reported(|workspace, report| test_run::run(workspace, &selection, report))
        }
        "ci" => {
            let selection = Selection::parse(rest)?.for_ci()?;
            reported(|workspace, report| ci::run(workspace, &selection, report))
        }
        "rules" => reported(ci::rules),
        "instructions" => {
            let options = instructions::Options::parse(rest)?;
            reported(|workspace, report| instructions::run(workspace, &options, report))
        }
        "peers" => {
            let options = peers::Options::parse(rest)?;
            reported(|workspace, report| peers::run(workspace, &options, report))
        }
        "distance" => {
            let options = distance::Options::parse(rest)?;
            reported(|workspace, report| distance::run(workspace, &options, report))
        }
        "windows" => reported(|workspace, report| windows::run(workspace, rest, report)),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("no verb {other:?}\n\n{HELP}")),
    }
}

/// Runs a verb's parts on the workspace, and tells how they ended.
fn reported(run: impl FnOnce(&Workspace, &mut Report)) -> Result<ExitCode, String> {
    let workspace = Workspace::open().map_err(|failure| failure.to_string())?;
    let mut report = Report::default();
    run(&workspace, &mut report);
    Ok(report.finish())
}
