//! Reads archive files for plans, and remembers the first that could not be read.
//!
//! The layers above reduce a reader's error to text; the query looks here instead, so that it can
//! name the file.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use datafusion::{
    datasource::{
        listing::PartitionedFile,
        physical_plan::{ParquetFileReaderFactory, parquet::CachedParquetFileReaderFactory},
    },
    error::Result,
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use futures::{FutureExt, future::BoxFuture};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::{arrow_reader::ArrowReaderOptions, async_reader::AsyncFileReader},
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use crate::error::ArchiveReadError;

/// What a query has read of the archive.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The first file that could not be read.
    failure: OnceLock<ArchiveReadError>,
    /// The files that were opened, by path, with their stream.
    opened: Mutex<BTreeMap<Path, (Arc<str>, ObjectMeta)>>,
}

impl Reads {
    /// Why the first file that could not be read could not.
    pub(crate) fn failure(&self) -> Option<&ArchiveReadError> {
        self.failure.get()
    }

    /// The files that were opened, each once.
    pub(crate) fn opened(&self) -> Vec<(Arc<str>, ObjectMeta)> {
        self.opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn open(&self, stream: &Arc<str>, object: &ObjectMeta) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened
            .entry(object.location.clone())
            .or_insert_with(|| (Arc::clone(stream), object.clone()));
    }
}

/// Makes readers for the files of one stream in one query.
pub(crate) struct ArchiveReaderFactory {
    pub(crate) stream: Arc<str>,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) inner: CachedParquetFileReaderFactory,
    pub(crate) reads: Arc<Reads>,
}

impl fmt::Debug for ArchiveReaderFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveReaderFactory")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl ParquetFileReaderFactory for ArchiveReaderFactory {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let object = file.object_meta.clone();
        self.reads.open(&self.stream, &object);
        let inner = self
            .inner
            .create_reader(partition_index, file, metadata_size_hint, metrics)?;
        let context = Context {
            stream: Arc::clone(&self.stream),
            store: Arc::clone(&self.store),
            object,
            reads: Arc::clone(&self.reads),
        };
        Ok(Box::new(ArchiveReader { inner, context }))
    }
}

struct ArchiveReader {
    inner: Box<dyn AsyncFileReader + Send>,
    context: Context,
}

struct Context {
    stream: Arc<str>,
    store: Arc<dyn ObjectStore>,
    object: ObjectMeta,
    reads: Arc<Reads>,
}

impl Context {
    fn record(&self, missing: bool, detail: String) -> ParquetError {
        let error = ArchiveReadError {
            stream: Arc::clone(&self.stream),
            path: self.object.location.to_string(),
            missing,
            detail,
        };
        // The first failure is the cause; later ones often follow from it.
        let _later = self.reads.failure.set(error.clone());
        ParquetError::External(Box::new(error))
    }

    /// Names the file, and finds out whether it is missing.
    async fn name(&self, error: ParquetError) -> ParquetError {
        let missing = self
            .store
            .head(&self.object.location)
            .await
            .is_err_and(|error| is_missing(&error));
        self.record(missing, error.to_string())
    }

    /// Checks that the file is still there and has the listed size. Footers are cached, and a
    /// count needs nothing but the footer: without this look, a query would answer for a file that
    /// is gone.
    async fn check(&self) -> Result<(), ParquetError> {
        match self.store.head(&self.object.location).await {
            Ok(found) if found.size == self.object.size => Ok(()),
            Ok(found) => {
                let listed = self.object.size;
                Err(self.record(
                    false,
                    format!("it has {} bytes, the table's log says {listed}", found.size),
                ))
            }
            Err(error) => Err(self.record(is_missing(&error), error.to_string())),
        }
    }
}

/// Whether an object is not there. Stores that are wrapped may say so only in the error's cause.
fn is_missing(error: &object_store::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let by_store = matches!(
            error.downcast_ref::<object_store::Error>(),
            Some(object_store::Error::NotFound { .. })
        );
        let by_system = error.downcast_ref::<std::io::Error>();
        if by_store || by_system.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl AsyncFileReader for ArchiveReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            match self.inner.get_bytes(range).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(self.context.name(error).await),
            }
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            match self.inner.get_byte_ranges(ranges).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(self.context.name(error).await),
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            self.context.check().await?;
            match self.inner.get_metadata(options).await {
                Ok(metadata) => Ok(metadata),
                Err(error) => Err(self.context.name(error).await),
            }
        }
        .boxed()
    }
}
