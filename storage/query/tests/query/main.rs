//! Queries over real Parquet files and real memtables, against naive models.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "helpers of tests are tests"
)]

mod consistency;
mod explain;
mod formats;
mod harness;
mod limits;
mod missing_files;
mod model;
