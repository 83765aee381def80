//! The client that programs hold.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use quinn::{
    Endpoint, EndpointConfig, MtuDiscoveryConfig, TokioRuntime, congestion::CubicConfig,
    crypto::rustls::QuicClientConfig,
};
use quiver_model::{Producer, StreamName};
use quiver_protocol::{
    BatchEncoder, Compression,
    limits::{INITIAL_WINDOW_BYTES, UDP_PAYLOAD_MAX},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    ClientEvent, ClientOptions, ConnectError, FlushError, Linger, SendError, Settled, StartError,
    StreamError, Totals, Transport, WhenFull,
    gather::{self, Item, Rows, RowsHandle},
    queue::{LaneKey, LaneKind, Link, Queue, Window},
    session::{self, SessionContext},
    shared::{Admission, Connection, Shared, State},
    spool::Spool,
    store::{self, Append, Store, StoreCommand, spooled_bytes},
};

/// A connection that keeps silent this long is dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a silent connection says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A sender of telemetry. It connects by itself, and again when the connection is lost; batches go
/// through [`ClientStream`]s. Dropping it closes the connection at once; what is in its spool is
/// sent by the next one.
#[derive(Debug)]
pub struct Client {
    handle: Handle,
    shutdown: watch::Sender<bool>,
    session: JoinHandle<()>,
    store: JoinHandle<()>,
}

#[derive(Clone)]
struct Handle {
    shared: Arc<Shared>,
    store: mpsc::Sender<StoreCommand>,
    compression: Compression,
    when_full: WhenFull,
    has_spool: bool,
    linger: Linger,
    /// The tasks that gather rows.
    gatherers: Arc<std::sync::Mutex<Vec<mpsc::WeakSender<Item>>>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("has_spool", &self.has_spool)
            .finish_non_exhaustive()
    }
}

/// Where a client stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether there is a connection.
    pub connection: Connection,
    /// Batches that are queued and not settled.
    pub unsettled: usize,
    /// Bytes of the spool on disk; 0 without a spool.
    pub spool_bytes: u64,
    /// Why the spool takes nothing more, if so.
    pub spool_failure: Option<String>,
    /// How batches ended since the client was started.
    pub totals: Totals,
}

impl Client {
    /// Starts a client: opens its spool and begins to connect. It does not wait for the server;
    /// who wants to, calls [`Client::connected`].
    ///
    /// # Errors
    /// If the spool or the socket does not open, or the TLS configuration cannot be used.
    pub async fn connect(options: ClientOptions) -> Result<Self, StartError> {
        Self::start(options, Vec::new()).await
    }

    /// As [`Client::connect`], and asks the server at each connection where these producers stand.
    pub(crate) async fn start(
        options: ClientOptions,
        named: Vec<(StreamName, Producer, bool)>,
    ) -> Result<Self, StartError> {
        let mut queue = Queue::new(options.window);
        let new_instance = options
            .instance
            .unwrap_or_else(|| options.entropy.next_u64());
        let directory = options
            .spool
            .as_ref()
            .map(|spool| Arc::clone(&spool.directory));
        let when_full = options
            .spool
            .as_ref()
            .map_or(WhenFull::Wait, |spool| spool.when_full);
        let spool_max = options
            .spool
            .as_ref()
            .map(crate::SpoolOptions::effective_bytes_max);
        let (mut spool, mut events) = (None, Vec::new());
        if let Some(spool_options) = options.spool {
            let blocks = spool_options.directory.blocks();
            let open = move || {
                let opened = Spool::open(spool_options, new_instance, &mut queue);
                (opened, queue)
            };
            let (opened, restored) = if blocks {
                tokio::task::spawn_blocking(open)
                    .await
                    .map_err(|_| StartError::Spool(crate::SpoolError::Poisoned))?
            } else {
                open()
            };
            queue = restored;
            let (opened, found) = opened?;
            spool = Some(opened);
            events = found;
        }
        for (stream, producer, replayed) in named {
            let key = LaneKey {
                stream,
                kind: LaneKind::Named(producer),
            };
            queue.lane_or_new(&key, producer).replayed = replayed;
        }
        let instance = options
            .instance
            .or_else(|| spool.as_ref().map(Spool::instance))
            .unwrap_or(new_instance);
        let endpoint = endpoint(options.transport, &options.server)?;
        let config = quic_config(options.tls, options.window)?;

        let state = State {
            queue,
            admission: Admission {
                window: options.window,
                reserved: Window {
                    bytes: 0,
                    batches: 0,
                },
                spool_reserved: 0,
                spool_used: spool.as_ref().map_or(0, Spool::bytes),
                spool_max,
            },
            connection: Connection::Connecting,
            spool_failure: None,
            is_closing: false,
            quic_streams_max: None,
        };
        let has_spool = spool.is_some();
        let shared = Arc::new(Shared::new(state, options.observer, options.entropy));
        shared.report(events);
        let (store_sender, mailbox) = mpsc::channel(store::MAILBOX);
        let (shutdown, shut) = watch::channel(false);
        let store = Store::new(Arc::clone(&shared), spool, options.backlog_after);
        let store = tokio::spawn(store.run(mailbox));
        let session = tokio::spawn(session::run(SessionContext {
            shared: Arc::clone(&shared),
            store: store_sender.clone(),
            directory,
            endpoint,
            config,
            server: options.server,
            server_name: options.server_name,
            token: options.token,
            software: options.software,
            instance,
            connect_timeout: options.connect_timeout,
            backoff: options.backoff,
            shutdown: shut,
        }));
        let handle = Handle {
            shared,
            store: store_sender,
            compression: options.compression,
            when_full,
            has_spool,
            linger: options.linger,
            gatherers: Arc::default(),
        };
        Ok(Self {
            handle,
            shutdown,
            session,
            store,
        })
    }

    /// A stream to send batches to.
    ///
    /// # Errors
    /// If the name is not `[a-z][a-z0-9_]{0,62}`, or belongs to the engine.
    pub fn stream(&self, name: &str) -> Result<ClientStream, StreamError> {
        Ok(self.stream_of(StreamName::for_sender(name)?, None))
    }

    pub(crate) fn stream_of(&self, stream: StreamName, named: Option<Producer>) -> ClientStream {
        ClientStream {
            handle: self.handle.clone(),
            stream,
            named,
            encoder: Arc::new(Mutex::new(None)),
            gatherer: Arc::default(),
        }
    }

    /// Waits until the server has admitted this client.
    ///
    /// # Errors
    /// If the server refuses it for a reason that does not pass by itself (the client goes on
    /// trying), or the client is closed.
    pub async fn connected(&self) -> Result<(), ConnectError> {
        self.handle
            .shared
            .wait_for(|state| match &state.connection {
                Connection::Connected => Some(Ok(())),
                Connection::Disconnected(reason) if reason.is_refusal() => {
                    Some(Err(ConnectError::Refused(reason.clone())))
                }
                Connection::Closed => Some(Err(ConnectError::Closed)),
                Connection::Connecting | Connection::Disconnected(_) => None,
            })
            .await
    }

    /// Waits until everything that was queued before this call is settled: stored, or rejected and
    /// reported. With a spool that includes what earlier runs left in it. Waits through
    /// interruptions; wrap it in a timeout to bound it.
    ///
    /// # Errors
    /// If the server refuses a stream that has batches queued, the spool does not work, or the
    /// client is closed.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let shared = &self.handle.shared;
        tokio::select! {
            biased;
            () = self.handle.send_gathered() => {}
            // Rows wait for room that there will not be.
            error = shared.wait_for(|state| why_not_settled(state)) => return Err(error),
        }
        let target = shared.lock().queue.next_id();
        shared
            .wait_for(|state| {
                if state.queue.is_settled_below(target) {
                    return Some(Ok(()));
                }
                why_not_settled(state).map(Err)
            })
            .await
    }

    /// Where the client stands now.
    pub fn status(&self) -> Status {
        let state = self.handle.shared.lock();
        Status {
            connection: state.connection.clone(),
            unsettled: state.queue.unsettled_count(),
            spool_bytes: state.admission.spool_used,
            spool_failure: state.spool_failure.clone(),
            totals: state.queue.totals(),
        }
    }

    /// Waits until the status is such that `ask` has an answer.
    pub async fn wait_for_status<T>(&self, mut ask: impl FnMut(&Status) -> Option<T>) -> T {
        let mut bell = self.handle.shared.bell();
        loop {
            if let Some(answer) = ask(&self.status()) {
                return answer;
            }
            bell.changed().await;
        }
    }

    /// Where a named producer stands, once the server has said so: the sequence to go on with.
    #[cfg_attr(
        not(feature = "file"),
        expect(dead_code, reason = "files are the ones who name their producers")
    )]
    pub(crate) async fn resumed_at(
        &self,
        stream: &StreamName,
        producer: Producer,
    ) -> Result<u64, FlushError> {
        let key = LaneKey {
            stream: stream.clone(),
            kind: LaneKind::Named(producer),
        };
        self.handle
            .shared
            .wait_for(|state| {
                let lane = state.queue.lane(&key)?;
                if let Link::Refused { code, message, .. } = &lane.link {
                    let (stream, code, message) = (key.stream.clone(), *code, message.clone());
                    return Some(Err(FlushError::StreamRefused {
                        stream,
                        code,
                        message,
                    }));
                }
                if lane.is_resumed {
                    return Some(Ok(lane.next_sequence));
                }
                (state.connection == Connection::Closed).then_some(Err(FlushError::Closed))
            })
            .await
    }

    /// Rows of a named producer's stored batches that the server refused one by one, of all times,
    /// by the number of the reason.
    #[cfg_attr(
        not(feature = "file"),
        expect(dead_code, reason = "files are the ones who name their producers")
    )]
    pub(crate) fn refused_rows(
        &self,
        stream: &StreamName,
        producer: Producer,
    ) -> BTreeMap<u32, u64> {
        let key = LaneKey {
            stream: stream.clone(),
            kind: LaneKind::Named(producer),
        };
        let state = self.handle.shared.lock();
        let lane = state.queue.lane(&key);
        lane.map(|lane| lane.refused_rows.clone())
            .unwrap_or_default()
    }

    /// Closes the connection and the spool, without waiting for what is not settled: call
    /// [`Client::flush`] before. Handles of such batches are told that the client is closed.
    pub async fn close(mut self) {
        self.handle.shared.update(|state| state.is_closing = true);
        // Nobody listens if the session is gone already.
        let _gone = self.shutdown.send(true);
        // A session that panicked is a session that ended.
        let _ended = (&mut self.session).await;
        let (reply, done) = oneshot::channel();
        if self
            .handle
            .store
            .send(StoreCommand::Close(reply))
            .await
            .is_ok()
        {
            let _gone = done.await;
        }
        let _ended = (&mut self.store).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.handle.shared.update(|state| state.is_closing = true);
        // The session closes the connection, and the storage task ends with its last sender.
        let _gone = self.shutdown.send(true);
    }
}

impl Handle {
    /// Waits until all rows that were handed over are queued.
    async fn send_gathered(&self) {
        let gatherers: Vec<mpsc::Sender<Item>> = {
            let mut gatherers = self
                .gatherers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            gatherers.retain(|gatherer| gatherer.strong_count() > 0);
            gatherers
                .iter()
                .filter_map(mpsc::WeakSender::upgrade)
                .collect()
        };
        for gatherer in gatherers {
            let (asked, done) = oneshot::channel();
            if gatherer.send(Item::Flush(asked)).await.is_ok() {
                // An end without an answer is an end too.
                let _ended = done.await;
            }
        }
    }
}

/// Why what is queued will not be settled, as things stand.
fn why_not_settled(state: &State) -> Option<FlushError> {
    if let Some((stream, code, message)) = state.queue.refused_lane() {
        let (stream, message) = (stream.clone(), message.to_owned());
        return Some(FlushError::StreamRefused {
            stream,
            code,
            message,
        });
    }
    if let Some(reason) = &state.spool_failure
        && state.queue.is_online()
        && state.queue.has_unassigned()
    {
        let reason = reason.clone();
        return Some(FlushError::Spool { reason });
    }
    (state.connection == Connection::Closed).then_some(FlushError::Closed)
}

fn endpoint(transport: Transport, server: &crate::ServerAddress) -> Result<Endpoint, StartError> {
    let runtime = Arc::new(TokioRuntime);
    match transport {
        Transport::Udp => {
            let is_v4 =
                matches!(server, crate::ServerAddress::Address(address) if address.is_ipv4());
            let any = if is_v4 { "0.0.0.0:0" } else { "[::]:0" };
            let bind = |address: &str| std::net::UdpSocket::bind(address);
            // A machine without IPv6 still reaches names that resolve to IPv4.
            let socket = bind(any)
                .or_else(|_| bind("0.0.0.0:0"))
                .map_err(StartError::Socket)?;
            Endpoint::new(EndpointConfig::default(), None, socket, runtime)
        }
        Transport::Socket { socket, config } => {
            Endpoint::new_with_abstract_socket(config, None, socket, runtime)
        }
    }
    .map_err(StartError::Socket)
}

fn quic_config(
    tls: rustls::ClientConfig,
    window: Window,
) -> Result<quinn::ClientConfig, StartError> {
    let crypto =
        QuicClientConfig::try_from(tls).map_err(|error| StartError::Tls(error.to_string()))?;
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_MAX);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = quinn::TransportConfig::default();
    transport
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        // The server opens no QUIC streams, and sends nothing but control messages.
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window((256_u32 * 1024).into())
        .receive_window((256_u32 * 1024).into())
        .send_window(window.bytes.clamp(64 * 1024, 4 * 1024 * 1024) as u64)
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// One stream of a client. Clones share it.
#[derive(Clone, Debug)]
pub struct ClientStream {
    handle: Handle,
    stream: StreamName,
    /// The producer whose batches the caller numbers.
    named: Option<Producer>,
    /// Of the schema used last. Its lock also keeps batches of one stream in order of `send`.
    encoder: Arc<Mutex<Option<Encoder>>>,
    /// The task that gathers rows, once there were any.
    gatherer: Arc<OnceLock<mpsc::Sender<Item>>>,
}

#[derive(Debug)]
struct Encoder {
    source: SchemaRef,
    encoder: BatchEncoder,
    schema: Bytes,
}

impl ClientStream {
    /// The stream's name.
    pub fn name(&self) -> &StreamName {
        &self.stream
    }

    /// Queues a batch. With a spool it is durable on this side when this returns. Waits while too
    /// much is queued (without a spool: while the window is full). The handle tells how the batch
    /// ended; it need not be awaited.
    ///
    /// Batches of one stream keep the order of their `send`s, except that what waited long for a
    /// connection may be overtaken by what is sent later.
    ///
    /// # Errors
    /// If the batch cannot be written, there is no room for it, or it could not be made durable.
    /// It is not queued then.
    pub async fn send(&self, batch: &RecordBatch) -> Result<BatchHandle, SendError> {
        self.queue(batch, None).await
    }

    /// Hands over rows, one or a few, to be sent together with others: what is handed over within
    /// [`ClientOptions::linger`] becomes one batch, in the order of the calls. Returns when they are
    /// handed over, not when they are durable on this side; waits while too many wait before them.
    /// The handle tells how their batch ended; [`Client::flush`] waits for all of them.
    ///
    /// Rows of different columns go into different batches. Rows and batches of [`ClientStream::send`]
    /// have no order between them.
    ///
    /// # Errors
    /// [`SendError::Empty`] without rows, [`SendError::Closed`]. That the batch cannot be queued is
    /// told to the handle, and to the observer.
    pub async fn send_rows(&self, rows: &RecordBatch) -> Result<RowsHandle, SendError> {
        if rows.num_rows() == 0 {
            return Err(SendError::Empty);
        }
        let (waiter, settled) = oneshot::channel();
        let item = Item::Rows(Rows {
            batch: rows.clone(),
            since: Instant::now(),
            waiter,
        });
        self.gatherer()
            .send(item)
            .await
            .map_err(|_| SendError::Closed)?;
        Ok(RowsHandle { settled })
    }

    fn gatherer(&self) -> &mpsc::Sender<Item> {
        self.gatherer.get_or_init(|| {
            let (sender, inbox) = mpsc::channel(gather::INBOX);
            // One that does not hold its own inbox open.
            let stream = Self {
                gatherer: Arc::default(),
                ..self.clone()
            };
            tokio::spawn(gather::run(stream, self.handle.linger, inbox));
            self.handle
                .gatherers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sender.downgrade());
            sender
        })
    }

    pub(crate) fn report(&self, event: ClientEvent) {
        self.handle.shared.report([event]);
    }

    /// As `send`, for a producer whose batches the caller numbers.
    #[cfg_attr(
        not(feature = "file"),
        expect(dead_code, reason = "files are the ones who name their producers")
    )]
    pub(crate) async fn send_numbered(
        &self,
        sequence: u64,
        batch: &RecordBatch,
    ) -> Result<BatchHandle, SendError> {
        self.queue(batch, Some(sequence)).await
    }

    async fn queue(
        &self,
        batch: &RecordBatch,
        sequence: Option<u64>,
    ) -> Result<BatchHandle, SendError> {
        if batch.num_rows() == 0 {
            return Err(SendError::Empty);
        }
        let rows = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
        let mut encoder = self.encoder.lock().await;
        let (schema, body) = encode(&mut encoder, batch, self.handle.compression)?;
        let is_spooled = self.handle.has_spool && self.named.is_none();
        let bytes = if is_spooled {
            spooled_bytes(&schema, &body)
        } else {
            body.len()
        };
        self.admit(bytes, is_spooled, sequence).await?;
        let (reply, queued) = oneshot::channel();
        let named = self.named.zip(sequence);
        let append = Append {
            stream: self.stream.clone(),
            named,
            rows,
            schema,
            body,
            admitted_bytes: bytes,
            reply,
        };
        let reservation = Reservation {
            handle: &self.handle,
            bytes,
            is_spooled,
            is_open: true,
        };
        let permit = self
            .handle
            .store
            .reserve()
            .await
            .map_err(|_| SendError::Closed)?;
        // From here on the storage task gives the room back.
        reservation.hand_over();
        permit.send(StoreCommand::Append(append));
        drop(encoder);
        let settled = queued.await.map_err(|_| SendError::Closed)??;
        Ok(BatchHandle { settled })
    }

    async fn admit(
        &self,
        bytes: usize,
        is_spooled: bool,
        sequence: Option<u64>,
    ) -> Result<(), SendError> {
        let refuses = is_spooled && self.handle.when_full == WhenFull::Refuse;
        self.handle
            .shared
            .wait_for(|state| {
                if state.is_closing || state.connection == Connection::Closed {
                    return Some(Err(SendError::Closed));
                }
                if let Some(limit) = state.quic_streams_max
                    && !state.queue.has_room_for_stream(&self.stream)
                {
                    return Some(Err(SendError::TooManyStreams {
                        stream: self.stream.clone(),
                        limit,
                    }));
                }
                if let (Some(producer), Some(sequence)) = (self.named, sequence) {
                    let key = LaneKey {
                        stream: self.stream.clone(),
                        kind: LaneKind::Named(producer),
                    };
                    let expected = state.queue.lane(&key).map_or(0, |lane| lane.next_sequence);
                    if sequence != expected {
                        return Some(Err(SendError::OutOfOrder { sequence, expected }));
                    }
                    if let Some(Link::Refused { message, .. }) =
                        state.queue.lane(&key).map(|lane| &lane.link)
                    {
                        return Some(Err(SendError::Refused {
                            stream: self.stream.clone(),
                            message: message.clone(),
                        }));
                    }
                }
                if state.try_admit(bytes, is_spooled) {
                    return Some(Ok(()));
                }
                refuses.then_some(Err(SendError::SpoolFull {
                    bytes: state.admission.spool_used + state.admission.spool_reserved,
                    bytes_max: state.admission.spool_max.unwrap_or(0),
                }))
            })
            .await
    }
}

fn encode(
    slot: &mut Option<Encoder>,
    batch: &RecordBatch,
    compression: Compression,
) -> Result<(Bytes, Bytes), SendError> {
    let is_same = slot.as_ref().is_some_and(|slot| {
        Arc::ptr_eq(&slot.source, batch.schema_ref()) || slot.source == *batch.schema_ref()
    });
    if !is_same {
        *slot = None;
    }
    let encoder = match slot {
        Some(encoder) => encoder,
        None => {
            let encoder = BatchEncoder::new(batch.schema_ref(), compression)?;
            let schema = encoder.schema_message()?;
            slot.insert(Encoder {
                source: Arc::clone(batch.schema_ref()),
                encoder,
                schema,
            })
        }
    };
    Ok((encoder.schema.clone(), encoder.encoder.encode(batch)?))
}

/// Room that was admitted; given back if the caller goes away before the batch is handed over.
struct Reservation<'a> {
    handle: &'a Handle,
    bytes: usize,
    is_spooled: bool,
    is_open: bool,
}

impl Reservation<'_> {
    fn hand_over(mut self) {
        self.is_open = false;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.handle
                .shared
                .update(|state| state.release(self.bytes, self.is_spooled));
        }
    }
}

/// A queued batch. Await it to learn how the batch ended; dropping it changes nothing.
#[derive(Debug)]
#[must_use = "await it to learn how the batch ended, or drop it on purpose"]
pub struct BatchHandle {
    settled: oneshot::Receiver<Settled>,
}

/// The client was closed before the batch was settled. If it was spooled, the next client sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the client was closed before the batch was settled; if it was spooled, the next client sends it"
)]
pub struct Abandoned;

impl Future for BatchHandle {
    type Output = Result<Settled, Abandoned>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.settled)
            .poll(context)
            .map(|settled| settled.map_err(|_| Abandoned))
    }
}
