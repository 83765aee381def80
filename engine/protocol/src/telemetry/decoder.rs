//! From the bytes of a telemetry QUIC stream to events.

use std::collections::VecDeque;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use quiver_model::{BatchRefusal, Producer, RejectCode, Sequence, StreamName};

use super::{
    compact::CompactFrames,
    compressed::CompressedFrames,
    frames::{Frame, FrameError, Frames},
    open::OpenStream,
};
use crate::{
    codes::{Encoding, StreamCloseCode},
    compact::decode::CompactDecoder,
    control::ControlDecoder,
    ipc::{
        Decompressor, Dictionaries, MessageKind, SchemaPlan, decode_with, read_schema,
        whole::inside,
    },
    limits::{DICTIONARY_MESSAGES_MAX, DecodeLimits, OPEN_STREAM_BYTES_MAX},
    message,
};

/// The schema of a QUIC stream's batches.
#[derive(Clone, Debug)]
pub struct WireSchema {
    /// The columns as sent, without metadata.
    pub schema: SchemaRef,
    /// The encapsulated schema message, not compressed.
    pub message: Bytes,
    /// Whether batches decode with this schema alone. If not, they take values from dictionaries;
    /// what the log keeps comes from [`encode_self_contained`](crate::encode_self_contained) then.
    pub self_contained: bool,
}

/// A batch that was decoded.
#[derive(Clone, Debug)]
pub struct WireBatch {
    /// Its number on this QUIC stream, from 0.
    pub index: u64,
    /// Its sequence: `first_sequence + index`.
    pub sequence: Sequence,
    /// The record batch message exactly as received: encapsulated, or compressed as a whole. In the
    /// compact encoding the payload without its length, re-based so that it decodes alone.
    pub message: Bytes,
    /// Which of these.
    pub encoding: Encoding,
    /// What it holds.
    pub batch: RecordBatch,
    /// Whether `message` decodes with the schema message alone.
    pub self_contained: bool,
}

/// The QUIC stream cannot be read on: close it with `code` (STOP_SENDING and `StreamClosed`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRefusal {
    /// Why.
    pub code: StreamCloseCode,
    /// What is wrong and how to mend it.
    pub message: String,
    /// Producer and stream of an `OpenStream` that could be read and is refused all the same.
    pub refused_open: Option<(Producer, StreamName)>,
    /// The batch that consumed its sequence by it, if any: reject it durably first, so that
    /// `next_sequence` is behind it.
    pub reject: Option<(Sequence, BatchRefusal)>,
}

/// What came on a telemetry QUIC stream.
#[derive(Clone, Debug)]
pub enum TelemetryEvent {
    /// The first event.
    Open(OpenStream),
    /// The schema can be read. Comes before the first batch; if it is missing, every batch is bad.
    Schema(WireSchema),
    /// A batch.
    Batch(WireBatch),
    /// A batch that is wrong for ever; the QUIC stream goes on.
    BadBatch {
        /// Its number on this QUIC stream, from 0.
        index: u64,
        /// Its sequence.
        sequence: Sequence,
        /// Why.
        refusal: BatchRefusal,
    },
    /// The QUIC stream cannot be read on. The last event.
    Refused(StreamRefusal),
    /// The QUIC stream has ended. The last event.
    Ended {
        /// Bytes of a message that was not sent to its end; 0 for a clean end.
        partial_bytes: usize,
    },
}

#[derive(Debug)]
enum State {
    Opening(ControlDecoder<message::OpenStream>),
    AwaitSchema,
    Batches {
        plan: SchemaPlan,
        dictionaries: Dictionaries,
    },
    Compact(Box<CompactDecoder>),
    /// The schema cannot be used; each batch is refused for this reason.
    BadSchema(BatchRefusal),
    Done,
}

/// Decodes one telemetry QUIC stream.
///
/// Pull-based: give it bytes, then poll until `None`, and only then read more from the QUIC
/// stream. It holds the bytes it was given and at most one incomplete message.
#[derive(Debug)]
pub struct TelemetryDecoder {
    state: State,
    input: VecDeque<Bytes>,
    frames: Cutter,
    limits: DecodeLimits,
    decompressor: Decompressor,
    first_sequence: Sequence,
    next_index: u64,
    dictionaries_in_a_row: usize,
    saw_end_marker: bool,
    ended: bool,
}

impl Default for TelemetryDecoder {
    fn default() -> Self {
        Self::new(DecodeLimits::WIRE)
    }
}

impl TelemetryDecoder {
    /// A decoder for a QUIC stream that was just accepted.
    pub fn new(limits: DecodeLimits) -> Self {
        Self {
            state: State::Opening(ControlDecoder::new(OPEN_STREAM_BYTES_MAX)),
            input: VecDeque::new(),
            frames: Cutter::Plain(Frames::default()),
            limits,
            decompressor: Decompressor::default(),
            first_sequence: Sequence(0),
            next_index: 0,
            dictionaries_in_a_row: 0,
            saw_end_marker: false,
            ended: false,
        }
    }

    /// Takes the next bytes of the QUIC stream.
    pub fn handle_bytes(&mut self, bytes: Bytes) {
        if bytes.is_empty() || self.ended {
            return;
        }
        match &mut self.state {
            State::Opening(decoder) => decoder.handle_bytes(bytes),
            State::Done => {}
            _ => self.input.push_back(bytes),
        }
    }

    /// The QUIC stream was finished or reset.
    pub fn handle_end(&mut self) {
        self.ended = true;
    }

    /// What came, oldest first; `None` when more bytes are needed, or all was said.
    pub fn poll_event(&mut self) -> Option<TelemetryEvent> {
        loop {
            let step = match &mut self.state {
                State::Done => return None,
                State::Opening(decoder) => match decoder.poll_message() {
                    Ok(Some(open)) => {
                        let rest = decoder.take_rest();
                        return Some(self.open(&open, rest));
                    }
                    Ok(None) if self.ended => return Some(self.end()),
                    Ok(None) => return None,
                    Err(error) => {
                        return Some(
                            self.refuse(StreamCloseCode::BadOpen, format!("OpenStream: {error}")),
                        );
                    }
                },
                _ => self.step(),
            };
            match step {
                Ok(Step::Event(event)) => return Some(event),
                Ok(Step::Again) => {}
                Ok(Step::NeedBytes) if self.ended => return Some(self.end()),
                Ok(Step::NeedBytes) => return None,
                Err(error) => return Some(self.fail(error)),
            }
        }
    }

    /// Number of batches, good and bad, so far.
    pub fn batches(&self) -> u64 {
        self.next_index
    }

    /// Bytes given to the decoder that are not part of an event yet.
    pub fn pending_bytes(&self) -> usize {
        let opening = match &self.state {
            State::Opening(decoder) => decoder.pending_bytes(),
            _ => 0,
        };
        opening + self.frames.pending_bytes() + self.input.iter().map(Bytes::len).sum::<usize>()
    }

    /// Bytes of memory that the message which is not whole yet will take until it is decoded, as far
    /// as it has announced them: what to make room for before more of it is read.
    pub fn announced_bytes(&self) -> usize {
        match &self.frames {
            Cutter::Plain(frames) => frames.announced_bytes(),
            Cutter::Compressed(frames) => frames.announced_bytes(),
            Cutter::Compact(frames) => frames.announced_bytes(),
        }
    }

    /// Bytes of memory that the dictionaries take which were sent so far.
    pub fn dictionary_bytes(&self) -> usize {
        match &self.state {
            State::Batches { dictionaries, .. } => dictionaries.bytes(),
            _ => 0,
        }
    }

    fn open(&mut self, open: &message::OpenStream, rest: VecDeque<Bytes>) -> TelemetryEvent {
        match OpenStream::check(open) {
            Ok(open) => {
                self.first_sequence = open.first_sequence;
                self.frames = Cutter::of(open.encoding);
                self.state = State::AwaitSchema;
                self.input = rest;
                TelemetryEvent::Open(open)
            }
            Err((code, message)) => {
                let mut event = self.refuse(code, message);
                if let TelemetryEvent::Refused(refusal) = &mut event {
                    let stream = StreamName::new(&open.stream).ok();
                    refusal.refused_open = stream.map(|stream| (Producer(open.producer), stream));
                }
                event
            }
        }
    }

    fn end(&mut self) -> TelemetryEvent {
        let partial_bytes = self.pending_bytes();
        self.state = State::Done;
        TelemetryEvent::Ended { partial_bytes }
    }

    /// Refuses the QUIC stream without a batch.
    fn refuse(&mut self, code: StreamCloseCode, message: String) -> TelemetryEvent {
        self.state = State::Done;
        TelemetryEvent::Refused(StreamRefusal {
            code,
            message,
            refused_open: None,
            reject: None,
        })
    }

    /// Refuses the QUIC stream and the batch that should have been here.
    fn fail(&mut self, error: FrameError) -> TelemetryEvent {
        self.state = State::Done;
        self.input.clear();
        self.frames = Cutter::Plain(Frames::default());
        let (_, sequence) = self.take_index();
        TelemetryEvent::Refused(StreamRefusal {
            code: error.code,
            message: error.refusal.message.clone(),
            refused_open: None,
            reject: Some((sequence, error.refusal)),
        })
    }

    fn take_index(&mut self) -> (u64, Sequence) {
        let index = self.next_index;
        self.next_index += 1;
        (
            index,
            Sequence(self.first_sequence.get().saturating_add(index)),
        )
    }

    fn step(&mut self) -> Result<Step, FrameError> {
        if self.saw_end_marker {
            return match self.input.is_empty() {
                true => Ok(Step::NeedBytes),
                false => Err(FrameError::framing("bytes follow the end-of-stream marker")),
            };
        }
        let frame = match &mut self.frames {
            Cutter::Plain(frames) => frames.poll(&mut self.input, &self.limits),
            Cutter::Compressed(frames) => {
                frames.poll(&mut self.input, &self.limits, &mut self.decompressor)
            }
            Cutter::Compact(frames) => frames.poll(&mut self.input, &self.limits),
        };
        let Some(frame) = frame? else {
            return Ok(Step::NeedBytes);
        };
        match frame {
            Frame::End => {
                self.saw_end_marker = true;
                Ok(Step::Again)
            }
            Frame::Message { kind, bytes, sent } => self.message(kind, bytes, sent),
        }
    }

    fn message(
        &mut self,
        kind: MessageKind,
        bytes: Bytes,
        sent: Bytes,
    ) -> Result<Step, FrameError> {
        match (&mut self.state, kind) {
            (State::AwaitSchema, MessageKind::Schema) => match self.frames.encoding() {
                Encoding::Compact => self.compact_schema(bytes),
                Encoding::Arrow | Encoding::ArrowZstd => Ok(self.schema(bytes)),
            },
            (State::Compact(_), MessageKind::RecordBatch) => self.compact_batch(&bytes),
            (State::AwaitSchema, _) => Err(FrameError::framing(
                "the first Arrow IPC message must be the schema",
            )),
            (_, MessageKind::Schema) => Err(FrameError::framing(
                "a second schema: open a new QUIC stream for another schema",
            )),
            (_, MessageKind::Dictionary)
                if self.dictionaries_in_a_row >= DICTIONARY_MESSAGES_MAX =>
            {
                Err(FrameError::framing(format!(
                    "more than {DICTIONARY_MESSAGES_MAX} dictionary messages without a batch"
                )))
            }
            (State::Batches { dictionaries, .. }, MessageKind::Dictionary) => {
                self.dictionaries_in_a_row += 1;
                dictionaries
                    .handle(&bytes, &mut self.decompressor)
                    .map_err(|refusal| FrameError {
                        code: StreamCloseCode::Framing,
                        refusal,
                    })?;
                Ok(Step::Again)
            }
            (_, MessageKind::Dictionary) => {
                self.dictionaries_in_a_row += 1;
                Ok(Step::Again)
            }
            (_, MessageKind::RecordBatch) => Ok(Step::Event(self.batch(&bytes, sent))),
            (_, MessageKind::Other) => Err(FrameError::framing("a message of an unexpected kind")),
        }
    }

    fn schema(&mut self, message: Bytes) -> Step {
        let planned = read_schema(&message, &self.limits)
            .and_then(|plan| Dictionaries::new(&plan).map(|dictionaries| (plan, dictionaries)));
        match planned {
            Ok((plan, dictionaries)) => {
                let event = TelemetryEvent::Schema(WireSchema {
                    schema: plan.schema.clone(),
                    message,
                    self_contained: plan.is_self_contained(),
                });
                self.state = State::Batches { plan, dictionaries };
                Step::Event(event)
            }
            Err(refusal) => {
                self.state = State::BadSchema(refusal);
                Step::Again
            }
        }
    }

    fn compact_schema(&mut self, message: Bytes) -> Result<Step, FrameError> {
        let planned = read_schema(&message, &self.limits)
            .and_then(|plan| SchemaPlan::without_dictionaries(&plan.schema))
            .and_then(|plan| CompactDecoder::new(&plan.schema).map(|decoder| (plan, decoder)));
        match planned {
            Ok((plan, decoder)) => {
                self.state = State::Compact(Box::new(decoder));
                Ok(Step::Event(TelemetryEvent::Schema(WireSchema {
                    schema: plan.schema,
                    message,
                    self_contained: true,
                })))
            }
            Err(refusal) if refusal.code == RejectCode::MalformedBatch => {
                Err(FrameError::of(refusal))
            }
            Err(refusal) => {
                self.state = State::BadSchema(refusal);
                Ok(Step::Again)
            }
        }
    }

    /// A batch that cannot be decoded ends the QUIC stream: those behind it refer to it.
    fn compact_batch(&mut self, payload: &[u8]) -> Result<Step, FrameError> {
        let State::Compact(decoder) = &mut self.state else {
            return Err(FrameError::framing("the schema must come first"));
        };
        let decoded =
            decoder
                .decode(payload, &self.limits, true)
                .map_err(|refusal| match refusal.code {
                    RejectCode::BatchTooLarge => FrameError::too_large(refusal),
                    _ => FrameError::of(refusal),
                })?;
        let (index, sequence) = self.take_index();
        Ok(Step::Event(TelemetryEvent::Batch(WireBatch {
            index,
            sequence,
            message: decoded.stored,
            encoding: Encoding::Compact,
            batch: decoded.batch,
            self_contained: true,
        })))
    }

    fn batch(&mut self, message: &Bytes, sent: Bytes) -> TelemetryEvent {
        self.dictionaries_in_a_row = 0;
        let (index, sequence) = self.take_index();
        let decoded = match &self.state {
            State::Batches { plan, dictionaries } => decode_with(
                plan,
                dictionaries,
                message,
                &self.frames.message_limits(&self.limits),
                &mut self.decompressor,
            )
            .map(|batch| (batch, plan.is_self_contained())),
            State::BadSchema(refusal) => Err(refusal.clone()),
            State::Opening(_) | State::AwaitSchema | State::Compact(_) | State::Done => {
                Err(super::frames::FrameError::framing(
                    "the first Arrow IPC message must be the schema",
                )
                .refusal)
            }
        };
        match decoded {
            Ok((batch, self_contained)) => TelemetryEvent::Batch(WireBatch {
                index,
                sequence,
                message: sent,
                encoding: self.frames.encoding(),
                batch,
                self_contained,
            }),
            Err(refusal) => TelemetryEvent::BadBatch {
                index,
                sequence,
                refusal,
            },
        }
    }
}

/// Cuts messages out of the QUIC stream.
#[derive(Debug)]
enum Cutter {
    Plain(Frames),
    Compressed(CompressedFrames),
    Compact(CompactFrames),
}

impl Cutter {
    fn of(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Arrow => Self::Plain(Frames::default()),
            Encoding::ArrowZstd => Self::Compressed(CompressedFrames::default()),
            Encoding::Compact => Self::Compact(CompactFrames::default()),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Self::Plain(_) => Encoding::Arrow,
            Self::Compressed(_) => Encoding::ArrowZstd,
            Self::Compact(_) => Encoding::Compact,
        }
    }

    fn pending_bytes(&self) -> usize {
        match self {
            Self::Plain(frames) => frames.pending_bytes(),
            Self::Compressed(frames) => frames.pending_bytes(),
            Self::Compact(frames) => frames.pending_bytes(),
        }
    }

    /// Limits of a message that was cut out.
    fn message_limits(&self, limits: &DecodeLimits) -> DecodeLimits {
        match self {
            Self::Plain(_) | Self::Compact(_) => *limits,
            Self::Compressed(_) => inside(limits),
        }
    }
}

enum Step {
    Event(TelemetryEvent),
    Again,
    NeedBytes,
}
