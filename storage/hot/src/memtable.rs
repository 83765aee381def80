//! Rows of one stream on one shard, in position order, as batches.
//!
//! One thread appends; any thread reads. Small batches are coalesced like the levels of an LSM
//! tree, so that a million one-row batches become a few hundred batches, and each row is copied
//! at most three times:
//!
//! ```text
//! rows in batch   1..15   16..255   256..4095   4096..
//! level             0        1          2          3 (left alone)
//! ```
//!
//! When the last [`FAN_IN`] batches are of one level or lower, they become one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use quiver_model::Position;

use crate::{
    Reservation,
    layout::{batch_bytes, conform, position_bounds, slice_positions},
    sync::lock,
};

/// Batches of a level that are merged into one.
const FAN_IN: usize = 16;
/// Level of batches that are large enough.
const TOP_LEVEL: u8 = 3;
/// A batch with this many bytes is large enough, however few its rows are: merging copies them, and
/// a flush of 64 MiB sorts a thousand batches as well as a hundred.
const LARGE_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Memtable {
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    entries: Vec<Entry>,
    reservations: Vec<Reservation>,
    usage: Usage,
}

#[derive(Debug)]
struct Entry {
    batch: RecordBatch,
    bytes: usize,
    level: u8,
}

/// What a memtable holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) rows: u64,
    pub(crate) bytes: usize,
    /// First and last position.
    pub(crate) bounds: Option<(Position, Position)>,
    /// When the first row came.
    pub(crate) since: Option<Duration>,
}

impl Entry {
    fn new(batch: RecordBatch) -> Self {
        let bytes = batch_bytes(&batch);
        let level = match batch.num_rows() {
            _ if bytes >= LARGE_BYTES => TOP_LEVEL,
            0..=15 => 0,
            16..=255 => 1,
            256..=4095 => 2,
            _ => TOP_LEVEL,
        };
        Self {
            batch,
            bytes,
            level,
        }
    }
}

impl Memtable {
    /// Appends a batch whose positions are all greater than those before it.
    pub(crate) fn append(&self, batch: RecordBatch, reservation: Reservation, now: Duration) {
        let Some((first, last)) = position_bounds(&batch) else {
            return;
        };
        let entry = Entry::new(batch);
        let mut rows = lock(&self.rows);
        rows.usage.rows += entry.batch.num_rows() as u64;
        rows.usage.bytes += entry.bytes;
        rows.usage.bounds = Some((rows.usage.bounds.map_or(first, |(first, _)| first), last));
        rows.usage.since.get_or_insert(now);
        rows.reserve(reservation);
        rows.entries.push(entry);
        rows.coalesce();
    }

    pub(crate) fn usage(&self) -> Usage {
        lock(&self.rows).usage
    }

    /// Adds the rows with position in (`after`, `up_to`] to `into`, in position order.
    pub(crate) fn read(&self, after: Position, up_to: Position, into: &mut Vec<RecordBatch>) {
        let rows = lock(&self.rows);
        into.extend(
            rows.entries
                .iter()
                .filter_map(|entry| slice_positions(&entry.batch, after, up_to)),
        );
    }
}

impl Rows {
    fn reserve(&mut self, mut reservation: Reservation) {
        for held in &mut self.reservations {
            match held.merge(reservation) {
                Ok(()) => return,
                Err(other) => reservation = other,
            }
        }
        self.reservations.push(reservation);
    }

    fn coalesce(&mut self) {
        while let Some(level) = self.entries.last().map(|entry| entry.level)
            && level < TOP_LEVEL
        {
            let run = self
                .entries
                .iter()
                .rev()
                .take_while(|entry| entry.level <= level)
                .count();
            if run < FAN_IN {
                return;
            }
            let start = self.entries.len() - run;
            let Some(merged) = merge(&self.entries[start..]) else {
                return;
            };
            let before: usize = self.entries[start..].iter().map(|entry| entry.bytes).sum();
            self.usage.bytes = (self.usage.bytes + merged.bytes).saturating_sub(before);
            self.entries.truncate(start);
            self.entries.push(merged);
        }
    }
}

/// One batch of all entries, in the layout of the newest schema among them; `None` if they do not
/// fit into one, in which case they stay as they are.
fn merge(entries: &[Entry]) -> Option<Entry> {
    let newest = entries
        .iter()
        .map(|entry| entry.batch.schema_ref())
        .max_by_key(|schema| schema.fields().len())?;
    let newest: SchemaRef = Arc::clone(newest);
    let conformed: Vec<RecordBatch> = entries
        .iter()
        .map(|entry| conform(&entry.batch, &newest))
        .collect::<Result<_, _>>()
        .ok()?;
    Some(Entry::new(concat_batches(&newest, &conformed).ok()?))
}

#[cfg(test)]
#[path = "memtable_tests.rs"]
mod tests;
