//! Instruction counts of the hottest kernels under callgrind, against committed numbers: a gate
//! for performance that a busy machine does not move.
//!
//! The program is `bench/kernels/examples/one_kernel.rs`, optimised and without query planning.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    failure::Failure,
    process,
    report::Report,
    workspace::{Workspace, text},
};

/// What is counted: kernel, and how many runs of it.
const KERNELS: &[(&str, u64)] = &[
    ("decode/none/1", 200),
    ("decode/zstd/100", 50),
    ("decode/zstd/1000", 10),
    ("normalise/100", 50),
    ("route/dispatch/100", 50),
    ("actor/append", 10),
    ("log/memory/64x1", 20),
    ("memtable/shard/100", 50),
    ("flush/sort/100", 3),
    ("flush/parquet/1000", 1),
    // A minute of rows, so that every window closes once.
    ("windows/tumbling/interleaved", 60),
    ("windows/tumbling/by_device", 60),
];
/// The committed numbers.
const COMMITTED: &str = "bench/kernels/instructions.json";
/// The function below which instructions count; it is in the program under this very name.
const COUNTED: &str = "quiver_measured_run";
/// How far a count may be off: hash maps are seeded anew in every process.
const TOLERANCE_PERCENT: f64 = 3.0;

/// What to do with the counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Write them down instead of comparing.
    pub update: bool,
}

impl Options {
    /// Reads `[--update]`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self::default()),
            [update] if update == "--update" => Ok(Self { update: true }),
            other => Err(format!(
                "no option {:?}; there is --update",
                other.join(" ")
            )),
        }
    }
}

/// Builds, counts, and compares or writes down.
pub fn run(workspace: &Workspace, options: &Options, report: &mut Report) {
    if !is_installed("valgrind") {
        eprintln!(
            "valgrind is not installed, so the instructions of {} kernels are not counted; \
             install it (on Debian: apt-get install valgrind)",
            KERNELS.len()
        );
        report.totals.skipped += KERNELS.len() as u64;
        return;
    }
    let Some(program) = report.part("build", || build(workspace)) else {
        return;
    };
    let mut counts = BTreeMap::new();
    report.part("instructions", || {
        for (kernel, runs) in KERNELS {
            let count = count(&program, kernel, *runs)?;
            println!("{kernel:<28} {count:>14} instructions a run");
            counts.insert((*kernel).to_owned(), count);
        }
        Ok(())
    });
    if counts.len() < KERNELS.len() {
        return;
    }
    let path = workspace.root.join(COMMITTED);
    if options.update {
        report.part("write", || write(&path, &counts));
        return;
    }
    let committed = report.part("compare", || read(&path));
    for finding in compare(&committed.unwrap_or_default(), &counts) {
        match finding {
            Ok(_) => report.totals.passed += 1,
            Err(text) => {
                eprintln!("{text}");
                report.totals.failed += 1;
            }
        }
    }
}

fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The program that runs one kernel.
fn build(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let mut command = workspace.cargo();
    command
        .args(["build", "--release", "--locked"])
        .args(["-p", "quiver-bench-kernels", "--no-default-features"])
        .args(["--example", "one_kernel"])
        .args(["--message-format", "json-render-diagnostics"]);
    let mut program = None;
    process::lines(&mut command, |line| {
        program = executable(line).or(program.take());
    })?;
    program.ok_or_else(|| Failure::new("cargo built no program one_kernel"))
}

fn executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    (text(message.get("target")?, "name") == "one_kernel").then_some(())?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

/// Instructions of one run of a kernel.
fn count(program: &Path, kernel: &str, runs: u64) -> Result<u64, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .args([kernel, &runs.to_string()])
        .output()
        .map_err(|error| Failure::new(format!("cannot run valgrind: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match collected(&said) {
        Some(instructions) if output.status.success() => Ok(instructions / runs.max(1)),
        _ => Err(Failure::new(format!(
            "valgrind did not count the instructions of {kernel} ({}):\n{said}",
            output.status
        ))),
    }
}

/// The number in valgrind's line `==1== Collected : 1374293`; nothing was counted if it is 0.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    let number = line.rsplit(' ').find(|word| !word.is_empty())?;
    number.parse().ok().filter(|count| *count > 0)
}

/// Each kernel's fate: a text that says how it differs, or that it does not.
fn compare(
    committed: &BTreeMap<String, u64>,
    counts: &BTreeMap<String, u64>,
) -> Vec<Result<String, String>> {
    counts
        .iter()
        .map(|(kernel, count)| {
            let Some(before) = committed.get(kernel) else {
                return Err(format!(
                    "{kernel}: {COMMITTED} has no count; run `cargo xtask instructions --update`"
                ));
            };
            let change = (*count as f64 / (*before).max(1) as f64 - 1.0) * 100.0;
            let text = format!("{kernel}: {before} -> {count} instructions ({change:+.1} %)");
            if change > TOLERANCE_PERCENT {
                Err(format!(
                    "{text}: find out why; if it must be, `cargo xtask instructions --update`"
                ))
            } else if change < -TOLERANCE_PERCENT {
                Err(format!(
                    "{text}: better; keep it with `cargo xtask instructions --update`"
                ))
            } else {
                Ok(text)
            }
        })
        .collect()
}

fn read(path: &Path) -> Result<BTreeMap<String, u64>, Failure> {
    let wrong = |problem: String| {
        Failure::new(format!(
            "{}: {problem}; run `cargo xtask instructions --update`",
            path.display()
        ))
    };
    let content = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let content: Value =
        serde_json::from_str(&content).map_err(|error| wrong(error.to_string()))?;
    let kernels = content.get("instructions").and_then(Value::as_object);
    let kernels = kernels.ok_or_else(|| wrong("has no object \"instructions\"".to_owned()))?;
    Ok(kernels
        .iter()
        .filter_map(|(kernel, count)| Some((kernel.clone(), count.as_u64()?)))
        .collect())
}

fn write(path: &Path, counts: &BTreeMap<String, u64>) -> Result<(), Failure> {
    let content = json!({ "tolerance_percent": TOLERANCE_PERCENT, "instructions": counts });
    fs::write(path, format!("{content:#}\n"))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter()
            .map(|(kernel, count)| ((*kernel).to_owned(), *count))
            .collect()
    }

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 1374293\n==7==\n";
        assert_eq!(collected(said), Some(1_374_293));
        assert_eq!(collected("==7== Collected : 0\n"), None);
        assert_eq!(collected("valgrind: no such tool\n"), None);
    }

    #[test]
    fn a_count_that_is_off_or_not_known_fails_and_says_what_to_do() {
        let committed = counts(&[("a", 1000), ("b", 1000), ("c", 1000)]);
        let now = counts(&[("a", 1029), ("b", 1031), ("c", 969), ("d", 1)]);
        let fates = compare(&committed, &now);
        assert!(fates[0].is_ok());
        for (fate, word) in fates[1..]
            .iter()
            .zip(["find out why", "better", "no count"])
        {
            assert!(fate.as_ref().unwrap_err().contains(word), "{fate:?}");
        }
    }

    #[test]
    fn the_only_option_is_to_update() {
        let parse = |words: &[&str]| {
            Options::parse(
                &words
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(parse(&[]), Ok(Options { update: false }));
        assert_eq!(parse(&["--update"]), Ok(Options { update: true }));
        assert!(parse(&["--yes"]).is_err());
    }
}
