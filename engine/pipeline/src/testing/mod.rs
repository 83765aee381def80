//! Tests of a graph, with virtual time: rows come, time passes, the engine restarts, and what comes
//! out of a port is what was expected.
//!
//! ```text
//! [[test]] ─check─▶ streams, ports, times ─run─▶ Executor, fed as the log feeds it ─compare─▶ Outcome
//! ```
//!
//! Time begins at `start` and moves with the rows' arrival and with `advance`. A row that does not
//! say when it arrives does so when it was measured, or now if that is past.

mod check;
mod compare;
mod input;
mod run;
mod time;

pub(crate) use check::check;
pub use run::{Failure, Outcome, Tables, run};

#[cfg(test)]
mod tests;
