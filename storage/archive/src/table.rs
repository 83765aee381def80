//! What is kept in memory of a table, and the writing of a version.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use object_store::{ObjectStore, PutPayload, path::Path};
use quiver_hot::{ArchiveFile, ArchiveSnapshot};
use quiver_model::{Position, StreamName, Timestamp};
use serde_json::Value;

use crate::{
    commit::{Commit, commit_name},
    encode::EncodedFile,
    replay::Replayed,
    write::put_new,
};

/// A table that is open for writing.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) snapshot: Arc<ArchiveSnapshot>,
    /// The `metaData` action in force; `None` before the first commit.
    pub(crate) metadata: Option<Value>,
    /// Files that older versions list, and when they were removed.
    pub(crate) removed: HashMap<String, Timestamp>,
    /// Versions that somebody may still read.
    leases: Vec<Weak<ArchiveSnapshot>>,
    /// Whether a commit may have happened that is not in `snapshot`. True while one is under way,
    /// in case its future is dropped.
    pub(crate) is_uncertain: bool,
    /// Commits that may still arrive, by the version they are to be, with the files they list.
    /// Kept until another commit has taken the version.
    undecided: Vec<(i64, Vec<String>)>,
}

impl Table {
    /// A table that does not exist yet.
    pub(crate) fn absent(stream: StreamName) -> Self {
        Self {
            snapshot: Arc::new(ArchiveSnapshot::absent(stream)),
            metadata: None,
            removed: HashMap::new(),
            leases: Vec::new(),
            is_uncertain: false,
            undecided: Vec::new(),
        }
    }

    /// A table as its log says.
    pub(crate) fn replayed(replayed: Replayed) -> Self {
        let snapshot = Arc::new(replayed.snapshot);
        Self {
            leases: vec![Arc::downgrade(&snapshot)],
            snapshot,
            metadata: Some(replayed.metadata),
            removed: replayed.removed,
            is_uncertain: false,
            undecided: Vec::new(),
        }
    }

    /// Takes over what was found when the log was read again.
    pub(crate) fn refresh(&mut self, replayed: Replayed) {
        let leases = std::mem::take(&mut self.leases);
        let undecided = std::mem::take(&mut self.undecided);
        *self = Self::replayed(replayed);
        self.leases.extend(leases);
        self.undecided = undecided;
        self.forget_decided();
    }

    /// To be called before a commit is tried as `version`: until it is known to be in force, the
    /// table must be read again, and its files must stay.
    pub(crate) fn expect(&mut self, version: i64, added: &[EncodedFile]) {
        self.is_uncertain = true;
        self.undecided.push((
            version,
            added
                .iter()
                .map(|encoded| encoded.file.path.clone())
                .collect(),
        ));
    }

    /// Whether a commit that may still arrive lists this file.
    pub(crate) fn is_undecided(&self, path: &str) -> bool {
        self.undecided
            .iter()
            .any(|(_, files)| files.iter().any(|file| file == path))
    }

    fn forget_decided(&mut self) {
        let version = self.snapshot.version;
        self.undecided.retain(|(expected, _)| *expected > version);
    }

    /// Makes `next` the version in force.
    pub(crate) fn advance(&mut self, next: ArchiveSnapshot) -> Arc<ArchiveSnapshot> {
        self.leases.retain(|lease| lease.strong_count() > 0);
        let next = Arc::new(next);
        self.leases.push(Arc::downgrade(&next));
        self.snapshot = Arc::clone(&next);
        self.is_uncertain = false;
        self.forget_decided();
        next
    }

    /// Versions that somebody holds: their files must stay.
    pub(crate) fn held(&self) -> Vec<Arc<ArchiveSnapshot>> {
        self.leases.iter().filter_map(Weak::upgrade).collect()
    }
}

/// How a commit ended.
pub(crate) enum Committed {
    /// It is durable.
    Yes,
    /// That version exists already.
    Taken,
    /// Nobody knows.
    Unknown(object_store::Error),
}

/// Writes the commit of `version`.
pub(crate) async fn write_commit(
    store: &dyn ObjectStore,
    stream: &StreamName,
    version: i64,
    commit: Commit,
) -> Committed {
    let name = commit_name(version);
    let path = Path::from_iter([stream.as_str(), "_delta_log", name.as_str()]);
    match put_new(store, &path, PutPayload::from_bytes(commit.into_bytes())).await {
        Ok(()) => Committed::Yes,
        Err(object_store::Error::AlreadyExists { .. }) => Committed::Taken,
        Err(error) => Committed::Unknown(error),
    }
}

/// Files beyond which sorting is quicker than putting each where it belongs.
const INSERTED_MAX: usize = 16;

/// The files of a version: without `removed`, with `added`, in order. `present` is in order.
pub(crate) fn next_files(
    present: &[Arc<ArchiveFile>],
    removed: &[Arc<ArchiveFile>],
    added: &[EncodedFile],
) -> Arc<[Arc<ArchiveFile>]> {
    fn order(file: &ArchiveFile) -> (i32, Position, &str) {
        (file.day, file.min_position, &file.path)
    }
    let mut files: Vec<Arc<ArchiveFile>> = Vec::with_capacity(present.len() + added.len());
    if removed.is_empty() {
        files.extend_from_slice(present);
    } else {
        let removed: HashSet<&str> = removed.iter().map(|file| file.path.as_str()).collect();
        let stay = present
            .iter()
            .filter(|file| !removed.contains(file.path.as_str()));
        files.extend(stay.cloned());
    }
    let added = added.iter().map(|encoded| Arc::new(encoded.file.clone()));
    if added.len() > INSERTED_MAX {
        files.extend(added);
        files.sort_by(|left, right| order(left).cmp(&order(right)));
    } else {
        for file in added {
            let at = files.partition_point(|known| order(known) <= order(&file));
            files.insert(at, file);
        }
    }
    files.into()
}
