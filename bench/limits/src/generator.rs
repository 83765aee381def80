//! The load generator: a process of its own that sends messages it has encoded before, on one
//! long-lived QUIC stream for each connection, as fast as they are taken.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use quiver_bench_kernels::data;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Fault,
    endpoint::{SERVER_NAME, client, runtime},
    options::{Generate, source},
};

/// Handshakes at a time.
const HANDSHAKES: usize = 64;
/// Most bytes of answers that are taken at a time.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// Packets that are on their way to a socket at a time, where each message has one of its own.
const LANES: usize = 64;
/// How often another task gets a turn before a message whose predecessor is not acknowledged counts
/// as held back.
const TURNS: u32 = 16;
/// How long is waited then.
const HELD_BACK: Duration = Duration::from_millis(1);

/// Sends until the server closes the connections.
pub fn run(generate: &Generate) -> Result<(), Fault> {
    // Before the first handshake: what is encoded while others send would be measured.
    let sources = (0..generate.connections as u64)
        .map(|number| messages(generate, number))
        .collect::<Result<Vec<_>, Fault>>()?;
    runtime("generator")?.block_on(async {
        let endpoint = client(&generate.credential)?;
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let mut connecting = JoinSet::new();
        for messages in sources {
            let connect = connect(endpoint.clone(), generate.server, handshakes.clone());
            connecting.spawn(async move { Ok::<_, Fault>((connect.await?, messages)) });
        }
        // All handshakes first: those that send would leave the others no time.
        let mut connected = Vec::new();
        while let Some(device) = connecting.join_next().await {
            connected.push(device??);
        }
        let mut senders = JoinSet::new();
        if generate.one_per_packet {
            for lane in lanes(connected) {
                senders.spawn(send_in_turn(lane));
            }
        } else {
            for (connection, messages) in connected {
                senders.spawn(async move { send(&connection, messages).await });
            }
        }
        while let Some(ended) = senders.join_next().await {
            ended??;
        }
        Ok(())
    })
}

/// What goes over a connection: the opening, then messages of its own, over and over.
struct Messages {
    opening: [Bytes; 2],
    ready: Vec<Bytes>,
}

fn messages(generate: &Generate, number: u64) -> Result<Messages, Fault> {
    let mut source = source(number, generate.devices, generate.devices_per_batch)?;
    let mut encoder = source.encoder(generate.codec.compression())?;
    let opening = data::opening(&encoder)?;
    let ready = (0..generate.ready.max(1))
        .map(|_| Ok(encoder.encode(&source.batch(generate.rows)?)?))
        .collect::<Result<_, Fault>>()?;
    Ok(Messages { opening, ready })
}

async fn connect(
    endpoint: Endpoint,
    server: std::net::SocketAddr,
    handshakes: Arc<Semaphore>,
) -> Result<Connection, Fault> {
    let _permit = handshakes.acquire().await?;
    Ok(endpoint.connect(server, SERVER_NAME)?.await?)
}

async fn send(connection: &Connection, messages: Messages) -> Result<(), Fault> {
    let mut stream = connection.open_uni().await?;
    for bytes in messages.opening {
        stream.write_chunk(bytes).await?;
    }
    for message in messages.ready.iter().cycle() {
        if stream.write_chunk(message.clone()).await.is_err() {
            // The server has seen enough.
            return Ok(());
        }
    }
    Ok(())
}

type Connected = (Connection, Messages);

/// The connections, dealt out.
fn lanes(connected: Vec<Connected>) -> Vec<Vec<Connected>> {
    let count = LANES.min(connected.len()).max(1);
    let mut lanes: Vec<_> = (0..count).map(|_| Vec::new()).collect();
    for (number, device) in connected.into_iter().enumerate() {
        lanes[number % count].push(device);
    }
    lanes
}

/// Sends a message of each connection in turn, as a fleet does: nobody's second message follows
/// the first while what both sides keep of the connection is still at hand. And each waits until
/// the message before it was acknowledged, so that it leaves in a packet of its own, and no more
/// are under way than there are connections.
async fn send_in_turn(connected: Vec<Connected>) -> Result<(), Fault> {
    let mut lane = Vec::with_capacity(connected.len());
    for (connection, messages) in connected {
        let acknowledged = connection.stats().frame_rx.acks;
        let mut stream = connection.open_uni().await?;
        for bytes in messages.opening {
            stream.write_chunk(bytes).await?;
        }
        // Answers, if the server gives any.
        let answering = connection.clone();
        tokio::spawn(async move {
            if let Ok(mut answers) = answering.accept_uni().await {
                while let Ok(Some(_)) = answers.read_chunk(ANSWER_BYTES_MAX, true).await {}
            }
        });
        lane.push((connection, stream, messages.ready, acknowledged));
    }
    for turn in 0.. {
        for (connection, stream, ready, acknowledged) in &mut lane {
            *acknowledged = next_acknowledgement(connection, *acknowledged).await;
            let message = ready[turn % ready.len()].clone();
            if stream.write_chunk(message).await.is_err() {
                // The server has seen enough.
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Waits until the connection has got more acknowledgements than these, or is closed; how many.
async fn next_acknowledgement(connection: &Connection, before: u64) -> u64 {
    for turn in 0_u32.. {
        let now = connection.stats().frame_rx.acks;
        if now != before || connection.close_reason().is_some() {
            return now;
        }
        if turn < TURNS {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(HELD_BACK).await;
        }
    }
    before
}
