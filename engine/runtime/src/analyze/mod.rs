//! The graph beside the log: it follows what is committed, and what its nodes put out enters the
//! log again.
//!
//! ```text
//! log ──committed records, in position order──▶ Analyzer ──rows──▶ Analysis (the graph, wired by the binary)
//!  ▲                                               │ ◀──────────── new rows of nodes
//!  └──── records of sender node:NAME ◀─────────────┤
//!                                                  └─▶ StateLog: what nodes remember, as of a position
//! ```
//!
//! A node's rows that a record caused have sequences that follow from the record's position: see
//! `sequences`. After a crash the graph goes on where its state was kept; what it puts out again has
//! sequences that are known by then, and is left out. So every row is there once, and the same.
//!
//! After a kill, a node may be defined otherwise than when it put out what the log has beyond the
//! position that its state was kept as of. With that state it would put out once more what is there
//! already, or leave out what is not. So it begins anew, and is held until behind the last record
//! that rows of its stream were put out for: from there on it sees rows, as after a reload.
//!
//! Invariants: nothing waits for the graph; it waits for room, and for the log. What depends on time
//! follows from the log: while nothing comes, ticks are written.

mod analyzer;
mod append;
mod input;
mod parts;
mod sequences;
mod state_log;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use quiver_model::{StreamName, Timestamp};

use crate::registry::{Registry, RegistryChange};

pub(crate) use analyzer::AnalyzerParts;
pub use analyzer::{Analyzer, AnalyzerHandle, AnalyzerStatus, LoadTable};
pub(crate) use append::{Appender, RefusedRows};
pub(crate) use sequences::Written;
pub use state_log::StateLogError;

/// New rows of a node.
#[derive(Clone, Debug)]
pub struct DerivedRows {
    /// The node, and the stream that its rows are of.
    pub stream: StreamName,
    /// Which definition of the node.
    pub generation: u64,
    /// `ts`, `device`, then the fields; `arrival` if it is not that of the record to be.
    pub rows: RecordBatch,
}

/// What a node remembers: entries by key; of those that have changed, `None` is one that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorState {
    /// The node.
    pub node: String,
    /// Which definition of the node.
    pub generation: u64,
    /// The entries.
    pub entries: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
}

/// How a node that puts out new rows is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDefinition {
    /// The node, and the stream that its rows are of.
    pub stream: StreamName,
    /// Names what its state depends on.
    pub generation: u64,
    /// Names all that its rows depend on, back to records of the log.
    pub lineage: u64,
}

/// A graph at work, as the engine knows it.
pub trait Analysis: Send {
    /// Names the whole graph: another one has another name.
    fn name(&self) -> String;

    /// The nodes that put out new rows.
    fn nodes(&self) -> Vec<NodeDefinition>;

    /// From now on a node sees neither rows nor time; or does again, as if it had just been made.
    fn hold(&mut self, node: &StreamName, is_held: bool);

    /// Whether rows of a stream matter.
    fn takes(&self, stream: &StreamName) -> bool;

    /// Nothing was kept: this is what is known of devices.
    fn begin(&mut self, registry: &Registry);

    /// Takes the rows of a record, in the layout of `StreamSchema::stored`.
    fn rows(
        &mut self,
        stream: &StreamName,
        rows: RecordBatch,
        record_time: Timestamp,
    ) -> Vec<DerivedRows>;

    /// Record time has come to this.
    fn tick(&mut self, record_time: Timestamp) -> Vec<DerivedRows>;

    /// Whether time alone will make something come out.
    fn waits_for_time(&self) -> bool;

    /// The registry has changed.
    fn registry(&mut self, change: &RegistryChange);

    /// What has changed of what nodes remember; everything, if `is_all`.
    fn state(&mut self, is_all: bool) -> Vec<OperatorState>;

    /// Puts back what was kept; whether there is such a node, of this definition.
    ///
    /// # Errors
    /// What is wrong with it.
    fn restore(&mut self, state: &OperatorState) -> Result<bool, String>;

    /// Gives a node another reference table.
    ///
    /// # Errors
    /// If it is not what the node needs; the one before stays.
    fn load(&mut self, node: &str, table: &RecordBatch) -> Result<(), String>;
}
