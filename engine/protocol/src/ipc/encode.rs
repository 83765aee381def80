//! Batches as messages that stand alone: each record batch message decodes with the schema message
//! and nothing else, which is what a spool, a log and a resend need.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, cast::AsArray};
use arrow_ipc::{
    CompressionType, MetadataVersion,
    writer::{
        DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
        write_message,
    },
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;

use super::{guard::PREFIX_BYTES, schema::is_allowed, whole};
use crate::{
    codes::Encoding,
    compact::{self, encode::CompactEncoder},
    limits::DecodeLimits,
};

/// The message that ends an Arrow IPC stream. It may be sent before the QUIC stream is finished.
pub const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Alignment of buffers in what is written, in bytes: the format's least, since batches are small.
const ALIGNMENT: usize = 8;

/// Compression of a batch: of its buffers one by one, or of the message as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None.
    None,
    /// LZ4 frames: fast.
    #[default]
    Lz4,
    /// Zstandard: half the size of LZ4 at a third of its speed.
    Zstd,
    /// Zstandard over the whole message ([`Encoding::ArrowZstd`]): smaller still, and for batches of
    /// up to some hundred rows faster than both, because there is one codec call for all columns.
    ZstdMessage,
    /// Not Arrow IPC: what changed since the rows before ([`Encoding::Compact`]). A row of ten steady
    /// readings takes some twenty bytes where a message takes hundreds, and decodes in a fraction of
    /// the time: for rows at a time, and batches of up to some hundred rows.
    Compact,
}

/// Why a batch cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A column has a type that telemetry may not have.
    #[error(
        "column {column:?} has type {data_type}; convert it to an integer, float, utf8, bool or timestamp"
    )]
    UnsupportedType {
        /// The column.
        column: String,
        /// Its type.
        data_type: String,
    },
    /// The batch has another schema than the encoder.
    #[error(
        "the batch's columns differ from those of the encoder; make a new encoder for another schema"
    )]
    OtherSchema,
    /// The batch exceeds a limit.
    #[error("the batch has {size} {what}; at most {limit} are allowed: split it")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        size: usize,
        /// How much is allowed.
        limit: usize,
    },
    /// arrow-ipc could not write it.
    #[error("the batch cannot be written as Arrow IPC: {0}")]
    Arrow(String),
}

impl From<ArrowError> for EncodeError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error.to_string())
    }
}

/// Writes batches of one schema as encapsulated messages. Dictionary columns are written as plain
/// text, so that each message stands alone.
pub struct BatchEncoder {
    /// What `encode` takes.
    source: SchemaRef,
    /// What is written: dictionaries as text, no metadata.
    plain: SchemaRef,
    options: IpcWriteOptions,
    context: IpcWriteContext,
    limits: DecodeLimits,
    encoding: Encoding,
    compact: Option<Box<CompactEncoder>>,
}

impl std::fmt::Debug for BatchEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchEncoder")
            .field("schema", &self.plain)
            .finish_non_exhaustive()
    }
}

impl BatchEncoder {
    /// An encoder for batches of `schema`.
    ///
    /// # Errors
    /// [`EncodeError::UnsupportedType`] or [`EncodeError::TooLarge`] (columns).
    pub fn new(schema: &SchemaRef, compression: Compression) -> Result<Self, EncodeError> {
        Self::with_limits(schema, compression, DecodeLimits::WIRE)
    }

    fn with_limits(
        schema: &SchemaRef,
        compression: Compression,
        limits: DecodeLimits,
    ) -> Result<Self, EncodeError> {
        at_most("columns", schema.fields().len(), limits.columns)?;
        let mut fields = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            if !is_allowed(field.data_type()) {
                return Err(EncodeError::UnsupportedType {
                    column: field.name().clone(),
                    data_type: field.data_type().to_string(),
                });
            }
            let data_type = match field.data_type() {
                DataType::Dictionary(_, value_type) => (**value_type).clone(),
                other => other.clone(),
            };
            fields.push(Field::new(field.name(), data_type, field.is_nullable()));
        }
        let codec = match compression {
            Compression::None | Compression::ZstdMessage | Compression::Compact => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd => Some(CompressionType::ZSTD),
        };
        let plain = Arc::new(Schema::new(fields));
        let compact = match compression {
            Compression::Compact => CompactEncoder::new(&plain).map(Box::new),
            _ => None,
        };
        Ok(Self {
            source: Arc::clone(schema),
            plain,
            compact,
            options: IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?
                .try_with_compression(codec)?,
            context: IpcWriteContext::default(),
            limits,
            encoding: match compression {
                Compression::ZstdMessage => Encoding::ArrowZstd,
                Compression::Compact => Encoding::Compact,
                Compression::None | Compression::Lz4 | Compression::Zstd => Encoding::Arrow,
            },
        })
    }

    /// What `OpenStream` must name.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The schema as it is written.
    pub fn schema(&self) -> &SchemaRef {
        &self.plain
    }

    /// The schema message, which goes before the first batch.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] (bytes of metadata).
    pub fn schema_message(&self) -> Result<Bytes, EncodeError> {
        let mut tracker = DictionaryTracker::new(true);
        let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
            &self.plain,
            &mut tracker,
            &self.options,
        );
        self.encapsulate(encoded)
    }

    /// The record batch message of `batch`; it stands alone.
    ///
    /// # Errors
    /// [`EncodeError::OtherSchema`] if its columns differ from the encoder's in name, type or
    /// order, [`EncodeError::TooLarge`] beyond a limit.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Bytes, EncodeError> {
        self.message(batch, true)
    }

    /// As [`BatchEncoder::encode`], for the messages of one QUIC stream: with
    /// [`Compression::Compact`] it may refer to all that were encoded since the encoder was made, so
    /// the QUIC stream must carry every one of them, in order. With others it is the same.
    ///
    /// # Errors
    /// As [`BatchEncoder::encode`]. The message after an error stands alone.
    pub fn encode_next(&mut self, batch: &RecordBatch) -> Result<Bytes, EncodeError> {
        let message = self.message(batch, false);
        if let (Err(_), Some(compact)) = (&message, &mut self.compact) {
            compact.restart();
        }
        message
    }

    fn message(&mut self, batch: &RecordBatch, is_alone: bool) -> Result<Bytes, EncodeError> {
        if !same_columns(batch.schema_ref(), &self.source) {
            return Err(EncodeError::OtherSchema);
        }
        at_most("rows", batch.num_rows(), self.limits.rows)?;
        let columns = batch
            .columns()
            .iter()
            .map(plain)
            .collect::<Result<Vec<_>, _>>()?;
        // What a small batch takes at most is known without taking its arrays apart.
        let most = columns
            .iter()
            .map(|column| column.get_array_memory_size())
            .sum::<usize>();
        if most > self.limits.decoded_bytes {
            let mut decoded_bytes = 0;
            for column in &columns {
                decoded_bytes += column.to_data().get_slice_memory_size()?;
            }
            at_most("bytes decoded", decoded_bytes, self.limits.decoded_bytes)?;
        }
        if let Some(compact) = &mut self.compact {
            let mut payload = Vec::with_capacity(4 * columns.len() * batch.num_rows().min(256));
            compact.encode(&columns, batch.num_rows(), is_alone, &mut payload);
            at_most(
                "bytes of a compact batch",
                payload.len(),
                self.limits.body_bytes,
            )?;
            return Ok(compact::with_length(&payload));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.plain), columns, &options)?;
        let mut tracker = DictionaryTracker::new(true);
        let (_, encoded) = IpcDataGenerator::default().encode(
            &batch,
            &mut tracker,
            &self.options,
            &mut self.context,
        )?;
        let body_bytes_max = match self.encoding {
            Encoding::Arrow | Encoding::Compact => self.limits.body_bytes,
            Encoding::ArrowZstd => self.limits.decoded_bytes,
        };
        at_most("bytes of body", encoded.arrow_data.len(), body_bytes_max)?;
        self.encapsulate(encoded)
    }

    fn encapsulate(&self, encoded: EncodedData) -> Result<Bytes, EncodeError> {
        at_most(
            "bytes of metadata",
            encoded.ipc_message.len() + ALIGNMENT,
            self.limits.metadata_bytes,
        )?;
        let mut out = Vec::with_capacity(
            PREFIX_BYTES + encoded.ipc_message.len() + ALIGNMENT + encoded.arrow_data.len(),
        );
        write_message(&mut out, encoded, &self.options)?;
        match self.encoding {
            Encoding::Arrow => Ok(Bytes::from(out)),
            // Its schema is an Arrow message all the same.
            Encoding::Compact => Ok(compact::with_length(&out)),
            Encoding::ArrowZstd => {
                let whole =
                    whole::compress(&out).map_err(|error| EncodeError::Arrow(error.to_string()))?;
                let compressed_max = self.limits.metadata_bytes + self.limits.body_bytes;
                at_most(
                    "bytes compressed",
                    whole.len() - whole::LENGTHS_BYTES,
                    compressed_max,
                )?;
                Ok(whole)
            }
        }
    }
}

/// A batch as a schema message and a record batch message that decode on their own, whatever
/// dictionaries it came with; for batches that a peer sent and the log keeps. They decode with
/// [`DecodeLimits::STORED`].
///
/// # Errors
/// [`EncodeError::UnsupportedType`], or [`EncodeError::TooLarge`] beyond [`DecodeLimits::STORED`];
/// neither for a batch that came out of [`TelemetryDecoder`](crate::TelemetryDecoder).
pub fn encode_self_contained(batch: &RecordBatch) -> Result<(Bytes, Bytes), EncodeError> {
    let mut encoder =
        BatchEncoder::with_limits(batch.schema_ref(), Compression::Lz4, DecodeLimits::STORED)?;
    Ok((encoder.schema_message()?, encoder.encode(batch)?))
}

/// A dictionary column as plain text; any other column as it is.
fn plain(column: &ArrayRef) -> Result<ArrayRef, EncodeError> {
    if !matches!(column.data_type(), DataType::Dictionary(..)) {
        return Ok(Arc::clone(column));
    }
    match column.as_any_dictionary_opt() {
        Some(dictionary) => Ok(arrow_select::take::take(
            dictionary.values(),
            dictionary.keys(),
            None,
        )?),
        None => Ok(Arc::clone(column)),
    }
}

/// Whether both have the same columns; metadata and nullability may differ.
fn same_columns(left: &Schema, right: &Schema) -> bool {
    left.fields().len() == right.fields().len()
        && left
            .fields()
            .iter()
            .zip(right.fields())
            .all(|(left, right)| {
                left.name() == right.name() && left.data_type() == right.data_type()
            })
}

fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), EncodeError> {
    if size <= limit {
        Ok(())
    } else {
        Err(EncodeError::TooLarge { what, size, limit })
    }
}
