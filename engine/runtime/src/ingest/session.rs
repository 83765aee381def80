//! A connection of a known sender, from Welcome to its end. Runs on the sender's shard.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::{Actor, Addr};
use quinn::{Connection, RecvStream, SendStream};
use quiver_model::{BatchRefusal, SenderId, SenderKind, SessionId, Timestamp};
use quiver_protocol::{
    ConnectionClose, ConnectionCloseCode, Limits, PairState, ServerEvent,
    limits::{DEVICE_CONNECTIONS_MAX, GATEWAY_CONNECTIONS_MAX},
};

use super::{
    IngestContext,
    identify::{Identified, close},
    receive::IdentityPart,
    telemetry::TelemetryReader,
    window::ReceiveWindow,
};
use crate::{
    device::{CloseConnection, DeviceActor, DeviceActorParts, IsSettled, Outbox},
    shard::{SenderState, Shard},
};

/// Name of this software, as clients are told.
const SERVER: &str = concat!("quiver/", env!("CARGO_PKG_VERSION"));
/// Bytes read from the control stream at once.
const READ_BYTES: usize = 64 << 10;
/// Pause for a client whose place was taken, so that two of a kind do not chase each other.
const REPLACED_PAUSE_MS: u32 = 1_000;
/// How often is asked whether everything is settled, once a client has said all.
const SETTLE_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);
/// How often the wall clock is compared with a certificate's end.
const EXPIRY_LOOK: std::time::Duration = std::time::Duration::from_secs(600);
/// How long a closed connection is given to tell the client why.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(500);

/// What the tasks of one connection share.
pub(super) struct Session {
    pub context: Arc<IngestContext>,
    pub sender: SenderId,
    pub instance: u64,
    pub id: SessionId,
    pub actor: Addr<DeviceActor>,
    pub outbox: Arc<Outbox>,
    pub streams: std::cell::Cell<u32>,
    pub window: ReceiveWindow,
    pub receive: IdentityPart,
    pub dictionaries: IdentityPart,
}

/// Serves a connection until it ends.
pub async fn run_session(shard: Rc<RefCell<Shard>>, identified: Identified) {
    let Identified {
        sender,
        shown,
        connection,
        send,
        receive,
        conversation,
        hello,
        expires,
        context,
    } = identified;
    let outbox = Arc::new(Outbox::new(conversation));
    // Who was revoked, or got another credential, since the handshake may have missed being closed:
    // this thread is the one that closes, so from here on nothing is missed.
    if let Err(refusal) = shown.admit(&context.control.state().registry, &sender) {
        return close(&connection, &refusal);
    }
    let (id, replaced, pairs) = {
        let mut shard = shard.borrow_mut();
        let mut state = shard.sender(&sender);
        let connections_max = connections_max(sender.kind);
        if state.sessions.len() >= connections_max && !state.sessions.contains_key(&hello.instance)
        {
            let reason = format!(
                "{sender} has {connections_max} connections of different instances; close some, or keep Hello.instance"
            );
            return close(
                &connection,
                &ConnectionClose::new(ConnectionCloseCode::LimitExceeded, reason),
            );
        }
        let (id, replaced) = state.connect(hello.instance, outbox.clone());
        let pairs = hello
            .last_acks
            .iter()
            .map(|(pair, next)| resume(&state, pair, *next))
            .collect();
        (id, replaced, pairs)
    };
    if let Some(replaced) = replaced {
        replaced.outbox.close(
            ConnectionClose::new(
                ConnectionCloseCode::Replaced,
                "a newer connection of this identity and instance took over; run each device once",
            ),
            REPLACED_PAUSE_MS,
        );
    }
    let limits = Limits::for_sender(sender.kind);
    outbox.with(|conversation| conversation.welcome(limits, id, SERVER, pairs));
    let actor = DeviceActor::new(DeviceActorParts {
        shard: shard.clone(),
        sender: sender.clone(),
        instance: hello.instance,
        session: id,
        outbox: outbox.clone(),
        queue: context.queue.clone(),
        rows_per_second_max: context.options.rows_per_second_max,
        clock: context.clock.clone(),
        record_clock: context.record_clock.clone(),
    })
    .start();
    let session = Rc::new(Session {
        receive: context.receive.part(&sender),
        dictionaries: context.dictionaries.part(&sender),
        context,
        sender,
        instance: hello.instance,
        id,
        actor,
        outbox,
        streams: std::cell::Cell::new(0),
        window: ReceiveWindow::new(connection.clone()),
    });
    session
        .serve(&connection, send, receive, limits, expires)
        .await;
}

/// Connections that an identity may have at once, each with an instance of its own.
const fn connections_max(kind: SenderKind) -> usize {
    match kind {
        SenderKind::Device => DEVICE_CONNECTIONS_MAX,
        SenderKind::Gateway | SenderKind::Operator | SenderKind::Node => GATEWAY_CONNECTIONS_MAX,
    }
}

/// What is known of a pair that a client asks for.
fn resume(
    state: &SenderState,
    (producer, stream): &quiver_protocol::ProducerStream,
    next: quiver_model::Sequence,
) -> PairState {
    let Some(pair) = state.pairs.get(&(stream.clone(), *producer)) else {
        return PairState::default();
    };
    let rejects: Vec<_> = pair
        .rejects
        .iter()
        .filter(|reject| reject.sequence >= next)
        .map(|reject| {
            (
                reject.sequence,
                BatchRefusal::new(reject.code, reject.message.clone()),
            )
        })
        .collect();
    PairState {
        next_sequence: pair.durable,
        // A pair that was opened and never settled is not known after a restart: say so already.
        known: pair.durable > quiver_model::Sequence(0),
        rejects_total: rejects.len() as u64,
        rejects,
        refused_rows: pair.refused_rows.clone(),
    }
}

impl Session {
    async fn serve(
        self: &Rc<Self>,
        connection: &Connection,
        send: SendStream,
        receive: RecvStream,
        limits: Limits,
        expires: Option<Timestamp>,
    ) {
        let metrics = &self.context.metrics;
        metrics.connections.add(1);
        self.fit_window();
        let is_device = self.sender.kind == SenderKind::Device;
        metrics.devices_connected.add(i64::from(is_device));
        tracing::debug!(sender = %self.sender, session = %self.id, "connected");

        // A task of its own: an acknowledgement then wakes nothing else.
        let mut writer = tokio::task::JoinSet::new();
        let (session, written) = (self.clone(), connection.clone());
        writer.spawn_local(async move { session.write_control(&written, send).await });
        // In this order, so that a simulation's seed decides what happens.
        tokio::select! {
            biased;
            _ = writer.join_next() => {}
            () = self.read_control(receive) => {}
            () = self.accept_telemetry(connection, limits) => {}
            () = self.outlive(expires) => {}
            () = self.farewell() => {}
            reason = connection.closed() => tracing::debug!(sender = %self.sender, %reason, "disconnected"),
        }
        drop(writer);
        if self.outbox.closing().is_some() {
            // Give the close a chance to arrive before the connection's state is dropped.
            let _ = tokio::time::timeout(FAREWELL, connection.closed()).await;
        }
        close(
            connection,
            &self
                .outbox
                .closing()
                .unwrap_or_else(|| ConnectionClose::new(ConnectionCloseCode::Ok, "")),
        );
        // The actor's stop takes the session out of its shard; a stopped actor needs no message.
        let _ = self
            .actor
            .send(CloseConnection {
                close: None,
                reconnect_after_ms: 0,
            })
            .await;
        metrics.connections.add(-1);
        metrics.devices_connected.add(-i64::from(is_device));
    }

    /// Fits how much the connection may send unread to how many connections there are.
    pub(super) fn fit_window(&self) {
        let connections = self.context.metrics.connections.get();
        self.window
            .fit(self.context.receive.capacity(), connections);
    }

    /// Ends the connection when its certificate has expired for longer than the grace. The wall
    /// clock may step, so it is looked at again and again.
    async fn outlive(&self, expires: Option<Timestamp>) {
        let Some(expires) = expires else {
            return std::future::pending().await;
        };
        let end = expires.plus(self.context.options.certificate_grace);
        loop {
            let now = self.context.clock.wall();
            if now >= end {
                break;
            }
            tokio::time::sleep(end.since(now).min(EXPIRY_LOOK)).await;
        }
        self.outbox.close(
            ConnectionClose::new(
                ConnectionCloseCode::Unauthenticated,
                format!("the client certificate expired at {expires}; connect with a new one"),
            ),
            0,
        );
        // What writes the outbox closes the connection.
        std::future::pending().await
    }

    /// Ends soon after the connection is to be closed, whether the client reads its control stream
    /// or not: the goodbye may never be written.
    async fn farewell(&self) {
        self.outbox.closed().await;
        tokio::time::sleep(FAREWELL * 2).await;
    }

    /// Writes what the outbox holds; ends when the connection is to be closed.
    async fn write_control(&self, connection: &Connection, mut send: SendStream) {
        loop {
            while let Some(bytes) = self.outbox.take() {
                if send.write_chunk(bytes).await.is_err() {
                    return;
                }
            }
            if let Some(reason) = self.outbox.closing() {
                // The stream may be gone already; then the close below says the same.
                let _ = send.finish();
                let _ = tokio::time::timeout(FAREWELL, send.stopped()).await;
                close(connection, &reason);
                return;
            }
            self.outbox.woken().await;
        }
    }

    /// Reads what the client says; ends when it has said all and everything of it is settled, or
    /// when it breaks the protocol.
    async fn read_control(&self, mut receive: RecvStream) {
        loop {
            match self
                .outbox
                .with(quiver_protocol::ServerConversation::poll_event)
            {
                Some(ServerEvent::Closed(close)) => {
                    self.outbox.close(close, 0);
                    return std::future::pending().await;
                }
                Some(ServerEvent::Finished) => {
                    self.settled().await;
                    self.outbox
                        .close(ConnectionClose::new(ConnectionCloseCode::Ok, ""), 0);
                    return std::future::pending().await;
                }
                Some(ServerEvent::Hello(_)) => {}
                None => {}
            }
            match receive.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => self
                    .outbox
                    .with(|conversation| conversation.handle_bytes(chunk.bytes)),
                Ok(None) => self
                    .outbox
                    .with(quiver_protocol::ServerConversation::handle_end),
                // A control stream that is reset: the connection is of no use any more.
                Err(_) => return,
            }
        }
    }

    /// Waits until everything the sender brought is durable, twice in a row: what QUIC had still
    /// to deliver when the control stream ended gets its chance.
    async fn settled(&self) {
        let mut settled = 0;
        while settled < 2 {
            tokio::time::sleep(SETTLE_INTERVAL).await;
            match self.actor.send(IsSettled).await {
                Ok(true) => settled += 1,
                Ok(false) => settled = 0,
                Err(_) => return,
            }
        }
    }

    async fn accept_telemetry(self: &Rc<Self>, connection: &Connection, limits: Limits) {
        let mut readers = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = readers.join_next() => {}
                stream = connection.accept_uni() => {
                    let Ok(stream) = stream else { return };
                    if stream.is_0rtt() {
                        self.outbox.close(
                            ConnectionClose::new(
                                ConnectionCloseCode::ProtocolViolation,
                                "telemetry may not be sent in 0-RTT: it could be replayed",
                            ),
                            0,
                        );
                        return std::future::pending().await;
                    }
                    // Superseded streams end by themselves; a client that keeps more is told.
                    if self.streams.get() + 1 >= 2 * limits.quic_streams {
                        self.outbox.close(
                            ConnectionClose::new(
                                ConnectionCloseCode::TooManyStreams,
                                format!("more than {} telemetry QUIC streams are open", limits.quic_streams),
                            ),
                            0,
                        );
                        return std::future::pending().await;
                    }
                    self.streams.set(self.streams.get() + 1);
                    let session = self.clone();
                    readers.spawn_local(async move {
                        TelemetryReader::new(session.clone(), stream).run().await;
                        session.streams.set(session.streams.get() - 1);
                    });
                }
            }
        }
    }
}
