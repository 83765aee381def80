//! Reads one telemetry QUIC stream and brings its batches to the log.
//!
//! ```text
//! room (wait, take memory, read) ─▶ TelemetryDecoder ─▶ batch ─▶ judging ─▶ memory reserved ─▶ log's queue
//! ```

mod batch;
mod judging;
mod room;

use std::{rc::Rc, sync::Arc, time::Duration};

use quinn::{RecvStream, VarInt};
use quiver_log::{Record, RecordKind};
use quiver_model::{Producer, ProducerKind, Sequence, StreamName};
use quiver_protocol::{
    AckLevel, OpenStream, StreamCloseCode, StreamRefusal, TelemetryDecoder, TelemetryEvent,
    WireSchema,
};

use crate::{
    catalog::KnownWireSchema,
    commit::Settlement,
    device::{CloseTelemetry, IsCarried, OpenTelemetry},
    ingest::{receive::Received, session::Session},
    shard::{LiveStream, PairKey, SettledOutcome, StopSignal},
};

/// How long a client waits before it opens again what was closed for a condition that passes.
const RETRY_AFTER_MS: u32 = 1_000;
/// How often, and with what pause, a new QUIC stream looks whether the one before it has ended.
const PREDECESSOR_LOOKS: usize = 5;
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(5);

/// How a QUIC stream ends before its own end.
struct Closed {
    code: StreamCloseCode,
    retry_after_ms: u32,
    message: String,
}

impl Closed {
    fn new(code: StreamCloseCode, message: impl Into<String>) -> Self {
        let retry_after_ms = if code.is_retryable() {
            RETRY_AFTER_MS
        } else {
            0
        };
        Self {
            code,
            retry_after_ms,
            message: message.into(),
        }
    }

    fn is_told(&self) -> bool {
        self.message.is_empty()
    }

    /// It was closed from elsewhere, and the client has been told there.
    fn told(code: StreamCloseCode) -> Self {
        Self {
            code,
            retry_after_ms: 0,
            message: String::new(),
        }
    }
}

/// What is known once the first message was read.
struct Opened {
    key: PairKey,
    live: LiveStream,
    ack_received: bool,
    replayed: bool,
    /// Batches below this are duplicates.
    next: Sequence,
}

pub(super) struct TelemetryReader {
    session: Rc<Session>,
    receive: RecvStream,
    quic_stream: u64,
    signal: Arc<StopSignal>,
    decoder: TelemetryDecoder,
    opened: Option<Opened>,
    /// What an `OpenStream` named that was refused, for the answer.
    refused_open: Option<(Producer, StreamName)>,
    wire: Option<WireSchema>,
    known_wire: Option<Arc<KnownWireSchema>>,
    /// Memory for the message that is being received, or the batch that waits; since when.
    received: Option<Received>,
    received_since: tokio::time::Instant,
    /// Memory for the dictionaries that were sent.
    dictionaries: Option<Received>,
    /// The sender keeps to its rate if nothing more is read before.
    not_before: tokio::time::Instant,
}

impl TelemetryReader {
    pub fn new(session: Rc<Session>, receive: RecvStream) -> Self {
        let quic_stream = VarInt::from(receive.id()).into_inner();
        Self {
            session,
            receive,
            quic_stream,
            signal: Arc::default(),
            decoder: TelemetryDecoder::default(),
            opened: None,
            refused_open: None,
            wire: None,
            known_wire: None,
            received: None,
            received_since: tokio::time::Instant::now(),
            dictionaries: None,
            not_before: tokio::time::Instant::now(),
        }
    }

    pub async fn run(mut self) {
        let signal = self.signal.clone();
        let result = tokio::select! {
            biased;
            code = signal.stopped() => {
                Err(Closed::told(StreamCloseCode::from_number(code).unwrap_or(StreamCloseCode::Superseded)))
            }
            result = self.read() => result,
        };
        if let Err(closed) = result {
            self.close(&closed).await;
        }
        if let Some(Opened { key, live, .. }) = self.opened.take() {
            // The actor may have stopped with its connection.
            let _ = self.session.actor.send(CloseTelemetry { key, live }).await;
        }
    }

    async fn close(&mut self, closed: &Closed) {
        self.session.context.metrics.streams_closed.add(1);
        // It may have been finished or reset meanwhile; then there is nothing to stop.
        let _ = self.receive.stop(VarInt::from_u32(closed.code.number()));
        if closed.is_told() {
            return;
        }
        let pair: Option<(Producer, StreamName)> = match &self.opened {
            Some(opened) => Some((opened.key.1, opened.key.0.clone())),
            None => self.refused_open.take(),
        };
        self.session.outbox.stream_closed(
            self.quic_stream,
            pair.as_ref().map(|(producer, stream)| (*producer, stream)),
            self.durable().await,
            closed.code,
            closed.retry_after_ms,
            &closed.message,
        );
    }

    /// Durable batches of the pair, as its shard knows them.
    async fn durable(&self) -> Sequence {
        match &self.opened {
            None => Sequence(0),
            Some(opened) => {
                let ask = crate::device::NextSequence {
                    key: opened.key.clone(),
                };
                self.session.actor.send(ask).await.unwrap_or(opened.next)
            }
        }
    }

    async fn read(&mut self) -> Result<(), Closed> {
        loop {
            while let Some(event) = self.decoder.poll_event() {
                if self.handle(event).await? {
                    return Ok(());
                }
            }
            self.room_for_dictionaries()?;
            if self.received.is_none() {
                self.pace().await?;
            }
            self.session.fit_window();
            self.make_room().await?;
            match self.read_chunk().await? {
                Ok(Some(chunk)) => {
                    self.session
                        .context
                        .metrics
                        .bytes_received
                        .add(chunk.bytes.len() as u64);
                    self.decoder.handle_bytes(chunk.bytes);
                }
                // Ended or reset: a batch that was cut off was not sent.
                Ok(None) | Err(_) => self.decoder.handle_end(),
            }
        }
    }
    /// Whether that was the last event.
    async fn handle(&mut self, event: TelemetryEvent) -> Result<bool, Closed> {
        match event {
            TelemetryEvent::Open(open) => self.open(open).await?,
            TelemetryEvent::Schema(schema) => {
                self.wire = Some(schema);
                self.known_wire = None;
            }
            TelemetryEvent::Batch(batch) => {
                self.charge(&batch).await?;
                self.batch(batch).await?;
                self.received = None;
            }
            TelemetryEvent::BadBatch {
                sequence, refusal, ..
            } => {
                self.reject(sequence, &refusal, 0, String::new()).await?;
            }
            TelemetryEvent::Refused(StreamRefusal {
                code,
                message,
                refused_open,
                reject,
            }) => {
                self.refused_open = refused_open;
                if let Some((sequence, refusal)) = reject {
                    self.reject(sequence, &refusal, 0, String::new()).await?;
                    // next_sequence must be behind the reject.
                    self.settled(sequence.next()).await;
                }
                return Err(Closed::new(code, message));
            }
            TelemetryEvent::Ended { .. } => return Ok(true),
        }
        Ok(false)
    }

    async fn open(&mut self, open: OpenStream) -> Result<(), Closed> {
        let live = LiveStream {
            session: self.session.id,
            instance: self.session.instance,
            quic_stream: self.quic_stream,
            signal: self.signal.clone(),
        };
        let key = (open.stream.clone(), open.producer);
        let rules = self.session.context.control.rules();
        if let Err(error) = rules.check(&open.stream, []) {
            self.refused_open = Some((open.producer, open.stream.clone()));
            return Err(Closed::new(StreamCloseCode::NotAllowed, error.to_string()));
        }
        self.predecessor_ended(&key).await?;
        let message = OpenTelemetry {
            open: open.clone(),
            live: live.clone(),
        };
        let outcome = self.session.actor.send(message).await.map_err(|_| gone())?;
        let mut opened = Opened {
            key,
            live,
            ack_received: open.ack_level == AckLevel::Received,
            replayed: open.replayed,
            next: Sequence(0),
        };
        match outcome {
            Err(refused) => {
                opened.next = refused.next;
                self.opened = Some(opened);
                Err(Closed::new(refused.code, refused.message))
            }
            Ok(outcome) => {
                opened.next = outcome.next;
                self.opened = Some(opened);
                if outcome.lost {
                    self.declare_lost(open.first_sequence).await
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Gives the QUIC stream that carried the pair before a moment to end: its FIN may arrive just
    /// after the first bytes of this one, and a client that did nothing wrong is not to be told
    /// that its QUIC stream was superseded.
    async fn predecessor_ended(&self, key: &PairKey) -> Result<(), Closed> {
        for _ in 0..PREDECESSOR_LOOKS {
            let ask = IsCarried { key: key.clone() };
            if !self.session.actor.send(ask).await.map_err(|_| gone())? {
                break;
            }
            tokio::time::sleep(PREDECESSOR_PAUSE).await;
        }
        Ok(())
    }

    fn opened(&self) -> Result<&Opened, Closed> {
        self.opened.as_ref().ok_or_else(gone)
    }

    fn record(&self, kind: RecordKind, sequence: Sequence) -> Result<Record, Closed> {
        let opened = self.opened()?;
        let mut record = Record::control(kind, self.session.context.record_clock.now());
        record.producer_kind = ProducerKind::Dense;
        record.sender = Some(self.session.sender.clone());
        record.producer = opened.key.1;
        record.stream = Some(opened.key.0.clone());
        record.sequence = sequence;
        record.session = self.session.id;
        Ok(record)
    }

    async fn declare_lost(&mut self, first: Sequence) -> Result<(), Closed> {
        let record = self.record(RecordKind::Lost, first)?;
        self.session.context.metrics.declared_lost.add(1);
        let settlement = Settlement {
            sender: self.session.sender.clone(),
            rows: None,
            outcome: SettledOutcome::Lost,
            received: self.session.context.clock.monotonic(),
        };
        self.append(record, settlement, first, 0).await.map(drop)
    }
}

fn overloaded() -> Closed {
    Closed::new(
        StreamCloseCode::Overloaded,
        "the server's memory for messages that are being received is in use; send again later, or smaller batches",
    )
}

fn gone() -> Closed {
    Closed::told(StreamCloseCode::Superseded)
}
