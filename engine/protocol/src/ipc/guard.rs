//! First look at a message: is its metadata a flatbuffer, does every number in it fit what is
//! really there? Nothing is allocated here for what a number claims.

use arrow_ipc::{CompressionType, Message, MessageHeader, MetadataVersion, RecordBatch};
use bytes::Bytes;
use flatbuffers::VerifierOptions;
use quiver_model::{BatchRefusal, RejectCode};

use crate::limits::{DecodeLimits, FLATBUFFER_DEPTH_MAX, FLATBUFFER_TABLES_MAX};

/// Bytes before the metadata: continuation marker and length.
pub(crate) const PREFIX_BYTES: usize = 8;
/// What every message begins with.
pub(crate) const CONTINUATION: [u8; 4] = [0xff; 4];
/// Every buffer of a body begins at a multiple of this, as the format demands.
const BUFFER_ALIGNMENT: usize = 8;

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Schema,
    Dictionary,
    RecordBatch,
    /// A tensor, or nothing at all.
    Other,
}

pub(crate) fn malformed(message: impl Into<String>) -> BatchRefusal {
    BatchRefusal::new(RejectCode::MalformedBatch, message)
}

pub(crate) fn too_large(what: &str, size: impl std::fmt::Display, limit: usize) -> BatchRefusal {
    BatchRefusal::new(
        RejectCode::BatchTooLarge,
        format!("{what}: {size}, at most {limit} are allowed; send smaller batches"),
    )
}

/// The verified metadata of a message.
fn verified<'a>(metadata: &'a [u8], limits: &DecodeLimits) -> Result<Message<'a>, BatchRefusal> {
    if metadata.len() > limits.metadata_bytes {
        return Err(too_large(
            "bytes of metadata",
            metadata.len(),
            limits.metadata_bytes,
        ));
    }
    let options = VerifierOptions {
        max_depth: FLATBUFFER_DEPTH_MAX,
        max_tables: FLATBUFFER_TABLES_MAX,
        // Tables may share children; this bounds the work of walking the shared ones again.
        max_apparent_size: 8 * limits.metadata_bytes,
        ignore_missing_null_terminator: false,
    };
    arrow_ipc::root_as_message_with_opts(&options, metadata).map_err(|error| {
        malformed(format!(
            "the message's metadata is no valid flatbuffer: {}",
            first_line(&error)
        ))
    })
}

/// The verifier's errors go on with a trace of where it was; one line is enough for a peer.
fn first_line(error: &impl std::fmt::Display) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_owned()
}

fn body_length(message: &Message<'_>) -> Result<usize, BatchRefusal> {
    usize::try_from(message.bodyLength()).map_err(|_| {
        malformed(format!(
            "the message's bodyLength is {}",
            message.bodyLength()
        ))
    })
}

/// What the message with this metadata is, and the length of the body that follows it.
pub(crate) fn describe(
    metadata: &[u8],
    limits: &DecodeLimits,
) -> Result<(MessageKind, usize), BatchRefusal> {
    let message = verified(metadata, limits)?;
    let kind = match message.header_type() {
        MessageHeader::Schema => MessageKind::Schema,
        MessageHeader::DictionaryBatch => MessageKind::Dictionary,
        MessageHeader::RecordBatch => MessageKind::RecordBatch,
        _ => MessageKind::Other,
    };
    Ok((kind, body_length(&message)?))
}

/// A whole encapsulated message: its metadata, and exactly the body that the metadata announces.
pub(crate) fn open<'a>(
    bytes: &'a Bytes,
    limits: &DecodeLimits,
) -> Result<(Message<'a>, Bytes), BatchRefusal> {
    let (prefix, rest) = bytes
        .split_first_chunk::<PREFIX_BYTES>()
        .ok_or_else(|| malformed(format!("{} bytes are no message", bytes.len())))?;
    let [m0, m1, m2, m3, l0, l1, l2, l3] = *prefix;
    if [m0, m1, m2, m3] != CONTINUATION {
        return Err(malformed(
            "the message does not begin with the continuation marker FF FF FF FF",
        ));
    }
    let metadata_length = usize::try_from(i32::from_le_bytes([l0, l1, l2, l3]))
        .ok()
        .filter(|length| *length <= rest.len())
        .ok_or_else(|| malformed("the length of the metadata exceeds the message"))?;
    let (metadata, body) = rest
        .split_at_checked(metadata_length)
        .unwrap_or((rest, &[]));
    let message = verified(metadata, limits)?;
    if !matches!(message.version(), MetadataVersion::V4 | MetadataVersion::V5) {
        return Err(malformed("the metadata version must be V5 (or V4)"));
    }
    let announced = body_length(&message)?;
    if announced != body.len() {
        return Err(malformed(format!(
            "bodyLength is {announced}, but {} bytes follow the metadata",
            body.len()
        )));
    }
    if announced > limits.body_bytes {
        return Err(too_large("bytes of body", announced, limits.body_bytes));
    }
    Ok((message, bytes.slice(PREFIX_BYTES + metadata_length..)))
}

/// How the buffers of a body are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Lz4Frame,
    Zstd,
}

/// Length and number of nulls of one column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub rows: usize,
    pub nulls: usize,
}

/// Hands out nodes and buffers of a record batch in order, each checked against the body.
pub(crate) struct BodyReader<'a> {
    header: RecordBatch<'a>,
    body: Bytes,
    pub rows: usize,
    pub codec: Codec,
    next_node: usize,
    next_buffer: usize,
    /// Where the last non-empty buffer ended: the next one may not begin before it.
    end: usize,
}

impl<'a> BodyReader<'a> {
    pub(crate) fn new(
        header: RecordBatch<'a>,
        body: Bytes,
        limits: &DecodeLimits,
    ) -> Result<Self, BatchRefusal> {
        let rows = usize::try_from(header.length())
            .map_err(|_| malformed(format!("the batch's length is {}", header.length())))?;
        if rows > limits.rows {
            return Err(too_large("rows", rows, limits.rows));
        }
        if header
            .variadicBufferCounts()
            .is_some_and(|counts| !counts.is_empty())
        {
            return Err(malformed(
                "variadicBufferCounts must be empty: no allowed type is a view",
            ));
        }
        let codec = match header.compression().map(|compression| compression.codec()) {
            None => Codec::None,
            Some(CompressionType::LZ4_FRAME) => Codec::Lz4Frame,
            Some(CompressionType::ZSTD) => Codec::Zstd,
            Some(other) => {
                return Err(malformed(format!(
                    "unknown compression {}; use LZ4_FRAME or ZSTD",
                    other.0
                )));
            }
        };
        Ok(Self {
            header,
            body,
            rows,
            codec,
            next_node: 0,
            next_buffer: 0,
            end: 0,
        })
    }

    /// The next column's node; its length must be the batch's.
    pub(crate) fn node(&mut self, column: &str) -> Result<Node, BatchRefusal> {
        let node = self
            .header
            .nodes()
            .filter(|nodes| self.next_node < nodes.len())
            .map(|nodes| *nodes.get(self.next_node))
            .ok_or_else(|| malformed(format!("there is no field node for column {column:?}")))?;
        self.next_node += 1;
        let rows = self.rows;
        if usize::try_from(node.length()) != Ok(rows) {
            return Err(malformed(format!(
                "column {column:?} has length {}, the batch {rows}",
                node.length()
            )));
        }
        let nulls = usize::try_from(node.null_count())
            .ok()
            .filter(|nulls| *nulls <= rows)
            .ok_or_else(|| {
                malformed(format!(
                    "column {column:?} claims {} nulls in {rows} rows",
                    node.null_count()
                ))
            })?;
        Ok(Node { rows, nulls })
    }

    /// The next buffer as it stands in the body.
    pub(crate) fn buffer(&mut self, column: &str) -> Result<Bytes, BatchRefusal> {
        let buffer = self
            .header
            .buffers()
            .filter(|buffers| self.next_buffer < buffers.len())
            .map(|buffers| *buffers.get(self.next_buffer))
            .ok_or_else(|| malformed(format!("buffers for column {column:?} are missing")))?;
        self.next_buffer += 1;
        if buffer.length() == 0 {
            return Ok(Bytes::new());
        }
        let outside = || {
            malformed(format!(
                "a buffer of column {column:?} (offset {}, length {}) is not within the body of {} bytes, \
                 8-aligned and behind the buffer before it",
                buffer.offset(),
                buffer.length(),
                self.body.len()
            ))
        };
        let offset = usize::try_from(buffer.offset()).map_err(|_| outside())?;
        let length = usize::try_from(buffer.length()).map_err(|_| outside())?;
        let end = offset.checked_add(length).ok_or_else(outside)?;
        if end > self.body.len() || offset < self.end || offset % BUFFER_ALIGNMENT != 0 {
            return Err(outside());
        }
        self.end = end;
        Ok(self.body.slice(offset..end))
    }

    /// Length of the whole body, in bytes.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether all nodes and buffers were handed out.
    pub(crate) fn finish(&self) -> Result<(), BatchRefusal> {
        let nodes = self.header.nodes().map_or(0, |nodes| nodes.len());
        let buffers = self.header.buffers().map_or(0, |buffers| buffers.len());
        if nodes == self.next_node && buffers == self.next_buffer {
            return Ok(());
        }
        Err(malformed(format!(
            "the batch has {nodes} nodes and {buffers} buffers, its schema needs {} and {}",
            self.next_node, self.next_buffer
        )))
    }
}
