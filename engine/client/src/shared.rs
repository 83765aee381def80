//! What the client's tasks share: the queue, how full it may get, and a bell that rings when any of
//! it changes. The lock is held for bookkeeping only, never across an await or a disk.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use quiver_model::Entropy;
use tokio::sync::Notify;

use crate::{
    Observer, Window,
    event::{ClientEvent, Disconnect},
    queue::Queue,
};

/// Whether there is a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The first attempt is under way.
    Connecting,
    /// The server has admitted this client.
    Connected,
    /// The last attempt or connection ended so; another attempt follows.
    Disconnected(Disconnect),
    /// The client was closed.
    Closed,
}

#[derive(Debug)]
pub(crate) struct State {
    pub queue: Queue,
    pub admission: Admission,
    pub connection: Connection,
    /// Why the spool takes nothing more.
    pub spool_failure: Option<String>,
    /// Nothing more is taken.
    pub is_closing: bool,
    /// Live streams the server allows; unknown before the first Welcome.
    pub quic_streams_max: Option<usize>,
}

/// How much may be queued.
#[derive(Debug)]
pub(crate) struct Admission {
    pub window: Window,
    /// Admitted, on its way to the queue.
    pub reserved: Window,
    /// Of those bytes, what goes to the spool.
    pub spool_reserved: u64,
    pub spool_used: u64,
    /// `None` without a spool.
    pub spool_max: Option<u64>,
}

impl State {
    /// Admits a batch of `bytes`, or not now.
    pub fn try_admit(&mut self, bytes: usize, is_spooled: bool) -> bool {
        let admission = &mut self.admission;
        match admission.spool_max.filter(|_| is_spooled) {
            Some(max) => {
                let needed = admission.spool_used + admission.spool_reserved + bytes as u64;
                let is_admitted = needed <= max;
                if is_admitted {
                    admission.spool_reserved += bytes as u64;
                }
                is_admitted
            }
            None => {
                let queued = self.queue.unsettled_count() + admission.reserved.batches;
                let memory = self.queue.memory() + admission.reserved.bytes;
                // One batch alone always fits: it is within the protocol's limits.
                let is_admitted = queued == 0
                    || queued < admission.window.batches
                        && memory + bytes <= admission.window.bytes;
                if is_admitted {
                    admission.reserved.bytes += bytes;
                    admission.reserved.batches += 1;
                }
                is_admitted
            }
        }
    }

    /// An admitted batch is queued, or will not be.
    pub fn release(&mut self, bytes: usize, is_spooled: bool) {
        let admission = &mut self.admission;
        if is_spooled && admission.spool_max.is_some() {
            admission.spool_reserved -= bytes as u64;
        } else {
            admission.reserved.bytes -= bytes;
            admission.reserved.batches -= 1;
        }
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
    rings: AtomicU64,
    rung: Notify,
    observer: Option<Arc<dyn Observer>>,
    pub entropy: Arc<dyn Entropy>,
}

impl Shared {
    pub fn new(
        state: State,
        observer: Option<Arc<dyn Observer>>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            state: Mutex::new(state),
            rings: AtomicU64::new(0),
            rung: Notify::new(),
            observer,
            entropy,
        }
    }

    /// The state, to look at. A panic of another holder left it as it was.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and rings the bell.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.ring();
        result
    }

    /// Changes the state where nobody waits for the change.
    pub fn update_quietly<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.lock())
    }

    pub fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.rung.notify_waiters();
    }

    /// The bell; take it before looking at the state.
    pub fn bell(&self) -> Bell<'_> {
        Bell {
            shared: self,
            heard: self.rings.load(Ordering::SeqCst),
        }
    }

    pub fn report(&self, events: impl IntoIterator<Item = ClientEvent>) {
        if let Some(observer) = &self.observer {
            for event in events {
                observer.on_event(&event);
            }
        }
    }

    /// Waits until `ask` has an answer.
    pub async fn wait_for<T>(&self, mut ask: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut bell = self.bell();
        loop {
            if let Some(answer) = ask(&mut self.lock()) {
                return answer;
            }
            bell.changed().await;
        }
    }
}

/// Tells that the state has changed. It wakes those who wait in the order in which they came, where
/// a `tokio::sync::watch` wakes them in a random one: with the same seed a simulation must do the
/// same.
pub(crate) struct Bell<'a> {
    shared: &'a Shared,
    heard: u64,
}

impl Bell<'_> {
    /// Returns when the bell has rung since it was taken, or since this returned last.
    pub async fn changed(&mut self) {
        loop {
            let rung = self.shared.rung.notified();
            tokio::pin!(rung);
            // Registered before the count is read: a ring between the two is not missed.
            rung.as_mut().enable();
            let rings = self.shared.rings.load(Ordering::SeqCst);
            if rings != self.heard {
                self.heard = rings;
                return;
            }
            rung.await;
        }
    }
}
