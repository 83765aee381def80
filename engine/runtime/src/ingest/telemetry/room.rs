//! What a telemetry QUIC stream waits for before more of it is read, and the memory of what is being
//! received.

use std::time::Duration;

use quinn::{Chunk, ReadError};
use quiver_hot::Share;
use quiver_protocol::{StreamCloseCode, WireBatch, expanded_dictionary_bytes};

use super::{Closed, TelemetryReader, overloaded};
use crate::ingest::receive::{ARRIVAL_MAX, FREE_BYTES};

/// Bytes read from the QUIC stream at once.
const READ_BYTES: usize = 256 << 10;
/// A backlog waits while more than this share of the memory is in use, in percent: live data goes
/// first.
const BACKLOG_MEMORY_PERCENT: usize = 75;
/// How often a waiting backlog looks again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

impl TelemetryReader {
    /// Waits until more may be read: for a client that reads its answers, for a sender's rate, and
    /// with a backlog for live data. Nobody does so while holding memory that others wait for.
    pub(super) async fn pace(&self) -> Result<(), Closed> {
        self.session.outbox.uncongested().await;
        // Mostly past: then no timer is set.
        if self.not_before > tokio::time::Instant::now() {
            tokio::time::sleep_until(self.not_before).await;
        }
        if self.opened.as_ref().is_some_and(|opened| opened.replayed) {
            let context = &self.session.context;
            let limit = context.budget.capacity(Share::Device) / 100 * BACKLOG_MEMORY_PERCENT;
            while context.budget.used(Share::Device) > limit {
                context.flusher.poke();
                tokio::time::sleep(BACKLOG_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Accounts for the dictionaries that came.
    pub(super) fn room_for_dictionaries(&mut self) -> Result<(), Closed> {
        let bytes = self.decoder.dictionary_bytes();
        if bytes <= FREE_BYTES
            || self
                .session
                .dictionaries
                .try_raise(&mut self.dictionaries, bytes)
        {
            return Ok(());
        }
        Err(Closed::new(
            StreamCloseCode::Overloaded,
            "the server's memory for dictionaries, or this sender's half of it, is in use; send plain text columns, or smaller dictionaries on fewer QUIC streams",
        ))
    }

    /// Takes memory for the message whose length was announced, before its bytes are read.
    pub(super) async fn make_room(&mut self) -> Result<(), Closed> {
        let announced = self.decoder.announced_bytes();
        if announced <= FREE_BYTES {
            self.received = None;
            return Ok(());
        }
        if self
            .received
            .as_ref()
            .is_some_and(|held| held.bytes() >= announced)
        {
            return Ok(());
        }
        // Nobody waits while holding some: see the module `receive`.
        self.received = None;
        let received = self.session.receive.take(announced).await;
        self.received_since = tokio::time::Instant::now();
        self.received = Some(received.ok_or_else(overloaded)?);
        Ok(())
    }

    /// The next bytes; an error if a message holds memory that others wait for, and does not come.
    pub(super) async fn read_chunk(&mut self) -> Result<Result<Option<Chunk>, ReadError>, Closed> {
        loop {
            if self.received.is_none() {
                return Ok(self.receive.read_chunk(READ_BYTES, true).await);
            }
            let read = self.receive.read_chunk(READ_BYTES, true);
            let read = tokio::time::timeout(ARRIVAL_MAX / 4, read).await;
            // Also if a little came: a byte now and then would keep it for ever.
            if self.session.receive.is_short() && self.received_since.elapsed() > ARRIVAL_MAX {
                return Err(overloaded());
            }
            if let Ok(read) = read {
                return Ok(read);
            }
        }
    }

    /// Accounts for a batch as it is, decoded, and as it is stored; that may be more than what was
    /// announced.
    pub(super) async fn charge(&mut self, batch: &WireBatch) -> Result<(), Closed> {
        let columns = || batch.batch.columns().iter();
        // What small batches take at most is known without looking at each buffer closely.
        let most: usize = columns().map(|column| column.get_array_memory_size()).sum();
        if batch.self_contained && most + batch.message.len() <= FREE_BYTES {
            return Ok(());
        }
        let decoded: usize = columns()
            .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
            .sum();
        let present = decoded + batch.message.len();
        // Columns with dictionaries are expanded to be stored, and once more for the log.
        let bytes = present + 2 * expanded_dictionary_bytes(&batch.batch);
        if bytes <= FREE_BYTES || self.session.receive.try_raise(&mut self.received, bytes) {
            return Ok(());
        }
        if present > FREE_BYTES {
            return Err(overloaded());
        }
        // So little is there by now that it may wait, holding nothing, until it can be expanded.
        self.received = None;
        self.received = Some(
            self.session
                .receive
                .take(bytes)
                .await
                .ok_or_else(overloaded)?,
        );
        Ok(())
    }
}
