//! Work that would block an executor's thread: encoding, file system calls, and Delta's own
//! runtime-bound code.
//!
//! What takes a processor for long runs on threads of its own at a lower priority (nice 10), so
//! that acknowledgements and queries keep their latency when there are fewer cores than work. The
//! system then gives such a thread about a tenth of a core that others want, and all of one that
//! nobody wants.
//!
//! A thread that waits for the processor must not hold what others wait for. So:
//! - Work at low priority is a function of what it is given: it takes no lock of the engine's, and
//!   does no input or output. Files are written, synced and renamed at the usual priority, as is
//!   each commit: a thread that is preempted there holds locks of the file system, for which the
//!   log's next sync may wait.
//! - A table's slot (`DeltaArchive::slot`) is held by a task, not a thread, while its flush is encoded:
//!   only other flushes, merges and vacuums of the same table wait for it, never ingest or queries.
//! - Ingest waits for flushes when memory is short. Then flushes run at the usual priority
//!   (`Archive::set_hurried`); as a thread without privileges cannot get its priority back, each
//!   piece of work (at most a row group) chooses its thread when it begins. So no more than one
//!   row group of a flush is at low priority after memory became short.
//! - Merging, vacuuming, checking and Delta checkpoints are always at low priority: nobody waits
//!   for them but their own commands.

use std::{sync::OnceLock, thread};

use tokio::runtime::{Builder, Handle, Runtime};

/// How much lower the low priority is, in steps of `nice`.
#[cfg(target_os = "linux")]
const LOWER: i32 = 10;
/// Most threads at low priority: work beyond that waits for them. Two flushes, a merge, a check.
const LOW_THREADS: usize = 4;

/// What may wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// As the caller's.
    Usual,
    /// Behind everything else that wants the processor.
    Low,
}

/// Why blocking work has no result.
#[derive(Debug, thiserror::Error)]
#[error("background work of the archive ended without a result: {0}")]
pub(crate) struct WorkLost(String);

/// Runs `work` where it may block: on the runtime's blocking pool, or in place without a runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkLost> {
    blocking_at(Priority::Usual, work).await
}

/// Like [`blocking`], at this priority. Without a runtime there is no other thread, and the caller's
/// stays as it is.
pub(crate) async fn blocking_at<T: Send + 'static>(
    priority: Priority,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkLost> {
    let Ok(usual) = Handle::try_current() else {
        return Ok(work());
    };
    let pool = match priority {
        Priority::Usual => usual,
        Priority::Low => low_pool().cloned().unwrap_or(usual),
    };
    pool.spawn_blocking(work)
        .await
        .map_err(|error| WorkLost(error.to_string()))
}

/// The threads at low priority; `None` if the system gives none. One pool for the process: it is
/// never dropped, as no thread may wait for its end.
fn low_pool() -> Option<&'static Handle> {
    static POOL: OnceLock<Option<Runtime>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        Builder::new_current_thread()
            .thread_name("quiver-low")
            .max_blocking_threads(LOW_THREADS)
            .on_thread_start(lower_priority)
            .build()
            .inspect_err(|error| tracing::warn!(%error, "no threads at low priority; files are encoded and merged at the usual one"))
            .ok()
    });
    pool.as_ref().map(Runtime::handle)
}

/// Lowers the priority of the calling thread, for good.
#[cfg(target_os = "linux")]
fn lower_priority() {
    use rustix::process::{getpriority_process, setpriority_process};
    // On Linux a priority is a thread's, and "this process" is the calling thread.
    let lowered = getpriority_process(None)
        .and_then(|priority| setpriority_process(None, (priority + LOWER).min(19)));
    if let Err(error) = lowered {
        tracing::debug!(%error, "the priority of a background thread stays as it is");
    }
}

/// Elsewhere a priority is the whole process's, which must keep its own.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

/// Runs `work` on a thread with a runtime of its own. Delta's kernel blocks inside async code and
/// needs a runtime; this keeps it away from the caller's, whatever that is.
pub(crate) async fn on_own_runtime<T, F>(
    priority: Priority,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, WorkLost>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (send, receive) = tokio::sync::oneshot::channel();
    let lost = |error: &dyn std::fmt::Display| WorkLost(error.to_string());
    thread::Builder::new()
        .name("quiver-delta".to_owned())
        .spawn(move || {
            let mut builder = Builder::new_current_thread();
            if priority == Priority::Low {
                lower_priority();
                builder.on_thread_start(lower_priority);
            }
            let result = builder
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(work()));
            // The receiver is gone when the caller lost interest.
            let _ = send.send(result);
        })
        .map_err(|error| lost(&error))?;
    receive
        .await
        .map_err(|error| lost(&error))?
        .map_err(|error| lost(&error))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    fn priority() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn work_at_low_priority_sees_that_it_is_and_nobody_else_does() {
        let own = priority();
        let lowered = (own + LOWER).min(19);
        // More at once than there are threads.
        let low = (0..3 * LOW_THREADS).map(|_| blocking_at(Priority::Low, priority));
        for low in futures::future::join_all(low).await {
            assert_eq!(low.unwrap(), lowered);
        }
        assert_eq!(blocking(priority).await.unwrap(), own);
        let delta = |level| on_own_runtime(level, || async { priority() });
        assert_eq!(delta(Priority::Low).await.unwrap(), lowered);
        assert_eq!(delta(Priority::Usual).await.unwrap(), own);
        assert_eq!(priority(), own);
    }

    #[test]
    fn without_a_runtime_the_caller_keeps_its_priority() {
        let own = priority();
        let work = blocking_at(Priority::Low, priority);
        assert_eq!(futures::executor::block_on(work).unwrap(), own);
        assert_eq!(priority(), own);
    }
}
