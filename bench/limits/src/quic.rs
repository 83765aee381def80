//! QUIC alone: what a server receives that only counts.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Connection, Endpoint};
use quiver_bench_kernels::data::FIELDS;

use crate::{
    Fault,
    endpoint::{Generator, Server, datagrams, runtime},
    measure::{Row, Stretch, cpu_seconds, now},
    options::{Codec, Options, Scenario},
};

/// Most bytes taken from a QUIC stream at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of an answer.
const ANSWER_BYTES: usize = 32;
/// How long a generator may take until its first message arrives.
const START_MAX: Duration = Duration::from_secs(300);
/// How long is waited for anything at all in a measurement.
const LONGEST: Duration = Duration::from_secs(60);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Sink {
    bytes: AtomicU64,
    connections: Mutex<Vec<Connection>>,
}

impl Sink {
    fn connections(&self) -> Vec<Connection> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Receives a scenario's messages and drops them.
pub fn transfer(
    scenario: &Scenario,
    options: &Options,
    results: &mut Vec<Row>,
) -> Result<(), Fault> {
    let message = mean_message(scenario)?;
    let received = receive(scenario, options, options.messages, Kind::Stream)?;
    let points = (received.bytes as f64 / message * (scenario.rows * FIELDS) as f64) as u64;
    results.push(received.row(scenario, "quic", points));
    Ok(())
}

/// Receives rows that come one in a packet, and answers each if that is asked for.
pub fn packets(options: &Options, results: &mut Vec<Row>) -> Result<(), Fault> {
    let codec = options.compression.unwrap_or(Codec::Compact);
    let scenario = Scenario {
        name: format!("many-small/{}", codec.name()),
        rows: 1,
        codec,
        connections: options.packet_connections.max(1),
        devices: 1,
        devices_per_batch: 1,
        duration: options.duration(),
    };
    let message = mean_message(&scenario)?;
    let (kind, stage) = if options.answered {
        (Kind::Answered, "quic, a row a packet, answered")
    } else {
        (Kind::Packets, "quic, a row a packet")
    };
    let received = receive(&scenario, options, options.messages, kind)?;
    let rows = received.bytes as f64 / message;
    let row = received
        .row(&scenario, stage, (rows * FIELDS as f64) as u64)
        .note(
            "packets/s",
            received.datagrams as f64 / received.taken.seconds,
        )
        .note("rows/s", rows / received.taken.seconds)
        .note("rows/packet", rows / received.datagrams.max(1) as f64)
        .note("bytes/row", message);
    results.push(row);
    Ok(())
}

fn mean_message(scenario: &Scenario) -> Result<f64, Fault> {
    let mut source = scenario.source(0)?;
    let mut encoder = source.encoder(scenario.codec.compression())?;
    let mut bytes = 0;
    let messages = 16;
    for _ in 0..messages {
        bytes += encoder.encode(&source.batch(scenario.rows)?)?.len();
    }
    Ok(bytes as f64 / f64::from(messages))
}

/// What comes, and what is done about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As much as fits into packets.
    Stream,
    /// A message a packet.
    Packets,
    /// A message a packet, and an answer as long as an `Ack` to each.
    Answered,
}

struct Received {
    taken: crate::measure::Taken,
    bytes: u64,
    datagrams: u64,
    generator_cpu: f64,
}

impl Received {
    fn row(&self, scenario: &Scenario, stage: &str, points: u64) -> Row {
        let mut row = Row::of(&scenario.name, stage, self.taken, points, self.bytes);
        row.generator_cpu_per_million =
            (points > 0).then(|| self.generator_cpu / (points as f64 / 1e6));
        row.note("connections", scenario.connections as f64)
    }
}

fn receive(
    scenario: &Scenario,
    options: &Options,
    ready: usize,
    kind: Kind,
) -> Result<Received, Fault> {
    runtime("limits-quic")?.block_on(async {
        let server = Server::start()?;
        let sink = Arc::new(Sink::default());
        tokio::spawn(accept(server.endpoint.clone(), sink.clone(), kind));
        let mut generator = server.generator(scenario, ready, kind != Kind::Stream)?;
        started(&mut generator, || {
            sink.connections().len() >= scenario.connections
                && sink.bytes.load(Ordering::Relaxed) > 0
        })
        .await?;
        tokio::time::sleep(options.warm_up()).await;

        let bytes = sink.bytes.load(Ordering::Relaxed);
        let packets = datagrams(&sink.connections());
        let cpu = cpu_seconds(Some(generator.id())).unwrap_or_default();
        let stretch = Stretch::begin();
        tokio::time::sleep(scenario.duration).await;
        // A stretch so short that nothing came in it would measure nothing.
        while sink.bytes.load(Ordering::Relaxed) == bytes && stretch.elapsed() < LONGEST {
            tokio::time::sleep(LOOK).await;
        }
        let received = Received {
            taken: stretch.end(),
            bytes: sink.bytes.load(Ordering::Relaxed) - bytes,
            datagrams: datagrams(&sink.connections()) - packets,
            generator_cpu: cpu_seconds(Some(generator.id())).unwrap_or_default() - cpu,
        };
        if generator.has_ended() {
            return Err("the generator ended before the measurement did".into());
        }
        server.endpoint.close(0_u32.into(), b"");
        Ok(received)
    })
}

/// Waits until the generator's first messages have come.
///
/// # Errors
/// If it ends, or takes too long.
pub async fn started(generator: &mut Generator, has_come: impl Fn() -> bool) -> Result<(), Fault> {
    let start = now();
    while !has_come() {
        if generator.has_ended() {
            return Err("the generator ended before it sent anything".into());
        }
        if start.elapsed() > START_MAX {
            return Err("the generator sent nothing for minutes".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn accept(endpoint: Endpoint, sink: Arc<Sink>, kind: Kind) {
    while let Some(incoming) = endpoint.accept().await {
        let sink = sink.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else {
                return;
            };
            sink.connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection.clone());
            let Ok(mut stream) = connection.accept_uni().await else {
                return;
            };
            let mut answers = None;
            if kind == Kind::Answered {
                answers = connection.open_uni().await.ok();
            }
            while let Ok(Some(chunk)) = stream.read_chunk(CHUNK_BYTES, true).await {
                sink.bytes
                    .fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                if let Some(answers) = &mut answers
                    && answers.write_all(&[0; ANSWER_BYTES]).await.is_err()
                {
                    return;
                }
            }
        });
    }
}
