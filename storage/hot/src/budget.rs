//! One budget of memory for everything between admission and the archive. Rows reserve before
//! they are appended to the log, so what is committed can always be applied.
//!
//! ```text
//! ingest ──try_reserve──▶ Reservation ──moves with the batch──▶ memtable ──dropped after the flush──▶ waiters woken
//! ```
//!
//! Devices and derived rows have separate shares: neither can starve the other.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use crate::sync::lock;

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// Rows that senders sent.
    Device,
    /// Rows that the engine's own nodes derived.
    Derived,
}

const SHARES: usize = 2;

impl Share {
    const fn index(self) -> usize {
        match self {
            Self::Device => 0,
            Self::Derived => 1,
        }
    }
}

/// Capacity of each share, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// For [`Share::Device`].
    pub device: usize,
    /// For [`Share::Derived`].
    pub derived: usize,
}

/// A reservation that can never be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes exceed the whole share of {capacity} bytes; send smaller batches or raise the memory limit"
)]
pub struct TooLarge {
    /// Bytes asked for.
    pub bytes: usize,
    /// Bytes the share has in all.
    pub capacity: usize,
}

/// The budget. Clones share it.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    capacity: [usize; SHARES],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: [usize; SHARES],
    waiting: [VecDeque<Waiter>; SHARES],
    next_ticket: u64,
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    /// `None` once woken: it has been promised a try, and keeps its place until it takes it.
    waker: Option<Waker>,
}

impl State {
    /// Takes the wakers of waiters that could be served now, in the order they came.
    fn wakers_to_call(&mut self, share: usize, capacity: usize) -> Vec<Waker> {
        let mut free = capacity.saturating_sub(self.used[share]);
        let mut wakers = Vec::new();
        for waiter in &mut self.waiting[share] {
            if waiter.bytes > free {
                break;
            }
            free -= waiter.bytes;
            wakers.extend(waiter.waker.take());
        }
        wakers
    }
}

impl MemoryBudget {
    /// A budget of which nothing is used.
    pub fn new(limits: MemoryLimits) -> Self {
        let capacity = [limits.device, limits.derived];
        Self {
            shared: Arc::new(Shared {
                capacity,
                state: Mutex::default(),
            }),
        }
    }

    /// Reserves `bytes` of `share`, or `None` if they are not free.
    pub fn try_reserve(&self, bytes: usize, share: Share) -> Option<Reservation> {
        let mut state = lock(&self.shared.state);
        self.take(&mut state, bytes, share)
    }

    fn take(&self, state: &mut State, bytes: usize, share: Share) -> Option<Reservation> {
        let index = share.index();
        let used = state.used[index].checked_add(bytes)?;
        if used > self.shared.capacity[index] {
            return None;
        }
        state.used[index] = used;
        Some(Reservation {
            owner: Some((Arc::clone(&self.shared), share)),
            bytes,
        })
    }

    /// Reserves `bytes` of `share`, waiting until they are free. Waiters are woken in the order
    /// they came; [`MemoryBudget::try_reserve`] may overtake them. Dropping the future gives up.
    pub fn reserve(&self, bytes: usize, share: Share) -> ReserveFuture {
        ReserveFuture {
            budget: self.clone(),
            bytes,
            share,
            ticket: None,
        }
    }

    /// Counts `bytes` that exist already (state restored from a checkpoint, last values), even
    /// beyond the capacity; until enough is freed, nothing more can be reserved.
    pub fn account(&self, bytes: usize, share: Share) -> Reservation {
        let mut state = lock(&self.shared.state);
        let used = &mut state.used[share.index()];
        *used = used.saturating_add(bytes);
        Reservation {
            owner: Some((Arc::clone(&self.shared), share)),
            bytes,
        }
    }

    /// Bytes of a share in all.
    pub fn capacity(&self, share: Share) -> usize {
        self.shared.capacity[share.index()]
    }

    /// Bytes of a share that are reserved.
    pub fn used(&self, share: Share) -> usize {
        lock(&self.shared.state).used[share.index()]
    }

    /// How many wait for memory of a share.
    pub fn waiting(&self, share: Share) -> usize {
        lock(&self.shared.state).waiting[share.index()].len()
    }
}

impl Shared {
    fn release(&self, bytes: usize, share: Share) {
        if bytes == 0 {
            return;
        }
        let index = share.index();
        let wakers = {
            let mut state = lock(&self.state);
            state.used[index] = state.used[index].saturating_sub(bytes);
            state.wakers_to_call(index, self.capacity[index])
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = lock(&self.shared.state).used;
        f.debug_struct("MemoryBudget")
            .field("capacity", &self.shared.capacity)
            .field("used", &used)
            .finish()
    }
}

/// Bytes of a budget, given back when dropped.
#[must_use = "dropping a reservation frees it"]
pub struct Reservation {
    owner: Option<(Arc<Shared>, Share)>,
    bytes: usize,
}

impl Reservation {
    /// A reservation of nothing, from no budget.
    pub const fn none() -> Self {
        Self {
            owner: None,
            bytes: 0,
        }
    }

    /// Bytes it holds.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes up to `bytes` out of it, as a reservation of their own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            owner: self.owner.clone(),
            bytes,
        }
    }

    /// Gives back all but `bytes`; a reservation that is not larger stays as it is.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        drop(self.split(surplus));
    }

    /// Puts `other` into this one; returns it if they are of different budgets or shares.
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        let same = match (&self.owner, &other.owner) {
            (_, None) => true,
            (None, Some(_)) => {
                self.owner = other.owner.clone();
                true
            }
            (Some((mine, my_share)), Some((theirs, their_share))) => {
                Arc::ptr_eq(mine, theirs) && my_share == their_share
            }
        };
        if !same {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((shared, share)) = &self.owner {
            shared.release(self.bytes, *share);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.owner.as_ref().map(|(_, share)| *share);
        f.debug_struct("Reservation")
            .field("bytes", &self.bytes)
            .field("share", &share)
            .finish()
    }
}

/// Waits for memory; see [`MemoryBudget::reserve`]. Needs no particular runtime.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct ReserveFuture {
    budget: MemoryBudget,
    bytes: usize,
    share: Share,
    ticket: Option<u64>,
}

impl Future for ReserveFuture {
    type Output = Result<Reservation, TooLarge>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let index = this.share.index();
        let capacity = this.budget.capacity(this.share);
        if this.bytes > capacity {
            return Poll::Ready(Err(TooLarge {
                bytes: this.bytes,
                capacity,
            }));
        }
        let mut state = lock(&this.budget.shared.state);
        let granted = this.budget.take(&mut state, this.bytes, this.share);
        let Some(reservation) = granted else {
            let waker = context.waker().clone();
            let known = this.ticket.and_then(|ticket| {
                state.waiting[index]
                    .iter_mut()
                    .find(|waiter| waiter.ticket == ticket)
            });
            if let Some(waiter) = known {
                waiter.waker = Some(waker);
            } else {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                this.ticket = Some(ticket);
                state.waiting[index].push_back(Waiter {
                    ticket,
                    bytes: this.bytes,
                    waker: Some(waker),
                });
            }
            return Poll::Pending;
        };
        drop(state);
        this.leave();
        Poll::Ready(Ok(reservation))
    }
}

impl ReserveFuture {
    /// Leaves the queue and passes on what this waiter was woken for and did not use.
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let index = self.share.index();
        let wakers = {
            let mut state = lock(&self.budget.shared.state);
            state.waiting[index].retain(|waiter| waiter.ticket != ticket);
            state.wakers_to_call(index, self.budget.shared.capacity[index])
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for ReserveFuture {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
