//! The client's side of the control stream.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use quiver_model::{DeviceId, Producer, Sequence, SessionId, StreamName};

use super::ProducerStream;
use crate::{
    codes::{ConnectionClose, ConnectionCloseCode, StreamCloseCode},
    control::{ControlDecoder, encode_message},
    limits::{LAST_ACKS_MAX, Limits, PROTOCOL_VERSION, SOFTWARE_BYTES_MAX, cut},
    message::{self, ClientMessage, ServerMessage, client_message, server_message},
};

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Random number of this installation, kept across connections.
    pub instance: u64,
    /// Device and bearer token, where no certificate is used.
    pub token: Option<(DeviceId, String)>,
    /// Name and version of the client's software.
    pub client: String,
    /// The pairs to resume, each with the sequence after its last Ack (0 if there was none). What
    /// exceeds 256 pairs is left out; such a pair is resumed by opening its stream.
    pub last_acks: Vec<(ProducerStream, Sequence)>,
}

/// What the server knows of a pair that was named in [`ClientHello::last_acks`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The producer.
    pub producer: Producer,
    /// The stream.
    pub stream: StreamName,
    /// Durable batches: the sequence to go on with. Everything before it is settled.
    pub next_sequence: Sequence,
    /// Whether the server knows the pair.
    pub known: bool,
    /// Rejects that the client may not have seen, oldest first.
    pub rejects: Vec<ResumedReject>,
    /// How many there are in all, listed or not.
    pub rejects_total: u64,
    /// Rows of settled batches that were refused one by one, as long as the server knows the pair.
    pub refused_rows: Vec<RefusedRowCount>,
}

/// Rows refused one by one for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedRowCount {
    /// Number of a [`RejectCode`](quiver_model::RejectCode), perhaps one that this version does not know.
    pub code: u32,
    /// How many, in all.
    pub rows: u64,
}

/// A reject repeated in `Welcome`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumedReject {
    /// The refused batch.
    pub sequence: Sequence,
    /// Number of a [`RejectCode`](quiver_model::RejectCode), perhaps one that this version does not know.
    pub code: u32,
    /// What is wrong, where, and how to mend it.
    pub message: String,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server admits the client.
    Welcome {
        /// What the client has to keep to.
        limits: Limits,
        /// What the server knows of the pairs that were named.
        resume: Vec<Resumed>,
        /// Number of this connection.
        session: SessionId,
        /// Name and version of the server's software.
        server: String,
    },
    /// Every batch of the pair up to and including `sequence` is settled.
    Ack {
        /// The producer.
        producer: Producer,
        /// The stream.
        stream: StreamName,
        /// The last settled batch.
        sequence: Sequence,
        /// Rows of settled batches that were refused one by one, as long as the server knows the
        /// pair.
        refused_rows: Vec<RefusedRowCount>,
    },
    /// One batch is refused for ever.
    Reject {
        /// The producer.
        producer: Producer,
        /// The stream.
        stream: StreamName,
        /// The refused batch.
        sequence: Sequence,
        /// Number of a [`RejectCode`](quiver_model::RejectCode), perhaps one that this version does not know.
        code: u32,
        /// What is wrong, where, and how to mend it.
        message: String,
    },
    /// The server closed a telemetry QUIC stream.
    StreamClosed {
        /// Id of the QUIC stream.
        quic_stream: u64,
        /// The pair; `None` if the server could not read `OpenStream`.
        pair: Option<ProducerStream>,
        /// Durable batches: the sequence to go on with.
        next_sequence: Sequence,
        /// Why. `Err` carries a number that this version does not know; from
        /// [`StreamCloseCode::RETRYABLE_FROM`] on such a code is retryable.
        code: Result<StreamCloseCode, u32>,
        /// Milliseconds to wait before opening the next one.
        retry_after: u32,
        /// What is wrong and how to mend it.
        message: String,
    },
    /// The server is about to close the connection.
    Bye {
        /// Why. `Err` carries a number that this version does not know.
        code: Result<ConnectionCloseCode, u32>,
        /// What is wrong and how to mend it.
        message: String,
        /// Milliseconds to wait before connecting again.
        reconnect_after: u32,
    },
    /// The server broke the protocol: close the connection. Nothing follows.
    Closed(ConnectionClose),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitWelcome,
    Open,
    Closed,
}

/// The client's side of one connection's control stream.
#[derive(Debug)]
pub struct ClientConversation {
    decoder: ControlDecoder<ServerMessage>,
    state: State,
    events: VecDeque<ClientEvent>,
    outgoing: BytesMut,
    ignored_messages: u64,
}

impl ClientConversation {
    /// A conversation that begins with `hello`.
    pub fn new(hello: ClientHello) -> Self {
        let (device_id, token) = hello.token.map_or_else(Default::default, |(id, token)| {
            (id.as_str().to_owned(), token)
        });
        let first = ClientMessage {
            message: Some(client_message::Message::Hello(message::Hello {
                protocol: PROTOCOL_VERSION,
                device_id,
                instance: hello.instance,
                token,
                client: cut(&hello.client, SOFTWARE_BYTES_MAX),
                last_acks: hello
                    .last_acks
                    .into_iter()
                    .take(LAST_ACKS_MAX)
                    .map(|((producer, stream), next)| message::LastAck {
                        producer: producer.get(),
                        stream: stream.as_str().to_owned(),
                        next_sequence: next.get(),
                    })
                    .collect(),
            })),
        };
        Self {
            decoder: ControlDecoder::default(),
            state: State::AwaitWelcome,
            events: VecDeque::new(),
            outgoing: BytesMut::from(encode_message(&first).as_ref()),
            ignored_messages: 0,
        }
    }

    /// Takes bytes of the control stream. Poll events until `None` afterwards.
    pub fn handle_bytes(&mut self, bytes: Bytes) {
        if self.state == State::Closed {
            return;
        }
        self.decoder.handle_bytes(bytes);
        loop {
            let message = match self.decoder.poll_message() {
                Ok(None) => return,
                Ok(Some(message)) => message.message,
                Err(error) => return self.close(format!("control stream: {error}")),
            };
            match message {
                None => self.ignored_messages += 1,
                Some(message) => match self.event(message) {
                    Ok(event) => self.events.push_back(event),
                    Err(reason) => return self.close(reason),
                },
            }
        }
    }

    /// The server ended the control stream, which it does only when the connection ends.
    pub fn handle_end(&mut self) {
        if self.state != State::Closed && !self.decoder.is_at_boundary() {
            self.close("the control stream ended inside a message".to_owned());
        }
        self.state = State::Closed;
    }

    /// What the server said, oldest first.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Bytes to write to the control stream.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        (!self.outgoing.is_empty()).then(|| self.outgoing.split().freeze())
    }

    /// Whether `Welcome` has come and the conversation goes on.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Messages that were ignored because this version does not know them.
    pub fn ignored_messages(&self) -> u64 {
        self.ignored_messages
    }

    fn close(&mut self, reason: String) {
        self.state = State::Closed;
        self.events
            .push_back(ClientEvent::Closed(ConnectionClose::violation(reason)));
    }

    fn event(&mut self, message: server_message::Message) -> Result<ClientEvent, String> {
        use server_message::Message;
        match (self.state, &message) {
            (State::AwaitWelcome, Message::Welcome(_)) => self.state = State::Open,
            // A server that will not have the client says so at once.
            (State::AwaitWelcome, Message::Bye(_)) => {}
            (State::AwaitWelcome, _) => {
                return Err("the server's first message must be Welcome or Bye".to_owned());
            }
            (_, Message::Welcome(_)) => return Err("Welcome may be sent once only".to_owned()),
            _ => {}
        }
        Ok(match message {
            Message::Welcome(welcome) => ClientEvent::Welcome {
                limits: welcome.limits.ok_or("Welcome has no limits")?,
                resume: welcome
                    .resume
                    .into_iter()
                    .map(resumed)
                    .collect::<Result<_, String>>()?,
                session: SessionId(welcome.session),
                server: welcome.server,
            },
            Message::Ack(ack) => ClientEvent::Ack {
                producer: Producer(ack.producer),
                stream: stream_name("Ack", &ack.stream)?,
                sequence: Sequence(ack.sequence),
                refused_rows: refused_rows(&ack.refused_rows),
            },
            Message::Reject(reject) => ClientEvent::Reject {
                producer: Producer(reject.producer),
                stream: stream_name("Reject", &reject.stream)?,
                sequence: Sequence(reject.sequence),
                code: reject.code,
                message: reject.message,
            },
            Message::StreamClosed(closed) => ClientEvent::StreamClosed {
                quic_stream: closed.quic_stream,
                pair: if closed.stream.is_empty() {
                    None
                } else {
                    Some((
                        Producer(closed.producer),
                        stream_name("StreamClosed", &closed.stream)?,
                    ))
                },
                next_sequence: Sequence(closed.next_sequence),
                code: StreamCloseCode::from_number(closed.code).ok_or(closed.code),
                retry_after: closed.retry_after,
                message: closed.message,
            },
            Message::Bye(bye) => ClientEvent::Bye {
                code: ConnectionCloseCode::from_number(bye.code).ok_or(bye.code),
                message: bye.message,
                reconnect_after: bye.reconnect_after,
            },
        })
    }
}

fn stream_name(whose: &str, name: &str) -> Result<StreamName, String> {
    StreamName::new(name).map_err(|error| format!("{whose}: {error}"))
}

/// A server has no more reasons than this; what exceeds it is not from one.
const REFUSED_CODES_MAX: usize = 64;

fn refused_rows(counts: &[message::RefusedRows]) -> Vec<RefusedRowCount> {
    counts
        .iter()
        .take(REFUSED_CODES_MAX)
        .map(|count| RefusedRowCount {
            code: count.code,
            rows: count.rows,
        })
        .collect()
}

fn resumed(resume: message::Resume) -> Result<Resumed, String> {
    Ok(Resumed {
        producer: Producer(resume.producer),
        stream: stream_name("Welcome.resume", &resume.stream)?,
        next_sequence: Sequence(resume.next_sequence),
        known: resume.known,
        rejects: resume
            .rejects
            .into_iter()
            .map(|reject| ResumedReject {
                sequence: Sequence(reject.sequence),
                code: reject.code,
                message: reject.message,
            })
            .collect(),
        rejects_total: resume.rejects_total,
        refused_rows: refused_rows(&resume.refused_rows),
    })
}
