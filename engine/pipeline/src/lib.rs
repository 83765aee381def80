//! The pipeline graph: read from configuration, checked, drawn, and evaluated.
//!
//! ```text
//! files ─source, value─▶ tables with places ─config─▶ streams, stores, nodes ─graph─▶ ports, columns, order
//!                                   │ every problem: file, line, column, what was meant
//!                                   ▼
//!                              diagnostics                  graph ─draw─▶ svg, dot, mermaid, ascii
//!                                                             graph ─execute─▶ rows in, rows out
//!                                                             tests ─testing─▶ what was not as expected
//! ```
//!
//! Invariant: nothing here reads a clock or the environment, or speaks with a network; what a
//! configuration refers to is asked of whoever reads it.

pub mod config;
pub mod diagnostics;
pub mod draw;
pub mod execute;
pub mod graph;
pub mod secrets;
pub mod source;
pub mod testing;
pub mod value;

pub use config::Config;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use execute::Executor;
pub use graph::Graph;
pub use secrets::Secrets;
pub use source::Sources;

#[cfg(test)]
mod tests;
