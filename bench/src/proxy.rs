//! A bad network in user space: a UDP proxy between the load generator and the server that loses
//! packets and holds them up. Each client address has a socket of its own towards the server, so
//! that a client that moves is seen to move.
//!
//! ```text
//! client ──▶ front socket ─lose, delay─▶ socket of the client ──▶ server
//! client ◀── front socket ◀─lose, delay─ socket of the client ◀── server
//! ```
//!
//! Delays are as fine as tokio's timers: a millisecond. It runs on a thread of its own and stops
//! when it is dropped.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use tokio::{net::UdpSocket, sync::Notify, time::Instant};

use crate::{error::BenchError, scenario::Scenario};

/// Largest datagram.
const DATAGRAM_BYTES: usize = 65_535;
/// Datagrams that may be held up at once; more are lost, as in a router whose queue is full.
const HELD_MAX: usize = 65_536;

/// What the network does to packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Share that is lost.
    pub loss: f64,
    /// Delay of each.
    pub delay: Duration,
    /// Random delay beyond that, at most.
    pub jitter: Duration,
}

impl Weather {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self {
            loss: scenario.loss.0,
            delay: scenario.delay.0,
            jitter: scenario.jitter.0,
        }
    }
}

/// What the proxy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyCounts {
    /// Packets that were passed on.
    pub passed: u64,
    /// Packets that were lost on purpose.
    pub lost: u64,
    /// Packets that were lost because too many were held up.
    pub overflowed: u64,
    /// Client addresses that were seen.
    pub clients: u64,
}

#[derive(Debug, Default)]
struct Counters {
    passed: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
    clients: AtomicU64,
}

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: Arc<Notify>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A packet that is on its way through one of the two sockets.
struct Held {
    socket: Arc<UdpSocket>,
    /// `None`: the socket is connected.
    to: Option<SocketAddr>,
    bytes: Vec<u8>,
}

/// Packets that are held up.
#[derive(Default)]
struct Queue {
    /// By the moment they are due; the number keeps their order.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: HashMap<u64, Held>,
    number: u64,
}

struct Line {
    weather: Weather,
    counters: Arc<Counters>,
    random: Mutex<SmallRng>,
    held: Mutex<Queue>,
    bell: Notify,
}

impl Line {
    /// Takes a packet: loses it, passes it on, or holds it up.
    async fn take(&self, held: Held) {
        let (lost, delay) = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            let lost = random.random::<f64>() < self.weather.loss;
            (
                lost,
                self.weather.delay + self.weather.jitter.mul_f64(random.random::<f64>()),
            )
        };
        if lost {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if delay.is_zero() {
            self.pass(&held).await;
            return;
        }
        let mut queue = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.packets.len() >= HELD_MAX {
            self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.number += 1;
        let number = queue.number;
        queue.due.push(Reverse((Instant::now() + delay, number)));
        queue.packets.insert(number, held);
        self.bell.notify_one();
    }

    async fn pass(&self, held: &Held) {
        let sent = match held.to {
            Some(to) => held.socket.send_to(&held.bytes, to).await,
            None => held.socket.send(&held.bytes).await,
        };
        // What a socket refuses is lost, as in a network.
        let counter = if sent.is_ok() {
            &self.counters.passed
        } else {
            &self.counters.overflowed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Passes on what is due, for ever.
    async fn release(&self) {
        loop {
            let (ready, next) = {
                let mut queue = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                let Queue { due, packets, .. } = &mut *queue;
                let now = Instant::now();
                let mut ready = Vec::new();
                while due.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                    let number = due.pop().map(|Reverse((_, number))| number);
                    ready.extend(number.and_then(|number| packets.remove(&number)));
                }
                (ready, due.peek().map(|Reverse((at, _))| *at))
            };
            for held in &ready {
                self.pass(held).await;
            }
            match next {
                None => self.bell.notified().await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.bell.notified()).await;
                }
            }
        }
    }
}

impl Proxy {
    /// Starts a proxy in front of `server`.
    pub(crate) fn start(
        server: SocketAddr,
        weather: Weather,
        seed: u64,
    ) -> Result<Self, BenchError> {
        let failed =
            |error: std::io::Error| BenchError::Io(format!("cannot start the proxy: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let any = std::net::SocketAddr::new(
            if server.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            },
            0,
        );
        let front = runtime.block_on(UdpSocket::bind(any)).map_err(failed)?;
        let address = front.local_addr().map_err(failed)?;
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(Notify::new());
        let line = Arc::new(Line {
            weather,
            counters: counters.clone(),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            held: Mutex::default(),
            bell: Notify::new(),
        });
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("bench-proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        () = forward(Arc::new(front), server, line.clone()) => {}
                        () = line.release() => {}
                        () = stopped.notified() => {}
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self {
            address,
            counters,
            stop,
            thread: Some(thread),
        })
    }

    /// Where clients find it.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn counts(&self) -> ProxyCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProxyCounts {
            passed: get(&self.counters.passed),
            lost: get(&self.counters.lost),
            overflowed: get(&self.counters.overflowed),
            clients: get(&self.counters.clients),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of its thread was reported by its message.
            let _ = thread.join();
        }
    }
}

/// Passes packets both ways until the front socket fails.
async fn forward(front: Arc<UdpSocket>, server: SocketAddr, line: Arc<Line>) {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let (length, from) = match front.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An unreachable peer of an earlier packet; the socket goes on.
            Err(_) => continue,
        };
        let socket = match clients.get(&from) {
            Some(socket) => socket.clone(),
            None => match towards(server).await {
                Ok(socket) => {
                    line.counters.clients.fetch_add(1, Ordering::Relaxed);
                    clients.insert(from, socket.clone());
                    tokio::spawn(back(socket.clone(), front.clone(), from, line.clone()));
                    socket
                }
                Err(_) => {
                    line.counters.overflowed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            },
        };
        let held = Held {
            socket,
            to: None,
            bytes: buffer.get(..length).unwrap_or_default().to_vec(),
        };
        line.take(held).await;
    }
}

async fn towards(server: SocketAddr) -> std::io::Result<Arc<UdpSocket>> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(Arc::new(socket))
}

async fn back(socket: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, line: Arc<Line>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // The server may not be there yet, or any more.
        let Ok(length) = socket.recv(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let held = Held {
            socket: front.clone(),
            to: Some(to),
            bytes: buffer.get(..length).unwrap_or_default().to_vec(),
        };
        line.take(held).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;

    use quiver_model::{Clock, SystemClock};

    use super::*;

    fn pair(weather: Weather) -> (StdSocket, StdSocket, Proxy) {
        let server = StdSocket::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap(), weather, 7).unwrap();
        let client = StdSocket::bind("127.0.0.1:0").unwrap();
        client.connect(proxy.address()).unwrap();
        for socket in [&server, &client] {
            socket
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
        }
        (client, server, proxy)
    }

    #[test]
    fn about_as_many_packets_are_lost_as_was_asked_for() {
        let weather = Weather {
            loss: 0.3,
            ..Weather::default()
        };
        let (client, server, proxy) = pair(weather);
        let mut arrived = 0;
        let mut buffer = [0; 16];
        for _ in 0..20 {
            for _ in 0..50 {
                client.send(b"packet").unwrap();
            }
            while server.recv(&mut buffer).is_ok() {
                arrived += 1;
                if arrived % 50 == 0 {
                    break;
                }
            }
        }
        while server.recv(&mut buffer).is_ok() {
            arrived += 1;
        }
        let counts = proxy.counts();
        assert_eq!(counts.passed + counts.lost, 1_000, "{counts:?}");
        assert_eq!(counts.passed, arrived);
        assert!((230..370).contains(&counts.lost), "{counts:?}");
        assert_eq!(counts.clients, 1);
    }

    #[test]
    fn packets_are_held_up_both_ways() {
        let weather = Weather {
            delay: Duration::from_millis(30),
            ..Weather::default()
        };
        let (client, server, _proxy) = pair(weather);
        let clock = SystemClock::new();
        client.send(b"there").unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"there");
        assert!(clock.monotonic() >= Duration::from_millis(30));
        server.send_to(b"back", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
        assert!(clock.monotonic() >= Duration::from_millis(60));
    }
}
