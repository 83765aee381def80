//! A thread of the load generator: its sockets, connections and sources.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use quiver_model::{Clock, Entropy, OsEntropy, Producer, StreamName};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::LocalSet,
    time::timeout,
};

use super::{
    connection::{self, Peer},
    context::{Context, Phase, Signal},
    lane::Lane,
    source::Source,
};
use crate::{
    error::BenchError,
    pacer::Inbox,
    record::{Recorder, record},
    scenario::Scenario,
    values::Generator,
};

/// Bytes that may wait to be read from a socket.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A source that a connection is to have.
pub(crate) struct SourcePlan {
    pub stream: StreamName,
    /// Which of its connection's streams it is.
    pub stream_index: usize,
    pub generator: Generator,
}

/// A connection that a worker is to make.
pub(crate) struct ConnectionPlan {
    pub config: quinn::ClientConfig,
    /// When to connect first, from the start of the worker.
    pub delay: Duration,
    pub sources: Vec<SourcePlan>,
}

/// All that a worker needs.
pub(crate) struct WorkerPlan {
    pub scenario: Arc<Scenario>,
    pub clock: Arc<dyn Clock>,
    pub signal: watch::Receiver<Signal>,
    pub recorder: Arc<Recorder>,
    pub inbox: Arc<Inbox>,
    pub server: SocketAddr,
    pub server_name: String,
    /// UDP sockets of this worker, at least one.
    pub sockets: usize,
    pub connections: Vec<ConnectionPlan>,
}

/// What a worker has to say at the end.
#[derive(Debug, Default)]
pub(crate) struct WorkerResult {
    /// Acknowledged rows by device.
    pub tally: HashMap<u32, u64>,
    /// Rows that were sent and not acknowledged: they may be stored or not.
    pub unsettled_rows: u64,
    /// Arrivals that were due and never sent.
    pub unsent: u64,
}

/// Runs a worker until the phase is [`Phase::Stop`].
pub(crate) fn run_worker(plan: WorkerPlan) -> Result<WorkerResult, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| BenchError::Io(format!("cannot start a runtime: {error}")))?;
    LocalSet::new().block_on(&runtime, work(plan))
}

async fn work(plan: WorkerPlan) -> Result<WorkerResult, BenchError> {
    let context = Rc::new(Context {
        scenario: plan.scenario,
        clock: plan.clock,
        entropy: OsEntropy,
        signal: plan.signal,
        recorder: plan.recorder,
        encoders: RefCell::default(),
        tally: RefCell::default(),
        is_closed: Cell::default(),
        turn: Semaphore::new(1),
        spent: Cell::default(),
    });
    let mut endpoints = Vec::new();
    for _ in 0..plan.sockets.max(1) {
        endpoints.push(endpoint(plan.server)?);
    }
    for endpoint in &endpoints {
        tokio::task::spawn_local(rebind(context.clone(), endpoint.clone(), plan.server));
    }
    let mut all: Vec<Rc<Source>> = Vec::new();
    let mut connections = tokio::task::JoinSet::new();
    for (index, connection) in plan.connections.into_iter().enumerate() {
        let sources: Vec<Rc<Source>> = connection
            .sources
            .into_iter()
            .map(|planned| Rc::new(source(&context, planned)))
            .collect();
        all.extend(sources.iter().cloned());
        let Some(endpoint) = endpoints.get(index % endpoints.len().max(1)) else {
            continue;
        };
        let peer = Peer {
            endpoint: endpoint.clone(),
            config: connection.config,
            server: plan.server,
            server_name: plan.server_name.clone(),
            instance: context.entropy.next_u64(),
            sources,
        };
        connections.spawn_local(connection::run(peer, context.clone(), connection.delay));
    }
    let mut signal = context.signal.clone();
    let hand_out = async {
        loop {
            for due in plan.inbox.take().await {
                if let Some(source) = all.get(due.source) {
                    source.lane.borrow_mut().queue.push_back(due.at);
                    source.bell.notify_one();
                    let mut recording = context.recorder.lock();
                    recording.counts.offered += 1;
                    recording.counts.offered_rows += u64::from(context.scenario.rows);
                }
            }
        }
    };
    let follow = async {
        // An error means that the sampler is gone.
        while signal.changed().await.is_ok() {
            for source in &all {
                source.bell.notify_one();
            }
            if signal.borrow().phase == Phase::Stop {
                return;
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = hand_out => {}
    }
    let result = remains(&context, &all);
    let goodbyes = async { while connections.join_next().await.is_some() {} };
    // Connections say goodbye; whoever cannot has lost its server.
    let _ = timeout(Duration::from_secs(2), goodbyes).await;
    for endpoint in &endpoints {
        let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    }
    Ok(result)
}

fn source(context: &Context, planned: SourcePlan) -> Source {
    let producer = Producer(context.entropy.next_u64());
    let keeps = context.scenario.duplicates.0 > 0.0;
    let now_us = context.clock.wall().as_micros();
    let source = Source {
        lane: RefCell::new(Lane::new(planned.stream, producer, keeps)),
        stream: planned.stream_index,
        bell: Notify::new(),
        generator: RefCell::new(planned.generator),
        random: RefCell::new(SmallRng::seed_from_u64(producer.get())),
        prebuilt: RefCell::default(),
        next_prebuilt: Cell::new(0),
        last_us: Cell::new(now_us - 1_000_000),
    };
    source.prebuild(context, now_us);
    source
}

/// What is not settled when everything ends. It waited at least until now, and counts so.
fn remains(context: &Context, sources: &[Rc<Source>]) -> WorkerResult {
    let now = context.now();
    context.is_closed.set(true);
    let mut recording = context.recorder.lock();
    let mut result = WorkerResult {
        tally: context.tally.take(),
        ..WorkerResult::default()
    };
    for source in sources {
        let lane = source.lane.borrow();
        if lane.is_done() {
            continue;
        }
        let (unsettled, queue) = lane.remains();
        let mut due: Vec<Duration> = queue.iter().copied().collect();
        result.unsent += due.len() as u64;
        for batch in unsettled {
            result.unsettled_rows += batch.rows;
            due.extend(&batch.due);
        }
        for due in due.into_iter().filter(|due| context.is_measured(*due)) {
            record(&mut recording.latency, now.saturating_sub(due));
        }
    }
    result
}

fn bind(server: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match server.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Acknowledgements of thousands of connections; less is granted where the kernel's limit is.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(socket)
}

fn endpoint(server: SocketAddr) -> Result<Endpoint, BenchError> {
    let failed = |error: std::io::Error| {
        BenchError::Io(format!(
            "cannot open a UDP socket: {error}; fewer --sockets, or a higher ulimit -n, may help"
        ))
    };
    let socket = bind(server).map_err(failed)?;
    Endpoint::new(
        EndpointConfig::default(),
        None,
        socket,
        Arc::new(TokioRuntime),
    )
    .map_err(failed)
}

/// Gives the endpoint a new address each time it is due, while the load runs.
async fn rebind(context: Rc<Context>, endpoint: Endpoint, server: SocketAddr) {
    let every = context.scenario.rebind_every.0;
    if every.is_zero() {
        return;
    }
    // Not all sockets at the same moment.
    let part = (context.entropy.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    tokio::time::sleep(every.mul_f64(part)).await;
    loop {
        if context.phase() == Phase::Load {
            match bind(server).and_then(|socket| endpoint.rebind(socket)) {
                Ok(()) => context.recorder.lock().counts.rebinds += 1,
                Err(error) => context.note(format!("cannot change the address: {error}")),
            }
        }
        tokio::time::sleep(every).await;
    }
}
