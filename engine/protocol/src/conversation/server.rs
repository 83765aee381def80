//! The server's side of the control stream.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use quiver_model::{
    BatchRefusal, DeviceId, Producer, RefusedRows, SenderId, Sequence, SessionId, StreamName,
};

use super::ProducerStream;
use crate::{
    codes::{ConnectionClose, ConnectionCloseCode, StreamCloseCode},
    control::{ControlDecoder, encode_message},
    limits::{
        LAST_ACKS_MAX, Limits, MESSAGE_TEXT_BYTES_MAX, PROTOCOL_VERSION, RESUME_REFUSED_ROWS_MAX,
        RESUME_REJECTS_MAX, RESUME_TEXT_BYTES_MAX, SOFTWARE_BYTES_MAX, TOKEN_BYTES_MAX, cut,
    },
    message::{self, ClientMessage, ServerMessage, client_message, server_message},
};

/// Most bytes of messages that wait to be sent before the caller should stop reading telemetry.
const OUTGOING_BYTES_HIGH: usize = 256 * 1024;

/// What the server admits.
#[derive(Clone, Debug, Default)]
pub struct ServerRules {
    /// Whether a bearer token may stand in for a certificate.
    pub tokens_allowed: bool,
}

/// What proves the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The client certificate of the connection.
    Certificate(SenderId),
    /// A token, whose subject must be `device_id`. The caller checks it.
    Token {
        /// The device that the client says it is.
        device_id: DeviceId,
        /// The token as sent.
        token: String,
    },
}

/// A checked `Hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloReceived {
    /// What proves the identity.
    pub credential: Credential,
    /// Random number of the client's installation.
    pub instance: u64,
    /// Name and version of the client's software.
    pub client: String,
    /// The pairs that the client wants to resume, each with the sequence after its last Ack.
    pub last_acks: Vec<(ProducerStream, Sequence)>,
}

/// What the caller has to act upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The client introduced itself; answer with [`ServerConversation::welcome`], or close.
    Hello(HelloReceived),
    /// The client ended the control stream: it is done. Close with `OK` once all is settled.
    Finished,
    /// The client broke the protocol: close the connection. Nothing follows.
    Closed(ConnectionClose),
}

/// What the server knows of one pair of `Hello.last_acks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairState {
    /// Durable batches; 0 for an unknown pair.
    pub next_sequence: Sequence,
    /// Whether the pair is known.
    pub known: bool,
    /// Rejects from the client's sequence on, oldest first.
    pub rejects: Vec<(Sequence, BatchRefusal)>,
    /// How many such rejects there are in all, listed or not.
    pub rejects_total: u64,
    /// Rows refused one by one, in all.
    pub refused_rows: RefusedRows,
}

/// An acknowledgement that has not left yet.
#[derive(Debug, Default)]
struct PendingAck {
    sequence: Sequence,
    refused_rows: RefusedRows,
}

fn counts(refused: &RefusedRows) -> Vec<message::RefusedRows> {
    refused
        .iter()
        .map(|(code, rows)| message::RefusedRows {
            code: u32::from(code.number()),
            rows,
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitHello,
    AwaitWelcome,
    Open,
    Finished,
    Closed,
}

/// The server's side of one connection's control stream.
#[derive(Debug)]
pub struct ServerConversation {
    decoder: ControlDecoder<ClientMessage>,
    certificate: Option<SenderId>,
    rules: ServerRules,
    state: State,
    events: VecDeque<ServerEvent>,
    asked: Vec<ProducerStream>,
    outgoing: BytesMut,
    /// Acknowledgements wait here and leave after everything else, so that a newer one replaces an
    /// older one and a `Reject` precedes the `Ack` that passes it.
    acks: BTreeMap<ProducerStream, PendingAck>,
    ignored_messages: u64,
}

impl ServerConversation {
    /// A conversation with the holder of `certificate`, or with nobody known yet.
    pub fn new(certificate: Option<SenderId>, rules: ServerRules) -> Self {
        Self {
            decoder: ControlDecoder::default(),
            certificate,
            rules,
            state: State::AwaitHello,
            events: VecDeque::new(),
            asked: Vec::new(),
            outgoing: BytesMut::new(),
            acks: BTreeMap::new(),
            ignored_messages: 0,
        }
    }

    /// Takes bytes of the control stream.
    pub fn handle_bytes(&mut self, bytes: Bytes) {
        if matches!(self.state, State::Finished | State::Closed) {
            return;
        }
        self.decoder.handle_bytes(bytes);
        loop {
            match self.decoder.poll_message() {
                Ok(None) => return,
                Ok(Some(message)) => {
                    if let Err(close) = self.handle_message(message) {
                        return self.close(close);
                    }
                }
                Err(error) => {
                    return self.close(ConnectionClose::violation(format!(
                        "control stream: {error}"
                    )));
                }
            }
        }
    }

    /// The client ended the control stream.
    pub fn handle_end(&mut self) {
        match self.state {
            State::Finished | State::Closed => {}
            State::AwaitHello => self.close(ConnectionClose::violation(
                "the control stream ended before Hello; keep it open for as long as the connection is used",
            )),
            State::AwaitWelcome | State::Open if self.decoder.is_at_boundary() => {
                self.state = State::Finished;
                self.events.push_back(ServerEvent::Finished);
            }
            State::AwaitWelcome | State::Open => {
                self.close(ConnectionClose::violation("the control stream ended inside a message"));
            }
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Bytes to write to the control stream.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.push_acks();
        (!self.outgoing.is_empty()).then(|| self.outgoing.split().freeze())
    }

    /// Whether so much waits to be sent that the caller should stop reading telemetry.
    pub fn is_congested(&self) -> bool {
        self.outgoing.len() >= OUTGOING_BYTES_HIGH
    }

    /// Messages that were ignored because this version does not know them.
    pub fn ignored_messages(&self) -> u64 {
        self.ignored_messages
    }

    /// Whether [`ServerConversation::welcome`] was called and the conversation goes on.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Finished)
    }

    /// Admits the client. `pairs` answers `last_acks` in its order; what is missing is unknown.
    /// Does nothing unless a Hello waits for its answer.
    pub fn welcome(
        &mut self,
        limits: Limits,
        session: SessionId,
        server: &str,
        pairs: Vec<PairState>,
    ) {
        if self.state != State::AwaitWelcome {
            return;
        }
        self.state = State::Open;
        let mut room = RESUME_REJECTS_MAX;
        let mut room_for_counts = RESUME_REFUSED_ROWS_MAX;
        let mut pairs = pairs.into_iter();
        let mut resume = Vec::with_capacity(self.asked.len());
        for (producer, stream) in std::mem::take(&mut self.asked) {
            let pair = pairs.next().unwrap_or_default();
            let listed = pair.rejects.len().min(room);
            room -= listed;
            let mut refused_rows = counts(&pair.refused_rows);
            if refused_rows.len() > room_for_counts {
                // Half a list would look like a whole one.
                refused_rows.clear();
            }
            room_for_counts -= refused_rows.len();
            resume.push(message::Resume {
                producer: producer.get(),
                stream: stream.as_str().to_owned(),
                next_sequence: pair.next_sequence.get(),
                known: pair.known,
                rejects_total: pair.rejects_total.max(pair.rejects.len() as u64),
                refused_rows,
                rejects: pair
                    .rejects
                    .into_iter()
                    .take(listed)
                    .map(|(sequence, refusal)| message::ResumeReject {
                        sequence: sequence.get(),
                        code: u32::from(refusal.code.number()),
                        message: cut(&refusal.message, RESUME_TEXT_BYTES_MAX),
                    })
                    .collect(),
            });
        }
        self.push(server_message::Message::Welcome(message::Welcome {
            limits: Some(limits),
            resume,
            session: session.get(),
            server: cut(server, SOFTWARE_BYTES_MAX),
        }));
    }

    /// Every batch of the pair up to and including `sequence` is settled; `refused_rows` of the
    /// pair's rows were refused one by one, in all. A later call for the same pair replaces an
    /// unsent one.
    pub fn ack(
        &mut self,
        producer: Producer,
        stream: &StreamName,
        sequence: Sequence,
        refused_rows: &RefusedRows,
    ) {
        if self.is_open() {
            let slot = self.acks.entry((producer, stream.clone())).or_default();
            slot.sequence = sequence.max(slot.sequence);
            if !refused_rows.is_empty() {
                slot.refused_rows = slot.refused_rows.latest(refused_rows);
            }
        }
    }

    /// One batch is refused for ever. Call it before the `ack` that passes `sequence`.
    pub fn reject(
        &mut self,
        producer: Producer,
        stream: &StreamName,
        sequence: Sequence,
        refusal: &BatchRefusal,
    ) {
        self.push_if_open(server_message::Message::Reject(message::Reject {
            producer: producer.get(),
            stream: stream.as_str().to_owned(),
            sequence: sequence.get(),
            code: u32::from(refusal.code.number()),
            message: cut(&refusal.message, MESSAGE_TEXT_BYTES_MAX),
        }));
    }

    /// The server closed the telemetry QUIC stream with id `quic_stream`. `pair` is `None` if its
    /// `OpenStream` could not be read. `retry_after` in milliseconds.
    pub fn stream_closed(
        &mut self,
        quic_stream: u64,
        pair: Option<(Producer, &StreamName)>,
        next_sequence: Sequence,
        code: StreamCloseCode,
        retry_after: u32,
        text: &str,
    ) {
        let (producer, stream) = pair.map_or((0, String::new()), |(producer, stream)| {
            (producer.get(), stream.as_str().to_owned())
        });
        self.push_if_open(server_message::Message::StreamClosed(
            message::StreamClosed {
                producer,
                stream,
                next_sequence: next_sequence.get(),
                code: code.number(),
                retry_after,
                message: cut(text, MESSAGE_TEXT_BYTES_MAX),
                quic_stream,
            },
        ));
    }

    /// Tells the client why the connection is about to be closed, and when to come back
    /// (milliseconds). Nothing is sent after it but acknowledgements that were already queued,
    /// which leave first.
    pub fn bye(&mut self, close: &ConnectionClose, reconnect_after: u32) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.push_acks();
        self.push(server_message::Message::Bye(message::Bye {
            code: close.code.number(),
            message: close.reason.clone(),
            reconnect_after,
        }));
        self.state = State::Closed;
    }

    fn push_acks(&mut self) {
        for ((producer, stream), ack) in std::mem::take(&mut self.acks) {
            self.push(server_message::Message::Ack(message::Ack {
                producer: producer.get(),
                stream: stream.as_str().to_owned(),
                sequence: ack.sequence.get(),
                refused_rows: counts(&ack.refused_rows),
            }));
        }
    }

    fn push_if_open(&mut self, message: server_message::Message) {
        if self.is_open() {
            self.push(message);
        }
    }

    fn push(&mut self, message: server_message::Message) {
        self.outgoing
            .extend_from_slice(&encode_message(&ServerMessage {
                message: Some(message),
            }));
    }

    fn close(&mut self, close: ConnectionClose) {
        self.state = State::Closed;
        self.events.push_back(ServerEvent::Closed(close));
    }

    fn handle_message(&mut self, message: ClientMessage) -> Result<(), ConnectionClose> {
        match (self.state, message.message) {
            (State::AwaitHello, Some(client_message::Message::Hello(hello))) => {
                let received = check_hello(hello, self.certificate.as_ref(), &self.rules)?;
                self.asked = received
                    .last_acks
                    .iter()
                    .map(|(pair, _)| pair.clone())
                    .collect();
                self.state = State::AwaitWelcome;
                self.events.push_back(ServerEvent::Hello(received));
                Ok(())
            }
            (State::AwaitHello, None) => Err(ConnectionClose::violation(
                "the first message on the control stream must be Hello",
            )),
            (_, Some(client_message::Message::Hello(_))) => {
                Err(ConnectionClose::violation("Hello may be sent once only"))
            }
            (_, None) => {
                self.ignored_messages += 1;
                Ok(())
            }
        }
    }
}

fn check_hello(
    hello: message::Hello,
    certificate: Option<&SenderId>,
    rules: &ServerRules,
) -> Result<HelloReceived, ConnectionClose> {
    if hello.protocol != PROTOCOL_VERSION {
        return Err(ConnectionClose::new(
            ConnectionCloseCode::UnsupportedVersion,
            format!(
                "Hello.protocol is {}; this server speaks {PROTOCOL_VERSION}",
                hello.protocol
            ),
        ));
    }
    at_most(
        "Hello.client",
        hello.client.len(),
        SOFTWARE_BYTES_MAX,
        "bytes",
    )?;
    at_most("Hello.token", hello.token.len(), TOKEN_BYTES_MAX, "bytes")?;
    at_most(
        "Hello.last_acks",
        hello.last_acks.len(),
        LAST_ACKS_MAX,
        "pairs",
    )?;
    let credential = check_identity(hello.device_id, hello.token, certificate, rules)?;
    let mut seen = HashSet::with_capacity(hello.last_acks.len());
    let mut last_acks = Vec::with_capacity(hello.last_acks.len());
    for (index, last_ack) in hello.last_acks.into_iter().enumerate() {
        let stream = StreamName::new(&last_ack.stream).map_err(|error| {
            ConnectionClose::violation(format!("Hello.last_acks[{index}]: {error}"))
        })?;
        let pair = (Producer(last_ack.producer), stream);
        if !seen.insert(pair.clone()) {
            return Err(ConnectionClose::violation(format!(
                "Hello.last_acks[{index}] names producer {} of stream {} a second time",
                pair.0, pair.1
            )));
        }
        last_acks.push((pair, Sequence(last_ack.next_sequence)));
    }
    Ok(HelloReceived {
        credential,
        instance: hello.instance,
        client: hello.client,
        last_acks,
    })
}

fn at_most(what: &str, size: usize, limit: usize, unit: &str) -> Result<(), ConnectionClose> {
    if size <= limit {
        return Ok(());
    }
    Err(ConnectionClose::new(
        ConnectionCloseCode::LimitExceeded,
        format!("{what} has {size} {unit}; at most {limit} are allowed"),
    ))
}

fn check_identity(
    device_id: String,
    token: String,
    certificate: Option<&SenderId>,
    rules: &ServerRules,
) -> Result<Credential, ConnectionClose> {
    let unauthenticated =
        |reason: String| ConnectionClose::new(ConnectionCloseCode::Unauthenticated, reason);
    match certificate {
        Some(_) if !token.is_empty() => {
            Err(unauthenticated("Hello.token and a client certificate exclude each other; use one".to_owned()))
        }
        Some(identity) if !device_id.is_empty() && device_id != identity.id.as_str() => {
            Err(unauthenticated(format!(
                "Hello.device_id is {:?}, but the certificate says {}; leave device_id empty",
                cut(&device_id, 128),
                identity.id
            )))
        }
        Some(identity) => Ok(Credential::Certificate(identity.clone())),
        None if token.is_empty() => Err(unauthenticated(
            "no identity: present a client certificate with one SAN URI urn:quiver:<kind>:<id>".to_owned(),
        )),
        None if !rules.tokens_allowed => Err(unauthenticated(
            "this server takes no tokens: present a client certificate with one SAN URI urn:quiver:<kind>:<id>"
                .to_owned(),
        )),
        None => {
            let device_id = DeviceId::new(&device_id)
                .map_err(|error| unauthenticated(format!("Hello.device_id: {error}")))?;
            Ok(Credential::Token { device_id, token })
        }
    }
}
