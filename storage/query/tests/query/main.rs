//! Queries over real Parquet files and real memtables, against naive models.

mod consistency;
mod explain;
mod formats;
mod harness;
mod limits;
mod missing_files;
mod model;
