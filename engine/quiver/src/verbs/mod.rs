//! One file per verb.

mod amend;
pub mod archive;
mod audit;
mod bench;
mod csv_lines;
mod demo;
mod devices;
mod enroll_from;
mod fleet;
mod graph;
mod import;
mod pki;
mod plan;
mod portion;
pub mod send;
mod serve;
mod sql;
mod streams;
mod tail;
mod test;
pub mod top;
mod validate;

use std::future::Future;

use crate::{
    cli::{Cli, TargetArgs, Verb},
    exit::Failure,
    logging,
    remote::Remote,
    say::say,
};

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let default = if matches!(cli.verb, Verb::Serve(_)) {
        // Delta's libraries say much at this level that concerns nobody but their authors.
        "info,deltalake_core=warn,buoyant_kernel=warn,buoyant_kernel_engine=error,actix_http::h1::dispatcher=off"
    } else {
        // A result that breaks off has been reported by then, and a client that leaves is no error.
        "warn,actix_http::h1::dispatcher=off"
    };
    logging::start(cli.log_format, cli.log.as_deref().unwrap_or(default));
    match cli.verb {
        Verb::Demo(args) => on_system(demo::run(args)),
        Verb::Serve(args) => on_system(serve::run(args)),
        Verb::Send(args) => on_system(send::run(args)),
        Verb::Sql(args) => sql::run(args, &cli.given),
        Verb::Audit(args) => audit::run(&args, &cli.given),
        Verb::Archive(args) => archive::run(args.action, &cli.given),
        Verb::Bench(args) => bench::run(*args),
        Verb::Pki(args) => pki::run(args.action),
        Verb::Devices(args) => devices::run(args.action),
        Verb::Streams(args) => streams::run(args.action),
        Verb::Validate(args) => validate::run(&args),
        Verb::Graph(args) => graph::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Tail(args) => tail::run(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Version => {
            say!("quiver {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// Runs a future on this thread with an actix system.
fn on_system<T>(future: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(future)
}

/// The engine a verb is to ask: the one that is named, or the one that runs on the data directory;
/// `None` if the directory is idle.
fn remote(target: &TargetArgs) -> Result<Option<Remote>, Failure> {
    match target.server {
        Some(address) => Remote::new(address, Some(&target.data_dir)).map(Some),
        None => Ok(Remote::running_on(&target.data_dir)),
    }
}

/// Like [`remote`], for verbs that need an engine that runs.
fn running(target: &TargetArgs) -> Result<Remote, Failure> {
    remote(target)?.ok_or_else(|| {
        Failure::new(
            crate::exit::UNAVAILABLE,
            format!(
                "no engine runs on {}; start one with: quiver serve --data-dir {}",
                target.data_dir.display(),
                target.data_dir.display()
            ),
        )
    })
}

/// Rows as aligned columns, the first row being their names.
fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| {
                let pad = " ".repeat(width - cell.chars().count());
                let is_number = cell.starts_with(|c: char| c.is_ascii_digit());
                if is_number {
                    format!("{pad}{cell}")
                } else {
                    format!("{cell}{pad}")
                }
            })
            .collect();
        say!("{}", line.join("  ").trim_end());
    }
}
