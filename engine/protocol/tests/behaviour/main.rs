//! How the protocol behaves towards peers that keep to it, and towards those that do not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail tests"
)]

mod control_stream;
mod golden;
mod support;
mod telemetry_stream;
mod valid_writers;
