//! SQL over hot and archived rows as one consistent table per stream.
//!
//! ```text
//! sql ──statement──▶ one read-only statement
//!                        │  Q = committed();  wait_applied(Q)
//!                        ▼
//!  catalog at Q ──▶ stream table ──scan──▶ archived files, position ≤ min(P, Q) ─┐
//!                                          hot batches, position in (P, Q] ──────┴─▶ union ─▶ plan
//!                        │                                                                      │
//!                  last_cache('s')                          QueryResult (stream of batches) ◀───┘
//!                                                                │
//!                                              encode: table, csv, json, jsonl, arrow, parquet
//! ```
//!
//! Promises:
//! - One Q for all tables of a query: each row with position ≤ Q is seen exactly once, whatever
//!   freezes, flushes and compactions happen meanwhile; rows beyond Q are not seen. (The function
//!   `last_cache` shows for each device a row at least as new as its last one up to Q.)
//! - A query holds the archived versions it reads until its result ends or is dropped.
//! - Read-only by construction: one statement, of a listed kind; no function reads files; the only
//!   object store a plan can reach is the archive's.
//! - Text, operators, relations, plan nodes, memory, spilled bytes, time and number of queries are
//!   limited ([`QueryLimits`]); beyond a limit there is a [`QueryError`] that says which.
//! - A panic inside a plan ends that query with an error, not the engine.
//! - An archive file that is missing or damaged is named; queries that do not need it answer.
//!
//! Where it runs: [`QueryEngine::query`] must be called within a Tokio runtime, and everything a
//! query does runs on that runtime. Never use the one that ingest runs on; [`query_runtime`] makes
//! a fitting one.
//!
//! Invariant: this crate never writes to the archive, the log or a memtable.

mod archive_reader;
mod catalog;
mod classify;
mod deep_stack;
mod engine;
mod error;
mod format;
mod functions;
mod inspect;
mod last_cache;
mod limits;
mod plan;
mod pruning;
mod result;
mod runtime;
mod scan;
mod statement;
mod stores;
mod table;
mod view;

pub use engine::{QueryEngine, QuerySources};
pub use error::{QueryError, WriteError};
pub use format::{
    Format, FormatError, ResultEncoder, UnknownFormat, Written, encode, write_result,
};
pub use limits::{
    EXPANDED_RELATIONS_MAX, OPERATORS_MAX, PLAN_NODES_MAX, QueryLimits, RELATIONS_MAX,
    SQL_BYTES_MAX, STACK_BYTES,
};
pub use result::QueryResult;
pub use runtime::query_runtime;
pub use stores::ArchiveLocation;
pub use view::CommittedView;
