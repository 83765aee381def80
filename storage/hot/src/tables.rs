//! Every stream's table, by name. Looking one up takes no lock.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use quiver_model::{StreamName, StreamSchema};

use crate::{StreamTable, sync::lock};

type ByName = BTreeMap<StreamName, Arc<StreamTable>>;

/// The tables of an engine.
#[derive(Debug)]
pub struct Tables {
    shard_count: u16,
    by_name: ArcSwap<ByName>,
    creating: Mutex<()>,
}

impl Tables {
    /// No tables yet, for an engine with `shard_count` shards.
    pub fn new(shard_count: u16) -> Self {
        Self {
            shard_count,
            by_name: ArcSwap::from_pointee(ByName::new()),
            creating: Mutex::new(()),
        }
    }

    /// Number of shards.
    pub fn shard_count(&self) -> u16 {
        self.shard_count
    }

    /// The table of `stream`, if it has one.
    pub fn table(&self, stream: &StreamName) -> Option<Arc<StreamTable>> {
        self.by_name.load().get(stream).cloned()
    }

    /// The table of the schema's stream, created if it is new; it has at least this schema's
    /// fields afterwards.
    pub fn get_or_create(&self, schema: &Arc<StreamSchema>) -> Arc<StreamTable> {
        if let Some(table) = self.table(schema.stream()) {
            table.set_schema(schema);
            return table;
        }
        let _creating = lock(&self.creating);
        if let Some(table) = self.table(schema.stream()) {
            table.set_schema(schema);
            return table;
        }
        let table = Arc::new(StreamTable::new(Arc::clone(schema), self.shard_count));
        let mut by_name = ByName::clone(&self.by_name.load());
        by_name.insert(schema.stream().clone(), Arc::clone(&table));
        self.by_name.store(Arc::new(by_name));
        table
    }

    /// All tables, by name.
    pub fn all(&self) -> Vec<Arc<StreamTable>> {
        self.by_name.load().values().cloned().collect()
    }
}
