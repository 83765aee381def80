//! The load generator: puts a described load on a Quiver server, measures what becomes of it, and
//! proves that nothing was lost.
//!
//! ```text
//! scenario ─▶ plan ─▶ pacer ─▶ load (workers, QUIC) ─▶ record ─▶ result ─▶ report
//!                                  │ proxy: bad networks            └────▶ compare
//!                                  ▼
//!                          server (any, or a child process) ─▶ metrics, audit
//! ```
//!
//! - [`scenario`]: what load; files in TOML, every key also a flag.
//! - `schedule`, `pacer`: when batches are due, fixed ahead (open loop).
//! - `values`: what is in them.
//! - `load`: connections, sources, acknowledgements.
//! - `proxy`: loss and delay.
//! - `record`, `hgrm`: histograms, and their files.
//! - [`result`]: what was found, as JSON.
//! - `audit`: acknowledged against stored.
//! - `report`: terminal, table, HTML.
//! - [`compare`]: two results and whether they differ.
//! - [`cli`], [`command`]: the verb `quiver bench`.
//!
//! What it promises: latency is measured from the moment a batch was *due* to the moment its
//! acknowledgement was read, so that a server that stands still is not excused from what was due
//! meanwhile (no coordinated omission); what never was acknowledged counts with the time it had
//! waited; a run whose rows do not add up is a failure, whatever its speed.

#![forbid(unsafe_code)]

mod audit;
pub mod cli;
pub mod command;
pub mod compare;
mod error;
mod hgrm;
mod identity;
mod load;
mod pacer;
mod plan;
mod proxy;
mod record;
mod report;
pub mod result;
mod run;
mod sampler;
pub mod scenario;
mod schedule;
mod server;
mod values;

pub use error::BenchError;
pub use identity::Credentials;
pub use proxy::ProxyCounts;
pub use record::Counts;
pub use server::ServerSample;
