//! The bounded hand-over from the commit loop to a shard. The shard drains it without waiting for
//! anything, so a full inbox empties itself.

use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::Notify;

use super::ShardEvent;

/// Events that may wait for a shard.
const INBOX_LENGTH: usize = 8_192;

/// Sending side.
#[derive(Clone)]
pub struct ShardInbox {
    events: Sender<ShardEvent>,
    wake: Arc<Notify>,
}

/// Receiving side.
pub struct ShardOutlet {
    pub(crate) events: Receiver<ShardEvent>,
    pub(crate) wake: Arc<Notify>,
}

impl ShardInbox {
    /// An empty inbox.
    pub fn new() -> (Self, ShardOutlet) {
        let (events, receiver) = bounded(INBOX_LENGTH);
        let wake = Arc::new(Notify::new());
        (
            Self {
                events,
                wake: wake.clone(),
            },
            ShardOutlet {
                events: receiver,
                wake,
            },
        )
    }

    /// Hands an event over, waiting on this thread while the inbox is full.
    pub(crate) fn send_blocking(&self, event: ShardEvent) {
        if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
            self.wake.notify_one();
            // An error means that the shard has stopped; nobody is left to be told.
            let _ = self.events.send(event);
        }
        self.wake.notify_one();
    }

    /// Hands an event over, letting other tasks of this thread run while the inbox is full.
    pub(crate) async fn send(&self, mut event: ShardEvent) {
        while let Err(TrySendError::Full(back)) = self.events.try_send(event) {
            self.wake.notify_one();
            event = back;
            tokio::task::yield_now().await;
        }
        self.wake.notify_one();
    }
}
