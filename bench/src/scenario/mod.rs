//! Scenarios: what load is put on a server.
//!
//! ```text
//! shipped or *.toml ──parse──▶ Knobs ─┐
//! flags ─────────────────────▶ Knobs ─┴─over─▶ resolve ─▶ check ─▶ Scenario
//! ```
//!
//! Promises: an unknown key, a value of the wrong form and values that contradict each other are
//! errors that name the file and line (or the flag) and say what to write instead.

mod check;
mod knobs;
mod parse;
mod shipped;
pub(crate) mod units;

pub use knobs::{Ack, Arrivals, Codec, Identity, Knobs, Scenario, Values};
pub use parse::{load, parse};
pub use shipped::{SHIPPED, Shipped};
pub use units::{Share, Span};
