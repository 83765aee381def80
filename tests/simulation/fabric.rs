//! The network: UDP in memory, with loss, duplication, jitter (so reordering) and partitions, all
//! from the seed. It hashes every packet's time, size and addresses: two runs of a seed must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, EndpointConfig, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use tokio::time::{Instant, Sleep};

use crate::{
    life::Life,
    seeded::{Random, derive},
};

/// Packets lost, in a thousand.
const LOSS: u64 = 50;
/// Packets that come twice, in a thousand.
const DUPLICATION: u64 = 10;
/// Least and most time under way, in microseconds.
const DELAY_US: (u64, u64) = (5_000, 40_000);

#[derive(Default)]
struct Inbox {
    packets: BTreeMap<(Instant, u64), (SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

struct State {
    random: Random,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    cut: BTreeSet<IpAddr>,
    start: Instant,
    sent: u64,
    lost: u64,
    hash: u64,
}

/// The network; clones are the same one.
#[derive(Clone)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
}

impl Fabric {
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            inboxes: BTreeMap::new(),
            cut: BTreeSet::new(),
            start: Instant::now(),
            sent: 0,
            lost: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A socket of a process. Packets for the address that came before are gone.
    pub fn bind(&self, address: SocketAddr, life: Arc<Life>) -> Arc<Socket> {
        self.state().inboxes.insert(address, Inbox::default());
        Arc::new(Socket {
            fabric: self.clone(),
            address,
            life,
            timer: Mutex::new(None),
        })
    }

    /// From now on nothing reaches this machine, nor leaves it.
    pub fn cut(&self, machine: IpAddr) {
        self.state().cut.insert(machine);
    }

    pub fn heal(&self, machine: IpAddr) {
        self.state().cut.remove(&machine);
    }

    /// Packets sent, of those lost, and the hash over all.
    pub fn trace(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.sent, state.lost, state.hash)
    }
}

impl State {
    fn note(&mut self, from: SocketAddr, to: SocketAddr, bytes: usize, now: Instant) {
        self.sent += 1;
        let machine = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | u64::from(address.port()),
            IpAddr::V6(_) => 0,
        };
        let since = now.saturating_duration_since(self.start).as_micros() as u64;
        for value in [since, machine(from), machine(to), bytes as u64] {
            self.hash = (self.hash ^ value)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(17);
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, packet: &[u8], now: Instant) {
        self.note(from, to, packet.len(), now);
        let is_cut = self.cut.contains(&from.ip()) || self.cut.contains(&to.ip());
        if self.random.chance(LOSS) || is_cut || !self.inboxes.contains_key(&to) {
            self.lost += 1;
            return;
        }
        let copies = 1 + u64::from(self.random.chance(DUPLICATION));
        for copy in 0..copies {
            let delay = self.random.between(DELAY_US.0, DELAY_US.1);
            let key = (now + Duration::from_micros(delay), self.sent * 2 + copy);
            let Some(inbox) = self.inboxes.get_mut(&to) else {
                return;
            };
            inbox.packets.insert(key, (from, packet.to_vec()));
            if let Some(waker) = inbox.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A UDP socket of a simulated process.
pub struct Socket {
    fabric: Fabric,
    address: SocketAddr,
    life: Arc<Life>,
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated socket {}", self.address)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // What a dead process sends goes nowhere, and it is not there to see an error.
        if self.life.may_send() {
            let now = Instant::now();
            let mut state = self.fabric.state();
            let size = transmit
                .segment_size
                .unwrap_or(transmit.contents.len())
                .max(1);
            for packet in transmit.contents.chunks(size) {
                state.send(self.address, transmit.destination, packet, now);
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.life.is_over() {
            return Poll::Pending;
        }
        let now = Instant::now();
        let mut state = self.fabric.state();
        let inbox = state.inboxes.entry(self.address).or_default();
        let mut received = 0;
        while received < buffers.len().min(meta.len()) {
            let Some(first) = inbox.packets.first_entry() else {
                break;
            };
            if first.key().0 > now {
                break;
            }
            let (from, packet) = first.remove();
            buffers[received][..packet.len()].copy_from_slice(&packet);
            meta[received] = RecvMeta {
                addr: from,
                len: packet.len(),
                stride: packet.len(),
                ecn: None,
                dst_ip: Some(self.address.ip()),
            };
            received += 1;
        }
        if received > 0 {
            return Poll::Ready(Ok(received));
        }
        inbox.waker = Some(context.waker().clone());
        if let Some((at, _)) = inbox.packets.keys().next() {
            let mut sleep = Box::pin(tokio::time::sleep_until(*at));
            if sleep.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
            *self.timer.lock().unwrap() = Some(sleep);
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Connection ids from the seed: quinn's own come from the thread's generator.
struct SeededIds(Random);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.draw().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// An endpoint's settings with all randomness from the seed.
pub fn endpoint_config(seed: u64) -> EndpointConfig {
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &derive(seed, 1).to_le_bytes());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let mut rng_seed = [0; 32];
    rng_seed[..8].copy_from_slice(&derive(seed, 2).to_le_bytes());
    config
        .rng_seed(Some(rng_seed))
        .cid_generator(move || Box::new(SeededIds(Random::new(derive(seed, 3)))));
    config
}
