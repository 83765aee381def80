//! How far the engine is from what the machine can do: each workload by the bare pipeline of
//! `bench/limits` and by the engine under `quiver bench`, in turn, so that what else the machine
//! does hits both; then once more at half of the rate, for the latency of acknowledgements.
//!
//! ```text
//! quiver bench --show ─▶ scenario, with encoding, rate and time set ─▶ quiver bench --serve ─┐
//! quiver-bench-limits pipeline | packets | paced ──────────────────────────────────────────────────┴▶ ratios ─▶ docs/performance.md
//! ```

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{failure::Failure, process, report::Report, workspace::Workspace};

/// What is filled in, here and with the peers.
pub const PAGE: &str = "docs/performance.md";
const THROUGHPUT: &str = "distance";
const LATENCY: &str = "latency";
/// Seconds that are measured, after the warm-up.
const SECONDS: u32 = 12;
/// Target of an acknowledgement's 99th percentile where the disk is quick.
const P99_MS: f64 = 10.0;

/// What the engine is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// The same stages without actors, routing and snapshots, with the same encoding.
    Pipeline,
    /// Packets with a row each, over as many connections.
    Packets,
    /// The same, each answered with a packet, as an acknowledgement is.
    AnsweredPackets,
    /// Nothing of the kind: absolute figures only.
    None,
}

impl Limit {
    /// What `bench/limits` calls it.
    const fn stage(self) -> Option<&'static str> {
        match self {
            Self::Pipeline => Some("bare pipeline"),
            Self::Packets => Some("quic, a row a packet"),
            Self::AnsweredPackets => Some("quic, a row a packet, answered"),
            Self::None => None,
        }
    }
}

/// A workload: a shipped scenario with an encoding.
struct Case {
    scenario: &'static str,
    encoding: &'static str,
    limit: Limit,
    /// Rows a second that are offered; 0 for flat out. Where a row goes by itself, flat out is
    /// what is never reached.
    rate: u32,
    /// Seconds before what is measured.
    warm_up: u32,
}

impl Case {
    const fn new(
        scenario: &'static str,
        encoding: &'static str,
        limit: Limit,
        rate: u32,
        warm_up: u32,
    ) -> Self {
        Self {
            scenario,
            encoding,
            limit,
            rate,
            warm_up,
        }
    }
}

/// Until memory that is used for the first time, and the log's first segments, are behind both: they
/// are a matter of seconds in a server's life.
const BULK_WARM_UP: u32 = 15;

const CASES: &[Case] = &[
    Case::new("few-large", "lz4", Limit::Pipeline, 0, BULK_WARM_UP),
    Case::new("gateway", "zstd", Limit::Pipeline, 0, BULK_WARM_UP),
    Case::new("gateway", "lz4", Limit::Pipeline, 0, BULK_WARM_UP),
    Case::new("gateway", "compact", Limit::None, 0, BULK_WARM_UP),
    Case::new("coalesced", "compact", Limit::None, 800_000, 5),
    Case::new("messages", "compact", Limit::None, 250_000, 5),
    // All have to be connected before.
    Case::new("many-small", "compact", Limit::Packets, 30_000, 12),
    Case::new("many-small", "compact", Limit::AnsweredPackets, 30_000, 12),
];

/// What to measure.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// How often each workload is measured.
    pairs: usize,
    /// Workloads, by the name of their scenario; all if empty. Then the page stays as it is.
    only: Vec<String>,
}

impl Options {
    /// Reads `[--pairs N] [--only SCENARIO]...`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            pairs: 5,
            only: Vec::new(),
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--pairs" => {
                    let text = value()?;
                    options.pairs = text
                        .parse()
                        .ok()
                        .filter(|pairs| *pairs > 0)
                        .ok_or_else(|| format!("--pairs {text} is no number of runs, 1 or more"))?;
                }
                "--only" => options.only.push(value()?.clone()),
                other => return Err(format!("no option {other}")),
            }
        }
        if let Some(unknown) = options
            .only
            .iter()
            .find(|name| CASES.iter().all(|case| case.scenario != **name))
        {
            return Err(format!("--only {unknown}: no such workload"));
        }
        Ok(options)
    }
}

/// One run of the limit or of the engine.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    rows_per_second: f64,
    points_per_second: f64,
    /// Processor seconds of the measured side for a million points.
    cpu: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    commit_p50_ms: f64,
    commit_p99_ms: f64,
    /// The same arrivals and bytes, written and synced by nothing but a loop.
    disk_p50_ms: f64,
    disk_p99_ms: f64,
    acks_per_second: f64,
    bytes_per_point: f64,
}

/// Measures, and fills in the tables.
pub fn run(workspace: &Workspace, options: &Options, report: &mut Report) {
    let wanted = |case: &&Case| {
        options.only.is_empty() || options.only.iter().any(|name| name == case.scenario)
    };
    let mut throughput = vec![
        "| workload | encoding | beside | limit, million points/s | engine | ratio, median of pairs | least–most | limit, CPU s per million | engine | points per CPU second, ratio |".to_owned(),
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |".to_owned(),
    ];
    let mut latency = vec![
        "| workload | encoding | rows/s | p50, ms | p99 | p99.9 | the log's commit p50, ms | p99 | p50, times commit's | p99, of what is allowed | the disk alone p50, ms | p99 | p99, times the disk's |".to_owned(),
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |".to_owned(),
    ];
    let mut is_whole = options.only.is_empty();
    for case in CASES.iter().filter(wanted) {
        let name = format!("{} {}", case.scenario, case.encoding);
        let rows = report.part(name, || measure(workspace, case, options.pairs));
        match rows {
            Some((fast, half)) => {
                eprintln!("{fast}\n{}", half.as_deref().unwrap_or_default());
                throughput.push(fast);
                latency.extend(half);
            }
            None => is_whole = false,
        }
    }
    println!("{}\n\n{}", throughput.join("\n"), latency.join("\n"));
    if is_whole {
        report.part("page", || {
            let page = workspace.root.join(PAGE);
            fill(&page, THROUGHPUT, &throughput.join("\n"))?;
            fill(&page, LATENCY, &latency.join("\n"))
        });
    }
}

/// The rows of both tables for a workload; latency once, whatever the workload is held against.
fn measure(
    workspace: &Workspace,
    case: &Case,
    pairs: usize,
) -> Result<(String, Option<String>), Failure> {
    let work = workspace.target.join("distance");
    fs::create_dir_all(&work)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", work.display())))?;
    let mut limits = Vec::new();
    let mut engines = Vec::new();
    for _ in 0..pairs {
        if let Some(limit) = limit(workspace, &work, case)? {
            limits.push(limit);
        }
        engines.push(engine(workspace, &work, case, f64::from(case.rate))?);
    }
    let fast = throughput_row(case, &limits, &engines);
    if case.limit == Limit::AnsweredPackets {
        return Ok((fast, None));
    }
    let rows = median(&engines, |run| run.rows_per_second);
    let mut halves = Vec::new();
    for _ in 0..pairs.min(3) {
        let half = engine(workspace, &work, case, rows / 2.0)?;
        halves.push(disk(workspace, &work, half)?);
    }
    Ok((fast, Some(latency_row(case, &halves))))
}

fn throughput_row(case: &Case, limits: &[Run], engines: &[Run]) -> String {
    let points = |run: &Run| run.points_per_second;
    let ratios: Vec<f64> = engines
        .iter()
        .zip(limits)
        .map(|(engine, limit)| engine.points_per_second / limit.points_per_second)
        .collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let (of_limits, between, limit_cpu, cpu_ratio) = if limits.is_empty() {
        let none = || "–".to_owned();
        ([none(), none()], none(), none(), none())
    } else {
        let cpu = |runs: &[Run]| median(runs, |run| run.cpu);
        (
            [
                format!("{:.2}", median(limits, points) / 1e6),
                format!("{:.2}", median_of(ratios)),
            ],
            format!("{least:.2}–{most:.2}"),
            format!("{:.3}", cpu(limits)),
            format!("{:.2}", cpu(limits) / cpu(engines)),
        )
    };
    let [limit, ratio] = of_limits;
    format!(
        "| `{}` | {} | {} | {limit} | {:.2} | {ratio} | {between} | {limit_cpu} | {:.3} | {cpu_ratio} |",
        case.scenario,
        case.encoding,
        case.limit.stage().unwrap_or("–"),
        median(engines, points) / 1e6,
        median(engines, |run| run.cpu),
    )
}

fn latency_row(case: &Case, runs: &[Run]) -> String {
    let of = |value: fn(&Run) -> f64| median(runs, value);
    let (p50, p99) = (of(|run| run.p50_ms), of(|run| run.p99_ms));
    let commit = (of(|run| run.commit_p50_ms), of(|run| run.commit_p99_ms));
    let disk_p99 = of(|run| run.disk_p99_ms);
    format!(
        "| `{}` | {} | {:.0} | {p50:.2} | {p99:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} | {:.2} | {disk_p99:.2} | {:.1} |",
        case.scenario,
        case.encoding,
        of(|run| run.rows_per_second),
        of(|run| run.p999_ms),
        commit.0,
        commit.1,
        p50 / commit.0,
        p99 / P99_MS.max(3.0 * commit.1),
        of(|run| run.disk_p50_ms),
        p99 / disk_p99,
    )
}

fn median(runs: &[Run], value: impl Fn(&Run) -> f64) -> f64 {
    median_of(runs.iter().map(value).collect())
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[values.len() / 2],
        values => f64::midpoint(values[values.len() / 2 - 1], values[values.len() / 2]),
    }
}

/// What the machine does without the engine; `None` if nothing is held against this workload.
fn limit(workspace: &Workspace, work: &Path, case: &Case) -> Result<Option<Run>, Failure> {
    let answer = work.join("limits.json");
    let mut command = Command::new(workspace.release_program("quiver-bench-limits")?);
    let seconds = SECONDS.to_string();
    match case.limit {
        Limit::None => return Ok(None),
        Limit::Pipeline => command.args([
            "pipeline",
            "--scenario",
            case.scenario,
            "--compression",
            case.encoding,
        ]),
        Limit::Packets | Limit::AnsweredPackets => command.args([
            "packets",
            "--packet-connections",
            "10000",
            "--messages",
            "16",
        ]),
    };
    if case.limit == Limit::AnsweredPackets {
        command.arg("--answered");
    }
    command
        .args(["--seconds", &seconds])
        .args(["--warm-up", &case.warm_up.to_string(), "--directory"])
        .arg(work)
        .arg("--json")
        .arg(&answer);
    process::output(&mut command)?;
    let stage = case.limit.stage();
    let json = read(&answer)?;
    let found = json["rows"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["stage"].as_str() == stage))
        .ok_or_else(|| Failure::new(format!("{}: no stage {stage:?}", answer.display())))?;
    Ok(Some(Run {
        points_per_second: number(found, "/points_per_second")?,
        cpu: number(found, "/cpu_per_million")?,
        ..Run::default()
    }))
}

/// What the disk does with such arrivals by itself, right after the engine had them.
fn disk(workspace: &Workspace, work: &Path, run: Run) -> Result<Run, Failure> {
    let answer = work.join("disk.json");
    let bytes = run.bytes_per_point * run.points_per_second / run.acks_per_second;
    let mut command = Command::new(workspace.release_program("quiver-bench-limits")?);
    command
        .args(["paced", "--seconds", &SECONDS.to_string()])
        .args([
            "--writes-per-second",
            &format!("{:.0}", run.acks_per_second),
        ])
        .args(["--write-bytes", &format!("{:.0}", bytes.max(1.0))])
        .arg("--directory")
        .arg(work)
        .arg("--json")
        .arg(&answer);
    process::output(&mut command)?;
    let json = read(&answer)?;
    let note = |name: &str| {
        json["rows"][0]["notes"]
            .as_array()
            .and_then(|notes| notes.iter().find(|note| note[0] == name))
            .and_then(|note| note[1].as_f64())
            .ok_or_else(|| Failure::new(format!("{}: no note {name:?}", answer.display())))
    };
    Ok(Run {
        disk_p50_ms: note("p50 ms")?,
        disk_p99_ms: note("p99 ms")?,
        ..run
    })
}

/// The engine under a scenario, offered so many rows a second; 0 for flat out.
fn engine(workspace: &Workspace, work: &Path, case: &Case, rate: f64) -> Result<Run, Failure> {
    let quiver = workspace.release_program("quiver")?;
    let shown = process::output(Command::new(&quiver).args([
        "bench",
        "--scenario",
        case.scenario,
        "--show",
    ]))?;
    let scenario = work.join(format!("{}.toml", case.scenario));
    let text = with_knobs(
        &shown,
        &[
            ("compression", format!("{:?}", case.encoding)),
            ("rate", format!("{rate:.0}")),
            ("warmup", format!("\"{}s\"", case.warm_up)),
            ("duration", format!("\"{SECONDS}s\"")),
        ],
    )?;
    fs::write(&scenario, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", scenario.display())))?;
    let answer = work.join("engine.json");
    let mut command = Command::new(&quiver);
    command
        .args(["bench", "--serve", "--work-dir"])
        .arg(work)
        .arg("--scenario")
        .arg(&scenario)
        .arg("--json")
        .arg(&answer);
    process::output(&mut command)?;
    let json = read(&answer)?;
    let run = |path: &str| number(&json, &format!("/runs/0/{path}"));
    Ok(Run {
        rows_per_second: run("acked_rows_per_second")?,
        points_per_second: run("acked_points_per_second")?,
        cpu: run("server_cpu_per_million")?,
        p50_ms: run("latency/p50")? / 1e3,
        p99_ms: run("latency/p99")? / 1e3,
        p999_ms: run("latency/p999")? / 1e3,
        commit_p50_ms: run("server/commit_p50")? * 1e3,
        commit_p99_ms: run("server/commit_p99")? * 1e3,
        acks_per_second: run("acked_per_second")?,
        bytes_per_point: run("bytes_per_point")?,
        ..Run::default()
    })
}

/// A scenario's TOML with knobs set to other values.
fn with_knobs(shown: &str, knobs: &[(&str, String)]) -> Result<String, Failure> {
    let mut text = shown.to_owned();
    for (name, value) in knobs {
        let start = format!("{name} = ");
        if !text.lines().any(|line| line.starts_with(&start)) {
            return Err(Failure::new(format!("no knob {name} in the scenario")));
        }
        text = text
            .lines()
            .map(|line| {
                if line.starts_with(&start) {
                    format!("{start}{value}\n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
    }
    Ok(text)
}

fn read(path: &Path) -> Result<Value, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn number(json: &Value, path: &str) -> Result<f64, Failure> {
    json.pointer(path)
        .and_then(Value::as_f64)
        .ok_or_else(|| Failure::new(format!("the result has no number {path}")))
}

/// Puts a table between its markers in a page.
fn fill(page: &Path, name: &str, table: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(page)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", page.display())))?;
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let parts = text
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else {
        let page = page.display();
        return Err(Failure::new(format!("{page} has no {begin} … {end}")));
    };
    fs::write(page, format!("{before}{begin}\n{table}\n{end}{after}"))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", page.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn only_workloads_that_there_are_and_sound_numbers_are_taken() {
        let options = Options::parse(&words("--pairs 3 --only gateway")).unwrap();
        assert_eq!((options.pairs, options.only), (3, words("gateway")));
        for wrong in ["--pairs 0", "--pairs x", "--pairs", "--only x", "--else"] {
            assert!(Options::parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn knobs_are_set_and_a_missing_one_is_named() {
        let shown = "rate = 0\nrate_of_else = 1\nduration = \"30s\"\n";
        let set = with_knobs(
            shown,
            &[("rate", "5".into()), ("duration", "\"1s\"".into())],
        );
        assert_eq!(
            set.unwrap(),
            "rate = 5\nrate_of_else = 1\nduration = \"1s\"\n"
        );
        let failure = with_knobs(shown, &[("warmup", "1".into())]).unwrap_err();
        assert!(failure.to_string().contains("warmup"));
    }

    #[test]
    fn ratios_are_those_of_pairs() {
        let run = |points, cpu| Run {
            points_per_second: points,
            cpu,
            ..Run::default()
        };
        let limits = [run(10e6, 0.1), run(20e6, 0.1), run(30e6, 0.1)];
        let engines = [run(9e6, 0.2), run(16e6, 0.2), run(15e6, 0.2)];
        assert_eq!(
            throughput_row(&CASES[0], &limits, &engines),
            "| `few-large` | lz4 | bare pipeline | 20.00 | 15.00 | 0.80 | 0.50–0.90 | 0.100 | 0.200 | 0.50 |"
        );
        assert_eq!(
            throughput_row(&CASES[3], &[], &engines),
            "| `gateway` | compact | – | – | 15.00 | – | – | – | 0.200 | – |"
        );
        assert!((median_of(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
