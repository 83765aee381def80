//! What the log promises, as sentences.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; the lint knows test functions only, not their helpers"
)]

mod crash;
mod damage;
mod failures;
mod fixture;
mod model;
mod reading;
mod stores;
mod support;
