//! The proof that nothing was lost: per device, rows received (as the ledger counted them) against
//! rows that queries find, as of one position.
//!
//! `received = stored in tables + rejected + quarantined + expired by retention + damaged`.

use std::collections::BTreeMap;

use arrow_array::{cast::AsArray, types::Int64Type};
use quiver_archive::DeltaArchive;
use quiver_model::{SenderId, SenderKind, StreamName};
use quiver_query::{QueryEngine, QueryError};
use quiver_runtime::Ledger;
use serde::{Deserialize, Serialize};

/// One identity's line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// `device:truck_1`.
    pub sender: String,
    /// Rows that were received, by the ledger.
    pub received: u64,
    /// Rows that the ledger says are stored.
    pub stored: u64,
    /// Rows that queries find in the streams.
    pub found: u64,
    /// Rows refused.
    pub rejected: u64,
    /// Rows kept aside.
    pub quarantined: u64,
    /// Refused and quarantined rows that queries find in `rejects`.
    pub rejects_found: u64,
    /// Batches refused as a whole.
    pub batches_rejected: u64,
    /// Batches that the sender declared lost.
    pub batches_lost: u64,
}

impl AuditLine {
    /// Whether everything received is accounted for.
    pub const fn holds(&self) -> bool {
        self.stored == self.found && self.rejected + self.quarantined == self.rejects_found
    }
}

/// The result of an audit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// Everything up to this position was compared.
    pub position: u64,
    /// By identity.
    pub lines: Vec<AuditLine>,
    /// Damaged parts of the log that the last start found.
    pub damaged: Vec<String>,
    /// Streams whose rows could not all be counted, each with the files that are at fault. What is
    /// in them is missing in `found`.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// Batches that came again since the engine started, and were dropped. 0 for an idle directory.
    pub duplicate_batches_since_start: u64,
}

impl Audit {
    /// Whether every line holds and nothing is damaged.
    pub fn holds(&self) -> bool {
        self.damaged.is_empty()
            && self.unreadable.is_empty()
            && self.lines.iter().all(AuditLine::holds)
    }
}

/// Compares ledgers as of a position with what queries as of the same position find. A stream that
/// cannot be read for damage does not hide the others; `archive` is asked for the files at fault.
pub async fn audit(
    position: u64,
    ledgers: &BTreeMap<SenderId, Ledger>,
    streams: &[String],
    queries: &QueryEngine,
    archive: &DeltaArchive,
) -> Result<Audit, QueryError> {
    let mut unreadable = Vec::new();
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for stream in streams
        .iter()
        .filter(|stream| !matches!(stream.as_str(), "rejects" | "quiver_control"))
    {
        let sql = format!("SELECT device, count(*) FROM {stream} GROUP BY device");
        match counts(queries, &sql).await {
            Ok(counts) => add(&mut found, counts),
            Err(error) => unreadable.extend(at_fault(archive, stream, error).await?),
        }
    }
    let mut rejects: BTreeMap<String, u64> = BTreeMap::new();
    if streams.iter().any(|stream| stream == "rejects") {
        // What a gateway or operator is to blame for is kept under its own id.
        let sql = "SELECT CASE WHEN substr(sender, strpos(sender, ':') + 1) = device THEN sender \
                   ELSE concat('device:', device) END, sum(rows) FROM rejects GROUP BY 1";
        match counts(queries, sql).await {
            Ok(counts) => add(&mut rejects, counts),
            Err(error) => unreadable.extend(at_fault(archive, "rejects", error).await?),
        }
    }
    let mut lines: BTreeMap<String, AuditLine> = BTreeMap::new();
    for (sender, ledger) in ledgers {
        lines.insert(
            sender.to_string(),
            AuditLine {
                sender: sender.to_string(),
                received: ledger.received(),
                stored: ledger.stored,
                found: 0,
                rejected: ledger.rejected,
                quarantined: ledger.quarantined,
                rejects_found: 0,
                batches_rejected: ledger.batches_rejected,
                batches_lost: ledger.batches_lost,
            },
        );
    }
    let device = |id: &str| format!("{}:{id}", SenderKind::Device.as_str());
    for (id, rows) in found {
        line(&mut lines, device(&id)).found += rows;
    }
    for (sender, rows) in rejects {
        line(&mut lines, sender).rejects_found += rows;
    }
    Ok(Audit {
        position,
        lines: lines.into_values().collect(),
        damaged: Vec::new(),
        unreadable,
        duplicate_batches_since_start: 0,
    })
}

fn add(sums: &mut BTreeMap<String, u64>, counts: Vec<(String, u64)>) {
    for (name, rows) in counts {
        *sums.entry(name).or_default() += rows;
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
    if let Some(view) = column.as_string_view_opt() {
        return Some(view.iter().collect());
    }
    if let Some(text) = column.as_string_opt::<i32>() {
        return Some(text.clone());
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
