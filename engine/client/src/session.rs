//! Connections: makes them, one after the other with pauses, and carries the control stream of
//! each. What the messages mean is the queue's business.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    Connection as QuicConnection, ConnectionError, Endpoint, RecvStream, TransportErrorCode, VarInt,
};
use quiver_model::SessionId;
use quiver_protocol::{
    ClientConversation, ClientEvent as ServerMessage, ClientHello, ConnectionCloseCode, Resumed,
    limits::LAST_ACKS_MAX,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    ClientEvent, ServerAddress, Token,
    backoff::{Backoff, BackoffOptions},
    event::Disconnect,
    queue::StreamClosed,
    sender::{self, LaneTask},
    shared::{Connection, Shared},
    spool::SpoolDirectory,
    store::StoreCommand,
};

/// Most bytes of the control stream that are taken at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What every session of a client needs.
pub(crate) struct SessionContext {
    pub shared: Arc<Shared>,
    pub store: mpsc::Sender<StoreCommand>,
    pub directory: Option<Arc<dyn SpoolDirectory>>,
    pub endpoint: Endpoint,
    pub config: quinn::ClientConfig,
    pub server: ServerAddress,
    pub server_name: String,
    pub token: Option<Token>,
    pub software: String,
    pub instance: u64,
    pub connect_timeout: Duration,
    pub backoff: BackoffOptions,
    /// Turns true when the client is closed.
    pub shutdown: watch::Receiver<bool>,
}

/// How a session ended.
struct Ended {
    reason: Disconnect,
    /// The server's wish, at least.
    retry_after: Duration,
}

impl From<Disconnect> for Ended {
    fn from(reason: Disconnect) -> Self {
        Self {
            reason,
            retry_after: Duration::ZERO,
        }
    }
}

fn failed(text: impl Into<String>) -> Ended {
    Disconnect::Failed(text.into()).into()
}

/// Connects, and connects again, until the client is closed.
pub(crate) async fn run(mut context: SessionContext) {
    let mut backoff = Backoff::new(context.backoff);
    let mut shutdown = context.shutdown.clone();
    loop {
        let mut welcomed_at = None;
        let ended = tokio::select! {
            biased;
            _ = shutdown.wait_for(|is_shut| *is_shut) => break,
            ended = connect_and_serve(&mut context, &mut welcomed_at) => ended,
        };
        if let Some(welcomed_at) = welcomed_at {
            backoff.on_connection_ended(Instant::now().saturating_duration_since(welcomed_at));
        }
        let pause = backoff
            .next_pause(&*context.shared.entropy)
            .max(ended.retry_after);
        context.shared.update(|state| {
            state.queue.set_offline();
            state.connection = Connection::Disconnected(ended.reason.clone());
        });
        context.shared.report([ClientEvent::Disconnected {
            reason: ended.reason,
            retry_in: pause,
        }]);
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|is_shut| *is_shut) => break,
            () = sleep(pause) => {}
        }
    }
    context.shared.update(|state| {
        state.queue.set_offline();
        state.connection = Connection::Closed;
    });
    context.endpoint.close(
        VarInt::from_u32(ConnectionCloseCode::Ok.number()),
        b"closed by the client",
    );
    // Lets the close leave, without waiting for a peer that is gone.
    let _in_time = timeout(Duration::from_millis(500), context.endpoint.wait_idle()).await;
}

async fn resolve(server: &ServerAddress) -> Result<SocketAddr, String> {
    match server {
        ServerAddress::Address(address) => Ok(*address),
        ServerAddress::Host(host) => match tokio::net::lookup_host(host).await {
            Ok(mut addresses) => addresses
                .next()
                .ok_or_else(|| format!("{host} has no address")),
            Err(error) => Err(format!("cannot resolve {host}: {error}")),
        },
    }
}

/// A connection on which `Hello` was answered.
struct Welcomed {
    connection: QuicConnection,
    conversation: ClientConversation,
    control: RecvStream,
    /// Held open: its end would tell the server that the client is done.
    _control_out: quinn::SendStream,
    welcome: Welcome,
}

struct Welcome {
    resume: Vec<Resumed>,
    quic_streams_max: usize,
    session: SessionId,
    server: String,
}

async fn connect_and_serve(
    context: &mut SessionContext,
    welcomed_at: &mut Option<Instant>,
) -> Ended {
    let attempt = timeout(context.connect_timeout, connect(context)).await;
    let mut session = match attempt {
        Ok(Ok(session)) => session,
        Ok(Err(ended)) => return ended,
        Err(_) => {
            return failed(format!(
                "no answer from {} within {:?}",
                context.server, context.connect_timeout
            ));
        }
    };
    *welcomed_at = Some(Instant::now());
    // Outside the timeout: a slow disk is no reason to connect again.
    let (reply, done) = oneshot::channel();
    let command = StoreCommand::Resume {
        resume: std::mem::take(&mut session.welcome.resume),
        quic_streams_max: session.welcome.quic_streams_max,
        reply,
    };
    if context.store.send(command).await.is_err() || done.await.is_err() {
        return failed("the client is closing");
    }
    context
        .shared
        .update(|state| state.connection = Connection::Connected);
    context.shared.report([ClientEvent::Connected {
        session: session.welcome.session.get(),
        server: std::mem::take(&mut session.welcome.server),
    }]);
    serve(context, &mut session).await
}

async fn connect(context: &SessionContext) -> Result<Welcomed, Ended> {
    let address = resolve(&context.server).await.map_err(failed)?;
    let connection = context
        .endpoint
        .connect_with(context.config.clone(), address, &context.server_name)
        .map_err(|error| failed(format!("cannot connect to {}: {error}", context.server)))?
        .await
        .map_err(|error| ended_by(&error))?;
    let (mut control_out, mut control) = connection
        .open_bi()
        .await
        .map_err(|error| ended_by(&error))?;
    let last_acks = context.shared.lock().queue.resume_questions(LAST_ACKS_MAX);
    let mut conversation = ClientConversation::new(ClientHello {
        instance: context.instance,
        token: context
            .token
            .as_ref()
            .map(|token| (token.device.clone(), token.secret.clone())),
        client: context.software.clone(),
        last_acks,
    });
    while let Some(bytes) = conversation.poll_transmit() {
        if control_out.write_all(&bytes).await.is_err() {
            return Err(closed_reason(&connection).await);
        }
    }
    loop {
        match conversation.poll_event() {
            Some(ServerMessage::Welcome {
                limits,
                resume,
                session,
                server,
            }) => {
                let quic_streams_max = limits.quic_streams as usize;
                return Ok(Welcomed {
                    connection,
                    conversation,
                    control,
                    _control_out: control_out,
                    welcome: Welcome {
                        resume,
                        quic_streams_max,
                        session,
                        server,
                    },
                });
            }
            Some(message) => {
                if let Some(ended) = ending(&connection, message) {
                    return Err(ended);
                }
            }
            None => match control.read_chunk(CHUNK_BYTES, true).await {
                Ok(Some(chunk)) => conversation.handle_bytes(chunk.bytes),
                Ok(None) | Err(_) => return Err(closed_reason(&connection).await),
            },
        }
    }
}

/// What a message that ends the connection means; it is closed here where the server is at fault.
fn ending(connection: &QuicConnection, message: ServerMessage) -> Option<Ended> {
    match message {
        ServerMessage::Bye {
            code,
            message,
            reconnect_after,
        } => Some(Ended {
            reason: by_server(code.ok(), message),
            retry_after: Duration::from_millis(u64::from(reconnect_after)),
        }),
        ServerMessage::Closed(close) => {
            connection.close(
                VarInt::from_u32(close.code.number()),
                close.reason.as_bytes(),
            );
            Some(failed(format!(
                "the server broke the protocol: {}",
                close.reason
            )))
        }
        _ => None,
    }
}

fn by_server(code: Option<ConnectionCloseCode>, reason: String) -> Disconnect {
    match code {
        Some(ConnectionCloseCode::Replaced) => Disconnect::Replaced,
        code => Disconnect::ByServer { code, reason },
    }
}

fn ended_by(error: &ConnectionError) -> Ended {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).ok();
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            by_server(code.and_then(ConnectionCloseCode::from_number), reason).into()
        }
        ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code) {
            Some(alert) => Disconnect::Tls { alert, own: None }.into(),
            None => failed(format!("the connection failed: {error}")),
        },
        ConnectionError::TransportError(failure) => match tls_alert(failure.code) {
            Some(alert) => Disconnect::Tls {
                alert,
                own: Some(failure.reason.clone()),
            }
            .into(),
            None => failed(format!("the connection failed: {error}")),
        },
        other => failed(format!("the connection failed: {other}")),
    }
}

/// The TLS alert that a QUIC error code stands for, RFC 9001 section 4.8.
fn tls_alert(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (code & !0xff == 0x100).then_some((code & 0xff) as u8)
}

/// A QUIC stream failed because the connection did, or should: why?
async fn closed_reason(connection: &QuicConnection) -> Ended {
    match timeout(Duration::from_secs(1), connection.closed()).await {
        Ok(error) => ended_by(&error),
        Err(_) => {
            let close = ConnectionCloseCode::ProtocolViolation;
            connection.close(
                VarInt::from_u32(close.number()),
                b"the control stream ended before the connection",
            );
            failed("the server ended the control stream")
        }
    }
}

async fn serve(context: &mut SessionContext, session: &mut Welcomed) -> Ended {
    let mut lanes = JoinSet::new();
    let mut lane_count = 0;
    let mut bell = context.shared.bell();
    loop {
        let known = context.shared.lock().queue.lanes.len();
        for index in lane_count..known {
            lanes.spawn(sender::run(LaneTask {
                index,
                shared: Arc::clone(&context.shared),
                connection: session.connection.clone(),
                directory: context.directory.clone(),
            }));
        }
        lane_count = known;
        let chunk = tokio::select! {
            biased;
            chunk = session.control.read_chunk(CHUNK_BYTES, true) => chunk,
            () = bell.changed() => continue,
        };
        let Ok(Some(chunk)) = chunk else {
            session.conversation.handle_end();
            return closed_reason(&session.connection).await;
        };
        session.conversation.handle_bytes(chunk.bytes);
        while let Some(message) = session.conversation.poll_event() {
            if let Err(ended) = handle(context, &session.connection, message).await {
                return ended;
            }
        }
    }
}

async fn handle(
    context: &SessionContext,
    connection: &QuicConnection,
    message: ServerMessage,
) -> Result<(), Ended> {
    let shared = &context.shared;
    match message {
        ServerMessage::Ack {
            producer,
            stream,
            sequence,
            refused_rows,
        } => {
            let acked = shared.update(|state| {
                state
                    .queue
                    .on_ack(producer, &stream, sequence.get(), &refused_rows)
            });
            let event = acked.map_err(|error| {
                let close = ConnectionCloseCode::ProtocolViolation;
                connection.close(
                    VarInt::from_u32(close.number()),
                    error.to_string().as_bytes(),
                );
                failed(error.to_string())
            })?;
            shared.report(event);
            // When the mailbox is full, a later Ack trims.
            let _later = context.store.try_send(StoreCommand::Trim);
        }
        ServerMessage::Reject {
            producer,
            stream,
            sequence,
            code,
            message,
        } => {
            let event = shared.update(|state| {
                state
                    .queue
                    .on_reject(producer, &stream, sequence.get(), code, message)
            });
            shared.report(event);
        }
        ServerMessage::StreamClosed {
            quic_stream,
            next_sequence,
            code,
            retry_after,
            message,
            ..
        } => {
            let closed = StreamClosed {
                quic_stream,
                next_sequence: next_sequence.get(),
                code: code.map_or_else(|number| number, quiver_protocol::StreamCloseCode::number),
                retry_after: Duration::from_millis(u64::from(retry_after)),
                message,
            };
            let (plan, event) =
                shared.update(|state| state.queue.on_stream_closed(closed, Instant::now()));
            shared.report(event);
            if let Some(plan) = plan
                && context
                    .store
                    .send(StoreCommand::Renumber(plan))
                    .await
                    .is_err()
            {
                return Err(failed("the client is closing"));
            }
        }
        // A conversation gives Welcome once, before this loop.
        ServerMessage::Welcome { .. } => {}
        ending_message => {
            if let Some(ended) = ending(connection, ending_message) {
                return Err(ended);
            }
        }
    }
    Ok(())
}
