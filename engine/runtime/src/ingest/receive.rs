//! Memory of messages that are being received: a part of a budget that all QUIC streams share,
//! taken before the bytes of a large message are read and held until its batch is in the log's
//! queue. Small messages are free; how many of them there can be is bounded by connections and
//! QUIC streams.
//!
//! Nobody waits for more while holding some: a message's whole announced length is taken at once,
//! and a batch that turns out to be larger than what is left is refused for the time being. So
//! whoever holds a part can go on, and the others get theirs in order. One identity, with all its
//! connections, gets at most half of it; and who is slow loses it while others wait.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quiver_model::SenderId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A message up to this many bytes takes nothing from the budget.
pub const FREE_BYTES: usize = 32 << 10;
/// How long a message waits for its part before its QUIC stream is closed for now.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a message may take to arrive while others wait for memory: less than they wait.
pub const ARRIVAL_MAX: Duration = Duration::from_secs(20);
/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// The budget.
#[derive(Clone, Debug)]
pub struct ReceiveBudget {
    permits: Arc<Semaphore>,
    capacity: usize,
    waiting: Arc<AtomicUsize>,
    identities: Arc<Mutex<HashMap<SenderId, Weak<Semaphore>>>>,
}

/// One identity's part of the budget, which its connections share.
#[derive(Clone, Debug)]
pub struct IdentityPart {
    budget: ReceiveBudget,
    permits: Arc<Semaphore>,
}

/// A message's part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Received {
    permit: OwnedSemaphorePermit,
    own: OwnedSemaphorePermit,
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
            identities: Arc::default(),
        }
    }

    /// The part of an identity; the same one for all its connections.
    pub fn part(&self, sender: &SenderId) -> IdentityPart {
        let mut identities = self
            .identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if identities.len() == identities.capacity() {
            // Before it grows: those who are gone are forgotten.
            identities.retain(|_, part| part.strong_count() > 0);
        }
        let known = identities.get(sender).and_then(Weak::upgrade);
        let permits = known.unwrap_or_else(|| {
            let permits = Arc::new(Semaphore::new(self.part_units() as usize));
            identities.insert(sender.clone(), Arc::downgrade(&permits));
            permits
        });
        IdentityPart {
            budget: self.clone(),
            permits,
        }
    }

    /// What one identity gets at most, but for a single message that is larger.
    fn part_units(&self) -> u32 {
        (units(self.capacity) / 2).max(1)
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
}

impl IdentityPart {
    /// Whether a message of anybody waits for its part.
    pub fn is_short(&self) -> bool {
        self.budget.is_short()
    }

    /// Takes `bytes` as soon as they are free, in the order of asking; `None` if that takes longer
    /// than 30 s, or there are not so many in all.
    pub async fn take(&self, bytes: usize) -> Option<Received> {
        if bytes > self.budget.capacity {
            return None;
        }
        let take = async {
            // First what only this identity waits for.
            let own = self.permits.clone().acquire_many_owned(self.own(bytes));
            let own = own.await.ok()?;
            if let Ok(permit) = self
                .budget
                .permits
                .clone()
                .try_acquire_many_owned(units(bytes))
            {
                return Some(Received { permit, own });
            }
            let _waiting = Waiting::new(&self.budget.waiting);
            let permit = self.budget.permits.clone().acquire_many_owned(units(bytes));
            let permit = permit.await.ok()?;
            Some(Received { permit, own })
        };
        tokio::time::timeout(PATIENCE, take).await.ok()?
    }

    /// Raises what is held to `bytes` if so much is free now.
    pub fn try_raise(&self, held: &mut Option<Received>, bytes: usize) -> bool {
        let present = held.as_ref().map_or(0, Received::bytes);
        if present >= bytes {
            return true;
        }
        let more = || {
            let own = self.own(bytes) - self.own(present);
            let own = self.permits.clone().try_acquire_many_owned(own).ok()?;
            let more = units(bytes - present);
            let permit = self.budget.permits.clone().try_acquire_many_owned(more);
            Some(Received {
                permit: permit.ok()?,
                own,
            })
        };
        match (more(), held) {
            (Some(more), Some(held)) => {
                held.permit.merge(more.permit);
                held.own.merge(more.own);
                true
            }
            (Some(more), held) => {
                *held = Some(more);
                true
            }
            (None, _) => false,
        }
    }

    fn own(&self, bytes: usize) -> u32 {
        units(bytes).min(self.budget.part_units())
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

    fn part(budget: &ReceiveBudget, id: &str) -> IdentityPart {
        let device = quiver_model::DeviceId::new(id).unwrap();
        budget.part(&SenderId::device(device))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_bounded_and_whoever_waits_too_long_is_told() {
        let budget = ReceiveBudget::new(100 << 10);
        let (one, other) = (part(&budget, "one"), part(&budget, "other"));
        let first = one.take(60 << 10).await.unwrap();
        assert_eq!((first.bytes(), budget.used()), (60 << 10, 60 << 10));
        assert!(other.take(101 << 10).await.is_none(), "never");
        assert!(other.take(60 << 10).await.is_none(), "not in time");
        assert!(!budget.is_short());
        let mut second = None;
        assert!(other.try_raise(&mut second, 40 << 10));
        assert!(!other.try_raise(&mut second, 41 << 10));
        drop(first);
        assert!(other.try_raise(&mut second, 100 << 10));
        let waiting = tokio::spawn(async move { one.take(1).await.is_some() });
        tokio::task::yield_now().await;
        assert!(budget.is_short());
        drop(second);
        assert!(waiting.await.unwrap());
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_identity_leaves_half_of_it_to_the_others() {
        let budget = ReceiveBudget::new(100 << 10);
        let (one, again) = (part(&budget, "one"), part(&budget, "one"));
        let _first = one.take(30 << 10).await.unwrap();
        let _second = again.take(20 << 10).await.unwrap();
        assert!(again.take(1 << 10).await.is_none(), "half is all it gets");
        let other = part(&budget, "other");
        assert!(other.take(50 << 10).await.is_some());
        drop((_first, _second, one, again));
        for id in 0..100 {
            part(&budget, &format!("device_{id}"));
        }
        assert!(budget.identities.lock().unwrap().len() < 50);
    }
}
