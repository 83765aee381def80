//! What is kept in memory of a table, and the writing of a version.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use object_store::{ObjectStore, PutPayload, path::Path};
use quiver_hot::{ArchiveFile, ArchiveSnapshot, FileList};
use quiver_model::{Position, StreamName, Timestamp};
use serde_json::Value;

use crate::{
    choose::Known,
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
    /// How columns were encoded best in the flushes before.
    pub(crate) known: Option<Known>,
    /// Files that older versions list, and when they were removed.
    pub(crate) removed: HashMap<String, Timestamp>,
    /// Where the last retention run is written down; 0 if there was none.
    pub(crate) expired: Position,
    /// Versions that somebody may still read.
    leases: Vec<Weak<ArchiveSnapshot>>,
    /// Whether a commit may have happened that is not in `snapshot`. True while one is under way,
    /// in case its future is dropped.
    pub(crate) is_uncertain: bool,
    /// The version that the newest Delta checkpoint is of, or is to be of; 0 if there is none.
    checkpointed: i64,
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
            known: None,
            removed: HashMap::new(),
            expired: Position(0),
            leases: Vec::new(),
            is_uncertain: false,
            checkpointed: 0,
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
            known: None,
            removed: replayed.removed,
            expired: replayed.expired,
            is_uncertain: false,
            checkpointed: replayed.checkpointed,
            undecided: Vec::new(),
        }
    }

    /// Takes over what was found when the log was read again.
    pub(crate) fn refresh(&mut self, replayed: Replayed) {
        let leases = std::mem::take(&mut self.leases);
        let undecided = std::mem::take(&mut self.undecided);
        // One that is being written is not found yet.
        let checkpointed = self.checkpointed.max(replayed.checkpointed);
        *self = Self::replayed(replayed);
        self.checkpointed = checkpointed;
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

    /// Whether it is time for a Delta checkpoint of the version in force; if it is, the next one is
    /// counted from here.
    pub(crate) fn take_checkpoint_due(&mut self) -> bool {
        let ArchiveSnapshot { version, files, .. } = &*self.snapshot;
        let is_due = version - self.checkpointed >= checkpoint_interval(files.len());
        if is_due {
            self.checkpointed = *version;
        }
        is_due
    }

    /// Versions that somebody holds: their files must stay.
    pub(crate) fn held(&self) -> Vec<Arc<ArchiveSnapshot>> {
        self.leases.iter().filter_map(Weak::upgrade).collect()
    }
}

/// So many versions are at least, and at most, between two Delta checkpoints: opening a table reads
/// at most so many commits.
const CHECKPOINT_VERSIONS: (i64, i64) = (100, 10_000);
/// A checkpoint lists every file: so many of them are worth a version.
const CHECKPOINT_FILES_A_VERSION: usize = 4;

/// Versions between two Delta checkpoints of a table with so many files. A checkpoint lists them all
/// and a reader has to read them all: in proportion, what checkpoints take for each commit does not
/// grow with the table, nor does the share that commits have in opening it.
fn checkpoint_interval(files: usize) -> i64 {
    let (least, most) = CHECKPOINT_VERSIONS;
    i64::try_from(files / CHECKPOINT_FILES_A_VERSION)
        .unwrap_or(most)
        .clamp(least, most)
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

/// The files of a version: without `removed`, with `added`. What it takes does not depend on how many
/// files are `present`.
pub(crate) fn next_files(
    present: &FileList,
    removed: &[Arc<ArchiveFile>],
    added: &[EncodedFile],
) -> FileList {
    let mut files = present.clone();
    for file in removed {
        files.remove(file);
    }
    files.extend(added.iter().map(|encoded| Arc::new(encoded.file.clone())));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_rare_in_proportion_to_what_they_list() {
        assert_eq!(checkpoint_interval(0), 100);
        assert_eq!(checkpoint_interval(400), 100);
        assert_eq!(checkpoint_interval(10_000), 2_500);
        assert_eq!(checkpoint_interval(1_000_000), 10_000);

        let stream = StreamName::new("readings").unwrap();
        let mut table = Table::absent(stream.clone());
        let mut due = Vec::new();
        for version in 0..=350 {
            table.advance(ArchiveSnapshot {
                version,
                ..ArchiveSnapshot::absent(stream.clone())
            });
            if table.take_checkpoint_due() {
                due.push(version);
            }
        }
        assert_eq!(due, [100, 200, 300]);
    }
}
