//! Two results and whether they differ: ratios of every figure, each with a bootstrap interval, so
//! that noise is not taken for news.
//!
//! With two runs or more on both sides (`--repeat`) whole runs are drawn anew, which holds what
//! differs from run to run. With one run its seconds are drawn anew, in blocks of neighbours,
//! because seconds that follow each other are alike; that knows nothing of other runs, and the
//! output says so.

use std::path::Path;

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    error::BenchError,
    report::{grouped, millis, si},
    result::{Benchmark, Run, Sample},
};

/// Times that is drawn anew.
const DRAWS: usize = 2_000;
/// Seconds drawn together.
const BLOCK: usize = 5;
/// The interval holds the ratio with this confidence.
const CONFIDENCE: f64 = 0.95;

/// A ratio with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// New over old.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What a figure's change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The interval lies on the bad side of 1.
    Worse,
    /// It lies on the good side.
    Better,
    /// It holds 1.
    Unclear,
}

/// One figure, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Which.
    pub figure: &'static str,
    /// Old and new, as people read them.
    pub values: (String, String),
    /// New over old.
    pub ratio: Ratio,
    /// What it means.
    pub verdict: Verdict,
}

struct Figure {
    name: &'static str,
    more_is_better: bool,
    of_run: fn(&Run) -> f64,
    /// Of some of a run's seconds.
    of_seconds: fn(&[&Sample]) -> f64,
    text: fn(f64) -> String,
}

fn mean(samples: &[&Sample], of: fn(&Sample) -> f64) -> f64 {
    samples.iter().map(|sample| of(sample)).sum::<f64>() / samples.len().max(1) as f64
}

fn of_latency(samples: &[&Sample], of: fn(&Sample) -> u64) -> f64 {
    // Of the seconds that have any: their median, which a single stall does not move.
    let mut values: Vec<u64> = samples
        .iter()
        .map(|sample| of(sample))
        .filter(|v| *v > 0)
        .collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0) as f64
}

const FIGURES: &[Figure] = &[
    Figure {
        name: "rows/s",
        more_is_better: true,
        of_run: |run| run.acked_rows_per_second,
        of_seconds: |samples| mean(samples, |sample| sample.acked_rows),
        text: grouped,
    },
    Figure {
        name: "points/s",
        more_is_better: true,
        of_run: |run| run.acked_points_per_second,
        of_seconds: |samples| mean(samples, |sample| sample.acked_points),
        text: grouped,
    },
    Figure {
        name: "p50",
        more_is_better: false,
        of_run: |run| run.latency.p50 as f64,
        of_seconds: |samples| of_latency(samples, |sample| sample.latency.p50),
        text: |micros| millis(micros as u64),
    },
    Figure {
        name: "p99",
        more_is_better: false,
        of_run: |run| run.latency.p99 as f64,
        of_seconds: |samples| of_latency(samples, |sample| sample.latency.p99),
        text: |micros| millis(micros as u64),
    },
    Figure {
        name: "p99.9",
        more_is_better: false,
        of_run: |run| run.latency.p999 as f64,
        of_seconds: |samples| of_latency(samples, |sample| sample.latency.p999),
        text: |micros| millis(micros as u64),
    },
    Figure {
        name: "server CPU s/M points",
        more_is_better: false,
        of_run: |run| run.server_cpu_per_million,
        of_seconds: |samples| {
            let points = mean(samples, |sample| sample.acked_points);
            mean(samples, |sample| sample.server_cores) / points.max(1e-9) * 1e6
        },
        text: |seconds| format!("{seconds:.3}"),
    },
    Figure {
        name: "server memory",
        more_is_better: false,
        of_run: |run| run.server_bytes_max as f64,
        of_seconds: |samples| mean(samples, |sample| sample.server_bytes as f64),
        text: |bytes| format!("{}B", si(bytes)),
    },
];

/// Reads a result.
///
/// # Errors
/// If it cannot be read, or is no result of `quiver bench`.
pub fn read(path: &Path) -> Result<Benchmark, BenchError> {
    let text = std::fs::read(path).map_err(|error| BenchError::io("read", path, &error))?;
    let benchmark: Benchmark = serde_json::from_slice(&text).map_err(|error| {
        BenchError::Data(format!(
            "{}: {error}; it must be a file of quiver bench --json",
            path.display()
        ))
    })?;
    if benchmark.runs.is_empty() {
        return Err(BenchError::Data(format!(
            "{}: it has no runs; write it with quiver bench --json",
            path.display()
        )));
    }
    Ok(benchmark)
}

/// Compares `new` with `old`.
pub fn compare(old: &Benchmark, new: &Benchmark) -> Vec<Comparison> {
    FIGURES
        .iter()
        .filter_map(|figure| {
            let before = median(&runs(old, figure));
            let after = median(&runs(new, figure));
            if before <= 0.0 || after <= 0.0 {
                return None;
            }
            let ratio = bootstrap(old, new, figure);
            let (good, bad) = (ratio.low > 1.0, ratio.high < 1.0);
            let verdict = match (good, bad, figure.more_is_better) {
                (true, _, true) | (_, true, false) => Verdict::Better,
                (true, _, false) | (_, true, true) => Verdict::Worse,
                _ => Verdict::Unclear,
            };
            Some(Comparison {
                figure: figure.name,
                values: ((figure.text)(before), (figure.text)(after)),
                ratio,
                verdict,
            })
        })
        .collect()
}

fn runs(benchmark: &Benchmark, figure: &Figure) -> Vec<f64> {
    benchmark.runs.iter().map(figure.of_run).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(0.0);
    match middle.checked_sub(1).and_then(|lower| sorted.get(lower)) {
        Some(lower) if sorted.len().is_multiple_of(2) => (lower + upper) / 2.0,
        _ => upper,
    }
}

/// Whether whole runs can be drawn.
fn has_runs(old: &Benchmark, new: &Benchmark) -> bool {
    old.runs.len() > 1 && new.runs.len() > 1
}

fn bootstrap(old: &Benchmark, new: &Benchmark, figure: &Figure) -> Ratio {
    let mut random = SmallRng::seed_from_u64(0x5eed);
    if has_runs(old, new) {
        let (before, after) = (runs(old, figure), runs(new, figure));
        let ratio = median(&after) / median(&before);
        return interval(ratio, || {
            let drawn = |random: &mut SmallRng, values: &[f64]| {
                let draw = (0..values.len())
                    .filter_map(|_| values.get(random.random_range(0..values.len())).copied());
                median(&draw.collect::<Vec<_>>())
            };
            drawn(&mut random, &after) / drawn(&mut random, &before)
        });
    }
    let (before, after) = (seconds(old), seconds(new));
    let ratio = (figure.of_seconds)(&after) / (figure.of_seconds)(&before);
    interval(ratio, || {
        let drawn = |random: &mut SmallRng, samples: &[&Sample]| {
            (figure.of_seconds)(&blocks(random, samples))
        };
        drawn(&mut random, &after) / drawn(&mut random, &before)
    })
}

fn seconds(benchmark: &Benchmark) -> Vec<&Sample> {
    let samples = benchmark.runs.iter().flat_map(|run| &run.samples);
    samples.filter(|sample| sample.measured).collect()
}

/// As many seconds as there are, drawn in blocks of neighbours.
fn blocks<'a>(random: &mut SmallRng, samples: &[&'a Sample]) -> Vec<&'a Sample> {
    let count = samples.len();
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let begin = random.random_range(0..count);
        for offset in 0..BLOCK.min(count - drawn.len()) {
            drawn.extend(samples.get((begin + offset) % count));
        }
    }
    drawn
}

fn interval(ratio: f64, mut draw: impl FnMut() -> f64) -> Ratio {
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| draw())
        .filter(|ratio| ratio.is_finite())
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (part * drawn.len().saturating_sub(1) as f64).round() as usize;
        drawn.get(index).copied().unwrap_or(ratio)
    };
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Ratio {
        ratio,
        low: at(tail),
        high: at(1.0 - tail),
    }
}

/// The comparison as text, and the figures that got worse by more than `gate` (0.05: 5 %), if one
/// is given.
pub fn describe(
    names: (&str, &str),
    old: &Benchmark,
    new: &Benchmark,
    gate: Option<f64>,
) -> (String, Vec<&'static str>) {
    let mut text = format!(
        "{}  ─▶  {}   ({} and {} runs of {})\n",
        names.0,
        names.1,
        old.runs.len(),
        new.runs.len(),
        new.name
    );
    for (key, before, after) in differences(old, new) {
        text.push_str(&format!(
            "note: {key} was {before} and is {after}: not the same load\n"
        ));
    }
    if !has_runs(old, new) {
        text.push_str(
            "note: one run on a side: the intervals are of its seconds and know nothing of how runs differ; use --repeat 5\n",
        );
    }
    let mut failed = Vec::new();
    text.push_str(&format!(
        "{:<22} {:>14} {:>14} {:>8}   {}\n",
        "", "old", "new", "ratio", "95 % interval"
    ));
    for comparison in compare(old, new) {
        let Ratio { ratio, low, high } = comparison.ratio;
        let verdict = match comparison.verdict {
            Verdict::Worse => "WORSE",
            Verdict::Better => "better",
            Verdict::Unclear => "no difference shown",
        };
        text.push_str(&format!(
            "{:<22} {:>14} {:>14} {ratio:>8.3}   {low:.3} to {high:.3}   {verdict}\n",
            comparison.figure, comparison.values.0, comparison.values.1
        ));
        let beyond = gate.is_some_and(|gate| (ratio - 1.0).abs() > gate);
        if comparison.verdict == Verdict::Worse && beyond {
            failed.push(comparison.figure);
        }
    }
    (text, failed)
}

/// Knobs and machines that are not the same on both sides.
fn differences(old: &Benchmark, new: &Benchmark) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let empty = serde_json::Map::new();
    let (before, after) = (
        old.scenario.as_object().unwrap_or(&empty),
        new.scenario.as_object().unwrap_or(&empty),
    );
    for (key, value) in after {
        if let Some(earlier) = before.get(key).filter(|earlier| *earlier != value) {
            found.push((key.clone(), earlier.to_string(), value.to_string()));
        }
    }
    if old.machine.processor != new.machine.processor || old.machine.cores != new.machine.cores {
        let of =
            |machine: &crate::result::Machine| format!("{} × {}", machine.cores, machine.processor);
        found.push(("the machine".to_owned(), of(&old.machine), of(&new.machine)));
    }
    if old.machine.optimised != new.machine.optimised {
        let of = |optimised: bool| {
            if optimised {
                "optimised"
            } else {
                "not optimised"
            }
            .to_owned()
        };
        found.push((
            "the build".to_owned(),
            of(old.machine.optimised),
            of(new.machine.optimised),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Latency;

    /// Runs whose rate scatters by 4 % around `rate`.
    fn benchmark(rate: f64, p99: u64, runs: usize) -> Benchmark {
        let mut random = SmallRng::seed_from_u64(rate as u64);
        let mut near = |value: f64| value * (0.98 + 0.04 * random.random::<f64>());
        let runs = (0..runs)
            .map(|_| Run {
                acked_rows_per_second: near(rate),
                latency: Latency {
                    p99: near(p99 as f64) as u64,
                    ..Latency::default()
                },
                samples: (0..30)
                    .map(|_| Sample {
                        measured: true,
                        acked_rows: near(rate),
                        latency: Latency {
                            p99: near(p99 as f64) as u64,
                            ..Latency::default()
                        },
                        ..Sample::default()
                    })
                    .collect(),
                ..Run::default()
            })
            .collect();
        Benchmark {
            runs,
            ..Benchmark::default()
        }
    }

    fn verdict(old: &Benchmark, new: &Benchmark, figure: &str) -> Comparison {
        let mut all = compare(old, new);
        let index = all.iter().position(|found| found.figure == figure).unwrap();
        all.swap_remove(index)
    }

    #[test]
    fn a_change_beyond_the_noise_is_told_and_the_interval_holds_it() {
        for runs in [1, 5] {
            let old = benchmark(100_000.0, 5_000, runs);
            let new = benchmark(80_001.0, 5_000, runs);
            let found = verdict(&old, &new, "rows/s");
            assert_eq!(found.verdict, Verdict::Worse, "{found:?}");
            let Ratio { ratio, low, high } = found.ratio;
            assert!(
                low <= ratio && ratio <= high && low < 0.8 && high > 0.79,
                "{found:?}"
            );
            assert!(high - low < 0.06, "{found:?}");
            assert_eq!(verdict(&new, &old, "rows/s").verdict, Verdict::Better);
        }
    }

    #[test]
    fn noise_is_not_news_and_more_latency_is_worse() {
        let old = benchmark(100_000.0, 5_000, 6);
        let same = benchmark(100_001.0, 5_000, 6);
        assert_eq!(verdict(&old, &same, "rows/s").verdict, Verdict::Unclear);
        let slower = benchmark(100_000.0, 9_000, 6);
        assert_eq!(verdict(&old, &slower, "p99").verdict, Verdict::Worse);
        let (text, failed) = describe(("a", "b"), &old, &slower, Some(0.05));
        assert_eq!(failed, ["p99"], "{text}");
        let (text, failed) = describe(("a", "b"), &old, &slower, Some(2.0));
        assert!(failed.is_empty() && text.contains("WORSE"), "{text}");
    }

    #[test]
    fn seconds_are_drawn_in_blocks_and_as_many_as_there_are() {
        let samples: Vec<Sample> = (0..12)
            .map(|at| Sample {
                at: f64::from(at),
                ..Sample::default()
            })
            .collect();
        let all: Vec<&Sample> = samples.iter().collect();
        let drawn = blocks(&mut SmallRng::seed_from_u64(3), &all);
        assert_eq!(drawn.len(), 12);
        assert!((drawn[1].at - drawn[0].at).rem_euclid(12.0) == 1.0);
    }
}
