//! Bytes of last values in a checkpoint:
//!
//! ```text
//! "QVLV"  version u16  streams u32  { name_len u32  name  ipc_len u32  Arrow IPC file }*  crc32c u32
//! ```
//!
//! Integers are little-endian; the checksum covers all bytes before it, and is verified before
//! anything else is read, so that Arrow only ever sees bytes that were written here.

use std::{collections::HashMap, io::Cursor, sync::Arc};

use arrow_array::{RecordBatch, UInt32Array, cast::AsArray, types::Int32Type};
use arrow_ipc::{reader::FileReader, writer::FileWriter};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use arrow_select::take::take_record_batch;
use quiver_model::{Partition, SchemaId, ShardId, StreamName, StreamSchema};

use crate::{LayoutError, layout::DEVICE_INDEX};

const MAGIC: [u8; 4] = *b"QVLV";
const VERSION: u16 = 1;

/// Why exported last values cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bytes are not an export, or end early, or their checksum is wrong.
    #[error("last values cannot be read: {0}")]
    Corrupt(&'static str),
    /// They were written by a newer Quiver.
    #[error("last values have format version {found}; this Quiver reads up to {VERSION}")]
    Version {
        /// The version they have.
        found: u16,
    },
    /// The rows of a stream are not Arrow.
    #[error("last values cannot be decoded")]
    Arrow(#[from] ArrowError),
    /// The rows of a stream contradict rows that are there already.
    #[error("last values of stream {stream} do not fit: {source}")]
    Layout {
        /// The stream.
        stream: StreamName,
        /// What is wrong.
        #[source]
        source: LayoutError,
    },
}

/// The columns every stream has.
pub(crate) fn fixed_schema() -> SchemaRef {
    StreamSchema::new(StreamName::control(), SchemaId(0), Vec::new()).map_or_else(
        |_| Arc::new(Schema::empty()),
        |schema| Arc::clone(schema.stored()),
    )
}

pub(crate) fn encode(streams: &[(StreamName, RecordBatch)]) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length(streams.len())?);
    for (stream, batch) in streams {
        let mut ipc = Vec::new();
        let mut writer = FileWriter::try_new(&mut ipc, batch.schema_ref())?;
        writer.write(batch)?;
        writer.finish()?;
        drop(writer);
        bytes.extend_from_slice(&length(stream.as_str().len())?);
        bytes.extend_from_slice(stream.as_str().as_bytes());
        bytes.extend_from_slice(&length(ipc.len())?);
        bytes.append(&mut ipc);
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn length(length: usize) -> Result<[u8; 4], ArrowError> {
    u32::try_from(length).map(u32::to_le_bytes).map_err(|_| {
        ArrowError::InvalidArgumentError("last values of a stream exceed 4 GiB".to_owned())
    })
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<(StreamName, RecordBatch)>, ImportError> {
    let (body, checksum) = bytes
        .split_last_chunk::<4>()
        .ok_or(ImportError::Corrupt("they end early"))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(ImportError::Corrupt("their checksum is wrong"));
    }
    let mut rest = body;
    if take_array::<4>(&mut rest)? != MAGIC {
        return Err(ImportError::Corrupt("they do not begin with QVLV"));
    }
    let found = u16::from_le_bytes(take_array::<2>(&mut rest)?);
    if found != VERSION {
        return Err(ImportError::Version { found });
    }
    let count = u32::from_le_bytes(take_array::<4>(&mut rest)?);
    let mut streams = Vec::new();
    for _ in 0..count {
        let name = take_prefixed(&mut rest)?;
        let name = std::str::from_utf8(name)
            .ok()
            .and_then(|name| StreamName::new(name).ok());
        let name = name.ok_or(ImportError::Corrupt("a stream's name is malformed"))?;
        let reader = FileReader::try_new(Cursor::new(take_prefixed(&mut rest)?), None)?;
        for batch in reader {
            streams.push((name.clone(), batch?));
        }
    }
    if rest.is_empty() {
        Ok(streams)
    } else {
        Err(ImportError::Corrupt("bytes follow their end"))
    }
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ImportError> {
    let (head, tail) = rest
        .split_first_chunk::<N>()
        .ok_or(ImportError::Corrupt("they end early"))?;
    *rest = tail;
    Ok(*head)
}

fn take_prefixed<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ImportError> {
    let length = usize::try_from(u32::from_le_bytes(take_array::<4>(rest)?)).unwrap_or(usize::MAX);
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(ImportError::Corrupt("they end early"))?;
    *rest = tail;
    Ok(head)
}

/// The rows of `batch` grouped by the shard that owns their device.
pub(crate) fn by_shard(
    batch: &RecordBatch,
    shard_count: u16,
) -> Result<Vec<(ShardId, RecordBatch)>, ArrowError> {
    let not_devices = || ArrowError::SchemaError("last values without a device column".to_owned());
    let device = batch.columns().get(DEVICE_INDEX).ok_or_else(not_devices)?;
    let device = device
        .as_dictionary_opt::<Int32Type>()
        .ok_or_else(not_devices)?;
    let names = device
        .values()
        .as_string_opt::<i32>()
        .ok_or_else(not_devices)?;
    let shards: Vec<ShardId> = names
        .iter()
        .map(|name| Partition::of_str(name.unwrap_or_default()).shard(shard_count))
        .collect();
    let mut rows: HashMap<ShardId, Vec<u32>> = HashMap::new();
    for (row, key) in device.keys().values().iter().enumerate() {
        let shard = usize::try_from(*key)
            .ok()
            .and_then(|key| shards.get(key))
            .ok_or_else(not_devices)?;
        rows.entry(*shard)
            .or_default()
            .push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    rows.into_iter()
        .map(|(shard, rows)| Ok((shard, take_record_batch(batch, &UInt32Array::from(rows))?)))
        .collect()
}
