//! Windows over rows of many devices, beside loops written by hand for the very same case.
//!
//! ```text
//! rows.rs: batches ─┬─▶ engine.rs: the engine's windows ─┐
//!                   └─▶ by_hand.rs: a loop for each case ┴─▶ Results, which must be the same
//! ```
//!
//! `bench/kernels` times a turn of it, steadily; the program here (main.rs) times all of it beside
//! DuckDB and polars, which `peers.py` drives (`cargo xtask windows`).

pub mod by_hand;
mod case;
pub mod engine;
mod results;
mod rows;

pub use case::{Case, Kind};
pub use results::Results;
pub use rows::{Batch, FIELDS, Order, Rows};

/// Why something could not be measured.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What takes batches, the engine's windows or a loop.
pub trait Windows {
    /// Takes a batch.
    ///
    /// # Errors
    /// If it is not as it should be.
    fn push(&mut self, batch: &Batch) -> Result<(), Fault>;

    /// Closes what is still open.
    fn close(&mut self);

    /// Takes out what was closed so far.
    fn take(&mut self) -> Results;

    /// Forgets what was closed so far; how much it was.
    fn discard(&mut self) -> u64;
}

#[cfg(test)]
mod tests;
