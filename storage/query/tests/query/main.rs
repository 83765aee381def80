//! Queries over real Parquet files and real memtables, against naive models.

mod consistency;
mod explain;
mod files_archive;
mod formats;
mod harness;
mod limits;
mod missing_files;
mod model;
