//! The disk as the log sees it: a handful of positional calls behind two traits, so that the same
//! log runs on a file system ([`OsVfs`](crate::OsVfs)) and on a simulated disk that loses power
//! ([`SimVfs`](crate::sim::SimVfs)).
//!
//! The traits promise what POSIX promises and nothing more: a write is durable after `sync_data`
//! or `sync_all` of its file; a created, renamed or removed name is durable after `sync_dir` of
//! its directory. Errors carry no path; callers add it ([`at_path`]).

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// An open file. Positional, so that readers and the writer share nothing but the inode.
pub trait VfsFile: Send + Sync + fmt::Debug {
    /// Reads at most `buffer.len()` bytes at `offset`; 0 at or after the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, growing the file if needed. After an error any part of
    /// `bytes` may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`). After an error the state of every write since
    /// the last success is unknown, and a later success says nothing about it.
    fn sync_data(&self) -> io::Result<()>;
    /// [`VfsFile::sync_data`], and the file's metadata (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
    /// Grows the file to at least `size` bytes and reserves space for them, so that writing below
    /// `size` does not run out of space. Never shrinks, never changes content.
    fn preallocate(&self, size: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros, without reserving space) the file to `size` bytes.
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Current size in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// Held lock on a file; dropping it (or the death of the process) releases it.
pub trait VfsLock: Send + Sync + fmt::Debug {}

/// What came of [`Vfs::lock_exclusive`].
#[derive(Debug)]
pub enum LockOutcome {
    /// The lock is ours until the value is dropped.
    Acquired(Box<dyn VfsLock>),
    /// Somebody else has it; this is what they wrote into the lock file.
    HeldBy(String),
}

/// A file system.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// Creates a file, or empties an existing one; opened for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Renames a file, replacing `to` atomically if it exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name; open handles keep working.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a directory, sorted. Names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates one directory; its parent must exist. Succeeds if it exists already.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that may still be written to the file system that holds `path`.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
    /// Tries to lock `path` (created if missing), and writes `owner` into it on success.
    fn lock_exclusive(&self, path: &Path, owner: &str) -> io::Result<LockOutcome>;
}

/// `error` with what was being done to which path in front; the kind stays.
pub fn at_path(action: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {action} {}: {error}", path.display()),
    )
}

/// The directory that holds `path`'s name.
pub(crate) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Creates `dir` with its missing ancestors, durably: each new name is synced.
pub(crate) fn make_dir_durable(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    match vfs.create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.parent().is_some() => {
            make_dir_durable(vfs, &parent_of(dir))?;
            vfs.create_dir(dir)
                .map_err(|error| at_path("create directory", dir, error))?;
        }
        Err(error) => return Err(at_path("create directory", dir, error)),
    }
    let parent = parent_of(dir);
    match vfs.sync_dir(&parent) {
        // Not ours to read, so the directory was made, and its name synced, by an administrator.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.map_err(|error| at_path("sync directory", &parent, error)),
    }
}

/// Fills `buffer` from `offset` on as far as the file goes; the number of bytes read.
pub(crate) fn read_up_to(
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads a whole small file, refusing one larger than `limit` bytes.
pub(crate) fn read_small_file(vfs: &dyn Vfs, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = vfs.open(path)?;
    let size = file.size()?;
    if size > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file has {size} bytes, more than the {limit} allowed here"),
        ));
    }
    let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    let read = read_up_to(
        |buffer, offset| file.read_at(buffer, offset),
        &mut content,
        0,
    )?;
    content.truncate(read);
    Ok(content)
}

/// Replaces `path` by `content` atomically and durably: temporary file, fsync, rename, fsync of
/// the directory. After an error the old or the new content is there, never a mixture.
pub(crate) fn replace_file(vfs: &dyn Vfs, path: &Path, content: &[u8]) -> io::Result<()> {
    replace_file_with(vfs, path, &mut |file, temporary| {
        file.write_at(content, 0)
            .map_err(|error| at_path("write", temporary, error))
    })
}

/// [`replace_file`] by what `fill` writes into the (temporary) file.
pub(crate) fn replace_file_with(
    vfs: &dyn Vfs,
    path: &Path,
    fill: &mut dyn FnMut(&dyn VfsFile, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let file = vfs
            .create(&temporary)
            .map_err(|error| at_path("create", &temporary, error))?;
        fill(&*file, &temporary)?;
        file.sync_all()
            .map_err(|error| at_path("sync", &temporary, error))?;
        vfs.rename(&temporary, path)
            .map_err(|error| at_path("rename to", path, error))
    })();
    if let Err(error) = written {
        // Only tidiness: the next writer truncates it.
        let _ = vfs.unlink(&temporary);
        return Err(error);
    }
    let dir = parent_of(path);
    vfs.sync_dir(&dir)
        .map_err(|error| at_path("sync directory", &dir, error))
}

/// Ending of files that are being written and mean nothing yet.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";
