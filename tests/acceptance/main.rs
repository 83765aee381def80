//! The built binary, as a user has it: real files over real QUIC, real SQL, real Delta readers,
//! `kill -9` on the real process.
//!
//! The binary is `QUIVER_TEST_BINARY`, or the one that lies beside this test. Peers in Python are
//! run with `QUIVER_TEST_PYTHON`; a test whose peer is missing says so, and fails if
//! `QUIVER_TEST_REQUIRE_PEERS` is set.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "these are tests, on the real clock"
)]

mod attributes;
mod backpressure;
mod bench;
mod command_line;
mod damage;
mod damaged_archive;
mod decimals;
mod device;
mod examples;
mod files;
mod fleet;
mod graph;
mod hostile;
mod http;
mod kill;
mod locked;
mod many_days;
mod protocol;
mod python;
mod readme;
mod server;
mod times;
mod top;
