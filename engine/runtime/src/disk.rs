//! Watches the free space: below the reserve, ingest is refused for the time being, so that
//! flushes, commits, checkpoints and trimming can always finish.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quiver_log::Vfs;

use crate::Metrics;

/// How often the disk is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the free space of `dir` until the task is dropped.
pub async fn watch_disk(
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    reserve_bytes: u64,
    low: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
) {
    loop {
        check(&*vfs, &dir, reserve_bytes, &low, &metrics);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// One look.
pub fn check(
    vfs: &dyn Vfs,
    dir: &std::path::Path,
    reserve_bytes: u64,
    low: &AtomicBool,
    metrics: &Metrics,
) {
    // What is in the log and not flushed needs about its own size once more in the archive.
    let unflushed = u64::try_from(metrics.unflushed_bytes.get()).unwrap_or(0);
    let reserve = reserve_bytes.max(if reserve_bytes == 0 { 0 } else { unflushed });
    match vfs.free_space(dir) {
        Ok(free) => {
            let is_low = free < reserve;
            if is_low != low.swap(is_low, Ordering::Relaxed) {
                if is_low {
                    tracing::warn!(
                        free,
                        reserve,
                        "the disk is nearly full; ingest is refused until space is free"
                    );
                } else {
                    tracing::info!(free, reserve, "there is space again; ingest goes on");
                }
            }
            metrics.disk_low.set(i64::from(is_low));
        }
        Err(error) => tracing::warn!(%error, "the free space could not be read"),
    }
}
