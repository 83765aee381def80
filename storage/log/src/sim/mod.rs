//! A simulated disk: a whole file system in memory that loses power, tears writes, runs out of
//! space and fails the N-th call, all reproducibly from a seed.
//!
//! ```text
//! write ─▶ cache (what reads see) ─sync─▶ platter (what a crash leaves)
//! create, rename, unlink ─▶ names in the cache ─sync_dir─▶ durable names
//! ```
//!
//! It is harsher than a real file system, never kinder:
//! - At a crash every 512-byte sector written since the file's last sync is, by a coin each, in
//!   any of the states it has had since; names changed since the directory's last sync are
//!   undone from some point on, so that a file synced under a name that was not is gone.
//! - A failed sync loses some sectors for good and marks all of them clean: reads go on to show
//!   what was written, and the next sync succeeds without writing it.
//! - A failed write may have written nothing, a part, or all.

mod disk;
mod faults;
mod inode;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use disk::Disk;
pub use faults::{FaultKind, SimOp};

use crate::vfs::{LockOutcome, Vfs, VfsFile, VfsLock};

/// Handle of a simulated disk; clones are the same disk. It outlives crashes: open files of the
/// time before one only return errors.
#[derive(Clone, Debug)]
pub struct SimVfs {
    disk: Arc<Mutex<Disk>>,
}

impl SimVfs {
    /// An empty disk without limits or faults. The directories `/` and `.` exist.
    pub fn new(seed: u64) -> Self {
        Self {
            disk: Arc::new(Mutex::new(Disk::new(seed))),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails and comes back: what was not synced is lost or torn, open files and locks
    /// of before are void, planned faults are forgotten. Space limit and counters stay.
    pub fn crash(&self) {
        self.disk().crash();
    }

    /// The process ends and is started again while the machine goes on: nothing that was written
    /// is lost (nor made durable), open files and locks of before are void, faults are forgotten.
    pub fn restart(&self) {
        self.disk().restart();
    }

    /// Makes the `nth` (from 1) call of kind `op` from now on fail; of any kind if `None`.
    /// Several faults may be planned.
    pub fn fail_nth(&self, op: Option<SimOp>, nth: u64, kind: FaultKind) {
        self.disk().faults.plan(op, nth, kind, false);
    }

    /// Like [`SimVfs::fail_nth`], and every such call after it fails too, until
    /// [`SimVfs::clear_faults`].
    pub fn fail_from(&self, op: Option<SimOp>, nth: u64, kind: FaultKind) {
        self.disk().faults.plan(op, nth, kind, true);
    }

    /// Forgets planned faults. Power that is off stays off until [`SimVfs::crash`].
    pub fn clear_faults(&self) {
        self.disk().faults.clear();
    }

    /// Turns the power off during the `nth` (from 1) call from now on that changes anything: that
    /// call has an effect or not, it and all later calls fail, until [`SimVfs::crash`].
    pub fn power_off_at(&self, nth: u64) {
        self.disk().faults.power_off_in = Some(nth);
    }

    /// Whether [`SimVfs::power_off_at`] has struck.
    pub fn is_off(&self) -> bool {
        self.disk().faults.is_off
    }

    /// Limits the disk to `bytes`, reserved space included; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Bytes taken by files.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Calls of this kind so far, failed ones included.
    pub fn calls(&self, op: SimOp) -> u64 {
        self.disk().faults.calls(op)
    }

    /// Calls so far that change anything: what [`SimVfs::power_off_at`] counts.
    pub fn mutating_calls(&self) -> u64 {
        self.disk().faults.mutating_calls
    }

    /// A file's bytes as reads see them, without counting as a call.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.disk().content(path)
    }

    /// Replaces a file's bytes durably (creating the file), without counting as a call: damage,
    /// truncation and copies for tests.
    pub fn put(&self, path: &Path, content: &[u8]) {
        self.disk().put(path, content);
    }

    /// An independent copy of this disk as it is, for trying different futures. Planned faults
    /// and open files stay behind.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        Self {
            disk: Arc::new(Mutex::new(self.disk().fork(seed))),
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    boot: u64,
}

#[derive(Debug)]
struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    boot: u64,
}

impl VfsLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.boot == self.boot {
            disk.locks.remove(&self.path);
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.boot == self.boot {
            disk.close(self.inode);
        }
    }
}

impl SimVfs {
    fn handle(&self, inode: u64, boot: u64) -> Box<dyn VfsFile> {
        Box::new(SimFile {
            disk: Arc::clone(&self.disk),
            inode,
            boot,
        })
    }
}

impl Vfs for SimVfs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.disk();
        let inode = disk.create(path)?;
        Ok(self.handle(inode, disk.boot))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.disk();
        let inode = disk.open(path)?;
        Ok(self.handle(inode, disk.boot))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk().unlink(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk().list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().sync_dir(dir)
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        self.disk().free_space()
    }

    fn lock_exclusive(&self, path: &Path, owner: &str) -> io::Result<LockOutcome> {
        let mut disk = self.disk();
        if let Some(holder) = disk.lock(path, owner)? {
            return Ok(LockOutcome::HeldBy(holder));
        }
        Ok(LockOutcome::Acquired(Box::new(SimLock {
            disk: Arc::clone(&self.disk),
            path: path.to_path_buf(),
            boot: disk.boot,
        })))
    }
}

impl SimFile {
    /// The disk, if this handle was opened since the last crash.
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.boot == self.boot {
            Ok(disk)
        } else {
            Err(io::Error::other(
                "simulated disk: the file was opened before the last crash",
            ))
        }
    }
}

impl VfsFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk()?.read_at(self.inode, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk()?.write_at(self.inode, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk()?.sync(self.inode, SimOp::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk()?.sync(self.inode, SimOp::SyncAll)
    }

    fn preallocate(&self, size: u64) -> io::Result<()> {
        self.disk()?.preallocate(self.inode, size)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.disk()?.set_len(self.inode, size)
    }

    fn size(&self) -> io::Result<u64> {
        self.disk()?.size(self.inode)
    }
}
