//! One connection after the other for the same identity: handshake, `Hello`, resuming, reading
//! acknowledgements, and coming back after it ended.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use quiver_model::{Entropy, Producer};
use quiver_protocol::{
    ClientConversation, ClientEvent, ClientHello, ConnectionCloseCode, Resumed, StreamCloseCode,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    context::{Context, Phase},
    source::Source,
};
use crate::record::record;

/// Longest time for a connection to be made and welcomed, as the SDK has it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause after a failed attempt, as the protocol asks of every client: whoever
/// comes back sooner keeps a server that is behind from ever catching up.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Most bytes of the control stream that are taken at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Who connects, and where to.
pub(crate) struct Peer {
    pub endpoint: Endpoint,
    pub config: quinn::ClientConfig,
    pub server: SocketAddr,
    pub server_name: String,
    pub instance: u64,
    pub sources: Vec<Rc<Source>>,
}

/// A connection on which `Hello` was answered.
struct Session {
    connection: Connection,
    conversation: ClientConversation,
    control: RecvStream,
    /// Held open: its end would say that the client is done.
    _control_out: SendStream,
    resume: Vec<Resumed>,
}

/// Why a session ended.
enum Ended {
    /// The harness wanted it.
    ByPlan,
    /// Everything ends.
    Stop,
    /// It was lost.
    Lost(String),
}

/// Connects after `delay` and keeps connected until everything stops.
pub(crate) async fn run(peer: Peer, context: Rc<Context>, delay: Duration) {
    let mut signal = context.signal.clone();
    let work = async {
        sleep(delay).await;
        let mut pause = PAUSE;
        let mut wished = context.clock.monotonic();
        loop {
            let attempt = timeout(CONNECT_TIMEOUT, connect(&peer)).await;
            let attempt = match attempt {
                Ok(Ok(session)) => Ok(session),
                Ok(Err(error)) => Err(error),
                Err(_) => Err("no answer to a connection attempt".to_owned()),
            };
            let session = match attempt {
                Ok(session) => session,
                Err(error) => {
                    failed(&context, &error);
                    sleep(jittered(&context, pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    continue;
                }
            };
            pause = PAUSE;
            let took = context.clock.monotonic().saturating_sub(wished);
            {
                let mut recording = context.recorder.lock();
                record(&mut recording.connect, took);
                recording.counts.connects += 1;
                recording.connected += 1;
            }
            let ended = serve(&peer, &context, session).await;
            context.recorder.lock().connected -= 1;
            for source in &peer.sources {
                source.lane.borrow_mut().reopen();
            }
            match ended {
                Ended::Stop => return,
                Ended::ByPlan => {}
                Ended::Lost(reason) => {
                    context.recorder.lock().counts.disconnects += 1;
                    context.note(format!("a connection was lost: {reason}"));
                    sleep(jittered(&context, PAUSE)).await;
                }
            }
            wished = context.clock.monotonic();
        }
    };
    tokio::select! {
        biased;
        () = work => {}
        // Only while not connected: a session ends by itself.
        _ = signal.wait_for(|signal| signal.phase == Phase::Stop) => {}
    }
}

fn failed(context: &Context, error: &str) {
    context.recorder.lock().counts.connect_failures += 1;
    context.note(format!("cannot connect: {error}"));
}

fn jittered(context: &Context, pause: Duration) -> Duration {
    let part = (context.entropy.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    pause.mul_f64(0.5 + part)
}

async fn connect(peer: &Peer) -> Result<Session, String> {
    let connection = peer
        .endpoint
        .connect_with(peer.config.clone(), peer.server, &peer.server_name)
        .map_err(|error| error.to_string())?
        .await
        .map_err(|error| error.to_string())?;
    let (mut out, mut control) = connection
        .open_bi()
        .await
        .map_err(|error| error.to_string())?;
    let last_acks = peer
        .sources
        .iter()
        .filter_map(|source| source.lane.borrow().last_ack())
        .collect();
    let mut conversation = ClientConversation::new(ClientHello {
        instance: peer.instance,
        token: None,
        client: concat!("quiver-bench/", env!("CARGO_PKG_VERSION")).to_owned(),
        last_acks,
    });
    while let Some(bytes) = conversation.poll_transmit() {
        out.write_all(&bytes)
            .await
            .map_err(|error| reason(&connection, &error))?;
    }
    loop {
        match conversation.poll_event() {
            Some(ClientEvent::Welcome { resume, .. }) => {
                return Ok(Session {
                    connection,
                    conversation,
                    control,
                    _control_out: out,
                    resume,
                });
            }
            Some(ClientEvent::Bye { message, .. }) => return Err(message),
            Some(ClientEvent::Closed(close)) => return Err(close.to_string()),
            Some(_) => {}
            None => match control.read_chunk(CHUNK_BYTES, true).await {
                Ok(Some(chunk)) => conversation.handle_bytes(chunk.bytes),
                Ok(None) => return Err("the server ended the control stream".to_owned()),
                Err(error) => return Err(reason(&connection, &error)),
            },
        }
    }
}

/// Why the connection is closed, or else what failed on it.
fn reason(connection: &Connection, error: &dyn std::fmt::Display) -> String {
    connection
        .close_reason()
        .map_or_else(|| error.to_string(), |reason| reason.to_string())
}

async fn serve(peer: &Peer, context: &Rc<Context>, mut session: Session) -> Ended {
    for resumed in std::mem::take(&mut session.resume) {
        resume(peer, context, &resumed);
    }
    let mut writers = JoinSet::new();
    for source in &peer.sources {
        source.lane.borrow_mut().reopen();
        let write = source
            .clone()
            .write(context.clone(), session.connection.clone());
        writers.spawn_local(write);
    }
    let mut signal = context.signal.clone();
    let ended = tokio::select! {
        ended = read(peer, context, &mut session) => ended,
        () = planned_end(context) => Ended::ByPlan,
        _ = signal.wait_for(|signal| signal.phase == Phase::Stop) => Ended::Stop,
    };
    let code = VarInt::from_u32(ConnectionCloseCode::Ok.number());
    session
        .connection
        .close(code, b"the load generator is done with this connection");
    ended
}

async fn read(peer: &Peer, context: &Rc<Context>, session: &mut Session) -> Ended {
    loop {
        while let Some(event) = session.conversation.poll_event() {
            if let Some(ended) = handle(peer, context, event) {
                return ended;
            }
        }
        match session.control.read_chunk(CHUNK_BYTES, true).await {
            Ok(Some(chunk)) => session.conversation.handle_bytes(chunk.bytes),
            Ok(None) => {
                let closed = timeout(Duration::from_secs(1), session.connection.closed()).await;
                return Ended::Lost(closed.map_or_else(
                    |_| "the server ended the control stream".to_owned(),
                    |reason| reason.to_string(),
                ));
            }
            Err(error) => return Ended::Lost(reason(&session.connection, &error)),
        }
    }
}

/// Waits until the scenario wants this connection dropped.
async fn planned_end(context: &Context) {
    let mut signal = context.signal.clone();
    // An error means that the sampler is gone, and then everything ends.
    let _ = signal
        .wait_for(|signal| signal.phase != Phase::Connecting)
        .await;
    let every = context.scenario.reconnect_every.0;
    let by_chance = async {
        if every.is_zero() {
            return std::future::pending().await;
        }
        let part = ((context.entropy.next_u64() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        sleep(every.mul_f64((-part.ln()).min(20.0))).await;
    };
    let storm = context.scenario.storm_every.0;
    let by_storm = async {
        if storm.is_zero() {
            return std::future::pending().await;
        }
        let storms = context.now().as_secs_f64() / storm.as_secs_f64();
        let next = storm.mul_f64(storms.floor() + 1.0);
        sleep(next.saturating_sub(context.now())).await;
    };
    tokio::select! {
        () = by_chance => {}
        () = by_storm => {}
    }
    if context.phase() != Phase::Load {
        // What is outstanding at the end is waited for in peace.
        std::future::pending::<()>().await;
    }
}

fn resume(peer: &Peer, context: &Context, resumed: &Resumed) {
    let Some(source) = find(peer, resumed.producer, resumed.stream.as_str()) else {
        return;
    };
    let mut lane = source.lane.borrow_mut();
    if !resumed.known {
        lane.renumber(Producer(context.entropy.next_u64()));
        return;
    }
    for reject in &resumed.rejects {
        lane.reject(reject.sequence.get());
    }
    let settled = lane.settle(resumed.next_sequence.get());
    drop(lane);
    context.settled(&settled);
    source.bell.notify_one();
}

fn find<'a>(peer: &'a Peer, producer: Producer, stream: &str) -> Option<&'a Rc<Source>> {
    peer.sources.iter().find(|source| {
        let lane = source.lane.borrow();
        lane.producer == producer && lane.stream.as_str() == stream
    })
}

/// Does what the server says; why the session ends, if it does.
fn handle(peer: &Peer, context: &Context, event: ClientEvent) -> Option<Ended> {
    match event {
        ClientEvent::Ack {
            producer,
            stream,
            sequence,
            ..
        } => {
            let source = find(peer, producer, stream.as_str())?;
            let settled = source.lane.borrow_mut().settle(sequence.get() + 1);
            context.settled(&settled);
            source.bell.notify_one();
        }
        ClientEvent::Reject {
            producer,
            stream,
            sequence,
            message,
            ..
        } => {
            context.note(format!("a batch was rejected: {message}"));
            let source = find(peer, producer, stream.as_str())?;
            source.lane.borrow_mut().reject(sequence.get());
        }
        ClientEvent::StreamClosed {
            quic_stream,
            next_sequence,
            code,
            retry_after,
            message,
            ..
        } => {
            let source = peer
                .sources
                .iter()
                .find(|source| source.lane.borrow().quic_stream == Some(quic_stream))?;
            context.recorder.lock().counts.streams_closed += 1;
            context.note(format!("a stream was closed: {message}"));
            closed(context, source, code, next_sequence.get(), retry_after);
        }
        ClientEvent::Welcome { .. } => {}
        ClientEvent::Bye { message, .. } => return Some(Ended::Lost(message)),
        ClientEvent::Closed(close) => return Some(Ended::Lost(close.to_string())),
    }
    None
}

fn closed(
    context: &Context,
    source: &Source,
    code: Result<StreamCloseCode, u32>,
    next_sequence: u64,
    retry_after: u32,
) {
    let mut lane = source.lane.borrow_mut();
    let mut settled = Vec::new();
    match code {
        Ok(StreamCloseCode::UnknownProducer) => {
            lane.renumber(Producer(context.entropy.next_u64()));
        }
        Ok(StreamCloseCode::BadOpen | StreamCloseCode::NotAllowed) => {
            lane.refused = true;
            lane.reopen();
        }
        _ => {
            settled = lane.settle(next_sequence);
            lane.reopen();
            lane.pause = Duration::from_millis(u64::from(retry_after));
        }
    }
    drop(lane);
    context.settled(&settled);
    source.bell.notify_one();
}
