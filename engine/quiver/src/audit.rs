//! The proof that nothing was lost: per device, rows received (as the ledger counted them) against
//! rows that queries find, as of one position.
//!
//! `received = stored in tables + rejected + quarantined + expired by retention + damaged`.
//!
//! Rows of a damaged part of the log are told apart by where the state was restored from when the
//! damage was found. Beyond that position no ledger has counted them: those that the archive has
//! all the same are received and stored, and what could be named of the others is in the ledger
//! as damaged. Up to that position the ledgers have counted them as stored: those that the tables
//! miss are damaged, and there can be no more of them than the damaged part had positions.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{cast::AsArray, types::Int64Type};
use futures::StreamExt;
use quiver_archive::{DeltaArchive, Directory};
use quiver_model::{SenderId, SenderKind, StreamName};
use quiver_query::{QueryEngine, QueryError};
use quiver_runtime::{
    Ledger,
    damage::{DamageBook, DamageRange},
};
use serde::{Deserialize, Serialize};

use crate::{
    exit::chain,
    expiry::expired,
    tally::{Rows, Tally, text},
};

/// One identity's line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// `device:truck_1`.
    pub sender: String,
    /// Rows that were received, by the ledger.
    pub received: u64,
    /// Rows that the ledger says were stored, without those that have expired.
    pub stored: u64,
    /// Rows that were stored, and have left the archive because they were older than they are kept.
    #[serde(default)]
    pub expired: u64,
    /// Rows that queries find in the streams.
    pub found: u64,
    /// Of these, rows with a position that another row has: each must be there once.
    #[serde(default)]
    pub doubled: u64,
    /// Rows refused.
    pub rejected: u64,
    /// Rows kept aside.
    pub quarantined: u64,
    /// Rows that were acknowledged and are lost in damaged parts of the log, as far as they can be
    /// counted.
    #[serde(default)]
    pub damaged: u64,
    /// Refused and quarantined rows that queries find in `rejects`.
    pub rejects_found: u64,
    /// Batches refused as a whole.
    pub batches_rejected: u64,
    /// Batches that the sender declared lost.
    pub batches_lost: u64,
    /// Batches that were acknowledged and are lost in damaged parts of the log, as far as they are
    /// known.
    #[serde(default)]
    pub batches_damaged: u64,
}

impl AuditLine {
    /// Whether everything received is accounted for.
    pub const fn holds(&self) -> bool {
        self.stored == self.found
            && self.doubled == 0
            && self.rejected + self.quarantined == self.rejects_found
    }
}

/// The result of an audit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// Everything up to this position was compared.
    pub position: u64,
    /// By identity.
    pub lines: Vec<AuditLine>,
    /// Damaged parts of the log that any start has found, in the order they were found.
    pub damaged: Vec<DamageRange>,
    /// How many there ever were with which something was lost, or may have been.
    #[serde(default)]
    pub damaged_ranges: u64,
    /// Batches known to be lost with them.
    #[serde(default)]
    pub damaged_batches: u64,
    /// Streams whose rows could not all be counted, each with the files that are at fault. What is
    /// in them is missing in `found`.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// Batches that came again since the engine started, and were dropped. 0 for an idle directory.
    pub duplicate_batches_since_start: u64,
}

impl Audit {
    /// Whether everything received is accounted for, damage included.
    pub fn balances(&self) -> bool {
        self.lines.iter().all(AuditLine::holds)
    }

    /// Whether everything received is accounted for, and nothing is lost to damage.
    pub fn holds(&self) -> bool {
        self.damaged_ranges == 0 && self.unreadable.is_empty() && self.balances()
    }
}

/// Compares ledgers as of a position with what queries as of the same position find. Nothing may leave
/// the archive since a moment before that position was had: see [`DeltaArchive::still`].
pub async fn audit(
    position: u64,
    ledgers: &BTreeMap<SenderId, Ledger>,
    streams: &[String],
    queries: &QueryEngine,
    archive: &DeltaArchive,
    damage: &DamageBook,
) -> Result<Audit, QueryError> {
    let gone = expired(queries, archive, streams).await?;
    let ranges = damage.ranges();
    let mut finder = Finder {
        streams,
        queries,
        archive,
        unreadable: damaged_tables(archive).await,
    };
    let found = finder.rows_with_doubled().await?;
    let rejects = finder.rejects_by_sender("").await?;
    let mut lines: BTreeMap<String, AuditLine> = BTreeMap::new();
    for (sender, ledger) in ledgers {
        lines.insert(
            sender.to_string(),
            AuditLine {
                sender: sender.to_string(),
                received: ledger.received(),
                stored: ledger.stored,
                expired: 0,
                found: 0,
                doubled: 0,
                rejected: ledger.rejected,
                quarantined: ledger.quarantined,
                damaged: ledger.damaged,
                rejects_found: 0,
                batches_rejected: ledger.batches_rejected,
                batches_lost: ledger.batches_lost,
                batches_damaged: ledger.batches_damaged,
            },
        );
    }
    for (sender, rows) in found {
        let line = line(&mut lines, sender);
        line.found += rows.found;
        line.doubled += rows.doubled;
    }
    for (sender, rows) in rejects {
        line(&mut lines, sender).rejects_found += rows;
    }
    for (device, rows) in gone {
        let line = line(&mut lines, device_sender(&device));
        line.expired += rows;
        line.stored = line.stored.saturating_sub(rows);
    }
    if let Some(uncounted) = condition(&ranges) {
        for (sender, rows) in finder.rows_by_device(&uncounted).await? {
            add(line(&mut lines, sender), rows, |line| &mut line.stored);
        }
        let refused = |quarantined: &str| format!("{uncounted} AND {quarantined}");
        let kept = refused("quarantined");
        for (sender, rows) in finder.rejects_by_sender(&kept).await? {
            add(line(&mut lines, sender), rows, |line| &mut line.quarantined);
        }
        let refused = refused("NOT quarantined");
        for (sender, rows) in finder.rejects_by_sender(&refused).await? {
            add(line(&mut lines, sender), rows, |line| &mut line.rejected);
        }
    }
    let mut lines: Vec<AuditLine> = lines.into_values().collect();
    // Rows of a file that cannot be read are missing for another reason than damage of the log.
    if finder.unreadable.is_empty() {
        explain_missing(&mut lines, &ranges);
    }
    let totals = damage.totals();
    Ok(Audit {
        position,
        lines,
        damaged: ranges,
        damaged_ranges: totals.ranges,
        damaged_batches: totals.batches,
        unreadable: finder.unreadable.into_iter().collect(),
        duplicate_batches_since_start: 0,
    })
}

fn add(line: &mut AuditLine, rows: u64, to: impl Fn(&mut AuditLine) -> &mut u64) {
    line.received += rows;
    *to(line) += rows;
}

/// SQL for "in a damaged part whose rows no ledger has counted"; `None` if there is none.
fn condition(ranges: &[DamageRange]) -> Option<String> {
    let parts: Vec<String> = ranges
        .iter()
        .map(DamageRange::uncounted)
        .filter(|part| !part.is_empty())
        .map(|part| format!("position >= {} AND position < {}", part.start, part.end))
        .collect();
    (!parts.is_empty()).then(|| format!("WHERE ({})", parts.join(" OR ")))
}

/// Makes rows that were counted as stored or refused, and are missing, damaged ones: if there is
/// damage that they can have been in, and no more are missing than were there.
fn explain_missing(lines: &mut [AuditLine], ranges: &[DamageRange]) {
    let positions: u64 = ranges
        .iter()
        .filter(|range| !range.harmless)
        .map(|range| range.counted())
        .map(|part| part.end - part.start)
        .sum();
    let missing = |line: &AuditLine| line.stored.saturating_sub(line.found);
    // The rejects of a batch that was refused as a whole are one position, however many rows.
    if positions == 0 || lines.iter().map(missing).sum::<u64>() > positions {
        return;
    }
    for line in lines {
        let stored = missing(line);
        let refused = (line.rejected + line.quarantined).saturating_sub(line.rejects_found);
        let rejected = refused.min(line.rejected);
        line.stored -= stored;
        line.rejected -= rejected;
        line.quarantined -= refused - rejected;
        line.damaged += stored + refused;
    }
}

/// Counts what queries find, and notes the files that keep them from it.
struct Finder<'a> {
    streams: &'a [String],
    queries: &'a QueryEngine,
    archive: &'a DeltaArchive,
    unreadable: BTreeSet<String>,
}

impl Finder<'_> {
    /// All rows in the streams by identity, and those among them that are there more than once.
    async fn rows_with_doubled(&mut self) -> Result<BTreeMap<String, Rows>, QueryError> {
        let mut tally = Tally::default();
        let mut found: BTreeMap<String, Rows> = BTreeMap::new();
        for stream in streams_of_devices(self.streams) {
            let sql = format!("SELECT device, position FROM \"{stream}\"");
            match tallied(self.queries, &sql, &mut tally).await {
                Ok(devices) => {
                    for (device, rows) in devices {
                        let sum = found.entry(device_sender(&device)).or_default();
                        sum.found += rows.found;
                        sum.doubled += rows.doubled;
                    }
                }
                Err(error) => {
                    let at_fault = at_fault(self.archive, stream, error).await?;
                    self.unreadable.extend(at_fault);
                }
            }
        }
        Ok(found)
    }

    /// Rows in the streams by identity, where `condition` holds.
    async fn rows_by_device(
        &mut self,
        condition: &str,
    ) -> Result<BTreeMap<String, u64>, QueryError> {
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for stream in streams_of_devices(self.streams) {
            let sql =
                format!("SELECT device, count(*) FROM \"{stream}\" {condition} GROUP BY device");
            for (device, rows) in self.counts(stream, &sql).await? {
                *found.entry(device_sender(&device)).or_default() += rows;
            }
        }
        Ok(found)
    }

    /// Rows that `rejects` stands for by identity, where `condition` holds.
    async fn rejects_by_sender(
        &mut self,
        condition: &str,
    ) -> Result<BTreeMap<String, u64>, QueryError> {
        let mut rejects: BTreeMap<String, u64> = BTreeMap::new();
        if self.streams.iter().any(|stream| stream == "rejects") {
            let sql = format!("SELECT attributed, sum(rows) FROM rejects {condition} GROUP BY 1");
            for (sender, rows) in self.counts("rejects", &sql).await? {
                *rejects.entry(sender).or_default() += rows;
            }
        }
        Ok(rejects)
    }

    /// What a query over a stream counts; nothing, if files of it cannot be read.
    async fn counts(&mut self, stream: &str, sql: &str) -> Result<Vec<(String, u64)>, QueryError> {
        match counts(self.queries, sql).await {
            Ok(counts) => Ok(counts),
            Err(error) => {
                let at_fault = at_fault(self.archive, stream, error).await?;
                self.unreadable.extend(at_fault);
                Ok(Vec::new())
            }
        }
    }
}

/// The files that keep a stream from being read; the query's error, if it is not the files.
async fn at_fault(
    archive: &DeltaArchive,
    stream: &str,
    error: QueryError,
) -> Result<Vec<String>, QueryError> {
    let checked = match StreamName::new(stream) {
        Ok(name) => archive.check(&name).await.ok(),
        Err(_) => None,
    };
    let problems = checked.map(|report| report.problems).unwrap_or_default();
    if problems.is_empty() {
        return Err(error);
    }
    Ok(problems
        .iter()
        .map(|problem| format!("stream {stream} cannot be read: {problem}"))
        .collect())
}

fn line(lines: &mut BTreeMap<String, AuditLine>, sender: String) -> &mut AuditLine {
    lines.entry(sender.clone()).or_insert_with(|| AuditLine {
        sender,
        ..AuditLine::default()
    })
}

/// Tables of which nothing can be read: what they hold is in no query's result.
async fn damaged_tables(archive: &DeltaArchive) -> BTreeSet<String> {
    match archive.survey().await {
        Ok(directories) => directories
            .into_iter()
            .filter_map(|(name, directory)| match directory {
                Directory::Damaged(problem) => {
                    Some(format!("stream {name} cannot be read: {problem}"))
                }
                Directory::Table(_) | Directory::Uncommitted(_) => None,
            })
            .collect(),
        Err(error) => BTreeSet::from([chain(&error)]),
    }
}

/// The streams that devices' rows are stored in.
fn streams_of_devices(streams: &[String]) -> impl Iterator<Item = &str> {
    let is_of_devices = |stream: &&str| !matches!(*stream, "rejects" | "quiver_control");
    streams.iter().map(String::as_str).filter(is_of_devices)
}

fn device_sender(device: &str) -> String {
    format!("{}:{device}", SenderKind::Device.as_str())
}

/// Rows of a query of devices and positions.
async fn tallied(
    queries: &QueryEngine,
    sql: &str,
    tally: &mut Tally,
) -> Result<BTreeMap<String, Rows>, QueryError> {
    let mut devices = BTreeMap::new();
    let mut result = queries.query(sql).await?;
    while let Some(batch) = result.next().await {
        tally.count(&batch?, &mut devices);
    }
    Ok(devices)
}

async fn counts(queries: &QueryEngine, sql: &str) -> Result<Vec<(String, u64)>, QueryError> {
    let mut counts = Vec::new();
    for batch in queries.query(sql).await?.collect().await? {
        let names = cast_text(batch.column(0));
        let rows = batch.column(1).as_primitive_opt::<Int64Type>();
        if let (Some(names), Some(rows)) = (names, rows) {
            for row in 0..batch.num_rows() {
                counts.push((
                    names.value(row).to_owned(),
                    u64::try_from(rows.value(row)).unwrap_or(0),
                ));
            }
        }
    }
    Ok(counts)
}

fn cast_text(column: &arrow_array::ArrayRef) -> Option<arrow_array::StringArray> {
    if let Some(text) = text(column) {
        return Some(text);
    }
    let dictionary = column.as_any_dictionary_opt()?;
    let values = dictionary.values().as_string_opt::<i32>()?.clone();
    Some(
        dictionary
            .normalized_keys()
            .into_iter()
            .map(|key| Some(values.value(key).to_owned()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64, checkpoint: u64) -> DamageRange {
        DamageRange {
            first_position: first,
            last_position: last,
            checkpoint,
            ..DamageRange::default()
        }
    }

    fn line(stored: u64, found: u64) -> AuditLine {
        AuditLine {
            received: stored,
            stored,
            found,
            ..AuditLine::default()
        }
    }

    #[test]
    fn missing_rows_are_damaged_only_as_far_as_damage_can_have_held_them() {
        // Ten positions that the ledgers had counted.
        let ranges = [range(11, 30, 20)];
        let mut lines = [line(50, 44), line(30, 26)];
        explain_missing(&mut lines, &ranges);
        for line in &lines {
            assert!(line.holds() && line.received == line.stored + line.damaged);
        }
        assert_eq!([lines[0].damaged, lines[1].damaged], [6, 4]);
        let mut lines = [line(50, 44), line(30, 25)];
        explain_missing(&mut lines, &ranges);
        assert_eq!(lines, [line(50, 44), line(30, 25)]);
        let twice = AuditLine {
            doubled: 1,
            ..line(50, 50)
        };
        assert!(!twice.holds(), "one is lost, and another is there twice");
        let mut lines = [line(50, 49)];
        let harmless = DamageRange {
            harmless: true,
            ..range(11, 30, 20)
        };
        explain_missing(&mut lines, &[harmless]);
        assert!(
            !lines[0].holds(),
            "archived rows do not get lost by damage of the log"
        );
    }

    #[test]
    fn rows_that_no_ledger_has_counted_are_looked_for_in_the_tables() {
        let ranges = [range(11, 30, 20), range(40, 45, 60), range(70, 70, 60)];
        assert_eq!(
            condition(&ranges).unwrap(),
            "WHERE (position >= 21 AND position < 31 OR position >= 70 AND position < 71)"
        );
        assert_eq!(condition(&ranges[1..2]), None);
    }
}
