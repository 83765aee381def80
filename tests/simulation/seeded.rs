//! Time and randomness of a simulated run: all of it from tokio's paused clock and one seed.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use quiver_model::{Clock, Entropy, Timestamp};
use tokio::time::Instant;

/// Wall time at which every simulation begins: 2026-01-01T00:00:00Z.
pub const EPOCH: Timestamp = Timestamp(1_767_225_600_000_000);

/// SplitMix64: one step, and a number mixed from the state.
fn step(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

/// A seed for a part of the run, so that what one part draws does not move another's numbers.
pub fn derive(seed: u64, part: u64) -> u64 {
    step(seed ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).1
}

/// A generator of random choices.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        let (state, drawn) = step(self.0);
        self.0 = state;
        drawn
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True this many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// A duration of `from` to `to` milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }
}

/// Randomness for engine and clients.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        let (state, drawn) = step(self.0.load(Ordering::Relaxed));
        self.0.store(state, Ordering::Relaxed);
        drawn
    }
}

/// Tokio's clock, as the engine sees it, with a wall clock that may step. Made, and asked, inside
/// the simulation only.
#[derive(Debug)]
pub struct SimClock {
    start: Instant,
    /// Microseconds that the wall clock is ahead.
    ahead: AtomicI64,
}

impl SimClock {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            ahead: AtomicI64::new(0),
        }
    }

    /// Steps the wall clock: from now on it is so much ahead of the time that has passed.
    pub fn step_wall(&self, ahead: Duration) {
        self.ahead
            .store(ahead.as_micros() as i64, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall(&self) -> Timestamp {
        let passed = EPOCH.plus(self.monotonic());
        Timestamp(passed.as_micros() + self.ahead.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }
}
