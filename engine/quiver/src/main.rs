//! The program: command line, wiring, and the order in which things stop. The only crate that
//! knows all the others.
//!
//! ```text
//! verbs/   one file per verb of the command line
//! node     an engine with its archive, queries and doors: what `serve` and `demo` run
//! idle     a data directory that no engine is running on: what `sql --data-dir` reads
//! expiry   what leaves the archive, as the log and audits know it
//! holder   who holds a data directory that cannot be opened
//! http/    the HTTP door: liveness, metrics, SQL, administration, and who may use it
//! remote   the command line's side of that door
//! pipeline reading the configuration of a graph, and the tables that it refers to
//! say      what verbs tell their user
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod audit;
mod cli;
mod exit;
mod expiry;
mod given;
mod holder;
mod http;
mod idle;
mod logging;
mod memory;
mod node;
mod numbers;
mod pipeline;
mod remote;
mod say;
mod settings;
mod sources;
mod tally;
mod verbs;

use say::tell;

#[global_allocator]
static ALLOCATOR: quiver_allocator::MiMalloc = quiver_allocator::MiMalloc;

fn main() -> std::process::ExitCode {
    quiver_allocator::keep_freed_memory();
    let command = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; printing can only fail on a closed terminal.
            let _ = error.print();
            return if error.use_stderr() {
                exit::USAGE.into()
            } else {
                std::process::ExitCode::SUCCESS
            };
        }
    };
    match verbs::run(command).and_then(|()| say::all_written()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            tell!("quiver: {failure}");
            failure.code().into()
        }
    }
}
