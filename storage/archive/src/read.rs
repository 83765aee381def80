//! Reading files of a table back as stored rows.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};
use quiver_model::{DEVICE, POSITION, SchemaId, StreamName, StreamSchema};

use crate::{
    blocking::{Priority, WorkLost, blocking_at},
    decimals::marked,
    encode::EncodeError,
};

/// Rows of a batch that is read.
const BATCH_ROWS: usize = 65_536;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{0}")]
    Store(#[from] object_store::Error),
    #[error("{0}")]
    Parquet(#[from] ParquetError),
    #[error("{0}")]
    Arrow(#[from] ArrowError),
    #[error("{0}")]
    Encode(#[from] EncodeError),
    #[error("{0}")]
    Work(#[from] WorkLost),
}

/// Where a file of a stream's table is, from the archive's root.
pub(crate) fn location(stream: &StreamName, path: &str) -> Path {
    Path::from_iter(std::iter::once(stream.as_str()).chain(path.split('/')))
}

/// The stored layout of a table with these fields; decimal fields are marked.
pub(crate) fn stored_schema(
    stream: &StreamName,
    fields: &[quiver_model::StreamField],
) -> Result<SchemaRef, String> {
    StreamSchema::new(stream.clone(), SchemaId(0), fields.to_vec())
        .map(|schema| marked(schema.stored(), fields))
        .map_err(|error| error.to_string())
}

/// All rows of a file, in its order, in the layout of `schema`; columns it lacks are null. Decoded at
/// low priority.
pub(crate) async fn read_file(
    store: &dyn ObjectStore,
    location: &Path,
    schema: SchemaRef,
) -> Result<Vec<RecordBatch>, FileError> {
    let content = store.get(location).await?.bytes().await?;
    blocking_at(Priority::Low, move || decode(content, &schema)).await?
}

pub(crate) fn decode(content: Bytes, schema: &SchemaRef) -> Result<Vec<RecordBatch>, FileError> {
    let plain = ArrowReaderMetadata::load(
        &content,
        ArrowReaderOptions::new().with_skip_arrow_metadata(true),
    )?;
    let fields: Vec<Arc<Field>> = plain
        .schema()
        .fields()
        .iter()
        .map(|field| match schema.field_with_name(field.name()) {
            // A dictionary is read as such: a run of one device is one entry.
            Ok(stored) if field.name() == DEVICE => {
                Arc::new(Field::clone(field).with_data_type(stored.data_type().clone()))
            }
            _ => Arc::clone(field),
        })
        .collect();
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_schema(Arc::new(Schema::new(fields)));
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(content, options)?
        .with_batch_size(BATCH_ROWS)
        .build()?;
    reader.map(|batch| Ok(arrange(&batch?, schema)?)).collect()
}

fn arrange(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let column = |field: &Arc<Field>| -> Result<ArrayRef, ArrowError> {
        match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows)),
        }
    };
    let columns = schema
        .fields()
        .iter()
        .map(column)
        .collect::<Result<_, _>>()?;
    RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
}

/// The devices of a file's rows, one column, decoded at low priority.
pub(crate) async fn read_devices(
    store: &dyn ObjectStore,
    location: &Path,
) -> Result<Vec<RecordBatch>, FileError> {
    let content = store.get(location).await?.bytes().await?;
    blocking_at(Priority::Low, move || {
        let dictionary = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
        let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&content, plain.clone())?;
        let fields: Vec<Arc<Field>> = metadata
            .schema()
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                DEVICE => Arc::new(Field::clone(field).with_data_type(dictionary.clone())),
                _ => Arc::clone(field),
            })
            .collect();
        let options = plain.with_schema(Arc::new(Schema::new(fields)));
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(content, options)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [DEVICE]);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()?;
        Ok(reader.collect::<Result<Vec<_>, _>>()?)
    })
    .await?
}

/// What a file's footer says.
pub(crate) struct Footer {
    pub(crate) bytes: u64,
    pub(crate) metadata: Arc<ParquetMetaData>,
}

/// The positions of a file, and its footer, decoded at low priority.
pub(crate) async fn read_positions(
    store: &dyn ObjectStore,
    location: &Path,
) -> Result<(Footer, Vec<RecordBatch>), FileError> {
    let content = store.get(location).await?.bytes().await?;
    blocking_at(Priority::Low, move || {
        let bytes = content.len() as u64;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(content, options)?;
        let metadata = Arc::clone(builder.metadata());
        let mask = ProjectionMask::columns(builder.parquet_schema(), [POSITION]);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()?;
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        Ok((Footer { bytes, metadata }, batches))
    })
    .await?
}
