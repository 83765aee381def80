//! The first message on a telemetry QUIC stream.

use bytes::Bytes;
use quiver_model::{Producer, Sequence, StreamName};

use crate::{
    codes::{AckLevel, Encoding, StreamCloseCode},
    control::encode_message,
    limits::{OPEN_STREAM_BYTES_MAX, SEQUENCE_MAX},
    message,
};

/// What follows on a telemetry QUIC stream, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenStream {
    /// The stream that the batches belong to.
    pub stream: StreamName,
    /// The producer of the batches.
    pub producer: Producer,
    /// Sequence of the first batch; the n-th has `first_sequence + n`.
    pub first_sequence: Sequence,
    /// Every batch before this sequence that was never settled is lost for good. At most
    /// `first_sequence`; 0 declares nothing.
    pub lost_before: Sequence,
    /// How the batches are encoded.
    pub encoding: Encoding,
    /// When a batch counts as acknowledged.
    pub ack_level: AckLevel,
    /// Whether this is a backlog, which live data overtakes.
    pub replayed: bool,
}

impl OpenStream {
    /// Live Arrow batches of `producer` from `first_sequence` on, acknowledged when durable.
    pub fn new(stream: StreamName, producer: Producer, first_sequence: Sequence) -> Self {
        Self {
            stream,
            producer,
            first_sequence,
            lost_before: Sequence(0),
            encoding: Encoding::default(),
            ack_level: AckLevel::default(),
            replayed: false,
        }
    }

    /// The bytes that begin the QUIC stream.
    pub fn encode(&self) -> Bytes {
        encode_message(&message::OpenStream {
            stream: self.stream.as_str().to_owned(),
            producer: self.producer.get(),
            first_sequence: self.first_sequence.get(),
            lost_before: self.lost_before.get(),
            encoding: self.encoding.number(),
            ack_level: self.ack_level.number(),
            replayed: self.replayed,
        })
    }

    /// Checks what needs no state.
    pub(crate) fn check(open: &message::OpenStream) -> Result<Self, (StreamCloseCode, String)> {
        let bad = |message: String| (StreamCloseCode::BadOpen, message);
        let stream = StreamName::new(&open.stream)
            .map_err(|error| bad(format!("OpenStream.stream: {error}")))?;
        if stream.is_reserved() {
            return Err((
                StreamCloseCode::NotAllowed,
                format!("stream {stream} is written by the engine only; choose another name"),
            ));
        }
        if open.first_sequence > SEQUENCE_MAX {
            return Err(bad(format!(
                "OpenStream.first_sequence is {}; sequences end at {SEQUENCE_MAX}: draw a new producer",
                open.first_sequence
            )));
        }
        if open.lost_before > open.first_sequence {
            return Err(bad(format!(
                "OpenStream.lost_before is {}, above first_sequence {}: a batch that is sent is not lost",
                open.lost_before, open.first_sequence
            )));
        }
        let encoding = Encoding::from_number(open.encoding).ok_or_else(|| {
            bad(format!(
                "OpenStream.encoding is {}; this server knows 1 (Arrow IPC stream), 2 (Arrow IPC messages, each compressed with zstd) and 3 (compact)",
                open.encoding
            ))
        })?;
        let ack_level = AckLevel::from_number(open.ack_level).ok_or_else(|| {
            bad(format!(
                "OpenStream.ack_level is {}; this server knows 0 (durable) and 1 (received)",
                open.ack_level
            ))
        })?;
        Ok(Self {
            stream,
            producer: Producer(open.producer),
            first_sequence: Sequence(open.first_sequence),
            lost_before: Sequence(open.lost_before),
            encoding,
            ack_level,
            replayed: open.replayed,
        })
    }
}

const _: () = assert!(OPEN_STREAM_BYTES_MAX >= 63 + 3 * 11 + 9 + 16);
