//! Windows beside loops written by hand, DuckDB and polars, over the same rows in memory.

use std::process::Command;

use crate::{failure::Failure, process, report::Report, venv, workspace::Workspace};

const PACKAGE: &str = "quiver-bench-windows";
const DRIVER: &str = "bench/windows/peers.py";

/// Builds the program, and runs the comparison; `arguments` are the driver's.
pub fn run(workspace: &Workspace, arguments: &[String], report: &mut Report) {
    let python = report.part("peers from PyPI", || venv::ensure(workspace));
    let built = report.part("build", || {
        let mut build = workspace.cargo();
        process::run(build.args(["build", "--release", "--locked", "-p", PACKAGE]))
    });
    let (Some(python), Some(())) = (python, built) else {
        return;
    };
    report.part("comparison", || compare(workspace, &python, arguments));
}

fn compare(
    workspace: &Workspace,
    python: &std::path::Path,
    arguments: &[String],
) -> Result<(), Failure> {
    let program = workspace.release_program(PACKAGE)?;
    process::run(
        Command::new(python)
            .arg(workspace.root.join(DRIVER))
            .arg("--program")
            .arg(program)
            .args(arguments),
    )
}
