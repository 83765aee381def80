//! The naive model: what every client sent, what it was told, and so what must be stored.

use std::collections::{BTreeMap, BTreeSet};

use quiver_client::Settled;

/// What is wrong with a batch, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Good,
    /// It has one field more than any batch before it.
    Grown,
    /// A number's column has text: refused as a whole.
    WrongType,
    /// It has no event times: refused as a whole.
    NoTime,
    /// Its first row has no event time, and its second is of next month: one row is refused, one
    /// quarantined, the others are stored.
    SomeRows,
}

impl Kind {
    pub fn is_refused(self) -> bool {
        matches!(self, Self::WrongType | Self::NoTime)
    }
}

/// A batch that a client was given.
#[derive(Clone, Debug)]
pub struct Sent {
    pub device: usize,
    pub stream: String,
    pub rows: u32,
    pub kind: Kind,
    /// The client has said that it has it durably, and its spool was not lost since.
    pub is_spooled: bool,
    pub settled: Option<Settled>,
}

impl Sent {
    /// Rows that are stored, if the batch arrives.
    pub fn stored_rows(&self) -> BTreeSet<u32> {
        match self.kind {
            kind if kind.is_refused() => BTreeSet::new(),
            Kind::SomeRows => (2..self.rows).collect(),
            _ => (0..self.rows).collect(),
        }
    }

    /// Rows of `rejects`, if the batch arrives: (rows they stand for, quarantined).
    fn notes(&self) -> Vec<(u64, bool)> {
        match self.kind {
            kind if kind.is_refused() => vec![(u64::from(self.rows), false)],
            Kind::SomeRows => vec![(1, false), (1, true)],
            _ => Vec::new(),
        }
    }
}

/// A row that the engine has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredRow {
    pub ts: i64,
    pub position: i64,
    pub stream: String,
    pub device: String,
    pub batch: i64,
    pub row: i64,
    pub value: String,
}

/// A row of stream `rejects`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectRow {
    pub position: i64,
    pub device: String,
    pub batch: i64,
    pub rows: u64,
    pub quarantined: bool,
}

/// Everything the engine has, as of one position.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub rows: Vec<StoredRow>,
    pub rejects: Vec<RejectRow>,
}

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub batches: BTreeMap<i64, Sent>,
}

/// The name of a device.
pub fn device_name(device: usize) -> String {
    format!("device-{device:03}")
}

/// The value that a row has: a function of its identity, so that a mixed-up row is seen.
pub fn value_of(batch: i64, row: i64) -> f64 {
    (batch * 1_000 + row) as f64 / 8.0
}

/// The time that a row has beside its event time, in seconds since 1970; some have none. As sent it
/// has this unit and no zone, and is stored in microseconds of UTC.
pub fn seen_of(batch: i64, row: i64) -> Option<i64> {
    let number = batch * 1_000 + row;
    (number % 3 != 0).then_some(if number % 2 == 0 { number } else { -number })
}

impl Model {
    /// The batches that must be there: those whose sender was told that they are settled.
    pub fn acknowledged(&self) -> BTreeSet<i64> {
        self.batches
            .iter()
            .filter(|(_, sent)| sent.settled.is_some())
            .map(|(batch, _)| *batch)
            .collect()
    }

    /// Compares with what the engine has: every batch of `must` is there exactly once; every other
    /// one once or not at all; nothing else; and whole batches only.
    pub fn check(&self, contents: &Contents, must: &BTreeSet<i64>) {
        let mut positions = BTreeSet::new();
        let mut stored: BTreeMap<i64, BTreeSet<u32>> = BTreeMap::new();
        for row in &contents.rows {
            let sent = self.batches.get(&row.batch);
            let sent = sent.unwrap_or_else(|| panic!("a row that nobody sent: {row:?}"));
            assert_eq!(row.stream, sent.stream, "in the wrong stream: {row:?}");
            assert_eq!(
                row.device,
                device_name(sent.device),
                "of the wrong device: {row:?}"
            );
            assert_eq!(
                row.value,
                value_of(row.batch, row.row).to_string(),
                "{row:?}"
            );
            assert!(
                positions.insert((row.position, 0)),
                "a position twice: {row:?}"
            );
            let rows = stored.entry(row.batch).or_default();
            assert!(
                rows.insert(row.row as u32),
                "stored twice: {row:?} of {sent:?}"
            );
        }
        let mut notes: BTreeMap<i64, Vec<(u64, bool)>> = BTreeMap::new();
        for reject in &contents.rejects {
            let sent = self.batches.get(&reject.batch);
            let sent = sent.unwrap_or_else(|| panic!("a reject of nothing: {reject:?}"));
            assert_eq!(reject.device, device_name(sent.device), "{reject:?}");
            let note = (reject.rows, reject.quarantined);
            notes.entry(reject.batch).or_default().push(note);
        }
        for (batch, sent) in &self.batches {
            let rows = stored.remove(batch).unwrap_or_default();
            let mut notes = notes.remove(batch).unwrap_or_default();
            notes.sort_unstable();
            if rows.is_empty() && notes.is_empty() && !must.contains(batch) {
                continue;
            }
            assert_eq!(rows, sent.stored_rows(), "rows of batch {batch}, {sent:?}");
            assert_eq!(notes, sent.notes(), "rejects of batch {batch}, {sent:?}");
            match &sent.settled {
                Some(Settled::Stored) => assert!(!sent.kind.is_refused(), "{batch}: {sent:?}"),
                Some(Settled::Rejected { .. }) => {
                    assert!(sent.kind.is_refused(), "{batch}: {sent:?}");
                }
                Some(Settled::Damaged) => panic!("{batch}: {sent:?}"),
                Some(Settled::Unreported) | None => {}
            }
        }
    }
}

impl Contents {
    /// The row with the greatest (ts, position) of each stream and device.
    pub fn last_values(&self) -> BTreeMap<(String, String), StoredRow> {
        let mut last: BTreeMap<(String, String), StoredRow> = BTreeMap::new();
        for row in &self.rows {
            let key = (row.stream.clone(), row.device.clone());
            let present = last.entry(key).or_insert_with(|| row.clone());
            if (row.ts, row.position) > (present.ts, present.position) {
                *present = row.clone();
            }
        }
        last
    }

    /// Rows stored, rejected and quarantined of each device.
    pub fn ledgers(&self) -> BTreeMap<String, (u64, u64, u64)> {
        let mut ledgers: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for row in &self.rows {
            ledgers.entry(row.device.clone()).or_default().0 += 1;
        }
        for reject in &self.rejects {
            let ledger = ledgers.entry(reject.device.clone()).or_default();
            if reject.quarantined {
                ledger.2 += reject.rows;
            } else {
                ledger.1 += reject.rows;
            }
        }
        ledgers
    }
}
