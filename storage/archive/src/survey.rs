//! What lies in the archive's directories: tables, what first flushes left that were never
//! committed, and what cannot be read.

use std::sync::Arc;

use quiver_hot::{ArchiveSnapshot, OpenError};
use quiver_model::StreamName;

use crate::DeltaArchive;

/// What one directory of the archive is.
#[derive(Clone, Debug)]
pub enum Directory {
    /// A table.
    Table(Arc<ArchiveSnapshot>),
    /// Of this stream, and without a Delta log: files of a first flush that was never committed, or
    /// a table whose log somebody deleted.
    Uncommitted(StreamName),
    /// Not readable as a table of Quiver's, for this reason.
    Damaged(String),
}

impl DeltaArchive {
    /// Every directory of the archive by its name, in order; tables that were not read yet are
    /// read.
    ///
    /// # Errors
    /// If the archive cannot be listed. What is wrong with one table is in the result.
    pub async fn survey(&self) -> Result<Vec<(String, Directory)>, OpenError> {
        let listed = self
            .store
            .list_with_delimiter(None)
            .await
            .map_err(|source| OpenError::List {
                root: self.store.to_string(),
                source: source.into(),
            })?;
        let mut names: Vec<String> = listed
            .common_prefixes
            .iter()
            .filter_map(|prefix| prefix.filename().map(str::to_owned))
            .collect();
        names.sort_unstable();
        let mut directories = Vec::with_capacity(names.len());
        for name in names {
            let directory = self.directory(&name).await;
            directories.push((name, directory));
        }
        Ok(directories)
    }

    async fn directory(&self, name: &str) -> Directory {
        let stream = match StreamName::new(name) {
            Ok(stream) => stream,
            Err(error) => return Directory::Damaged(error.to_string()),
        };
        let slot = self.slot(&stream);
        let mut slot = slot.lock().await;
        match self.load(&stream, &mut slot).await {
            Ok(table) if table.snapshot.version >= 0 => {
                Directory::Table(Arc::clone(&table.snapshot))
            }
            Ok(_) => Directory::Uncommitted(stream),
            Err(error) => Directory::Damaged(error.to_string()),
        }
    }
}
