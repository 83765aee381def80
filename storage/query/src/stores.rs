//! The one place a plan can read from.

use std::sync::Arc;

use datafusion::{
    error::{DataFusionError, Result},
    execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl},
};
use object_store::{ObjectStore, path::Path};
use quiver_model::StreamName;
use url::Url;

/// The name that plans use for the archive's store.
const ARCHIVE_URL: &str = "quiver://archive/";

/// Where the archive's tables are.
#[derive(Clone, Debug)]
pub struct ArchiveLocation {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Path in the store under which each stream's table has a directory of its name.
    pub root: Path,
}

impl ArchiveLocation {
    /// Path in the store of a table's file, given relative to the table's directory.
    pub(crate) fn file(&self, stream: &StreamName, relative: &str) -> Path {
        let table = self.root.clone().join(stream.as_str());
        relative
            .split('/')
            .fold(table, |path, part| path.join(part))
    }
}

pub(crate) fn archive_url() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(ARCHIVE_URL)
}

/// A registry that has the archive's store and will never have another: no plan, however it came
/// about, can open a local file or a network address.
#[derive(Debug)]
pub(crate) struct ArchiveOnly {
    store: Arc<dyn ObjectStore>,
}

impl ArchiveOnly {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }
}

impl ObjectStoreRegistry for ArchiveOnly {
    fn register_store(
        &self,
        _url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        // The interface has no way to refuse; handing the store back unregistered is the nearest.
        Some(store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if url.as_str() == ARCHIVE_URL {
            Ok(Arc::clone(&self.store))
        } else {
            Err(DataFusionError::Plan(format!(
                "{url} cannot be read; only streams can be queried"
            )))
        }
    }
}
