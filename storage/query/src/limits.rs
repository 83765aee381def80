//! Every limit on a query, in one place.

use std::{path::PathBuf, time::Duration};

/// Longest text of a query, in bytes.
pub const SQL_BYTES_MAX: usize = 256 * 1024;
/// Most operators (`+`, `=`, `AND`, `LIKE`, `JOIN`, `UNION`, …) in a query. Each may deepen an
/// expression by one level, and levels take stack; `IN (…)` lists are flat and not limited by it.
pub const OPERATORS_MAX: usize = 1_000;
/// Most tables and sub-tables that a query names.
pub const RELATIONS_MAX: usize = 64;
/// Most tables that a query reads once its common table expressions are expanded.
pub const EXPANDED_RELATIONS_MAX: usize = 256;
/// Most nodes of a plan before it is optimised. Common table expressions that use each other can
/// make a plan exponentially larger than its text.
pub const PLAN_NODES_MAX: usize = 10_000;
/// Stack for planning, which each thread of a runtime that runs queries has, in bytes. An expression
/// of [`OPERATORS_MAX`] levels fits with room, without optimisation too.
pub const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of Parquet footers kept between queries.
pub(crate) const METADATA_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Batches that wait between a plan and a slow reader of its result.
pub(crate) const RESULT_BATCHES_QUEUED: usize = 2;
/// Rows of a batch.
pub(crate) const BATCH_ROWS: usize = 8_192;
/// Queries that may wait for each one that may run.
pub(crate) const WAITING_PER_RUNNING: usize = 16;

/// What queries may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Memory of one query's operators (joins, groups, sorts), in bytes; all queries together take
    /// at most this times [`QueryLimits::concurrent_queries`]. What can spill spills first. Default
    /// 256 MiB.
    pub memory_bytes: usize,
    /// Directory for spilled data; `None`: nothing is spilled, and memory alone decides. Default
    /// `None`.
    pub spill_directory: Option<PathBuf>,
    /// Spilled bytes of all queries together. Default 4 GiB.
    pub spill_bytes: u64,
    /// Time of one query, from the call until the last batch of its result is taken. Default 5 min.
    pub timeout: Duration,
    /// How long a query may wait for its turn while others run. Default 10 s.
    pub turn_timeout: Duration,
    /// Rows of one result; a query with more ends in an error. `None`: any number. Default `None`.
    pub rows_max: Option<u64>,
    /// Queries that run at the same time; 16 times as many may wait. Default 4.
    pub concurrent_queries: usize,
    /// Partitions that one query's work is divided into. Default: the machine's cores.
    pub partitions: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 * 1024 * 1024,
            spill_directory: None,
            spill_bytes: 4 * 1024 * 1024 * 1024,
            timeout: Duration::from_secs(300),
            turn_timeout: Duration::from_secs(10),
            rows_max: None,
            concurrent_queries: 4,
            partitions: std::thread::available_parallelism().map_or(2, usize::from),
        }
    }
}
