//! What the tasks of one worker share.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use quiver_model::{Clock, OsEntropy};
use quiver_protocol::{BatchEncoder, Compression};
use tokio::sync::{Semaphore, watch};

use super::lane::Batch;
use crate::{
    record::{Recorder, record},
    scenario::{Codec, Scenario},
};

/// What the harness is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connections are made; nothing is due yet.
    Connecting,
    /// Batches are due.
    Load,
    /// Nothing more is due; what is outstanding is waited for.
    Drain,
    /// Everything ends.
    Stop,
}

/// The phase, and when the load began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    pub phase: Phase,
    /// Start of the load on the monotonic clock.
    pub origin: Duration,
    /// The same on the wall clock, in microseconds.
    pub origin_wall_us: i64,
}

/// Shared by the tasks of a worker; never by threads.
pub(crate) struct Context {
    pub scenario: Arc<Scenario>,
    pub clock: Arc<dyn Clock>,
    pub entropy: OsEntropy,
    pub signal: watch::Receiver<Signal>,
    pub recorder: Arc<Recorder>,
    /// An encoder for each of a connection's streams, and its schema message: a compressor is too
    /// large to have one for each of ten thousand devices.
    pub encoders: RefCell<Vec<Option<(BatchEncoder, Bytes)>>>,
    /// Acknowledged rows by device.
    pub tally: RefCell<HashMap<u32, u64>>,
    /// What is not settled has been counted; what is settled from now on is not.
    pub is_closed: Cell<bool>,
    /// Held by whoever makes batches; see [`Context::make`].
    pub turn: Semaphore,
    /// Time spent making batches since the network was looked at.
    pub spent: Cell<Duration>,
}

/// Longest time that batches are made before the network is looked at.
const MAKING: Duration = Duration::from_micros(200);

impl Context {
    /// Runs something that makes a batch, and sees to it that packets and acknowledgements do not
    /// wait for more than one batch, or [`MAKING`], however many sources have some to make: without
    /// it a thread full of sources makes all their batches before it reads a single packet.
    pub(crate) async fn make<T>(&self, work: impl FnOnce() -> T) -> T {
        // An error means that the semaphore is closed, which never happens.
        let turn = self.turn.acquire().await;
        let before = self.clock.monotonic();
        let made = work();
        let spent = self.spent.get() + self.clock.monotonic().saturating_sub(before);
        if spent < MAKING {
            self.spent.set(spent);
        } else {
            self.spent.set(Duration::ZERO);
            // Comes back after the runtime has polled its sockets; nobody else makes any till then.
            tokio::task::yield_now().await;
        }
        drop(turn);
        made
    }

    pub(crate) fn phase(&self) -> Phase {
        self.signal.borrow().phase
    }

    /// Time since the start of the load.
    pub(crate) fn now(&self) -> Duration {
        let origin = self.signal.borrow().origin;
        self.clock.monotonic().saturating_sub(origin)
    }

    /// Wall time of a moment of the load, in microseconds.
    pub(crate) fn wall_us(&self, at: Duration) -> i64 {
        let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
        self.signal.borrow().origin_wall_us.saturating_add(micros)
    }

    /// Whether what is due then is measured.
    pub(crate) fn is_measured(&self, due: Duration) -> bool {
        due >= self.scenario.warmup.0
    }

    /// Notes something that went wrong, in words.
    pub(crate) fn note(&self, error: impl Into<String>) {
        self.recorder.lock().last_error = Some(error.into());
    }

    /// Batches are settled: what they say about latency, and whose rows they had.
    pub(crate) fn settled(&self, batches: &[Batch]) {
        if batches.is_empty() || self.is_closed.get() {
            return;
        }
        let now = self.now();
        let mut tally = self.tally.borrow_mut();
        let mut recording = self.recorder.lock();
        for batch in batches {
            if batch.rejected {
                recording.counts.rejected += 1;
                recording.counts.rejected_rows += batch.rows;
                continue;
            }
            recording.counts.acked += batch.due.len() as u64;
            recording.counts.acked_rows += batch.rows;
            recording.counts.acked_points += batch.points;
            for (device, rows) in &batch.devices {
                *tally.entry(*device).or_default() += u64::from(*rows);
            }
            for due in &batch.due {
                let latency = now.saturating_sub(*due);
                record(&mut recording.interval, latency);
                if self.is_measured(*due) {
                    record(&mut recording.latency, latency);
                }
            }
        }
    }
}

/// The codec as the protocol names it.
pub(crate) const fn compression(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::None,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
        Codec::Message => Compression::ZstdMessage,
        Codec::Compact => Compression::Compact,
    }
}

#[cfg(test)]
mod tests {
    use quiver_model::{Clock, ManualClock, Timestamp};

    use super::*;
    use crate::scenario::{Knobs, Span};

    /// A server that stands still for a second: whoever was due meanwhile waited, though nothing
    /// was sent, and the histogram must show it.
    #[test]
    fn a_stall_is_in_the_latency_of_everything_that_was_due() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let knobs = Knobs {
            warmup: Some(Span::seconds(0)),
            ..Knobs::default()
        };
        let origin = Signal {
            phase: Phase::Load,
            origin: clock.monotonic(),
            origin_wall_us: 0,
        };
        let (_signal, receiver) = watch::channel(origin);
        let context = Context {
            scenario: Arc::new(knobs.resolve()),
            clock: clock.clone(),
            entropy: OsEntropy,
            signal: receiver,
            recorder: Arc::new(Recorder::new()),
            encoders: RefCell::default(),
            tally: RefCell::default(),
            is_closed: Cell::default(),
            turn: Semaphore::new(1),
            spent: Cell::default(),
        };
        let batch = |due: u64| Batch {
            bytes: Bytes::new(),
            rows: 1,
            points: 1,
            devices: vec![(0, 1)],
            due: vec![Duration::from_millis(due)],
            rejected: false,
        };
        // A batch is due each millisecond, and settled a millisecond later …
        for millis in 0..1_000 {
            clock.advance(Duration::from_millis(1));
            context.settled(&[batch(millis)]);
        }
        // … until nothing is settled for a second, and then all at once.
        clock.advance(Duration::from_secs(1));
        let late: Vec<Batch> = (1_000..2_000).map(batch).collect();
        context.settled(&late);
        let recording = context.recorder.lock();
        let quantile = |q| recording.latency.value_at_quantile(q) / 1_000;
        assert_eq!(recording.latency.len(), 2_000);
        assert!(quantile(0.49) <= 1);
        assert!((490..=510).contains(&quantile(0.75)), "{}", quantile(0.75));
        assert!(
            (970..=1_000).contains(&quantile(0.99)),
            "{}",
            quantile(0.99)
        );
        assert_eq!(recording.counts.acked, 2_000);
    }
}
