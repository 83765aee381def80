//! `quiver archive`.

use std::{collections::BTreeMap, sync::Arc};

use quiver_archive::{CompactOptions, DeltaArchive, Directory, SuggestOptions, VacuumOptions};
use quiver_hot::{ArchiveSnapshot, Tables};
use quiver_model::StreamName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{on_system, print_table, remote};
use crate::{
    cli::{ArchiveAction, ArchiveTarget},
    exit::{DATA, Failure, IO},
    given::Given,
    idle::{Idle, Opened},
    numbers::{bytes, grouped},
    remote::Remote,
    say::say,
};

/// A file of the archive.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileRow {
    stream: String,
    /// Relative to `archive/<stream>/` in the data directory.
    path: String,
    day: String,
    rows: u64,
    bytes: u64,
    min_ts: String,
    max_ts: String,
}

/// The files of these versions.
fn file_rows(snapshots: impl Iterator<Item = Arc<ArchiveSnapshot>>) -> Vec<FileRow> {
    let mut rows = Vec::new();
    for snapshot in snapshots {
        rows.extend(snapshot.files.iter().map(|file| FileRow {
            stream: snapshot.stream.to_string(),
            path: file.path.clone(),
            day: day(file.day),
            rows: file.rows,
            bytes: file.bytes,
            min_ts: file.min_ts.to_string(),
            max_ts: file.max_ts.to_string(),
        }));
    }
    rows
}

fn day(days: i32) -> String {
    let time = quiver_model::Timestamp(i64::from(days) * 86_400_000_000);
    time.to_string().chars().take(10).collect()
}

/// Result of a check: what was looked at, and what is wrong, by stream.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Checked {
    files: usize,
    rows: u64,
    problems: BTreeMap<String, Vec<String>>,
    /// Files that no table lists: left by flushes that failed, removed by vacuum.
    orphans: usize,
}

/// What lies in the archive's directories, or in the one that is wanted.
#[derive(Default)]
struct Directories {
    /// Streams with a table.
    tables: Vec<StreamName>,
    /// Streams with files and no Delta log.
    uncommitted: Vec<StreamName>,
    /// Directories that cannot be read as tables, and why.
    damaged: Vec<(String, String)>,
}

impl Directories {
    async fn of(archive: &DeltaArchive, wanted: Option<&str>) -> Result<Self, Failure> {
        let mut found = Self::default();
        let all = archive.survey().await.map_err(Failure::with(IO))?;
        let chosen = all
            .into_iter()
            .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name));
        for (name, directory) in chosen {
            match directory {
                Directory::Table(snapshot) => found.tables.push(snapshot.stream.clone()),
                Directory::Uncommitted(stream) => found.uncommitted.push(stream),
                Directory::Damaged(problem) => found
                    .damaged
                    .push((name, format!("its table cannot be used: {problem}"))),
            }
        }
        let is_empty = found.tables.is_empty() && found.uncommitted.is_empty();
        match wanted {
            Some(wanted) if is_empty && found.damaged.is_empty() => Err(nothing_archived(wanted)),
            _ => Ok(found),
        }
    }
}

fn nothing_archived(stream: &str) -> Failure {
    Failure::new(
        DATA,
        format!("stream {stream:?} has nothing archived; quiver archive files lists what has"),
    )
}

/// Checks the tables of all streams, or of the one that is wanted.
pub async fn check(archive: &DeltaArchive, wanted: Option<&str>) -> Result<Checked, Failure> {
    let directories = Directories::of(archive, wanted).await?;
    let mut checked = Checked::default();
    for (name, problem) in directories.damaged {
        checked.problems.insert(name, vec![problem]);
    }
    for stream in directories.tables.iter().chain(&directories.uncommitted) {
        match archive.check(stream).await {
            Ok(report) => {
                checked.files += report.files;
                checked.rows += report.rows;
                checked.orphans += report.orphans.len();
                if !report.problems.is_empty() {
                    let problems = report.problems.iter().map(ToString::to_string).collect();
                    checked.problems.insert(stream.to_string(), problems);
                }
            }
            Err(error) => {
                checked
                    .problems
                    .insert(stream.to_string(), vec![crate::exit::chain(&error)]);
            }
        }
    }
    Ok(checked)
}

/// A float64 field of a stream, and whether it is a decimal.
#[derive(Debug, Serialize, Deserialize)]
pub struct SuggestedField {
    stream: String,
    field: String,
    /// Values that were looked at.
    values: u64,
    /// Distinct values, as a share of them.
    distinct: f64,
    /// The scale that it is declared with.
    declared: Option<u8>,
    /// The least scale with which all the values are exact.
    scale: Option<u8>,
    /// Bytes a row as it is.
    bytes_now: f64,
    /// Bytes a row with that scale.
    bytes_declared: Option<f64>,
    /// Bytes that declaring it would save in the whole table.
    saves: u64,
}

/// What was found about the fields of streams.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Suggested {
    fields: Vec<SuggestedField>,
    /// Rows that were looked at, of all streams.
    rows_seen: u64,
    /// Rows of all streams.
    rows: u64,
    problems: BTreeMap<String, String>,
}

/// Looks for decimals in the tables of all streams, or of the one that is wanted.
pub async fn suggest(archive: &DeltaArchive, wanted: Option<&str>) -> Result<Suggested, Failure> {
    let directories = Directories::of(archive, wanted).await?;
    let mut suggested = Suggested {
        problems: directories.damaged.into_iter().collect(),
        ..Suggested::default()
    };
    for stream in &directories.tables {
        let found = match archive.suggest(stream, &SuggestOptions::default()).await {
            Ok(found) => found,
            Err(error) => {
                suggested
                    .problems
                    .insert(stream.to_string(), crate::exit::chain(&error));
                continue;
            }
        };
        suggested.rows += found.rows;
        suggested.rows_seen += found.rows_seen;
        suggested
            .fields
            .extend(found.fields.into_iter().map(|field| SuggestedField {
                stream: stream.to_string(),
                saves: field.saves(found.rows),
                field: field.field,
                values: field.values,
                distinct: field.distinct,
                declared: field.declared.map(|scale| scale.digits()),
                scale: field.scale.map(|scale| scale.digits()),
                bytes_now: field.bytes_now,
                bytes_declared: field.bytes_declared,
            }));
    }
    Ok(suggested)
}

/// Result of a compaction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Compacted {
    removed: usize,
    added: usize,
    problems: BTreeMap<String, String>,
}

/// Compacts the tables of all streams, or of the one that is wanted, and has queries read the new
/// files. The rows of a merge take at most `memory_bytes` of memory.
pub async fn compact(
    archive: &DeltaArchive,
    tables: &Tables,
    wanted: Option<&str>,
    memory_bytes: u64,
) -> Result<Compacted, Failure> {
    let mut compacted = Compacted::default();
    let options = CompactOptions {
        memory_bytes,
        ..CompactOptions::default()
    };
    for stream in archived_streams(tables, wanted)? {
        let problem = match archive.compact(&stream, &options).await {
            Ok(report) => {
                compacted.removed += report.removed;
                compacted.added += report.added;
                tables
                    .table(&stream)
                    .map_or(Ok(()), |table| table.install_archived(report.snapshot))
                    .err()
                    .map(|error| error.to_string())
            }
            Err(error) => Some(crate::exit::chain(&error)),
        };
        if let Some(problem) = problem {
            compacted.problems.insert(stream.to_string(), problem);
        }
    }
    Ok(compacted)
}

/// A file that a vacuum deleted, or would delete.
#[derive(Debug, Serialize, Deserialize)]
pub struct VacuumedRow {
    stream: String,
    /// Relative to `archive/<stream>/` in the data directory.
    path: String,
    bytes: u64,
}

/// Result of a vacuum.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Vacuumed {
    /// Whether nothing was deleted, because only the list was wanted.
    dry_run: bool,
    files: Vec<VacuumedRow>,
    /// Files that are old enough, and still read by somebody or of a commit that may yet arrive.
    in_use: usize,
    /// Parts of files that a crash left.
    unfinished: u64,
    /// Streams that have files and no table, and how many files: those are deleted only if the
    /// stream is named, in case somebody has removed the table's log.
    #[serde(default)]
    without_table: BTreeMap<String, usize>,
    problems: BTreeMap<String, String>,
}

/// Deletes what the tables of all streams, or of the one that is wanted, no longer list.
pub async fn vacuum(
    archive: &DeltaArchive,
    wanted: Option<&str>,
    options: &VacuumOptions,
) -> Result<Vacuumed, Failure> {
    let mut directories = Directories::of(archive, wanted).await?;
    let mut vacuumed = Vacuumed {
        dry_run: options.is_dry_run,
        problems: directories.damaged.into_iter().collect(),
        ..Vacuumed::default()
    };
    if wanted.is_some() {
        directories.tables.append(&mut directories.uncommitted);
    }
    for stream in &directories.uncommitted {
        // Without files there is nothing to say.
        if let Ok(report) = archive.check(stream).await {
            vacuumed
                .without_table
                .insert(stream.to_string(), report.orphans.len());
        }
    }
    for stream in &directories.tables {
        match archive.vacuum(stream, options).await {
            Ok(report) => {
                vacuumed.in_use += report.leased;
                vacuumed.unfinished += report.staged;
                vacuumed
                    .files
                    .extend(report.deleted.into_iter().map(|file| VacuumedRow {
                        stream: stream.to_string(),
                        path: file.path,
                        bytes: file.bytes,
                    }));
            }
            Err(error) => {
                vacuumed
                    .problems
                    .insert(stream.to_string(), crate::exit::chain(&error));
            }
        }
    }
    Ok(vacuumed)
}

/// Streams that have an archived table: all of them, or the one that is wanted.
fn archived_streams(tables: &Tables, wanted: Option<&str>) -> Result<Vec<StreamName>, Failure> {
    let archived: Vec<StreamName> = tables
        .all()
        .iter()
        .filter(|table| table.state().archived().version >= 0)
        .map(|table| table.name().clone())
        .filter(|stream| wanted.is_none_or(|wanted| wanted == stream.as_str()))
        .collect();
    match wanted {
        Some(wanted) if archived.is_empty() => Err(nothing_archived(wanted)),
        _ => Ok(archived),
    }
}

/// The files of the tables of all streams, or of the one that is wanted, as queries see them.
pub fn files(tables: &Tables, wanted: Option<&str>) -> Result<Vec<FileRow>, Failure> {
    let streams = archived_streams(tables, wanted)?;
    let tables = streams.iter().filter_map(|stream| tables.table(stream));
    Ok(file_rows(
        tables.map(|table| table.state().archived().clone()),
    ))
}

/// Does what is asked, on a running engine or an idle data directory.
pub fn run(action: ArchiveAction, given: &Given) -> Result<(), Failure> {
    match action {
        ArchiveAction::Files(target) => {
            let query = target
                .stream
                .as_ref()
                .map_or(String::new(), |stream| format!("?stream={stream}"));
            let rows: Vec<FileRow> = at(
                &target,
                given,
                |remote| remote.get(&format!("/api/v1/archive/files{query}")),
                async |idle, wanted| files(idle.recovered.tables(), wanted),
            )?;
            show(&rows, target.json, || show_files(&rows))
        }
        ArchiveAction::Check(target) => {
            let checked: Checked = at(
                &target,
                given,
                |remote| remote.post_text("/api/v1/archive/check", &choice(&target)),
                async |idle, wanted| check(&idle.archive, wanted).await,
            )?;
            show(&checked, target.json, || show_checked(&checked))?;
            match checked.problems.is_empty() {
                true => Ok(()),
                false => Err(Failure::new(
                    DATA,
                    "the archive is damaged: see the lines marked with ✗",
                )),
            }
        }
        ArchiveAction::Suggest(target) => {
            let suggested: Suggested = at(
                &target,
                given,
                |remote| remote.post_text("/api/v1/archive/suggest", &choice(&target)),
                async |idle, wanted| suggest(&idle.archive, wanted).await,
            )?;
            show(&suggested, target.json, || show_suggested(&suggested))?;
            first_problem(&suggested.problems)
        }
        ArchiveAction::Compact(target) => {
            let compacted: Compacted = at(
                &target,
                given,
                |remote| remote.post_text("/api/v1/archive/compact", &choice(&target)),
                async |idle, wanted| {
                    // Nothing else takes memory meanwhile.
                    let memory_bytes = target.engine.memory_shares().cap / 2;
                    compact(&idle.archive, idle.recovered.tables(), wanted, memory_bytes).await
                },
            )?;
            show(&compacted, target.json, || {
                say!(
                    "{} files merged into {}",
                    compacted.removed,
                    compacted.added
                );
            })?;
            first_problem(&compacted.problems)
        }
        ArchiveAction::Vacuum(args) => {
            let target = &args.target;
            let options = VacuumOptions {
                older_than: args.older_than,
                is_dry_run: args.dry_run,
            };
            let vacuumed: Vacuumed = at(
                target,
                given,
                |remote| {
                    let mut body = choice(target);
                    // Never younger than what was asked for.
                    body["older_than_seconds"] = args.older_than.as_secs_f64().ceil().into();
                    body["dry_run"] = args.dry_run.into();
                    remote.post_text("/api/v1/archive/vacuum", &body)
                },
                async |idle, wanted| vacuum(&idle.archive, wanted, &options).await,
            )?;
            show(&vacuumed, target.json, || show_vacuumed(&vacuumed))?;
            first_problem(&vacuumed.problems)
        }
    }
}

/// Asks the engine that runs, or does it on the idle data directory.
fn at<T: DeserializeOwned>(
    target: &ArchiveTarget,
    given: &Given,
    ask: impl FnOnce(&Remote) -> Result<String, Failure>,
    act: impl AsyncFnOnce(&Idle, Option<&str>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let ask = |remote: Remote| {
        given.check_for_running_engine(&[])?;
        serde_json::from_str(&ask(&remote)?).map_err(Failure::with(IO))
    };
    if let Some(remote) = remote(&target.target)? {
        return ask(remote);
    }
    on_system(async {
        let idle = match Idle::open(&target.target.data_dir, &target.engine).await? {
            Opened::Idle(idle) => idle,
            Opened::Running(remote) => return ask(remote),
        };
        act(&idle, target.stream.as_deref()).await
    })
}

fn choice(target: &ArchiveTarget) -> serde_json::Value {
    serde_json::json!({ "stream": target.stream })
}

fn first_problem(problems: &BTreeMap<String, String>) -> Result<(), Failure> {
    match problems.first_key_value() {
        None => Ok(()),
        Some((stream, problem)) => Err(Failure::new(DATA, format!("{stream}: {problem}"))),
    }
}

fn show<T: Serialize>(value: &T, json: bool, human: impl FnOnce()) -> Result<(), Failure> {
    if json {
        say!(
            "{}",
            serde_json::to_string_pretty(value).map_err(Failure::with(IO))?
        );
    } else {
        human();
    }
    Ok(())
}

fn show_files(files: &[FileRow]) {
    let mut rows = vec![
        ["stream", "day", "rows", "size", "from", "to", "file"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for file in files {
        rows.push(vec![
            file.stream.clone(),
            file.day.clone(),
            file.rows.to_string(),
            bytes(file.bytes),
            file.min_ts.clone(),
            file.max_ts.clone(),
            file.path.clone(),
        ]);
    }
    print_table(&rows);
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    say!("{} files, {}", files.len(), bytes(total));
}

fn show_checked(checked: &Checked) {
    say!(
        "{} files, {} rows, {} orphans",
        checked.files,
        grouped(checked.rows),
        checked.orphans
    );
    for (stream, problems) in &checked.problems {
        for problem in problems {
            say!("✗ {stream}: {problem}");
        }
    }
}

fn show_suggested(suggested: &Suggested) {
    let head = [
        "stream",
        "field",
        "distinct",
        "scale",
        "declared",
        "B/row",
        "B/row declared",
        "saves",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let digits =
        |scale: Option<u8>| scale.map_or_else(|| "-".to_owned(), |scale| scale.to_string());
    for field in &suggested.fields {
        rows.push(vec![
            field.stream.clone(),
            field.field.clone(),
            format!("{:.1}%", field.distinct * 100.0),
            digits(field.scale),
            digits(field.declared),
            format!("{:.2}", field.bytes_now),
            field
                .bytes_declared
                .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.2}")),
            bytes(field.saves),
        ]);
    }
    print_table(&rows);
    say!(
        "found in {} of {} rows; rows that were not looked at may need more digits",
        grouped(suggested.rows_seen),
        grouped(suggested.rows)
    );
}

fn show_vacuumed(vacuumed: &Vacuumed) {
    for file in &vacuumed.files {
        say!("{}/{}  {}", file.stream, file.path, bytes(file.bytes));
    }
    let total: u64 = vacuumed.files.iter().map(|file| file.bytes).sum();
    say!(
        "{} files, {}, {}; {} old enough are still in use",
        vacuumed.files.len(),
        bytes(total),
        if vacuumed.dry_run {
            "would be deleted (a dry run)"
        } else {
            "deleted"
        },
        vacuumed.in_use
    );
    if vacuumed.unfinished > 0 {
        say!(
            "{} unfinished files of a crash deleted",
            vacuumed.unfinished
        );
    }
    for (stream, files) in &vacuumed.without_table {
        say!(
            "{stream} has {files} files and no table, as a first flush that failed leaves; to delete them: quiver archive vacuum {stream}"
        );
    }
}
