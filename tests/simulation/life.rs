//! How long a simulated process lives. A process that has died may still have tasks that are
//! polled for a moment, but none of its effects leaves any more: socket, disk and archive ask
//! here first. So a process can die between any two effects, even in the middle of a poll:
//! between a write and its fsync, or between a commit to the archive and the news of it.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use quiver_log::sim::SimVfs;
use tokio::sync::Notify;

/// One incarnation of a process.
#[derive(Debug)]
pub struct Life {
    over: AtomicBool,
    /// Packets it may still send; `u64::MAX` for any number.
    packets_left: AtomicU64,
    /// The disk of its machine, whose power may fail.
    disk: Option<Mutex<SimVfs>>,
    ended: Notify,
}

impl Life {
    pub fn new(disk: Option<SimVfs>) -> Self {
        Self {
            over: AtomicBool::new(false),
            packets_left: AtomicU64::new(u64::MAX),
            disk: disk.map(Mutex::new),
            ended: Notify::new(),
        }
    }

    /// Whether it has died, or its machine has lost power.
    pub fn is_over(&self) -> bool {
        let is_off = || {
            self.disk
                .as_ref()
                .is_some_and(|disk| disk.lock().unwrap().is_off())
        };
        self.over.load(Ordering::SeqCst) || is_off()
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    /// Dies when it has sent this many more packets.
    pub fn end_after_packets(&self, packets: u64) {
        self.packets_left.store(packets, Ordering::SeqCst);
    }

    /// It wants to send a packet; whether it may.
    pub fn may_send(&self) -> bool {
        if self.is_over() {
            return false;
        }
        let left = self.packets_left.load(Ordering::SeqCst);
        if left == 0 {
            self.end();
            return false;
        }
        if left != u64::MAX {
            self.packets_left.store(left - 1, Ordering::SeqCst);
        }
        true
    }

    /// Waits for its death; the power is looked at every few milliseconds.
    pub async fn ended(&self) {
        while !self.is_over() {
            let look_again = std::time::Duration::from_millis(5);
            // Elapsed is no error: it is time to look at the power.
            let _ = tokio::time::timeout(look_again, self.ended.notified()).await;
        }
    }
}
