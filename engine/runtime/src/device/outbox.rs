//! What is to be said to a connected sender. Filled by its shard, emptied by the task that writes
//! its control stream. Bounded: acknowledgements replace each other, and telemetry is not read
//! while too much else waits.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use quiver_model::{BatchRefusal, Producer, RefusedRows, Sequence, StreamName};
use quiver_protocol::{ConnectionClose, ServerConversation, ServerRules, StreamCloseCode};
use tokio::sync::Notify;

/// Answers to one connection.
#[derive(Debug)]
pub struct Outbox {
    conversation: Mutex<ServerConversation>,
    close: Mutex<Option<ConnectionClose>>,
    is_closing: AtomicBool,
    wake: Notify,
    drained: Notify,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new(ServerConversation::new(
            None,
            ServerRules {
                tokens_allowed: false,
            },
        ))
    }
}

impl Outbox {
    /// Answers through this conversation.
    pub fn new(conversation: ServerConversation) -> Self {
        Self {
            conversation: Mutex::new(conversation),
            close: Mutex::new(None),
            is_closing: AtomicBool::new(false),
            wake: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Does something with the conversation, and wakes the writer.
    pub fn with<T>(&self, f: impl FnOnce(&mut ServerConversation) -> T) -> T {
        let result = f(&mut self
            .conversation
            .lock()
            .unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
        result
    }

    /// Every batch before `next` is settled, and so many rows of the pair were refused one by one.
    /// Nothing is said as long as no batch is settled.
    pub fn ack(
        &self,
        producer: Producer,
        stream: &StreamName,
        next: Sequence,
        refused_rows: &RefusedRows,
    ) {
        if let Some(last) = next.get().checked_sub(1) {
            self.with(|conversation| {
                conversation.ack(producer, stream, Sequence(last), refused_rows);
            });
        }
    }

    /// A batch is refused for ever.
    pub fn reject(
        &self,
        producer: Producer,
        stream: &StreamName,
        sequence: Sequence,
        refusal: &BatchRefusal,
    ) {
        self.with(|conversation| conversation.reject(producer, stream, sequence, refusal));
    }

    /// A telemetry QUIC stream was closed.
    pub fn stream_closed(
        &self,
        quic_stream: u64,
        pair: Option<(Producer, &StreamName)>,
        next: Sequence,
        code: StreamCloseCode,
        retry_after_ms: u32,
        message: &str,
    ) {
        self.with(|conversation| {
            conversation.stream_closed(quic_stream, pair, next, code, retry_after_ms, message);
        });
    }

    /// Ends the connection: says Bye, and has the writer close it. The first reason stands.
    pub fn close(&self, close: ConnectionClose, reconnect_after_ms: u32) {
        let mut slot = self.close.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            self.with(|conversation| conversation.bye(&close, reconnect_after_ms));
            *slot = Some(close);
            self.is_closing.store(true, Ordering::SeqCst);
        }
        drop(slot);
        self.drained.notify_waiters();
        self.wake.notify_one();
    }

    /// Why the connection is to be closed, if it is.
    pub fn closing(&self) -> Option<ConnectionClose> {
        self.close
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the connection is to be closed: nothing more of it is taken.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Waits until the connection is to be closed.
    pub(crate) async fn closed(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.is_closing() {
                return;
            }
            drained.await;
        }
    }

    /// Waits until there may be something to write.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The bytes to write now.
    pub(crate) fn take(&self) -> Option<bytes::Bytes> {
        let bytes = self
            .conversation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .poll_transmit();
        if bytes.is_some() {
            self.drained.notify_waiters();
        }
        bytes
    }

    /// Waits while so much is unsaid that no more telemetry should be read.
    pub(crate) async fn uncongested(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            let congested = self
                .conversation
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_congested();
            if !congested || self.is_closing() {
                return;
            }
            drained.await;
        }
    }
}
