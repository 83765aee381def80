//! Hands arrivals to the workers when they are due, on a thread of its own: tokio's timers are a
//! millisecond coarse, and a worker that is busy with the network would hand them out late. Each
//! arrival carries the moment it was due, so being late here is part of the latency, not hidden.
//!
//! ```text
//! Schedules ─▶ heap by time ─▶ Inbox of a worker (one lock a wake-up) ─▶ sources
//! ```

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quiver_model::Clock;
use tokio::sync::Notify;

use crate::schedule::Schedule;

/// Shortest sleep: what is due within it is handed out together, never early.
const GRAIN: Duration = Duration::from_micros(50);
/// Longest sleep, after which it looks whether to stop.
const NAP: Duration = Duration::from_millis(20);

/// A batch that is due at a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Which of the worker's sources.
    pub source: usize,
    /// When, from the start of the load.
    pub at: Duration,
}

/// Where a worker finds what is due.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    due: Mutex<Vec<Due>>,
    bell: Notify,
}

impl Inbox {
    fn put(&self, due: &mut Vec<Due>) {
        self.due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(due);
        self.bell.notify_one();
    }

    /// Waits until something is due, and takes all of it.
    pub(crate) async fn take(&self) -> Vec<Due> {
        loop {
            let due = std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner));
            if !due.is_empty() {
                return due;
            }
            self.bell.notified().await;
        }
    }
}

/// A source's schedule and whom to tell.
pub(crate) struct Paced {
    pub worker: usize,
    pub source: usize,
    pub schedule: Schedule,
}

/// Hands out everything that is due before `end`, then returns; at once when `stop` is set.
/// `origin` is the start of the load on `clock`.
pub(crate) fn run(
    clock: &dyn Clock,
    origin: Duration,
    end: Duration,
    mut sources: Vec<Paced>,
    inboxes: &[Arc<Inbox>],
    stop: &AtomicBool,
) {
    let mut heap: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    for (index, source) in sources.iter_mut().enumerate() {
        heap.extend(source.schedule.next().map(|at| Reverse((at, index))));
    }
    let mut ready: Vec<Vec<Due>> = inboxes.iter().map(|_| Vec::new()).collect();
    while let Some(Reverse((next, _))) = heap.peek().copied() {
        if next >= end || stop.load(Ordering::Relaxed) {
            return;
        }
        let now = clock.monotonic().saturating_sub(origin);
        if next > now {
            std::thread::sleep((next - now).clamp(GRAIN, NAP));
            continue;
        }
        while let Some(Reverse((at, index))) = heap.peek().copied() {
            if at > now || at >= end {
                break;
            }
            heap.pop();
            let Some(source) = sources.get_mut(index) else {
                continue;
            };
            if let Some(due) = ready.get_mut(source.worker) {
                due.push(Due {
                    source: source.source,
                    at,
                });
            }
            heap.extend(source.schedule.next().map(|at| Reverse((at, index))));
        }
        for (inbox, due) in inboxes.iter().zip(&mut ready) {
            if !due.is_empty() {
                inbox.put(due);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quiver_model::SystemClock;

    use super::*;

    #[test]
    fn everything_before_the_end_is_handed_out_once_and_not_early() {
        let clock = SystemClock::new();
        let inboxes = [Arc::new(Inbox::default()), Arc::new(Inbox::default())];
        let times = |from: u64| (0..5).map(move |i| Duration::from_millis(from + 10 * i));
        let sources = vec![
            Paced {
                worker: 0,
                source: 0,
                schedule: Schedule::recorded(times(0)),
            },
            Paced {
                worker: 1,
                source: 7,
                schedule: Schedule::recorded(times(5)),
            },
        ];
        let origin = clock.monotonic();
        let end = Duration::from_millis(40);
        run(
            &clock,
            origin,
            end,
            sources,
            &inboxes,
            &AtomicBool::new(false),
        );
        assert!(clock.monotonic() - origin >= Duration::from_millis(34));
        let first = inboxes[0].due.lock().unwrap().clone();
        let second = inboxes[1].due.lock().unwrap().clone();
        assert_eq!(first.len(), 4, "the one at the end itself is not offered");
        assert_eq!(second.len(), 4);
        assert_eq!(second[1].source, 7);
        assert_eq!(second[1].at, Duration::from_millis(15));
    }
}
