//! Memory of messages that are being received: a part of a budget that all QUIC streams share,
//! taken before the bytes of a large message are read and held until its batch is in the log's
//! queue. Small messages are free; how many of them there can be is bounded by connections and
//! QUIC streams.
//!
//! Nobody waits for more while holding some: a message's whole announced length is taken at once,
//! and a batch that turns out to be larger than what is left is refused for the time being. So
//! whoever holds a part can go on, and the others get theirs in order.

use std::{
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A message up to this many bytes takes nothing from the budget.
pub const FREE_BYTES: usize = 32 << 10;
/// How long a message waits for its part before its QUIC stream is closed for now.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a message may take to arrive while others wait for memory.
pub const ARRIVAL_MAX: Duration = Duration::from_secs(60);
/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// The budget.
#[derive(Clone, Debug)]
pub struct ReceiveBudget {
    permits: Arc<Semaphore>,
    capacity: usize,
    waiting: Arc<AtomicUsize>,
}

/// A message's part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Received {
    permit: OwnedSemaphorePermit,
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl ReceiveBudget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS >> 1);
        Self {
            permits: Arc::new(Semaphore::new(units)),
            capacity: units * UNIT,
            waiting: Arc::default(),
        }
    }

    /// Bytes in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes taken.
    pub fn used(&self) -> usize {
        self.capacity
            .saturating_sub(self.permits.available_permits() * UNIT)
    }

    /// Whether a message waits for its part.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes `bytes` as soon as they are free, in the order of asking; `None` if that takes longer
    /// than 30 s, or there are not so many in all.
    pub async fn take(&self, bytes: usize) -> Option<Received> {
        if bytes > self.capacity {
            return None;
        }
        if let Ok(permit) = self.permits.clone().try_acquire_many_owned(units(bytes)) {
            return Some(Received { permit });
        }
        let _waiting = Waiting::new(&self.waiting);
        let acquire = self.permits.clone().acquire_many_owned(units(bytes));
        let permit = tokio::time::timeout(PATIENCE, acquire).await.ok()?.ok()?;
        Some(Received { permit })
    }

    /// Raises what is held to `bytes` if so much is free now.
    pub fn try_raise(&self, held: &mut Option<Received>, bytes: usize) -> bool {
        let present = held.as_ref().map_or(0, Received::bytes);
        if present >= bytes {
            return true;
        }
        let more = self
            .permits
            .clone()
            .try_acquire_many_owned(units(bytes - present));
        match (more, held) {
            (Ok(more), Some(held)) => {
                held.permit.merge(more);
                true
            }
            (Ok(permit), held) => {
                *held = Some(Received { permit });
                true
            }
            (Err(_), _) => false,
        }
    }
}

impl Received {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_bounded_and_whoever_waits_too_long_is_told() {
        let budget = ReceiveBudget::new(100 << 10);
        let first = budget.take(60 << 10).await.unwrap();
        assert_eq!((first.bytes(), budget.used()), (60 << 10, 60 << 10));
        assert!(budget.take(101 << 10).await.is_none(), "never");
        assert!(budget.take(60 << 10).await.is_none(), "not in time");
        assert!(!budget.is_short());
        let mut second = None;
        assert!(budget.try_raise(&mut second, 40 << 10));
        assert!(!budget.try_raise(&mut second, 41 << 10));
        drop(first);
        assert!(budget.try_raise(&mut second, 100 << 10));
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(1).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(budget.is_short());
        drop(second);
        assert!(waiting.await.unwrap());
        assert_eq!(budget.used(), 0);
    }
}
