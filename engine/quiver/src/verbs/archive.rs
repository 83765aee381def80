//! `quiver archive`.

use std::{collections::BTreeMap, sync::Arc};

use quiver_archive::{CompactOptions, DeltaArchive, VacuumOptions};
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

/// Checks these streams' tables.
pub async fn check(archive: &DeltaArchive, streams: &[StreamName]) -> Checked {
    let mut checked = Checked::default();
    for stream in streams {
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
    checked
}

/// Result of a compaction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Compacted {
    removed: usize,
    added: usize,
    problems: BTreeMap<String, String>,
}

/// Compacts these streams' tables, and has queries read the new files.
pub async fn compact(archive: &DeltaArchive, tables: &Tables, streams: &[StreamName]) -> Compacted {
    let mut compacted = Compacted::default();
    for stream in streams {
        let problem = match archive.compact(stream, &CompactOptions::default()).await {
            Ok(report) => {
                compacted.removed += report.removed;
                compacted.added += report.added;
                tables
                    .table(stream)
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
    compacted
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
    problems: BTreeMap<String, String>,
}

/// Deletes what these streams' tables no longer list.
pub async fn vacuum(
    archive: &DeltaArchive,
    streams: &[StreamName],
    options: &VacuumOptions,
) -> Vacuumed {
    let mut vacuumed = Vacuumed {
        dry_run: options.is_dry_run,
        ..Vacuumed::default()
    };
    for stream in streams {
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
    vacuumed
}

/// Streams that have an archived table: all of them, or the one that is wanted.
pub fn archived_streams(tables: &Tables, wanted: Option<&str>) -> Result<Vec<StreamName>, String> {
    let archived: Vec<StreamName> = tables
        .all()
        .iter()
        .filter(|table| table.state().archived().version >= 0)
        .map(|table| table.name().clone())
        .collect();
    match wanted {
        None => Ok(archived),
        Some(wanted) => match archived
            .into_iter()
            .find(|stream| stream.as_str() == wanted)
        {
            Some(stream) => Ok(vec![stream]),
            None => Err(format!(
                "stream {wanted:?} has nothing archived; quiver archive files lists what has"
            )),
        },
    }
}

/// The files of these streams' tables, as queries see them.
pub fn files(tables: &Tables, streams: &[StreamName]) -> Vec<FileRow> {
    let tables = streams.iter().filter_map(|stream| tables.table(stream));
    file_rows(tables.map(|table| table.state().archived().clone()))
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
                async |idle, streams| files(idle.recovered.tables(), streams),
            )?;
            show(&rows, target.json, || show_files(&rows))
        }
        ArchiveAction::Check(target) => {
            let checked: Checked = at(
                &target,
                given,
                |remote| remote.post_text("/api/v1/archive/check", &choice(&target)),
                async |idle, streams| check(&idle.archive, streams).await,
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
        ArchiveAction::Compact(target) => {
            let compacted: Compacted = at(
                &target,
                given,
                |remote| remote.post_text("/api/v1/archive/compact", &choice(&target)),
                async |idle, streams| {
                    compact(&idle.archive, idle.recovered.tables(), streams).await
                },
            )?;
            show(&compacted, target.json, || {
                println!(
                    "{} files merged into {}",
                    compacted.removed, compacted.added
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
                async |idle, streams| vacuum(&idle.archive, streams, &options).await,
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
    act: impl AsyncFnOnce(&Idle, &[StreamName]) -> T,
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
        let streams = archived_streams(idle.recovered.tables(), target.stream.as_deref())
            .map_err(|text| Failure::new(DATA, text))?;
        Ok(act(&idle, &streams).await)
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
        println!(
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
    println!("{} files, {}", files.len(), bytes(total));
}

fn show_checked(checked: &Checked) {
    println!(
        "{} files, {} rows, {} orphans",
        checked.files,
        grouped(checked.rows),
        checked.orphans
    );
    for (stream, problems) in &checked.problems {
        for problem in problems {
            println!("✗ {stream}: {problem}");
        }
    }
}

fn show_vacuumed(vacuumed: &Vacuumed) {
    for file in &vacuumed.files {
        println!("{}/{}  {}", file.stream, file.path, bytes(file.bytes));
    }
    let total: u64 = vacuumed.files.iter().map(|file| file.bytes).sum();
    println!(
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
        println!(
            "{} unfinished files of a crash deleted",
            vacuumed.unfinished
        );
    }
}
