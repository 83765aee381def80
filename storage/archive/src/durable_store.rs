//! A local directory as an object store whose writes are durable when they return.
//!
//! `object_store`'s own local store never fsyncs. This one reads through it, and writes so that
//! neither a crash nor power loss at any instant leaves a name without its whole content:
//!
//! ```text
//! stage beside the target ─▶ fsync file ─▶ link (create) or rename (overwrite) ─▶ fsync directory
//! ```
//!
//! Listings are in order, as Delta expects. A directory that is new gets its name made durable in its parent first. Staged files that a
//! crash left behind are named `…#<digits>`, which listings leave out;
//! [`DurableStore::remove_staged`] deletes them.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryFutureExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
    local::LocalFileSystem, path::Path,
};

use crate::{
    blocking::{Priority, blocking, blocking_at},
    writeback::PacedFile,
};

const STORE: &str = "durable local directory";

/// See the module's text.
#[derive(Clone, Debug)]
pub struct DurableStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    reads: LocalFileSystem,
    /// Directories whose names are known to be durable.
    durable_directories: Mutex<HashSet<PathBuf>>,
    staged: AtomicU64,
}

impl DurableStore {
    /// The store at `root`, which is created if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created, synced, or read.
    pub fn open(root: &FsPath) -> io::Result<Self> {
        let mut missing = Vec::new();
        let mut ancestor = root;
        while !ancestor.as_os_str().is_empty() && !ancestor.try_exists()? {
            missing.push(ancestor);
            match ancestor.parent() {
                Some(parent) => ancestor = parent,
                None => break,
            }
        }
        for directory in missing.into_iter().rev() {
            create_directory(directory)?;
            sync_directory(directory.parent().unwrap_or(directory))?;
        }
        let root = fs::canonicalize(root)?;
        let reads = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        let durable_directories = Mutex::new(HashSet::from([root.clone()]));
        let shared = Shared {
            root,
            reads,
            durable_directories,
            staged: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Makes an existing object and its name durable, as if it had been written by this store.
    pub(crate) async fn sync(&self, location: &Path) -> Result<()> {
        let store = self.clone();
        let path = self.shared.reads.path_to_filesystem(location)?;
        let synced = blocking(move || {
            File::open(&path)?.sync_all()?;
            let parent = path.parent().unwrap_or(&store.shared.root);
            store.shared.ensure_directory(parent)?;
            sync_directory(parent)
        });
        synced.await.map_err(generic)?.map_err(generic)
    }

    /// Deletes staged files under `prefix` that were last written more than `grace` before `now`.
    /// Returns how many.
    pub(crate) async fn remove_staged(
        &self,
        prefix: &Path,
        now: SystemTime,
        grace: Duration,
    ) -> Result<u64> {
        let path = self.shared.root.join(prefix.as_ref());
        let removed = blocking_at(Priority::Low, move || {
            let mut removed = 0;
            let mut directories = vec![path];
            while let Some(directory) = directories.pop() {
                let entries = match fs::read_dir(&directory) {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                for entry in entries {
                    let entry = entry?;
                    let metadata = entry.metadata()?;
                    if metadata.is_dir() {
                        directories.push(entry.path());
                    } else if is_staged(&entry.file_name().to_string_lossy())
                        && now
                            .duration_since(metadata.modified()?)
                            .is_ok_and(|age| age > grace)
                    {
                        fs::remove_file(entry.path())?;
                        removed += 1;
                    }
                }
            }
            Ok(removed)
        });
        removed.await.map_err(generic)?.map_err(generic)
    }

    /// Creates the directories that these objects will lie in, and makes their names durable: a
    /// parent of many is synced once, not once for each.
    pub(crate) async fn create_parents(&self, locations: Vec<Path>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let paths = locations
            .iter()
            .map(|location| shared.reads.path_to_filesystem(location))
            .collect::<Result<Vec<_>>>()?;
        let created = blocking(move || {
            shared.ensure_directories(paths.iter().filter_map(|path| path.parent()))
        });
        created.await.map_err(generic)?.map_err(generic)
    }

    async fn write(
        &self,
        location: &Path,
        payload: PutPayload,
        create_only: bool,
    ) -> Result<PutResult> {
        let shared = Arc::clone(&self.shared);
        let target = self.shared.reads.path_to_filesystem(location)?;
        let written = blocking(move || shared.write(&target, &payload, create_only))
            .await
            .map_err(generic)?;
        match written {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(error) if create_only && error.kind() == ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists {
                    path: location.to_string(),
                    source: error.into(),
                })
            }
            Err(error) => Err(generic(error)),
        }
    }
}

impl Shared {
    fn write(&self, target: &FsPath, payload: &PutPayload, create_only: bool) -> io::Result<()> {
        let parent = target.parent().unwrap_or(&self.root);
        self.ensure_directory(parent)?;
        let (mut file, staged) = self.stage(target)?;
        let published = (|| {
            let mut paced = PacedFile::new(&mut file);
            payload.iter().try_for_each(|part| paced.write_all(part))?;
            file.sync_all()?;
            if create_only {
                fs::hard_link(&staged, target)
            } else {
                fs::rename(&staged, target)
            }
        })();
        if create_only || published.is_err() {
            // A leftover costs space only, and vacuum finds it.
            let _ = fs::remove_file(&staged);
        }
        published?;
        sync_directory(parent)
    }

    fn stage(&self, target: &FsPath) -> io::Result<(File, PathBuf)> {
        loop {
            let mut name = target.as_os_str().to_owned();
            name.push(format!("#{}", self.staged.fetch_add(1, Ordering::Relaxed)));
            let staged = PathBuf::from(name);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&staged)
            {
                Ok(file) => return Ok((file, staged)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Creates `directory` and makes its name, and those of its parents up to the root, durable.
    fn ensure_directory(&self, directory: &FsPath) -> io::Result<()> {
        self.ensure_directories(std::iter::once(directory))
    }

    /// [`Shared::ensure_directory`] for many: each directory that gets new names is synced once.
    fn ensure_directories<'a>(
        &self,
        directories: impl Iterator<Item = &'a FsPath>,
    ) -> io::Result<()> {
        let mut durable = self
            .durable_directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A parent comes before what is in it.
        let mut pending: BTreeSet<&FsPath> = BTreeSet::new();
        for directory in directories {
            let mut ancestor = directory;
            while !durable.contains(ancestor)
                && ancestor.starts_with(&self.root)
                && ancestor != self.root
                && pending.insert(ancestor)
            {
                ancestor = ancestor.parent().unwrap_or(&self.root);
            }
        }
        for directory in &pending {
            create_directory(directory)?;
        }
        let parents: BTreeSet<&FsPath> = pending
            .iter()
            .map(|directory| directory.parent().unwrap_or(&self.root))
            .collect();
        for parent in parents {
            sync_directory(parent)?;
        }
        durable.extend(pending.into_iter().map(FsPath::to_owned));
        Ok(())
    }
}

fn create_directory(directory: &FsPath) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn sync_directory(directory: &FsPath) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() {
        FsPath::new(".")
    } else {
        directory
    };
    File::open(directory)?.sync_all()
}

fn is_staged(file_name: &str) -> bool {
    file_name.rsplit_once('#').is_some_and(|(_, digits)| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic {
        store: STORE,
        source: Box::new(source),
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE} {}", self.shared.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        match opts.mode {
            PutMode::Create => self.write(location, payload, true).await,
            PutMode::Overwrite => self.write(location, payload, false).await,
            PutMode::Update(_) => Err(object_store::Error::NotImplemented {
                operation: "conditional update".to_owned(),
                implementer: self.to_string(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = Upload {
            store: self.clone(),
            location: location.clone(),
            parts: Vec::new(),
        };
        Ok(Box::new(upload))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.shared.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.shared.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.shared.reads.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // Delta takes listings for ordered, as those of object stores are; a directory's is not.
        let listed = self.shared.reads.list(prefix);
        let ordered = listed
            .try_collect::<Vec<ObjectMeta>>()
            .map_ok(|mut objects| {
                objects.sort_by(|left, right| left.location.cmp(&right.location));
                futures::stream::iter(objects.into_iter().map(Ok))
            });
        ordered.try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.shared.reads.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let to_path = self.shared.reads.path_to_filesystem(to)?;
        let shared = Arc::clone(&self.shared);
        let parent =
            blocking(move || shared.ensure_directory(to_path.parent().unwrap_or(&shared.root)));
        parent.await.map_err(generic)?.map_err(generic)?;
        self.shared.reads.copy_opts(from, to, options).await?;
        self.sync(to).await
    }
}

/// Parts of an upload, kept in memory until they are complete: only Delta checkpoints come here.
#[derive(Debug)]
struct Upload {
    store: DurableStore,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(futures::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = PutPayload::from_iter(std::mem::take(&mut self.parts));
        self.store.write(&self.location, payload, false).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
#[path = "durable_store_tests.rs"]
mod tests;
