//! `quiver archive`.

use std::{collections::BTreeMap, sync::Arc};

use quiver_archive::{CompactOptions, DeltaArchive};
use quiver_hot::{ArchiveSnapshot, Tables};
use quiver_model::StreamName;
use serde::{Deserialize, Serialize};

use super::{on_system, print_table, remote};
use crate::{
    cli::{ArchiveAction, ArchiveTarget},
    exit::{DATA, Failure, IO},
    idle::Idle,
    numbers::{bytes, grouped},
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
pub fn file_rows(snapshots: impl Iterator<Item = Arc<ArchiveSnapshot>>) -> Vec<FileRow> {
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

/// Does what is asked, on a running engine or an idle data directory.
pub fn run(action: ArchiveAction) -> Result<(), Failure> {
    match action {
        ArchiveAction::Files(target) => {
            let rows: Vec<FileRow> = match remote(&target.target)? {
                Some(remote) => {
                    let query = target
                        .stream
                        .as_ref()
                        .map_or(String::new(), |stream| format!("?stream={stream}"));
                    parse(&remote.get(&format!("/api/v1/archive/files{query}"))?)?
                }
                None => on_system(async {
                    let idle = open(&target).await?;
                    let streams = streams(&idle, target.stream.as_deref())?;
                    let tables = idle.recovered.tables();
                    let tables = streams.iter().filter_map(|stream| tables.table(stream));
                    Ok(file_rows(
                        tables.map(|table| table.state().archived().clone()),
                    ))
                })?,
            };
            show(&rows, target.json, || show_files(&rows))
        }
        ArchiveAction::Check(target) => {
            let checked: Checked = match remote(&target.target)? {
                Some(remote) => {
                    parse(&remote.post_text("/api/v1/archive/check", &choice(&target))?)?
                }
                None => on_system(async {
                    let idle = open(&target).await?;
                    let streams = streams(&idle, target.stream.as_deref())?;
                    Ok(check(&idle.archive, &streams).await)
                })?,
            };
            show(&checked, target.json, || {
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
            })?;
            match checked.problems.is_empty() {
                true => Ok(()),
                false => Err(Failure::new(
                    DATA,
                    "the archive is damaged: see the lines marked with ✗",
                )),
            }
        }
        ArchiveAction::Compact(target) => {
            let compacted: Compacted = match remote(&target.target)? {
                Some(remote) => {
                    parse(&remote.post_text("/api/v1/archive/compact", &choice(&target))?)?
                }
                None => on_system(async {
                    let idle = open(&target).await?;
                    let streams = streams(&idle, target.stream.as_deref())?;
                    Ok(compact(&idle.archive, idle.recovered.tables(), &streams).await)
                })?,
            };
            show(&compacted, target.json, || {
                println!(
                    "{} files merged into {}",
                    compacted.removed, compacted.added
                );
            })?;
            match compacted.problems.iter().next() {
                None => Ok(()),
                Some((stream, problem)) => Err(Failure::new(DATA, format!("{stream}: {problem}"))),
            }
        }
    }
}

fn choice(target: &ArchiveTarget) -> serde_json::Value {
    serde_json::json!({ "stream": target.stream })
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(Failure::with(IO))
}

async fn open(target: &ArchiveTarget) -> Result<Idle, Failure> {
    Idle::open(&target.target.data_dir, &target.engine).await
}

fn streams(idle: &Idle, wanted: Option<&str>) -> Result<Vec<StreamName>, Failure> {
    let tables = idle.recovered.tables().all();
    let archived = tables
        .iter()
        .filter(|table| table.state().archived().version >= 0);
    let streams: Vec<StreamName> = archived.map(|table| table.name().clone()).collect();
    match wanted {
        None => Ok(streams),
        Some(wanted) => match streams.into_iter().find(|stream| stream.as_str() == wanted) {
            Some(stream) => Ok(vec![stream]),
            None => Err(Failure::new(
                DATA,
                format!("stream {wanted:?} has nothing archived"),
            )),
        },
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
