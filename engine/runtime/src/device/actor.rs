//! The actor of a connected identity: its mailbox, one message per batch.
//!
//! It runs on the shard's thread and shares the [`Shard`] with it, so that a check of a sequence
//! and the hand-over to the log are one step that nothing can come between.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, Context, Handler, Message, MessageResult};
use quiver_model::{Clock, SenderId, Sequence, SessionId};
use quiver_protocol::{ConnectionClose, OpenStream};

use super::{Outbox, TokenBucket};
use crate::{
    commit::{AppendQueue, AppendRequest, QueueFull},
    record_clock::RecordClock,
    shard::{AppendRefused, LiveStream, OpenRefused, Opened, PairKey, Shard},
};

/// Messages that may wait for a device: one for each of its QUIC streams, and some to spare.
const MAILBOX_LENGTH: usize = 256;

/// A telemetry QUIC stream begins.
#[derive(Message)]
#[rtype(result = "OpenOutcome")]
pub struct OpenTelemetry {
    /// Its first message.
    pub open: OpenStream,
    /// What identifies it.
    pub live: LiveStream,
}

/// How it goes on.
pub type OpenOutcome = Result<Opened, OpenRefused>;

/// A batch for the log.
#[derive(Message)]
#[rtype(result = "AppendOutcome")]
pub struct AppendBatch {
    /// Stream and producer.
    pub key: PairKey,
    /// The QUIC stream it came on.
    pub live: LiveStream,
    /// Its number.
    pub sequence: Sequence,
    /// The number after it.
    pub next: Sequence,
    /// Rows, for the rate limit.
    pub rows: u64,
    /// Whether the sender wants to know already that it was received.
    pub ack_received: bool,
    /// What goes to the log. Its epoch is set here.
    pub request: Box<AppendRequest>,
}

/// What became of it.
pub enum AppendOutcome {
    /// It is in the log's queue; a sender that keeps to its rate brings the next one after this.
    Accepted(Duration),
    /// It cannot be appended.
    Refused(Refusal),
    /// The log's queue is full; wait for space and try again.
    Full(Box<AppendRequest>),
}

/// Why not.
pub type Refusal = AppendRefused;

/// A telemetry QUIC stream has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CloseTelemetry {
    /// Stream and producer.
    pub key: PairKey,
    /// The QUIC stream.
    pub live: LiveStream,
}

/// A batch came that is below what was expected: tell the sender how far it is.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Duplicate {
    /// Stream and producer.
    pub key: PairKey,
    /// The QUIC stream it came on.
    pub live: LiveStream,
}

/// Asks how many batches of a pair are durable.
#[derive(Message)]
#[rtype(result = "Sequence")]
pub struct NextSequence {
    /// Stream and producer.
    pub key: PairKey,
}

/// Asks whether a QUIC stream of this connection carries a pair now.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct IsCarried {
    /// Stream and producer.
    pub key: PairKey,
}

/// Asks whether everything that the sender brought is durable.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct IsSettled;

/// The connection is to be closed, or has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CloseConnection {
    /// Why; `None` if it has ended already.
    pub close: Option<ConnectionClose>,
    /// When the client may come back, in milliseconds.
    pub reconnect_after_ms: u32,
}

/// The actor.
pub struct DeviceActor {
    shard: Rc<RefCell<Shard>>,
    sender: SenderId,
    instance: u64,
    session: SessionId,
    outbox: Arc<Outbox>,
    queue: AppendQueue,
    bucket: TokenBucket,
    clock: Arc<dyn Clock>,
    record_clock: Arc<RecordClock>,
}

/// What an actor is made of.
pub struct DeviceActorParts {
    /// The shard on whose thread it runs.
    pub shard: Rc<RefCell<Shard>>,
    /// Whose actor it is.
    pub sender: SenderId,
    /// Instance of the sender.
    pub instance: u64,
    /// The connection.
    pub session: SessionId,
    /// Where answers go.
    pub outbox: Arc<Outbox>,
    /// Where batches go.
    pub queue: AppendQueue,
    /// Rows a second that the sender may bring; 0 for no limit.
    pub rows_per_second_max: u64,
    /// Monotonic time, for the rate.
    pub clock: Arc<dyn Clock>,
    /// Record time.
    pub record_clock: Arc<RecordClock>,
}

impl DeviceActor {
    /// An actor that is not running yet.
    pub fn new(parts: DeviceActorParts) -> Self {
        let DeviceActorParts {
            shard,
            sender,
            instance,
            session,
            outbox,
            queue,
            rows_per_second_max,
            clock,
            record_clock,
        } = parts;
        let bucket = TokenBucket::new(rows_per_second_max, clock.monotonic());
        Self {
            shard,
            sender,
            instance,
            session,
            outbox,
            queue,
            bucket,
            clock,
            record_clock,
        }
    }

    fn open(&self, open: &OpenStream, live: LiveStream) -> OpenOutcome {
        let mut shard = self.shard.borrow_mut();
        let epoch = self.queue.epoch();
        let now = self.record_clock.now();
        let mut sender = shard.sender(&self.sender);
        // Who is revoked, replaced or expired may never read that: from here on nothing is taken.
        if self.outbox.is_closing() || !sender.is_current(self.instance, self.session) {
            return Err(OpenRefused {
                code: quiver_protocol::StreamCloseCode::Superseded,
                next: Sequence(0),
                message: "this connection is being closed, or a newer one of this identity and instance took over".to_owned(),
            });
        }
        let key = (open.stream.clone(), open.producer);
        let opened = sender.open(
            &key,
            open.first_sequence,
            open.lost_before,
            live,
            now,
            epoch,
        )?;
        sender.evict(self.sender.kind, &open.stream, now);
        if let Some(old) = &opened.superseded {
            old.stop(quiver_protocol::StreamCloseCode::Superseded);
            // A newer connection of the same instance counts its QUIC streams anew.
            if let Some(session) = sender.session_of(old) {
                session.outbox.stream_closed(
                    old.quic_stream,
                    Some((open.producer, &open.stream)),
                    opened.next,
                    quiver_protocol::StreamCloseCode::Superseded,
                    0,
                    "a newer QUIC stream carries this producer and stream",
                );
            }
        }
        Ok(opened)
    }

    fn append(&mut self, batch: AppendBatch) -> AppendOutcome {
        let AppendBatch {
            key,
            live,
            sequence,
            next,
            rows,
            ack_received,
            mut request,
        } = batch;
        let mut shard = self.shard.borrow_mut();
        let mut sender = shard.sender(&self.sender);
        if self.outbox.is_closing() || !sender.is_current(self.instance, self.session) {
            return AppendOutcome::Refused(AppendRefused::StreamOver);
        }
        request.epoch = match sender.check(&key, &live, sequence, self.queue.epoch()) {
            Ok(epoch) => epoch,
            Err(AppendRefused::Duplicate) => {
                drop(sender);
                shard.duplicate(&self.sender, &key, self.instance);
                return AppendOutcome::Refused(AppendRefused::Duplicate);
            }
            Err(refused) => return AppendOutcome::Refused(refused),
        };
        if let Err(QueueFull(request)) = self.queue.try_append(request) {
            return AppendOutcome::Full(request);
        }
        sender.accept(&key, next, self.record_clock.now());
        if ack_received && let Some(pair) = sender.pairs.get(&key) {
            self.outbox.ack(key.1, &key.0, next, &pair.refused_rows);
        }
        AppendOutcome::Accepted(self.bucket.charge(rows, self.clock.monotonic()))
    }
}

impl Actor for DeviceActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX_LENGTH);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let mut shard = self.shard.borrow_mut();
        shard.disconnect(&self.sender, self.instance, self.session);
    }
}

impl Handler<OpenTelemetry> for DeviceActor {
    type Result = MessageResult<OpenTelemetry>;

    fn handle(&mut self, message: OpenTelemetry, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.open(&message.open, message.live))
    }
}

impl Handler<AppendBatch> for DeviceActor {
    type Result = MessageResult<AppendBatch>;

    fn handle(&mut self, message: AppendBatch, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.append(message))
    }
}

impl Handler<CloseTelemetry> for DeviceActor {
    type Result = ();

    fn handle(&mut self, message: CloseTelemetry, _: &mut Self::Context) {
        self.shard
            .borrow_mut()
            .sender(&self.sender)
            .close(&message.key, &message.live);
    }
}

impl Handler<Duplicate> for DeviceActor {
    type Result = ();

    fn handle(&mut self, message: Duplicate, _: &mut Self::Context) {
        self.shard
            .borrow()
            .duplicate(&self.sender, &message.key, message.live.instance);
    }
}

impl Handler<NextSequence> for DeviceActor {
    type Result = MessageResult<NextSequence>;

    fn handle(&mut self, message: NextSequence, _: &mut Self::Context) -> Self::Result {
        let mut shard = self.shard.borrow_mut();
        let sender = shard.sender(&self.sender);
        let pair = sender.pairs.get(&message.key);
        MessageResult(pair.map_or(Sequence(0), |pair| pair.durable))
    }
}

impl Handler<IsCarried> for DeviceActor {
    type Result = bool;

    fn handle(&mut self, message: IsCarried, _: &mut Self::Context) -> bool {
        let mut shard = self.shard.borrow_mut();
        let sender = shard.sender(&self.sender);
        let pair = sender.pairs.get(&message.key);
        // One that has ended is kept until all it brought is settled; it carries nothing more.
        let carrier = pair
            .filter(|pair| !pair.ended)
            .and_then(|pair| pair.live.as_ref());
        carrier.is_some_and(|live| live.session == self.session)
    }
}

impl Handler<IsSettled> for DeviceActor {
    type Result = bool;

    fn handle(&mut self, _: IsSettled, _: &mut Self::Context) -> bool {
        let mut shard = self.shard.borrow_mut();
        let sender = shard.sender(&self.sender);
        let mut pairs = sender.pairs.values();
        pairs.all(|pair| pair.accepted == pair.durable)
    }
}

impl Handler<CloseConnection> for DeviceActor {
    type Result = ();

    fn handle(&mut self, message: CloseConnection, context: &mut Self::Context) {
        if let Some(close) = message.close {
            self.outbox.close(close, message.reconnect_after_ms);
        }
        context.stop();
    }
}
