//! The archive of an engine: its tables, and flushing.

use std::{
    collections::HashMap,
    io,
    path::Path as FsPath,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use object_store::{ObjectStore, path::Path};
use quiver_hot::{
    Archive, ArchiveSnapshot, DamagedTable, FlushError, FlushInput, OpenError, OpenedArchive,
};
use quiver_model::{Clock, Entropy, StreamName};

use crate::{
    ArchiveError, DurableStore,
    blocking::Priority,
    commit::commit_name,
    replay::{ReplayError, checkpoint, replay},
    survey::Directory,
    table::Table,
};

/// A table that may not have been read yet.
pub(crate) type Slot = Arc<tokio::sync::Mutex<Option<Table>>>;

/// The archive.
#[derive(Debug)]
pub struct DeltaArchive {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same store, where it is a local directory.
    pub(crate) durable: Option<DurableStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) app_id: String,
    tables: Mutex<HashMap<StreamName, Slot>>,
    /// Held by the one compaction or vacuum at a time: it bounds their memory, and keeps a vacuum
    /// from files that a compaction has written and not yet committed.
    pub(crate) maintenance: tokio::sync::Mutex<()>,
    /// Held by the one Delta checkpoint that is being written.
    checkpointing: Arc<tokio::sync::Mutex<()>>,
    /// Checkpoints that are being written or wait for their turn: at most one for every hundred
    /// commits.
    checkpoints: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// Whether somebody waits for flushes; so it is until it is said otherwise, as in recovery.
    is_hurried: AtomicBool,
}

/// What an archive is made of.
pub struct DeltaArchiveParts {
    /// Where tables are: the store's root is the archive's. Its writes must be durable when they
    /// return, and it must support `PutMode::Create`.
    pub store: Arc<dyn ObjectStore>,
    /// The log that is flushed, as 32 hexadecimal digits: names the transactions.
    pub log_id: String,
    /// Times of commits.
    pub clock: Arc<dyn Clock>,
    /// Names of files.
    pub entropy: Arc<dyn Entropy>,
}

impl DeltaArchive {
    /// An archive in any object store.
    pub fn new(parts: DeltaArchiveParts) -> Self {
        let DeltaArchiveParts {
            store,
            log_id,
            clock,
            entropy,
        } = parts;
        Self {
            store,
            durable: None,
            clock,
            entropy,
            app_id: format!("quiver/{log_id}"),
            tables: Mutex::default(),
            maintenance: tokio::sync::Mutex::default(),
            checkpointing: Arc::default(),
            checkpoints: Mutex::default(),
            is_hurried: AtomicBool::new(true),
        }
    }

    /// An archive in a local directory, which is created if it does not exist.
    ///
    /// # Errors
    /// If the directory cannot be created or read.
    pub fn local(
        directory: &FsPath,
        log_id: &str,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> io::Result<Self> {
        let durable = DurableStore::open(directory)?;
        let store: Arc<dyn ObjectStore> = Arc::new(durable.clone());
        let parts = DeltaArchiveParts {
            store,
            log_id: log_id.to_owned(),
            clock,
            entropy,
        };
        Ok(Self {
            durable: Some(durable),
            ..Self::new(parts)
        })
    }

    /// Where the tables are, for readers: the store, and the path under which each stream's table
    /// has a directory of its name.
    pub fn location(&self) -> (Arc<dyn ObjectStore>, Path) {
        (Arc::clone(&self.store), Path::default())
    }

    pub(crate) fn slot(&self, stream: &StreamName) -> Slot {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.entry(stream.clone()).or_default().clone()
    }

    pub(crate) async fn replay(
        &self,
        stream: &StreamName,
    ) -> Result<crate::replay::Replayed, ReplayError> {
        let replayed = replay(Arc::clone(&self.store), stream.clone(), self.app_id.clone()).await?;
        if let Some(durable) = &self.durable {
            // The commit that was found may have been published and not synced by a process that
            // died: before anybody relies on it, it must be durable. Its files were synced first.
            let name = commit_name(replayed.snapshot.version);
            let path = Path::from_iter([stream.as_str(), "_delta_log", name.as_str()]);
            match durable.sync(&path).await {
                // A checkpoint stands for it.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(ReplayError::Unreadable(error.to_string())),
            }
        }
        Ok(replayed)
    }

    /// The table, read if it was not, and read again if a commit may be missing.
    pub(crate) async fn load<'a>(
        &self,
        stream: &StreamName,
        slot: &'a mut Option<Table>,
    ) -> Result<&'a mut Table, ReplayError> {
        let is_stale = slot.as_ref().is_none_or(|table| table.is_uncertain);
        if is_stale {
            match (self.replay(stream).await, slot.as_mut()) {
                (Ok(replayed), Some(table)) => table.refresh(replayed),
                (Ok(replayed), None) => *slot = Some(Table::replayed(replayed)),
                (Err(ReplayError::Absent), None) => *slot = Some(Table::absent(stream.clone())),
                // The first commit, of unknown outcome, may still arrive.
                (Err(ReplayError::Absent), Some(table)) if table.snapshot.version < 0 => {}
                (Err(ReplayError::Absent), Some(_)) => {
                    let text =
                        "its Delta log was there before, and is gone; restore it from a backup";
                    return Err(ReplayError::Unreadable(text.to_owned()));
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(slot.get_or_insert_with(|| Table::absent(stream.clone())))
    }

    /// The table of a stream that has one.
    pub(crate) async fn existing<'a>(
        &self,
        stream: &StreamName,
        slot: &'a mut Option<Table>,
    ) -> Result<&'a mut Table, ArchiveError> {
        let table = self
            .load(stream, slot)
            .await
            .map_err(|error| ArchiveError::replay(stream, &error))?;
        if table.snapshot.version < 0 {
            return Err(ArchiveError::Absent {
                stream: stream.clone(),
            });
        }
        Ok(table)
    }

    /// The version of a stream's table that is in force.
    ///
    /// # Errors
    /// If the stream has no table, or its log cannot be read.
    pub async fn snapshot(
        &self,
        stream: &StreamName,
    ) -> Result<Arc<ArchiveSnapshot>, ArchiveError> {
        let slot = self.slot(stream);
        let mut slot = slot.lock().await;
        Ok(Arc::clone(
            &self.existing(stream, &mut slot).await?.snapshot,
        ))
    }

    /// Keeps merges, retention and vacuum away until the guard is dropped.
    pub async fn still(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.maintenance.lock().await
    }

    /// What a flush's work has: the usual priority only while somebody waits for it.
    pub(crate) fn flush_priority(&self) -> Priority {
        if self.is_hurried.load(Ordering::Relaxed) {
            Priority::Usual
        } else {
            Priority::Low
        }
    }

    /// Has a Delta checkpoint of the version in force written beside what goes on, when it is time
    /// for one.
    pub(crate) fn checkpoint_if_due(&self, table: &mut Table) {
        if !table.take_checkpoint_due() {
            return;
        }
        let version = table.snapshot.version;
        let (store, stream) = (Arc::clone(&self.store), table.snapshot.stream.clone());
        let checkpointing = Arc::clone(&self.checkpointing);
        let write = async move {
            let _one_at_a_time = checkpointing.lock().await;
            if let Err(error) = checkpoint(store, stream.clone(), version).await {
                tracing::warn!(%stream, version, %error, "no Delta checkpoint; opening the table takes longer");
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut checkpoints = self
                .checkpoints
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            checkpoints.retain(|written| !written.is_finished());
            checkpoints.push(runtime.spawn(write));
        }
    }

    /// Waits for the Delta checkpoints that are being written beside what goes on.
    pub async fn settle(&self) {
        let checkpoints = std::mem::take(
            &mut *self
                .checkpoints
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for written in checkpoints {
            if let Err(error) = written.await {
                tracing::warn!(%error, "no Delta checkpoint; opening the table takes longer");
            }
        }
    }

    /// A random UUID (version 4).
    pub(crate) fn new_table_id(&self) -> String {
        let (high, low) = (self.entropy.next_u64(), self.entropy.next_u64());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0x0fff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}

fn is_not_found(error: &object_store::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause
            .downcast_ref::<io::Error>()
            .is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
        {
            return true;
        }
        source = cause.source();
    }
    false
}

#[async_trait]
impl Archive for DeltaArchive {
    async fn open(&self) -> Result<OpenedArchive, OpenError> {
        let mut opened = OpenedArchive::default();
        for (name, directory) in self.survey().await? {
            match directory {
                Directory::Table(snapshot) => opened.tables.push(snapshot),
                Directory::Uncommitted(_) => {}
                Directory::Damaged(problem) => opened.damaged.push(DamagedTable { name, problem }),
            }
        }
        Ok(opened)
    }

    async fn flush(&self, input: FlushInput) -> Result<Arc<ArchiveSnapshot>, FlushError> {
        self.flush_rows(input).await
    }

    fn set_hurried(&self, is_hurried: bool) {
        self.is_hurried.store(is_hurried, Ordering::Relaxed);
    }
}
