//! What a recovery finds out about damaged parts of the log: which there are, whose batches were
//! in them, and what of that was not reported before.
//!
//! ```text
//! opening the log ──ranges──▶ pending ──replay gets behind one──▶ passed: its named batches
//! shards ──jumps of sequences──▶ found      settle, so that next_sequence is not lowered
//! reports in the log ──▶ reported           found − reported ──▶ new reports
//! ```

use std::collections::{BTreeMap, VecDeque};

use quiver_hot::Tables;
use quiver_log::{DamagedRange, DamagedRecord, Record, RecordKind};
use quiver_model::{Position, ProducerKind, StreamName, Timestamp};

use crate::{
    damage::{DamageBook, DamageRange, DamageReport, SenderDamage},
    shard::{SequenceGap, Shard},
};

/// Most bytes of senders in one report, whatever a group may hold.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// A range that replay has come past.
struct Passed {
    range: DamagedRange,
    /// It was reported already during this recovery, without its senders.
    early: bool,
}

/// Collects what is found.
pub(super) struct Findings {
    /// State was restored as of this position.
    restored: Position,
    /// Everything before this position was archived when the checkpoint was taken.
    replay_from: Position,
    /// How far each stream was archived at the start: what recovery flushes later says nothing of
    /// rows that it did not have.
    archived: BTreeMap<StreamName, Position>,
    pending: VecDeque<DamagedRange>,
    passed: Vec<Passed>,
    /// With the index of the range that they are in.
    found: Vec<(usize, SenderDamage)>,
    reported: Vec<SenderDamage>,
}

impl Findings {
    pub(super) fn new(
        mut ranges: Vec<DamagedRange>,
        tables: &Tables,
        restored: Position,
        replay_from: Position,
    ) -> Self {
        ranges.sort_by_key(|range| (range.positions.start, range.positions.end));
        ranges.dedup_by_key(|range| range.positions.clone());
        let archived = tables
            .all()
            .iter()
            .map(|table| (table.name().clone(), table.state().flushed()))
            .collect();
        Self {
            restored,
            replay_from,
            archived,
            pending: ranges.into(),
            passed: Vec::new(),
            found: Vec::new(),
            reported: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.passed.is_empty()
    }

    /// Replay has come upon a range; opening the log has named most of them before.
    pub(super) fn add(&mut self, range: DamagedRange) {
        let is_known = |known: &DamagedRange| {
            known.positions.start <= range.positions.start
                && range.positions.end <= known.positions.end
        };
        if !self.pending.iter().any(is_known)
            && !self.passed.iter().any(|passed| is_known(&passed.range))
        {
            self.pending.push_front(range);
        }
    }

    /// Replay comes to `position`: batches named in the ranges before it are settled first.
    pub(super) fn pass_until(&mut self, position: Position, shards: &mut [Shard]) {
        while let Some(range) = self
            .pending
            .pop_front_if(|range| range.positions.end <= position)
        {
            let index = self.passed.len();
            for record in &range.records {
                let is_new = record.position > self.restored;
                let Some(sender) = &record.sender else {
                    continue;
                };
                let shard = usize::from(sender.shard(shards.len().max(1) as u16).get());
                if is_new
                    && !shards
                        .get_mut(shard)
                        .is_some_and(|shard| shard.settle_damaged(record, range.positions.end))
                {
                    continue;
                }
                if let Some(damage) = self.damage_of(record)
                    && (is_new || damage.batches > 0)
                {
                    self.find(index, damage);
                }
            }
            tracing::error!(%range, "a part of the log is damaged and was passed over");
            self.passed.push(Passed {
                range,
                early: false,
            });
        }
    }

    fn find(&mut self, range: usize, damage: SenderDamage) {
        if let Some((last_range, last)) = self.found.last_mut()
            && *last_range == range
            && last.join(&damage)
        {
            return;
        }
        self.found.push((range, damage));
    }

    /// Whether everything of a stream up to `end` was archived.
    fn is_archived(&self, stream: &StreamName, end: Position) -> bool {
        self.archived
            .get(stream)
            .is_some_and(|flushed| flushed.plus(1) >= end)
    }

    /// What is lost with a sender's record.
    fn damage_of(&self, record: &DamagedRecord) -> Option<SenderDamage> {
        let key = (
            record.sender.clone()?,
            record.stream.clone()?,
            record.producer,
        );
        let rejects_lost = !self.is_archived(&StreamName::rejects(), record.end());
        let (next, rows, batches) = match record.kind {
            RecordKind::Data => {
                let stored = if self.is_archived(&key.1, record.end()) {
                    0
                } else {
                    record.rows.saturating_sub(record.refused)
                };
                let refused = if rejects_lost { record.refused } else { 0 };
                let rows = u64::from(stored) + u64::from(refused);
                (record.sequence.next(), rows, u64::from(rows > 0))
            }
            RecordKind::Reject => {
                let rows = if rejects_lost { record.rows } else { 0 };
                (
                    record.sequence.next(),
                    u64::from(rows),
                    u64::from(rejects_lost),
                )
            }
            RecordKind::Lost => (record.sequence, 0, 0),
            _ => return None,
        };
        let first = record.sequence.min(next);
        Some(SenderDamage {
            batches,
            rows,
            counted: record.position <= self.restored,
            ..SenderDamage::new(&key, record.producer_kind, first..next)
        })
    }

    /// A record whose schema lies in the damage: it is there, and cannot be read. `false` if no
    /// damage explains that.
    pub(super) fn undecodable(
        &mut self,
        position: Position,
        record: &Record,
        book: &DamageBook,
    ) -> bool {
        if self.passed.is_empty() {
            // It was reported with the damage, at the start that found it.
            let explains =
                |range: &DamageRange| !range.harmless && range.first_position < position.get();
            return position <= self.restored && book.ranges().iter().any(explains);
        }
        let named = DamagedRecord {
            position,
            kind: record.kind,
            producer_kind: record.producer_kind,
            sender: record.sender.clone(),
            producer: record.producer,
            stream: record.stream.clone(),
            sequence: record.sequence,
            time: record.time,
            rows: record.rows,
            refused: u32::try_from(record.verdict.refused.len()).unwrap_or(u32::MAX),
        };
        if position > self.restored
            && let Some(damage) = self.damage_of(&named)
        {
            self.find(self.passed.len() - 1, damage);
        }
        true
    }

    /// Replay has come to a report of an earlier start.
    pub(super) fn reported(&mut self, report: DamageReport) {
        self.reported.extend(report.senders);
    }

    /// Whether nothing was lost with a range.
    fn is_harmless(&self, range: &DamagedRange) -> bool {
        let end = range.positions.end;
        let is_known = |end: Position| end <= self.restored.plus(1);
        if !range.complete {
            // Any stream may have had rows there.
            return is_known(end)
                && (end <= self.replay_from
                    || (!self.archived.is_empty()
                        && self
                            .archived
                            .keys()
                            .all(|stream| self.is_archived(stream, end))));
        }
        range.records.iter().all(|record| match record.kind {
            RecordKind::Data | RecordKind::Reject => self
                .damage_of(record)
                .is_some_and(|damage| damage.batches == 0),
            RecordKind::Lost => true,
            RecordKind::WireSchema => is_known(record.end()),
            RecordKind::StreamSchema
            | RecordKind::Registry
            | RecordKind::Control(_)
            | RecordKind::Unknown(_) => {
                is_known(record.end()) && self.is_archived(&StreamName::control(), record.end())
            }
        })
    }

    /// What must be reported before a flush: the ranges that were passed, as they are judged
    /// before it. Their senders follow when replay is done.
    pub(super) fn early(&mut self, book: &DamageBook, now: Timestamp) -> Vec<DamageReport> {
        let mut reports = Vec::new();
        for index in 0..self.passed.len() {
            let Some(passed) = self.passed.get(index).filter(|passed| !passed.early) else {
                continue;
            };
            let new = self.new_ranges(&passed.range, book, now);
            if !new.is_empty() {
                self.passed[index].early = true;
            }
            reports.extend(new.into_iter().map(|range| DamageReport {
                range,
                senders: Vec::new(),
            }));
        }
        reports
    }

    /// The parts of a range that were not reported.
    fn new_ranges(
        &self,
        range: &DamagedRange,
        book: &DamageBook,
        now: Timestamp,
    ) -> Vec<DamageRange> {
        let name = range.segment.file_name().unwrap_or_default();
        book.unreported(range.positions.start.get()..range.positions.end.get())
            .into_iter()
            .map(|part| DamageRange {
                segment: name.to_string_lossy().into_owned(),
                offset: range.offset,
                bytes: range.bytes,
                first_position: part.start,
                last_position: part.end - 1,
                checkpoint: self.restored.get(),
                complete: range.complete,
                harmless: self.is_harmless(range),
                found_us: now.as_micros(),
                batches: 0,
                rows: 0,
            })
            .collect()
    }

    /// The reports to be written, now that replay is done. `gaps` are what the shards have seen.
    pub(super) fn finish(
        mut self,
        gaps: Vec<SequenceGap>,
        book: &DamageBook,
        now: Timestamp,
        group_bytes_max: usize,
    ) -> Vec<DamageReport> {
        for gap in gaps {
            self.attribute(&gap);
        }
        let mut senders: BTreeMap<usize, Vec<SenderDamage>> = BTreeMap::new();
        for (range, damage) in std::mem::take(&mut self.found) {
            senders
                .entry(range)
                .or_default()
                .extend(without_reported(damage, &self.reported));
        }
        let mut reports = Vec::new();
        let limit = (group_bytes_max / 2).min(REPORT_BYTES_MAX);
        for (index, passed) in self.passed.iter().enumerate() {
            let mut senders = senders.remove(&index).unwrap_or_default();
            let mut new = self.new_ranges(&passed.range, book, now).into_iter();
            let first = match new.next() {
                Some(range) => range,
                None => {
                    // What the checkpoint had counted was reported with the range.
                    senders.retain(|damage| passed.early || !damage.counted);
                    let start = passed.range.positions.start.get();
                    let known = book
                        .ranges()
                        .into_iter()
                        .find(|known| known.positions().contains(&start));
                    match known {
                        Some(known) if !senders.is_empty() => DamageRange {
                            batches: 0,
                            rows: 0,
                            ..known
                        },
                        _ => continue,
                    }
                }
            };
            reports.extend(in_parts(&first, senders, limit));
            reports.extend(new.map(|range| DamageReport {
                range,
                senders: Vec::new(),
            }));
        }
        reports
    }

    /// Finds the range that a jump of sequences is in: the last one before it of which not every
    /// batch could be named.
    fn attribute(&mut self, gap: &SequenceGap) {
        let range = self.passed.iter().rposition(|Passed { range, .. }| {
            !range.complete
                && range.positions.end <= gap.position
                && range.positions.end > self.restored.plus(1)
        });
        let Some(index) = range else {
            tracing::warn!(?gap, "sequences jump without damage before them");
            return;
        };
        if self.is_archived(&gap.stream, self.passed[index].range.positions.end) {
            return;
        }
        let key = (gap.sender.clone(), gap.stream.clone(), gap.producer);
        let damage = SenderDamage {
            batches: gap.to.get() - gap.from.get(),
            ..SenderDamage::new(&key, ProducerKind::Dense, gap.from..gap.to)
        };
        self.found.push((index, damage));
    }
}

/// The part of `damage` that no report has told of.
fn without_reported(mut damage: SenderDamage, reported: &[SenderDamage]) -> Option<SenderDamage> {
    let scope = |damage: &SenderDamage| {
        (
            damage.sender.clone(),
            damage.stream.clone(),
            damage.producer.clone(),
        )
    };
    let own = scope(&damage);
    for earlier in reported.iter().filter(|earlier| scope(earlier) == own) {
        let covers_start = earlier.first_sequence <= damage.first_sequence;
        if covers_start && earlier.next_sequence >= damage.next_sequence {
            return None;
        }
        if covers_start && earlier.next_sequence > damage.first_sequence {
            damage.first_sequence = earlier.next_sequence;
        } else if earlier.first_sequence < damage.next_sequence
            && earlier.next_sequence >= damage.next_sequence
        {
            damage.next_sequence = earlier.first_sequence;
        }
    }
    let most = damage.next_sequence - damage.first_sequence;
    damage.batches = damage.batches.min(most);
    Some(damage)
}

/// The records that report a range: as many as its senders need.
fn in_parts(range: &DamageRange, senders: Vec<SenderDamage>, limit: usize) -> Vec<DamageReport> {
    let mut parts = vec![DamageReport {
        range: range.clone(),
        senders: Vec::new(),
    }];
    let mut bytes = 0;
    for damage in senders {
        // Numbers, quotes and names of the members.
        let more = damage.sender.len() + damage.stream.len() + 200;
        if bytes > 0 && bytes + more > limit {
            bytes = 0;
            parts.push(DamageReport {
                range: range.clone(),
                senders: Vec::new(),
            });
        }
        bytes += more;
        if let Some(part) = parts.last_mut() {
            part.range.batches += damage.batches;
            part.range.rows += damage.rows;
            part.senders.push(damage);
        }
    }
    parts
}

/// Positions that something durable has seen and the log does not have, at its ends, where no
/// segment tells of them.
pub(super) fn missing_ends(
    dir: &std::path::Path,
    oldest: Position,
    log_end: Position,
    restored: Position,
    seen: Position,
    replay_from: Position,
) -> Vec<DamagedRange> {
    let missing = |from: Position, to: Position| {
        (from < to).then(|| DamagedRange {
            segment: dir.join(format!("{from:020}.seg")),
            offset: 0,
            bytes: 0,
            positions: from..to,
            records: Vec::new(),
            complete: false,
        })
    };
    if log_end == Position(0) {
        return missing(replay_from, seen.plus(1)).into_iter().collect();
    }
    let begin = missing(restored.plus(1), oldest);
    let end = missing(log_end, seen.plus(1));
    begin.into_iter().chain(end).collect()
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
