//! The load generator: a process of its own that sends messages it has encoded before, on one
//! long-lived QUIC stream for each connection, as fast as they are taken.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use quiver_bench_kernels::data::{self, Device, FIELDS};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Fault,
    endpoint::{SERVER_NAME, client, runtime},
    options::Generate,
};

/// Handshakes at a time.
const HANDSHAKES: usize = 64;
/// How often another task gets a turn before a packet that is not sent counts as held back.
const TURNS: u32 = 16;
/// How long is waited then.
const HELD_BACK: Duration = Duration::from_millis(1);

/// Sends until the server closes the connections.
pub fn run(generate: &Generate) -> Result<(), Fault> {
    // Before the first handshake: what is encoded while others send would be measured.
    let devices = (0..generate.devices)
        .map(|number| messages(generate, number))
        .collect::<Result<Vec<_>, Fault>>()?;
    runtime("generator")?.block_on(async {
        let endpoint = client(&generate.credential)?;
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let mut connecting = JoinSet::new();
        for messages in devices {
            let connect = connect(endpoint.clone(), generate.server, handshakes.clone());
            connecting.spawn(async move { Ok::<_, Fault>((connect.await?, messages)) });
        }
        // All handshakes first: those that send would leave the others no time.
        let mut connected = Vec::new();
        while let Some(device) = connecting.join_next().await {
            connected.push(device??);
        }
        let mut senders = JoinSet::new();
        for (connection, messages) in connected {
            let one_per_packet = generate.one_per_packet;
            senders.spawn(async move { send(&connection, messages, one_per_packet).await });
        }
        while let Some(ended) = senders.join_next().await {
            ended??;
        }
        Ok(())
    })
}

/// What a device sends: the opening, then messages of its own, over and over.
struct Messages {
    opening: [Bytes; 2],
    ready: Vec<Bytes>,
}

fn messages(generate: &Generate, number: usize) -> Result<Messages, Fault> {
    let mut encoder = data::encoder(FIELDS, generate.codec.compression())?;
    let opening = data::opening(&encoder)?;
    let mut device = Device::new(number as u64, FIELDS);
    let ready = (0..generate.ready.max(1))
        .map(|_| Ok(encoder.encode(&device.batch(generate.rows)?)?))
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

async fn send(
    connection: &Connection,
    messages: Messages,
    one_per_packet: bool,
) -> Result<(), Fault> {
    let mut stream = connection.open_uni().await?;
    for bytes in messages.opening {
        stream.write_chunk(bytes).await?;
    }
    let mut frames = connection.stats().frame_tx.stream;
    for message in messages.ready.iter().cycle() {
        if stream.write_chunk(message.clone()).await.is_err() {
            // The server has seen enough.
            return Ok(());
        }
        if one_per_packet {
            sent(connection, &mut frames).await;
        }
    }
    Ok(())
}

/// Waits until the connection's own task has sent what was written, so that what is written next
/// leaves in another packet.
async fn sent(connection: &Connection, frames: &mut u64) {
    for turn in 0_u32.. {
        let now = connection.stats().frame_tx.stream;
        if now != *frames || connection.close_reason().is_some() {
            *frames = now;
            return;
        }
        if turn < TURNS {
            tokio::task::yield_now().await;
        } else {
            // Held back by congestion or flow control.
            tokio::time::sleep(HELD_BACK).await;
        }
    }
}
