//! SQL expressions over the columns of a stream, for routes, maps, windows and conditions: parsed
//! and checked when a graph is, evaluated a batch at a time.
//!
//! ```text
//! text ─parse─▶ syntax tree ─resolve names against a Scope─▶ plan, coerce, fold ─▶ Compiled
//!                 │ every problem with its place in the text, and what may have been meant
//! batch ─inputs (columns, device attributes)─▶ Compiled::evaluate ─▶ column, or the rows that fail, and why
//! ```
//!
//! Dialect, functions and arithmetic are DataFusion's, through its expression crates: what works in
//! a query works here. What would make a result depend on anything but its row is refused:
//! subqueries, the clock, randomness. Invariant: nothing here plans a query or reads a table.

mod aggregate;
mod compiled;
mod deep;
mod error;
mod evaluate;
mod functions;
mod json;
mod parse;
mod plan;
mod projection;
mod resolve;
mod scope;
mod text;

pub use aggregate::{AggregateCall, AggregateSelect, AggregateTypes, KeyColumn};
pub use compiled::{Compiled, Input};
pub use error::{Problem, Problems};
pub use evaluate::{Evaluated, FailedRow};
pub use projection::{Item, Projection};
pub use scope::{ATTRIBUTES, LAST, LastStream, Scope, ScopeColumn};

#[cfg(test)]
mod tests;
