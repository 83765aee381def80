//! The memory of the program: one cap, what each part of it may take, and a watch over the whole.
//!
//! ```text
//! --memory ─▶ MemoryShares ─▶ rows | messages being received | merges | queries | the rest
//!                 cap      ─▶ watch: near it, the allocator gives freed memory back at once
//! ```
//!
//! Each part keeps to its share by itself: rows wait at admission, messages in QUIC's flow control,
//! merges are made smaller, queries spill. What no share accounts for is the allocator's: pages
//! that are partly free, and pages that it keeps for what comes next. That is what [`watch`] is for.

use std::{sync::Arc, time::Duration};

use quiver_runtime::{EngineOptions, MEMORY_BYTES_MIN, Metrics};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    exit::{CONFIG, Failure},
    numbers,
};

/// For the program itself, connections, what is known of devices, and what a flush encodes.
const REST_BYTES: u64 = 64 << 20;
/// What the allocator and the rest may take without making the share of rows smaller: measured, at
/// full load, beside what the shares account for.
const SLACK_BYTES: u64 = 256 << 20;
/// Most that a merge of archived files takes: larger ones are no quicker.
const MERGE_BYTES_MAX: u64 = 256 << 20;
/// What a connection of a device takes, measured with 10,000 that send a row a second (scenario
/// `storm`, docs/performance.md): most of it is QUIC's and TLS's.
const CONNECTION_BYTES: u64 = 80 << 10;
/// Time between two looks at what the process takes.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What each part may take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// All of it.
    pub cap: u64,
    /// Queues and memtables of rows that senders send.
    pub rows: u64,
    /// Rows of one merge of archived files.
    pub merge: u64,
    /// A query.
    pub query: u64,
}

impl MemoryShares {
    /// Shares of `cap`: a quarter of it for queries, and half of what is then left, but for
    /// [`SLACK_BYTES`], for rows, unless these are given. (Half: messages that are being received,
    /// their dictionaries and a merge take up to seven eighths of that again.)
    pub fn of(cap: u64, rows: Option<u64>, query: Option<u64>) -> Self {
        let query = query.unwrap_or(cap / 4);
        let left = cap.saturating_sub(query).saturating_sub(SLACK_BYTES);
        let rows = rows.unwrap_or((left / 2).max(MEMORY_BYTES_MIN as u64));
        Self {
            cap,
            rows,
            merge: MERGE_BYTES_MAX.min(rows / 2),
            query,
        }
    }

    /// Whether the shares fit under the cap.
    ///
    /// # Errors
    /// If not: what they take, and what to set.
    pub fn check(&self) -> Result<(), Failure> {
        let least = MEMORY_BYTES_MIN as u64;
        let show = numbers::bytes;
        if self.rows < least {
            return Err(Failure::new(
                CONFIG,
                format!(
                    "--ingest-memory {} is less than {}, what one batch of the limits announced to senders may take: such a batch would be refused for ever; set --ingest-memory (or QUIVER_INGEST_MEMORY) to {}MiB or more, or leave it out",
                    show(self.rows),
                    show(least),
                    least.div_ceil(1 << 20)
                ),
            ));
        }
        let needed = self.needed();
        if needed > self.cap {
            return Err(Failure::new(
                CONFIG,
                format!(
                    "--memory {} is less than {}, what its parts may take: {} for rows (--ingest-memory), {} for messages that are being received, {} for a merge of archived files, {} for queries (--query-memory), {} for the rest; set --memory (or QUIVER_MEMORY) to {}MiB or more",
                    show(self.cap),
                    show(needed),
                    show(self.rows),
                    show(self.receive()),
                    show(self.merge),
                    show(self.query),
                    show(REST_BYTES),
                    least_cap(self).div_ceil(1 << 20)
                ),
            ));
        }
        Ok(())
    }

    /// Connections for which there is memory also while every part takes its whole share.
    fn connections(&self) -> u64 {
        (self.cap + REST_BYTES).saturating_sub(self.needed()) / CONNECTION_BYTES
    }

    /// What to say of so many connections, if there is not memory for them in any case.
    fn too_small_for(&self, connections: u64) -> Option<String> {
        if connections <= self.connections() {
            return None;
        }
        // With the other parts as they are; those that follow from the cap have to be named then.
        let more = (connections - self.connections()) * CONNECTION_BYTES;
        // Some more, because these are rounded up.
        let enough = (self.cap + more + (4 << 20)).next_multiple_of(64 << 20);
        Some(format!(
            "{connections} connections take about {}; beside its other parts --memory {} has room for {} of them: under full load the process may take more than that; set --ingest-memory {}MiB, --query-memory {}MiB and --memory (or QUIVER_MEMORY) to {}MiB or more",
            numbers::bytes(connections * CONNECTION_BYTES),
            numbers::bytes(self.cap),
            self.connections(),
            self.rows.div_ceil(1 << 20),
            self.query.div_ceil(1 << 20),
            enough >> 20,
        ))
    }

    /// Messages that are being received, and their dictionaries.
    fn receive(&self) -> u64 {
        let mut options = EngineOptions::new("");
        options.memory_bytes = usize::try_from(self.rows).unwrap_or(usize::MAX);
        let bytes = options.receive_bytes() as u64;
        bytes.saturating_add(bytes / 2)
    }

    fn needed(&self) -> u64 {
        [self.rows, self.receive(), self.merge, self.query]
            .into_iter()
            .fold(REST_BYTES, u64::saturating_add)
    }
}

/// The least cap, in whole 64 MiB, with which what was given fits.
fn least_cap(shares: &MemoryShares) -> u64 {
    // A share that follows from the cap grows with it; what was given stays.
    let derived = shares.query == shares.cap / 4;
    let without_query = shares.needed() - shares.query;
    let least = if derived {
        without_query / 3 * 4
    } else {
        shares.needed()
    };
    least.next_multiple_of(64 << 20)
}

/// Memory that the process takes, in bytes; `None` where the system does not say.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    // Pages of 4 KiB: of the architectures that we build for, all have these.
    Some(pages * 4_096)
}

/// Has the allocator give freed memory back at once while the process takes nearly all that it may,
/// and tells when there are more connections than there is memory for: again whenever they have
/// doubled.
pub async fn watch(shares: MemoryShares, metrics: Arc<Metrics>) {
    let cap = shares.cap;
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_near = false;
    let mut told = 0;
    loop {
        ticks.tick().await;
        let connections = u64::try_from(metrics.connections.get()).unwrap_or(0);
        if connections >= 2 * told
            && let Some(warning) = shares.too_small_for(connections)
        {
            told = connections;
            tracing::warn!("{warning}");
        }
        let Some(bytes) = resident_bytes() else {
            return;
        };
        // Two thresholds, so that it does not go to and fro.
        let was_near = is_near;
        is_near = bytes > cap / 100 * if was_near { 75 } else { 85 };
        if is_near {
            quiver_allocator::give_back_freed_memory();
        } else if was_near {
            quiver_allocator::keep_freed_memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn shares_fit_under_every_cap_that_is_not_refused() {
        for cap in 0..200 {
            let cap = cap * 64 * MIB;
            let shares = MemoryShares::of(cap, None, None);
            assert_eq!(shares.check().is_ok(), cap >= 512 * MIB, "{cap}");
        }
        let shares = MemoryShares::of(1 << 30, None, None);
        assert_eq!(
            (shares.rows, shares.query, shares.merge),
            (256 * MIB, 256 * MIB, 128 * MIB)
        );
        assert!(MemoryShares::of(u64::MAX, None, None).check().is_ok());
    }

    #[test]
    fn connections_beyond_what_there_is_memory_for_are_told_with_what_would_do() {
        for cap in [512 * MIB, 1 << 30, 2 << 30, 8 << 30] {
            let shares = MemoryShares::of(cap, None, None);
            let enough = shares.connections();
            assert_eq!(shares.too_small_for(enough), None, "{cap}");
            for connections in [enough + 1, 10 * enough + 10_000] {
                let warning = shares.too_small_for(connections).unwrap();
                let (_, end) = warning.rsplit_once(" to ").unwrap();
                let mend: u64 = end.split_once("MiB").unwrap().0.parse().unwrap();
                let (rows, query) = (shares.rows.div_ceil(MIB), shares.query.div_ceil(MIB));
                assert!(warning.contains(&format!("--ingest-memory {rows}MiB, ")));
                assert!(warning.contains(&format!("--query-memory {query}MiB ")));
                let larger = MemoryShares::of(mend * MIB, Some(rows * MIB), Some(query * MIB));
                assert!(larger.check().is_ok(), "{warning}");
                assert_eq!(larger.too_small_for(connections), None, "{warning}");
            }
        }
        assert!(MemoryShares::of(1 << 30, None, None).connections() > 2_000);
    }

    #[test]
    fn what_is_said_to_be_enough_is_enough() {
        for (cap, rows, query) in [
            (0, None, None),
            (100 * MIB, None, None),
            (1 << 30, Some(1 << 30), None),
            (1 << 30, None, Some(1 << 30)),
            (1 << 30, Some(200 * MIB), Some(3 << 30)),
        ] {
            let shares = MemoryShares::of(cap, rows, query);
            let message = shares.check().unwrap_err().to_string();
            let (_, end) = message.rsplit_once(" to ").unwrap();
            let mend: u64 = end.split_once("MiB").unwrap().0.parse().unwrap();
            assert!(
                MemoryShares::of(mend * MIB, rows, query).check().is_ok(),
                "{message}"
            );
        }
        let few = MemoryShares::of(1 << 30, Some(100 * MIB), None);
        let message = few.check().unwrap_err().to_string();
        assert!(message.contains("--ingest-memory 100.0 MiB"), "{message}");
    }

    #[test]
    fn the_process_takes_memory() {
        assert!(resident_bytes().unwrap() > MIB);
    }
}
