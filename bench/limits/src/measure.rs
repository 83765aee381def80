//! Time, processor time, and the table of results.

use std::{
    fmt::Write,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::Fault;

/// Linux counts processor time for programs in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Around the table in a page.
const BEGIN: &str = "<!-- limits -->";
const END: &str = "<!-- /limits -->";

/// What stands before and behind the table's place in a page.
///
/// # Errors
/// If the page cannot be read, or has no markers.
pub fn around(page: &Path) -> Result<(String, String), Fault> {
    let text = fs::read_to_string(page)
        .map_err(|error| format!("cannot read {}: {error}", page.display()))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before.to_owned(), after.to_owned()))
    });
    parts.ok_or_else(|| format!("{} has no {BEGIN} … {END}", page.display()).into())
}

/// The time, which a measurement of the machine must take from the machine.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Processor seconds that a process and all its threads have used; `None` once it is gone.
pub fn cpu_seconds(process: Option<u32>) -> Option<f64> {
    let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<f64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// A stretch of time and of this process's processor time.
#[derive(Debug)]
pub struct Stretch {
    start: Instant,
    cpu: f64,
}

impl Stretch {
    /// Begins now.
    pub fn begin() -> Self {
        Self {
            cpu: cpu_seconds(None).unwrap_or_default(),
            start: now(),
        }
    }

    /// How long it has lasted.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What it took.
    pub fn end(&self) -> Taken {
        Taken {
            seconds: self.start.elapsed().as_secs_f64(),
            cpu: cpu_seconds(None).unwrap_or_default() - self.cpu,
        }
    }
}

/// What a stretch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Seconds.
    pub seconds: f64,
    /// Processor seconds of this process.
    pub cpu: f64,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Scenario, or what else the figures are of.
    pub scenario: String,
    /// Stage.
    pub stage: String,
    /// Bytes a second.
    pub bytes_per_second: Option<f64>,
    /// Points a second.
    pub points_per_second: Option<f64>,
    /// Processor seconds of the measured side per million points.
    pub cpu_per_million: Option<f64>,
    /// The same of the generator.
    pub generator_cpu_per_million: Option<f64>,
    /// What else there is to say, in the order it is said.
    pub notes: Vec<(String, f64)>,
}

impl Row {
    /// A measurement of points and bytes in a stretch.
    pub fn of(scenario: &str, stage: &str, taken: Taken, points: u64, bytes: u64) -> Self {
        let millions = points as f64 / 1e6;
        Self {
            scenario: scenario.to_owned(),
            stage: stage.to_owned(),
            bytes_per_second: Some(bytes as f64 / taken.seconds),
            points_per_second: (points > 0).then(|| points as f64 / taken.seconds),
            cpu_per_million: (points > 0).then(|| taken.cpu / millions),
            ..Self::default()
        }
    }

    /// What runs are ordered by.
    fn rate(&self) -> f64 {
        self.points_per_second
            .or(self.bytes_per_second)
            .unwrap_or_default()
    }

    /// Adds something to say.
    #[must_use]
    pub fn note(mut self, name: &str, value: f64) -> Self {
        self.notes.push((name.to_owned(), value));
        self
    }
}

/// All measurements of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Cores of the machine.
    pub cores: usize,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Whether the program was built with optimisation; if not, the figures say nothing.
    pub optimised: bool,
    /// The measurements.
    pub rows: Vec<Row>,
}

impl Report {
    /// A report without measurements.
    pub fn new(duration: Duration) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            seconds: duration.as_secs_f64(),
            optimised: !cfg!(debug_assertions),
            rows: Vec::new(),
        }
    }

    /// Measures so many times, and adds for each stage the run in the middle: by points a second,
    /// or by bytes where there are no points.
    ///
    /// # Errors
    /// If a measurement fails.
    pub fn medians(
        &mut self,
        runs: usize,
        mut measure: impl FnMut(&mut Vec<Row>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut of_stage: Vec<Vec<Row>> = Vec::new();
        for _ in 0..runs.max(1) {
            let mut rows = Vec::new();
            measure(&mut rows)?;
            of_stage.resize_with(of_stage.len().max(rows.len()), Vec::new);
            for (stage, row) in of_stage.iter_mut().zip(rows) {
                stage.push(row);
            }
        }
        for mut rows in of_stage {
            rows.sort_by(|left, right| left.rate().total_cmp(&right.rate()));
            let spread = rows.first().map(Row::rate).zip(rows.last().map(Row::rate));
            let middle = rows.len() / 2;
            let row = rows.swap_remove(middle);
            match spread.filter(|_| runs > 1) {
                Some((least, most)) => self.add(
                    row.note("least", least / 1e6)
                        .note("most", most / 1e6)
                        .note("of runs", runs as f64),
                ),
                None => self.add(row),
            }
        }
        Ok(())
    }

    /// Adds a measurement, and says it at once.
    pub fn add(&mut self, row: Row) {
        eprintln!("{} {}: {}", row.scenario, row.stage, cells(&row).join("  "));
        self.rows.push(row);
    }

    /// The measurement of a stage of a scenario.
    pub fn find(&self, scenario: &str, stage: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.scenario == scenario && row.stage == stage)
    }

    /// The table, as Markdown.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.optimised {
            text.push_str("Built without optimisation: these figures say nothing.\n\n");
        }
        text.push_str(
            "| scenario | stage | MB/s | million points/s | CPU s per million points | generator's CPU | |\n\
             | --- | --- | ---: | ---: | ---: | ---: | --- |\n",
        );
        for row in &self.rows {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                row.scenario,
                row.stage,
                cells(row).join(" | ")
            );
        }
        text
    }

    /// Puts the table into a page, between its markers.
    ///
    /// # Errors
    /// If the page cannot be read or written, or has no markers.
    pub fn fill(&self, page: &Path) -> Result<(), Fault> {
        let (before, after) = around(page)?;
        let text = format!("{before}{BEGIN}\n{}{END}{after}", self.table());
        fs::write(page, text)
            .map_err(|error| format!("cannot write {}: {error}", page.display()).into())
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), Fault> {
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(path, text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }
}

fn cells(row: &Row) -> Vec<String> {
    let number = |value: Option<f64>, unit: f64, digits: usize| {
        value.map_or_else(String::new, |value| format!("{:.digits$}", value / unit))
    };
    let notes: Vec<String> = row
        .notes
        .iter()
        .map(|(name, value)| format!("{name} {}", significant(*value)))
        .collect();
    vec![
        number(row.bytes_per_second, 1e6, 1),
        number(row.points_per_second, 1e6, 2),
        number(row.cpu_per_million, 1.0, 4),
        number(row.generator_cpu_per_million, 1.0, 4),
        notes.join(", "),
    ]
}

/// Three digits that count, or all before the point.
fn significant(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Percentile of sorted values.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (percent / 100.0 * last as f64).round() as usize;
    sorted.get(index.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_this_process_is_known_and_of_no_process_is_not() {
        assert!(cpu_seconds(None).is_some());
        assert_eq!(cpu_seconds(Some(u32::MAX)), None);
    }

    #[test]
    fn a_table_has_a_line_for_each_measurement() {
        let mut report = Report::new(Duration::from_secs(1));
        let taken = Taken {
            seconds: 2.0,
            cpu: 1.0,
        };
        report.add(
            Row::of("few-large/zstd", "decode", taken, 4_000_000, 8_000_000).note("p99 ms", 1.25),
        );
        let table = report.table();
        assert!(
            table.ends_with("| few-large/zstd | decode | 4.0 | 2.00 | 0.2500 |  | p99 ms 1.25 |\n"),
            "{table}"
        );
    }

    #[test]
    fn of_several_runs_the_one_in_the_middle_counts() {
        let mut report = Report::new(Duration::from_secs(1));
        let mut points = [3_000_000, 1_000_000, 2_000_000].into_iter();
        let taken = Taken {
            seconds: 1.0,
            cpu: 1.0,
        };
        report
            .medians(3, |rows| {
                let points = points.next().unwrap();
                rows.push(Row::of("s", "t", taken, points, 0));
                Ok(())
            })
            .unwrap();
        let row = &report.rows[0];
        assert_eq!(row.points_per_second, Some(2e6));
        assert_eq!(row.notes[0], ("least".to_owned(), 1.0));
        assert_eq!(row.notes[1], ("most".to_owned(), 3.0));
    }

    #[test]
    fn a_page_gets_the_table_between_its_markers_and_keeps_the_rest() {
        let directory = tempfile::TempDir::new().unwrap();
        let page = directory.path().join("page.md");
        fs::write(
            &page,
            "before\n<!-- limits -->\nold\n<!-- /limits -->\nbehind\n",
        )
        .unwrap();
        Report::new(Duration::from_secs(1)).fill(&page).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("before\n<!-- limits -->\n"), "{text}");
        assert!(
            text.ends_with("| --- |\n<!-- /limits -->\nbehind\n"),
            "{text}"
        );
        fs::write(&page, "no markers").unwrap();
        assert!(Report::new(Duration::from_secs(1)).fill(&page).is_err());
    }

    #[test]
    fn percentiles_are_of_the_values_themselves() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 51.0);
        assert_eq!(percentile(&values, 99.0), 99.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }
}
