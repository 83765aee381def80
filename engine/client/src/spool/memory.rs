//! A spool directory in memory, for tests and simulations: a crash keeps what was synced and an
//! arbitrary part of the rest.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::directory::{SegmentFile, SpoolDirectory};

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<u64, Arc<Mutex<Content>>>,
    /// The files whose names are durable.
    durable: BTreeMap<u64, Arc<Mutex<Content>>>,
    locked: bool,
    fail_syncs: bool,
}

/// A simulated directory; clones share it, so that a test can keep one and crash it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    disk: Arc<Mutex<Disk>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDirectory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power failure leaves behind: durable names only, and of each file its synced bytes
    /// and as many of the unsynced ones as `survivors` says (it is asked with their number).
    /// Whoever still writes to the old directory writes into the void.
    #[must_use]
    pub fn crash(&self, mut survivors: impl FnMut(usize) -> usize) -> Self {
        let disk = lock(&self.disk);
        let files: BTreeMap<_, _> = disk
            .durable
            .iter()
            .map(|(segment, content)| {
                let content = lock(content);
                let unsynced = content.bytes.len() - content.synced;
                let keep = content.synced + survivors(unsynced).min(unsynced);
                let bytes = content.bytes[..keep].to_vec();
                let synced = bytes.len();
                (*segment, Arc::new(Mutex::new(Content { bytes, synced })))
            })
            .collect();
        let durable = files.clone();
        Self {
            disk: Arc::new(Mutex::new(Disk {
                files,
                durable,
                ..Disk::default()
            })),
        }
    }

    /// An independent copy as it is now, as a backup would take it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let disk = lock(&self.disk);
        let files: BTreeMap<_, _> = disk
            .files
            .iter()
            .map(|(segment, content)| (*segment, Arc::new(Mutex::new(lock(content).clone()))))
            .collect();
        Self {
            disk: Arc::new(Mutex::new(Disk {
                durable: files.clone(),
                files,
                ..Disk::default()
            })),
        }
    }

    /// From now on every sync fails, or none does.
    pub fn fail_syncs(&self, fail: bool) {
        lock(&self.disk).fail_syncs = fail;
    }

    fn content(&self, segment: u64) -> io::Result<Arc<Mutex<Content>>> {
        lock(&self.disk)
            .files
            .get(&segment)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct Unlock(Arc<Mutex<Disk>>);

impl Drop for Unlock {
    fn drop(&mut self) {
        lock(&self.0).locked = false;
    }
}

impl SpoolDirectory for MemoryDirectory {
    fn blocks(&self) -> bool {
        false
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let mut disk = lock(&self.disk);
        if std::mem::replace(&mut disk.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(Arc::clone(&self.disk))))
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(lock(&self.disk).files.keys().copied().collect())
    }

    fn create(&self, segment: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut disk = lock(&self.disk);
        if disk.files.contains_key(&segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        disk.files.insert(segment, Arc::clone(&content));
        Ok(Box::new(MemorySegment {
            content,
            disk: Arc::clone(&self.disk),
        }))
    }

    fn truncate(&self, segment: u64, length: u64) -> io::Result<()> {
        let content = self.content(segment)?;
        let mut content = lock(&content);
        content
            .bytes
            .truncate(usize::try_from(length).unwrap_or(usize::MAX));
        content.synced = content.bytes.len();
        Ok(())
    }

    fn length(&self, segment: u64) -> io::Result<u64> {
        Ok(lock(&*self.content(segment)?).bytes.len() as u64)
    }

    fn read(&self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let content = self.content(segment)?;
        let content = lock(&content);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        content
            .bytes
            .get(from..from.saturating_add(length))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        lock(&self.disk)
            .files
            .remove(&segment)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.durable = disk.files.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct MemorySegment {
    content: Arc<Mutex<Content>>,
    disk: Arc<Mutex<Disk>>,
}

impl SegmentFile for MemorySegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.content).bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if lock(&self.disk).fail_syncs {
            return Err(io::Error::other("simulated failure of fdatasync"));
        }
        let mut content = lock(&self.content);
        content.synced = content.bytes.len();
        Ok(())
    }
}
