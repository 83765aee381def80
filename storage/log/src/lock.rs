//! One process per data directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::vfs::{LockOutcome, Vfs, VfsLock};

/// Name of the lock file in a data directory.
const LOCK_FILE: &str = "quiver.lock";

/// Held while a process uses a data directory; released when dropped or when the process dies.
#[derive(Debug)]
pub struct DirLock {
    _lock: Box<dyn VfsLock>,
}

/// Why a data directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process uses it.
    #[error(
        "data directory {dir} is in use by {}; stop that process or choose another --data-dir",
        holder(*.pid),
        dir = .dir.display()
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The process, if the lock file says.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock data directory {dir}: {source}", dir = .dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

impl DirLock {
    /// Locks the existing directory `dir`.
    pub fn acquire(vfs: &dyn Vfs, dir: &Path) -> Result<Self, LockError> {
        let own_pid = std::process::id().to_string();
        match vfs.lock_exclusive(&dir.join(LOCK_FILE), &own_pid) {
            Ok(LockOutcome::Acquired(lock)) => Ok(Self { _lock: lock }),
            Ok(LockOutcome::HeldBy(owner)) => Err(LockError::Held {
                dir: dir.to_path_buf(),
                pid: owner.trim().parse().ok(),
            }),
            Err(source) => Err(LockError::Io {
                dir: dir.to_path_buf(),
                source,
            }),
        }
    }
}
