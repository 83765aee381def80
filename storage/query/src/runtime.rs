//! A runtime that is fit to run queries.

use tokio::runtime::{Builder, Runtime};

use crate::limits::STACK_BYTES;

/// Stack that a thread of the runtime may have used when planning begins.
const STACK_BELOW_BYTES: usize = 512 * 1024;

/// A Tokio runtime for queries: apart from ingest's threads, with stacks that deep expressions fit
/// into. `threads` is usually the number of cores.
///
/// # Errors
/// If the operating system gives no threads.
pub fn query_runtime(threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name("quiver-query")
        .thread_stack_size(STACK_BYTES + STACK_BELOW_BYTES)
        .enable_all()
        .build()
}
