//! `quiver sql`.

use quiver_query::{Format, WriteError, query_runtime, write_result};

use super::{on_system, remote};
use crate::{
    cli::SqlArgs,
    exit::{DATA, Failure, IO, USAGE, result_not_written},
    given::Given,
    idle::{Idle, Opened},
    remote::Remote,
};

/// The setting that an engine is told, within its own limit.
const QUERY_TIMEOUT: &str = "query_timeout";

/// Runs a query, on a running engine or an idle data directory.
pub fn run(args: SqlArgs, given: &Given) -> Result<(), Failure> {
    let format: Format = args.format.parse().map_err(Failure::with(USAGE))?;
    let stdout = std::io::stdout();
    if format.is_binary() && std::io::IsTerminal::is_terminal(&stdout) {
        return Err(Failure::new(
            USAGE,
            format!("{format} is binary: redirect the output to a file, as in > result.{format}"),
        ));
    }
    if let Some(remote) = remote(&args.target)? {
        return ask(&remote, &args, given, format);
    }
    on_system(async {
        let idle = match Idle::open(&args.target.data_dir, &args.engine).await? {
            Opened::Idle(idle) => idle,
            Opened::Running(remote) => return ask(&remote, &args, given, format),
        };
        let limits = args.engine.query_limits(&args.target.data_dir);
        let queries = idle.sources().query_engine(limits, None)?;
        let runtime = query_runtime(std::thread::available_parallelism().map_or(1, usize::from))
            .map_err(Failure::with(IO))?;
        let sql = args.query;
        let task = runtime.spawn(async move {
            let result = queries.query(&sql).await.map_err(Failure::with(DATA))?;
            match write_result(result, format, &mut std::io::stdout()).await {
                Ok(_) => Ok(()),
                Err(WriteError::Sink(error)) => result_not_written(&error),
                Err(error) => Err(Failure::with(DATA)(error)),
            }
        });
        let finished = task.await;
        // Before any error leaves: a runtime may not be dropped on this thread.
        runtime.shutdown_background();
        finished.map_err(Failure::with(IO))?
    })
}

/// Has a running engine answer.
fn ask(remote: &Remote, args: &SqlArgs, given: &Given, format: Format) -> Result<(), Failure> {
    given.check_for_running_engine(&[QUERY_TIMEOUT])?;
    let timeout = given
        .has(QUERY_TIMEOUT)
        .then_some(args.engine.query_timeout);
    remote.sql(
        &args.query,
        format.as_str(),
        timeout,
        &mut std::io::stdout(),
    )
}
