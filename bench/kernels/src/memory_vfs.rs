//! A disk that is memory and takes no time: what is left of the log's cost is the log's own.
//!
//! The simulation's disk is not used here, because it keeps account of every sector's past.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quiver_log::{LockOutcome, Vfs, VfsFile, VfsLock};

type Content = Arc<Mutex<Vec<u8>>>;

/// Files in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryVfs {
    files: Arc<Mutex<BTreeMap<PathBuf, Content>>>,
}

#[derive(Debug)]
struct MemoryFile(Content);

#[derive(Debug)]
struct Held;

impl VfsLock for Held {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn offset(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl Vfs for MemoryVfs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let content = Content::default();
        lock(&self.files).insert(path.to_owned(), content.clone());
        Ok(Box::new(MemoryFile(content)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let content = lock(&self.files).get(path).cloned().ok_or_else(missing)?;
        Ok(Box::new(MemoryFile(content)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        let content = files.remove(from).ok_or_else(missing)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let removed = lock(&self.files).remove(path);
        removed.map(drop).ok_or_else(missing)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| {
            let name = path.strip_prefix(dir).ok()?.to_str()?;
            (!name.contains('/')).then(|| name.to_owned())
        };
        Ok(lock(&self.files).keys().filter_map(name).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock_exclusive(&self, _: &Path, _: &str) -> io::Result<LockOutcome> {
        Ok(LockOutcome::Acquired(Box::new(Held)))
    }
}

impl VfsFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        let content = lock(&self.0);
        let rest = content.get(offset(from)?..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], from: u64) -> io::Result<()> {
        let from = offset(from)?;
        let mut content = lock(&self.0);
        if content.len() < from + bytes.len() {
            content.resize(from + bytes.len(), 0);
        }
        content[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn preallocate(&self, size: u64) -> io::Result<()> {
        let size = offset(size)?;
        let mut content = lock(&self.0);
        if content.len() < size {
            content.resize(size, 0);
        }
        Ok(())
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        lock(&self.0).resize(offset(size)?, 0);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }
}
