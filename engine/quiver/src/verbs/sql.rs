//! `quiver sql`.

use quiver_query::{Format, query_runtime, write_result};

use super::{on_system, remote};
use crate::{
    cli::SqlArgs,
    exit::{DATA, Failure, IO, USAGE},
    idle::Idle,
};

/// Runs a query, on a running engine or an idle data directory.
pub fn run(args: SqlArgs) -> Result<(), Failure> {
    let format: Format = args.format.parse().map_err(Failure::with(USAGE))?;
    let mut stdout = std::io::stdout();
    if format.is_binary() && std::io::IsTerminal::is_terminal(&stdout) {
        return Err(Failure::new(
            USAGE,
            format!("{format} is binary: redirect the output to a file, as in > result.{format}"),
        ));
    }
    if let Some(remote) = remote(&args.target)? {
        return remote.sql(&args.query, format.as_str(), &mut stdout);
    }
    on_system(async {
        let idle = Idle::open(&args.target.data_dir, &args.engine).await?;
        let limits = args.engine.query_limits(&args.target.data_dir);
        let queries = idle.sources().query_engine(limits, None)?;
        let runtime = query_runtime(std::thread::available_parallelism().map_or(1, usize::from))
            .map_err(Failure::with(IO))?;
        let sql = args.query;
        let task = runtime.spawn(async move {
            let result = queries.query(&sql).await.map_err(Failure::with(DATA))?;
            write_result(result, format, &mut std::io::stdout())
                .await
                .map_err(Failure::with(DATA))
        });
        let finished = task.await;
        // Before any error leaves: a runtime may not be dropped on this thread.
        runtime.shutdown_background();
        finished.map_err(Failure::with(IO))?.map(drop)
    })
}
