//! Finds the damaged file after a plan has failed while decoding.
//!
//! Decoders do not say which file they were decoding, and some damage makes them panic. So the
//! files that the query had opened are read once more, one by one, until one fails. This costs a
//! full read, and happens only after an error that damage can explain.

use std::sync::Arc;

use arrow_schema::ArrowError;
use datafusion::{
    datasource::{
        listing::PartitionedFile,
        physical_plan::{ParquetFileReaderFactory, parquet::DefaultParquetFileReaderFactory},
    },
    error::DataFusionError,
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use futures::StreamExt;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, async_reader::AsyncFileReader};

use crate::{archive_reader::Reads, error::ArchiveReadError, result::AbortOnDrop};

/// Whether a damaged file can be the reason for `error`. Errors that values cause (a division by
/// zero) are not among them: those must not cost another read.
pub(crate) fn may_be_damage(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ParquetError(_)
        | DataFusionError::Internal(_)
        | DataFusionError::ExecutionJoin(_)
        | DataFusionError::External(_) => true,
        DataFusionError::ArrowError(error, _) => {
            matches!(
                error.as_ref(),
                ArrowError::ParquetError(_) | ArrowError::ExternalError(_)
            )
        }
        _ => false,
    }
}

/// The first file among those opened that cannot be read to its end.
pub(crate) async fn find_damaged(
    reads: &Reads,
    store: &Arc<dyn ObjectStore>,
) -> Option<ArchiveReadError> {
    for (stream, object) in reads.opened() {
        let path = object.location.to_string();
        // On a task of its own, because the reader may panic.
        let mut task = AbortOnDrop(tokio::spawn(read_whole(Arc::clone(store), object)));
        let detail = match (&mut task.0).await {
            Ok(Ok(())) => continue,
            Ok(Err(detail)) => detail,
            Err(error) => format!("the decoder failed: {error}"),
        };
        return Some(ArchiveReadError {
            stream,
            path,
            missing: false,
            detail,
        });
    }
    None
}

async fn read_whole(store: Arc<dyn ObjectStore>, object: ObjectMeta) -> Result<(), String> {
    let metrics = ExecutionPlanMetricsSet::new();
    let file = PartitionedFile::new_from_meta(object);
    let reader: Box<dyn AsyncFileReader> = DefaultParquetFileReaderFactory::new(store)
        .create_reader(0, file, None, &metrics)
        .map_err(|error| error.strip_backtrace())?;
    let builder = ParquetRecordBatchStreamBuilder::new(reader)
        .await
        .map_err(|error| error.to_string())?;
    let mut batches = builder.build().map_err(|error| error.to_string())?;
    while let Some(batch) = batches.next().await {
        batch.map_err(|error| error.to_string())?;
    }
    Ok(())
}
