//! Work that would block an executor's thread: encoding, file system calls, and Delta's own
//! runtime-bound code.

use std::thread;

/// Why blocking work has no result.
#[derive(Debug, thiserror::Error)]
#[error("background work of the archive ended without a result: {0}")]
pub(crate) struct WorkLost(String);

/// Runs `work` where it may block: on the runtime's blocking pool, or in place without a runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkLost> {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) => handle
            .spawn_blocking(work)
            .await
            .map_err(|error| WorkLost(error.to_string())),
        Err(_) => Ok(work()),
    }
}

/// Runs `work` on a thread with a runtime of its own. Delta's kernel blocks inside async code and
/// needs a runtime; this keeps it away from the caller's, whatever that is.
pub(crate) async fn on_own_runtime<T, F>(
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
            let built = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let result = built.map(|runtime| runtime.block_on(work()));
            // The receiver is gone when the caller lost interest.
            let _ = send.send(result);
        })
        .map_err(|error| lost(&error))?;
    receive
        .await
        .map_err(|error| lost(&error))?
        .map_err(|error| lost(&error))
}
