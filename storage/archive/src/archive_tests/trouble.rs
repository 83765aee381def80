//! A store whose commits fail as told.

use super::*;

/// What a store does to the puts of commits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trouble {
    None,
    Fail,
    StoreThenFail,
}

/// A store that fails the next commits as told.
#[derive(Debug)]
pub(super) struct TroubledStore {
    pub(super) inner: DurableStore,
    pub(super) trouble: std::sync::Mutex<Trouble>,
    /// The commit of this version fails, and is not stored.
    pub(super) fail_version: std::sync::Mutex<Option<u64>>,
    pub(super) requests: AtomicUsize,
}

impl std::fmt::Display for TroubledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for TroubledStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let failure = || object_store::Error::Generic {
            store: "troubled",
            source: "the network is gone".into(),
        };
        if !location.as_ref().ends_with(".json") {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let version = location.filename().and_then(|name| name.split('.').next());
        let version = version.and_then(|digits| digits.parse().ok());
        if version.is_some() && *self.fail_version.lock().unwrap() == version {
            return Err(failure());
        }
        let trouble = std::mem::replace(&mut *self.trouble.lock().unwrap(), Trouble::None);
        match trouble {
            Trouble::None => self.inner.put_opts(location, payload, opts).await,
            Trouble::Fail => Err(failure()),
            Trouble::StoreThenFail => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(failure())
            }
        }
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.put_multipart_opts(location, opts).await
    }
    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

pub(super) fn troubled(directory: &FsPath) -> (Arc<TroubledStore>, DeltaArchive) {
    let store = Arc::new(TroubledStore {
        inner: DurableStore::open(directory).unwrap(),
        trouble: std::sync::Mutex::new(Trouble::None),
        fail_version: std::sync::Mutex::default(),
        requests: AtomicUsize::new(0),
    });
    let archive = DeltaArchive::new(DeltaArchiveParts {
        store: store.clone(),
        log_id: LOG.to_owned(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(OsEntropy),
    });
    (store, archive)
}
