//! What nodes remember, as bytes: entries that have changed since they were last asked for.

use std::collections::BTreeMap;

/// Names something that a node remembers.
pub type Key = Box<[u8]>;

/// What has changed: its bytes now, or that it is gone. In the order of the keys, so that the same
/// state is the same bytes.
pub type Entries = BTreeMap<Key, Option<Box<[u8]>>>;

/// What a node remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// The node.
    pub node: String,
    /// Which definition of the node it is of.
    pub generation: u64,
    /// What has changed.
    pub entries: Entries,
}

/// A node cannot remember what it is told.
#[derive(Debug, thiserror::Error)]
#[error("state of node {node}: {problem}")]
pub struct StateError {
    /// The node.
    pub node: String,
    /// Why.
    pub problem: String,
}
