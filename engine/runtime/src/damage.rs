//! Damaged parts of the log, as they are reported: a control record each, which outlives the
//! segment it tells of. [`DamageBook`] is what the durable reports add up to; the senders'
//! ledgers have their part of each.
//!
//! A report is not an accusation of rows: what was archived, or known to the checkpoint, before
//! its part of the log was damaged is still there. See [`DamageRange::harmless`].

use std::{
    fmt,
    ops::Range,
    sync::{PoisonError, RwLock},
};

use quiver_log::Record;
use quiver_model::{Position, Producer, ProducerKind, SenderId, Sequence, StreamName, Timestamp};
use serde::{Deserialize, Serialize};

/// Ranges remembered one by one. A disk with more is beyond telling them apart; the sums go on.
const RANGES_MAX: usize = 1_000;

/// A damaged part of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageRange {
    /// Name of the segment's file.
    pub segment: String,
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// How many bytes it covers; 0 if the file is missing.
    pub bytes: u64,
    /// First position that is lost from the log.
    pub first_position: u64,
    /// Last one.
    pub last_position: u64,
    /// Position of the checkpoint that the engine started from when it was found: rows up to
    /// there had been counted as stored, rows beyond had not.
    pub checkpoint: u64,
    /// Whether all records in it could be named.
    pub complete: bool,
    /// Nothing was lost: all of it was archived, and its sequences were known.
    pub harmless: bool,
    /// When it was found, in microseconds of record time.
    pub found_us: i64,
    /// Batches known to be lost with it.
    pub batches: u64,
    /// Rows of those, as far as they are known.
    pub rows: u64,
}

impl DamageRange {
    /// The lost positions.
    pub fn positions(&self) -> Range<u64> {
        self.first_position..self.last_position.saturating_add(1)
    }

    /// Of these, the ones whose rows the ledgers had counted as stored or refused.
    pub fn counted(&self) -> Range<u64> {
        let end = self.positions().end;
        self.first_position
            ..self
                .checkpoint
                .saturating_add(1)
                .clamp(self.first_position, end)
    }

    /// The ones whose rows no ledger has counted.
    pub fn uncounted(&self) -> Range<u64> {
        self.counted().end..self.positions().end
    }
}

impl fmt::Display for DamageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "positions {} to {} of the log ({} bytes at offset {} of {}), found {}: ",
            self.first_position,
            self.last_position,
            self.bytes,
            self.offset,
            self.segment,
            Timestamp(self.found_us),
        )?;
        if self.harmless {
            return f.write_str("nothing was lost, all of it had been archived");
        }
        write!(f, "{} batches are known to be lost", self.batches)?;
        if !self.complete {
            f.write_str(", and there may be more that cannot be named")?;
        }
        Ok(())
    }
}

/// Consecutive batches of a (sender, producer, stream) that lie in a damaged part of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderDamage {
    /// `device:truck_1`.
    pub sender: String,
    /// The stream.
    pub stream: String,
    /// The producer, in hexadecimal digits.
    pub producer: String,
    /// Whether the producer's sequences have holes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipping: bool,
    /// Sequence of the first batch.
    pub first_sequence: u64,
    /// Sequence after the last one.
    pub next_sequence: u64,
    /// Batches that are lost; 0 if all of it had been archived, and only the log's copy is gone.
    pub batches: u64,
    /// Rows that are lost, as far as they are known.
    pub rows: u64,
    /// Whether the sender's ledger had counted these rows as stored or refused.
    pub counted: bool,
}

/// A (sender, stream, producer).
pub(crate) type SequenceKey = (SenderId, StreamName, Producer);

impl SenderDamage {
    pub(crate) fn new(key: &SequenceKey, kind: ProducerKind, sequences: Range<Sequence>) -> Self {
        let (sender, stream, producer) = key;
        Self {
            sender: sender.to_string(),
            stream: stream.to_string(),
            producer: format!("{:016x}", producer.get()),
            skipping: kind == ProducerKind::Skipping,
            first_sequence: sequences.start.get(),
            next_sequence: sequences.end.get(),
            batches: 0,
            rows: 0,
            counted: false,
        }
    }

    /// Whose it is; `None` if a later version wrote names that this one does not know.
    pub(crate) fn key(&self) -> Option<SequenceKey> {
        let sender = SenderId::from_urn(&format!("urn:quiver:{}", self.sender))?;
        let stream = StreamName::new(&self.stream).ok()?;
        let producer = u64::from_str_radix(&self.producer, 16).ok()?;
        Some((sender, stream, Producer(producer)))
    }

    pub(crate) fn kind(&self) -> ProducerKind {
        if self.skipping {
            ProducerKind::Skipping
        } else {
            ProducerKind::Dense
        }
    }

    /// Takes over what follows at once; `false` if `next` does not follow.
    pub(crate) fn join(&mut self, next: &Self) -> bool {
        let follows = (&self.sender, &self.stream, &self.producer, self.counted)
            == (&next.sender, &next.stream, &next.producer, next.counted)
            && self.next_sequence == next.first_sequence
            // What was archived is told apart from what is lost.
            && (self.batches == 0) == (next.batches == 0);
        if follows {
            self.next_sequence = next.next_sequence;
            self.batches += next.batches;
            self.rows += next.rows;
        }
        follows
    }
}

/// Payload (JSON) of a `DamageReported` record. A range with many senders takes several records,
/// each with the range and a part of the senders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageReport {
    /// The range; its sums are of the senders in this record.
    #[serde(flatten)]
    pub range: DamageRange,
    /// Whose batches are known to be in it.
    pub senders: Vec<SenderDamage>,
}

impl DamageReport {
    /// Reads a record's payload.
    pub(crate) fn read(record: &Record) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&record.payload)
    }
}

impl fmt::Display for DamageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.range)?;
        let mut senders: Vec<&str> = self
            .senders
            .iter()
            .filter(|damage| damage.batches > 0)
            .map(|damage| damage.sender.as_str())
            .collect();
        senders.sort_unstable();
        senders.dedup();
        match senders.as_slice() {
            [] => Ok(()),
            [one] => write!(f, ", of {one}"),
            [first, rest @ ..] => write!(f, ", of {first} and {} others", rest.len()),
        }
    }
}

/// What a checkpoint keeps of the reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageImage {
    /// The latest ranges, in the order they were found.
    ranges: Vec<DamageRange>,
    /// Reports up to this position are in here: replay applies none twice.
    applied_to: u64,
    totals: DamageTotals,
}

/// Sums over all reports there ever were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageTotals {
    /// Ranges with which something was lost, or may have been.
    pub ranges: u64,
    /// Ranges that lost nothing.
    pub harmless_ranges: u64,
    /// Batches known to be lost.
    pub batches: u64,
}

impl DamageImage {
    fn add(&mut self, report: &DamageReport) {
        let range = &report.range;
        self.totals.batches += range.batches;
        let known = self
            .ranges
            .iter_mut()
            .find(|known| known.positions() == range.positions());
        if let Some(known) = known {
            known.batches += range.batches;
            known.rows += range.rows;
            return;
        }
        if range.harmless {
            self.totals.harmless_ranges += 1;
        } else {
            self.totals.ranges += 1;
        }
        if self.ranges.len() == RANGES_MAX {
            self.ranges.remove(0);
        }
        self.ranges.push(range.clone());
    }
}

/// All reported damage, as of the committed position.
#[derive(Debug, Default)]
pub struct DamageBook(RwLock<DamageImage>);

impl DamageBook {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, DamageImage> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a durable report. Applying it again changes nothing.
    pub(crate) fn apply(&self, position: Position, report: &DamageReport) {
        let mut image = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if position.get() <= image.applied_to {
            return;
        }
        image.applied_to = position.get();
        image.add(report);
    }

    /// Applies a report that the log did not take.
    pub(crate) fn apply_unlogged(&self, report: &DamageReport) {
        let mut image = self.0.write().unwrap_or_else(PoisonError::into_inner);
        image.add(report);
    }

    /// The latest ranges, in the order they were found.
    pub fn ranges(&self) -> Vec<DamageRange> {
        self.read().ranges.clone()
    }

    /// Sums over all reports.
    pub fn totals(&self) -> DamageTotals {
        self.read().totals
    }

    /// The parts of `positions` that were not reported.
    pub(crate) fn unreported(&self, positions: Range<u64>) -> Vec<Range<u64>> {
        let mut left = vec![positions];
        for known in &self.read().ranges {
            let known = known.positions();
            left = left
                .into_iter()
                .flat_map(|part| {
                    [
                        part.start..part.end.min(known.start),
                        part.start.max(known.end)..part.end,
                    ]
                })
                .filter(|part| !part.is_empty())
                .collect();
        }
        left
    }

    pub(crate) fn export(&self) -> DamageImage {
        self.read().clone()
    }

    pub(crate) fn import(&self, image: DamageImage) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = image;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(first: u64, last: u64, batches: u64) -> DamageReport {
        DamageReport {
            range: DamageRange {
                first_position: first,
                last_position: last,
                batches,
                ..DamageRange::default()
            },
            senders: Vec::new(),
        }
    }

    #[test]
    fn a_report_counts_once_however_often_it_is_replayed() {
        let book = DamageBook::default();
        book.apply(Position(50), &report(10, 19, 2));
        book.apply(Position(50), &report(10, 19, 2));
        // The rest of the same range's senders.
        book.apply(Position(51), &report(10, 19, 3));
        let restored = DamageBook::default();
        restored.import(book.export());
        restored.apply(Position(51), &report(10, 19, 3));
        assert_eq!(restored.ranges().len(), 1);
        assert_eq!(restored.ranges()[0].batches, 5);
        assert_eq!(
            (restored.totals().ranges, restored.totals().batches),
            (1, 5)
        );
    }

    #[test]
    fn only_what_was_not_reported_is_new() {
        let book = DamageBook::default();
        book.apply(Position(50), &report(10, 19, 0));
        assert_eq!(book.unreported(12..15), []);
        assert_eq!(book.unreported(5..30), [5..10, 20..30]);
        assert_eq!(book.unreported(30..31).first(), Some(&(30..31)));
    }

    #[test]
    fn a_range_is_split_at_the_checkpoint() {
        let mut range = report(10, 19, 0).range;
        for (checkpoint, counted) in [(5, 10..10), (9, 10..10), (12, 10..13), (40, 10..20)] {
            range.checkpoint = checkpoint;
            assert_eq!(range.counted(), counted);
            assert_eq!(range.uncounted(), counted.end..20);
        }
    }

    #[test]
    fn consecutive_batches_are_told_as_one() {
        let sender = SenderId::from_urn("urn:quiver:device:truck_1").unwrap();
        let key = (sender, StreamName::new("readings").unwrap(), Producer(7));
        let one = |sequence: u64, batches| SenderDamage {
            batches,
            ..SenderDamage::new(
                &key,
                ProducerKind::Dense,
                Sequence(sequence)..Sequence(sequence + 1),
            )
        };
        let mut joined = one(3, 1);
        assert_eq!(joined.key(), Some(key.clone()));
        assert!(joined.join(&one(4, 1)) && !joined.join(&one(6, 1)) && !joined.join(&one(5, 0)));
        assert_eq!(
            (joined.first_sequence, joined.next_sequence, joined.batches),
            (3, 5, 2)
        );
    }
}
