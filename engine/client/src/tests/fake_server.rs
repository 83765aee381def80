//! A small scripted server over real QUIC on loopback: it remembers what it was sent, by
//! (producer, stream), and misbehaves when it is told to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_array::{Array, Float64Array, RecordBatch};
use quinn::{Endpoint, VarInt, crypto::rustls::QuicServerConfig};
use quiver_model::{
    BatchRefusal, Clock, OsEntropy, Producer, RefusedRows, RejectCode, SenderId, SenderKind,
    Sequence, SessionId, StreamName, SystemClock,
};
use quiver_pki::{
    ClientTls, DevelopmentCa, KeyKind, Request, ServerTls, Validity, default_server_names,
};
use quiver_protocol::{
    ConnectionCloseCode, Limits, OpenStream, PairState, ServerConversation, ServerEvent,
    ServerRules, StreamCloseCode, TelemetryDecoder, TelemetryEvent,
};
use tokio::sync::{mpsc, watch};

use crate::{BackoffOptions, ClientOptions};

type Pair = (Producer, StreamName);

/// What the server has of a pair.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// First value of column `value` of each batch, in order; `None` for a reject.
    pub batches: Vec<Option<f64>>,
    pub replayed: bool,
    pub lost: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
pub struct Script {
    /// Close the connection so, once, after this many more batches.
    pub close_connection_after: Option<(usize, ConnectionCloseCode)>,
    /// Close the telemetry QUIC stream so, once, after this many more batches, retryable after.
    pub close_stream_after: Option<(usize, StreamCloseCode, u32)>,
    /// Values that are refused.
    pub reject: BTreeSet<u64>,
    /// Neither Ack nor Reject leaves while this is so.
    pub hold_acks: bool,
    /// Refuse every stream so.
    pub refuse_streams: Option<StreamCloseCode>,
    /// QUIC streams that the server allows.
    pub quic_streams: Option<u32>,
    /// Connections and batches so far, duplicates included.
    pub sessions: u64,
    pub received: usize,
    pub opens: Vec<OpenStream>,
    pub instances: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub struct World {
    pub pairs: BTreeMap<Pair, Stored>,
    pub script: Script,
    connections: Vec<quinn::Connection>,
}

impl World {
    /// Where the newest connection comes from.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.connections
            .last()
            .map(quinn::Connection::remote_address)
    }
}

#[derive(Clone)]
pub struct FakeServer {
    pub address: SocketAddr,
    endpoint: Endpoint,
    pub world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    client_tls: rustls::ClientConfig,
    config: quinn::ServerConfig,
}

impl FakeServer {
    pub fn start() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let validity = Validity::starting_now(&*clock, Duration::from_secs(86_400));
        let ca = DevelopmentCa::generate(KeyKind::default(), validity, &OsEntropy).unwrap();
        let server = ca
            .issue(
                &Request::server(default_server_names(), validity),
                &OsEntropy,
            )
            .unwrap();
        let truck = SenderId::from_urn("urn:quiver:operator:tests").unwrap();
        let client = ca
            .issue(&Request::client(truck, validity), &OsEntropy)
            .unwrap();
        let tls =
            quiver_pki::rustls_server_config(ServerTls::new(server), Arc::clone(&clock)).unwrap();
        let client_tls = quiver_pki::rustls_client_config(ClientTls::new(client), clock).unwrap();
        let config =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let server = Self {
            address: endpoint.local_addr().unwrap(),
            endpoint,
            world: Arc::default(),
            changed: watch::Sender::new(0),
            client_tls,
            config,
        };
        tokio::spawn(server.clone().accept());
        server
    }

    pub fn options(&self) -> ClientOptions {
        let quick = BackoffOptions {
            first: Duration::from_millis(20),
            max: Duration::from_millis(200),
            reset_after: Duration::from_secs(10),
        };
        ClientOptions {
            backoff: quick,
            ..ClientOptions::new(self.address, "localhost", self.client_tls.clone())
        }
    }

    /// Ends all connections, and refuses new ones.
    pub fn stop(&self) {
        self.endpoint.set_server_config(None);
        let code = VarInt::from_u32(ConnectionCloseCode::ShuttingDown.number());
        for connection in self.with(|world| std::mem::take(&mut world.connections)) {
            connection.close(code, b"stopping");
        }
    }

    /// Takes connections again, knowing what it knew.
    pub fn restart(&self) {
        self.endpoint.set_server_config(Some(self.config.clone()));
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        let result = look(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Waits until the world is such that `ask` has an answer.
    pub async fn wait_for<T>(&self, mut ask: impl FnMut(&mut World) -> Option<T>) -> T {
        let mut bell = self.changed.subscribe();
        loop {
            if let Some(answer) =
                ask(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
            {
                return answer;
            }
            bell.changed().await.unwrap();
        }
    }

    /// Every stored value of a stream, over all its producers.
    pub fn values(&self, stream: &str) -> Vec<f64> {
        self.with(|world| {
            let of_stream = world
                .pairs
                .iter()
                .filter(|((_, name), _)| name.as_str() == stream);
            of_stream
                .flat_map(|(_, stored)| stored.batches.iter().flatten().copied())
                .collect()
        })
    }

    async fn accept(self) {
        while let Some(incoming) = self.endpoint.accept().await {
            let server = self.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    server.with(|world| world.connections.push(connection.clone()));
                    server.serve(connection).await;
                }
            });
        }
    }

    async fn serve(&self, connection: quinn::Connection) {
        let Ok((mut send, mut receive)) = connection.accept_bi().await else {
            return;
        };
        let sender = SenderId::from_urn("urn:quiver:operator:tests").unwrap();
        let mut conversation = ServerConversation::new(
            Some(sender),
            ServerRules {
                tokens_allowed: false,
            },
        );
        let (reports, mut inbox) = mpsc::channel::<Report>(64);
        let mut held: VecDeque<Report> = VecDeque::new();
        let mut bell = self.changed.subscribe();
        loop {
            while let Some(bytes) = conversation.poll_transmit() {
                if send.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                chunk = receive.read_chunk(4096, true) => match chunk {
                    Ok(Some(chunk)) => conversation.handle_bytes(chunk.bytes),
                    _ => return,
                },
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => {
                        tokio::spawn(self.clone().read(connection.clone(), stream, reports.clone()));
                    }
                    Err(_) => return,
                },
                Some(report) = inbox.recv() => held.push_back(report),
                _ = bell.changed() => {}
            }
            while let Some(event) = conversation.poll_event() {
                if let ServerEvent::Hello(hello) = event {
                    let (resume, limits, session) = self.with(|world| {
                        world.script.sessions += 1;
                        world.script.instances.insert(hello.instance);
                        let resume = hello
                            .last_acks
                            .iter()
                            .map(|(pair, next)| pair_state(world.pairs.get(pair), next.get()))
                            .collect();
                        let mut limits = Limits::for_sender(SenderKind::Operator);
                        limits.quic_streams =
                            world.script.quic_streams.unwrap_or(limits.quic_streams);
                        (resume, limits, world.script.sessions)
                    });
                    conversation.welcome(limits, SessionId(session), "fake", resume);
                }
            }
            let is_held = self
                .world
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .script
                .hold_acks;
            while !is_held && let Some(report) = held.pop_front() {
                match report {
                    Report::Ack((producer, stream), sequence) => conversation.ack(
                        producer,
                        &stream,
                        Sequence(sequence),
                        &RefusedRows::default(),
                    ),
                    Report::Reject((producer, stream), sequence) => {
                        conversation.reject(producer, &stream, Sequence(sequence), &refusal());
                        conversation.ack(
                            producer,
                            &stream,
                            Sequence(sequence),
                            &RefusedRows::default(),
                        );
                    }
                    Report::Closed {
                        quic_stream,
                        pair,
                        next,
                        code,
                        retry_after,
                    } => {
                        let pair = pair.as_ref().map(|(producer, stream)| (*producer, stream));
                        conversation.stream_closed(
                            quic_stream,
                            pair,
                            Sequence(next),
                            code,
                            retry_after,
                            "scripted",
                        );
                    }
                }
            }
        }
    }

    /// Reads one telemetry QUIC stream.
    async fn read(
        self,
        connection: quinn::Connection,
        mut stream: quinn::RecvStream,
        reports: mpsc::Sender<Report>,
    ) {
        let quic_stream = u64::from(VarInt::from(stream.id()));
        let mut decoder = TelemetryDecoder::default();
        let mut pair: Option<Pair> = None;
        let mut is_over = false;
        while !is_over {
            match stream.read_chunk(64 * 1024, true).await {
                Ok(Some(chunk)) => decoder.handle_bytes(chunk.bytes),
                _ => {
                    decoder.handle_end();
                    is_over = true;
                }
            }
            while let Some(event) = decoder.poll_event() {
                let mut out = Vec::new();
                let mut close = None;
                let mut close_connection = None;
                self.with(|world| match event {
                    TelemetryEvent::Open(open) => {
                        let key = (open.producer, open.stream.clone());
                        let known = world.pairs.contains_key(&key);
                        let stored = world.pairs.entry(key.clone()).or_default();
                        let next = stored.batches.len() as u64;
                        stored.replayed = open.replayed;
                        let first = open.first_sequence.get();
                        if let Some(code) = world.script.refuse_streams {
                            close = Some((code, next, 0));
                        } else if !known && first > 0 && open.lost_before.get() == 0 {
                            world.pairs.remove(&key);
                            close = Some((StreamCloseCode::UnknownProducer, 0, 0));
                        } else if first > next && open.lost_before.get() < first {
                            close = Some((StreamCloseCode::Gap, next, 0));
                        } else if first > next {
                            stored.lost.push((next, first));
                            stored.batches.resize(first as usize, None);
                        }
                        world.script.opens.push(open);
                        pair = Some(key);
                    }
                    TelemetryEvent::Batch(batch) => {
                        let Some(key) = pair.clone() else { return };
                        world.script.received += 1;
                        let stored = world.pairs.entry(key.clone()).or_default();
                        let (sequence, next) = (batch.sequence.get(), stored.batches.len() as u64);
                        let value = first_value(&batch.batch);
                        assert!(sequence <= next, "the session lets no gap pass");
                        if sequence < next {
                            let original = stored.batches[sequence as usize];
                            assert!(
                                original.is_none_or(|original| original == value),
                                "a sequence names fixed bytes"
                            );
                            out.push(Report::Ack(key, sequence));
                        } else if world.script.reject.contains(&(value as u64)) {
                            stored.batches.push(None);
                            out.push(Report::Reject(key, sequence));
                        } else {
                            stored.batches.push(Some(value));
                            out.push(Report::Ack(key, sequence));
                        }
                        let next = world
                            .pairs
                            .get(&pair.clone().unwrap())
                            .unwrap()
                            .batches
                            .len() as u64;
                        if let Some((left, code)) = &mut world.script.close_connection_after {
                            *left = left.saturating_sub(1);
                            if *left == 0 {
                                close_connection = Some(*code);
                                world.script.close_connection_after = None;
                            }
                        }
                        if let Some((left, code, retry_after)) =
                            &mut world.script.close_stream_after
                        {
                            *left = left.saturating_sub(1);
                            if *left == 0 {
                                close = Some((*code, next, *retry_after));
                                world.script.close_stream_after = None;
                            }
                        }
                    }
                    TelemetryEvent::Refused(refusal) => panic!("the client sent {refusal:?}"),
                    TelemetryEvent::BadBatch { refusal, .. } => {
                        panic!("the client sent {refusal:?}")
                    }
                    TelemetryEvent::Schema(_) | TelemetryEvent::Ended { .. } => {}
                });
                if let Some(code) = close_connection {
                    // What was stored is not acknowledged: the client learns it from Welcome.
                    connection.close(VarInt::from_u32(code.number()), b"scripted");
                    return;
                }
                for report in out {
                    if reports.send(report).await.is_err() {
                        return;
                    }
                }
                if let Some((code, next, retry_after)) = close {
                    let _gone = stream.stop(VarInt::from_u32(code.number()));
                    let _gone = reports
                        .send(Report::Closed {
                            quic_stream,
                            pair,
                            next,
                            code,
                            retry_after,
                        })
                        .await;
                    return;
                }
            }
        }
    }
}

enum Report {
    Ack(Pair, u64),
    Reject(Pair, u64),
    Closed {
        quic_stream: u64,
        pair: Option<Pair>,
        next: u64,
        code: StreamCloseCode,
        retry_after: u32,
    },
}

fn refusal() -> BatchRefusal {
    BatchRefusal::new(RejectCode::TypeConflict, "scripted")
}

fn pair_state(stored: Option<&Stored>, from: u64) -> PairState {
    let batches = stored.map_or(&[][..], |stored| &stored.batches);
    let rejects: Vec<_> = (0..)
        .zip(batches)
        .filter(|(sequence, batch)| *sequence >= from && batch.is_none())
        .map(|(sequence, _)| (Sequence(sequence), refusal()))
        .collect();
    PairState {
        next_sequence: Sequence(batches.len() as u64),
        known: stored.is_some(),
        rejects_total: rejects.len() as u64,
        rejects,
        refused_rows: RefusedRows::default(),
    }
}

fn first_value(batch: &RecordBatch) -> f64 {
    let column = batch.column_by_name("value").unwrap();
    let values = column.as_any().downcast_ref::<Float64Array>().unwrap();
    if values.is_null(0) {
        -1.0
    } else {
        values.value(0)
    }
}
