//! The tables of one query: every stream at the same Q. A stream's snapshot is taken when the
//! query first names it, and kept until the query ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use datafusion::{
    catalog::{SchemaProvider, TableProvider},
    error::{DataFusionError, Result},
    logical_expr::TableType,
};
use quiver_hot::{ArchiveSnapshot, LastValues, TableSnapshot, Tables};
use quiver_model::{Position, StreamName, nearest};

use crate::{
    archive_reader::Reads, scan::StreamScan, stores::ArchiveLocation, table::StreamAtPosition,
};

/// What a query reads.
#[derive(Debug)]
pub(crate) struct QueryCatalog {
    tables: Arc<Tables>,
    last_values: Arc<LastValues>,
    location: ArchiveLocation,
    position: Position,
    reads: Arc<Reads>,
    named: Mutex<BTreeMap<StreamName, Arc<StreamAtPosition>>>,
}

impl QueryCatalog {
    /// Every shard must have applied `position`.
    pub(crate) fn new(
        tables: Arc<Tables>,
        last_values: Arc<LastValues>,
        location: ArchiveLocation,
        position: Position,
    ) -> Self {
        let reads = Arc::default();
        Self {
            tables,
            last_values,
            location,
            position,
            reads,
            named: Mutex::default(),
        }
    }

    /// Q.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// What has been read of the archive so far.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Where the archive is.
    pub(crate) fn location(&self) -> &ArchiveLocation {
        &self.location
    }

    fn named(&self) -> MutexGuard<'_, BTreeMap<StreamName, Arc<StreamAtPosition>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream at Q; the same rows however often it is named.
    fn stream(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = StreamName::new(name)
            .ok()
            .and_then(|name| self.tables.table(&name))
        else {
            return Ok(None);
        };
        let mut named = self.named();
        if let Some(known) = named.get(table.name()) {
            return Ok(Some(Arc::clone(known) as Arc<dyn TableProvider>));
        }
        let stream = self.provider(table.snapshot(self.position)?)?;
        named.insert(table.name().clone(), Arc::clone(&stream));
        Ok(Some(stream))
    }

    /// The last row of each device of a stream.
    pub(crate) fn last_rows(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        let table = StreamName::new(name)
            .ok()
            .and_then(|name| self.tables.table(&name));
        let Some(table) = table else {
            return Err(DataFusionError::External(Box::new(self.unknown(name))));
        };
        let schema = table.schema();
        let rows = self.last_values.snapshot(&schema)?;
        let snapshot = TableSnapshot {
            schema,
            archived: Arc::new(ArchiveSnapshot::absent(table.name().clone())),
            archived_limit: None,
            hot: vec![rows],
        };
        Ok(self.provider(snapshot)?)
    }

    fn provider(&self, snapshot: TableSnapshot) -> Result<Arc<StreamAtPosition>> {
        let scan = StreamScan::new(snapshot, self.location.clone(), Arc::clone(&self.reads))?;
        Ok(Arc::new(StreamAtPosition { scan }))
    }

    fn names(&self) -> Vec<String> {
        self.tables
            .all()
            .iter()
            .map(|table| table.name().to_string())
            .collect()
    }

    /// The error for a name that no stream has.
    pub(crate) fn unknown(&self, name: &str) -> UnknownStream {
        let names = self.names();
        UnknownStream {
            name: name.to_owned(),
            streams: names.len(),
            near: nearest(name, names),
        }
    }

    /// Whether a stream has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        StreamName::new(name).is_ok_and(|name| self.tables.table(&name).is_some())
    }
}

/// A name that no stream has, and the streams with similar names.
#[derive(Debug, thiserror::Error)]
#[error("there is no stream {name:?}")]
pub(crate) struct UnknownStream {
    pub(crate) name: String,
    pub(crate) near: Vec<String>,
    pub(crate) streams: usize,
}

/// A catalog as DataFusion's schema `public`.
#[derive(Debug)]
pub(crate) struct PublicSchema(pub(crate) Arc<QueryCatalog>);

#[async_trait]
impl SchemaProvider for PublicSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.0.stream(name)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        // Without this, SHOW TABLES would take a snapshot of every stream.
        Ok(self.0.has(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.has(name)
    }
}
